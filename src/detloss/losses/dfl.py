"""Distribution focal loss: a box side as a distribution over bins, and the integral that reads it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss._core.checks import broadcastable, check_labels, check_reduction, compute_dtype
from detloss._core.dtypes import check_devices
from detloss._core.fused import Call, Operand, fusable, fused
from detloss._core.modules import keep, kept, shown
from detloss._core.reductions import reduce, result_dtype


def distribution_focal(logits: Tensor, *, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """-((i+1-y) log p_i + (y-i) log p_{i+1}), i = floor y: every bin j weighs max(0, 1-|y-j|)."""
    distances = targets.to(logits.dtype).clamp(0, logits.shape[-1] - 1)
    share = (1 - (distances.unsqueeze(-1) - _bins(logits)).abs()).clamp(min=0)
    loss = -(share * F.log_softmax(logits, -1)).sum(-1)
    return loss if weight is None else loss * weight.to(loss.dtype)


def distribution_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Distribution focal loss: cross entropy of a predicted box side to the two bins next to its distance.

    DFL = -((i+1-y) log p_i + (y-i) log p_{i+1}),  i = floor y,  p = softmax of the n+1 logits of one side.
    Each side of a box is predicted as a distribution over n+1 bins. The loss is smallest where p has those
    two shares; `distribution_integral` then gives y back.

    Convention: targets are clamped to [0, n] in a copy, and both ends are exact (mmdet
    does not clamp; ultralytics clamps in place to n - .01). A box is four such sides, left, top, right,
    bottom, in units of the bins, usually the stride.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.
        targets: distances in bins `(...)`.
        reduction: "none", "sum" or "mean" (over the targets).
        weight: a factor on the loss, broadcastable to `targets`.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        The loss `(...)`, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in
        float32.

    Raises:
        ValueError: shapes or devices that do not fit, fewer than two bins, targets that require grad.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 6.
    """
    check_reduction(reduction)
    check_labels("targets", targets)
    dtype = _check_bins(inputs)
    if targets.shape != inputs.shape[:-1]:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}; for inputs {tuple(inputs.shape)} they "
            f"must be {tuple(inputs.shape[:-1])}, one distance per distribution"
        )
    check_devices(inputs=inputs, targets=targets, weight=weight)
    if weight is not None:
        broadcastable("weight", weight, targets.shape)

    def eagerly() -> Tensor:
        loss = distribution_focal(inputs.to(dtype), targets=targets, weight=weight)
        return reduce(loss, reduction, loss.numel(), inputs)

    if fusable(impl, "distribution_focal_loss", (inputs,), {"weight": weight}):
        constants = {"targets": Operand(targets.reshape(-1).contiguous(), "N")}
        if weight is not None:
            constants["weight"] = Operand(weight.expand(targets.shape).reshape(-1).contiguous(), "N")
        value = fused(
            Call(
                name="distribution_focal_loss",
                formula=distribution_focal,
                inputs=[Operand(inputs.reshape(-1, inputs.shape[-1]).contiguous(), "NC")],
                constants=constants,
                fixed={},
                again=eagerly,
                arguments=(inputs,),
                others=(targets, weight),
                shape=targets.shape,
                dtype=result_dtype(reduction, inputs),
                reduction=reduction,
                count=targets.numel(),
                reduced=-1,
                impl=impl,
            )
        )
        if value is not None:
            return value
    return eagerly()


def distribution_integral(inputs: Tensor) -> Tensor:
    """The box side that a distribution over bins stands for: its mean, Σ_j j softmax(inputs)_j.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.

    Returns:
        Distances in bins, `(...)`, float32 (float64 for float64 inputs) also for half-precision logits: bf16
        would place the side only to a sixteenth of a bin.

    Raises:
        ValueError: fewer than two bins.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 4.
    """
    logits = inputs.to(_check_bins(inputs))
    return (logits.softmax(-1) * _bins(logits)).sum(-1)


def _check_bins(inputs: Tensor) -> torch.dtype:
    """The dtype of the arithmetic; ValueError unless the inputs are floating, with two bins or more."""
    dtype = compute_dtype(inputs)
    if inputs.shape[-1:].numel() < 2:  # of no dimensions it is 1
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}; the last dimension holds n+1 ≥ 2 bins")
    return dtype


def _bins(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)


class DistributionFocalLoss(nn.Module):
    """Module of `distribution_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(self, reduction: str = "mean", *, impl: str = "auto") -> None:
        super().__init__()
        keep(self, reduction=reduction, impl=impl)

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(..., n+1)` for distances `(...)` in bins."""
        return distribution_focal_loss(inputs, targets, weight=weight, **kept(self))

    extra_repr = shown
