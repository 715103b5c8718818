"""The DIoU paper's simulation of box regression: `detloss simulate`.

`simulation` lets boxes follow a gradient and measures how near they come to their targets; `published` has
the gradients of the authors' own script.
"""

from detloss.lab.simulate.simulation import Regression, SimulationConfig, simulate

__all__ = ["Regression", "SimulationConfig", "simulate"]
