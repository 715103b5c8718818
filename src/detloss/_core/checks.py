"""What the losses refuse, with messages that name the argument, what it was and what it may be.

Values are checked on the CPU only: elsewhere that would cost a synchronisation. Under `torch.compile` and
on a GPU class indices are asserted, on a GPU asynchronously. Under `vmap` no value is checked.
"""

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from detloss._core.dtypes import arithmetic_dtype
from detloss._core.private import assert_on_device, is_transformed

REDUCTIONS = ("none", "mean", "sum")


def compute_dtype(inputs: Tensor) -> torch.dtype:
    """The dtype of the arithmetic; ValueError where the inputs are not floating."""
    check_tensor("inputs", inputs)
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs are {inputs.dtype}; they must be floating: pass the raw outputs of the network, "
            "not class indices"
        )
    return arithmetic_dtype(inputs.dtype)


def check_reduction(reduction: str) -> None:
    """ValueError unless the reduction is one of "none", "mean", "sum"."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it may be one of {', '.join(map(repr, REDUCTIONS))}")


def check_exponent(name: str, value: float | Tensor) -> None:
    """ValueError unless an exponent (gamma, beta) is at least 0, a number or a tensor of no dimensions."""
    if isinstance(value, Tensor) and value.ndim:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be a number or a 0-dim tensor")
    if not isinstance(value, (Tensor, numbers.Real)):
        raise ValueError(f"{name} is {value!r}; it must be a number or a 0-dim tensor")
    check_limits(name, value, 0, math.inf)


def check_limits(name: str, value: Any, least: float, largest: float, note: str = "") -> None:
    """ValueError where a hyperparameter, a number or a tensor, leaves its limits; all else passes."""
    if isinstance(value, Tensor):
        if not (_readable(value) and value.numel()):
            return
        value = value.detach() if value.ndim else value.item()
    elif not isinstance(value, numbers.Real):
        return
    several = isinstance(value, Tensor)
    low, high = map(Tensor.item, value.aminmax()) if several else (value, value)
    if not (low >= least and high <= largest):
        found = f"holds values from {low:g} to {high:g}" if several else f"is {value}"
        allowed = f"at least {least:g}" if largest == math.inf else f"in [{least:g}, {largest:g}]"
        raise ValueError(f"{name} {found}; it must be {allowed}{note}")


def check_alpha(alpha: float | Tensor | None, limits: tuple[float, float] = (0.0, 1.0)) -> None:
    """ValueError unless alpha is off (None or a negative number) or within its limits."""
    if alpha is not None and (isinstance(alpha, Tensor) or not alpha < 0):
        check_limits("alpha", alpha, *limits, " (None or a negative number switches it off; a tensor cannot)")


def align_alpha(alpha: float | Tensor | None, inputs: Tensor, limits: tuple[float, float]) -> Tensor | None:
    """Alpha as a tensor, None where it is off; ValueError as in `check_alpha`, or by shape."""
    check_alpha(alpha, limits)
    if isinstance(alpha, Tensor):
        if alpha.shape not in ((), inputs.shape[-1:]):
            raise ValueError(
                f"alpha has shape {tuple(alpha.shape)}; it must be a number, or "
                f"{tuple(inputs.shape[-1:])}, one per class"
            )
        return alpha.to(compute_dtype(inputs))
    if alpha is None or alpha < 0:
        return None
    return torch.full((), alpha, dtype=compute_dtype(inputs), device=inputs.device)


def check_tensor(name: str, values: object) -> None:
    """ValueError unless an argument is a tensor."""
    if not isinstance(values, Tensor):
        found = values if isinstance(values, (int, float)) else f"a {type(values).__name__}"
        raise ValueError(f"{name} is {found}; it must be a tensor")


def check_labels(name: str, values: Tensor) -> None:
    """ValueError unless targets are a tensor of numbers that does not require grad."""
    check_tensor(name, values)
    if values.dtype == torch.bool:
        raise ValueError(f"{name} is bool; pass {name}.float() for labels 0 and 1, or class indices")
    if values.requires_grad:
        raise ValueError(f"{name} requires grad, but labels are constants of a loss; pass {name}.detach()")


def check_range(name: str, values: Tensor) -> None:
    """ValueError, on the CPU only, where soft targets leave [0, 1] by more than rounding."""
    if _readable(values) and values.numel():
        low, high = values.detach().aminmax()
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"{name} holds values from {low.item():g} to {high.item():g}; it must be in [0, 1]: pass "
                "classes as integers, and give elements to leave out the weight 0"
            )


def check_indices(targets: Tensor, allowed: int, ignore_index: int, meaning: str) -> Tensor | None:
    """The mask of the rows that count; ValueError unless an index is in 0..allowed-1 or `ignore_index`.

    None where it can be seen that all count: that saves the caller its passes over the loss.
    """
    looked_at = _readable(targets)
    if looked_at:
        low, high = targets.aminmax() if targets.numel() else (0, 0)
        if low >= 0 and high < allowed and not low <= ignore_index <= high:
            return None
    counted = targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= allowed))
    if looked_at:
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"targets{list(place)} is {targets[place].item()}; it may be {meaning} or {ignore_index} "
                "(ignored)"
            )
        return counted
    if wrong.device.type in ("cpu", "cuda") and not is_transformed(wrong):
        assert_on_device(~wrong.any(), f"targets hold an index other than {meaning} and {ignore_index}")
    return counted


def check_targets(
    inputs: Tensor, targets: Tensor, quality: Tensor | None, ignore_index: int
) -> Tensor | None:
    """ValueError where targets of either form do not fit; the mask of rows that count, None for all."""
    if targets.is_floating_point():
        if targets.shape != inputs.shape:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}, inputs {tuple(inputs.shape)}; soft labels need "
                f"the shape of the inputs (class indices are integers of shape {tuple(inputs.shape[:-1])})"
            )
        if quality is not None:
            raise ValueError("quality is for class indices; floating targets are soft labels already")
        return None
    if not inputs.ndim or targets.shape != inputs.shape[:-1]:
        raise ValueError(
            f"integer targets have shape {tuple(targets.shape)}, inputs {tuple(inputs.shape)}; class indices "
            f"need shape {tuple(inputs.shape[:-1])} (for a label 0 or 1 per logit pass targets.float())"
        )
    if quality is not None:
        check_labels("quality", quality)
        if quality.shape != targets.shape:
            raise ValueError(
                f"quality has shape {tuple(quality.shape)}; it must be {tuple(targets.shape)}, "
                "one value per row"
            )
        check_range("quality", quality)
    classes = inputs.shape[-1]
    meaning = f"classes 0..{classes - 1}, {classes} (background)" if classes else "0 (background)"
    return check_indices(targets, classes + 1, ignore_index, meaning)


def broadcastable(name: str, values: Tensor, shape: torch.Size) -> Tensor:
    """The values; ValueError unless they are real and broadcast to this shape."""
    check_tensor(name, values)
    if values.is_complex():
        raise ValueError(f"{name} is {values.dtype}; it must be real")
    fits = values.ndim <= len(shape) and all(
        size in (1, whole) for size, whole in zip(reversed(values.shape), reversed(shape))
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, which does not broadcast to {tuple(shape)}"
        )
    return values


def _readable(values: Tensor) -> bool:
    """Whether the values can be checked without cost: only on the CPU, and not under a transform."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed(values)
