"""The known losses and the conventions in which people write them, as data over this package's own losses.

Everything here is elementwise and in the dtype of its arguments. What the package itself does not do (each of
the five readings of focal loss on soft labels, -log IoU, ...) is put together from what it does.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from detloss.boxes import paired_box_iou
from detloss.losses import (
    binary_cross_entropy_with_logits,
    quality_focal_loss,
    sigmoid_focal_loss,
)

Formula = Callable[[Tensor, Tensor], Tensor]


def bce(x: Tensor, t: Tensor) -> Tensor:
    """-(t log p + (1-t) log(1-p))."""
    return binary_cross_entropy_with_logits(x, t, impl="eager")


def focal(x: Tensor, t: Tensor, gamma: float) -> Tensor:
    """(1-p_t)^γ BCE, p_t = p t + (1-p)(1-t)."""
    return sigmoid_focal_loss(x, t, None, gamma, impl="eager")


def per_term(x: Tensor, t: Tensor, gamma: float) -> Tensor:
    """-(t (1-p)^γ log p + (1-t) p^γ log(1-p)): both terms keep their own weight on soft labels."""
    return torch.lerp(focal(x, torch.zeros_like(t), gamma), focal(x, torch.ones_like(t), gamma), t)


# What focal loss becomes on soft labels, alpha left out; on labels 0 and 1 all are one. By who does it.
ON_SOFT_TARGETS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "p_t = p t + (1-p)(1-t)": focal,  # torchvision, fvcore, optax, ultralytics
    "|t - p|": lambda x, t, gamma: quality_focal_loss(x, t, gamma, impl="eager"),
    "each term its own weight": per_term,  # kornia
    "p_t = exp(-BCE)": lambda x, t, gamma: (-torch.expm1(-bce(x, t))) ** gamma * bce(x, t),  # SMP
    "p_t = σ(x (2t-1))": lambda x, t, gamma: torch.sigmoid(-x * (2 * t - 1)) ** gamma * bce(x, t),  # MONAI
    "targets cut to 0": lambda x, t, gamma: focal(x, t.floor(), gamma),
    "targets rounded": lambda x, t, gamma: focal(x, t.round(), gamma),
    "1 - p_t from the targets cut to 0": lambda x, t, gamma: (
        torch.sigmoid(torch.where(t >= 1, -x, x)) ** gamma * bce(x, t)
    ),
    "1 - p_t from t > 0": lambda x, t, gamma: torch.sigmoid(torch.where(t > 0, -x, x)) ** gamma * bce(x, t),
}

# The weight of a label, from those of positives and negatives.
ALPHA_ON_SOFT_TARGETS: Mapping[str, Callable[[Tensor, float, float], Tensor]] = {
    "linear in t": lambda t, positive, negative: negative + (positive - negative) * t,
    "of a positive where t > 0": lambda t, positive, negative: _either(t > 0, positive, negative, t),
    "of a positive where t ≥ 1/2": lambda t, positive, negative: _either(t >= 0.5, positive, negative, t),
    "of a positive where t = 1": lambda t, positive, negative: _either(t >= 1, positive, negative, t),
}


def _either(mask: Tensor, positive: float, negative: float, like: Tensor) -> Tensor:
    return torch.where(mask, like.new_full((), positive), like.new_full((), negative))


def weighted_terms(x: Tensor, t: Tensor, gamma: float, positive: float, negative: float) -> Tensor:
    """`per_term` with a weight on either term: kornia's alpha, torch's pos_weight."""
    ones, zeros = torch.ones_like(t), torch.zeros_like(t)
    return torch.lerp(negative * focal(x, zeros, gamma), positive * focal(x, ones, gamma), t)


# What a box loss makes of a similarity s; the first that fits is told. `scale` times it is tried as well.
BOX_FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "1 - x": lambda s: 1 - s,
    "x": lambda s: s,
    "-log x": lambda s: -s.clamp(min=1e-12).log(),
    "1 - x²": lambda s: 1 - s.square(),
    "1 - x³": lambda s: 1 - s**3,
    "-x": lambda s: -s,
}


def _gated_ciou(boxes1: Tensor, boxes2: Tensor, fmt: str) -> Tensor:
    """mmdet: the aspect term counts only above an IoU of 1/2."""
    diou, ciou = (paired_box_iou(boxes1, boxes2, kind, fmt) for kind in ("diou", "ciou"))
    return torch.where(paired_box_iou(boxes1, boxes2, "iou", fmt) > 0.5, ciou, diou)


def _plain(kind: str) -> Callable[[Tensor, Tensor, str], Tensor]:
    return lambda boxes1, boxes2, fmt: paired_box_iou(boxes1, boxes2, kind, fmt)


SIMILARITIES: Mapping[tuple[str, str], Callable[[Tensor, Tensor, str], Tensor]] = {
    ("iou", ""): _plain("iou"),
    ("giou", ""): _plain("giou"),
    ("diou", ""): _plain("diou"),
    ("ciou", ""): _plain("ciou"),
    ("eiou", ""): _plain("eiou"),
    ("ciou", "only where IoU > 1/2"): _gated_ciou,
}

# What peers do, by loss, in the words of `Match.convention`; "*" is for all losses of a peer. Only what their
# own files say. `detloss doctor --like` tells where a loss differs.
_FOCAL = {"takes": "logits", "alpha_on": "positives", "soft_targets": "p_t = p t + (1-p)(1-t)"}
_LINEAR = {"form": "1 - x", "fmt": "xyxy"}
_DETACHED = {"gradient": "alpha of the aspect term detached"}
PEERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "detloss": {
        "focal": {**_FOCAL, "alpha": 0.25, "gamma": 2.0, "reduction": "none"},
        "quality_focal": {"takes": "logits", "alpha_on": "off", "gamma": 2.0, "reduction": "none"},
        "varifocal": {"takes": "logits", "alpha": 0.75, "gamma": 2.0, "gradient": "full"},
        "mal": {"takes": "logits", "gamma": 1.5, "gradient": "weight detached"},
        "ciou": {**_LINEAR, **_DETACHED},
        "*": _LINEAR,
    },
    "torchvision": {
        "focal": {**_FOCAL, "alpha": 0.25, "gamma": 2.0, "reduction": "none"},
        "ciou": {**_LINEAR, **_DETACHED, "reduction": "none"},
        "*": {**_LINEAR, "reduction": "none"},
    },
    "mmdet": {
        "focal": {**_FOCAL, "alpha": 0.25, "gamma": 2.0, "reduction": "mean over all elements"},
        "quality_focal": {"gamma": 2.0, "alpha_on": "off", "reduction": "sum over classes, mean over rows"},
        "varifocal": {"alpha": 0.75, "gamma": 2.0, "gradient": "full"},
        "iou": {"form": "-log x", "fmt": "xyxy", "eps": 1e-6},
        "ciou": {**_LINEAR, **_DETACHED, "aspect term": "only where IoU > 1/2"},
        "*": _LINEAR,
    },
    "ultralytics": {
        "focal": {
            **_FOCAL,
            "alpha": 0.25,
            "gamma": 1.5,
            "reduction": "mean over classes, sum over rows",
        },
        "varifocal": {"alpha": 0.75, "gamma": 2.0, "gradient": "full"},
        "ciou": {**_LINEAR, **_DETACHED, "eps": 1e-7},
        "*": {"form": "1 - x"},
    },
    "fvcore": {"focal": {**_FOCAL, "alpha_on": "off", "gamma": 2.0, "reduction": "none"}},
    "optax": {"focal": {**_FOCAL, "alpha_on": "off", "gamma": 2.0, "reduction": "none"}},
    "monai": {
        "focal": {
            "takes": "logits",
            "alpha_on": "off",
            "gamma": 2.0,
            "soft_targets": "p_t = σ(x (2t-1))",
            "reduction": "mean over all elements",
        }
    },
    "kornia": {"focal": {"takes": "logits", "gamma": 2.0, "soft_targets": "each term its own weight"}},
    "smp": {"focal": {"takes": "logits", "gamma": 2.0, "soft_targets": "p_t = exp(-BCE)"}},
    "keras": {"focal": {"takes": "probabilities", "alpha_on": "off", "gamma": 2.0}},
    "deim": {
        "varifocal": {"alpha": 0.75, "gamma": 2.0, "gradient": "weight detached"},
        "mal": {"gamma": 1.5, "gradient": "weight detached"},
        "focal": {**_FOCAL, "alpha": 0.75, "gamma": 2.0},
    },
    "paddle": {
        "iou": {"form": "1 - x²", "fmt": "xyxy"},
        "varifocal": {"alpha": 0.75, "gamma": 2.0, "gradient": "full"},
    },
}
