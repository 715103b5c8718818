"""Focal loss: cross entropy with little weight on what is already right."""

from collections.abc import Sequence

from torch import Tensor, nn

from detloss._core.modules import LogitsLoss
from detloss.formula import alpha_t, cross_entropy, elementwise_loss, one_minus_p_t, power
from detloss.losses.bce import BCEWithLogitsLoss


@elementwise_loss(exponents=("gamma",), bool_targets=True)
def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma: float | Tensor = 2.0,
    *,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Focal loss: cross entropy with little weight on what is already right, for a rare foreground.

    FL = alpha_t (1-p_t)^γ BCE(x, t),  p = σ(x),  p_t = p t + (1-p)(1-t),  alpha_t = alpha t + (1-alpha)(1-t).
    One sigmoid per class.

    Equals `torchvision.ops.sigmoid_focal_loss`, arguments in the same order. γ = 0 is exactly
    (alpha-weighted) BCE. Value, gradient and second derivative are finite for every γ ≥ 0 at every logit up
    to ±1e30, saturated ones too.

    Convention: alpha weighs the positives, 1-alpha the negatives (torchvision, mmdet, fvcore). On soft
    labels this p_t (torchvision, fvcore, optax, ultralytics) has its minimum *not* at p = t: for t = .3 and
    γ = 2 it is at p = .122. Use `quality_focal_loss` where a score has to learn a soft label such as an IoU.
    No reduction divides by the number of positives: a detector does that itself.

    Args:
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        pos_weight: a factor on the positive term of BCE, broadcastable to `inputs`, usually `(C,)`.

    Source: Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002, eq. 5.
    """
    focus = power(one_minus_p_t(logits, targets), gamma)
    return alpha_t(alpha, targets) * (focus * cross_entropy(logits, targets, pos_weight))


class SigmoidFocalLoss(LogitsLoss, of=sigmoid_focal_loss, keeps_weight=True):
    """Module of `sigmoid_focal_loss`, with its arguments; the default reduction is "mean"."""

    @classmethod
    def from_bce(
        cls,
        bce: nn.BCEWithLogitsLoss | BCEWithLogitsLoss,
        alpha: float | Tensor | Sequence[float] | None = 0.25,
        gamma: float | Tensor = 2.0,
    ) -> "SigmoidFocalLoss":
        """Make a focal loss of a `BCEWithLogitsLoss`, torch's or this package's.

        Args:
            bce: the Module whose arguments are taken, all but alpha and impl; it is not changed.
            alpha: as in `sigmoid_focal_loss`.
            gamma: as in `sigmoid_focal_loss`.

        Raises:
            ValueError: `bce` has an alpha too.
        """
        if getattr(bce, "alpha", None) is not None:
            raise ValueError("bce has an alpha; build it without, and pass alpha to from_bce")
        return cls(
            alpha,
            gamma,
            bce.reduction,
            pos_weight=bce.pos_weight,
            weight=bce.weight,
            ignore_index=getattr(bce, "ignore_index", -100),  # torch's has none of these three
            label_smoothing=getattr(bce, "label_smoothing", 0.0),
            class_dim=getattr(bce, "class_dim", -1),
        )
