"""Binary cross entropy on logits: the loss every other one here is a weighting of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.losses.elementwise import check_alpha, elementwise
from detloss.losses.module import keep, kept, one_weight, shown


def bce(logits: Tensor, targets: Tensor, *, pos_weight: Tensor | None = None) -> Tensor:
    """-(w t log p + (1-t) log(1-p)) with p = σ(logits) and w = pos_weight."""
    if pos_weight is None:
        return flipped_bce(*flipped(logits, targets))
    # -log(1-p) and -log p, each exact to the last digit where it is tiny; lerp is exact at t = 0 and t = 1.
    return torch.lerp(softplus(logits), pos_weight * softplus(-logits), targets)


def flipped(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """z, u: the logit of the less likely label and that label's share, in [0, 1/2] and 0 for hard labels.

    Labels 0 and 1 exchanged where t > 1/2: the losses do not change, need one sigmoid and one softplus, and
    lose no digit where they are tiny. Rounding beyond 0 or 1 is reflected, so no share is negative.
    """
    hard = targets.round()
    return logits * torch.rsub(hard, 1, alpha=2), (targets - hard).abs()  # rsub: 1 - 2 hard, in one pass


def flipped_bce(z: Tensor, u: Tensor) -> Tensor:
    """BCE of `flipped`: (1-u) softplus(z) + u softplus(-z)."""
    return softplus(z) - u * z


def softplus(logits: Tensor) -> Tensor:
    """log(1 + e^x); equal to x in every digit of float64 from 40 on (torch's own default, 20, is not)."""
    return F.softplus(logits, threshold=40)


def binary_cross_entropy_with_logits(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = "none",
    *,
    alpha: float | Tensor | None = None,
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Binary cross entropy of logits, with class indices, per-class alpha and ignored rows.

    BCE = -(t log p + (1-t) log(1-p)),  p = σ(x);  with alpha: (alpha t + (1-alpha)(1-t)) BCE.

    Equals `torch.nn.functional.binary_cross_entropy_with_logits` in value and gradient where that has the
    argument; the order of arguments is this package's, and the default reduction "none".

    Args:
        inputs: logits `(..., C)`, any floating dtype.
        targets: floating, shape of `inputs`, in [0, 1]; or class indices `inputs.shape[:-1]`, 0..C-1, C for
            background, `ignore_index` for rows that do not count.
        reduction: "none", "sum" or "mean" (over the elements that count).
        alpha: weight of positives, 1 - alpha of negatives: number or tensor `(C,)`; off: None, number < 0.
        pos_weight: factor on the positive term, broadcastable to `inputs`, usually `(C,)`.
        weight: factor on the loss, broadcastable to `inputs`, or one per row with class indices.
        ignore_index: the index of rows to leave out.

    Returns:
        The loss, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in float32.

    Raises:
        ValueError: shapes that do not fit, an index or value out of range, targets that require grad.
    """
    return elementwise(
        bce,
        inputs,
        targets,
        reduction,
        alpha=alpha,
        pos_weight=pos_weight,
        weight=weight,
        ignore_index=ignore_index,
    )


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
        )

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""
        arguments = kept(self) | {"weight": one_weight(self, weight)}
        return binary_cross_entropy_with_logits(inputs, targets, **arguments)

    extra_repr = shown
