"""Focal loss for one class out of several: softmax instead of sigmoids."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.losses.checks import (
    check_exponent,
    check_indices,
    check_labels,
    check_range,
    check_reduction,
    check_tensor,
    compute_dtype,
)
from detloss.losses.elementwise import power, reduce
from detloss.losses.module import keep, kept, shown


def softmax_focal(logits: Tensor, dim: int, *, gamma: float | Tensor) -> Tensor:
    """-(1-p_c)^γ log p_c of every class c, p = softmax over `dim`."""
    log_p = F.log_softmax(logits, dim)
    p = log_p.exp()
    # 1-p cancels only for the one class above 1/2: there it is the sum of the others.
    top = p.argmax(dim, keepdim=True)
    miss = (1 - p).scatter(dim, top, p.scatter(dim, top, 0).sum(dim, keepdim=True))
    return -power(miss, gamma) * log_p


def softmax_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | None = None,
    gamma: float | Tensor = 2.0,
    reduction: str = "none",
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Focal loss on a softmax, with the conventions of `torch.nn.functional.cross_entropy`.

    Class index t:      FL = -alpha_t (1-p_t)^γ log p_t.
    Probabilities t_c:  FL = -Σ_c alpha_c t_c (1-p_c)^γ log p_c.

    Equals `cross_entropy` at γ = 0, `label_smoothing` included (it turns an index into probabilities).
    Value and gradient are finite at every logit up to ±1e30 for every γ ≥ 0.

    Convention: alpha multiplies the loss of its class, and "mean" divides by the number of targets that
    count, not by the sum of their alphas as `cross_entropy` does with `weight`. No class is background here:
    where one is, give it its own alpha (MONAI and kornia give class 0 the weight 1-alpha).

    Args:
        inputs: logits `(N, C, ...)` or `(C,)`, any floating dtype.
        targets: class indices `(N, ...)` or `()`, 0..C-1 or `ignore_index`; or probabilities, shape of
            `inputs`.
        alpha: None, or a tensor `(C,)`.
        gamma: γ ≥ 0, a number, or a 0-dim tensor (which can change without recompiling).
        reduction: "none", "sum" or "mean" (over the targets that count).
        ignore_index: the index of targets to leave out.
        label_smoothing: in [0, 1], the share of every target spread evenly over the classes.

    Returns:
        The loss `(N, ...)` or `()`, in the dtype of `inputs` for "none"; sums and means of half-precision
        inputs in float32.

    Raises:
        ValueError: shapes that do not fit, an index or value out of range, targets that require grad.

    Source: the class-index form is eq. 5 of Lin et al., arXiv:1708.02002, with p_t from a softmax.
    """
    check_reduction(reduction)
    check_exponent("gamma", gamma)
    check_labels("targets", targets)
    dtype = compute_dtype(inputs)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1]")
    dim = min(1, inputs.ndim - 1)
    if not inputs.ndim or not inputs.shape[dim]:
        raise ValueError(
            f"inputs have shape {tuple(inputs.shape)}; logits are (N, C, ...) or (C,), with C ≥ 1"
        )
    classes = inputs.shape[dim]
    if alpha is not None:
        check_tensor("alpha", alpha)
        if alpha.shape != (classes,):
            raise ValueError(f"alpha has shape {tuple(alpha.shape)}; it holds one per class, ({classes},)")
        alpha = alpha.to(dtype)
    outer = inputs.shape[:dim] + inputs.shape[dim + 1 :]
    loss = softmax_focal(inputs.to(dtype), dim, gamma=gamma)

    if targets.is_floating_point():
        _check_shape(targets, inputs.shape, "class probabilities", inputs)
        check_range("targets", targets)
        shares, counted = targets.to(dtype), None
    else:
        _check_shape(targets, outer, "class indices", inputs)
        targets = targets.long()
        counted = check_indices(targets, classes, ignore_index, f"classes 0..{classes - 1}")
        index = torch.where(targets == ignore_index, 0, targets).unsqueeze(dim)
        if not label_smoothing:  # only the target's class counts: no need for the sum over all of them
            loss = loss.gather(dim, index).squeeze(dim)
            loss = loss if alpha is None else loss * alpha[index.squeeze(dim)]
            return _finish(loss, counted, reduction, inputs)
        shares = torch.zeros_like(loss).scatter(dim, index, 1)
    shares = (1 - label_smoothing) * shares + label_smoothing / classes
    if alpha is not None:
        shares = shares * alpha.reshape([-1] + [1] * (inputs.ndim - 1 - dim))
    return _finish((shares * loss).sum(dim), counted, reduction, inputs)


def _finish(loss: Tensor, counted: Tensor | None, reduction: str, inputs: Tensor) -> Tensor:
    if counted is None:
        return reduce(loss, reduction, loss.numel(), inputs)
    return reduce(loss.masked_fill(~counted, 0), reduction, counted.sum(), inputs)


def _check_shape(targets: Tensor, shape: torch.Size, what: str, inputs: Tensor) -> None:
    if targets.shape != shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} and dtype {targets.dtype}; for inputs "
            f"{tuple(inputs.shape)} {what} have shape {tuple(shape)}"
        )


class SoftmaxFocalLoss(nn.Module):
    """`softmax_focal_loss` as a Module, reduction "mean"; see there."""

    def __init__(
        self,
        alpha: Tensor | None = None,
        gamma: float | Tensor = 2.0,
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_exponent("gamma", gamma)
        if alpha is not None:
            check_tensor("alpha", alpha)
        keep(
            self,
            alpha=alpha,
            gamma=gamma,
            reduction=reduction,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `(N, C, ...)` or `(C,)` for class indices or probabilities."""
        return softmax_focal_loss(inputs, targets, **kept(self))

    extra_repr = shown
