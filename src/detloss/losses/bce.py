"""Binary cross entropy on logits: the loss every other one here is a weighting of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss._core.checks import check_alpha
from detloss._core.elementwise import elementwise_loss
from detloss._core.modules import keep, kept, one_weight, shown


@elementwise_loss(bool_targets=True)
def binary_cross_entropy_with_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of logits, with class indices, per-class alpha and ignored rows.

    BCE = -(w t log p + (1-t) log(1-p)),  p = σ(x),  w = pos_weight; alpha: (alpha t + (1-alpha)(1-t)) BCE.

    Equals `torch.nn.functional.binary_cross_entropy_with_logits` in value and gradient where that has the
    argument; the order of arguments is this package's, and the default reduction "none".

    Hyperparameters:
        alpha: weight of positives, 1 - alpha of negatives: number or tensor `(C,)`; off: None, number < 0.
        pos_weight: factor on the positive term, broadcastable to `inputs`, usually `(C,)`.
    """
    return balance(alpha, targets, cross_entropy(logits, targets, pos_weight))


def cross_entropy(logits: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """BCE with pos_weight, without alpha."""
    if pos_weight is None:
        return from_margin(*margin(logits, targets))
    # -log(1-p) and -log p, each exact to the last digit where it is tiny; lerp is exact at t = 0 and t = 1.
    return torch.lerp(-F.logsigmoid(-logits), -pos_weight * F.logsigmoid(logits), targets.to(logits.dtype))


def margin(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float]:
    """m, u: the logit of the likelier label, and the other label's share, in [0, 1/2] and 0 for hard labels.

    Labels 0 and 1 exchanged where t < 1/2: the losses do not change, need one sigmoid and one logarithm, and
    lose no digit where they are tiny. Rounding beyond 0 or 1 is reflected, so no share is negative.
    """
    if targets.dtype == torch.bool:
        return torch.where(targets, logits, -logits), 0.0
    hard = targets.round()
    return logits * torch.rsub(hard, -1, alpha=-2), (targets - hard).abs()  # rsub: 2 hard - 1, in one pass


def from_margin(m: Tensor, u: Tensor | float) -> Tensor:
    """BCE of `margin`: u m - log σ(m)."""
    return u * m - F.logsigmoid(m) if isinstance(u, Tensor) else -F.logsigmoid(m)


def balance(alpha: float | Tensor | None, targets: Tensor, loss: Tensor) -> Tensor:
    """(alpha t + (1-alpha)(1-t)) loss, the weights exact at t = 0 and t = 1; alpha None is off."""
    if alpha is None:
        return loss
    if not isinstance(alpha, Tensor):
        alpha = torch.full((), alpha, dtype=loss.dtype, device=loss.device)
    if targets.dtype == torch.bool:
        return loss * torch.where(targets, alpha, 1 - alpha)
    return loss * torch.lerp(1 - alpha, alpha, targets)


class BCEWithLogitsLoss(nn.Module):
    """`binary_cross_entropy_with_logits` as a Module, reduction "mean"; see there."""

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
        arguments = kept(self) | {"weight": one_weight(self, weight)}
        return binary_cross_entropy_with_logits(inputs, targets, **arguments)

    extra_repr = shown
