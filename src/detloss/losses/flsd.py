"""Sample-dependent focal loss (FLSD-53): a larger gamma where the answer is badly wrong."""

import torch
from torch import Tensor

from detloss._core.modules import LogitsLoss
from detloss.formula import alpha_t, cross_entropy, elementwise_loss, one_minus_p_t, power


@elementwise_loss(exponents=("gamma_low", "gamma_high"), limits={"threshold": (0.0, 1.0)}, bool_targets=True)
def sample_dependent_focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma_low: float | Tensor = 5.0,
    gamma_high: float | Tensor = 3.0,
    threshold: float | Tensor = 0.2,
) -> Tensor:
    """Focal loss for calibration: γ is larger where the answer is badly wrong (FLSD-53 by default).

    FLSD = alpha_t (1-p_t)^γ BCE(x, t),  γ = gamma_low where p_t < threshold, gamma_high elsewhere; p_t and
    alpha_t as in `sigmoid_focal_loss`, soft labels too. By default γ is 5 below p_t = .2 and 3 from there on.
    With equal gammas it is focal loss.

    γ is a constant of the gradient, and the value jumps where p_t crosses the threshold: with the defaults
    from .527 up to .824 (times alpha_t) as the answer gets better, as it does in the paper.

    Convention: the paper's p_t comes from a softmax over classes and there is no alpha; here there is one
    sigmoid per class and the alpha of `sigmoid_focal_loss`, so that the two differ in γ alone. The paper
    chose it for calibration of image classifiers, not for detection.

    Args:
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma_low: γ ≥ 0 where p_t < threshold, a number or a 0-dim tensor.
        gamma_high: γ ≥ 0 elsewhere, a number or a 0-dim tensor.
        threshold: in [0, 1], a number or a tensor that broadcasts to `inputs`.

    Source: Mukhoti et al., Calibrating Deep Neural Networks using Focal Loss, arXiv:2002.09437, section 4.
    """
    wrong = one_minus_p_t(logits, targets)
    weight = torch.where(1 - wrong < threshold, power(wrong, gamma_low), power(wrong, gamma_high))
    return alpha_t(alpha, targets) * (weight * cross_entropy(logits, targets))


class SampleDependentFocalLoss(LogitsLoss, of=sample_dependent_focal_loss):
    """Module of `sample_dependent_focal_loss`, with its arguments; the default reduction is "mean"."""
