"""How losses are reduced: "none", "sum" and "mean", and the dtype of each.

"none" comes in the dtype of the logits, as torch's and torchvision's losses. Under autocast, and for "sum"
and "mean" of half-precision logits, the result is float32, since fp16 ends at 65504.
"""

import torch
from torch import Tensor

from detloss._core.checks import compute_dtype


def reduce(loss: Tensor, reduction: str, count: int | Tensor, inputs: Tensor) -> Tensor:
    """The reduced loss, its dtype as the module docstring says; `count` divides the mean."""
    if reduction == "none":
        return loss.to(result_dtype(reduction, inputs))
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / at_least_one(count)


def result_dtype(reduction: str, inputs: Tensor) -> torch.dtype:
    """The dtype of a reduced loss, as the module docstring says."""
    if reduction == "none" and not torch.is_autocast_enabled(inputs.device.type):
        return inputs.dtype
    return compute_dtype(inputs)


def mean_scale(reduction: str, count: int | Tensor, inputs: Tensor) -> float | Tensor | None:
    """What the sum is multiplied with: None for "none", 1 for "sum", 1/count for "mean"."""
    if reduction == "mean":
        count = at_least_one(count)
        return count.to(compute_dtype(inputs)).reciprocal() if isinstance(count, Tensor) else 1 / count
    return None if reduction == "none" else 1.0


def at_least_one(count: int | Tensor) -> int | Tensor:
    """What a mean divides by."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
