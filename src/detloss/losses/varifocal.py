"""Varifocal loss: positives are weighted by their quality, and only negatives lose weight."""

import math

import torch
from torch import Tensor

from detloss._core.modules import QualityLoss
from detloss.formula import cross_entropy, elementwise_loss, power

QUALITY = "a label is the quality of a positive, and 0 a negative, so there is nothing to smooth"


@elementwise_loss(
    exponents=("gamma",),
    limits={"alpha": (0, math.inf)},
    quality=True,
    bool_targets=True,
    no_smoothing=QUALITY,
)
def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.75,
    gamma: float | Tensor = 2.0,
    *,
    detach_weight: bool = False,
    positive: Tensor,
) -> Tensor:
    """Varifocal loss: the score learns an IoU; good boxes weigh most, easy negatives hardly anything.

    y > 0: VFL = -y (y log p + (1-y) log(1-p));   y = 0: VFL = -alpha p^γ log(1-p);   p = σ(x).

    Convention: alpha scales the *negatives* (it is not the alpha of focal loss). The weight p^γ carries
    gradient, as in mmdet, PaddleDetection and ultralytics; with `detach_weight` it is a constant of the
    gradient, as in RT-DETR, D-FINE and DEIM. With class indices a
    row's class is a positive also where its quality is 0, and then weighs nothing (PP-YOLOE, YOLOv6,
    ultralytics); in the dense form, as in mmdet, a target of 0 is a negative. Others divide the sum by Σ y.

    Args:
        alpha: a factor on the negatives, ≥ 0: a number, or C numbers, one per class, in a tensor or a list;
            None or a number below 0 switches it off (1).
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        detach_weight: whether p^γ carries no gradient. The gradient is then not the derivative of the value.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.

    Source: Zhang et al., VarifocalNet, arXiv:2008.13367, eq. 2.
    """
    p = torch.sigmoid(logits)
    weight = power(p.detach() if detach_weight else p, gamma)
    if alpha is not None:
        weight = alpha * weight
    return torch.where(positive, targets.to(logits.dtype), weight) * cross_entropy(logits, targets)


class VarifocalLoss(QualityLoss, of=varifocal_loss):
    """Module of `varifocal_loss`, with its arguments; the default reduction is "mean"."""
