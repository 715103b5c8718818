"""Varifocal loss: positives are weighted by their quality, and only negatives lose weight."""

import math

import torch
from torch import Tensor, nn

from detloss._core.checks import check_alpha, check_exponent
from detloss._core.modules import keep, kept, shown
from detloss.formula import cross_entropy, elementwise_loss, power


@elementwise_loss(exponents=("gamma",), limits={"alpha": (0, math.inf)}, quality=True, bool_targets=True)
def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.75,
    gamma: float | Tensor = 2.0,
    *,
    positive: Tensor,
) -> Tensor:
    """Varifocal loss: the score learns an IoU; good boxes weigh most, easy negatives hardly anything.

    y > 0: VFL = -y (y log p + (1-y) log(1-p));   y = 0: VFL = -alpha p^γ log(1-p);   p = σ(x).

    Convention: alpha scales the *negatives* (it is not the alpha of focal loss). The weight p^γ carries
    gradient, as in mmdet, PaddleDetection and ultralytics; D-FINE and DEIM detach it. With class indices a
    row's class is a positive also where its quality is 0, and then weighs nothing (PP-YOLOE, YOLOv6,
    ultralytics); in the dense form, as in mmdet, a target of 0 is a negative. Others divide the sum by Σ y.

    Args:
        alpha: a factor on the negatives, ≥ 0: a number, or a tensor `(C,)`; None or a number below 0 switches
            it off (1).
        gamma: γ ≥ 0, a number or a 0-dim tensor.

    Source: Zhang et al., VarifocalNet, arXiv:2008.13367, eq. 2.
    """
    weight = power(torch.sigmoid(logits), gamma)
    if alpha is not None:
        weight = alpha * weight
    return torch.where(positive, targets.to(logits.dtype), weight) * cross_entropy(logits, targets)


class VarifocalLoss(nn.Module):
    """Module of `varifocal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor | None = 0.75,
        gamma: float | Tensor = 2.0,
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        check_exponent("gamma", gamma)
        check_alpha(alpha, (0, math.inf))
        keep(self, alpha=alpha, gamma=gamma, reduction=reduction, ignore_index=ignore_index, impl=impl)

    def forward(
        self, inputs: Tensor, targets: Tensor, *, quality: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""
        return varifocal_loss(inputs, targets, quality=quality, weight=weight, **kept(self))

    extra_repr = shown
