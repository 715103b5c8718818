"""Which known loss of logits it is, with a sigmoid per class."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.doctor import known
from detloss.doctor.elements import Divisor, needs_a_positive, rows, slopes
from detloss.doctor.fit import EXACT, GRID, Law, poly_law, power_law, shifted_law, tidy
from detloss.doctor.match import TOLERANCE, Match, deviation
from detloss.doctor.softmax import softmax
from detloss.doctor.subject import Subject
from detloss.losses import (
    asymmetric_loss,
    matchability_aware_loss,
    poly_focal_loss,
    quality_focal_loss,
    varifocal_loss,
)

Formula = Callable[[Tensor, Tensor], Tensor]


class Candidate(NamedTuple):
    """A known loss with its convention in words."""

    name: str
    words: dict[str, Any]
    formula: Formula


SOFT = torch.tensor([0.2, 0.3, 0.55, 0.9], dtype=torch.float64).repeat_interleave(7)
SOFT_GRID = torch.linspace(-3, 3, 7, dtype=torch.float64).repeat(4)
ONES, ZEROS = torch.ones_like(GRID), torch.zeros_like(GRID)


def classification(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and targets of their shape; None where it has no values."""
    beside = needs_a_positive(subject)

    def values(x: Tensor, t: Tensor) -> Tensor | None:
        value = rows(subject, x, t, beside=beside).value
        return None if value is None or not value.isfinite().all() else value.double()

    def of_negatives(x: Tensor) -> Tensor:
        value = values(x, torch.zeros_like(x))
        return torch.full_like(x, torch.nan) if value is None else value

    positives, negatives = values(GRID, ONES), values(GRID, ZEROS)
    if positives is None or negatives is None:
        return None
    if not positives.any() and not negatives.any() and subject.columns:
        return _one_hot(subject)
    convention: dict[str, Any] = {"takes": "probabilities" if subject.probabilities else "logits"}
    sign = -1.0 if (positives <= 0).all() and (negatives <= 0).all() else 1.0
    if sign < 0:
        convention["form"] = "-x"
    soft = values(SOFT_GRID, SOFT)
    candidates = _candidates(sign * positives, sign * negatives, lambda x: sign * of_negatives(x))
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
    convention["gradient"] = _gradient(subject, formula, beside)
    error = max(deviation(hard, formula(x, t)), off_soft if fits else 0.0)
    return Match(name, name, error, convention, formula)


def _signed(formula: Formula, sign: float) -> Formula:
    return formula if sign > 0 else lambda x, t: sign * formula(x, t)


def _candidates(
    positives: Tensor, negatives: Tensor, of_negatives: Callable[[Tensor], Tensor]
) -> list[Candidate]:
    """The known losses that these values on labels 1 and 0 may be: name, convention, formula."""
    upper, lower = _sure(power_law(GRID, positives, True)), _sure(power_law(GRID, negatives, False))
    if upper is not None and lower is not None:
        slack = 1e-6 + 3 * max(upper.misfit, lower.misfit)
        first, second = tidy(upper.factor, slack), tidy(lower.factor, slack)
        gammas = tidy(upper.exponent, slack), tidy(lower.exponent, slack)
        if abs(gammas[0] - gammas[1]) <= 2 * slack:
            return _focal_like(gammas[0], first, second)
        found: list[Candidate] = []
        if gammas[0] == 0 and first == 1:
            found += _varifocal_like(gammas[1], second)
        if first == second == 1:
            found.append(_asymmetric(gammas[1], gammas[0], 0.0))
        return found
    first_poly, second_poly = (
        _sure(poly_law(GRID, value, label)) for value, label in ((positives, True), (negatives, False))
    )
    if first_poly is not None and second_poly is not None:
        return _poly(first_poly, second_poly)
    shifted = shifted_law(of_negatives)
    if upper is not None and shifted is not None and _sure(shifted[1]) is not None:
        margin, law = shifted
        slack = 1e-5 + 3 * max(upper.misfit, law.misfit)
        return [_asymmetric(tidy(law.exponent, slack), tidy(upper.exponent, slack), margin)]
    return []


def _sure(law: Law | None) -> Law | None:
    return law if law is not None and law.misfit < EXACT else None


def _focal_like(gamma: float, first: float, second: float) -> list[Candidate]:
    found = []
    soft_name = "each term its own weight"

    def words(soft: str) -> dict[str, Any]:
        return {"gamma": gamma, "weights": (first, second), "soft_targets": soft}

    for soft, of_soft in known.ON_SOFT_TARGETS.items():
        told = "BCE" if gamma == 0 and "targets" not in soft else soft
        name = "bce" if gamma == 0 else "quality_focal" if soft == "|t - p|" else "focal"
        for alphas, of_label in known.ALPHA_ON_SOFT_TARGETS.items():

            def formula(x: Tensor, t: Tensor, of_soft: Any = of_soft, of_label: Any = of_label) -> Tensor:
                return of_label(t, first, second) * of_soft(x, t, gamma)

            plain = first == second or alphas == "linear in t"
            found.append(Candidate(name, words(told if plain else f"{told}; weight {alphas}"), formula))

    def terms(x: Tensor, t: Tensor) -> Tensor:
        return known.weighted_terms(x, t, gamma, first, second)

    found.append(Candidate("bce" if gamma == 0 else "focal", words(soft_name), terms))
    return found


def _varifocal_like(gamma: float, alpha: float) -> list[Candidate]:
    def unweighted(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t > 0, known.bce(x, t), alpha * known.focal(x, torch.zeros_like(t), gamma))

    def unmasked(x: Tensor, t: Tensor) -> Tensor:
        return (t + alpha * torch.sigmoid(x) ** gamma * (1 - t)) * known.bce(x, t)

    def mal(x: Tensor, t: Tensor) -> Tensor:
        value = matchability_aware_loss(x, t, gamma, impl="eager")
        return torch.where(t > 0, value, alpha * value)

    words = {"gamma": gamma} if alpha == 1 else {"alpha": alpha, "gamma": gamma}

    def usual(x: Tensor, t: Tensor) -> Tensor:
        return varifocal_loss(x, t, alpha, gamma, impl="eager")

    return [
        Candidate("varifocal", {**words, "soft_targets": "t BCE"}, usual),
        Candidate("mal", {**words, "soft_targets": "BCE to t^gamma"}, mal),
        Candidate("varifocal", {**words, "soft_targets": "BCE, without the weight t"}, unweighted),
        Candidate("varifocal", {**words, "soft_targets": "(t + alpha p^gamma (1-t)) BCE, no mask"}, unmasked),
    ]


def _asymmetric(negative: float, positive: float, clip: float) -> Candidate:
    words = {
        "gamma_neg": negative,
        "gamma_pos": positive,
        "clip": clip,
        "soft_targets": "each term its own weight",
    }

    def formula(x: Tensor, t: Tensor) -> Tensor:
        return asymmetric_loss(x, t, negative, positive, clip, impl="eager")

    return Candidate("asymmetric", words, formula)


def _poly(upper: Law, lower: Law) -> list[Candidate]:
    slack = 1e-5 + 5 * max(upper.misfit, lower.misfit)
    gamma = tidy((upper.exponent + lower.exponent) / 2, slack)
    first, second = tidy(upper.factor, slack), tidy(lower.factor, slack)
    epsilon = tidy(upper.epsilon, 10 * slack)
    words: dict[str, Any] = {"gamma": gamma, "epsilon": epsilon, "weights": (first, second)}
    extra = tidy(upper.epsilon * upper.factor, 10 * slack)  # alpha on the first term alone

    def both(x: Tensor, t: Tensor) -> Tensor:
        weight = second + (first - second) * t
        return weight * poly_focal_loss(x, t, None, gamma, epsilon, impl="eager")

    def first_only(x: Tensor, t: Tensor) -> Tensor:
        weight = second + (first - second) * t
        plain = known.focal(x, t, gamma)
        return weight * plain + extra * (poly_focal_loss(x, t, None, gamma, 1.0, impl="eager") - plain)

    on_first = {**words, "epsilon": extra, "alpha on": "the first term only"}
    return [Candidate("poly_focal", words, both), Candidate("poly_focal", on_first, first_only)]


def _alpha(subject: Subject, first: float, second: float, beside: Divisor) -> dict[str, Any]:
    """Alpha and where it goes, from the weights of positives and negatives and what another alpha changes."""
    if first == second == 1 and "alpha" not in subject.takes:
        return {"alpha": None, "alpha_on": "off"}
    words: dict[str, Any] = {"weight_of_positives": first, "weight_of_negatives": second}
    side = _by_another_alpha(subject, first, second, beside) or _by_its_value(subject, first, second)
    if side is None:
        balanced = abs(first + second - 1) < 1e-4
        words["alpha_known"] = False
        side = "positives" if balanced else "both" if first == second else "positives only"
        if side == "positives only" and second != 1:
            side = "either its own"
    if side == "neither" and first == second == 1:
        return {"alpha": None, "alpha_on": "off"}
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


def _gradient(subject: Subject, reference: Formula, beside: Divisor) -> str:
    """Whether the gradient is that of the value, or leaves out the weight on BCE."""
    x = torch.linspace(-3.1, 3.3, 9, dtype=torch.float64).repeat(2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(9)
    got, own = (
        rows(subject, x, t, gradient=True, beside=beside).gradient,
        slopes(subject, x, t, beside=beside),
    )
    if got is None or own is None or not got.any():
        return "none"
    detached = reference(x, t) / known.bce(x, t) * (torch.sigmoid(x) - t)
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
