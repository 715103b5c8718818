"""Asymmetric loss: negatives are focused harder than positives, and easy ones are left out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss._core.modules import LogitsLoss
from detloss.formula import elementwise_loss, power


@elementwise_loss(exponents=("gamma_neg", "gamma_pos"), limits={"clip": (0, 1)})
def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_neg: float | Tensor = 4.0,
    gamma_pos: float | Tensor = 1.0,
    clip: float | Tensor = 0.05,
    *,
    detach_weight: bool = False,
) -> Tensor:
    """Asymmetric loss, for images with many labels: negatives are focused harder, easy ones cost nothing.

    ASL = -t (1-p)^γ₊ log p - (1-t) p_m^γ₋ log(1-p_m),  p = σ(x),  p_m = max(p - m, 0).
    One sigmoid per class.

    Negatives with p ≤ m cost nothing and have no gradient. m = 0 and γ₊ = γ₋ = γ is focal loss without alpha
    on labels 0 and 1, and with γ = 0 BCE on any. The loss of a negative ends at -(1-m)^γ₋ log m, so for m > 0
    a badly wrong negative has no gradient either: it may be a missing label.

    Convention: names, order and defaults of the authors' code. The weights (1-p)^γ₊ and p_m^γ₋ carry
    gradient, as there and in timm by default; `detach_weight` makes them constants of the gradient
    (`disable_torch_grad_focal_loss` there). Soft labels mix the two terms as in the paper's first equation;
    the authors' code and timm give both terms one weight, (1-p_t)^(γ₊ t + γ₋ (1-t)). No logarithm is clamped,
    where theirs end at -log 1e-8: value and gradient are right at any logit. There is no alpha.

    Args:
        gamma_neg: γ₋ ≥ 0, a number or a 0-dim tensor.
        gamma_pos: γ₊ ≥ 0, a number or a 0-dim tensor.
        clip: the margin m, 0 ≤ m < 1, a number or a tensor that broadcasts to `inputs`; 0 switches it off.
        detach_weight: whether the two powers carry no gradient. The gradient is then not the derivative of
            the value.

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, arXiv:2009.14119.
    """
    right = F.logsigmoid(-logits)  # log(1-p)
    floor = (clip if isinstance(clip, Tensor) else logits.new_full((), clip)).log()
    # log(1-p + m) as the logarithm of a sum of exponentials: exact for m = 0, and where 1-p underflows
    shifted = torch.maximum(right, floor) - F.logsigmoid((right - floor).abs())
    p_m, miss = (torch.sigmoid(logits) - clip).clamp(min=0), torch.sigmoid(-logits)
    if detach_weight:
        p_m, miss = p_m.detach(), miss.detach()
    negative = power(p_m, gamma_neg) * (-shifted).clamp(min=0)
    positive = power(miss, gamma_pos) * -F.logsigmoid(logits)
    return torch.lerp(negative, positive, targets)


class AsymmetricLoss(LogitsLoss, of=asymmetric_loss):
    """Module of `asymmetric_loss`, with its arguments; the default reduction is "mean"."""
