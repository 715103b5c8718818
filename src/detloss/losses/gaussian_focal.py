"""Gaussian focal loss: focal loss for heat maps, whose negatives are milder near an object's centre."""

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss._core.modules import LogitsLoss
from detloss.formula import elementwise_loss, power

PEAK = "a label of 1 is the centre of an object, and any below is a negative, so there is nothing to smooth"


@elementwise_loss(exponents=("alpha", "gamma"), no_smoothing=PEAK)
def gaussian_focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 2.0,
    gamma: float | Tensor = 4.0,
) -> Tensor:
    """Gaussian focal loss: finds the centres (or corners) of objects in a heat map.

    y = 1: GFL = -(1-p)^α log p;   else: GFL = -(1-y)^γ p^α log(1-p);   p = σ(x).

    y is 1 at the centre of an object and falls off around it as a Gaussian: a location beside the centre is a
    negative, but one that weighs little. With labels 0 and 1, and so with class indices (the row's class is
    1), it is focal loss with γ = α and without its alpha.

    Convention: only y = 1 exactly is a positive, as in CornerNet and CenterNet; so draw heat maps whose peak
    is 1 in float32, and not in half precision. mmdet's `GaussianFocalLoss` has the same names and defaults,
    but takes probabilities and adds 1e-12 within its logarithms; here the inputs are logits. CornerNet,
    CenterNet and mmdet divide the sum by the number of objects. It is not GFL, generalized focal loss.

    Args:
        alpha: α ≥ 0, the power that takes weight from easy answers: a number or a 0-dim tensor. It is not the
            alpha of focal loss.
        gamma: γ ≥ 0, the power that takes weight from negatives near a centre: a number or a 0-dim tensor.
        label_smoothing: must be 0: a label below 1 is a negative here.

    Source: Law and Deng, CornerNet, arXiv:1808.01244, eq. 1; Zhou et al., Objects as Points,
    arXiv:1904.07850, eq. 1.
    """
    positive = power(torch.sigmoid(-logits), alpha) * -F.logsigmoid(logits)
    negative = power((1 - targets).clamp(min=0), gamma) * power(torch.sigmoid(logits), alpha)
    return torch.where(targets >= 1, positive, negative * -F.logsigmoid(-logits))


class GaussianFocalLoss(LogitsLoss, of=gaussian_focal_loss):
    """Module of `gaussian_focal_loss`, with its arguments; the default reduction is "mean"."""
