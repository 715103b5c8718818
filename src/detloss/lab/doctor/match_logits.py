"""Which known loss of logits it is, with a sigmoid per class or a softmax over classes."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor import known
from detloss.lab.doctor.answers import rows, slopes
from detloss.lab.doctor.fit import EXACT, GRID, Law, fit, tidy
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import TOLERANCE, Formula, Match, deviation
from detloss.losses import (
    asymmetric_loss,
    matchability_aware_loss,
    poly_focal_loss,
    quality_focal_loss,
    sample_dependent_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)

ONES, ZEROS = torch.ones_like(GRID), torch.zeros_like(GRID)
SOFT = torch.tensor([0.2, 0.3, 0.55, 0.9], dtype=torch.float64).repeat_interleave(7)
SOFT_GRID = torch.linspace(-3, 3, 7, dtype=torch.float64).repeat(4)


NEGATIVES = ("negatives", "negatives only")


class Candidate(NamedTuple):
    """A known loss with its convention in words."""

    name: str
    words: dict[str, Any]
    formula: Formula


def match_sigmoid(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and targets of their shape; None where it has no values."""

    def values(x: Tensor, t: Tensor) -> Tensor | None:
        answer = rows(subject, x, t)
        return None if answer.value is None or answer.broken else answer.value.double()

    positives, negatives = values(GRID, ONES), values(GRID, ZEROS)
    if positives is None or negatives is None:
        return None
    convention: dict[str, Any] = {"takes": subject.form.takes}
    sign = -1.0 if (positives <= 0).all() and (negatives <= 0).all() and positives.any() else 1.0
    if sign < 0:
        convention["form"] = "-x"

    def side(label: float) -> Law | None:
        def at(x: Tensor) -> Tensor:
            value = values(x, torch.full_like(x, label))
            return torch.full_like(x, torch.nan) if value is None else sign * value

        return fit(at, label > 0)

    x, t, hard = torch.cat((GRID, GRID)), torch.cat((ONES, ZEROS)), torch.cat((positives, negatives))
    soft = values(SOFT_GRID, SOFT)
    best: tuple[float, Candidate] | None = None
    for name, words, reference in _candidates(side(1.0), side(0.0), sign * positives, sign * negatives):
        formula = _signed(sign, reference)
        if deviation(hard, formula(x, t)) > TOLERANCE:
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
    if soft is None or not fits:
        words["soft_targets"] = "refused, or without a finite value" if soft is None else "none of the known"
        name = "focal" if name == "quality_focal" else name
    if "weights" in words:
        first, second = words.pop("weights")
        words |= _alpha(subject, first, second)
        name = "balanced_bce" if name == "bce" and words["alpha_on"] in ("positives", "negatives") else name
    convention |= words
    cross = lambda x, t: asymmetric_loss(x, t, 0.0, 0.0, words.get("clip", 0.0), impl="eager")  # noqa: E731
    x = torch.linspace(-3.1, 3.3, 9, dtype=torch.float64).repeat(2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(9)
    convention["gradient"] = _gradient(subject, x, t, formula, cross)
    return Match(name, name, max(deviation(hard, formula(torch.cat((GRID, GRID)), torch.cat((ONES, ZEROS)))),
                                 off_soft if fits else 0.0), convention, formula)  # fmt: skip


def _signed(sign: float, reference: Formula) -> Formula:
    return lambda x, t: sign * reference(x, t)


def _candidates(
    upper: Law | None, lower: Law | None, positives: Tensor, negatives: Tensor
) -> Iterator[Candidate]:
    """The known losses that these laws of positives and negatives may be."""
    smoothing = _smoothing(positives, negatives)
    if smoothing is not None:
        words: dict[str, Any] = {"gamma": 0.0, "label_smoothing": smoothing, "soft_targets": "BCE"}
        yield Candidate("bce", words, lambda x, t: known.bce(x, t * (1 - smoothing) + smoothing / 2))
    if upper is None or lower is None:
        yield from _stepped(positives, negatives)
        return
    slack = max(upper.slack, lower.slack)
    first, second = tidy(upper.factor, slack), tidy(lower.factor, slack)
    gammas = tidy(upper.gamma, slack), tidy(lower.gamma, slack)
    if upper.epsilon or lower.epsilon:
        yield from _poly(tidy((upper.gamma + lower.gamma) / 2, slack), first, second, upper, 10 * slack)
    elif lower.clip == 0 and abs(gammas[0] - gammas[1]) <= 2 * slack:
        yield from _focal_like(gammas[0], first, second)
    elif lower.clip == 0 and gammas[0] == 0 and first == 1:
        yield from _varifocal_like(gammas[1], second)
    if not upper.epsilon and first == second == 1 and (lower.clip or gammas[0] != gammas[1]):
        hyper = {"gamma_neg": gammas[1], "gamma_pos": gammas[0], "clip": lower.clip}
        yield Candidate(
            "asymmetric",
            {**hyper, "soft_targets": "each term its own weight"},
            lambda x, t: asymmetric_loss(x, t, gammas[1], gammas[0], lower.clip, impl="eager"),
        )


def _focal_like(gamma: float, first: float, second: float) -> Iterator[Candidate]:
    for soft, of_soft in known.ON_SOFT_TARGETS.items():
        told = "BCE" if gamma == 0 and "targets" not in soft else soft
        name = "bce" if gamma == 0 else "quality_focal" if soft == "|t - p|" else "focal"
        for alphas, share in known.ALPHA_ON_SOFT_TARGETS.items():

            def formula(x: Tensor, t: Tensor, of_soft: Any = of_soft, share: Any = share) -> Tensor:
                return (second + (first - second) * share(t)) * of_soft(x, t, gamma)

            plain = first == second or alphas == "linear in t"
            words: dict[str, Any] = {
                "soft_targets": told if plain else f"{told}; weight {alphas}",
                "weights": (first, second),
            }
            yield Candidate(name, {"gamma": gamma, **words}, formula)
    words = {"gamma": gamma, "soft_targets": "each term its own weight", "weights": (first, second)}
    name = "bce" if gamma == 0 else "focal"
    yield Candidate(name, words, lambda x, t: known.weighted_terms(x, t, gamma, first, second))


def _varifocal_like(gamma: float, alpha: float) -> Iterator[Candidate]:
    words: dict[str, Any] = {"gamma": gamma} if alpha == 1 else {"alpha": alpha, "gamma": gamma}

    def mal(x: Tensor, t: Tensor) -> Tensor:
        value = matchability_aware_loss(x, t, gamma, impl="eager")
        return torch.where(t > 0, value, alpha * value)

    readings: dict[str, tuple[str, Formula]] = {
        "t BCE": ("varifocal", lambda x, t: varifocal_loss(x, t, alpha, gamma, impl="eager")),
        "BCE to t^gamma": ("mal", mal),
        "BCE, without the weight t": (
            "varifocal",
            lambda x, t: torch.where(
                t > 0, known.bce(x, t), alpha * known.focal(x, torch.zeros_like(t), gamma)
            ),
        ),
        "(t + alpha p^gamma (1-t)) BCE, no mask": (
            "varifocal",
            lambda x, t: (t + alpha * torch.sigmoid(x) ** gamma * (1 - t)) * known.bce(x, t),
        ),
    }
    for soft, (name, formula) in readings.items():
        yield Candidate(name, {**words, "soft_targets": soft}, formula)


def _poly(gamma: float, first: float, second: float, upper: Law, slack: float) -> Iterator[Candidate]:
    epsilon, extra = tidy(upper.epsilon, slack), tidy(upper.epsilon * upper.factor, slack)
    words: dict[str, Any] = {"gamma": gamma, "epsilon": epsilon, "weights": (first, second)}

    def both(x: Tensor, t: Tensor) -> Tensor:
        return (second + (first - second) * t) * poly_focal_loss(x, t, None, gamma, epsilon, impl="eager")

    def first_only(x: Tensor, t: Tensor) -> Tensor:
        plain = known.focal(x, t, gamma)
        polynomial = poly_focal_loss(x, t, None, gamma, 1.0, impl="eager") - plain
        return (second + (first - second) * t) * plain + extra * polynomial

    yield Candidate("poly_focal", words, both)
    yield Candidate("poly_focal", {**words, "epsilon": extra, "alpha_in": "the first term only"}, first_only)


def _stepped(positives: Tensor, negatives: Tensor) -> Iterator[Candidate]:
    """FLSD with its own exponents and threshold, whatever the weights."""
    if not (positives.gt(0).all() and negatives.gt(0).all()):
        return
    plain = [sample_dependent_focal_loss(GRID, label, None, impl="eager") for label in (ONES, ZEROS)]
    first, second = (tidy(float(v[0] / p[0]), 1e-5) for v, p in zip((positives, negatives), plain))
    given = inspect.signature(sample_dependent_focal_loss).parameters
    hyper = {name: given[name].default for name in ("gamma_low", "gamma_high", "threshold")}
    words = {**hyper, "soft_targets": "p_t = p t + (1-p)(1-t)", "weights": (first, second)}
    yield Candidate(
        "flsd",
        words,
        lambda x, t: (second + (first - second) * t) * sample_dependent_focal_loss(x, t, None, impl="eager"),
    )


def _smoothing(positives: Tensor, negatives: Tensor) -> float | None:
    """How far labels are pulled to 1/2 in a plain cross entropy; None where it is not one."""
    terms = torch.stack((known.bce(GRID, ONES), known.bce(GRID, ZEROS)), 1)
    right, wrong = (
        torch.linalg.lstsq(terms, v.unsqueeze(1)).solution.squeeze(1) for v in (positives, negatives)
    )
    share = 2 * float(right[1])
    expected = torch.tensor([1 - share / 2, share / 2], dtype=torch.float64)
    off = torch.stack((right - expected, wrong - expected.flip(0))).abs().max()
    return tidy(share, 1e-5) if 1e-4 < share < 1 and off < 1e-5 else None


def _alpha(subject: Subject, first: float, second: float) -> dict[str, Any]:
    """Alpha and where it goes, from the weights of positives and negatives and what another alpha changes."""
    words: dict[str, Any] = {"weight_of_positives": first, "weight_of_negatives": second}
    side = _by_another_alpha(subject, first, second)
    if first == second == 1 and side not in NEGATIVES:  # off, or not there
        return {"alpha": None, "alpha_on": "off"}
    side = side or _by_its_value(subject, first, second)
    if side is None:
        balanced = abs(first + second - 1) < 1e-4
        words["alpha_known"] = False
        side = "positives" if balanced else "both" if first == second else "positives only"
        side = "either its own" if side == "positives only" and second != 1 else side
    return {"alpha": second if side in NEGATIVES else first, "alpha_on": side, **words}


def _by_another_alpha(subject: Subject, first: float, second: float) -> str | None:
    if "alpha" not in subject.loaded.takes:
        return None
    x, t = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    now, then = (rows(which, x, t).value for which in (subject, subject.with_hyper(alpha=0.1)))
    if now is None or then is None:
        return None
    ratio = then.double() / now.double()
    weights = float(ratio[0]) * first, float(ratio[1]) * second
    sides = {
        "positives": (0.1, 0.9),
        "negatives": (0.9, 0.1),
        "both": (0.1, 0.1),
        "positives only": (0.1, 1.0),
        "negatives only": (1.0, 0.1),
        "neither": (first, second),
    }
    fits = (side for side, pair in sides.items() if all(abs(a - b) < 1e-3 for a, b in zip(weights, pair)))
    return next(fits, None)


def _by_its_value(subject: Subject, first: float, second: float) -> str | None:
    """Where the value of the loss's own argument or attribute `alpha` is found."""
    alpha = getattr(subject.loaded.object, "alpha", subject.loaded.takes.get("alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha == 0.5:
        return None
    pair = abs(first - alpha) < 1e-4, abs(second - alpha) < 1e-4
    side = {(True, True): "both", (True, False): "positives", (False, True): "negatives"}.get(pair)
    other = second if side == "positives" else first
    return f"{side} only" if side in ("positives", "negatives") and abs(other - 1) < 1e-4 else side


def _gradient(subject: Subject, x: Tensor, t: Tensor, reference: Formula, cross: Formula) -> str:
    """Whether the gradient is that of the value, or leaves out the weight on the cross entropy."""
    got, own = rows(subject, x, t, gradient=True).gradient, slopes(subject, x, t)
    if got is None or own is None or not got.any():
        return "none"
    leaf = x.clone().requires_grad_()
    plain = cross(leaf, t)
    (slope,) = torch.autograd.grad(plain.sum(), leaf)
    weight = torch.where(plain > 0, reference(x, t) / plain, 0).detach()
    detached = weight.reshape(len(x), *([1] * (x.ndim - 1))) * slope
    if deviation(got, own) < 5 * TOLERANCE:
        return known.FULL
    return known.WEIGHT_DETACHED if deviation(got, detached) < 5 * TOLERANCE else known.OTHER


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


def match_softmax(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and class indices `(N,)`; None where it has no values."""
    classes = subject.classes
    generator = torch.Generator().manual_seed(5)
    x, t = 2 * torch.randn(24, classes, generator=generator, dtype=torch.float64), torch.arange(24) % classes
    answer = rows(subject, x, t)
    if answer.value is None or answer.broken:
        return None
    value = answer.value.double()
    convention: dict[str, Any] = {"takes": subject.form.takes}
    if subject.form.targets == "one-hot":
        convention["targets"] = "one-hot rows, a softmax over classes"
    sign = -1.0 if (value <= 0).all() and value.any() else 1.0
    if sign < 0:
        convention["form"] = "-x"
    cross = F.cross_entropy(x, t, reduction="none")
    even = -torch.log_softmax(x, 1).mean(1) - cross
    smoothing = float((sign * value - cross) @ even / (even @ even))
    if smoothing > 1e-5 and deviation(sign * value, cross + smoothing * even) < 1e-6:
        name = "cross_entropy"
        words: dict[str, Any] = {"gamma": 0.0, "label_smoothing": round(smoothing, 7)}

        def reference(x: Tensor, t: Tensor) -> Tensor:
            return sign * F.cross_entropy(x, t, reduction="none", label_smoothing=smoothing)

    elif (ratio := sign * value / cross).gt(0).all():
        columns = torch.cat((F.one_hot(t, classes).double(), (-torch.expm1(-cross)).log().unsqueeze(1)), 1)
        solution = torch.linalg.lstsq(columns, ratio.log().unsqueeze(1)).solution.squeeze(1)
        misfit = float((columns @ solution - ratio.log()).abs().max())
        slack = 1e-6 + 3 * misfit if misfit < EXACT else 1e-6
        gamma = tidy(float(solution[-1]), slack)
        alphas = [tidy(float(weight), slack) for weight in solution[:-1].exp()]
        alpha: Any = None if set(alphas) == {1.0} else alphas[0] if len(set(alphas)) == 1 else alphas
        name, words = "cross_entropy" if gamma == 0 else "softmax_focal", {"gamma": gamma, "alpha": alpha}

        def reference(x: Tensor, t: Tensor) -> Tensor:
            weights = torch.full((x.shape[-1],), alphas[-1], dtype=x.dtype)
            weights[: len(alphas)] = torch.tensor(alphas, dtype=x.dtype)[: x.shape[-1]]
            return sign * softmax_focal_loss(x, t, weights, max(gamma, 0.0), impl="eager")
    else:
        return Match(None, "cross_entropy", deviation(value, cross), convention)
    error = deviation(value, reference(x, t))
    if error > TOLERANCE:
        return Match(None, name, error, convention, reference)
    gradient = _gradient(subject, x, t, reference, lambda x, t: F.cross_entropy(x, t, reduction="none"))
    return Match(name, name, error, convention | words | {"gradient": gradient}, reference)
