"""The loss beside the nearest known one, over a logit or along a box that slides away from its target."""

from typing import Any

import torch
from torch import Tensor

from detloss.lab.doctor.answers import rows
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import Match

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
    near = match is not None and (match.name is not None or match.error < NEAR)
    reference = match.reference if match is not None and near else None
    lines = []
    x = torch.zeros(0)
    for label, over, predictions, targets, direction in _slides(subject):
        x = over
        own = rows(subject, predictions, targets, gradient=True)
        if own.value is None or own.gradient is None:
            continue
        known = known_gradient = None
        if reference is not None:
            leaf = predictions.clone().requires_grad_()
            value = reference(leaf, targets)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            known, known_gradient = _list(value.detach()), _list(_along(slope, direction))
        lines.append(
            {
                "label": label,
                "value": _list(own.value),
                "gradient": _list(_along(own.gradient, direction)),
                "known_value": known,
                "known_gradient": known_gradient,
            }
        )
    if not lines:
        return None
    nearest = match.name or match.nearest if match is not None and near else ""
    return {"kind": subject.kind, "nearest": nearest, "x": x.tolist(), "lines": lines}


def _slides(subject: Subject) -> list[tuple[str, Tensor, Tensor, Tensor, Tensor | None]]:
    """(label, x, predictions, targets, direction of the gradient)."""
    x = torch.linspace(-8, 8, POINTS, dtype=torch.float64)
    if subject.kind == "classification":
        return [
            ("positive, t = 1", x, x, torch.ones_like(x), None),
            ("negative, t = 0", x, x, torch.zeros_like(x), None),
        ]
    if subject.kind == "softmax":
        way = torch.zeros(subject.classes, dtype=torch.float64)
        way[0] = 1
        logits = x.unsqueeze(1) * way
        first, second = torch.zeros(POINTS, dtype=torch.long), torch.ones(POINTS, dtype=torch.long)
        return [
            ("of the true class", x, logits, first, way),
            ("of another class", x, logits, second, way),
        ]
    if subject.kind == "box":
        x = torch.linspace(0, 3, POINTS, dtype=torch.float64)
        target = torch.tensor([[20.0, 20, 30, 30]], dtype=torch.float64).expand(POINTS, 4)
        # no point where sides meet: there the gradient is either side's
        smaller = torch.tensor([[21.03, 21, 28.03, 29]], dtype=torch.float64)
        slid = smaller + 10 * x[:, None] * torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
        return [("", x, slid, target, torch.tensor([10.0, 0, 10, 0], dtype=torch.float64))]
    n = BINS
    place = torch.linspace(0, n, POINTS, dtype=torch.float64)
    bins = torch.arange(n + 1, dtype=torch.float64)
    logits = -(bins - place[:, None]).square() / 2
    target = torch.full((POINTS,), 0.4 * n, dtype=torch.float64)
    return [(f"target {0.4 * n:g}", place, logits, target, bins - place[:, None])]


def _along(gradient: Tensor, direction: Tensor | None) -> Tensor:
    return gradient if direction is None else (gradient * direction).sum(-1)


def _list(values: Tensor) -> list[float | None]:
    return [float(v) if torch.isfinite(v) else None for v in values.reshape(-1)]
