"""Probes of the way that a loss pushes: wrong predictions towards the right one, and not too late."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.doctor.elements import Answer, needs_a_positive, rows
from detloss.doctor.extremes import LADDER, Way, numbers, onset, taken_as, ways
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.matching.fit import EXACT, straight
from detloss.doctor.matching.regression import sample_boxes
from detloss.doctor.probes.values import similarity_not_loss
from detloss.doctor.subject import Subject

AWAY = 0.02
"""A slope that goes the wrong way counts from this part of the largest one on."""
DEAD, DEAD_BESIDE_KNOWN = 0.02, 0.1
"""A slope is gone below this part of the largest one on its way, or of the known loss's."""


def direction(subject: Subject, match: Match | None) -> list[Finding]:
    """Wrong predictions are pushed the wrong way, or not at all, or only until they are very wrong."""
    if match is not None and match.name is not None:
        return [] if subject.kind == "box" else _dead_beside_known(subject, match)
    if similarity_not_loss(subject, match):
        return []
    if subject.kind == "box":
        return _of_boxes(subject, match)
    if _squashed_twice(subject):
        return [_twice(subject)]
    found = _slopes(subject)
    return _away(found) or _nothing(found) or _dead(subject, found)


def _slope(way: Way, answer: Answer) -> float | None:
    """How much the loss grows as the logits go on that way; None where there is no number."""
    if answer.value is None or answer.gradient is None or not answer.gradient.isfinite().all():
        return None
    step, _ = way.make(1.0)
    return float((answer.gradient.double() * step.double()).sum())


Slopes = dict[Way, dict[float, float]]


def _slopes(subject: Subject) -> Slopes:
    """Of wrong predictions, more and more wrong."""
    beside = needs_a_positive(subject)
    found: Slopes = {}
    for way in ways(subject):
        for magnitude in LADDER if way.wrong else ():
            answer = rows(subject, *way.make(magnitude), gradient=True, beside=beside)
            slope = _slope(way, answer)
            if slope is not None:
                found.setdefault(way, {})[magnitude] = slope
    return found


def _away(found: Slopes) -> list[Finding]:
    for way, slopes in found.items():
        magnitude = min(slopes, key=slopes.__getitem__)
        if slopes[magnitude] < -AWAY * max(abs(slope) for slope in slopes.values()):
            return [
                Finding(
                    "wrong-gradient",
                    "error",
                    "wrong predictions are pushed further away: the loss falls as they get worse",
                    f"{way.name.format(magnitude)}: {slopes[magnitude]:.4g} a logit the more wrong it gets "
                    "(float32)",
                    "its weight must not fall: (1 - p_t)^gamma has p_t = p for target 1, 1 - p for target 0",
                )
            ]
    return []


def _nothing(found: Slopes) -> list[Finding]:
    largest = max((slope for slopes in found.values() for slope in slopes.values()), default=0.0)
    for way, slopes in found.items():
        if largest > 0 and max(slopes.values()) < 1e-6 * largest:
            return [
                Finding(
                    "wrong-gradient",
                    "error",
                    f"predictions for {way.name.rpartition(', ')[2]} get no gradient: they learn nothing",
                    f"{way.name.format(4)}: gradient {slopes.get(4, 0.0):.4g} (float32)",
                    "positives and negatives both need a term: -t log p - (1 - t) log(1 - p)",
                )
            ]
    return []


def _dead(subject: Subject, found: Slopes) -> list[Finding]:
    for way, slopes in found.items():
        peak = max(slopes, key=slopes.__getitem__)
        if not any(_is_dead(peak, slopes[peak], magnitude, slopes[magnitude]) for magnitude in slopes):
            continue

        def dead(magnitude: float, answer: Answer, way: Way = way, peak: float = peak) -> bool:
            return _is_dead(peak, found[way][peak], magnitude, _slope(way, answer))

        first = onset(subject, way, dead, gradient=True)
        if first is not None:
            slope = _slope(way, first.answer)
            return [_hopeless(way, first.magnitude, slope, f"{slopes[peak]:.4g} at {peak:g}")]
    return []


def _is_dead(peak: float, largest: float, magnitude: float, slope: float | None) -> bool:
    return slope is not None and slope < DEAD * largest and magnitude > peak


def _hopeless(way: Way, magnitude: float, slope: float | None, beside: str) -> Finding:
    return Finding(
        "wrong-gradient",
        "warning",
        "hopelessly wrong predictions get no gradient: they never learn",
        f"{way.name.format(magnitude)}: gradient {abs(slope or 0.0):.4g} in size, {beside} (float32)",
        "work on logits (logsigmoid, log_softmax), not on clamped probabilities; beside what compares "
        "probabilities themselves (Dice, squares) put a cross entropy",
    )


def _dead_beside_known(subject: Subject, match: Match) -> list[Finding]:
    """Where the known loss has its full gradient."""
    reference = match.reference
    words = match.convention
    full = words.get("gradient", "none").startswith(("full", "weight"))
    if reference is None or words.get("form") == "-x" or not full:
        return []

    def expected(way: Way, magnitude: float) -> float:
        x, t = way.make(magnitude)
        leaf = x.double().requires_grad_()
        label = t.double() if t.is_floating_point() else t
        (slope,) = torch.autograd.grad(reference(leaf, label).sum(), leaf)
        return float(slope.abs().max())

    def dead(way: Way, magnitude: float, answer: Answer) -> bool:
        if answer.gradient is None or not answer.gradient.isfinite().all():
            return False
        true = expected(way, magnitude)
        return true > 0.05 and float(answer.gradient.abs().max()) < DEAD_BESIDE_KNOWN * true

    for way in ways(subject):
        found = onset(subject, way, partial(dead, way), gradient=True) if way.wrong else None
        if found is not None and found.answer.gradient is not None:
            size = float(found.answer.gradient.abs().max())
            true = expected(way, found.magnitude)
            return [_hopeless(way, found.magnitude, size, f"should be {true:.4g}")]
    return []


# A sigmoid, or a softmax, in front of a loss that applies its own


def _squashed_twice(subject: Subject) -> bool:
    """Whether it is a focal loss, or a cross entropy, of probabilities taken for logits."""
    if subject.probabilities:
        return False
    if subject.kind == "classification":
        z = torch.linspace(0.04, 0.96, 24, dtype=torch.float64)
        pairs = [
            (torch.logit(z), torch.full_like(z, label), F.softplus(z - 2 * label * z)) for label in (1, 0)
        ]
    elif subject.kind == "softmax":
        generator = torch.Generator().manual_seed(2)
        z = (2 * torch.randn(24, subject.classes, generator=generator, dtype=torch.float64)).softmax(1)
        t = torch.zeros(24, dtype=torch.long)
        pairs = [(z.log(), t, F.cross_entropy(z, t, reduction="none"))]
    else:
        return False
    beside = needs_a_positive(subject)
    for x, t, cross in pairs:
        value = rows(subject, x, t, beside=beside).value
        if value is None:
            return False
        law = straight((-torch.expm1(-cross)).log(), value.double() / cross)
        if law is None or law.misfit > EXACT:
            return False
    return True


def _twice(subject: Subject) -> Finding:
    way = next(way for way in ways(subject) if not way.wrong)
    right = rows(subject, *way.make(50.0), beside=needs_a_positive(subject)).value
    name = "sigmoid" if subject.kind == "classification" else "softmax"
    return Finding(
        "wrong-gradient",
        "error",
        f"the {name} is applied twice: before a loss that applies its own. Wrong predictions get next to no "
        "gradient, right ones keep a loss",
        f"{way.name.format(50.0)}, as right as can be: loss {float(right) if right is not None else 0:.4g}",
        f"hand the logits to the loss as they are, without {name}",
    )


# Boxes


def _of_boxes(subject: Subject, match: Match | None) -> list[Finding]:
    return _pushed_off(subject, match) or _slide(subject, match)


def _values(subject: Subject, match: Match | None, predicted: Tensor, true: Tensor) -> Tensor | None:
    value = rows(subject, taken_as(subject, match, predicted), taken_as(subject, match, true)).value
    return None if value is None or not value.isfinite().all() else value.double()


def _pushed_off(subject: Subject, match: Match | None) -> list[Finding]:
    """A prediction that equals its target costs more than one beside it."""
    _, true = sample_boxes(6)
    equal = _values(subject, match, true, true)
    if equal is None:
        return []
    sizes = (true[:, 2:] - true[:, :2]).repeat(1, 2)
    for step in (*torch.eye(4, dtype=torch.float64), *-torch.eye(4, dtype=torch.float64)):
        moved = true + 0.1 * sizes * step
        near = _values(subject, match, moved, true)
        if near is None:
            continue
        drop = equal - near
        if drop.max() > max(1e-9, 1e-3 * float(equal.abs().max())):
            i = int(drop.argmax())
            return [
                Finding(
                    "wrong-gradient",
                    "error",
                    "a prediction that equals its target is pushed off it",
                    f"target {_box(true[i])}: the same box costs {equal[i]:.4g}, {_box(moved[i])} costs "
                    f"{near[i]:.4g}",
                    "are both boxes taken in the same format (corners, or centre and size)?",
                )
            ]
    return []


def _slide(subject: Subject, match: Match | None) -> list[Finding]:
    """A box that slides off its target, or grows, costs less on the way."""
    ways_off: dict[str, Callable[[Tensor], Tensor]] = {
        "slides off": lambda s: s * torch.tensor([20.0, 40, 20, 40], dtype=torch.float64),
        "grows": lambda s: s * torch.tensor([-20.0, -40, 20, 40], dtype=torch.float64),
    }
    steps = torch.linspace(0, 4, 41, dtype=torch.float64)[:, None]
    true = torch.tensor([[210.0, 210, 230, 250]], dtype=torch.float64).expand(len(steps), 4)
    for what, off in ways_off.items():
        moved = true + off(steps)
        value = _values(subject, match, moved, true)
        if value is None:
            continue
        fall = value[:-1] - value[1:]
        if fall.max() > 5e-3 * (value.max() - value.min()):
            i = int(fall.argmax())
            return [
                Finding(
                    "wrong-gradient",
                    "error",
                    f"a prediction that {what} its target gets a smaller loss on the way".replace(
                        "grows its target", "grows beyond its target"
                    ),
                    f"target {_box(true[i])}: {_box(moved[i])} costs {value[i]:.4g}, {_box(moved[i + 1])} "
                    f"costs {value[i + 1]:.4g}",
                    "clamp widths and heights of the overlap at 0, and check each area and each corner",
                )
            ]
    return []


def _box(values: Tensor) -> str:
    return numbers(float(f"{v:.4g}") for v in values)
