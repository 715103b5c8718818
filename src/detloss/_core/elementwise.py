"""What the elementwise losses share, written once: targets, weights, ignored rows, dtypes, reduction.

A loss is its formula: a plain function of logits and targets that are aligned and float32 (float64).
`elementwise_loss` gives it all else:

- `inputs`: logits `(..., C)`, any floating dtype. Arithmetic is float32, float64 for float64.
- `targets`: floating, shape of `inputs`, in [0, 1], or a mask (bool, uint8) of that shape; or integer, shape
  `inputs.shape[:-1]`: class 0..C-1, `C` is background (all C outputs negative), `ignore_index` leaves the row
  out. Targets are constants.
- `class_dim`: the dimension of the classes, the last unless said otherwise: 1 for `(N, C, H, W)` with class
  indices `(N, H, W)`. An argument of one dimension is one per class, any other broadcasts to `inputs`.
- `label_smoothing` s: each label y becomes y (1 - s) + s / 2.
- `quality`: with integer targets, `inputs.shape[:-1]` in [0, 1], the soft label of the row's class (else 1).
- `weight`: broadcastable to `inputs`; with integer targets a weight of shape `inputs.shape[:-1]` is one per
  row, also where it could be read as one per class: write `weight[None, :]` for that.
- `alpha`, where the formula has one: None or a negative number is off; a number; or C numbers, one per class,
  in a tensor or a list.
- `reduction`: "none", "sum", or "mean" over the elements that count (all but the ignored rows; weights do not
  change the divisor). Nothing counting gives 0 with a zero gradient.
- `impl`: how it is run; `detloss._core.fused` says it.
- result: its dtype is in `detloss._core.reductions`. A gradient has the dtype of its input.

Values (class indices in range, soft targets in [0, 1], tensors of alpha and gamma) are checked on the CPU,
with the offending value in the message. On a GPU and under `torch.compile` indices are asserted, on a GPU
asynchronously, and other values are not checked, since that would synchronise. Under `vmap` none is checked;
`torch.compile` of `vmap` of `grad` looks the same as no `vmap` and fails on class indices: pass soft labels
there.
"""

import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import Tensor

from detloss._core.checks import (
    align_alpha,
    broadcastable,
    check_alpha,
    check_class_dim,
    check_exponent,
    check_limits,
    check_range,
    check_reduction,
    check_smoothing,
    check_targets,
    check_tensor,
    compute_dtype,
    per_class,
    read_targets,
    without,
)
from detloss._core.dtypes import check_devices
from detloss._core.fused import Call, Operand, fusable, fused, scalar
from detloss._core.reductions import reduce, result_dtype
from detloss._core.signatures import become, hyperparameters, keyword_only, positional, reader

SHARED = """
    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        reduction: "none", "sum" or "mean" (over the elements that count).
        quality: with class indices, the soft label of each row's class, of shape `inputs.shape[:-1]`, in
            [0, 1]; without it the label is 1.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.
"""


def elementwise_loss(
    formula: Callable[..., Tensor] | None = None,
    *,
    exponents: tuple[str, ...] = (),
    limits: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    quality: bool = False,
    bool_targets: bool = False,
    no_smoothing: str = "",
) -> Callable[..., Any]:
    """Turn a formula of logits into a loss with class indices, weights, reductions and a fused pass.

    A formula is a function `formula(logits, targets, hyper=default, ...)` that returns one value per element.

    The loss has the signature `(inputs, targets, <hyperparameters>, reduction="none", *, <keyword-only
    hyperparameters>, weight=None, ignore_index=-100, label_smoothing=0.0, class_dim=-1, impl="auto")`, and
    can be used wherever a loss of this package can (`linear_loss`, the command line). The formula gets logits
    and targets of one shape in float32 (float64), and hyperparameters as numbers or tensors that broadcast
    against the logits (a list of numbers, one per class, is one, unless the formula's default is a list);
    None, strings and booleans as they are. It uses torch functions and does not branch on a tensor's value,
    so that it can be traced.

    A parameter `positive` of the formula gets a boolean mask: the elements of the rows' classes, or soft
    labels above 0. A parameter `alpha` gets None for off, a number, or one per class.

    Args:
        formula: as above. Its docstring becomes that of the loss: its `Args`, the hyperparameters, are joined
            with the arguments that all these losses have.
        exponents: names of hyperparameters that are at least 0, numbers or 0-dim tensors, and whose defaults
            get a compiled loop of their own: a constant power is several times faster than a variable one. An
            alpha among them is a power, not a balance: one number, never off.
        limits: the least and the largest value of hyperparameters; alpha's, where it is not off, are 0 and 1
            unless said otherwise.
        quality: give the loss an argument `quality`, the soft label of each row's class.
        bool_targets: pass class indices to the formula as boolean targets (True is 1), which save arithmetic;
            the formula must take both.
        no_smoothing: why `label_smoothing` is refused, for a loss that reads more than a probability from a
            label.

    Returns:
        The loss; without `formula`, a decorator.

    Raises:
        ValueError: a formula without that signature, or a name that is not one of its hyperparameters.

    Examples:
        >>> @elementwise_loss
        ... def tempered_bce(logits, targets, tau=1.0):
        ...     return torch.nn.functional.softplus(logits / tau) - targets * logits / tau
        >>> tempered_bce(torch.zeros(2, 3), torch.tensor([1, 3]), tau=2.0, reduction="sum")
        tensor(4.1589)
    """
    if formula is None:
        return partial(
            elementwise_loss,
            exponents=exponents,
            limits=limits,
            quality=quality,
            bool_targets=bool_targets,
            no_smoothing=no_smoothing,
        )
    asked = hyperparameters(
        formula,
        "logits, targets",
        (*exponents, *limits),
        ("inputs", "targets", *_SHARED, *_OF_PASS),
        ("positive",),
    )
    wants_positive = asked.pop("positive", None) is not None
    signature = _signature(
        [_with_lists(value) if name not in exponents else value for name, value in asked.items()], quality
    )
    read = reader(signature)
    usual = {name: asked[name].default for name in exponents}
    numeric = [name for name, parameter in asked.items() if not isinstance(parameter.default, (list, tuple))]
    switches = [name for name, parameter in asked.items() if isinstance(parameter.default, bool)]
    limits = dict(limits)
    balances = "alpha" in asked and "alpha" not in exponents
    alpha_limits = limits.pop("alpha", (0.0, 1.0)) if balances else (0.0, 1.0)

    def check(hyper: Mapping[str, Any]) -> None:
        for name in exponents:
            check_exponent(name, hyper[name])
        for name, (least, largest) in limits.items():
            check_limits(name, hyper[name], least, largest)
        for name in switches:
            if not isinstance(hyper[name], bool):
                raise ValueError(f"{name} is {hyper[name]!r}; it must be True or False")
        if balances:
            check_alpha(hyper["alpha"], alpha_limits)
        check_smoothing(hyper["label_smoothing"], no_smoothing)

    @wraps(formula)
    def loss(inputs: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = read(inputs, targets, args, kwargs)
        reduction, weight, soft = given["reduction"], given["weight"], given.get("quality")
        check_reduction(reduction)
        dtype = compute_dtype(inputs)
        targets = read_targets(inputs.shape, targets)
        hyper = {name: given[name] for name in asked}
        for name in numeric:
            hyper[name] = per_class(hyper[name], dtype, inputs.device)
        check_devices(inputs=inputs, targets=targets, weight=weight, quality=soft, **hyper)
        dim = check_class_dim(given["class_dim"], inputs, targets, (weight, *hyper.values()))
        counted = check_targets(inputs, targets, soft, given["ignore_index"], dim)
        check({**hyper, "label_smoothing": given["label_smoothing"]})
        # a number, so that what is off costs nothing in the compiled loop
        off = isinstance(given["label_smoothing"], numbers.Real) and given["label_smoothing"] == 0
        smoothing = None if off else given["label_smoothing"]
        if weight is not None:
            check_tensor("weight", weight)
            if not targets.is_floating_point() and weight.shape == without(inputs.shape, dim):
                weight = weight.unsqueeze(dim)
        moved = dim < inputs.ndim - 1 and _one_per_class(targets, (weight, *hyper.values()))
        if moved:
            last = partial(_classes_last, shape=inputs.shape, dim=dim)
            weight = last("weight", weight)
            hyper = {name: last(name, value) for name, value in hyper.items()}
            inputs = last("inputs", inputs)
            targets = last("targets", targets) if targets.is_floating_point() else targets
        if balances:
            hyper["alpha"] = align_alpha(hyper["alpha"], inputs)
        for name, value in hyper.items():
            if isinstance(value, Tensor):
                hyper[name] = broadcastable(name, value, inputs.shape).to(dtype)
        if weight is not None:
            broadcastable("weight", weight, inputs.shape)
        fixed: dict[str, Any] = {
            "formula": formula,
            "wants_positive": wants_positive,
            "hard": bool_targets and soft is None and smoothing is None,
        }
        rest = {"weight": weight, "quality": soft, "label_smoothing": smoothing, **fixed, **hyper}

        def eagerly() -> Tensor:
            left_out = None if counted is None else given["ignore_index"]
            each = _each(inputs.to(dtype), targets, ignore_index=left_out, **rest)
            return reduce(each, reduction, _count(inputs, counted), inputs)

        value = None
        constants = {"weight": weight, "label_smoothing": smoothing, **hyper}
        if fusable(given["impl"], formula.__name__, (inputs,), constants):
            of_pass = {"ignore_index": given["ignore_index"], **rest}
            value = _in_one_pass(inputs, targets, of_pass, counted, reduction, usual, given["impl"], eagerly)
        if value is None:
            if targets.is_floating_point():
                check_range("targets", targets)
            value = eagerly()
        return value.movedim(-1, dim) if moved and reduction == "none" else value

    become(loss, formula, signature, SHARED)
    loss.check = check  # type: ignore[attr-defined]
    return loss


def _with_lists(parameter: inspect.Parameter) -> inspect.Parameter:
    """A hyperparameter of a formula that may be a tensor, as the loss takes it: a list of numbers too."""
    if Tensor not in get_args(parameter.annotation):
        return parameter
    return parameter.replace(annotation=parameter.annotation | Sequence[float])


def _signature(asked: Sequence[inspect.Parameter], quality: bool) -> inspect.Signature:
    """The loss's signature: the formula's hyperparameters, and what every loss has."""
    shared = [parameter for name, parameter in _SHARED.items() if quality or name != "quality"]
    order = [*positional(asked), shared[0], *keyword_only(asked), *shared[1:]]
    return inspect.Signature([*_TENSORS, *order], return_annotation=Tensor)


def _shared(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = "none",
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = "auto",
) -> None: ...


_TENSORS = list(inspect.signature(_shared).parameters.values())[:2]
_OF_PASS = ("formula", "wants_positive", "hard")
_SHARED = dict(list(inspect.signature(_shared).parameters.items())[2:])


def _one_per_class(targets: Tensor, others: Iterable[object]) -> bool:
    """Whether it matters which dimension the classes are; where not, a call does not copy its logits."""
    indices = not targets.is_floating_point()
    return indices or any(isinstance(value, Tensor) and value.ndim == 1 for value in others)


def _classes_last(name: str, value: Any, *, shape: torch.Size, dim: int) -> Any:
    """An argument that broadcasts to the shape of the inputs, with the classes moved from `dim` to the end.

    What has one dimension is one per class, and stays, as do numbers.
    """
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    value = broadcastable(name, value, shape)
    return value.reshape((1,) * (len(shape) - value.ndim) + value.shape).movedim(dim, -1)


def _each(
    inputs: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    quality: Tensor | None = None,
    label_smoothing: float | Tensor | None = None,
    *,
    formula: Callable[..., Tensor],
    wants_positive: bool,
    hard: bool,
    ignore_index: int | Tensor | None,
    **hyper: object,
) -> Tensor:
    """The loss of each element: the formula, given targets in either form, weighted, without ignored rows.

    `label_smoothing` is None where there is none.

    `hard`: class indices become booleans. `ignore_index` is None where no row is left out.
    """
    counted = positive = None
    if targets.is_floating_point():
        labels = targets.to(inputs.dtype)
    else:
        if ignore_index is not None:
            counted = (targets != ignore_index).unsqueeze(-1)
            inputs = inputs.masked_fill(~counted, 0)  # also in backward, where 0 × nan is nan
        # 32 bits: half the work of 64, and no class is beyond
        classes = torch.arange(inputs.shape[-1], dtype=torch.int32, device=targets.device)
        positive = labels = targets.to(torch.int32).unsqueeze(-1) == classes
        if not hard:
            label = (
                torch.ones_like(inputs[..., :1])
                if quality is None
                else quality.to(inputs.dtype).unsqueeze(-1)
            )
            labels = torch.where(positive, label, torch.zeros_like(label))
    if wants_positive:
        hyper["positive"] = labels > 0 if positive is None else positive
    if label_smoothing is not None:
        labels = labels * (1 - label_smoothing) + label_smoothing / 2
    loss = formula(inputs, labels, **hyper)
    if loss.shape != inputs.shape:
        raise ValueError(
            f"{formula.__name__} returned shape {tuple(loss.shape)} for logits {tuple(inputs.shape)}; a "
            "formula returns one value per element"
        )
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    return loss if counted is None else loss.masked_fill(~counted, 0)


def _in_one_pass(
    inputs: Tensor,
    targets: Tensor,
    given: dict[str, Any],
    counted: Tensor | None,
    reduction: str,
    usual: dict[str, float],
    impl: str,
    eagerly: Callable[[], Tensor],
) -> Tensor | None:
    """The loss by `fused`, on views of N rows and C classes."""
    classes = inputs.shape[-1] if inputs.ndim else 1
    last = "C" if classes > 1 else "1"
    dense = targets.is_floating_point()
    labels = targets.reshape(-1, classes) if dense else targets.reshape(-1)
    constants = {"targets": Operand(labels.contiguous(), "N" + last if dense else "N")}
    fixed = {}
    for name, value in given.items():
        if name in usual:
            continue
        if name == "quality" and value is not None:
            constants[name] = Operand(value.reshape(-1).contiguous(), "N")
        elif isinstance(value, Tensor):
            constants[name] = _operand(value, inputs.shape, last)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            dtype = torch.int64 if name == "ignore_index" else compute_dtype(inputs)
            constants[name] = scalar(float(value), dtype, inputs.device)
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
            inputs=[Operand(inputs.reshape(-1, classes).contiguous(), "N" + last)],
            constants=constants,
            fixed=fixed,
            arguments=(inputs,),
            again=eagerly,
            others=(targets, *given.values()),
            shape=inputs.shape,
            dtype=result_dtype(reduction, inputs),
            reduction=reduction,
            count=_count(inputs, counted),
            exponents={name: given[name] for name in usual},
            usual=usual,
            unit="targets" if dense else None,
            check=lambda: check_range("targets", targets),
            impl=impl,
        )
    )


def _operand(values: Tensor, shape: torch.Size, last: str) -> Operand:
    """A tensor that broadcasts to the logits, as it broadcasts to their view of N rows and C classes."""
    if values.numel() == 1:
        return Operand(values.reshape(()), "")
    if values.shape[-1] == 1:
        return Operand(values.expand(*shape[:-1], 1).reshape(-1, 1).contiguous(), "N1")
    if values.numel() == values.shape[-1]:
        return Operand(values.reshape(1, -1).contiguous(), "1" + last)
    return Operand(values.expand(shape).reshape(-1, shape[-1]).contiguous(), "N" + last)


def _count(inputs: Tensor, counted: Tensor | None) -> int | Tensor:
    return inputs.numel() if counted is None else counted.sum() * inputs.shape[-1]
