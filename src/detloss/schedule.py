"""Hyperparameters that change during training: gamma, beta, alpha as a value of the step.

A schedule has no state. What it was at step 100 it is again after a restart, so there is nothing to save, and
a run that was interrupted goes on as if it had not been.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

Shape = Literal["linear", "cosine", "stages"]


@dataclass(frozen=True)
class Schedule:
    """A number as a function of the training step.

    With t = step / (steps - 1), from 0 at the first step to 1 at the last, and a, b the two values:

    - `linear`: (1-t) a + t b
    - `cosine`: the same with (1 - cos πt) / 2 for t: slow at both ends
    - `stages`: each of the values for an equal part of the steps, in their order

    Attributes:
        shape: linear, cosine or stages.
        values: two, or for stages one or more.

    Raises:
        ValueError: an unknown shape, or values that are not finite or not as many as it takes.

    Examples:
        >>> gamma = Schedule("stages", (0.0, 1.0, 2.0))
        >>> [gamma.value(step, 6) for step in range(6)]
        [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    """

    shape: Shape
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"shape is {self.shape!r}; it may be {', '.join(get_args(Shape))}")
        count = len(self.values)
        if count != 2 and (self.shape != "stages" or not count):
            takes = "at least one value" if self.shape == "stages" else "two values, the first and the last"
            raise ValueError(f"values is {self.values}; {self.shape} takes {takes}")
        if not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"values is {self.values}; they must be finite")

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read a schedule as the command line writes it, `linear:0:2`, `cosine:0:2` or `stages:0:1:2`.

        Raises:
            ValueError: any other text.
        """
        shape, *values = text.split(":")
        try:
            return cls(shape.strip(), tuple(map(float, values)))  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(
                f"{text!r} is not a schedule ({error}); write linear:0:2, cosine:0:2 or stages:0:1:2"
            ) from None

    def value(self, step: int, steps: int) -> float:
        """The number at `step`, from 0, of `steps`: the first value at step 0, the last at the last step.

        After the last step it stays what it was there, so a longer run is not an error; a run of one step has
        the first value.

        Raises:
            ValueError: a step below 0 or steps below 1.
        """
        if step < 0 or steps < 1:
            raise ValueError(f"step is {step} of {steps}; step counts from 0, and steps must be at least 1")
        if self.shape == "stages":
            return self.values[min(step * len(self.values) // steps, len(self.values) - 1)]
        first, last = self.values
        part = min(1.0, step / max(1, steps - 1))
        if self.shape == "cosine":
            part = (1 - math.cos(math.pi * part)) / 2
        return (1 - part) * first + part * last


def set_scheduled(module: nn.Module, step: int, steps: int, **schedules: Schedule) -> None:
    """Set hyperparameters of a loss Module to what their schedules say, before the loss of each step.

    The Module is built with a tensor for each of them, `SigmoidFocalLoss(gamma=torch.tensor(0.0))`: that is
    filled in place, so neither the fused pass nor a `torch.compile` around the Module compiles again, and it
    stays on the device the Module was moved to. (With a function instead of a Module,
    `gamma.fill_(schedule.value(step, steps))` is all there is to do.)

    Args:
        module: the loss.
        step: the step of the training, from 0.
        steps: the number of steps of the whole training.
        **schedules: a schedule for each hyperparameter, by its name.

    Raises:
        ValueError: the Module has no such hyperparameter, or has it as a number or as a tensor of integers.
    """
    for name, schedule in schedules.items():
        kind, first = type(module).__name__, float(schedule.values[0])
        if not hasattr(module, name):
            raise ValueError(f"{kind} has no {name}, so there is nothing to schedule")
        held = getattr(module, name)
        if not isinstance(held, Tensor) or not held.is_floating_point():
            raise ValueError(
                f"{name} of {kind} is {held!r}; a schedule needs a floating tensor to fill: "
                f"{kind}({name}=torch.tensor({first}))"
            )
        held.detach().fill_(schedule.value(step, steps))
