"""Which known loss of boxes, or of distances as distributions, it is."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from detloss.lab.doctor.answers import rows, sample_boxes, slopes
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import (
    ALPHA_DETACHED,
    BOX_FORMS,
    FULL,
    OTHER,
    THROUGH_ALPHA,
    TOLERANCE,
    Formula,
    Match,
    deviation,
    similarity,
)
from detloss.losses import distribution_focal_loss

SIMILAR = 0.1
"""The largest deviation at which the convention of the nearest known loss is told."""
_KINDS = (*((kind, False) for kind in ("iou", "giou", "diou", "ciou", "eiou")), ("ciou", True))


def match_box(subject: Subject) -> Match | None:
    """The match of a loss of pairs of boxes; None where it has no values."""
    predicted, true = sample_boxes(36)
    answer = rows(subject, predicted, true)
    if (
        answer.value is None or (finite := answer.value.isfinite()).sum() < 12
    ):  # -log IoU of boxes apart is not
        return None
    value = answer.value.double()
    best: tuple[float, str, dict[str, Any], Formula] | None = None
    for kind, gated in _KINDS:
        s = similarity(kind, gated, predicted, true)
        for form, transform in BOX_FORMS.items():
            counted = finite & (s > 0.02) if form == "-log x" else finite
            if counted.sum() < 8:
                continue
            expected = transform(s)
            scale = _scale(value[counted], expected[counted])
            off = deviation(value[counted], scale * expected[counted])
            if best is not None and off >= best[0] - 1e-9:
                continue
            words: dict[str, Any] = {"form": form, "fmt": subject.form.fmt}
            words |= {"aspect term": "only where IoU > 1/2"} if gated else {}
            words |= {"scale": scale} if scale != 1 else {}
            best = off, kind, words, partial(_formula, kind, gated, form, scale)
    assert best is not None
    off, kind, words, reference = best
    if off > TOLERANCE:
        return Match(None, kind, off, words if off < SIMILAR else {}, reference)
    if eps := _eps(subject, words):
        words["eps"] = eps
    words["gradient"] = _gradient(subject, kind, reference, predicted, true)
    return Match(kind, kind, off, words, reference)


def _formula(kind: str, gated: bool, form: str, scale: float, a: Tensor, b: Tensor) -> Tensor:
    return scale * BOX_FORMS[form](similarity(kind, gated, a, b))


def _scale(value: Tensor, expected: Tensor) -> float:
    """The factor between them: 1 unless another one fits exactly."""
    scale = float(value @ expected / (expected @ expected))
    if not 1e-6 < scale < 1e6 or deviation(value, scale * expected) > TOLERANCE or abs(scale - 1) < 1e-4:
        return 1.0
    return float(f"{scale:.4g}")


def _eps(subject: Subject, words: dict[str, Any]) -> float | None:
    """The eps that is added to the area of the union, read off two equal boxes that are small."""
    if words["form"] not in ("1 - x", "x", "-log x") or "scale" in words:
        return None
    side = 1e-2
    small = torch.tensor([[0.5, 0.5, 0.5 + side, 0.5 + side]], dtype=torch.float64)
    answer = rows(subject, small, small)
    if answer.value is None or answer.broken:
        return None
    v = float(answer.value)
    loss = {"1 - x": v, "x": 1 - v, "-log x": 1 - float(torch.exp(-answer.value.double()))}[words["form"]]
    return float(f"{side * side * loss / (1 - loss):.2g}") if 1e-11 < loss < 0.5 else None


def _gradient(subject: Subject, kind: str, reference: Formula, predicted: Tensor, true: Tensor) -> str:
    """Whether the gradient is that of the value, or leaves out the weight of CIoU's aspect term."""
    got, own = rows(subject, predicted, true, gradient=True).gradient, slopes(subject, predicted, true)
    if got is None or own is None or not got.any():
        return "none"
    finite = got.isfinite().all(1) & own.isfinite().all(1)
    if deviation(got[finite], own[finite]) < 5 * TOLERANCE:
        return THROUGH_ALPHA if kind == "ciou" else FULL
    if kind == "ciou":
        leaf = predicted.clone().requires_grad_()
        (detached,) = torch.autograd.grad(reference(leaf, true).sum(), leaf)
        if deviation(got[finite], detached[finite]) < 5 * TOLERANCE:
            return ALPHA_DETACHED
    return OTHER


def match_distribution(subject: Subject) -> Match | None:
    """The match of a loss of `(N, n+1)` logits of bins and `(N,)` distances; None where it has no values."""
    generator = torch.Generator().manual_seed(7)
    x = 2 * torch.randn(24, BINS + 1, generator=generator, dtype=torch.float64)
    t = torch.rand(24, generator=generator, dtype=torch.float64) * (BINS - 1.1)
    answer = rows(subject, x, t)
    if answer.value is None or answer.broken:
        return None
    expected = distribution_focal_loss(x, t, impl="eager")
    scale = _scale(answer.value.double(), expected)

    def reference(x: Tensor, t: Tensor) -> Tensor:
        return scale * distribution_focal_loss(x, t, impl="eager")

    off = deviation(answer.value, scale * expected)
    convention: dict[str, Any] = {"takes": subject.form.takes, "bins": BINS + 1}
    convention |= {"scale": scale} if scale != 1 else {}
    if off > TOLERANCE:
        return Match(None, "dfl", off, convention, reference)
    got, own = rows(subject, x, t, gradient=True).gradient, slopes(subject, x, t)
    fits = got is not None and own is not None and deviation(got, own) < 5 * TOLERANCE
    convention["gradient"] = FULL if fits else OTHER
    return Match("dfl", "dfl", off, convention, reference)
