"""Inputs at the ends: logits that grow until something breaks, and boxes that have lost their area."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.doctor.elements import Answer, needs_a_positive, rows
from detloss.doctor.match import Match
from detloss.doctor.subject import Subject

LADDER = (1, 4, 8, 9.5, 12, 16, 17.5, 20, 30, 50, 80, 90, 104, 110, 200, 500, 1e3, 1e4)
FAR = 1e30  # float32 still holds it, and its square not


class Way(NamedTuple):
    """A way for logits to grow: `make(magnitude)` gives one row of predictions and its target."""

    name: str
    wrong: bool
    make: Callable[[float], tuple[Tensor, Tensor]]


class Onset(NamedTuple):
    """Where it begins: the smallest magnitude found, and the answer there."""

    way: Way
    magnitude: float
    answer: Answer


def ways(subject: Subject) -> list[Way]:
    """The ways for the logits of a loss to grow, in float32."""
    if subject.kind == "classification":
        return [
            Way(f"logit {minus}{{:.4g}}, target {label}", (sign > 0) != label, _logit(sign, label))
            for label in (1, 0)
            for sign, minus in ((1, ""), (-1, "-"))
        ]
    if subject.kind == "softmax":
        columns = subject.classes
        return [
            Way(f"logits (0, {minus}{{:.4g}}{', 0' * (columns - 2)}), target {target}", wrong, make)
            for minus, target, wrong, make in (
                ("", 0, True, _row(columns, 1, 0)),
                ("", 1, False, _row(columns, 1, 1)),
                ("-", 1, True, _row(columns, 1, 1, -1)),
            )
        ]
    if subject.kind == "distribution":
        n = subject.bins
        return [
            Way(f"logit {{:.4g}} at bin {n}, others 0, distance 0.4", True, _row(n + 1, n, 0.4)),
            Way("logit {:.4g} at bin 0, others 0, distance 0.4", False, _row(n + 1, 0, 0.4)),
        ]
    return []


def _logit(sign: int, label: int) -> Callable[[float], tuple[Tensor, Tensor]]:
    return lambda magnitude: (torch.tensor([sign * float(magnitude)]), torch.tensor([float(label)]))


def _row(columns: int, at: int, target: float, sign: int = 1) -> Callable[[float], tuple[Tensor, Tensor]]:
    def make(magnitude: float) -> tuple[Tensor, Tensor]:
        row = torch.zeros(1, columns)
        row[0, at] = sign * magnitude
        return row, torch.tensor([target])

    return make


def onset(
    subject: Subject, way: Way, bad: Callable[[float, Answer], bool], gradient: bool = False
) -> Onset | None:
    """Where a way first goes bad, up to 1e4 in logits, by bisection; None where it nowhere does."""
    beside = needs_a_positive(subject)

    def answer(magnitude: float) -> Answer:
        return rows(subject, *way.make(magnitude), gradient=gradient, beside=beside)

    good = 0.0
    for magnitude in LADDER:
        found = answer(magnitude)
        if bad(magnitude, found):
            first = magnitude
            for _ in range(12):
                middle = (good + first) / 2
                there = answer(middle)
                if bad(middle, there):
                    first, found = middle, there
                else:
                    good = middle
            return Onset(way, float(f"{first:.3g}") if first > good else first, found)
        good = magnitude
    return None


class Pair(NamedTuple):
    """A predicted and a true box, xyxy."""

    name: str
    predicted: tuple[float, float, float, float]
    true: tuple[float, float, float, float]


_TRUE = (10.0, 10.0, 30.0, 50.0)
PAIRS = (
    Pair("equal boxes", _TRUE, _TRUE),
    Pair("boxes apart", (60.0, 60.0, 90.0, 80.0), _TRUE),
    Pair("boxes that touch", (30.0, 10.0, 50.0, 50.0), _TRUE),
    Pair("a box within the other", (15.0, 20.0, 25.0, 30.0), _TRUE),
    Pair("a prediction without width", (20.0, 15.0, 20.0, 40.0), _TRUE),
    Pair("a prediction without height", (12.0, 20.0, 28.0, 20.0), _TRUE),
    Pair("a target without width", _TRUE, (20.0, 15.0, 20.0, 40.0)),
    Pair("a target without height", _TRUE, (12.0, 20.0, 28.0, 20.0)),
    Pair("two equal points", (20.0, 20.0, 20.0, 20.0), (20.0, 20.0, 20.0, 20.0)),
    Pair("two points apart", (20.0, 20.0, 20.0, 20.0), (25.0, 28.0, 25.0, 28.0)),
    Pair("a prediction with inverted corners", (30.0, 50.0, 10.0, 10.0), _TRUE),
)


def taken_as(subject: Subject, match: Match | None, boxes: Tensor) -> Tensor:
    """xyxy boxes as the loss reads them, where identification alone found its format."""
    fmt = match.convention.get("fmt", "xyxy") if match is not None else "xyxy"
    if subject.kind != "box" or fmt == "xyxy" or subject.fmt != "xyxy":
        return boxes
    return box_convert(boxes, "xyxy", fmt)


def pair_answer(subject: Subject, match: Match | None, pair: Pair, gradient: bool = False) -> Answer:
    """The answer for one pair of boxes in float32."""
    predicted, true = (taken_as(subject, match, torch.tensor([box])) for box in (pair.predicted, pair.true))
    return rows(subject, predicted, true, gradient=gradient)


def numbers(values: object) -> str:
    """Coordinates for a message: (10, 10, 30, 50)."""
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"  # type: ignore[attr-defined]
