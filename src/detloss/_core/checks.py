"""What the losses refuse, with messages that name the argument, what it was and what it may be.

Values are checked on the CPU only: elsewhere that would cost a synchronisation. Under `torch.compile` and
on a GPU class indices are asserted, on a GPU asynchronously. Under `vmap` no value is checked.
"""

import math
import numbers
from collections.abc import Iterable
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


def per_class(value: Any, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Any:
    """A list, tuple or array of numbers, which is one per class, as a tensor; all else as it is."""
    if value is None or isinstance(value, (Tensor, int, float, str)):
        return value
    if not isinstance(value, (list, tuple)) and not (
        hasattr(value, "__array__") and hasattr(value, "tolist")
    ):
        return value
    try:
        values = torch.tensor(value, dtype=dtype or torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError):  # not of numbers
        return value
    return values if device is None else values.to(device, non_blocking=True)


def check_smoothing(value: float | Tensor, refused: str = "") -> None:
    """ValueError unless a label smoothing is in [0, 1); or, where there is a reason to refuse it, 0."""
    if type(value) is float and value == 0:
        return
    check_exponent("label_smoothing", value)
    if isinstance(value, Tensor) and not _readable(value):
        number = math.nan
    else:
        number = float(value)
        if number >= 1:
            raise ValueError(f"label_smoothing is {number:g}; it must be at least 0 and below 1")
    if refused and number != 0:
        raise ValueError(f"label_smoothing is {number:g}; it must be 0: {refused}")


def check_alpha(alpha: float | Tensor | None, limits: tuple[float, float]) -> None:
    """ValueError unless alpha is off (None or a negative number) or within its limits."""
    if alpha is not None and not isinstance(alpha, (Tensor, numbers.Real)):
        raise ValueError(
            f"alpha is {alpha!r}; it must be None, a number, or one number per class in a tensor or a list"
        )
    if alpha is not None and (isinstance(alpha, Tensor) or not alpha < 0):
        check_limits("alpha", alpha, *limits, " (None or a negative number switches it off; a tensor cannot)")


def align_alpha(alpha: float | Tensor | None, inputs: Tensor) -> Tensor | None:
    """Alpha as a tensor, None where it is off; ValueError unless it is one number or one per class."""
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


MASKS = (torch.bool, torch.uint8)


def read_targets(shape: torch.Size, targets: Tensor) -> Tensor:
    """Targets as soft labels, floating, or class indices, int64; ValueError where they are neither.

    A mask, bool or uint8, of the `shape` of the inputs holds labels 0 and 1.
    """
    check_tensor("targets", targets)
    if targets.dtype in MASKS and targets.shape == shape:
        return targets.to(torch.float32)
    check_labels("targets", targets)
    return targets if targets.is_floating_point() else targets.long()


def check_class_dim(class_dim: int, inputs: Tensor, targets: Tensor, others: Iterable[object]) -> int:
    """The dimension of the classes, from 0; ValueError where it is none, or where two may be meant.

    Channels-first logits `(N, C, H, W)` whose three sizes are equal fit class indices `(N, H, W)` either way,
    and an argument of one dimension (one alpha per class) fits as soon as C = W. `others` are such arguments.
    """
    dims = inputs.ndim or 1
    if class_dim == -1 and dims < 4 and type(class_dim) is int:
        return dims - 1
    shape = tuple(inputs.shape)
    if not isinstance(class_dim, int) or isinstance(class_dim, bool) or not -dims <= class_dim < dims:
        raise ValueError(
            f"class_dim is {class_dim!r}; for inputs of shape {shape} it must be an integer from {-dims} to "
            f"{dims - 1}: -1 where the classes are the last dimension, 1 for (N, C, H, W)"
        )
    if class_dim == -1 and shape[1] == shape[-1] > 1 and inputs.numel():
        one_each = any(isinstance(value, Tensor) and value.ndim == 1 < value.numel() for value in others)
        indices = not targets.is_floating_point() and tuple(targets.shape) == shape[:1] + shape[2:]
        if one_each or (indices and targets.shape == inputs.shape[:-1]):
            raise ValueError(
                f"inputs have shape {shape}: the classes may be dimension 1, as in (N, C, H, W), or the "
                f"last; say which by class_dim=1 or class_dim={dims - 1}"
            )
    return class_dim % dims


def check_rising(name: str, values: Tensor, count: int) -> None:
    """ValueError unless these are so many finite numbers, each above the one before; on a GPU asserted."""
    if values.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(values.shape)}; it must be ({count},)")
    if is_transformed(values):
        return
    values = values.detach()
    rising = (values.diff() > 0).all() & values.isfinite().all()
    if not _readable(values):
        if rising.device.type not in ("cpu", "cuda"):
            return
        assert_on_device(rising, f"{name} does not rise from each number to the next, or is not finite")
    elif not rising:
        wrong = int((~(values.diff() > 0)).int().argmax())
        pair = f"{values[wrong]:g} before {values[wrong + 1]:g}"
        found = pair if values.isfinite().all() else "a number that is not finite"
        raise ValueError(f"{name} has {found}; each number must be finite and above the one before")


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
    inputs: Tensor, targets: Tensor, quality: Tensor | None, ignore_index: int, class_dim: int
) -> Tensor | None:
    """ValueError where targets of either form do not fit; the mask of rows that count, None for all."""
    rows = without(inputs.shape, class_dim)
    if targets.is_floating_point():
        if targets.shape != inputs.shape:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}, inputs {tuple(inputs.shape)}; soft labels need "
                f"the shape of the inputs (class indices are integers of shape {tuple(rows)})"
            )
        if quality is not None:
            raise ValueError("quality is for class indices; floating targets are soft labels already")
        return None
    if not inputs.ndim or targets.shape != rows:
        fits = [dim for dim in range(inputs.ndim) if without(inputs.shape, dim) == targets.shape]
        remedy = f"pass class_dim={fits[0]}" if fits else "for a label 0 or 1 per logit pass targets.float()"
        raise ValueError(
            f"integer targets have shape {tuple(targets.shape)}, inputs {tuple(inputs.shape)}; class indices "
            f"need shape {tuple(rows)} where the classes are dimension {class_dim} ({remedy})"
        )
    if quality is not None:
        check_labels("quality", quality)
        if quality.shape != targets.shape:
            raise ValueError(
                f"quality has shape {tuple(quality.shape)}; it must be {tuple(targets.shape)}, "
                "one value per row"
            )
        check_range("quality", quality)
    classes = inputs.shape[class_dim]
    meaning = f"classes 0..{classes - 1}, {classes} (background)" if classes else "0 (background)"
    return check_indices(targets, classes + 1, ignore_index, meaning)


def without(shape: torch.Size, dim: int) -> torch.Size:
    """A shape without one of its dimensions."""
    return shape[:dim] + shape[dim + 1 :]


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
