"""Detectors that somebody else wrote: the losses they are handed, and what is told of their own terms."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detloss.calling import Loss
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.postprocess import Limits
from detloss.schedule import Schedule


class OtherDetector(nn.Module):
    """A detector with torchvision's detection API and labels 0..C-1, trained for an objective.

    The terms of its boxes are multiplied with the objective's box weight.

    Args:
        model: the detector, its losses in it.
        objective: what it is trained for; None where it is only applied.

    Attributes:
        limits: which predictions become detections.
        terms: of the last training batch, without gradient and weights: columns of the log by name.
        notes: what was done to make it that a user should know.
        made: what else than the configuration decides its architecture, as JSON; a run keeps it.
        frozen: modules that stay in evaluation mode.
    """

    def __init__(self, model: nn.Module, objective: Objective | None) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.limits = Limits()
        self.terms: dict[str, Tensor] = {}
        self.scheduled: list[tuple[Schedule, Tensor]] = []
        self.notes: list[str] = []
        self.made: dict[str, Any] = {}
        self.frozen: list[nn.Module] = []

    def train(self, mode: bool = True) -> "OtherDetector":
        """As any module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """The weighted terms of the loss of a batch; in evaluation the detections of each image."""
        if not self.training:
            setting: Any = self.model
            setting.limits = self.limits
            return self.model(images)
        if self.objective is None or targets is None:
            raise ValueError("targets or the objective is None; training needs both, evaluation neither")
        for schedule, number in self.scheduled:
            number.fill_(schedule.value(self.objective.step, self.objective.steps))
        losses = self.model(images, targets)
        if not isinstance(losses, dict) or not losses:
            raise ValueError(
                f"the detector returned {type(losses).__name__} in training; it must return a dict of losses "
                "by name, as torchvision's detectors do"
            )
        boxes = {name: term for name, term in losses.items() if is_of_boxes(name)}
        classes = {name: term for name, term in losses.items() if is_of_classes(name)}
        self.terms = {
            column: torch.stack([term.detach() for term in of.values()]).sum()
            for column, of in (("classification_loss", classes), ("box_loss", boxes))
            if of
        }
        return losses | {name: self.objective.box_weight * term for name, term in boxes.items()}


def is_of_boxes(name: str) -> bool:
    """Whether a term has a name of box losses, such as bbox_regression, loss_giou_aux_0 or box."""
    return any(part in name for part in ("box", "iou")) and "ctr" not in name


def is_of_classes(name: str) -> bool:
    """Whether a term has a name of classification losses, such as classification, loss_vfl_dn_1 or cls."""
    return any(part in name for part in ("class", "cls", "vfl", "loss_ce", "loss_mal"))


def to_swap(loss: Loss | None, scheduled: list[tuple[Schedule, Tensor]]) -> Any:
    """A loss as `swap_losses` takes it; numbers that change in training are put on the list."""
    if loss is None or not loss.schedules:
        return loss and loss.name
    # 0-dim tensors: whoever calls the function sees what they are filled with.
    numbers = {name: torch.full((), schedule.values[0]) for name, schedule in loss.schedules.items()}
    scheduled += [(schedule, numbers[name]) for name, schedule in loss.schedules.items()]
    return partial(loss.function, **numbers)


def to_call(loss: Loss | None, scheduled: list[tuple[Schedule, Tensor]]) -> Callable[..., Tensor] | None:
    """A loss as this package's are called: `f(inputs, targets, reduction="none", ...)`."""
    if loss is None or not loss.own:
        given = to_swap(loss, scheduled)
        return given if loss is None or loss.schedules else loss.function
    return partial(_reduced, loss)


def _reduced(loss: Loss, *inputs: Tensor, reduction: str = "none", **more: Any) -> Tensor:
    """A user's own function, which may know no reduction."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it may be 'none', 'mean' or 'sum'")
    value = loss(*inputs, **{name: given for name, given in more.items() if name in loss.takes})
    return value if reduction == "none" else getattr(value, reduction)()
