"""Quality focal loss: focal loss for soft labels, whose minimum is at the label."""

import torch
from torch import Tensor, nn

from detloss.losses.binary_cross_entropy import flipped, flipped_bce
from detloss.losses.elementwise import check_alpha, check_exponent, elementwise, power
from detloss.losses.module import keep, kept, shown


def quality_focal(logits: Tensor, targets: Tensor, *, beta: float | Tensor) -> Tensor:
    """|y-p|^β BCE."""
    z, u = flipped(logits, targets)
    error = torch.sigmoid(z) - u  # ±(p-y)
    if (
        isinstance(beta, Tensor) or beta % 2
    ):  # an even power needs no abs, whose slope at 0 hides the curvature
        error = error.abs()
    return power(error, beta) * flipped_bce(z, u)


def quality_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    beta: float | Tensor = 2.0,
    reduction: str = "none",
    *,
    alpha: float | Tensor | None = None,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Quality focal loss on logits: the score learns a soft label, usually the IoU of the predicted box.

    QFL = |y-p|^β BCE(x, y),  p = σ(x),  smallest at p = y;  with alpha: (alpha y + (1-alpha)(1-y)) QFL.

    β = 0 is exactly BCE; on labels 0 and 1 it is focal loss with γ = β. The gradient is finite everywhere,
    and zero at p = y for β > 0 (where for β < 1 the true one is unbounded on either side).

    Convention: elementwise, as the paper; mmdet sums over the classes before it averages. The paper has no
    alpha.

    Args:
        inputs: logits `(..., C)`, any floating dtype.
        targets: floating, shape of `inputs`, in [0, 1]; or class indices `inputs.shape[:-1]`, 0..C-1, C for
            background, `ignore_index` for rows that do not count.
        beta: β ≥ 0, a number, or a 0-dim tensor (which can change without recompiling).
        reduction: "none", "sum" or "mean" (over the elements that count).
        alpha: weight by label, alpha y + (1-alpha)(1-y): a number or tensor `(C,)`; off: None, number < 0.
        quality: with class indices, the soft label of each row's class, `inputs.shape[:-1]`; else it is 1.
        weight: factor on the loss, broadcastable to `inputs`, or one per row with class indices.
        ignore_index: the index of rows to leave out.

    Returns:
        The loss, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in float32.

    Raises:
        ValueError: shapes that do not fit, an index or value out of range, targets or quality requiring grad.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 5.
    """
    check_exponent("beta", beta)
    return elementwise(
        quality_focal,
        inputs,
        targets,
        reduction,
        alpha=alpha,
        quality=quality,
        weight=weight,
        ignore_index=ignore_index,
        beta=beta,
    )


class QualityFocalLoss(nn.Module):
    """`quality_focal_loss` as a Module, reduction "mean"; see there."""

    def __init__(
        self,
        beta: float | Tensor = 2.0,
        reduction: str = "mean",
        *,
        alpha: float | Tensor | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        check_exponent("beta", beta)
        check_alpha(alpha)
        keep(self, beta=beta, reduction=reduction, alpha=alpha, ignore_index=ignore_index)

    def forward(
        self, inputs: Tensor, targets: Tensor, *, quality: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""
        return quality_focal_loss(inputs, targets, quality=quality, weight=weight, **kept(self))

    extra_repr = shown
