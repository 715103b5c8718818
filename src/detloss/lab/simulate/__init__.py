"""The DIoU paper's simulation of box regression: `detloss simulate`.

`simulation` lets boxes follow a gradient and tells how near they come; `published` has the gradients of the
authors' own script.
"""

from detloss.lab.simulate.published import PUBLISHED, SLIPS, Published
from detloss.lab.simulate.simulation import (
    CASES,
    CENTRES,
    PER_CENTRE,
    STUCK,
    Regression,
    SimulationConfig,
    anchor_centres,
    find_gradient,
    overlap_share,
    simulate,
    sizes,
)

__all__ = [
    "CASES",
    "CENTRES",
    "PER_CENTRE",
    "PUBLISHED",
    "SLIPS",
    "STUCK",
    "Published",
    "Regression",
    "SimulationConfig",
    "anchor_centres",
    "find_gradient",
    "overlap_share",
    "simulate",
    "sizes",
]
