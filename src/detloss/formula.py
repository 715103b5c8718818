"""For losses of your own: decorators that turn a formula into a loss, and pieces that stay exact and finite.

`elementwise_loss` makes a loss of logits from a formula, `box_loss` one of boxes. Both give it class indices
or box formats, weights, reductions, half precision, clear errors, and one fused pass for value and gradient.

The pieces below are those of the papers' equations. Written from `sigmoid` and `log` they lose their digits,
or become NaN, where a prediction is nearly right or badly wrong; these do not. Each is a plain function
of tensors, for use inside and outside of a formula.

Logits and targets have one shape. Targets are in [0, 1], or boolean (True is 1), which saves arithmetic.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss._core.box import Box
from detloss._core.boxwise import box_loss
from detloss._core.elementwise import elementwise_loss
from detloss.boxes import area, distance_term, enclosing, inside_out, intersection, iou

__all__ = [
    "Box",
    "alpha_t",
    "area",
    "box_loss",
    "cross_entropy",
    "distance_term",
    "elementwise_loss",
    "enclosing",
    "inside_out",
    "intersection",
    "iou",
    "label_error",
    "one_minus_p_t",
    "power",
]


def cross_entropy(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy of logits: -(w t log p + (1-t) log(1-p)), p = σ(x), w = pos_weight or 1.

    Equals `torch.nn.functional.binary_cross_entropy_with_logits` with reduction "none", and is exact to the
    last digit where it is tiny.

    Args:
        logits: floating.
        targets: in [0, 1] or boolean, of their shape.
        pos_weight: a factor on the positive term that broadcasts to the logits, or None.
    """
    if pos_weight is None:
        logit, other = _towards(logits, targets)
        return other * logit - F.logsigmoid(logit) if isinstance(other, Tensor) else -F.logsigmoid(logit)
    # -log(1-p) and -log p, each exact to the last digit where it is tiny; lerp is exact at t = 0 and t = 1.
    return torch.lerp(-F.logsigmoid(-logits), -pos_weight * F.logsigmoid(logits), targets.to(logits.dtype))


def one_minus_p_t(logits: Tensor, targets: Tensor) -> Tensor:
    """How wrong a prediction is, in [0, 1]: 1 - p_t with p_t = p t + (1-p)(1-t), p = σ(x).

    It is |t - p| for labels 0 and 1. For soft labels it is that of torchvision's focal loss, which is not 0
    at p = t: `label_error` is.
    """
    logit, other = _towards(logits, targets)
    wrong = torch.sigmoid(-logit)
    return torch.addcmul(other, wrong, torch.rsub(other, 1, alpha=2)) if isinstance(other, Tensor) else wrong


def label_error(logits: Tensor, targets: Tensor) -> Tensor:
    """How far p = σ(x) is from a soft label, up to its sign: ±(p - t), 0 where the score is the label.

    Take its absolute value under an odd or a fractional power. An even power needs none, and has a second
    derivative at 0 without it.
    """
    logit, other = _towards(logits, targets)
    return torch.sigmoid(-logit) - other


def alpha_t(alpha: float | Tensor | None, targets: Tensor) -> float | Tensor:
    """The weight of each element: alpha for t = 1, 1 - alpha for t = 0, and in between for soft labels.

    1 where alpha is None. A tensor alpha broadcasts to the targets, such as one alpha per class.
    """
    if alpha is None:
        return 1.0
    if not isinstance(alpha, Tensor):
        dtype = targets.dtype if targets.is_floating_point() else torch.get_default_dtype()
        alpha = torch.full((), alpha, dtype=dtype, device=targets.device)
    if targets.dtype == torch.bool:
        return torch.where(targets, alpha, 1 - alpha)
    return torch.lerp(1 - alpha, alpha, targets)  # exact at t = 0 and t = 1


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base**exponent for base in [0, 1] and any exponent ≥ 0, with finite first and second derivatives at 0.

    x**γ has an infinite first or second derivative at 0 for γ < 2 unless γ is 0 or 1, and autograd's is NaN
    there if the inner derivative is 0. So a tiny number is added to the base unless the exponent is an
    integer: far below the resolution of any loss, and large enough that its inverse square does not overflow.
    """
    if isinstance(exponent, Tensor) or exponent % 1:
        base = base + torch.finfo(base.dtype).tiny ** 0.5
        if not isinstance(exponent, Tensor) and exponent % 1 == 0.5:  # a root is much cheaper than a power
            return base ** int(exponent) * base.sqrt()
    return base**exponent


def _towards(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float]:
    """The logit of the likelier label, and the share of the other: in [0, 1/2], 0 for labels of 0 and 1.

    Labels 0 and 1 are exchanged where t < 1/2: no loss changes, each needs one sigmoid and one logarithm, and
    none loses a digit where it is tiny. Rounding beyond 0 or 1 is reflected, so that no share is negative.
    """
    if targets.dtype == torch.bool:
        return torch.where(targets, logits, -logits), 0.0
    hard = targets.round()
    return logits * torch.rsub(hard, -1, alpha=-2), (targets - hard).abs()  # rsub: 2 hard - 1, in one pass
