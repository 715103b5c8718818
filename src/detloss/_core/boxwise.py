"""What the box losses share, written once: formats, weights, degenerate boxes, dtypes, reductions."""

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from detloss._core.box import box_of, check_pair, checked_eps, widened
from detloss._core.checks import broadcastable, check_limits, check_reduction
from detloss._core.dtypes import check_devices
from detloss._core.fused import Call, Operand, fusable, fused, scalar
from detloss._core.reductions import reduce
from detloss._core.signatures import become, hyperparameters, keyword_only, positional, reader

SHARED = """
    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.
"""


def box_loss(
    formula: Callable[..., Tensor] | None = None,
    *,
    limits: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    finite: bool = True,
) -> Callable[..., Any]:
    """Turn a formula of two boxes into a loss with box formats, weights, reductions and a fused pass.

    A formula is a function `formula(first, second, hyper=default, ...)` that returns one value per pair.

    The loss has the signature `(boxes1, boxes2, reduction="none", <hyperparameters>, *, <keyword-only
    hyperparameters>, weight=None, fmt="xyxy", impl="auto")`, and can be used wherever a box loss of this
    package can. The formula gets each box as a `Box`, its tensors `left, top, right, bottom, width, height`
    in float32 (float64), whatever the format and dtype of the call; numbers as they are, and tensors that
    broadcast to `(...)`. It uses torch functions and does not branch on a tensor's value, so that it can be
    traced. What formulas are made of is in `detloss.formula`: `intersection`, `enclosing`, `iou`,
    `distance_term`, `inside_out`.

    A parameter `fmt` of the formula gets the format of the call, for what depends on how a box is written.

    Args:
        formula: as above. Its docstring becomes that of the loss: its `Args`, the hyperparameters, are joined
            with the arguments that all box losses have.
        limits: the least and the largest value of hyperparameters.
        finite: try the formula once on boxes without width, without height, identical, apart, inverted and
            huge, and refuse it where a value or a gradient is NaN or infinite: such boxes occur in training.

    Returns:
        The loss; without `formula`, a decorator.

    Raises:
        ValueError: a formula without that signature, or one that is not finite.

    Examples:
        >>> @box_loss
        ... def corner_distance(first, second, scale=1.0):
        ...     return sum((a - b).abs() for a, b in zip(first[:4], second[:4])) / scale
        >>> corner_distance(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 3, 2]]), scale=2.0)
        tensor([0.5000])
    """
    if formula is None:
        return partial(box_loss, limits=limits, finite=finite)
    taken = ("boxes1", "boxes2", "formula", "wants_fmt", *(name for name in _SHARED if name != "fmt"))
    asked = hyperparameters(formula, "first, second", limits, taken, ("fmt",))
    wants_fmt = asked.pop("fmt", None) is not None
    order = [*_BOXES, _SHARED["reduction"], *positional(asked.values()), *keyword_only(asked.values())]
    signature = inspect.Signature(
        [*order, *(_SHARED[name] for name in ("weight", "fmt", "impl"))], return_annotation=Tensor
    )
    read = reader(signature)

    limits = dict(limits)  # the oldest torch cannot trace the default, a mapping proxy

    def check(hyper: Mapping[str, Any]) -> None:
        if "eps" in asked:
            checked_eps(hyper["eps"])
        for name, (least, largest) in limits.items():
            check_limits(name, hyper[name], least, largest)

    @wraps(formula)
    def loss(boxes1: Tensor, boxes2: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = read(boxes1, boxes2, args, kwargs)
        reduction, weight, fmt = given["reduction"], given["weight"], given["fmt"]
        hyper = {name: given[name] for name in asked}
        check_reduction(reduction)
        check_pair(boxes1, boxes2, fmt)
        check_devices(boxes1=boxes1, boxes2=boxes2, weight=weight, **hyper)
        check(hyper)
        if "eps" in hyper:
            hyper["eps"] = checked_eps(hyper["eps"])
        shape = boxes1.shape[:-1]
        if isinstance(weight, Tensor) and weight.ndim and weight.shape == boxes1.shape:
            weight = weight.to(widened(boxes1).dtype).mean(-1)
        for name, value in {"weight": weight, **hyper}.items():
            if isinstance(value, Tensor):
                broadcastable(name, value, shape)
        fixed = {"formula": formula, "fmt": fmt, "wants_fmt": wants_fmt}

        def eagerly(columns: Any) -> Tensor:
            each = _each(*columns, weight=weight, **fixed, **hyper)
            return reduce(each, reduction, each.numel(), each)

        fuses = fusable(given["impl"], formula.__name__, (boxes1, boxes2), {"weight": weight, **hyper})
        if fuses and boxes1.dtype == boxes2.dtype:
            rest = {"weight": weight, **fixed, **hyper}
            value = _in_one_pass(boxes1, boxes2, rest, reduction, given["impl"], eagerly)
            if value is not None:
                return value
        return eagerly([*widened(boxes1).unbind(-1), *widened(boxes2).unbind(-1)])

    become(loss, formula, signature, SHARED)
    loss.check = check  # type: ignore[attr-defined]
    if finite:
        _check_finite(loss, formula.__name__)
    return loss


def _shared(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
) -> None: ...


_SHARED = dict(inspect.signature(_shared).parameters)
_BOXES = [_SHARED.pop("boxes1"), _SHARED.pop("boxes2")]


def _each(
    *columns: Tensor,
    formula: Callable[..., Tensor],
    fmt: str,
    wants_fmt: bool,
    weight: Tensor | None,
    **hyper: object,
) -> Tensor:
    """The loss of each pair of boxes, given as eight columns, times a weight."""
    first, second = box_of(columns[:4], fmt), box_of(columns[4:], fmt)
    if wants_fmt:
        hyper["fmt"] = fmt
    loss = formula(first, second, **hyper)
    if loss.shape != columns[0].shape:
        raise ValueError(
            f"{formula.__name__} returned shape {tuple(loss.shape)} for boxes {(*columns[0].shape, 4)}; a "
            "formula returns one value per pair"
        )
    return loss if weight is None else loss * weight.to(loss.dtype)


def _in_one_pass(
    boxes1: Tensor,
    boxes2: Tensor,
    given: Mapping[str, Any],
    reduction: str,
    impl: str,
    eagerly: Callable[[Sequence[Tensor]], Tensor],
) -> Tensor | None:
    """The loss by `fused`, on the eight columns of N pairs."""
    shape, dtype = boxes1.shape[:-1], widened(boxes1).dtype
    # a loop over boxes of four coordinates would not be vectorised, one over their columns is
    flat = [boxes.reshape(-1, 4) for boxes in (boxes1, boxes2)]
    columns = tuple(column.contiguous() for boxes in flat for column in boxes.unbind(-1))
    constants, fixed = {}, {}
    for name, value in given.items():
        if isinstance(value, Tensor) and value.ndim:
            constants[name] = Operand(value.expand(shape).reshape(-1).contiguous(), "N")
        elif isinstance(value, Tensor):
            constants[name] = scalar(value, dtype, boxes1.device)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            constants[name] = scalar(float(value), dtype, boxes1.device)
        elif value is None or isinstance(value, (bool, str)) or callable(value):
            fixed[name] = value
        elif impl == "compile":
            raise ValueError(
                f'{name} is {value!r}; for impl="compile" it must be a number, tensor, string, boolean or '
                'None: pass impl="eager"'
            )
        else:
            return None
    return fused(
        Call(
            name=given["formula"].__name__,
            formula=_each,
            inputs=[Operand(column, "N") for column in columns],
            constants=constants,
            fixed=fixed,
            arguments=columns,
            again=lambda: eagerly([widened(column).view(shape) for column in columns]),
            others=given.values(),
            shape=shape,
            dtype=dtype,
            reduction=reduction,
            count=shape.numel(),
            impl=impl,
        )
    )


_DEGENERATE = {
    "identical boxes": ((1.0, 1, 3, 4), (1.0, 1, 3, 4)),
    "boxes apart": ((1.0, 1, 3, 4), (7.0, 9, 8, 11)),
    "a box without width": ((1.0, 1, 1, 4), (1.0, 1, 3, 4)),
    "a box without height": ((1.0, 1, 3, 1), (1.0, 1, 3, 4)),
    "two boxes at one point": ((1.0, 1, 1, 1), (1.0, 1, 1, 1)),
    "an inverted box": ((3.0, 4, 1, 1), (1.0, 1, 3, 4)),
    "a huge box": ((-1e8, -1e8, 1e8, 1e8), (1.0, 1, 3, 4)),
}


def _check_finite(loss: Callable[..., Tensor], name: str) -> None:
    """ValueError where value or gradient of a pair that occurs in training is NaN or infinite."""
    pairs = torch.tensor(list(_DEGENERATE.values()), requires_grad=True)
    with torch.enable_grad():
        value = loss(*pairs.unbind(1), impl="eager")
        (gradient,) = torch.autograd.grad(value.sum(), pairs)
    for found, one, slope in zip(_DEGENERATE, value, gradient):
        for what, numbers_found in (("value", one), ("gradient", slope)):
            if not numbers_found.isfinite().all():
                raise ValueError(
                    f"{name} has a {what} that is not finite for {found}; add an eps to its denominators, "
                    "or pass finite=False"
                )
