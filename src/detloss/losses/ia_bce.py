"""IoU-aware binary cross entropy: the label of a positive mixes its score and its IoU."""

import torch
from torch import Tensor

from detloss._core.modules import QualityLoss
from detloss.formula import cross_entropy, elementwise_loss, power
from detloss.losses.varifocal import QUALITY

LEAST_LABEL = 0.01
"""The label of a positive is not below this: a match that does not overlap yet still is a match."""


@elementwise_loss(exponents=("alpha", "gamma"), limits={"alpha": (0, 1)}, quality=True, no_smoothing=QUALITY)
def iou_aware_bce_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float | Tensor = 2.0,
    *,
    positive: Tensor,
) -> Tensor:
    """IoU-aware BCE (IA-BCE): a matched box learns an IoU that its own score pulls along.

    positives: IA-BCE = -t log p - (1-t) log(1-p),  t = max(p^α u^(1-α), .01) without gradient;
    negatives: IA-BCE = -p^γ log(1-p);   p = σ(x),  u the IoU of the box. One sigmoid per class.

    The classification loss of Align-DETR, LW-DETR and RF-DETR. All positives weigh 1; negatives lose weight
    as in focal loss. The gradient of a positive is p - t, which is 0 at p = u: the score learns the IoU, more
    gently than from the label u, since t lies between the two. α = 0 takes u as the label.

    Convention: the label t is a constant for the gradient, so the gradient is not the derivative of the
    value, and where the value is smallest says nothing. The weight p^γ carries gradient. Both as in the
    authors' code, LW-DETR, RF-DETR and transformers, which divide the sum by the number of boxes. The
    logarithms are of logits: those of the authors' code and of transformers, log(1 - σ(x)), are infinite from
    x = 16.6 on in float32 and 6.2 in bfloat16. With class indices a row's class is a positive also where its
    quality is 0; in the dense form a target of 0 is a negative. The authors' smaller labels for the second
    and third match of an object are not here.

    Args:
        alpha: α in [0, 1], the share of the score in the label: a number or a 0-dim tensor. It is not the
            alpha of focal loss.
        gamma: γ ≥ 0, of the negatives: a number or a 0-dim tensor.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.

    Source: Cai et al., Align-DETR, arXiv:2304.07527v1, IA-BCE.
    """
    p = torch.sigmoid(logits)
    label = (p.detach() ** alpha * targets ** (1 - alpha)).clamp(min=LEAST_LABEL)
    loss = cross_entropy(logits, torch.where(positive, label, 0.0))
    return torch.where(positive, 1.0, power(p, gamma)) * loss


class IoUAwareBCELoss(QualityLoss, of=iou_aware_bce_loss):
    """Module of `iou_aware_bce_loss`, with its arguments; the default reduction is "mean"."""
