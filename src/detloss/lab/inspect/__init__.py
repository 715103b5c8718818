"""What imbalance is in a data set and for a model: tables, no drawing.

From data and the detector's configuration: `count_objects`, `count_locations`, `count_sizes`. From a trained
detector's logits: `QuadrantSums`, `LossBins` (Figure 4 of the focal loss paper), `example`. From both:
`recommend`. `measure_data` and `measure_model` do it all for `detloss inspect`.
"""

from detloss.lab.detector.locations import LevelCounts, LocationCounts, count_locations
from detloss.lab.inspect.examples import Example, example
from detloss.lab.inspect.figure4 import (
    GAMMAS,
    HARDEST,
    HardestShare,
    LossBins,
    LossCurve,
    hardest_shares,
)
from detloss.lab.inspect.inspection import (
    DataTables,
    InspectConfig,
    ModelTables,
    elementwise_losses,
    measure_data,
    measure_model,
)
from detloss.lab.inspect.logits import Labelled, labelled_logits, softmax_margins
from detloss.lab.inspect.objects import ObjectCounts, SizeCount, count_objects, count_sizes
from detloss.lab.inspect.quadrants import QUADRANTS, Claim, Quadrant, QuadrantSums, check_claims, percent
from detloss.lab.inspect.recommend import Alternative, Recommendation, count_alternatives, recommend

__all__ = [
    "GAMMAS",
    "HARDEST",
    "QUADRANTS",
    "Alternative",
    "Claim",
    "DataTables",
    "Example",
    "HardestShare",
    "InspectConfig",
    "Labelled",
    "LevelCounts",
    "LocationCounts",
    "LossBins",
    "LossCurve",
    "ModelTables",
    "ObjectCounts",
    "Quadrant",
    "QuadrantSums",
    "Recommendation",
    "SizeCount",
    "check_claims",
    "count_alternatives",
    "count_locations",
    "count_objects",
    "count_sizes",
    "elementwise_losses",
    "example",
    "hardest_shares",
    "labelled_logits",
    "measure_data",
    "measure_model",
    "percent",
    "recommend",
    "softmax_margins",
]
