"""Binary cross entropy on logits; the other classification losses are weighted forms of it."""

from torch import Tensor, nn

from detloss._core.checks import check_alpha
from detloss._core.modules import keep, kept, one_weight, shown
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
        alpha: weight of positives, and 1 - alpha of negatives: a number, or a tensor `(C,)`; None or a number
            below 0 switches it off.
        pos_weight: a factor on the positive term, broadcastable to `inputs`, usually `(C,)`.
    """
    loss = cross_entropy(logits, targets, pos_weight)
    return loss if alpha is None else alpha_t(alpha, targets) * loss


class BCEWithLogitsLoss(nn.Module):
    """Module of `binary_cross_entropy_with_logits`, with its arguments; the default reduction is "mean"."""

    weight: Tensor | None
    pos_weight: Tensor | None
    reduction: str

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        alpha: float | Tensor | None = None,
        ignore_index: int = -100,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        check_alpha(alpha)
        keep(
            self,
            weight=weight,
            reduction=reduction,
            pos_weight=pos_weight,
            alpha=alpha,
            ignore_index=ignore_index,
            impl=impl,
        )

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""
        arguments = {**kept(self), "weight": one_weight(self, weight)}
        return binary_cross_entropy_with_logits(inputs, targets, **arguments)

    extra_repr = shown
