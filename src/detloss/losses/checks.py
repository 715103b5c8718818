"""What the losses refuse, with messages that name the argument, what it was and what it may be.

Values are looked at on the CPU only: elsewhere that would cost a synchronisation. Under `torch.compile` and
on a GPU class indices are asserted, on a GPU asynchronously. Under `vmap` no value is looked at.
"""

import math

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


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


def check_limits(name: str, value: object, least: float, largest: float) -> None:
    """ValueError where a hyperparameter, a number or a tensor, leaves its limits; None is off."""
    if isinstance(value, Tensor) and _readable(value) and value.numel():
        low, high = (bound.item() for bound in value.detach().aminmax())
        found = f"holds values from {low:g} to {high:g}"
    elif isinstance(value, (int, float)):
        low = high = value
        found = f"is {value}"
    else:
        return
    if not (low >= least and high <= largest):
        allowed = f"at least {least:g}" if largest == math.inf else f"in [{least:g}, {largest:g}]"
        raise ValueError(f"{name} {found}; it must be {allowed}")


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
    if _readable(values) and values.numel():
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
                f"targets{list(place)} is {targets[place].item()}; allowed are {meaning} "
                f"and {ignore_index} (ignored)"
            )
        return counted
    if wrong.device.type in ("cpu", "cuda") and not _transformed(wrong):
        torch._assert_async(
            ~wrong.any(), f"targets hold an index that is none of {meaning} and {ignore_index}"
        )
    return counted


def broadcastable(name: str, values: Tensor, shape: torch.Size) -> Tensor:
    """The values; ValueError unless they broadcast to this shape."""
    check_tensor(name, values)
    fits = values.ndim <= len(shape) and all(
        size in (1, whole) for size, whole in zip(reversed(values.shape), reversed(shape))
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, which does not broadcast to {tuple(shape)}"
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
