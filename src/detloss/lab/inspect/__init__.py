"""What imbalance is in a data set and for a model: tables and figures, for `detloss inspect`.

`objects` counts what lies in a data set, `recommend` what another detector would make of it. `logits` applies
a trained detector; `quadrants`, `figure4` and `examples` measure where its loss comes from. `inspection` does
all of it.
"""

from detloss.lab.detector.locations import count_locations
from detloss.lab.inspect.figure4 import LossBins
from detloss.lab.inspect.inspection import elementwise_losses
from detloss.lab.inspect.logits import Labelled
from detloss.lab.inspect.quadrants import QuadrantSums

__all__ = ["Labelled", "LossBins", "QuadrantSums", "count_locations", "elementwise_losses"]
