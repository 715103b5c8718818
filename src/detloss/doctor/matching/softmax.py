"""Which known loss of class indices it is, with a softmax over classes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.doctor.elements import rows, slopes
from detloss.doctor.match import TOLERANCE, Match, deviation
from detloss.doctor.matching.fit import EXACT, tidy
from detloss.doctor.subject import Subject
from detloss.losses import softmax_focal_loss


def softmax(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and class indices `(N,)`; None where it has no values."""
    classes = subject.classes
    generator = torch.Generator().manual_seed(5)
    x = 2 * torch.randn(24, classes, generator=generator, dtype=torch.float64)
    t = torch.arange(24) % classes
    value = rows(subject, x, t).value
    if value is None or not value.isfinite().all():
        return None
    value = value.double()
    convention: dict[str, Any] = {"takes": "probabilities" if subject.probabilities else "logits"}
    sign = -1.0 if (value <= 0).all() and value.any() else 1.0
    if sign < 0:
        convention["form"] = "-x"
    cross = F.cross_entropy(x, t, reduction="none")
    q = -torch.expm1(-cross)
    columns = torch.cat((F.one_hot(t, classes).double(), q.log().unsqueeze(1)), 1)
    ratio = sign * value / cross
    smoothing = _smoothing(x, cross, sign * value)
    if smoothing is not None:
        words: dict[str, Any] = {"gamma": 0.0, "label_smoothing": smoothing}

        def reference(x: Tensor, t: Tensor) -> Tensor:
            return sign * F.cross_entropy(x, t, reduction="none", label_smoothing=smoothing)

        name = "cross_entropy"
    elif (ratio > 0).all():
        solution = torch.linalg.lstsq(columns, ratio.log().unsqueeze(1)).solution.squeeze(1)
        misfit = float((columns @ solution - ratio.log()).abs().max())
        slack = 1e-6 + 3 * misfit if misfit < EXACT else 1e-6
        gamma = tidy(float(solution[-1]), slack)
        alphas = [tidy(float(weight), slack) for weight in solution[:-1].exp()]
        name = "cross_entropy" if gamma == 0 else "softmax_focal"
        words = {"gamma": gamma, "alpha": None if set(alphas) == {1.0} else _per_class(alphas)}

        def reference(x: Tensor, t: Tensor) -> Tensor:
            weights = torch.full((x.shape[-1],), alphas[-1], dtype=x.dtype)
            weights[: len(alphas)] = torch.tensor(alphas, dtype=x.dtype)[: x.shape[-1]]
            return sign * softmax_focal_loss(x, t, weights, max(gamma, 0.0), impl="eager")
    else:
        return Match(None, "cross_entropy", deviation(value, cross), convention)
    error = deviation(value, reference(x, t))
    if error > TOLERANCE:
        return Match(None, name, error, convention, reference)
    got, own = rows(subject, x, t, gradient=True).gradient, slopes(subject, x, t)
    words["gradient"] = "full"
    if got is None or own is None or not got.any():
        words["gradient"] = "none"
    elif deviation(got, own) > 5 * TOLERANCE:
        plain = torch.softmax(x, 1) - F.one_hot(t, classes)
        detached = (sign * value / cross).unsqueeze(1) * plain
        fits = deviation(got, detached) < 5 * TOLERANCE
        words["gradient"] = "weight detached" if fits else "not that of the value"
    return Match(name, name, error, convention | words, reference)


def _per_class(alphas: list[float]) -> float | list[float]:
    return alphas[0] if len(set(alphas)) == 1 else alphas


def _smoothing(x: Tensor, cross: Tensor, value: Tensor) -> float | None:
    """The label smoothing of a plain cross entropy, None where it has none."""
    even = -torch.log_softmax(x, 1).mean(1)
    direction = even - cross
    share = float((value - cross) @ direction / (direction @ direction))
    fits = deviation(value, cross + share * direction) < 1e-6
    return round(share, 7) if fits and share > 1e-5 else None
