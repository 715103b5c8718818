"""Matchability-aware loss: positives learn a power of their quality at full weight."""

import torch
from torch import Tensor

from detloss._core.modules import QualityLoss
from detloss.formula import cross_entropy, elementwise_loss, power
from detloss.losses.varifocal import QUALITY


@elementwise_loss(exponents=("gamma",), quality=True, no_smoothing=QUALITY)
def matchability_aware_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 1.5,
    *,
    positive: Tensor,
) -> Tensor:
    """Matchability-aware loss (MAL): varifocal loss without its low weight on poor matches.

    positives: MAL = -q^γ log p - (1-q^γ) log(1-p);   negatives: MAL = -p^γ log(1-p);   p = σ(x).
    One sigmoid per class.

    A positive of quality q learns p = q^γ and weighs 1 whatever q is, where varifocal loss weighs it by q. A
    positive of quality 1 has plain BCE; γ = 0 is BCE on the classes, whatever their quality.

    Convention: the weight p^γ of the negatives carries no gradient, as in the authors' code (DEIM) and in
    transformers; so the gradient is not the derivative of the value, unlike in `varifocal_loss`. With class
    indices a row's class is a positive also where its quality is 0: it weighs 1 and learns p = 0 (DEIM). In
    the dense form a target of 0 is a negative. DEIM divides the sum by the number of boxes; its optional
    factor on the negatives, off by default, is not here.

    Args:
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.

    Source: Huang et al., DEIM: DETR with Improved Matching for Fast Convergence, arXiv:2412.04234, MAL.
    """
    base = torch.where(positive, targets, torch.sigmoid(logits).detach())
    raised = power(base.clamp(0, 1), gamma)
    loss = cross_entropy(logits, torch.where(positive, raised, 0.0))
    return torch.where(positive, 1.0, raised) * loss


class MatchabilityAwareLoss(QualityLoss, of=matchability_aware_loss):
    """Module of `matchability_aware_loss`, with its arguments; the default reduction is "mean"."""
