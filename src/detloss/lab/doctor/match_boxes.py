"""Which known loss of boxes, or of distances as distributions, it is."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detloss.lab.doctor.answers import TOLERANCE, derivative, deviation, sample_boxes, samples, values
from detloss.lab.doctor.fit import tidy
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import (
    ALPHA_DETACHED,
    BOX_FORMS,
    FULL,
    THROUGH_ALPHA,
    Match,
    gradient_words,
    similarity,
)
from detloss.losses import distribution_focal_loss, smooth_l1_box_loss

SIMILAR = 0.1
"""The largest deviation at which the convention of the nearest known loss is told."""
_KINDS = (*((kind, False) for kind in ("iou", "giou", "diou", "ciou", "eiou")), ("ciou", True))


def match_box(subject: Subject) -> Match | None:
    """The match of a loss of pairs of boxes; None where it has no values."""
    predicted, true = sample_boxes(36)
    value = values(subject, predicted, true)
    finite = value.isfinite()  # -log IoU of boxes apart is not
    if finite.sum() < 12:
        return None
    if finite.all() and (match := _match_l1(subject, value, predicted, true)):
        return match
    best = Match(None, "", math.inf, {})
    for kind, gated in _KINDS:
        s = similarity(kind, gated, predicted, true)
        for form, transform in BOX_FORMS.items():
            counted = finite & (s > 0.02) if form == "-log x" else finite
            scale, off = _scaled(value[counted], transform(s[counted]))
            if off < best.error - 1e-9 and counted.sum() >= 8:
                words: dict[str, Any] = {"form": form, "fmt": subject.form.fmt}
                words |= {"aspect term": "only where IoU > 1/2"} if gated else {}
                words |= {"scale": scale} if scale != 1 else {}
                best = Match(None, kind, off, words, partial(_formula, kind, gated, form, scale))
    kind, words = best.nearest, best.convention
    if best.reference is None or best.error > TOLERANCE:
        return best if best.error < SIMILAR else best._replace(convention={})
    if eps := _eps(subject, words):
        words["eps"] = eps
    others = {ALPHA_DETACHED: derivative(best.reference, predicted, true)} if kind == "ciou" else {}
    gradient = gradient_words(subject, predicted, true, others)
    words["gradient"] = THROUGH_ALPHA if kind == "ciou" and gradient == FULL else gradient
    return best._replace(name=kind)


def _match_l1(subject: Subject, value: Tensor, predicted: Tensor, true: Tensor) -> Match | None:
    """L1 or smooth L1, of corners, summed over the four numbers or their mean."""
    differences = (predicted - true).abs().sum(1)
    for over, scale in (("sum of the four numbers", 1.0), ("mean of the four numbers", 0.25)):
        # a difference d beyond beta costs d - beta/2, and one below it more
        beta = tidy(float((differences - value / scale).max()) / 2, 1e-6)
        if beta < 0:
            continue
        reference = partial(_l1, beta, scale)
        error = deviation(value, reference(predicted, true))
        if error <= TOLERANCE:
            words = {"fmt": subject.form.fmt, "over": over} | ({"beta": beta} if beta else {})
            words["gradient"] = gradient_words(subject, predicted, true, {})
            name = "smooth_l1" if beta else "l1"
            return Match(name, name, error, words, reference)
    return None


def _l1(beta: float, scale: float, a: Tensor, b: Tensor) -> Tensor:
    return scale * smooth_l1_box_loss(a, b, beta=beta, impl="eager")


def _formula(kind: str, gated: bool, form: str, scale: float, a: Tensor, b: Tensor) -> Tensor:
    return scale * BOX_FORMS[form](similarity(kind, gated, a, b))


def _scaled(value: Tensor, expected: Tensor) -> tuple[float, float]:
    """The factor between them, 1 unless another one fits exactly, and the deviation that is left."""
    scale = float(value @ expected / (expected @ expected))
    fits = 1e-6 < scale < 1e6 and deviation(value, scale * expected) <= TOLERANCE and abs(scale - 1) >= 1e-4
    scale = float(f"{scale:.4g}") if fits else 1.0
    return scale, deviation(value, scale * expected)


def _eps(subject: Subject, words: dict[str, Any]) -> float | None:
    """The eps that is added to the area of the union, read off two equal boxes that are small."""
    side = 1e-2
    small = torch.tensor([[0.5, 0.5, 0.5 + side, 0.5 + side]], dtype=torch.float64)
    value = float(values(subject, small, small))
    loss = {"1 - x": value, "x": 1 - value, "-log x": 1 - math.exp(-value)}.get(words["form"], math.nan)
    known = 1e-11 < loss < 0.5 and "scale" not in words
    return float(f"{side * side * loss / (1 - loss):.2g}") if known else None


def match_distribution(subject: Subject) -> Match | None:
    """The match of a loss of `(N, n+1)` logits of bins and `(N,)` distances; None where it has no values."""
    x, t = samples(subject, 24)
    x, loss = 2 * x, partial(distribution_focal_loss, impl="eager")
    value = values(subject, x, t)
    if not value.isfinite().all():
        return None
    scale, off = _scaled(value, loss(x, t))
    convention: dict[str, Any] = {"takes": subject.form.takes, "bins": BINS + 1}
    convention |= {"scale": scale} if scale != 1 else {}
    match = Match(None, "dfl", off, convention, lambda x, t: scale * loss(x, t))
    if off > TOLERANCE:
        return match
    gradient = gradient_words(subject, x, t, {})
    return match._replace(name="dfl", convention=convention | {"gradient": gradient})
