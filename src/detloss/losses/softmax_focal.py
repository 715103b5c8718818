"""Focal loss for one class out of several: softmax instead of sigmoids."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detloss._core.checks import (
    check_exponent,
    check_indices,
    check_limits,
    check_range,
    check_reduction,
    check_tensor,
    compute_dtype,
    per_class,
    read_targets,
    without,
)
from detloss._core.dtypes import check_devices
from detloss._core.fused import Call, Operand, fusable, fused, scalar
from detloss._core.modules import LossModule
from detloss._core.reductions import reduce, result_dtype
from detloss.formula import power


def softmax_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | Sequence[float] | None = None,
    gamma: float | Tensor = 2.0,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    impl: str = "auto",
) -> Tensor:
    """Focal loss for one class out of several: `torch.nn.functional.cross_entropy` with a γ.

    Class index t:      FL = -alpha_t (1-p_t)^γ log p_t.
    Probabilities t_c:  FL = -Σ_c alpha_c t_c (1-p_c)^γ log p_c.

    Equals `cross_entropy` at γ = 0, `label_smoothing` included (it turns an index into probabilities).
    Value and gradient are finite at every logit up to ±1e30 for every γ ≥ 0.

    Convention: alpha multiplies the loss of its class, and "mean" divides by the number of targets that
    count, not by the sum of their alphas as `cross_entropy` does with `weight`. No class is treated as
    background; if one is, give it an alpha of its own (MONAI and kornia give class 0 the weight 1-alpha).

    Args:
        inputs: logits `(N, C, ...)` or `(C,)`, any floating dtype.
        targets: class indices `(N, ...)` or `()`, 0..C-1 or `ignore_index`; or probabilities, shape of
            `inputs`, or a one-hot mask of it, bool or uint8.
        alpha: the weight of each class, C numbers in a tensor or a list; or None.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the targets that count).
        weight: a factor on the loss of each target, `(N, ...)` or `()`, as a map of weights is; it does not
            change what a mean divides by. The class weights of `cross_entropy` are `alpha`.
        ignore_index: the index of targets to leave out.
        label_smoothing: in [0, 1], the share of every target spread evenly over the classes.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        The loss `(N, ...)` or `()`, in the dtype of `inputs` for "none"; sums and means of half-precision
        inputs in float32.

    Raises:
        ValueError: shapes or devices that do not fit, an index or a value out of range, targets that require
            grad.

    Source: the class-index form is eq. 5 of Lin et al., arXiv:1708.02002, with p_t from a softmax.
    """
    check_reduction(reduction)
    dtype = compute_dtype(inputs)
    shares: Tensor | None = per_class(alpha, dtype, inputs.device)
    _check({"alpha": shares, "gamma": gamma, "label_smoothing": label_smoothing})
    targets = read_targets(inputs.shape, targets)
    dim = min(1, inputs.ndim - 1)
    if not inputs.ndim or not inputs.shape[dim]:
        raise ValueError(
            f"inputs have shape {tuple(inputs.shape)}; they must be (N, C, ...) or (C,), with C ≥ 1"
        )
    classes = inputs.shape[dim]
    if shares is not None:
        if shares.shape != (classes,):
            raise ValueError(f"alpha has shape {tuple(shares.shape)}; it must be ({classes},), one per class")
        shares = shares.to(dtype)
    check_devices(inputs=inputs, targets=targets, alpha=shares, gamma=gamma, weight=weight)
    outer = without(inputs.shape, dim)
    counted, soft = None, targets.is_floating_point()
    if soft:
        _check_shape(targets, inputs.shape, "class probabilities", inputs)
    else:
        _check_shape(targets, outer, "class indices", inputs)
        counted = check_indices(targets, classes, ignore_index, f"classes 0..{classes - 1}")
    if weight is not None:
        check_tensor("weight", weight)
        if weight.shape != outer:
            raise ValueError(
                f"weight has shape {tuple(weight.shape)}; for inputs {tuple(inputs.shape)} it must be "
                f"{tuple(outer)}, one per target (one per class is alpha)"
            )
    count = outer.numel() if counted is None else counted.sum()
    # None: only the target's own class counts.
    smoothing = label_smoothing if isinstance(label_smoothing, Tensor) or label_smoothing else None

    def eagerly() -> Tensor:
        left_out = None if counted is None else ignore_index
        rows = inputs.to(dtype) if dim else inputs.to(dtype)[None]
        labels = targets if dim else targets[None]
        factor = weight if dim or weight is None else weight[None]
        loss = softmax_focal(
            rows,
            targets=labels,
            alpha=shares,
            gamma=gamma,
            smoothing=smoothing,
            weight=factor,
            ignore_index=left_out,
        )
        return reduce(loss if dim else loss[0], reduction, count, inputs)

    given = {"alpha": shares, "gamma": gamma, "smoothing": smoothing, "weight": weight}
    if fusable(impl, "softmax_focal_loss", (inputs,), given):
        length = outer[1:].numel() if dim else 1
        shape = (-1, classes, length) if length > 1 else (-1, classes)
        letters = "NCL"[: len(shape)]
        labels = targets.reshape(shape if soft else shape[:1] + shape[2:]).contiguous()
        constants = {"targets": Operand(labels, letters if soft else letters.replace("C", ""))}
        if not soft:
            constants["ignore_index"] = scalar(ignore_index, torch.int64, inputs.device)
        if shares is not None:
            constants["alpha"] = Operand(shares.contiguous(), "C")
        if smoothing is not None:
            constants["smoothing"] = scalar(smoothing, dtype, inputs.device)
        if weight is not None:
            constants["weight"] = Operand(
                weight.reshape(shape[:1] + shape[2:]).contiguous(), letters.replace("C", "")
            )
        value = fused(
            Call(
                name="softmax_focal_loss",
                formula=softmax_focal,
                inputs=[Operand(inputs.reshape(shape).contiguous(), letters)],
                constants=constants,
                fixed={},
                again=eagerly,
                arguments=(inputs,),
                others=(targets, *given.values()),
                shape=outer,
                dtype=result_dtype(reduction, inputs),
                reduction=reduction,
                count=count,
                reduced=1,
                exponents={"gamma": gamma},
                usual=_USUAL,
                unit="targets" if soft else None,
                check=lambda: check_range("targets", targets),
                impl=impl,
            )
        )
        if value is not None:
            return value
    if soft:
        check_range("targets", targets)
    return eagerly()


_USUAL = {"gamma": inspect.signature(softmax_focal_loss).parameters["gamma"].default}


def softmax_focal(
    logits: Tensor,
    *,
    targets: Tensor,
    gamma: float | Tensor,
    alpha: Tensor | None = None,
    smoothing: float | Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | Tensor | None = None,
) -> Tensor:
    """The loss of each row of logits (N, C, ...); `ignore_index` is None where no row is left out."""
    left_out = None
    if ignore_index is not None and not targets.is_floating_point():
        left_out = targets == ignore_index
        logits = logits.masked_fill(left_out.unsqueeze(1), 0)  # also in backward, where 0 × nan is nan
    shifted = logits - logits.detach().amax(1, keepdim=True)
    powers = shifted.exp()
    total = powers.sum(1, keepdim=True)
    if alpha is not None:
        alpha = alpha.reshape(-1, *[1] * (logits.ndim - 2))
    if targets.is_floating_point():
        shares = targets.to(logits.dtype)
    else:
        classes = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
        own = targets.to(torch.int32).unsqueeze(1) == classes.reshape(-1, *[1] * (logits.ndim - 2))
        shares = own.to(logits.dtype)
    if smoothing is None and not targets.is_floating_point():
        # -(1-p_t)^γ log p_t; 1-p_t as the sum of the others, which cancels nothing
        miss = powers.masked_fill(own, 0).sum(1) / total.squeeze(1)
        log_p = shifted.masked_fill(~own, 0).sum(1) - total.squeeze(1).log()
        loss = -power(miss, gamma) * log_p
        if alpha is not None:
            loss = loss * torch.where(own, alpha, torch.zeros_like(alpha)).sum(1)
    else:
        if smoothing is not None:
            shares = (1 - smoothing) * shares + smoothing / logits.shape[1]
        if alpha is not None:
            shares = shares * alpha
        # 1-p cancels only for the one class above 1/2: there it is the sum of the others
        p, log_p = powers / total, shifted - total.log()
        top = p > 0.5
        miss = torch.where(top, p.masked_fill(top, 0).sum(1, keepdim=True), 1 - p)
        loss = -(shares * power(miss, gamma) * log_p).sum(1)
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    return loss if left_out is None else loss.masked_fill(left_out, 0)


def _check(hyper: Mapping[str, Any]) -> None:
    """ValueError where a hyperparameter cannot be."""
    check_exponent("gamma", hyper["gamma"])
    check_exponent("label_smoothing", hyper["label_smoothing"])
    check_limits("label_smoothing", hyper["label_smoothing"], 0.0, 1.0)
    if hyper["alpha"] is not None:
        check_tensor("alpha", hyper["alpha"])  # a list has become one


softmax_focal_loss.check = _check  # type: ignore[attr-defined]


def _check_shape(targets: Tensor, shape: torch.Size, what: str, inputs: Tensor) -> None:
    if targets.shape != shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} and dtype {targets.dtype}; for inputs "
            f"{tuple(inputs.shape)} {what} must have shape {tuple(shape)}"
        )


class SoftmaxFocalLoss(LossModule, of=softmax_focal_loss):
    """Module of `softmax_focal_loss`, with its arguments; the default reduction is "mean"."""

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(N, C, ...)` or `(C,)` for class indices or probabilities."""
        return self.of(inputs, targets, weight=weight)
