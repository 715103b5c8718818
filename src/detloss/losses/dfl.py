"""Distribution focal loss: a box side as a distribution over bins, and the integral that reads it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss._core.checks import (
    broadcastable,
    check_labels,
    check_reduction,
    check_rising,
    check_tensor,
    compute_dtype,
)
from detloss._core.dtypes import check_devices
from detloss._core.fused import Call, Operand, fusable, fused
from detloss._core.modules import LossModule
from detloss._core.reductions import reduce, result_dtype


def distribution_focal(
    logits: Tensor, *, targets: Tensor, weight: Tensor | None = None, bins: Tensor | None = None
) -> Tensor:
    """-((i+1-y) log p_i + (y-i) log p_{i+1}), i = floor y: every bin j weighs max(0, 1-|y-j|)."""
    distances = targets.to(logits.dtype).unsqueeze(-1)
    if bins is None:
        away = distances.clamp(0, logits.shape[-1] - 1) - _positions(logits)
    else:
        away = _parts_of_the_way(distances, bins)
    share = (1 - away.abs()).clamp(min=0)
    loss = -(share * F.log_softmax(logits, -1)).sum(-1)
    return loss if weight is None else loss * weight.to(loss.dtype)


def _parts_of_the_way(distances: Tensor, bins: Tensor) -> Tensor:
    """How far each distance is from each bin, 1 being the next bin on its side."""
    away = distances.clamp(bins[0], bins[-1]) - bins
    # what rolls round belongs to the far side of either end, where clamped distances are not
    return away / torch.where(away > 0, bins.roll(-1) - bins, bins - bins.roll(1))


def distribution_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    bins: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Distribution focal loss: cross entropy of a predicted box side to the two bins next to its distance.

    DFL = -((i+1-y) log p_i + (y-i) log p_{i+1}),  i = floor y,  p = softmax of the n+1 logits of one side.
    Each side of a box is predicted as a distribution over n+1 bins. The loss is smallest where p has those
    two shares; `distribution_integral` then gives y back.

    With `bins` w_0 < ... < w_n at other places than 0 to n, the two bins are those around y, and share it by
    where y lies between them: the fine-grained localization loss of D-FINE without its weight, an IoU.

    Convention: targets are clamped to [0, n] (to the first and the last of `bins`) in a copy, and both ends
    are exact (mmdet does not clamp; ultralytics clamps in place to n - .01). A box is four such sides, left,
    top, right, bottom, in units of the bins, usually the stride.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.
        targets: distances in bins, or in the units of `bins`, `(...)`.
        reduction: "none", "sum" or "mean" (over the targets).
        weight: a factor on the loss, broadcastable to `targets`.
        bins: where the bins are, n+1 rising positions; without it 0, 1, ..., n.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        The loss `(...)`, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in
        float32.

    Raises:
        ValueError: shapes or devices that do not fit, fewer than two bins, targets that require grad, bins
            that do not rise.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 6. Other positions: Peng et al., D-FINE,
    arXiv:2410.13842.
    """
    check_reduction(reduction)
    check_labels("targets", targets)
    dtype = _check_inputs(inputs)
    if targets.shape != inputs.shape[:-1]:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}; for inputs {tuple(inputs.shape)} they "
            f"must be {tuple(inputs.shape[:-1])}, one distance per distribution"
        )
    check_devices(inputs=inputs, targets=targets, weight=weight, bins=bins)
    places = _check_bins(bins, inputs, dtype)
    if weight is not None:
        broadcastable("weight", weight, targets.shape)

    def eagerly() -> Tensor:
        loss = distribution_focal(inputs.to(dtype), targets=targets, weight=weight, bins=places)
        return reduce(loss, reduction, loss.numel(), inputs)

    if fusable(impl, "distribution_focal_loss", (inputs,), {"weight": weight, "bins": bins}):
        constants = {"targets": Operand(targets.reshape(-1).contiguous(), "N")}
        if weight is not None:
            constants["weight"] = Operand(weight.expand(targets.shape).reshape(-1).contiguous(), "N")
        if places is not None:
            constants["bins"] = Operand(places.contiguous(), "C")
        value = fused(
            Call(
                name="distribution_focal_loss",
                formula=distribution_focal,
                inputs=[Operand(inputs.reshape(-1, inputs.shape[-1]).contiguous(), "NC")],
                constants=constants,
                fixed={},
                again=eagerly,
                arguments=(inputs,),
                others=(targets, weight, bins),
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


def distribution_integral(inputs: Tensor, *, bins: Tensor | None = None) -> Tensor:
    """The box side that a distribution over bins stands for: its mean, Σ_j j softmax(inputs)_j.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.
        bins: where the bins are, n+1 rising positions w: Σ_j w_j softmax(inputs)_j; without it 0, 1, ..., n.

    Returns:
        Distances in bins, or in the units of `bins`, `(...)`, float32 (float64 for float64 inputs) also for
        half-precision logits: bf16 would place the side only to a sixteenth of a bin.

    Raises:
        ValueError: fewer than two bins, bins that do not rise.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 4.
    """
    dtype = _check_inputs(inputs)
    check_devices(inputs=inputs, bins=bins)
    places = _check_bins(bins, inputs, dtype)
    logits = inputs.to(dtype)
    return (logits.softmax(-1) * (_positions(logits) if places is None else places)).sum(-1)


def _check_inputs(inputs: Tensor) -> torch.dtype:
    """The dtype of the arithmetic; ValueError unless the inputs are floating, with two bins or more."""
    dtype = compute_dtype(inputs)
    if inputs.shape[-1:].numel() < 2:  # of no dimensions it is 1
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}; the last dimension holds n+1 ≥ 2 bins")
    return dtype


def _check_bins(bins: Tensor | None, inputs: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The positions of the bins in the dtype of the arithmetic; ValueError unless they rise."""
    if bins is None:
        return None
    check_tensor("bins", bins)
    places = bins.to(dtype)
    check_rising("bins", places, inputs.shape[-1])
    return places


def _positions(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)


class DistributionFocalLoss(LossModule, of=distribution_focal_loss):
    """Module of `distribution_focal_loss`, with its arguments; the default reduction is "mean"."""

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(..., n+1)` for distances `(...)` in bins."""
        return self.of(inputs, targets, weight=weight)
