"""Quality focal loss: focal loss for soft labels, whose minimum is at the label."""

from torch import Tensor

from detloss._core.modules import QualityLoss
from detloss.formula import alpha_t, cross_entropy, elementwise_loss, label_error, power


@elementwise_loss(exponents=("beta",), quality=True, bool_targets=True)
def quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    beta: float | Tensor = 2.0,
    *,
    alpha: float | Tensor | None = None,
) -> Tensor:
    """Quality focal loss: the score learns a soft label, usually the IoU of the predicted box.

    QFL = |y-p|^β BCE(x, y),  p = σ(x),  smallest at p = y;  with alpha: (alpha y + (1-alpha)(1-y)) QFL.
    One sigmoid per class.

    β = 0 is exactly BCE; on labels 0 and 1 it is focal loss with γ = β. The gradient is finite everywhere,
    and zero at p = y for β > 0 (where for β < 1 the true one is unbounded on either side).

    Convention: elementwise, as the paper; mmdet sums over the classes before it averages. The paper has no
    alpha.

    Args:
        beta: β ≥ 0, a number or a 0-dim tensor.
        alpha: weight by label, alpha y + (1-alpha)(1-y): a number, or C numbers, one per
            class, in a tensor or a list; None or a number below 0 switches it off.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 5.
    """
    error = label_error(logits, targets)
    # an even power needs no abs, whose slope at 0 hides the curvature
    if isinstance(beta, Tensor) or beta % 2:
        error = error.abs()
    loss = power(error, beta) * cross_entropy(logits, targets)
    return loss if alpha is None else alpha_t(alpha, targets) * loss


class QualityFocalLoss(QualityLoss, of=quality_focal_loss):
    """Module of `quality_focal_loss`, with its arguments; the default reduction is "mean"."""
