"""The loss beside the nearest known one, over a logit or along a box that slides away from its target."""

from typing import Any

import torch
from torch import Tensor

from detloss.lab.doctor.answers import derivative, rows
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.ways import Way

POINTS = 121
NEAR = 0.5
"""The largest relative deviation at which the nearest known loss is drawn beside."""


def curve(subject: Subject, match: Match | None) -> dict[str, Any] | None:
    """The table of the picture; None where the loss has no values.

    Returns:
        `kind`, `nearest` (its name, or ""), `x` (a list of numbers) and `lines`: for each line its `label`,
        and lists `value`, `gradient`, `known_value`, `known_gradient`, the last two None where nothing is
        known. For boxes the gradient is the one along the slide. A value that is not finite is None.
    """
    near = match if match is not None and (match.name is not None or match.error < NEAR) else None
    low, high, drawn = _drawn(subject)
    x, lines = torch.linspace(low, high, POINTS, dtype=torch.float64), []
    for way in drawn:
        predictions, targets = way.make(x)
        own = rows(subject, predictions, targets, gradient=True)
        if own.value is None or own.gradient is None:
            continue
        line: dict[str, Any] = {"label": way.label, "value": _list(own.value)}
        line |= {"gradient": _list(way.along(own.gradient)), "known_value": None, "known_gradient": None}
        if near is not None and near.reference is not None:
            slope = way.along(derivative(near.reference, predictions, targets))
            line |= {
                "known_value": _list(near.reference(predictions, targets)),
                "known_gradient": _list(slope),
            }
        lines.append(line)
    nearest = (near.name or near.nearest) if near is not None else ""
    return {"kind": subject.kind, "nearest": nearest, "x": x.tolist(), "lines": lines} if lines else None


def _drawn(subject: Subject) -> tuple[float, float, list[Way]]:
    """The ends of the axis, and the ways that are drawn over it."""
    if subject.kind == "classification":
        one = torch.tensor(1.0)
        return -8, 8, [Way("", "positive, t = 1", one, one), Way("", "negative, t = 0", one, one - 1)]
    if subject.kind == "softmax":
        first, labels = torch.eye(subject.classes)[0], ("of the true class", "of another class")
        return -8, 8, [Way("", label, first, torch.tensor(t)) for t, label in enumerate(labels)]
    if subject.kind == "box":  # no point where sides meet: there the gradient is either side's
        smaller, target = torch.tensor([21.03, 21, 28.03, 29]).double(), torch.tensor([20.0, 20, 30, 30])
        return 0, 3, [Way("", "", torch.tensor([10.0, 0, 10, 0]), target, start=smaller)]
    bins = torch.arange(BINS + 1.0)  # softmax(place * bins - bins² / 2) is a bell around the place
    label, target = f"target {0.4 * BINS:g}", torch.tensor(0.4 * BINS)
    return 0, BINS, [Way("", label, bins, target, start=-bins.square() / 2)]


def _list(values: Tensor) -> list[float | None]:
    return [float(v) if torch.isfinite(v) else None for v in values.reshape(-1)]
