"""Which known loss of boxes, or of distances as distributions, it is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detloss.boxes import FORMATS
from detloss.doctor.elements import rows, slopes
from detloss.doctor.match import TOLERANCE, Match, deviation
from detloss.doctor.matching.known import BOX_FORMS, SIMILARITIES
from detloss.doctor.subject import Subject
from detloss.losses import distribution_focal_loss

SIMILAR = 0.1
"""The largest deviation at which the convention of the nearest known loss is told."""


def sample_boxes(count: int, seed: int = 0, gap: float = 0.5) -> tuple[Tensor, Tensor]:
    """Pairs of boxes in pixels, xyxy, float64, that are boxes in every format; two of three pairs overlap.

    No side of a pair lies within `gap` of another that it is compared with: no kink is near.
    """
    generator = torch.Generator().manual_seed(seed)
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    while len(firsts) < count:
        corner, size = (torch.rand(2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        corner = 20 + 30 * corner
        if len(firsts) % 3 == 2:
            corner[1] += 40
        size = 10 + 35 * size
        first, second = torch.cat((corner, corner + size), 1).unbind(0)
        crossed = (first.view(2, 2).unsqueeze(1) - second.view(2, 2).unsqueeze(0)).abs().min()
        if crossed > gap:
            firsts.append(first)
            seconds.append(second)
    return torch.stack(firsts), torch.stack(seconds)


def box(subject: Subject) -> Match | None:
    """The match of a loss of pairs of boxes; None where it has no values."""
    predicted, true = sample_boxes(36)
    value = rows(subject, predicted, true).value
    if value is None:
        return None
    value = value.double()
    finite = value.isfinite()  # -log IoU of boxes apart is not
    if finite.sum() < 12:
        return None
    best: tuple[float, str, dict[str, Any], Callable[[Tensor, Tensor], Tensor]] | None = None
    for fmt in FORMATS if subject.fmt == "xyxy" else ("xyxy",):
        for (kind, variant), similarity in SIMILARITIES.items():
            s = similarity(predicted, true, fmt)
            for form, transform in BOX_FORMS.items():
                counted = finite & (s > 0.02) if form == "-log x" else finite
                if counted.sum() < 8:
                    continue
                expected = transform(s)
                scale = _scale(value[counted], expected[counted])
                off = deviation(value[counted], scale * expected[counted])
                if best is not None and off >= best[0] - 1e-9:
                    continue
                words: dict[str, Any] = {"form": form, "fmt": subject.fmt if subject.fmt != "xyxy" else fmt}
                if variant:
                    words["aspect term"] = variant
                if scale != 1:
                    words["scale"] = scale
                best = off, kind, words, partial(_form_of, similarity, transform, fmt, scale)
    assert best is not None
    off, kind, words, reference = best
    if off > TOLERANCE:
        return Match(None, kind, off, words if off < SIMILAR else {}, reference)
    if eps := _eps(subject, words):
        words["eps"] = eps
    words["gradient"] = _gradient(subject, kind, reference, predicted, true)
    return Match(kind, kind, off, words, reference)


def _form_of(
    similarity: Callable[[Tensor, Tensor, str], Tensor],
    transform: Callable[[Tensor], Tensor],
    fmt: str,
    scale: float,
    predicted: Tensor,
    true: Tensor,
) -> Tensor:
    return scale * transform(similarity(predicted, true, fmt))


def _scale(value: Tensor, expected: Tensor) -> float:
    """The factor between them: 1 unless another one fits exactly."""
    scale = float(value @ expected / (expected @ expected))
    if not 1e-6 < scale < 1e6 or deviation(value, scale * expected) > TOLERANCE or abs(scale - 1) < 1e-4:
        return 1.0
    return float(f"{scale:.4g}")


def _eps(subject: Subject, words: dict[str, Any]) -> float | None:
    """The eps that is added to the area of the union, read off two equal boxes that are small."""
    if words["form"] not in ("1 - x", "x", "-log x") or words.get("scale", 1) != 1:
        return None
    side = 1e-2
    small = torch.tensor([[0.5, 0.5, 0.5 + side, 0.5 + side]], dtype=torch.float64)
    if words["fmt"] != "xyxy" and subject.fmt == "xyxy":
        small = torch.tensor([[0.5, 0.5, side, side]], dtype=torch.float64)
    value = rows(subject, small, small).value
    if value is None or not value.isfinite().all():
        return None
    v = float(value)
    loss = {"1 - x": v, "x": 1 - v, "-log x": 1 - float(torch.exp(-value.double()))}[words["form"]]
    if not 1e-11 < loss < 0.5:
        return None
    return float(f"{side * side * loss / (1 - loss):.2g}")


def _gradient(subject: Subject, kind: str, reference: Any, predicted: Tensor, true: Tensor) -> str:
    """Whether the gradient is that of the value, or leaves out the weight of CIoU's aspect term."""
    got, own = rows(subject, predicted, true, gradient=True).gradient, slopes(subject, predicted, true)
    if got is None or own is None or not got.any():
        return "none"
    finite = got.isfinite().all(1) & own.isfinite().all(1)
    if deviation(got[finite], own[finite]) < 5 * TOLERANCE:
        return "full, also through alpha of the aspect term" if kind == "ciou" else "full"
    if kind == "ciou":
        leaf = predicted.clone().requires_grad_()
        (detached,) = torch.autograd.grad(reference(leaf, true).sum(), leaf)
        if deviation(got[finite], detached[finite]) < 5 * TOLERANCE:
            return "alpha of the aspect term detached"
    return "not that of the value"


def distribution(subject: Subject) -> Match | None:
    """The match of a loss of `(N, n+1)` logits of bins and `(N,)` distances; None where it has no values."""
    generator = torch.Generator().manual_seed(7)
    x = 2 * torch.randn(24, subject.bins + 1, generator=generator, dtype=torch.float64)
    t = torch.rand(24, generator=generator, dtype=torch.float64) * (subject.bins - 1.1)
    value = rows(subject, x, t).value
    if value is None or not value.isfinite().all():
        return None
    value = value.double()
    expected = distribution_focal_loss(x, t, impl="eager")
    scale = _scale(value, expected)

    def reference(x: Tensor, t: Tensor) -> Tensor:
        return scale * distribution_focal_loss(x, t, impl="eager")

    off = deviation(value, scale * expected)
    convention: dict[str, Any] = {"takes": "probabilities" if subject.probabilities else "logits"}
    convention["bins"] = subject.bins + 1
    if scale != 1:
        convention["scale"] = scale
    if off > TOLERANCE:
        return Match(None, "distribution_focal", off, convention, reference)
    got, own = rows(subject, x, t, gradient=True).gradient, slopes(subject, x, t)
    fits = got is not None and own is not None and deviation(got, own) < 5 * TOLERANCE
    convention["gradient"] = "full" if fits else "not that of the value"
    return Match("distribution_focal", "distribution_focal", off, convention, reference)
