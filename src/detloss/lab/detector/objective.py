"""What a detector is trained for: the losses, what their terms weigh, and how far the training has come."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from detloss.calling import Loss, Sum
from detloss.lab.detector.config import DetectorConfig
from detloss.names import BOX_LOSSES, find_loss

DEFAULT = "default"
"""The name of the losses that a detector of somebody else comes with."""

if TYPE_CHECKING:
    from detloss.lab.detector.criterion import Sums


@dataclass(eq=False)
class Objective:
    """What a detector is trained for. `Criterion` says what each part does in the dense detector.

    Attributes:
        classification, box: from `find_detector_loss`; None: the losses that the detector comes with.
        box_weight: of the box terms.
        distribution_weight, balance, weigh_boxes, seed, class_weights: of the dense detector.
        steps: of the training.
        step: the one that comes next, from 0; whoever trains sets it.
        first, whole: of a batch in parts, as `Criterion` takes them; whoever trains sets them.
    """

    classification: Loss | None
    box: Loss | None
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    balance: Literal["fixed", "guided"] = "fixed"
    weigh_boxes: Literal["alike", "score", "iou"] = "alike"
    steps: int = 1
    seed: int = 0
    class_weights: Tensor | None = None
    step: int = 0
    first: int = 0
    whole: "Sums | None" = None


def find_detector_loss(
    name: str, known: Mapping[str, Callable[..., Tensor]], detector: DetectorConfig
) -> Loss | None:
    """The loss of a name for training this detector; None for "default".

    Raises:
        ValueError: no such loss, or it has what only the dense detector can do.
    """
    if name == DEFAULT:
        if detector.dense:
            raise ValueError(
                f"loss {name!r} is the one that a detector of others comes with; {detector.kind} has none of "
                "its own: name one, such as focal or giou"
            )
        return None
    loss = find_loss(name, known, training=True)
    schedule = "a schedule of a box loss" if known is BOX_LOSSES else ""
    if not detector.dense and (found := only_here(loss, schedule)):
        raise ValueError(
            f"loss {name!r}: {found} is for the dense detector, and kind is {detector.kind}; leave it out"
        )
    return loss


def only_here(loss: Loss, schedule: str) -> str:
    """What a loss has that only this package's own training of its own detector can do, "" for nothing.

    `schedule`: what a number that changes while training is called where it is such a thing, else "".
    """
    terms = [one for _, one in loss.function.terms] if isinstance(loss.function, Sum) else [loss]
    for what, there in (
        ("mining", loss.mining is not None),
        ("class_weight", loss.class_weight is not None),
        (schedule, any(one.schedules for one in terms)),
    ):
        if what and there:
            return what
    return ""
