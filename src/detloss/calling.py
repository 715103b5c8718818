"""How training calls a loss, the library's or a user's own: on logits and labels, on pairs of boxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detloss.balance import ClassWeight
from detloss.losses import softmax_focal_loss
from detloss.mining import Mining
from detloss.schedule import Schedule

IGNORED = -100
"""The label of what no loss may count: the `ignore_index` default of every classification loss."""


@dataclass(frozen=True)
class Loss:
    """A loss that `detloss.names.find_loss` found, ready to be called.

    Attributes:
        name: the text it was found by.
        function: with the hyperparameters of `name` bound, all but the scheduled ones.
        takes: the names of the function's arguments.
        own: whether it is the user's own function or a sum, not one of the library's.
        schedules: of hyperparameters that change during training, by name.
        mining: which locations count in training; None: all.
        class_weight: how classes are weighed in training, by their objects there; None: alike.
    """

    name: str
    function: Callable[..., Tensor]
    takes: frozenset[str]
    own: bool
    schedules: Mapping[str, Schedule] = field(default_factory=dict, hash=False)
    mining: Mining | None = None
    class_weight: ClassWeight | None = None

    def at(self, step: int, steps: int, device: torch.device | str = "cpu") -> "Loss":
        """This loss at a step (from 0) of a training: what is scheduled has the value it has then.

        The value is a 0-dim tensor, with which no pass is compiled again.
        """
        if isinstance(self.function, Sum):
            return replace(self, function=self.function.at(step, steps, device))
        if not self.schedules:
            return self
        values = {
            name: torch.full((), schedule.value(step, steps), device=device)
            for name, schedule in self.schedules.items()
        }
        return replace(self, function=partial(self.function, **values), schedules={})

    def __call__(self, *inputs: Tensor, impl: str = "eager", **more: Any) -> Tensor:
        """One value per element: call the function; a user may have written it without these arguments."""
        fixed = {name: value for name, value in (("reduction", "none"), ("impl", impl)) if name in self.takes}
        return self.function(*inputs, **more, **fixed)

    @property
    def softmax(self) -> bool:
        """Whether it expects one more logit, for the background, and competes over classes."""
        function = self.function
        while isinstance(function, partial):
            function = function.func
        return function is softmax_focal_loss

    @property
    def takes_quality(self) -> bool:
        """Whether a positive's label is its IoU, not 1: so it is for every loss with a `quality` argument."""
        return "quality" in self.takes


class Sum:
    """A weighted sum of box losses, as a function of predicted and true boxes."""

    def __init__(self, terms: Sequence[tuple[float, Loss]]) -> None:
        self.terms = tuple(terms)

    def at(self, step: int, steps: int, device: torch.device | str = "cpu") -> "Sum":
        """Each term as it is at a step of a training."""
        return Sum([(weight, loss.at(step, steps, device)) for weight, loss in self.terms])

    def __call__(self, predicted: Tensor, true: Tensor) -> Tensor:
        """One value per pair."""
        first, *rest = (weight * regress(loss, predicted, true) for weight, loss in self.terms)
        return sum(rest, first)


def classify(loss: Loss, logits: Tensor, labels: Tensor, quality: Tensor | None) -> Tensor:
    """Elementwise loss of `(B, P, C)` logits: that shape, or `(B, P)` from a softmax."""
    impl = impl_for(labels)
    if loss.softmax:
        return loss.function(logits.flatten(0, 1), labels.flatten(), impl=impl).view_as(labels)
    more = {} if quality is None else {"quality": quality}
    if not loss.own:
        return loss.function(logits, labels, impl=impl, **more)
    targets = labels
    if quality is None:
        targets = (labels[..., None] == torch.arange(logits.shape[-1], device=labels.device)).to(logits.dtype)
    value = _call_own(loss, logits.shape, logits, targets, **more)
    return value.masked_fill((labels == IGNORED)[..., None], 0)


def regress(loss: Loss, predicted: Tensor, true: Tensor) -> Tensor:
    """Loss of `(N, 4)` predicted boxes: `(N,)`."""
    if not loss.own:
        return loss.function(predicted, true, impl=impl_for(true))
    return _call_own(loss, true.shape[:-1], predicted, true)


def impl_for(tensor: Tensor) -> str:
    """The `impl` of a loss in training.

    Eager on a CPU: runs are too short to win back the seconds of compiling, and repeat to the bit.
    """
    return "eager" if tensor.device.type == "cpu" else "auto"


def _call_own(loss: Loss, shape: torch.Size, *inputs: Tensor, **more: Any) -> Tensor:
    """Calls the user's function, and checks that it answers with one value per element."""
    value = loss(*inputs, impl=impl_for(inputs[0]), **more)
    if not isinstance(value, Tensor) or value.shape != shape:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"it returned {got}; it must return one value per element, {tuple(shape)}")
    return value


def try_out(loss: Loss, boxes: bool) -> None:
    """Calls a loss on a few numbers, a box loss or one of logits.

    Raises:
        ValueError: it fails, has no gradient, or answers with another shape.
    """
    try:
        if boxes:
            predicted = torch.tensor([[0.0, 0, 4, 4], [1.0, 2, 3, 5]], requires_grad=True)
            value = regress(loss, predicted, torch.tensor([[1.0, 0, 5, 6], [1.0, 2, 3, 5]]))
        else:
            logits = torch.linspace(-2, 2, 12).view(1, 4, 3).requires_grad_()
            classes = 2 if loss.softmax else 3
            labels = torch.tensor([[0, 1, classes, IGNORED]])
            value = classify(loss, logits, labels, torch.full((1, 4), 0.5) if loss.takes_quality else None)
        if not value.requires_grad:
            raise ValueError("its value has no gradient")
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"loss {loss.name!r}: {reason}") from error
