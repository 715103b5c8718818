"""Losses as the command line names them, `focal,gamma=1.5` or `file.py:function`, and how they are called."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detloss import losses
from detloss.mining import Mining
from detloss.schedule import Schedule

CLASSIFICATION_LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": losses.binary_cross_entropy_with_logits,
    "balanced_bce": partial(losses.binary_cross_entropy_with_logits, alpha=0.75),
    "focal": losses.sigmoid_focal_loss,
    "softmax_focal": losses.softmax_focal_loss,
    "quality_focal": losses.quality_focal_loss,
    "varifocal": losses.varifocal_loss,
    "poly_focal": losses.poly_focal_loss,
    "asymmetric": losses.asymmetric_loss,
    "mal": losses.matchability_aware_loss,
    "flsd": losses.sample_dependent_focal_loss,
}
"""balanced_bce: alpha .75 is the best of the focal loss paper's Table 1a."""

BOX_LOSSES: dict[str, Callable[..., Tensor]] = {
    "iou": losses.box_iou_loss,
    "giou": losses.generalized_box_iou_loss,
    "diou": losses.distance_box_iou_loss,
    "ciou": losses.complete_box_iou_loss,
    "eiou": losses.efficient_box_iou_loss,
}


IGNORED = -100
"""The label of what no loss may count: the `ignore_index` default of every classification loss."""


@dataclass(frozen=True)
class Loss:
    """A loss as the command line names it: `focal`, `focal,gamma=1.5`, `module:function`, `file.py:function`.

    Attributes:
        name: that text.
        function: with the hyperparameters of `name` bound, all but the scheduled ones.
        own: whether it is the user's own function, not one of the library's.
        schedules: of hyperparameters that change during training, by name.
        mining: which locations count in training; None: all.
    """

    name: str
    function: Callable[..., Tensor]
    own: bool
    schedules: Mapping[str, Schedule] = field(default_factory=dict, hash=False)
    mining: Mining | None = None

    def at(self, step: int, steps: int, device: torch.device | str = "cpu") -> "Loss":
        """This loss at a step (from 0) of a training: what is scheduled has the value it has then.

        The value is a 0-dim tensor, with which no pass is compiled again.
        """
        if not self.schedules:
            return self
        values = {
            name: torch.full((), schedule.value(step, steps), device=device)
            for name, schedule in self.schedules.items()
        }
        return replace(self, function=partial(self.function, **values), schedules={})

    def __call__(self, *inputs: Tensor, impl: str = "eager", **more: Any) -> Tensor:
        """One value an element: calls the function, which a user may have written without these arguments."""
        takes = inspect.signature(self.function).parameters
        fixed = {name: value for name, value in (("reduction", "none"), ("impl", impl)) if name in takes}
        return self.function(*inputs, **more, **fixed)

    @property
    def softmax(self) -> bool:
        """Whether it expects one more logit, for the background, and competes over classes."""
        return _unbound(self.function) is losses.softmax_focal_loss

    @property
    def takes_quality(self) -> bool:
        """Whether a positive's label is its IoU, not 1: so it is for every loss with a `quality` argument."""
        return "quality" in inspect.signature(self.function).parameters


def _unbound(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    while isinstance(function, partial):
        function = function.func
    return function


_NOT_SETTINGS = ("reduction", "ignore_index", "quality", "weight", "pos_weight", "impl")
"""Arguments that are tensors, or that training itself decides."""


def find_loss(name: str, known: Mapping[str, Callable[..., Tensor]], training: bool = False) -> Loss:
    """The loss that `name` means, tried once on a few numbers so that what cannot work fails here.

    A user's own classification loss is called with `(..., C)` logits and dense 0/1 targets; if it has an
    argument `quality`, with class indices (C is background, `IGNORED` does not count) and that. A user's own
    box loss is called with `(N, 4)` predicted and true boxes. Each returns one value an element, or a pair.

    Args:
        name: a key of `known`, or a user's `module:function` or `file.py:function`; then, after commas,
            hyperparameters as `key=number` (or `none`). In training also a schedule, `gamma=linear:0:2` (see
            `Schedule`), and which locations count, `mining=hard:3` (see `Mining`).
        known: `CLASSIFICATION_LOSSES` or `BOX_LOSSES`.
        training: whether there are steps and images, without which a schedule or mining has no meaning.

    Raises:
        ValueError: no such loss, module, function or hyperparameter, the nearest name is suggested; a loss
            that fails, has no gradient, or answers with another shape; a schedule or mining out of place.
    """
    base, *settings = name.split(",")
    own = base not in known
    function = _import(base, known) if own else known[base]
    hyper: dict[str, Any] = {}
    for key, value in (_setting(name, text) for text in settings):
        if key in hyper:
            raise ValueError(f"loss {name!r}: {key} is there twice")
        hyper[key] = value
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    free = [key for key in list(parameters)[2:] if key not in _NOT_SETTINGS]
    mining = hyper.pop("mining", None)
    for key in hyper:
        if key not in free and not takes_any:
            raise ValueError(f"loss {name!r}: {base} has no setting {key!r}; it has {', '.join(free)}")
    schedules = {key: value for key, value in hyper.items() if isinstance(value, Schedule)}
    if not training and schedules:
        raise ValueError(f"loss {name!r}: a schedule is for training; write {min(schedules)}=number here")
    if mining is not None and not (training and known is CLASSIFICATION_LOSSES):
        place = "classification losses" if training else "training"
        raise ValueError(f"loss {name!r}: mining is for {place}; leave it out here")
    fixed = {key: value for key, value in hyper.items() if key not in schedules}
    loss = Loss(name, partial(function, **fixed) if fixed else function, own, schedules, mining)
    stages = max([1, *(len(schedule.values) for schedule in schedules.values())])
    for step in range(stages):  # every value of a stage, both ends of all else
        _try(loss.at(step, stages), boxes=known is BOX_LOSSES)
    return loss


def _try(loss: Loss, boxes: bool) -> None:
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


def _setting(name: str, text: str) -> tuple[str, Any]:
    """A hyperparameter: a number, None, a `Schedule`; or `mining` and its `Mining`."""
    key, equals, value = (part.strip() for part in text.partition("="))
    try:
        if value.lower() == "none":
            return key, None
        if key == "mining":
            return key, Mining.parse(value)
        if ":" in value:
            return key, Schedule.parse(value)
    except ValueError as error:
        raise ValueError(f"loss {name!r}: {key}: {error}") from None
    try:
        if not equals:
            raise ValueError
        return key, float(value)
    except ValueError:
        raise ValueError(
            f"loss {name!r}: {text!r} is no hyperparameter; write key=number, as in focal,gamma=1.5, or "
            "mining=hard:3"
        ) from None


def _import(text: str, known: Mapping[str, Callable[..., Tensor]]) -> Callable[..., Tensor]:
    place, colon, attribute = text.rpartition(":")
    if not colon:
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if text in BOX_LOSSES:
            hint = f"it is a box loss: name it behind another, as in bce+{text}, or as --box-losses. "
        raise ValueError(
            f"unknown loss {text!r}; {hint}it may be {', '.join(known)}, or your own module:function"
        )
    try:
        if place.endswith(".py"):
            module = _module_from_file(Path(place))
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
        function = getattr(module, attribute)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"loss {text!r} cannot be imported: {reason}") from error
    if not callable(function):
        raise ValueError(f"loss {text!r} is {type(function).__name__}, not a function")
    return function


def _module_from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_classes(loss: Loss, kind: str, classes: int) -> None:
    """ValueError where a classification loss has nothing to learn from so few classes."""
    if loss.softmax and kind == "yolov2" and classes < 2:
        raise ValueError(
            f"loss {loss.name!r}: YOLOv2's softmax is over the classes, and of one its loss is always 0; "
            "take a sigmoid loss, such as bce (what is found is learned by the objectness)"
        )


def classify(loss: Loss, logits: Tensor, labels: Tensor, quality: Tensor | None) -> Tensor:
    """Elementwise loss of `(B, P, C)` logits: that shape, or `(B, P)` from a softmax."""
    if loss.softmax:
        flat = loss.function(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, impl=impl_for(labels)
        )
        return flat.view_as(labels)
    more = {} if quality is None else {"quality": quality}
    if not loss.own:
        return loss.function(logits, labels, ignore_index=IGNORED, impl=impl_for(labels), **more)
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
    """Calls the user's function, and checks that it answers with one value an element."""
    value = loss(*inputs, impl=impl_for(inputs[0]), **more)
    if not isinstance(value, Tensor) or value.shape != shape:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"it returned {got}; it must return one value an element, {tuple(shape)}")
    return value
