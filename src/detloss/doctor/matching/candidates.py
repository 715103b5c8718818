"""The known losses of logits that values on labels 1 and 0 may be, each with its convention in words."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detloss.doctor.matching import known
from detloss.doctor.matching.fit import (
    EXACT,
    GRID,
    Law,
    Step,
    poly_law,
    power_law,
    shifted_law,
    stepped_law,
    threshold,
    tidy,
)
from detloss.doctor.matching.known import Formula
from detloss.losses import (
    asymmetric_loss,
    matchability_aware_loss,
    poly_focal_loss,
    sample_dependent_focal_loss,
    varifocal_loss,
)

ONES, ZEROS = torch.ones_like(GRID), torch.zeros_like(GRID)


class Candidate(NamedTuple):
    """A known loss with its convention in words."""

    name: str
    words: dict[str, Any]
    formula: Formula


def candidates_of(
    positives: Tensor, negatives: Tensor, at: Callable[[Tensor, bool], Tensor]
) -> list[Candidate]:
    """The known losses that these values on labels 1 and 0 may be; `at` gives those of other logits."""
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
    steps = stepped_law(GRID, positives, True), stepped_law(GRID, negatives, False)
    if steps[0] is not None and steps[1] is not None:
        return [_stepped(steps[0], steps[1], threshold(steps[0], lambda x: at(x, True)))]
    smoothed = _smoothed(positives, negatives)
    if smoothed:
        return [smoothed]
    first_poly, second_poly = (
        _sure(poly_law(GRID, value, label)) for value, label in ((positives, True), (negatives, False))
    )
    if first_poly is not None and second_poly is not None:
        return _poly(first_poly, second_poly)
    shifted = shifted_law(lambda x: at(x, False))
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

    on_first = {**words, "epsilon": extra, "alpha_in": "the first term only"}
    return [Candidate("poly_focal", words, both), Candidate("poly_focal", on_first, first_only)]


def _stepped(upper: Step, lower: Step, at: float) -> Candidate:
    slack = 1e-5 + 3 * max(upper.misfit, lower.misfit)
    low, high = tidy((upper.low + lower.low) / 2, slack), tidy((upper.high + lower.high) / 2, slack)
    first, second = tidy(upper.factor, slack), tidy(lower.factor, slack)
    soft = "p_t = p t + (1-p)(1-t)"
    words = {"gamma_low": low, "gamma_high": high, "threshold": at, "soft_targets": soft}

    def formula(x: Tensor, t: Tensor) -> Tensor:
        weight = second + (first - second) * t
        return weight * sample_dependent_focal_loss(x, t, None, low, high, at, impl="eager")

    return Candidate("flsd", {**words, "weights": (first, second)}, formula)


def _smoothed(positives: Tensor, negatives: Tensor) -> Candidate | None:
    """Cross entropy to labels that are pulled to 1/2."""
    terms = torch.stack((known.bce(GRID, ONES), known.bce(GRID, ZEROS)), 1)
    right, wrong = (
        torch.linalg.lstsq(terms, value.unsqueeze(1)).solution.squeeze(1) for value in (positives, negatives)
    )
    share = 2 * float(right[1])
    expected = torch.tensor([1 - share / 2, share / 2], dtype=torch.float64)
    off = torch.stack((right - expected, wrong - expected.flip(0))).abs().max()
    if not 1e-4 < share < 1 or off > 1e-5:
        return None
    smoothing = tidy(share, 1e-5)

    def formula(x: Tensor, t: Tensor) -> Tensor:
        return known.bce(x, t * (1 - smoothing) + smoothing / 2)

    return Candidate("bce", {"gamma": 0.0, "label_smoothing": smoothing, "soft_targets": "BCE"}, formula)
