"""Probes of the way that a loss pushes: wrong predictions towards the right one, and not too late."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor.answers import Answer, rows, sample_boxes
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.extremes import LADDER, Way, numbers, onset, ways
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.fit import is_weighted
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import FULL, WEIGHT_DETACHED, Match
from detloss.lab.doctor.probe_values import similarity

AWAY = 0.02
"""A slope that goes the wrong way counts from this part of the largest one on."""
DEAD, DEAD_BESIDE_KNOWN = 0.02, 0.1
"""A slope is gone below this part of the largest one on its way, or of the known loss's."""
Found = Iterator[Finding]


def direction(subject: Subject, match: Match | None) -> Found:
    """Wrong predictions are pushed the wrong way, or not at all, or only until they are very wrong."""
    if match is not None and match.name is not None:
        if subject.kind != "box":
            yield from _dead_beside_known(subject, match)
    elif any(similarity(subject, match)):
        return
    elif subject.kind == "box":
        yield from _boxes(subject)
    elif _squashed_twice(subject):
        way = next(way for way in ways(subject) if not way.wrong)
        right = rows(subject, *way.make(50.0)).value
        seen = f"{way.at(50.0)}, as right as can be: loss {float(right) if right is not None else 0:.4g}"
        yield found("squashed twice", seen, what="sigmoid" if subject.kind == "classification" else "softmax")
    else:
        yield from _along_the_ways(subject)


def _slope(way: Way, answer: Answer) -> float | None:
    """How much the loss grows as the logits go on that way; None where there is no number."""
    if answer.value is None or answer.gradient is None or not answer.gradient.isfinite().all():
        return None
    return float((answer.gradient.double() * way.make(1.0)[0].double()).sum())


def _along_the_ways(subject: Subject) -> Found:
    """The slopes of wrong predictions, more and more wrong."""
    slopes: dict[Way, dict[float, float]] = {}
    for way in (way for way in ways(subject) if way.wrong):
        tried = {m: _slope(way, rows(subject, *way.make(m), gradient=True)) for m in LADDER}
        slopes[way] = {m: slope for m, slope in tried.items() if slope is not None}
    largest = max((slope for of in slopes.values() for slope in of.values()), default=0.0)
    for way, of in slopes.items():
        lowest = min(of, key=of.__getitem__, default=None)
        if lowest is not None and of[lowest] < -AWAY * max(abs(slope) for slope in of.values()):
            seen = f"{way.at(lowest)}: {of[lowest]:.4g} per logit the more wrong it gets (float32)"
            yield found("pushed away", seen)
            return
    for way, of in slopes.items():
        if largest > 0 and max(of.values(), default=1.0) < 1e-6 * largest:
            seen = f"{way.at(4)}: gradient {of.get(4, 0.0):.4g} (float32)"
            yield found("learns nothing", seen, what=way.label)
            return
    for way, of in slopes.items():
        if not of:
            continue
        peak = max(of, key=of.__getitem__)

        def dead(
            magnitude: float, answer: Answer, way: Way = way, peak: float = peak, most: float = of[peak]
        ) -> bool:
            slope = _slope(way, answer)
            return slope is not None and slope < DEAD * most and magnitude > peak

        if any(m > peak and slope < DEAD * of[peak] for m, slope in of.items()):
            first = onset(subject, way, dead, gradient=True)
            if first is not None:
                slope = abs(_slope(way, first.answer) or 0.0)
                seen = f"{first.where}: gradient {slope:.4g} in size, {of[peak]:.4g} at {peak:g} (float32)"
                yield found("hopeless", seen)
                return


def _dead_beside_known(subject: Subject, match: Match) -> Found:
    """The gradient is gone where the known loss has its full one."""
    reference = match.reference
    if reference is None or match.convention.get("form") == "-x":
        return
    if match.convention.get("gradient") not in (FULL, WEIGHT_DETACHED):
        return

    def expected(way: Way, magnitude: float) -> float:
        x, t = way.make(magnitude)
        leaf = x.double().requires_grad_()
        label = t.double() if t.is_floating_point() else t
        (slope,) = torch.autograd.grad(reference(leaf, label).sum(), leaf)
        return float(slope.abs().max())

    for way in (way for way in ways(subject) if way.wrong):

        def dead(magnitude: float, answer: Answer, way: Way = way) -> bool:
            if answer.gradient is None or not answer.gradient.isfinite().all():
                return False
            true = expected(way, magnitude)
            return true > 0.05 and float(answer.gradient.abs().max()) < DEAD_BESIDE_KNOWN * true

        first = onset(subject, way, dead, gradient=True)
        if first is not None and first.answer.gradient is not None:
            size, true = float(first.answer.gradient.abs().max()), expected(way, first.magnitude)
            yield found(
                "hopeless", f"{first.where}: gradient {size:.4g} in size, should be {true:.4g} (float32)"
            )
            return


def _squashed_twice(subject: Subject) -> bool:
    """Whether it is a focal loss, or a cross entropy, of probabilities taken for logits."""
    if subject.probabilities or subject.kind not in ("classification", "softmax"):
        return False
    if subject.kind == "classification":
        z = torch.linspace(0.04, 0.96, 24, dtype=torch.float64)
        pairs = [(z.logit(), torch.full_like(z, label), F.softplus(z - 2 * label * z)) for label in (1, 0)]
    else:
        generator = torch.Generator().manual_seed(2)
        z = (2 * torch.randn(24, subject.classes, generator=generator, dtype=torch.float64)).softmax(1)
        t = torch.zeros(24, dtype=torch.long)
        pairs = [(z.log(), t, F.cross_entropy(z, t, reduction="none"))]
    for x, t, cross in pairs:
        value = rows(subject, x, t).value
        if value is None or not is_weighted(cross, value.double()):
            return False
    return True


def _boxes(subject: Subject) -> Found:
    """A prediction that equals its target costs more than one beside it, or costs less as it moves off."""

    def values(predicted: Tensor, true: Tensor) -> Tensor | None:
        answer = rows(subject, predicted, true)
        return None if answer.value is None or answer.broken else answer.value.double()

    _, true = sample_boxes(6)
    equal, sizes = values(true, true), (true[:, 2:] - true[:, :2]).repeat(1, 2)
    for step in (*torch.eye(4, dtype=torch.float64), *-torch.eye(4, dtype=torch.float64)):
        moved = true + 0.1 * sizes * step
        near = values(moved, true) if equal is not None else None
        if near is None or equal is None:
            continue
        drop = equal - near
        if drop.max() > max(1e-9, 1e-3 * float(equal.abs().max())):
            i = int(drop.argmax())
            seen = f"target {numbers(true[i])}: the same box costs {equal[i]:.4g}, {numbers(moved[i])} "
            yield found("pushed off", seen + f"costs {near[i]:.4g}")
            return
    steps = torch.linspace(0, 4, 41, dtype=torch.float64)[:, None]
    true = torch.tensor([[210.0, 210, 230, 250]], dtype=torch.float64).expand(len(steps), 4)
    offs = (("slides off", (20.0, 40, 20, 40)), ("slides off", (20.0, 0, 20, 0)),
            ("grows beyond", (-20.0, -40, 20, 40)))  # fmt: skip
    for what, off in offs:
        moved = true + steps * torch.tensor(off, dtype=torch.float64)
        value = values(moved, true)
        if value is None:
            continue
        fall = value[:-1] - value[1:]
        if fall.max() > 5e-3 * (value.max() - value.min()):
            i = int(fall.argmax())
            seen = f"target {numbers(true[i])}: {numbers(moved[i])} costs {value[i]:.4g}, "
            seen += f"{numbers(moved[i + 1])} costs {value[i + 1]:.4g}"
            yield found("falls on the way", seen, what=what)
            return
