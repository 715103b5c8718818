"""The arguments of a loss: which it takes, and what those probably are that it cannot do without."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

REQUIRED = inspect.Parameter.empty


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Named arguments without stars, of a Module those of its forward; what has no signature has none."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return {}
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in signature.parameters.items() if one.kind not in stars}


class Guess(NamedTuple):
    """A value for an argument: what it is in words, and how it is made of predictions and targets.

    What `follows` is another with other numbers of columns.
    """

    text: str
    make: Callable[[Tensor, Tensor], Any]
    follows: bool = False


def _fixed(*values: Any) -> tuple[Guess, ...]:
    return tuple(Guess(repr(value), lambda x, t, value=value: value) for value in values)  # type: ignore[misc]


_CLASSES = Guess("the number of columns", lambda x, t: x.shape[-1], True)
_LAST = Guess("the number of columns less one", lambda x, t: x.shape[-1] - 1, True)
_ALL_ONES = Guess("ones, one per class", lambda x, t: torch.ones(x.shape[-1]), True)
COUNTS = Guess(
    "100, 50, 33, ..., one per class", lambda x, t: [100 // (i + 1) for i in range(x.shape[-1])], True
)
_LIKE = Guess("ones, in the shape of the targets", lambda x, t: torch.ones_like(t, dtype=x.dtype))
_PER_ROW = Guess("ones, one per row", lambda x, t: x.new_ones(len(x)))
_BY_NAME: dict[str, tuple[Guess, ...]] = {
    "class_num|num_class(es)?|n_class(es)?|classes|nc|class_count|(num|no)_of_classes|c": (_CLASSES,),
    "reg_max|n_bins|num_bins|bins": (_CLASSES, _LAST),
    "loss_fcn|loss_fn|loss_func|criterion|bce|base_loss|bce_loss": (
        Guess("torch.nn.BCEWithLogitsLoss()", lambda x, t: nn.BCEWithLogitsLoss()),
    ),
    ".*(num|count|freq|samples|img|cls|class)s?_?(list|freqs?|counts?|per_cls|per_class)": (COUNTS,),
    "alpha": (*_fixed(0.25), _ALL_ONES, *_fixed(None)),
    "(focal_)?gamma|beta": _fixed(2.0),
    "balance": _fixed(0.999),
    "reduction": _fixed("mean"),
    "size_average|use_sigmoid|from_logits|logits": _fixed(True),
    "eps|epsilon|smooth": _fixed(1e-7),
    "loss_weight|temperature|tau|t": _fixed(1.0),
    "(class_)?weights?": (*_fixed(None), _PER_ROW, _LIKE, _ALL_ONES),
    "pos_weight": _fixed(None),
    "(sample|label|pixel|bbox|element)_weights?|(?!pos|fg).*mask": (_LIKE, _PER_ROW, *_fixed(None)),
    "avg_factor|num_boxes|num_pos|normalizer|num_masks|num_total_pos": (*_fixed(None, 1.0),),
    "labels?|pos_mask|fg_mask": (Guess("targets > 0", lambda x, t: (t > 0).to(t.dtype)),),
    "device": _fixed("cpu"),
    "ignore_index|ignore_label": _fixed(-100),
}
_BY_TYPE: dict[Any, Any] = {bool: False, "bool": False, float: 1.0, "float": 1.0}


def guesses(name: str, annotation: Any = None, options: Iterable[str] = ()) -> tuple[Guess, ...]:
    """What an argument of that name or type may be, or one that is compared with these texts, the likeliest
    first; none where nothing is known.
    """
    for names, likely in _BY_NAME.items():
        if re.fullmatch(names, name.lower()):
            return likely
    known = isinstance(annotation, type | str) and annotation in _BY_TYPE
    return _fixed(_BY_TYPE[annotation]) if known else _fixed(*options)


def own_lengths(held: Iterable[Any]) -> list[int]:
    """How many numbers the lists and 1-D tensors have that a loss holds: its weights, one per class.

    Args:
        held: the function or class, and what was built of it.
    """
    values: list[Any] = []
    for one in held:
        while isinstance(one, functools.partial):
            values += one.keywords.values()
            one = one.func
        for module in one.modules() if isinstance(one, nn.Module) else ():
            values += [*vars(module).values(), *module.buffers(), *module.parameters()]
        values += [parameter.default for parameter in parameters(one).values()]
        function = getattr(one, "forward", one)
        if inspect.isfunction(function):
            values += [function.__globals__.get(name) for name in function.__code__.co_names]
    lengths = [len(value) for value in values if _are_numbers(value)]
    return [length for length in dict.fromkeys(lengths) if 1 < length <= 1000]


def _are_numbers(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 1
    return isinstance(value, list | tuple) and all(type(one) in (int, float) for one in value)
