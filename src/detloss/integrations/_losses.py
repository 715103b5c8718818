"""A loss as a user gives it (a name, a function, a Module), and how a head calls it."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss._core.modules import LossModule
from detloss.boxes import box_convert
from detloss.calling import IGNORED
from detloss.losses import softmax_focal_loss
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

Given = str | Callable[..., Tensor] | nn.Module
"""What `swap_losses` takes as a loss."""


@dataclass(frozen=True)
class Called:
    """A loss, ready to be called by a head.

    Attributes:
        name: what `repr` says.
        function: `function(inputs, targets, reduction=..., ...)`.
        takes: the names of its arguments.
        softmax: whether classes compete: cross entropy and its focal form.
        of_boxes: whether it needs boxes, as overlaps do, and not any four numbers.
        impl: how a loss of this package runs: "eager", "auto" or "compile".
    """

    name: str
    function: Callable[..., Tensor]
    takes: frozenset[str]
    softmax: bool
    of_boxes: bool
    impl: str

    @property
    def wants_quality(self) -> bool:
        """Whether a positive's label is the IoU of its box."""
        return "quality" in self.takes

    def __call__(self, *inputs: Tensor, reduction: str = "none", **more: Any) -> Tensor:
        """The loss of each element, row or pair; with reduction "sum" a number."""
        if "reduction" in self.takes:
            more["reduction"] = reduction
        if "impl" in self.takes:
            more["impl"] = self.impl
        value = self.function(*inputs, **more)
        if isinstance(value, Tensor) and value.ndim:
            return value.sum() if reduction == "sum" else value
        if not isinstance(value, Tensor) or reduction != "sum" or "reduction" not in self.takes:
            raise ValueError(
                f"loss {self.name} returned {value!r}; it must return one value per element, or have an "
                'argument reduction that may be "none" and "sum": the head divides by a normaliser of its own'
            )
        return value


def classification_loss(loss: Given | None, impl: str) -> Called | None:
    """What was given as `classification`; None stays None. Errors: see `_resolve`."""
    return _resolve("classification", loss, CLASSIFICATION_LOSSES, impl)


def box_loss(loss: Given | None, impl: str, argument: str = "box") -> Called | None:
    """What was given as `box`; None stays None. Errors: see `_resolve`."""
    return _resolve(argument, loss, BOX_LOSSES, impl)


def _resolve(argument: str, loss: Given | None, known: Mapping[str, Any], impl: str) -> Called | None:
    """ValueError if it is none of a name, a function and a Module, or `find_loss` does not know the name."""
    if impl not in ("eager", "auto", "compile"):
        raise ValueError(f"impl is {impl!r}; it may be 'eager', 'auto' or 'compile'")
    if loss is None:
        return None
    if isinstance(loss, str):
        found = find_loss(loss, known)
        of_boxes = known is BOX_LOSSES and "relative" not in found.takes
        return Called(loss, found.function, found.takes, found.softmax, of_boxes, impl)
    if isinstance(loss, LossModule):
        function: Any = partial(_of_module, loss)
        names, base = inspect.signature(loss.function), loss.function
    elif isinstance(loss, nn.Module):
        function = copy.copy(loss)
        if hasattr(loss, "reduction"):
            function.reduction = "none"
        names, base = inspect.signature(loss.forward), function
    elif callable(loss):
        function, names = loss, inspect.signature(loss)
        base = loss.func if isinstance(loss, partial) else loss
    else:
        raise ValueError(
            f"{argument} is {loss!r}; it may be a name ({', '.join(known)}, or your own module:function), "
            "a function, or a Module"
        )
    softmax = base in (softmax_focal_loss, F.cross_entropy) or isinstance(base, nn.CrossEntropyLoss)
    takes = frozenset(names.parameters)
    of_boxes = not takes.isdisjoint({"fmt", "eps"}) and "relative" not in takes
    return Called(_named(loss), function, takes, softmax, of_boxes, impl)


def _of_module(module: LossModule, *inputs: Tensor, **more: Any) -> Tensor:
    """A Module of this package by its function, since the reduction is the head's; on the inputs' device."""
    return module.function(*inputs, **{**module.to(inputs[0].device).kept(), **more})


def _named(loss: Any) -> str:
    if isinstance(loss, partial):
        return f"{_named(loss.func)}({', '.join(f'{key}={value}' for key, value in loss.keywords.items())})"
    if type(loss).__repr__ is object.__repr__:
        return type(loss).__qualname__
    return getattr(loss, "__qualname__", None) or repr(loss)


def check_competes(loss: Called | None, softmax: bool, head: str) -> None:
    """ValueError if a loss competes over classes and the head scores each by itself, or the reverse."""
    if loss is None or loss.softmax == softmax:
        return
    if not softmax:
        raise ValueError(
            f"classification is {loss.name}, a softmax over classes; {head} scores each by a sigmoid: it may "
            "be bce, focal, quality_focal, varifocal or another loss of single classes"
        )
    if "impl" in loss.takes:  # of a function written elsewhere nothing is known
        raise ValueError(
            f"classification is {loss.name}, a loss of single classes; {head} scores by a softmax: it may "
            "be softmax_focal or torch.nn.functional.cross_entropy"
        )


def sum_classes(loss: Called, logits: Tensor, labels: Tensor, quality: Tensor | None) -> Tensor:
    """The sum of a loss over sigmoid logits `(..., C)`, for class indices.

    C is background, `IGNORED` does not count. Losses of this package get them as they are, others the rows
    that count: with class indices if they take a quality, else with 0/1 targets.
    """
    more = {"quality": quality} if loss.wants_quality and quality is not None else {}
    if {"ignore_index", "impl"} <= loss.takes:
        return loss(logits, labels, reduction="sum", **more)
    counts = labels != IGNORED
    more = {name: value[counts] for name, value in more.items()}
    targets = labels[counts]
    if not loss.wants_quality:
        targets = (targets[:, None] == torch.arange(logits.shape[-1], device=labels.device)).to(logits.dtype)
    return loss(logits[counts], targets, reduction="sum", **more)


def each_box(loss: Called, predicted: Tensor, true: Tensor, fmt: str = "xyxy") -> Tensor:
    """A box loss, one value per pair of boxes in a format: `(N,)`."""
    if "fmt" in loss.takes:
        return loss(predicted, true, fmt=fmt)
    value = loss(box_convert(predicted, fmt, "xyxy"), box_convert(true, fmt, "xyxy"))
    return value.sum(-1) if value.ndim > 1 else value


def each_row(loss: Called, predicted: Tensor, true: Tensor, fmt: str = "xyxy") -> Tensor:
    """A loss of `(N, 4)` numbers as they are, summed over the four: `(N,)`."""
    more: dict[str, Any] = {"fmt": fmt} if "fmt" in loss.takes else {}
    if "relative" in loss.takes:
        more["relative"] = False
    value = loss(predicted, true, **more)
    return value.sum(-1) if value.ndim > 1 else value
