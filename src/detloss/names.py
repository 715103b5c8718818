"""From a text to a loss: `focal,gamma=1.5`, `giou+0.4*l1`, `module:function`, `file.py:function`."""

import difflib
import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from detloss import losses
from detloss.balance import ClassWeight
from detloss.calling import Loss, Sum, try_out
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
    "ia_bce": losses.iou_aware_bce_loss,
    "gaussian_focal": losses.gaussian_focal_loss,
}
"""balanced_bce: alpha .75 is the best of the focal loss paper's Table 1a."""

BOX_LOSSES: dict[str, Callable[..., Tensor]] = {
    "iou": losses.box_iou_loss,
    "giou": losses.generalized_box_iou_loss,
    "diou": losses.distance_box_iou_loss,
    "ciou": losses.complete_box_iou_loss,
    "eiou": losses.efficient_box_iou_loss,
    "l1": partial(losses.l1_box_loss, relative=True),
    "smooth_l1": partial(losses.smooth_l1_box_loss, relative=True, beta=1 / 9),
}
"""Boxes are in pixels here, so the L1 losses are relative to the target's size. A beta of 1/9 is usual where
differences are relative (Faster R-CNN, RetinaNet)."""


_NOT_SETTINGS = "reduction ignore_index quality weight pos_weight class_dim impl relative fmt".split()
"""Arguments that are tensors, or that training itself decides."""


def find_loss(name: str, known: Mapping[str, Callable[..., Tensor]], training: bool = False) -> Loss:
    """The loss that `name` means, tried once on a few numbers so that what cannot work fails here.

    A user's own classification loss is called with `(..., C)` logits and dense 0/1 targets; if it has an
    argument `quality`, with class indices (C is background, `IGNORED` does not count) and that. A user's own
    box loss is called with `(N, 4)` predicted and true boxes. Each returns a value per element, or per pair.

    Args:
        name: a key of `known`, or a user's `module:function` or `file.py:function`; then, after commas,
            hyperparameters as `key=number` (or `none`, `true`, `false`). In training also a schedule,
            `gamma=linear:0:2` (see `Schedule`), which locations count, `mining=hard:3` (see `Mining`), and
            what a class weighs, `class_weight=effective:0.999` (see `ClassWeight`). Box losses may be added
            up, each with a weight: `giou+0.4*l1`.
        known: `CLASSIFICATION_LOSSES` or `BOX_LOSSES`.
        training: whether there are steps and images, without which a schedule, mining or class weights have
            no meaning.

    Raises:
        ValueError: no such loss, module, function or hyperparameter, the nearest name is suggested; a loss
            that fails, has no gradient, or answers with another shape; a schedule or mining out of place; a
            sum that cannot be read.
    """
    if known is BOX_LOSSES and (_PLUS.search(name) or "*" in name):
        terms = [_term(name, text, training) for text in _PLUS.split(name)]
        return Loss(name, Sum(terms), frozenset(("predicted", "true")), own=True)
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
    of_training = {key: hyper.pop(key) for key in _OF_TRAINING if key in hyper}
    of_training = {key: value for key, value in of_training.items() if value is not None}
    for key in hyper:
        if key not in free and not takes_any:
            raise ValueError(
                f"loss {name!r}: {base} has no setting {key!r}; it has {', '.join(free) or 'none'}"
            )
    schedules = {key: value for key, value in hyper.items() if isinstance(value, Schedule)}
    if not training and schedules:
        raise ValueError(f"loss {name!r}: a schedule is for training; write {min(schedules)}=number here")
    if of_training and not (training and known is CLASSIFICATION_LOSSES):
        place = "classification losses" if training else "training"
        raise ValueError(f"loss {name!r}: {min(of_training)} is for {place}; leave it out here")
    fixed = {key: value for key, value in hyper.items() if key not in schedules}
    bound = partial(function, **fixed) if fixed else function
    loss = Loss(name, bound, frozenset(parameters), own, schedules, **of_training)
    stages = max([1, *(len(schedule.values) for schedule in schedules.values())])
    for step in range(stages):  # every value of a stage, both ends of all else
        try_out(loss.at(step, stages), boxes=known is BOX_LOSSES)
    return loss


_OF_TRAINING: dict[str, Callable[[str], Any]] = {
    "mining": Mining.parse,
    "class_weight": ClassWeight.parse,
}
"""What stands beside the hyperparameters of a classification loss in training, and how it is read."""

_PLUS = re.compile(r"(?<!\de)\+", re.IGNORECASE)  # 1e+3 is a number


def _term(name: str, text: str, training: bool) -> tuple[float, Loss]:
    """The weight and the loss of one term of a sum of box losses: `0.4*l1`, or `giou`, which weighs 1."""
    factor, times, loss = text.rpartition("*")
    try:
        weight = float(factor) if times else 1.0
        if not 0 < weight < math.inf or not loss.strip():
            raise ValueError
    except ValueError:
        raise ValueError(
            f"loss {name!r}: {text!r} is not a term of a sum; write loss or number*loss with a number above "
            "0, as in giou+0.4*l1"
        ) from None
    return weight, find_loss(loss.strip(), BOX_LOSSES, training)


def _setting(name: str, text: str) -> tuple[str, Any]:
    """A hyperparameter: a number, None, a boolean, a `Schedule`; or what a key of `_OF_TRAINING` has."""
    key, equals, value = (part.strip() for part in text.partition("="))
    try:
        if value.lower() == "none":
            return key, None
        if key in _OF_TRAINING:
            return key, _OF_TRAINING[key](value)
        if value.lower() in ("true", "false"):
            return key, value.lower() == "true"
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
            f"loss {name!r}: {text!r} is not a hyperparameter; write key=number, as in focal,gamma=1.5, or "
            "mining=hard:3, or class_weight=effective:0.999"
        ) from None


def _import(text: str, known: Mapping[str, Callable[..., Tensor]]) -> Callable[..., Tensor]:
    place, colon, attribute = text.rpartition(":")
    if not colon:
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if text in BOX_LOSSES:
            hint = f"it is a box loss: name it behind another, as in bce+{text}, or as the box loss. "
        raise ValueError(
            f"unknown loss {text!r}; {hint}it may be {', '.join(known)}, or your own module:function"
        )
    try:
        if place.endswith(".py"):
            module = module_from_file(Path(place))
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


def module_from_file(path: Path, findable: bool = False) -> Any:
    """The module that a user's own file is; findable: what it pickles is found by its name, once it is named.

    Raises:
        FileNotFoundError: no such file, or none of Python.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    if findable:
        sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
