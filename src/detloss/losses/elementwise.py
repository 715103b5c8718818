"""What the losses share, written once: targets, weights, ignored rows, dtypes, reduction, errors.

The formula of a classification loss is a plain function of numbers that are already aligned and float32 (or
float64): `formula(logits, targets, **hyper)`, every argument of the shape of the logits, elementwise.
Everything a caller may pass around it comes from `elementwise` below:

- `inputs`: logits `(..., C)`, any floating dtype. Arithmetic is float32, float64 for float64.
- `targets`: floating, shape of `inputs`, in [0, 1]; or integer, shape `inputs.shape[:-1]`: class 0..C-1, `C`
  is background (all C outputs negative), `ignore_index` leaves the row out. Targets are constants.
- `quality`: with integer targets, `inputs.shape[:-1]` in [0, 1], the soft label of the row's class (else 1).
- `weight`: broadcastable to `inputs`; with integer targets a weight of shape `inputs.shape[:-1]` is one per
  row, also where it could be read as one per class: write `weight[None, :]` for that.
- `alpha`: None or a negative number is off; a number weighs the positive part alpha and the negative
  1 - alpha; a tensor `(C,)` holds one such alpha per class, each in [0, 1].
- `reduction`: "none", "sum", or "mean" over the elements that count (all but the ignored rows; weights do not
  change the divisor). Nothing counting gives 0 with a zero gradient.
- result: "none" comes in the dtype of `inputs`, as torch's and torchvision's losses; under autocast, and for
  "sum" and "mean" of half-precision inputs, in float32, since fp16 ends at 65504. A gradient has the dtype of
  its input.

Values (class indices in range, soft targets in [0, 1], tensors of alpha and gamma) are checked on the CPU,
with the offending value in the message. On a GPU and under `torch.compile` indices are asserted, on a GPU
asynchronously, and other values are not looked at: that would cost a synchronisation. Under `vmap` none is
looked at; `torch.compile` of `vmap` of `grad` cannot be told from no `vmap` and fails on class indices: pass
dense targets there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def elementwise(
    formula: Callable[..., Tensor],
    inputs: Tensor,
    targets: Tensor,
    reduction: str,
    *,
    alpha: float | Tensor | None = None,
    pos_weight: Tensor | None = None,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    with_positive: bool = False,
    **hyper: object,
) -> Tensor:
    """Run a formula on aligned numbers and apply everything the module docstring lists.

    `pos_weight` is passed on to the formula (as are the other keywords), broadcast against its logits.
    `with_positive` gives the formula the keyword `positive`, the boolean mask of the positive elements: those
    of a row's class, or dense targets above 0.
    """
    check_reduction(reduction)
    dtype = compute_dtype(inputs)
    alpha = align_alpha(alpha, inputs)
    dense, positive, counted = _align_targets(inputs, targets, quality, ignore_index)
    if pos_weight is not None:
        hyper["pos_weight"] = broadcastable("pos_weight", pos_weight, inputs).to(dtype)
    if with_positive:
        hyper["positive"] = dense > 0 if positive is None else positive
    loss = formula(inputs.to(dtype), dense, **hyper)
    if alpha is not None:
        alpha = alpha if isinstance(alpha, Tensor) else torch.full((), alpha, dtype=dtype, device=loss.device)
        loss = loss * torch.lerp(1 - alpha, alpha, dense)
    if weight is not None:
        check_tensor("weight", weight)
        if positive is not None and weight.shape == inputs.shape[:-1]:
            weight = weight.unsqueeze(-1)
        loss = loss * broadcastable("weight", weight, inputs).to(dtype)
    if counted is None:
        return reduce(loss, reduction, loss.numel(), inputs)
    counted = counted.unsqueeze(-1)
    loss = loss.masked_fill(~counted, 0)
    return reduce(loss, reduction, counted.sum() * inputs.shape[-1], inputs)


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base**exponent for base in [0, 1] and any exponent ≥ 0, with finite first and second derivatives at 0.

    x**γ has an infinite first or second derivative at 0 for γ < 1 or 2 that is no integer, and autograd's is
    NaN there once the inner derivative is 0. A number far below the resolution of any loss, whose inverse
    square does not overflow, is then added to the base.
    """
    if isinstance(exponent, Tensor) or exponent % 1:
        base = base + torch.finfo(base.dtype).tiny ** 0.5
    return base**exponent


def reduce(loss: Tensor, reduction: str, count: int | Tensor, inputs: Tensor) -> Tensor:
    """The reduced loss, its dtype as the module docstring says; `count` divides the mean."""
    if reduction == "none":
        return loss if torch.is_autocast_enabled(inputs.device.type) else loss.to(inputs.dtype)
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))


def compute_dtype(inputs: Tensor) -> torch.dtype:
    """The dtype of the arithmetic; ValueError where the inputs are not floating."""
    check_tensor("inputs", inputs)
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs are {inputs.dtype}; logits must be floating: pass the raw outputs, not classes"
        )
    return torch.float64 if inputs.dtype == torch.float64 else torch.float32


def check_reduction(reduction: str) -> None:
    """ValueError unless the reduction is one of "none", "mean", "sum"."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it may be one of {', '.join(map(repr, REDUCTIONS))}")


def check_exponent(name: str, value: float | Tensor) -> None:
    """ValueError unless an exponent (gamma, beta) is at least 0, a number or a tensor of no dimensions."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; it may be a number or a 0-dim tensor")
        if not _readable(value):
            return
        value = value.item()
    if not value >= 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")


def check_alpha(alpha: float | Tensor | None, upper: float = 1.0) -> None:
    """ValueError unless alpha is None, a number up to `upper`, or a tensor of numbers from 0 to it."""
    if isinstance(alpha, Tensor):
        if _readable(alpha) and alpha.numel():
            low, high = (bound.item() for bound in alpha.detach().aminmax())
            if not (low >= 0 and high <= upper):
                raise ValueError(
                    f"alpha holds values from {low:g} to {high:g}; as a tensor it must be in [0, {upper:g}] "
                    "(only a number is off where it is negative)"
                )
    elif alpha is not None and not alpha <= upper:
        raise ValueError(f"alpha is {alpha}; it must be in [0, {upper:g}], or None or negative for off")


def align_alpha(alpha: float | Tensor | None, inputs: Tensor, upper: float = 1.0) -> float | Tensor | None:
    """Alpha ready for the arithmetic, None where it is off; ValueError as in `check_alpha`, or by shape."""
    check_alpha(alpha, upper)
    if isinstance(alpha, Tensor):
        if alpha.shape not in ((), inputs.shape[-1:]):
            raise ValueError(
                f"alpha has shape {tuple(alpha.shape)}; it may be a number or, one per class, "
                f"{tuple(inputs.shape[-1:])}"
            )
        return alpha.to(compute_dtype(inputs))
    return None if alpha is None or alpha < 0 else alpha


def check_tensor(name: str, values: object) -> None:
    """ValueError unless an argument is a tensor."""
    if not isinstance(values, Tensor):
        found = values if isinstance(values, (int, float)) else f"a {type(values).__name__}"
        raise ValueError(f"{name} is {found}; it must be a tensor")


def check_labels(name: str, values: Tensor) -> None:
    """ValueError unless targets are a tensor, of numbers, that asks for no gradient: it would get none."""
    check_tensor(name, values)
    if values.dtype == torch.bool:
        raise ValueError(f"{name} is bool; pass {name}.float() where it is numbers, or class indices")
    if values.requires_grad:
        raise ValueError(f"{name} requires grad, but targets are constants of a loss: pass {name}.detach()")


def check_range(name: str, values: Tensor) -> None:
    """ValueError, on the CPU only, where soft targets leave [0, 1] by more than rounding."""
    if not _readable(values) or not values.numel():
        return
    low, high = values.detach().aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"{name} must lie in [0, 1], found values from {low.item():g} to {high.item():g}; "
            "classes go in as integers, elements to leave out get weight 0"
        )


def check_indices(targets: Tensor, allowed: int, ignore_index: int, meaning: str) -> Tensor | None:
    """The mask of the rows that count; ValueError unless an index is in 0..allowed-1 or `ignore_index`.

    None where Python sees that all count: that saves the caller its passes over the loss.
    """
    counted = targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= allowed))
    if _readable(wrong):
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"targets{list(place)} is {targets[place].item()}; allowed are {meaning} "
                f"and {ignore_index} (ignored)"
            )
        return None if counted.all() else counted
    if wrong.device.type in ("cpu", "cuda") and not _transformed(wrong):
        torch._assert_async(
            ~wrong.any(), f"targets hold an index that is none of {meaning} and {ignore_index}"
        )
    return counted


def _align_targets(
    inputs: Tensor, targets: Tensor, quality: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Dense targets of the inputs' shape; for indices also the positive elements and the rows that count."""
    dtype, shape = compute_dtype(inputs), tuple(inputs.shape)
    check_labels("targets", targets)
    if targets.is_floating_point():
        if targets.shape != inputs.shape:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}, inputs {shape}; floating targets have "
                f"the inputs' shape (class indices are integers of shape {shape[:-1]})"
            )
        if quality is not None:
            raise ValueError("quality goes with integer targets; floating targets are soft labels already")
        check_range("targets", targets)
        return targets.to(dtype), None, None
    if not inputs.ndim or targets.shape != inputs.shape[:-1]:
        raise ValueError(
            f"integer targets have shape {tuple(targets.shape)}, inputs {shape}; class indices have shape "
            f"{shape[:-1]} (for a 0/1 target per logit pass targets.float())"
        )
    classes = inputs.shape[-1]
    targets = targets.long()
    meaning = f"classes 0..{classes - 1}, {classes} (background)" if classes else "0 (background)"
    counted = check_indices(targets, classes + 1, ignore_index, meaning)
    positive = targets.unsqueeze(-1) == torch.arange(classes, device=targets.device)
    if quality is None:
        return positive.to(dtype), positive, counted
    check_labels("quality", quality)
    if quality.shape != targets.shape:
        raise ValueError(
            f"quality has shape {tuple(quality.shape)}; it holds one value per row, {tuple(targets.shape)}"
        )
    check_range("quality", quality)
    return torch.where(positive, quality.to(dtype).unsqueeze(-1), 0), positive, counted


def broadcastable(name: str, values: Tensor, inputs: Tensor) -> Tensor:
    """The values; ValueError unless broadcasting them against the inputs gives the shape of the inputs."""
    check_tensor(name, values)
    fits = values.ndim <= inputs.ndim and all(
        size in (1, whole) for size, whole in zip(reversed(values.shape), reversed(inputs.shape))
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, which does not broadcast to {tuple(inputs.shape)}"
        )
    return values


def _readable(values: Tensor) -> bool:
    """Whether Python may look at the values: free on the CPU, a synchronisation or an error elsewhere."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling() and not _transformed(values)


def _transformed(values: Tensor) -> bool:
    """Whether the values stand for several, under `vmap` or another transform of `torch.func`."""
    if torch.compiler.is_compiling():  # which traces this function, but not the other
        return torch._C._functorch.is_batchedtensor(values)
    return torch._C._functorch.is_functorch_wrapped_tensor(values)
