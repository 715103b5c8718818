"""The known losses in the conventions in which people write them, over this package's own losses.

Everything here is elementwise and in the dtype of its arguments.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detloss import losses
from detloss.boxes import paired_box_iou
from detloss.lab.doctor.answers import TOLERANCE, Formula, deviation, rows, slopes
from detloss.lab.doctor.forms import Subject

# What the gradient of a loss is, in a convention.
FULL, WEIGHT_DETACHED, OTHER = "full", "weight detached", "not that of the value"
ALPHA_DETACHED = "alpha of the aspect term detached"
LABEL_DETACHED = "label detached"
THROUGH_ALPHA = "full, also through alpha of the aspect term"


class Match(NamedTuple):
    """What a loss is.

    Attributes:
        name: the known loss that it equals, None where it equals none.
        nearest: the known loss that comes nearest.
        error: the largest deviation of its values from that one's, relative.
        convention: what it follows in detail, in plain words and numbers; goes into JSON.
        reference: the known loss with this convention, one value per row, in what a subject takes.
    """

    name: str | None
    nearest: str
    error: float
    convention: dict[str, Any]
    reference: Formula | None = None


def gradient_words(subject: Subject, x: Tensor, t: Tensor, others: Mapping[str, Tensor]) -> str:
    """Whether the gradient is that of the value, or one of others, each under its words."""
    got, own = rows(subject, x, t, gradient=True).gradient, slopes(subject, x, t)
    if got is None or own is None or not got.any():
        return "none"
    finite = got.isfinite() & own.isfinite()
    fits = (words for words, expected in {FULL: own, **others}.items()
            if deviation(got[finite], expected[finite]) < 5 * TOLERANCE)  # fmt: skip
    return next(fits, OTHER)


def bce(x: Tensor, t: Tensor) -> Tensor:
    """-(t log p + (1-t) log(1-p))."""
    return losses.binary_cross_entropy_with_logits(x, t, impl="eager")


def focal(x: Tensor, t: Tensor, gamma: float) -> Tensor:
    """(1-p_t)^γ BCE, p_t = p t + (1-p)(1-t)."""
    return losses.sigmoid_focal_loss(x, t, None, gamma, impl="eager")


def weighted_terms(x: Tensor, t: Tensor, gamma: float, positive: float = 1, negative: float = 1) -> Tensor:
    """-(a t (1-p)^γ log p + b (1-t) p^γ log(1-p)): each term its own weight on soft labels too."""
    ones, zeros = torch.ones_like(t), torch.zeros_like(t)
    return torch.lerp(negative * focal(x, zeros, gamma), positive * focal(x, ones, gamma), t)


# What focal loss becomes on soft labels, alpha left out; on labels 0 and 1 all are one. By who does it.
ON_SOFT_TARGETS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "p_t = p t + (1-p)(1-t)": focal,  # torchvision, fvcore, optax, ultralytics
    "|t - p|": lambda x, t, gamma: losses.quality_focal_loss(x, t, gamma, impl="eager"),
    "each term its own weight": weighted_terms,  # kornia
    "p_t = exp(-BCE)": lambda x, t, gamma: (-torch.expm1(-bce(x, t))) ** gamma * bce(x, t),  # SMP
    "p_t = σ(x (2t-1))": lambda x, t, gamma: torch.sigmoid(-x * (2 * t - 1)) ** gamma * bce(x, t),  # MONAI
    "targets cut to 0": lambda x, t, gamma: focal(x, t.floor(), gamma),
    "targets rounded": lambda x, t, gamma: focal(x, t.round(), gamma),
    "1 - p_t from the targets cut to 0": lambda x, t, g: (
        torch.sigmoid(torch.where(t >= 1, -x, x)) ** g * bce(x, t)
    ),
    "1 - p_t from t > 0": lambda x, t, gamma: torch.sigmoid(torch.where(t > 0, -x, x)) ** gamma * bce(x, t),
}

# The share of a positive's weight in the weight of a label.
ALPHA_ON_SOFT_TARGETS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear in t": lambda t: t,
    "of a positive where t > 0": lambda t: (t > 0).to(t),
    "of a positive where t ≥ 1/2": lambda t: (t >= 0.5).to(t),
    "of a positive where t = 1": lambda t: (t >= 1).to(t),
}

# What varifocal loss and its kin become on soft labels: the name, and the loss.
VARIFOCAL_ON_SOFT_TARGETS: Mapping[str, tuple[str, Callable[..., Tensor]]] = {
    "t BCE": ("varifocal", partial(losses.varifocal_loss, impl="eager")),
    "BCE to t^gamma": ("mal", lambda x, t, alpha, gamma: (
        torch.where(t > 0, 1, alpha) * losses.matchability_aware_loss(x, t, gamma, impl="eager"))),
    "BCE, without the weight t": ("varifocal", lambda x, t, alpha, gamma: (
        torch.where(t > 0, bce(x, t), alpha * focal(x, torch.zeros_like(t), gamma)))),
    "(t + alpha p^gamma (1-t)) BCE, no mask": ("varifocal", lambda x, t, alpha, gamma: (
        (t + alpha * torch.sigmoid(x) ** gamma * (1 - t)) * bce(x, t))),
}  # fmt: skip


def gaussian_focal(x: Tensor, t: Tensor, alpha: float, gamma: float = 4.0) -> Tensor:
    """Focal loss of exponent alpha, a label below 1 being a negative that weighs (1-t)^gamma."""
    return losses.gaussian_focal_loss(x, t, alpha, gamma, impl="eager")


flsd: Formula = partial(losses.sample_dependent_focal_loss, alpha=None, impl="eager")
FLSD = {"gamma_low": 5.0, "gamma_high": 3.0, "threshold": 0.2}  # its defaults, the only ones that are known

# The losses that one without a match is compared with.
USUAL: Mapping[str, Formula] = {
    "bce": bce,
    "focal": lambda x, t: (0.75 - 0.5 * t) * focal(x, t, 2.0),
    "quality_focal": partial(losses.quality_focal_loss, impl="eager"),
    "varifocal": partial(losses.varifocal_loss, impl="eager"),
    "poly_focal": partial(losses.poly_focal_loss, impl="eager"),
    "asymmetric": partial(losses.asymmetric_loss, impl="eager"),
    "mal": partial(losses.matchability_aware_loss, impl="eager"),
    "flsd": partial(losses.sample_dependent_focal_loss, impl="eager"),
    "ia_bce": partial(losses.iou_aware_bce_loss, impl="eager"),
}

# What a box loss makes of a similarity s; the first that fits is told. `scale` times it is tried as well.
BOX_FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "1 - x": lambda s: 1 - s,
    "x": lambda s: s,
    "-log x": lambda s: -s.clamp(min=1e-12).log(),
    "1 - x²": lambda s: 1 - s.square(),
    "1 - x³": lambda s: 1 - s**3,
    "-x": lambda s: -s,
}


def similarity(kind: str, gated: bool, boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU and its kin; gated, as mmdet has CIoU: the aspect term counts only above an IoU of 1/2."""
    plain = paired_box_iou(boxes1, boxes2, kind)
    if not gated:
        return plain
    above = paired_box_iou(boxes1, boxes2, "iou") > 0.5
    return torch.where(above, plain, paired_box_iou(boxes1, boxes2, "diou"))


# What peers do, by loss, in the words of a convention; "*" is for all their other losses. Only what their own
# files say.
_FOCAL = {"takes": "logits", "alpha_on": "positives", "gamma": 2.0, "soft_targets": "p_t = p t + (1-p)(1-t)"}
_LINEAR = {"form": "1 - x", "fmt": "xyxy"}
_CIOU = {**_LINEAR, "gradient": "alpha of the aspect term detached"}
_VARIFOCAL = {"alpha": 0.75, "gamma": 2.0, "gradient": "full"}
_PLAIN = {**_FOCAL, "alpha_on": "off", "reduction": "none"}
PEERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "detloss": {
        "focal": {**_FOCAL, "alpha": 0.25, "reduction": "none"},
        "quality_focal": {"takes": "logits", "alpha_on": "off", "gamma": 2.0, "reduction": "none"},
        "varifocal": {"takes": "logits", **_VARIFOCAL},
        "mal": {"takes": "logits", "gamma": 1.5, "gradient": "weight detached"},
        "ia_bce": {"takes": "logits", "alpha": 0.25, "gamma": 2.0, "gradient": "label detached"},
        "gaussian_focal": {"takes": "logits", "alpha": 2.0, "gamma": 4.0},
        "ciou": _CIOU,
        "*": _LINEAR,
    },
    "torchvision": {
        "focal": {**_FOCAL, "alpha": 0.25, "reduction": "none"},
        "ciou": {**_CIOU, "reduction": "none"},
        "*": {**_LINEAR, "reduction": "none"},
    },
    "mmdet": {
        "focal": {**_FOCAL, "alpha": 0.25, "reduction": "mean over all elements"},
        "quality_focal": {"gamma": 2.0, "alpha_on": "off", "reduction": "sum over classes, mean over rows"},
        "varifocal": _VARIFOCAL,
        "gaussian_focal": {"takes": "probabilities", "alpha": 2.0, "gamma": 4.0},
        "iou": {"form": "-log x", "fmt": "xyxy", "eps": 1e-6},
        "ciou": {**_CIOU, "aspect term": "only where IoU > 1/2"},
        "*": _LINEAR,
    },
    "ultralytics": {
        "focal": {**_FOCAL, "alpha": 0.25, "gamma": 1.5, "reduction": "mean over classes, sum over rows"},
        "varifocal": _VARIFOCAL,
        "ciou": {**_CIOU, "eps": 1e-7},
        "*": {"form": "1 - x"},
    },
    "fvcore": {"focal": _PLAIN},
    "optax": {"focal": _PLAIN},
    "monai": {
        "focal": {**_PLAIN, "soft_targets": "p_t = σ(x (2t-1))", "reduction": "mean over all elements"},
    },
    "kornia": {"focal": {"takes": "logits", "gamma": 2.0, "soft_targets": "each term its own weight"}},
    "smp": {"focal": {"takes": "logits", "gamma": 2.0, "soft_targets": "p_t = exp(-BCE)"}},
    "keras": {"focal": {"takes": "probabilities", "alpha_on": "off", "gamma": 2.0}},
    "deim": {
        "varifocal": {**_VARIFOCAL, "gradient": "weight detached"},
        "mal": {"gamma": 1.5, "gradient": "weight detached"},
        "focal": {**_FOCAL, "alpha": 0.75},
    },
    "paddle": {"iou": {"form": "1 - x²", "fmt": "xyxy"}, "varifocal": _VARIFOCAL},
}
