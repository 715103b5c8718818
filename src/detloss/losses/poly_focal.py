"""Poly-1 focal loss: focal loss with another weight on the first term of its series."""

from torch import Tensor

from detloss._core.modules import LogitsLoss
from detloss.formula import alpha_t, cross_entropy, elementwise_loss, one_minus_p_t, power


@elementwise_loss(exponents=("gamma",), bool_targets=True)
def poly_focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma: float | Tensor = 2.0,
    epsilon: float | Tensor = -1.0,
) -> Tensor:
    """Poly-1 focal loss: focal loss with one more number, ε, to tune the weight of nearly right answers.

    PFL = alpha_t ((1-p_t)^γ BCE(x, t) + ε (1-p_t)^(γ+1)),  p_t and alpha_t as in `sigmoid_focal_loss`.

    On labels 0 and 1, (1-p_t)^γ BCE is the sum of (1-p_t)^(γ+j) / j over j ≥ 1, of which ε changes the first
    term: it weighs 1+ε instead of 1. ε = 0 is focal loss; ε > 0 gives nearly right answers more weight, ε < 0
    less, and ε = -1 drops the term. Below -1 the minimum is no longer at p_t = 1.

    Convention: alpha weighs both terms, as in nnDetection; polyloss-pytorch and its copies leave it out of
    the second, where a negative ε then outweighs the first. The paper finds ε to depend on task and data, and
    has no default; -1 is nnDetection's, copies of the paper's listing have 1. At ε = -1 the two terms nearly
    cancel where p_t is near 1: the loss is then exact to float32's 1e-7 of the focal loss, not of itself.

    Args:
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        epsilon: ε, usually ≥ -1: a number or a tensor that broadcasts to `inputs`, such as one per class.

    Source: Leng et al., PolyLoss, arXiv:2204.12511.
    """
    wrong = one_minus_p_t(logits, targets)
    return alpha_t(alpha, targets) * (
        power(wrong, gamma) * (cross_entropy(logits, targets) + epsilon * wrong)
    )


class PolyFocalLoss(LogitsLoss, of=poly_focal_loss):
    """Module of `poly_focal_loss`, with its arguments; the default reduction is "mean"."""
