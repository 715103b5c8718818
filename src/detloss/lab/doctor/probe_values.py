"""Probes of what a loss prefers: alpha on its side, right predictions cheap, wrong ones pushed there."""

import math
import re
from collections.abc import Callable
from itertools import chain, islice

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor.answers import (
    Answer,
    attempt,
    batch,
    derivative,
    rows,
    sample_boxes,
    samples,
    shown,
    total,
    values,
)
from detloss.lab.doctor.catalogue import Found, found
from detloss.lab.doctor.fit import inner_weight, law
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import FULL, LABEL_DETACHED, WEIGHT_DETACHED, Match
from detloss.lab.doctor.match_logits import NEGATIVES
from detloss.lab.doctor.ways import LADDER, PAIRS, Way, onset, ways

AWAY = 0.02
"""A slope that goes the wrong way counts from this part of the largest one on."""
DEAD, DEAD_BESIDE_KNOWN = 0.02, 0.1
"""A slope is gone below this part of the largest one on its way, or of the known loss's."""
WEIGHTS = "alpha|pos_weight|(class_?)?weights?"
BY_DESIGN = {
    "mal": "a positive of quality q learns p = q^gamma",
    "ia_bce": "the label moves with the score and is a constant for the gradient, which is 0 at p = t",
    "gaussian_focal": "only t = 1 is a positive, and all else learns p = 0",
}
"""Why a known loss is smallest elsewhere than at a soft label."""


def alpha_side(subject: Subject, match: Match | None) -> Found:
    """Alpha weighs the negatives, where everybody's weighs the positives."""
    words = match.convention if match is not None else {}
    side, alpha = words.get("alpha_on"), words.get("alpha")
    pair = words.get("weight_of_positives"), words.get("weight_of_negatives")
    if side in NEGATIVES:
        seen = f"with alpha = {alpha:g} a target of 1 weighs {pair[0]:g}, one of 0 weighs {pair[1]:g}"
        yield found("alpha on negatives", seen)
    elif side == "both" and words.get("alpha_known") is not False and alpha not in (None, 1.0):
        yield found(
            "alpha on both", f"alpha = {alpha:g}: a target of 1 weighs {pair[0]:g}, one of 0 {pair[1]:g}"
        )
    elif words.get("alpha_set") == "both":
        yield found("alpha on both", "with alpha = 0.1 targets of 1 and of 0 both cost a tenth")


def weights_in_p(subject: Subject, match: Match | None) -> Found:
    """A class weight that is in the cross entropy of which p_t = exp(-CE) is taken."""
    dense = subject.kind == "classification"
    if subject.kind not in ("classification", "softmax"):
        return
    ramp = torch.linspace(-3, 3, 25)
    x = (
        ramp
        if dense
        else torch.cat((torch.zeros(25, 1), ramp[:, None], torch.zeros(25, subject.classes - 2)), 1)
    )
    t = torch.ones(25) if dense else torch.ones(25, dtype=torch.long)
    cross = F.softplus(-x) if dense else F.cross_entropy(x, t, reduction="none")
    weight = torch.tensor(3.0) if dense else torch.linspace(2, 4, subject.classes)
    names = [name for name in subject.loaded.takes if re.fullmatch(WEIGHTS, name)]
    tries = [("", subject), *((name, subject.with_hyper(**{name: weight})) for name in names)]
    for name, one in tries:
        inside = inner_weight(cross.double(), values(one, x, t))
        if inside is not None and abs(inside - 1) > 0.05:
            told = f"{name} = {shown(weight.reshape(-1))}: " if name else ""
            seen = f"{told}the loss goes with 1 - exp(-{inside:.3g} CE), not with 1 - exp(-CE) = 1 - p_t"
            yield found("weight inside", seen)
            return


def similarity(subject: Subject, match: Match | None = None) -> Found:
    """A right prediction has the larger value than a wrong one: to be maximised, not minimised."""
    middle = -math.inf
    if subject.region:
        sign, t = _signs(subject)
        told = "right prediction", "wrong prediction"
        answers = [attempt(subject, side * 6 * sign, t) for side in (1, -1)]
    elif subject.kind == "box":
        other = PAIRS[3 if PAIRS[1].answer(subject).broken else 1]
        told, answers = ("equal boxes", other.name), [pair.answer(subject) for pair in (PAIRS[0], other)]
    else:
        right, wrong = (next(way for way in ways(subject) if way.wrong is wrong) for wrong in (False, True))
        told, answers = (right.at(6), wrong.at(6)), [way.answer(subject, 6) for way in (right, wrong)]
        middle = total(right.answer(subject, 0)) if subject.kind == "classification" else middle
    costs = [total(answer) for answer in answers]
    # a value that is largest in between is neither
    if costs[0] > max(costs[1], middle - 2e-6) + 1e-6 and not any(answer.broken for answer in answers):
        remedy = "as a loss take 1 minus it" if subject.kind == "box" or subject.region else "change its sign"
        yield found("similarity", f"{told[0]}: {costs[0]:.4g}; {told[1]}: {costs[1]:.4g}", remedy=remedy)


def _signs(subject: Subject) -> tuple[Tensor, Tensor]:
    """Of a batch with positives of each class: which way each prediction should go, and its targets."""
    x, t = batch(subject, background=False)
    return 2 * (t if t.ndim > 1 else F.one_hot(t, x.shape[1]).to(x)) - 1, t


def soft_minimum(subject: Subject, match: Match | None) -> Found:
    """The probability that minimises the loss for a soft label is not the label."""
    if subject.kind != "classification" or any(similarity(subject)):
        return
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    one, near_one, half, zero = (
        values(subject, x, torch.full_like(x, label)) for label in (1, 0.999, 0.5, 0)
    )
    jump = (near_one - one).abs().max() / (one.abs() + zero.abs()).max()
    # on a heat map a label just below 1 is a negative that weighs nothing, and one of 1/2 weighs something
    on_a_map = near_one.abs().max() < 0.01 * zero.abs().max() and half.any()
    if jump > 0.05 and not on_a_map:
        seen = f"logit {shown(x[1])}: {shown(one[1])} with target 1, {shown(near_one[1])} with target 0.999"
        yield found("equal to one", seen)
    least = {label: _least(subject, label) for label in (0.3, 0.8)}
    if any(abs(p - label) >= 0.01 for label, p in least.items()) and not math.isnan(sum(least.values())):
        seen = "; ".join(f"t = {label}: smallest at p = {p:.3f}" for label, p in least.items())
        meant = BY_DESIGN.get(match.name or "") if match is not None else None
        yield found("soft minimum by design", seen, remedy=meant) if meant else found("soft minimum", seen)


def _least(subject: Subject, label: float) -> float:
    """The probability that minimises the loss for a soft label; NaN where there is none to tell."""
    low, high = -9.0, 9.0
    for finer in range(3):
        x = torch.linspace(low, high, 41, dtype=torch.float64)
        value = values(subject, x, torch.full_like(x, label))
        if not value.isfinite().all() or (not finer and value.max() - value.min() < 1e-9):
            return math.nan
        at = int(value.argmin())
        low, high = float(x[max(at - 1, 0)]), float(x[min(at + 1, 40)])
    return float(torch.sigmoid(x[at]))


def direction(subject: Subject, match: Match | None) -> Found:
    """Wrong predictions are pushed the wrong way, or not at all, or only until they are very wrong."""
    if match is not None and match.name is not None:
        full = match.convention.get("gradient") in (FULL, WEIGHT_DETACHED, LABEL_DETACHED)
        if full and match.convention.get("form") != "-x":
            wrong = (way for way in ways(subject) if way.wrong)
            each = (_hopeless(subject, way, _known(match, way)) for way in wrong)
            yield from islice(chain.from_iterable(each), 1)
    elif any(similarity(subject, match)):
        return
    elif subject.region:
        yield from _of_regions(subject)
    elif subject.kind == "box":
        yield from _boxes(subject)
    elif _squashed_twice(subject):
        right = next(way for way in ways(subject) if not way.wrong)
        seen = f"{right.at(50)}, as right as can be: loss {total(right.answer(subject, 50)):.4g}"
        yield found("squashed twice", seen, what="sigmoid" if subject.kind == "classification" else "softmax")
    else:
        yield from _by_itself(subject)


def _by_itself(subject: Subject) -> Found:
    """The slopes of wrong predictions, more and more wrong."""
    slopes = []
    for way in (way for way in ways(subject) if way.wrong):
        tried = {m: way.slope(way.answer(subject, m, gradient=True)) for m in LADDER}
        if known := {m: slope for m, slope in tried.items() if not math.isnan(slope)}:
            slopes.append((way, known))
    for way, of in slopes:
        away = -AWAY * max(abs(slope) for slope in of.values())
        lowest = min(of, key=of.__getitem__)
        if of[lowest] < away:
            seen = f"{way.at(lowest)}: {of[lowest]:.4g} per logit the more wrong it gets (float32)"
            yield found("pushed away" if of.get(LADDER[0], away) < away / 2 else "pushed away far out", seen)
            return
    largest = max((max(of.values()) for _, of in slopes), default=0.0)
    for way, of in slopes:
        if largest > 0 and max(of.values()) < 1e-6 * largest:
            seen = f"{way.at(4)}: gradient {of.get(4, 0.0):.4g} (float32)"
            yield found("learns nothing", seen, what=way.label)
            return
    each = (_hopeless(subject, way, _peak(of)) for way, of in slopes)
    yield from islice(chain.from_iterable(each), 1)


def _of_regions(subject: Subject) -> Found:
    """The slopes of all wrong predictions of positives, and of negatives: one alone may go either way, and
    where neighbours count these rows are no picture.
    """
    (sign, t), (x, _) = _signs(subject), batch(subject)
    mixed = torch.randperm(len(t), generator=torch.Generator().manual_seed(0))
    here, there = attempt(subject, x, t), attempt(subject, x[mixed], t[mixed])
    slope = attempt(subject, -sign, t, gradient=True).gradient
    if slope is None or not math.isclose(total(here), total(there), rel_tol=1e-4):
        return
    sides = {"target 1": sign > 0, "target 0": sign < 0}
    costs = {label: -float((slope * sign)[side].sum()) for label, side in sides.items() if side.any()}
    for label, cost in costs.items():
        seen = f"all logits wrong, -1 for target 1 and 1 for target 0: {cost:.4g} in all (float32)"
        if cost < -AWAY * max(costs.values()):
            yield found("pushed away", f"{seen}, {label}")
        elif abs(cost) < 1e-6 * max(costs.values()):
            yield found("learns nothing", seen, what=label)


Expected = Callable[[float], tuple[float, str]]
"""By the magnitude: the least slope that is still one, and where that comes from, in words."""


def _hopeless(subject: Subject, way: Way, expected: Expected) -> Found:
    """Where the gradient of more and more wrong predictions is gone."""

    def gone(magnitude: float, answer: Answer) -> bool:
        return way.slope(answer) < expected(magnitude)[0]

    first = onset(subject, way, gone, gradient=True)
    if first is not None:
        slope, beside = abs(way.slope(first.answer)), expected(first.magnitude)[1]
        yield found("hopeless", f"{first.where}: gradient {slope:.4g} in size, {beside} (float32)")


def _peak(slopes: dict[float, float]) -> Expected:
    """A part of the largest slope on the way, beyond it."""
    peak = max(slopes, key=slopes.__getitem__)
    says = f"{slopes[peak]:.4g} at {peak:g}"
    return lambda magnitude: (DEAD * slopes[peak] if magnitude > peak else -math.inf, says)


def _known(match: Match, way: Way) -> Expected:
    """A part of the known loss's slope, where that one has any."""

    def expected(magnitude: float) -> tuple[float, str]:
        assert match.reference is not None
        x, t = way.make(torch.tensor([magnitude], dtype=torch.float64))
        true = float(way.along(derivative(match.reference, x, t)))
        return DEAD_BESIDE_KNOWN * true if true > 0.05 else -math.inf, f"should be {true:.4g}"

    return expected


def _squashed_twice(subject: Subject) -> bool:
    """Whether it is a focal loss, or a cross entropy, of probabilities taken for logits."""
    if subject.probabilities or subject.kind not in ("classification", "softmax"):
        return False
    if subject.kind == "classification":
        z = torch.linspace(0.04, 0.96, 24, dtype=torch.float64)
        pairs = [(z.logit(), torch.full_like(z, label), F.softplus(z - 2 * label * z)) for label in (1, 0)]
    else:
        x, t = samples(subject, 24)
        z, t = (2 * x).softmax(1), torch.zeros_like(t)
        pairs = [(z.log(), t, F.cross_entropy(z, t, reduction="none"))]
    laws = [law(cross, values(subject, x, t)) for x, t, cross in pairs]
    return all(one is not None and not one.epsilon for one in laws)


def _boxes(subject: Subject) -> Found:
    """A prediction that equals its target costs more than one beside it, or costs less as it moves off."""
    _, true = sample_boxes(6)
    equal, sizes = values(subject, true, true), (true[:, 2:] - true[:, :2]).repeat(1, 2)
    for step in (*torch.eye(4, dtype=torch.float64), *-torch.eye(4, dtype=torch.float64)):
        moved = true + 0.1 * sizes * step
        near = values(subject, moved, true)
        drop = equal - near
        if drop.isfinite().all() and drop.max() > max(1e-9, 1e-3 * float(equal.abs().max())):
            i = int(drop.argmax())
            seen = f"target {shown(true[i])}: the same box costs {shown(equal[i])}, "
            yield found("pushed off", seen + f"{shown(moved[i])} costs {shown(near[i])}")
            return
    target = torch.tensor([210.0, 210, 230, 250], dtype=torch.float64)
    for what, off in (("slides off", (20.0, 40, 20, 40)), ("slides off", (20.0, 0, 20, 0)),
                      ("grows beyond", (-20.0, -40, 20, 40))):  # fmt: skip
        way = Way("", "", torch.tensor(off), target, start=target)
        x, t = way.make(torch.linspace(0, 4, 41).double())
        value, slope = values(subject, x, t), rows(subject, x, t, gradient=True).gradient
        fall = -value.diff()
        if slope is None or not value.isfinite().all() or fall.max() <= 5e-3 * (value.max() - value.min()):
            continue
        i, along = int(fall.argmax()), way.along(slope).nan_to_num()
        if along[i : i + 2].min() < -5e-3 * along.abs().max():  # a detached weight may fall with the value
            costs = (f"{shown(x[j])} costs {shown(value[j])}" for j in (i, i + 1))
            yield found("falls on the way", f"target {shown(target)}: {', '.join(costs)}", what=what)
            return
