"""Binary cross entropy on logits; the other classification losses are weighted forms of it."""

from collections.abc import Sequence

from torch import Tensor

from detloss._core.modules import LogitsLoss
from detloss.formula import alpha_t, cross_entropy, elementwise_loss


@elementwise_loss(bool_targets=True)
def binary_cross_entropy_with_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy on logits, the baseline: cross entropy of each class on its own.

    BCE = -(w t log p + (1-t) log(1-p)),  p = σ(x),  w = pos_weight;  with alpha: alpha_t BCE,
    alpha_t = alpha t + (1-alpha)(1-t).

    Equals `torch.nn.functional.binary_cross_entropy_with_logits` in value and gradient where that has the
    argument. The order of arguments is this package's, and the default reduction is "none".

    Args:
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        pos_weight: a factor on the positive term, broadcastable to `inputs`, usually `(C,)`.
    """
    loss = cross_entropy(logits, targets, pos_weight)
    return loss if alpha is None else alpha_t(alpha, targets) * loss


class BCEWithLogitsLoss(LogitsLoss):
    """Module of `binary_cross_entropy_with_logits`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(binary_cross_entropy_with_logits)
    weight: Tensor | None
    pos_weight: Tensor | None
    reduction: str

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | Sequence[float] | None = None,
        alpha: float | Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.keep(
            weight=weight,
            reduction=reduction,
            pos_weight=pos_weight,
            alpha=alpha,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            class_dim=class_dim,
            impl=impl,
        )
