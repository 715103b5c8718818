"""Which known loss of logits it is, with a sigmoid per class."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.doctor.elements import Divisor, needs_a_positive, rows, slopes
from detloss.doctor.match import TOLERANCE, Match, deviation
from detloss.doctor.matching import known
from detloss.doctor.matching.candidates import ONES, ZEROS, Candidate, candidates_of
from detloss.doctor.matching.fit import GRID
from detloss.doctor.matching.known import Formula
from detloss.doctor.matching.softmax import softmax
from detloss.doctor.subject import Subject
from detloss.losses import (
    asymmetric_loss,
    matchability_aware_loss,
    poly_focal_loss,
    quality_focal_loss,
    sample_dependent_focal_loss,
    varifocal_loss,
)

SOFT = torch.tensor([0.2, 0.3, 0.55, 0.9], dtype=torch.float64).repeat_interleave(7)
SOFT_GRID = torch.linspace(-3, 3, 7, dtype=torch.float64).repeat(4)


def classification(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and targets of their shape; None where it has no values."""
    beside = needs_a_positive(subject)

    def values(x: Tensor, t: Tensor) -> Tensor | None:
        value = rows(subject, x, t, beside=beside).value
        return None if value is None or not value.isfinite().all() else value.double()

    def at(x: Tensor, positive: bool) -> Tensor:
        value = values(x, torch.full_like(x, float(positive)))
        return torch.full_like(x, torch.nan) if value is None else sign * value

    positives, negatives = values(GRID, ONES), values(GRID, ZEROS)
    if positives is None or negatives is None:
        return None
    if not positives.any() and not negatives.any() and subject.columns:
        one_hot = _one_hot(subject)
        if one_hot is not None and one_hot.name is not None:
            return one_hot
    convention: dict[str, Any] = {"takes": "probabilities" if subject.probabilities else "logits"}
    negative = (positives <= 0).all() and (negatives <= 0).all() and positives.any()
    sign = -1.0 if negative else 1.0
    if sign < 0:
        convention["form"] = "-x"
    soft = values(SOFT_GRID, SOFT)
    candidates = candidates_of(sign * positives, sign * negatives, at)
    x, t = torch.cat((GRID, GRID)), torch.cat((ONES, ZEROS))
    hard = torch.cat((positives, negatives))
    best: tuple[float, Candidate] | None = None
    for name, words, reference in candidates:
        formula = _signed(reference, sign)
        off = deviation(hard, formula(x, t))
        if off > TOLERANCE:
            continue
        off_soft = 0.0 if soft is None else deviation(soft, formula(SOFT_GRID, SOFT))
        if best is None or off_soft < best[0] - 1e-9:
            best = off_soft, Candidate(name, words, formula)
        if off_soft <= TOLERANCE / 100:
            break
    if best is None or (best[0] > TOLERANCE and best[1].name in ("varifocal", "mal")):
        return _nearest(x, t, hard, convention)
    off_soft, (name, words, formula) = best
    fits = off_soft <= TOLERANCE
    if soft is None:
        words["soft_targets"] = "refused, or without a finite value"
    elif not fits:
        words["soft_targets"] = "none of the known"
    if name == "quality_focal" and (soft is None or not fits):
        name = "focal"
    if "weights" in words:
        first, second = words.pop("weights")
        words |= _alpha(subject, first, second, beside)
        if name == "bce" and words["alpha_on"] in ("positives", "negatives"):
            name = "balanced_bce"
    convention |= words
    convention["gradient"] = _gradient(subject, formula, beside, words.get("clip", 0.0))
    error = max(deviation(hard, formula(x, t)), off_soft if fits else 0.0)
    return Match(name, name, error, convention, formula)


def _signed(formula: Formula, sign: float) -> Formula:
    return formula if sign > 0 else lambda x, t: sign * formula(x, t)


def _alpha(subject: Subject, first: float, second: float, beside: Divisor) -> dict[str, Any]:
    """Alpha and where it goes, from the weights of positives and negatives and what another alpha changes."""
    words: dict[str, Any] = {"weight_of_positives": first, "weight_of_negatives": second}
    side = _by_another_alpha(subject, first, second, beside)
    if first == second == 1 and not str(side).startswith("negatives"):  # off, or not there
        return {"alpha": None, "alpha_on": "off"}
    side = side or _by_its_value(subject, first, second)
    if side is None:
        balanced = abs(first + second - 1) < 1e-4
        words["alpha_known"] = False
        side = "positives" if balanced else "both" if first == second else "positives only"
        if side == "positives only" and second != 1:
            side = "either its own"
    return {"alpha": second if side.startswith("negatives") else first, "alpha_on": side, **words}


def _by_another_alpha(subject: Subject, first: float, second: float, beside: Divisor) -> str | None:
    if subject.rebuild is None or "alpha" not in subject.takes:
        return None
    x, t = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    try:
        other = subject.rebuild(alpha=0.1)
    except Exception:
        return None
    now, then = (rows(which, x, t, beside=beside).value for which in (subject, other))
    if now is None or then is None:
        return None
    ratio = then.double() / now.double()
    weights = float(ratio[0]) * first, float(ratio[1]) * second
    expected = {
        "positives": (0.1, 0.9),
        "negatives": (0.9, 0.1),
        "both": (0.1, 0.1),
        "positives only": (0.1, 1.0),
        "negatives only": (1.0, 0.1),
        "neither": (first, second),
    }
    for side, pair in expected.items():
        if all(abs(got - want) < 1e-3 for got, want in zip(weights, pair)):
            return side
    return None


def _by_its_value(subject: Subject, first: float, second: float) -> str | None:
    """Where the value of the loss's own argument or attribute `alpha` is found."""
    own = getattr(subject.raw, "object", subject.raw)
    alpha = getattr(own, "alpha", None)
    if alpha is None:
        try:
            parameter = inspect.signature(own).parameters.get("alpha")
        except (TypeError, ValueError):
            parameter = None
        alpha = None if parameter is None else parameter.default
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha == 0.5:
        return None
    pair = abs(first - alpha) < 1e-4, abs(second - alpha) < 1e-4
    sides = {(True, True): "both", (True, False): "positives", (False, True): "negatives"}
    side = sides.get(pair)
    other = second if side == "positives" else first
    return f"{side} only" if side in ("positives", "negatives") and abs(other - 1) < 1e-4 else side


def _gradient(subject: Subject, reference: Formula, beside: Divisor, clip: float) -> str:
    """Whether the gradient is that of the value, or leaves out the weight on BCE, which `clip` shifts."""
    x = torch.linspace(-3.1, 3.3, 9, dtype=torch.float64).repeat(2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(9)
    got, own = (
        rows(subject, x, t, gradient=True, beside=beside).gradient,
        slopes(subject, x, t, beside=beside),
    )
    if got is None or own is None or not got.any():
        return "none"
    leaf = x.clone().requires_grad_()
    cross = asymmetric_loss(leaf, t, 0.0, 0.0, clip, impl="eager")
    (slope,) = torch.autograd.grad(cross.sum(), leaf)
    detached = torch.where(cross > 0, reference(x, t) / cross, 0).detach() * slope
    if deviation(got, own) < 5 * TOLERANCE:
        return "full"
    return "weight detached" if deviation(got, detached) < 5 * TOLERANCE else "not that of the value"


def _nearest(x: Tensor, t: Tensor, hard: Tensor, convention: dict[str, Any]) -> Match:
    """No match, with the known loss in its usual form that comes nearest on labels 0 and 1."""
    usual: dict[str, Formula] = {
        "bce": known.bce,
        "focal": lambda x, t: (0.75 - 0.5 * t) * known.focal(x, t, 2.0),
        "quality_focal": lambda x, t: quality_focal_loss(x, t, 2.0, impl="eager"),
        "varifocal": lambda x, t: varifocal_loss(x, t, impl="eager"),
        "poly_focal": lambda x, t: poly_focal_loss(x, t, impl="eager"),
        "asymmetric": lambda x, t: asymmetric_loss(x, t, impl="eager"),
        "mal": lambda x, t: matchability_aware_loss(x, t, impl="eager"),
        "flsd": lambda x, t: sample_dependent_focal_loss(x, t, impl="eager"),
    }
    errors = {name: deviation(hard, formula(x, t)) for name, formula in usual.items()}
    nearest = min(errors, key=errors.__getitem__)
    return Match(None, nearest, errors[nearest], convention, usual[nearest])


def _one_hot(subject: Subject) -> Match | None:
    """A softmax whose targets are one-hot rows: seen as one of class indices."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        return subject.call(x, F.one_hot(t, x.shape[-1]).to(x.dtype))

    match = softmax(replace(subject, kind="softmax", call=call))
    if match is None:
        return None
    match.convention["targets"] = "one-hot rows, a softmax over classes"
    return replace(match, reference=None)
