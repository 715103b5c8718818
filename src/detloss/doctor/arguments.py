"""The arguments that a loss cannot do without: what they probably are."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Named arguments without stars, of a Module those of its forward; what has no signature has none."""
    try:
        found = inspect.signature(
            function.forward if isinstance(function, nn.Module) else function
        ).parameters
    except (TypeError, ValueError):
        return {}
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in found.items() if one.kind not in stars}


def required(function: Any) -> list[str]:
    """Names of the arguments that have no default."""
    return [name for name, one in parameters(function).items() if one.default is inspect.Parameter.empty]


class Guess(NamedTuple):
    """A value for an argument that the user's code asks for: what it is in words, and how it is made.

    What `follows` is another with other numbers of columns.
    """

    text: str
    make: Callable[[Tensor, Tensor], Any]
    follows: bool = False


def _fixed(value: Any) -> Guess:
    return Guess(repr(value), lambda predictions, targets: value)


_CLASSES = Guess("the number of columns", lambda predictions, targets: predictions.shape[-1], True)
BCE = Guess("torch.nn.BCEWithLogitsLoss()", lambda predictions, targets: nn.BCEWithLogitsLoss())
_ALL_ONES = Guess("ones, one a class", lambda predictions, targets: torch.ones(predictions.shape[-1]), True)
_POSITIVE = Guess("targets > 0", lambda predictions, targets: (targets > 0).to(targets.dtype))
_WHOLE = Guess("ones, one a row", lambda predictions, targets: predictions.new_ones(len(predictions)))


def guesses(name: str) -> tuple[Guess, ...]:
    """What an argument of that name may be, the likeliest first; none where nothing comes to mind."""
    words: dict[tuple[str, ...], tuple[Guess, ...]] = {
        ("class_num", "num_classes", "num_class", "n_classes", "classes", "nc", "class_count"): (_CLASSES,),
        ("reg_max", "n_bins", "num_bins", "bins"): (_CLASSES,),
        ("loss_fcn", "loss_fn", "loss_func", "criterion", "bce", "base_loss", "bce_loss"): (BCE,),
        ("alpha",): (_fixed(0.25), _ALL_ONES, _fixed(None)),
        ("gamma", "beta"): (_fixed(2.0),),
        ("reduction",): (_fixed("mean"),),
        ("size_average", "use_sigmoid", "from_logits", "logits"): (_fixed(True),),
        ("eps", "epsilon", "smooth"): (_fixed(1e-7),),
        ("loss_weight",): (_fixed(1.0),),
        ("weight", "weights", "sample_weight", "mask"): (_fixed(None), _WHOLE),
        ("avg_factor", "num_boxes", "num_pos", "normalizer"): (_fixed(None), _fixed(1.0)),
        ("label", "labels", "pos_mask", "fg_mask"): (_POSITIVE,),
        ("device",): (_fixed("cpu"),),
        ("ignore_index",): (_fixed(-100),),
    }
    return next((found for names, found in words.items() if name.lower() in names), ())


def by_annotation(function: Any, name: str) -> tuple[Guess, ...]:
    """What an argument annotated as a bool or float may be."""
    kind = parameters(function)[name].annotation
    simple: dict[Any, Any] = {bool: False, "bool": False, float: 1.0, "float": 1.0}
    return (_fixed(simple[kind]),) if isinstance(kind, type | str) and kind in simple else ()
