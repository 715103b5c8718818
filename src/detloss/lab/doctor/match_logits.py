"""Which known loss of logits it is, with a sigmoid per class or a softmax over classes."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor import known
from detloss.lab.doctor.answers import TOLERANCE, Formula, derivative, deviation, samples, values
from detloss.lab.doctor.fit import EXACT, GRID, Law, fit, tidy
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import LABEL_DETACHED, WEIGHT_DETACHED, Match, gradient_words
from detloss.losses import asymmetric_loss, iou_aware_bce_loss, poly_focal_loss, softmax_focal_loss

HARD = torch.cat((GRID, GRID)), torch.cat((torch.ones_like(GRID), torch.zeros_like(GRID)))
_LABELS = torch.tensor([0.2, 0.3, 0.55, 0.9], dtype=torch.float64)
SOFT = torch.linspace(-3, 3, 7, dtype=torch.float64).repeat(4), _LABELS.repeat_interleave(7)
NEGATIVES = ("negatives", "negatives only")


class Candidate(NamedTuple):
    """A known loss with its convention in words."""

    name: str
    words: dict[str, Any]
    formula: Formula


def match_sigmoid(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and targets of their shape; None where it has no values."""
    hard, soft = values(subject, *HARD), values(subject, *SOFT)
    if not hard.isfinite().all():
        return None
    sign = -1.0 if (hard <= 0).all() and hard[: len(GRID)].any() else 1.0
    convention: dict[str, Any] = {"takes": subject.form.takes} | ({"form": "-x"} if sign < 0 else {})
    refused = not soft.isfinite().all()
    best: tuple[float, Candidate] | None = None
    for one in _candidates(*(sign * hard).chunk(2)):
        off = 0.0 if refused else deviation(sign * soft, one.formula(*SOFT))
        if deviation(sign * hard, one.formula(*HARD)) <= TOLERANCE and (best is None or off < best[0] - 1e-9):
            best = off, one
    if best is None or (best[0] > TOLERANCE and best[1].name in ("varifocal", "mal")):
        errors = {name: deviation(hard, formula(*HARD)) for name, formula in known.USUAL.items()}
        nearest = min(errors, key=errors.__getitem__)
        return Match(None, nearest, errors[nearest], convention, known.USUAL[nearest])
    off, (name, words, formula) = best
    if refused or off > TOLERANCE:
        words["soft_targets"] = "refused, or without a finite value" if refused else "none of the known"
        name = "focal" if name == "quality_focal" else name
    if "weights" in words:
        words |= _alpha(subject, *words.pop("weights"))
        name = "balanced_bce" if name == "bce" and words["alpha_on"] in ("positives", "negatives") else name
    error = max(deviation(sign * hard, formula(*HARD)), off if off <= TOLERANCE else 0.0)
    match = Match(name, name, error, convention | words, lambda x, t: sign * formula(x, t))
    x = torch.linspace(-3.1, 3.3, 9, dtype=torch.float64).repeat(2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(9)
    cross = partial(asymmetric_loss, gamma_neg=0.0, gamma_pos=0.0, clip=words.get("clip", 0.0), impl="eager")
    return _with_gradient(match, subject, x, t, cross)


def _candidates(positives: Tensor, negatives: Tensor) -> Iterator[Candidate]:
    """The known losses that these values on the grid may be, the likelier first."""
    words: dict[str, Any]
    smoothing = tidy(2 * float((F.softplus(GRID) - negatives) @ GRID / (GRID @ GRID)), 1e-5)
    if 1e-4 < smoothing < 1:
        words = {"gamma": 0.0, "label_smoothing": smoothing, "soft_targets": "BCE"}
        yield Candidate("bce", words, lambda x, t: known.bce(x, t * (1 - smoothing) + smoothing / 2))
    up, down = fit(positives, True), fit(negatives, False)
    if up is None and down is not None and tidy(down.factor, down.slack) == 1:
        yield from _pulled_labels(positives, tidy(down.gamma, down.slack))
    if up is None or down is None:
        plain = known.flsd(*HARD).view(2, -1)[:, 0]
        a, b = (tidy(float(value[0] / one), 1e-5) for value, one in zip((positives, negatives), plain))
        if a > 0 and b > 0:
            words = {**known.FLSD, "soft_targets": "p_t = p t + (1-p)(1-t)", "weights": (a, b)}
            yield Candidate("flsd", words, lambda x, t: (b + (a - b) * t) * known.flsd(x, t))
        return
    slack = max(up.slack, down.slack)
    a, b, pos, neg = (tidy(number, slack) for number in (up.factor, down.factor, up.gamma, down.gamma))
    if up.epsilon or down.epsilon:
        yield from _poly(tidy((up.gamma + down.gamma) / 2, slack), a, b, up, 10 * slack)
    elif not down.clip and abs(pos - neg) <= 2 * slack:
        yield from _focal(pos, a, b)
    elif not down.clip and pos == 0 and a == 1:
        for soft, (name, formula) in known.VARIFOCAL_ON_SOFT_TARGETS.items():
            words = ({"alpha": b} if b != 1 else {}) | {"gamma": neg, "soft_targets": soft}
            yield Candidate(name, words, partial(formula, alpha=b, gamma=neg))
    if a == b == 1 and not up.epsilon and (down.clip or pos != neg):
        words = {"gamma_neg": neg, "gamma_pos": pos, "clip": down.clip}
        formula = partial(asymmetric_loss, **words, impl="eager")
        yield Candidate("asymmetric", words | {"soft_targets": "each term its own weight"}, formula)


def _focal(gamma: float, a: float, b: float) -> Iterator[Candidate]:
    """Every reading of soft targets with every share of alpha; a and b weigh positives and negatives."""
    readings = product(known.ON_SOFT_TARGETS.items(), known.ALPHA_ON_SOFT_TARGETS.items())
    for (soft, focal), (alphas, share) in readings:
        told = "BCE" if gamma == 0 and "targets" not in soft else soft
        told += "" if a == b or alphas == "linear in t" else f"; weight {alphas}"
        name = "bce" if gamma == 0 else "quality_focal" if soft == "|t - p|" else "focal"

        def formula(x: Tensor, t: Tensor, focal: Any = focal, share: Any = share) -> Tensor:
            return (b + (a - b) * share(t)) * focal(x, t, gamma)

        yield Candidate(name, {"gamma": gamma, "soft_targets": told, "weights": (a, b)}, formula)
    words = {"gamma": gamma, "soft_targets": "each term its own weight", "weights": (a, b)}
    of_terms = partial(known.weighted_terms, gamma=gamma, positive=a, negative=b)
    yield Candidate("bce" if gamma == 0 else "focal", words, of_terms)
    if a == b == 1:
        words = {"alpha": gamma, "gamma": 4.0, "soft_targets": "negatives of weight (1-t)^gamma"}
        yield Candidate("gaussian_focal", words, partial(known.gaussian_focal, alpha=gamma))


def _pulled_labels(positives: Tensor, gamma: float) -> Iterator[Candidate]:
    """IoU-aware BCE: the label of a sure positive is p^alpha, as the value at logit 2 tells."""
    x = torch.tensor(2.0, dtype=torch.float64)
    label = float((F.softplus(x) - positives[int((GRID - x).abs().argmin())]) / x)
    if 0 < label <= 1:
        alpha = tidy(math.log(label) / float(F.logsigmoid(x)), 1e-5)
        words = {"alpha": alpha, "gamma": gamma, "soft_targets": "BCE to p^alpha t^(1-alpha)"}
        if 0 <= alpha <= 1:
            formula = partial(iou_aware_bce_loss, alpha=alpha, gamma=gamma, impl="eager")
            yield Candidate("ia_bce", words, formula)


def _poly(gamma: float, a: float, b: float, up: Law, slack: float) -> Iterator[Candidate]:
    """Poly-1 focal loss, its weights on both terms or on the first alone."""
    epsilon, extra = tidy(up.epsilon, slack), tidy(up.epsilon * up.factor, slack)
    poly = partial(poly_focal_loss, alpha=None, gamma=gamma, impl="eager")
    words: dict[str, Any] = {"gamma": gamma, "epsilon": epsilon, "weights": (a, b)}
    yield Candidate("poly_focal", words, lambda x, t: (b + (a - b) * t) * poly(x, t, epsilon=epsilon))

    def first_only(x: Tensor, t: Tensor) -> Tensor:
        return (b - extra + (a - b) * t) * known.focal(x, t, gamma) + extra * poly(x, t, epsilon=1.0)

    yield Candidate("poly_focal", words | {"epsilon": extra, "alpha_in": "the first term only"}, first_only)


def _alpha(subject: Subject, first: float, second: float) -> dict[str, Any]:
    """Alpha and where it goes, from the weights of positives and negatives and what another alpha changes."""
    side, alpha = None, getattr(subject.loaded.object, "alpha", subject.loaded.takes.get("alpha"))
    if "alpha" in subject.loaded.takes:
        pair = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
        ratio = values(subject.with_hyper(alpha=0.1), *pair) / values(subject, *pair)
        side = _side(0.1, first * float(ratio[0]), second * float(ratio[1]), 1e-3)
        if (ratio - 1).abs().max() < 1e-3:
            side = "neither"
    if first == second == 1 and side not in NEGATIVES:  # off, or not there
        return {"alpha": None, "alpha_on": "off"} | ({"alpha_set": "both"} if side == "both" else {})
    words: dict[str, Any] = {"weight_of_positives": first, "weight_of_negatives": second}
    if side is None and isinstance(alpha, int | float) and alpha not in (True, 0.5):
        side = _side(alpha, first, second, 1e-4)
    if side is None:
        words["alpha_known"] = False
        own = "positives only" if second == 1 else "either its own"
        side = "positives" if abs(first + second - 1) < 1e-4 else "both" if first == second else own
    return {"alpha": second if side in NEGATIVES else first, "alpha_on": side, **words}


def _side(alpha: float, first: float, second: float, slack: float) -> str | None:
    """What an alpha weighs, where these are the weights of positives and negatives."""
    sides = {
        "positives": (alpha, 1 - alpha),
        "negatives": (1 - alpha, alpha),
        "both": (alpha, alpha),
        "positives only": (alpha, 1.0),
        "negatives only": (1.0, alpha),
    }
    fits = (side for side, (a, b) in sides.items() if max(abs(first - a), abs(second - b)) < slack)
    return next(fits, None)


def match_softmax(subject: Subject) -> Match | None:
    """The match of a loss of logits `(N, C)` and class indices `(N,)`; None where it has no values."""
    x, t = samples(subject, 24)
    x = 2 * x
    value = values(subject, x, t)
    if not value.isfinite().all():
        return None
    sign = -1.0 if (value <= 0).all() and value.any() else 1.0
    convention: dict[str, Any] = {"takes": subject.form.takes} | ({"form": "-x"} if sign < 0 else {})
    if subject.form.targets == "one-hot":
        convention["targets"] = "one-hot rows, a softmax over classes"
    cross = partial(F.cross_entropy, reduction="none")
    plain = cross(x, t)
    even, ratio = -torch.log_softmax(x, 1).mean(1) - plain, sign * value / plain
    smoothing = float((sign * value - plain) @ even / (even @ even))
    if smoothing > 1e-5 and deviation(sign * value, plain + smoothing * even) < 1e-6:
        name = "cross_entropy"
        words: dict[str, Any] = {"gamma": 0.0, "label_smoothing": round(smoothing, 7)}
        of_others = smoothing * (subject.classes - 1) / subject.classes
        if tidy(of_others, 1e-5) == round(of_others, 3) != tidy(smoothing, 1e-5):
            words["smoothed_over"] = f"the other classes: {round(of_others, 3):g} in all"
        formula: Formula = partial(cross, label_smoothing=smoothing)
    elif ratio.gt(0).all():  # log ratio = log alpha of the class + gamma log(1 - p)
        classes = F.one_hot(t, subject.classes).double()
        columns = torch.cat((classes, (-torch.expm1(-plain)).log().unsqueeze(1)), 1)
        solution = torch.linalg.lstsq(columns, ratio.log().unsqueeze(1)).solution.squeeze(1)
        misfit = float((columns @ solution - ratio.log()).abs().max())
        slack = 1e-6 + 3 * misfit if misfit < EXACT else 1e-6
        gamma = tidy(float(solution[-1]), slack)
        alphas = [tidy(float(weight), slack) for weight in solution[:-1].exp()]
        alpha: Any = None if set(alphas) == {1.0} else alphas[0] if len(set(alphas)) == 1 else alphas
        name, words = "cross_entropy" if gamma == 0 else "softmax_focal", {"gamma": gamma, "alpha": alpha}

        def formula(x: Tensor, t: Tensor) -> Tensor:
            weights = torch.full((x.shape[-1],), alphas[-1], dtype=x.dtype)
            weights[: len(alphas)] = torch.tensor(alphas, dtype=x.dtype)[: x.shape[-1]]
            return softmax_focal_loss(x, t, weights, max(gamma, 0.0), impl="eager")
    else:
        return Match(None, "cross_entropy", deviation(value, plain), convention)
    off = (sign * value - formula(x, t)).abs() / formula(x, t).abs()
    # an eps shows where a probability is tiny, another loss on usual numbers too
    error = max(deviation(sign * value, formula(x, t)), 100 * float(off.median()))
    match = Match(name, name, error, convention, lambda x, t: sign * formula(x, t))
    if match.error > TOLERANCE:
        return match._replace(name=None)
    return _with_gradient(match._replace(convention=convention | words), subject, x, t, cross)


def _with_gradient(match: Match, subject: Subject, x: Tensor, t: Tensor, cross: Formula) -> Match:
    """The match with what its gradient is: that of the value, with all in it or with a constant."""
    assert match.reference is not None
    weight = (match.reference(x, t) / cross(x, t)).nan_to_num()
    detached = weight.reshape(len(x), *[1] * (x.ndim - 1)) * derivative(cross, x, t)
    others = {WEIGHT_DETACHED: detached}
    if match.name == "ia_bce":
        others = {LABEL_DETACHED: derivative(match.reference, x, t)}
    match.convention["gradient"] = gradient_words(subject, x, t, others)
    return match
