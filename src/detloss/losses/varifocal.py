"""Varifocal loss: positives weighed by their quality, only negatives are turned down."""

import math

import torch
from torch import Tensor, nn

from detloss.losses.binary_cross_entropy import bce
from detloss.losses.elementwise import align_alpha, check_alpha, check_exponent, elementwise, power
from detloss.losses.module import keep, kept, shown


def varifocal(
    logits: Tensor,
    targets: Tensor,
    *,
    positive: Tensor,
    negative_weight: float | Tensor,
    gamma: float | Tensor,
) -> Tensor:
    """y BCE for positives, negative_weight p^γ BCE for negatives."""
    turned_down = negative_weight * power(torch.sigmoid(logits), gamma)
    return torch.where(positive, targets, turned_down) * bce(logits, targets)


def varifocal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.75,
    gamma: float | Tensor = 2.0,
    reduction: str = "none",
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Varifocal loss on logits: the score learns an IoU, and easy negatives weigh hardly anything.

    y > 0: VFL = -y (y log p + (1-y) log(1-p));   y = 0: VFL = -alpha p^γ log(1-p);   p = σ(x).

    Convention: alpha scales the *negatives* (it is not the alpha of focal loss). The weight p^γ carries
    gradient, as in mmdet, PaddleDetection and ultralytics; D-FINE and DEIM detach it. With class indices a
    row's class is a positive also where its quality is 0 and then weighs nothing (PP-YOLOE, YOLOv6,
    ultralytics); in the dense form, as in mmdet, a target of 0 is a negative.

    Args:
        inputs: logits `(..., C)`, any floating dtype.
        targets: floating, shape of `inputs`, in [0, 1]; or class indices `inputs.shape[:-1]`, 0..C-1, C for
            background, `ignore_index` for rows that do not count.
        alpha: factor on the negatives, ≥ 0: a number, or a tensor `(C,)`; None or a number < 0 is off (1).
        gamma: γ ≥ 0, a number, or a 0-dim tensor (which can change without recompiling).
        reduction: "none", "sum" or "mean" (over the elements that count). Peers divide the sum by Σ y.
        quality: with class indices, the soft label of each row's class, `inputs.shape[:-1]`; else it is 1.
        weight: factor on the loss, broadcastable to `inputs`, or one per row with class indices.
        ignore_index: the index of rows to leave out.

    Returns:
        The loss, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in float32.

    Raises:
        ValueError: shapes that do not fit, an index or value out of range, targets or quality requiring grad.

    Source: Zhang et al., VarifocalNet, arXiv:2008.13367, eq. 2.
    """
    check_exponent("gamma", gamma)
    alpha = align_alpha(alpha, inputs, upper=math.inf)
    return elementwise(
        varifocal,
        inputs,
        targets,
        reduction,
        quality=quality,
        weight=weight,
        ignore_index=ignore_index,
        with_positive=True,
        negative_weight=1.0 if alpha is None else alpha,
        gamma=gamma,
    )


class VarifocalLoss(nn.Module):
    """`varifocal_loss` as a Module, reduction "mean"; see there."""

    def __init__(
        self,
        alpha: float | Tensor | None = 0.75,
        gamma: float | Tensor = 2.0,
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        check_exponent("gamma", gamma)
        check_alpha(alpha, upper=math.inf)
        keep(self, alpha=alpha, gamma=gamma, reduction=reduction, ignore_index=ignore_index)

    def forward(
        self, inputs: Tensor, targets: Tensor, *, quality: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""
        return varifocal_loss(inputs, targets, quality=quality, weight=weight, **kept(self))

    extra_repr = shown
