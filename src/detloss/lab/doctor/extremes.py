"""Inputs at the ends: logits that grow until something breaks, and boxes that have lost their area."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.lab.doctor.answers import Answer, rows
from detloss.lab.doctor.forms import BINS, Subject

LADDER = (1, 4, 8, 9.5, 12, 16, 17.5, 20, 30, 50, 80, 90, 104, 110, 200, 500, 1e3, 1e4)
FAR = 1e30  # float32 still holds it, and its square not


class Way(NamedTuple):
    """A way for logits to grow: `make(magnitude)` gives one row of predictions and its target."""

    name: str
    wrong: bool
    label: str
    make: Callable[[float], tuple[Tensor, Tensor]]

    def at(self, magnitude: float) -> str:
        """In words, at a magnitude."""
        return self.name.format(f"{magnitude:.4g}") + f", {self.label}"


class Onset(NamedTuple):
    """Where it begins: the smallest magnitude found, and the answer there."""

    way: Way
    magnitude: float
    answer: Answer

    @property
    def where(self) -> str:
        """In words."""
        return self.way.at(self.magnitude)


def ways(subject: Subject) -> list[Way]:
    """The ways for the logits of a loss to grow, in float32."""
    if subject.kind == "classification":
        return [
            Way(
                f"logit {minus}{{}}",
                (sign > 0) != label,
                f"target {label}",
                _row(None, 0, float(label), sign),
            )
            for label in (1, 0)
            for sign, minus in ((1, ""), (-1, "-"))
        ]
    if subject.kind == "softmax":
        columns = subject.classes
        rest = ", 0" * (columns - 2)
        kinds = ((1, 0, True), (1, 1, False), (-1, 1, True))
        return [
            Way(f"logits (0, {'-' * (s < 0)}{{}}{rest})", wrong, f"target {t}", _row(columns, 1, t, s))
            for s, t, wrong in kinds
        ]
    if subject.kind == "distribution":
        return [
            Way(f"logit {{}} at bin {bin}, others 0", bin > 0, "distance 0.4", _row(BINS + 1, bin, 0.4))
            for bin in (BINS, 0)
        ]
    return []


def _row(
    columns: int | None, at: int, target: float, sign: int = 1
) -> Callable[[float], tuple[Tensor, Tensor]]:
    def make(magnitude: float) -> tuple[Tensor, Tensor]:
        row = torch.zeros(1, columns or 1)
        row[0, at] = sign * magnitude
        return row if columns else row[0], torch.tensor([target])

    return make


def onset(
    subject: Subject, way: Way, bad: Callable[[float, Answer], bool], gradient: bool = False
) -> Onset | None:
    """Where a way first goes bad, up to 1e4 in logits, by bisection; None where it nowhere does."""
    good = 0.0
    for magnitude in LADDER:
        found = rows(subject, *way.make(magnitude), gradient=gradient)
        if bad(magnitude, found):
            first = magnitude
            for _ in range(12):
                middle = (good + first) / 2
                there = rows(subject, *way.make(middle), gradient=gradient)
                if bad(middle, there):
                    first, found = middle, there
                else:
                    good = middle
            return Onset(way, float(f"{first:.3g}") if first > good else first, found)
        good = magnitude
    return None


class Pair(NamedTuple):
    """A predicted and a true box, xyxy; `odd` where no training should come there."""

    name: str
    predicted: tuple[float, ...]
    true: tuple[float, ...]
    flat: bool = False
    odd: bool = False

    @property
    def says(self) -> str:
        """In words and numbers."""
        return f"{self.name}, {numbers(self.predicted)} and {numbers(self.true)}"


_TRUE = (10.0, 10.0, 30.0, 50.0)
PAIRS = (
    Pair("equal boxes", _TRUE, _TRUE),
    Pair("boxes apart", (60.0, 60.0, 90.0, 80.0), _TRUE),
    Pair("boxes that touch", (30.0, 10.0, 50.0, 50.0), _TRUE),
    Pair("a box within the other", (15.0, 20.0, 25.0, 30.0), _TRUE),
    Pair("a prediction without width", (20.0, 15.0, 20.0, 40.0), _TRUE, flat=True),
    Pair("a prediction without height", (12.0, 20.0, 28.0, 20.0), _TRUE, flat=True),
    Pair("a target without width", _TRUE, (20.0, 15.0, 20.0, 40.0), flat=True),
    Pair("a target without height", _TRUE, (12.0, 20.0, 28.0, 20.0), flat=True),
    Pair("two equal points", (20.0, 20.0, 20.0, 20.0), (20.0, 20.0, 20.0, 20.0), flat=True),
    Pair("two points apart", (20.0, 20.0, 20.0, 20.0), (25.0, 28.0, 25.0, 28.0), flat=True),
    Pair("a prediction with inverted corners", (30.0, 50.0, 10.0, 10.0), _TRUE, odd=True),
)


def pair_answer(subject: Subject, pair: Pair, gradient: bool = False) -> Answer:
    """The answer for one pair of boxes in float32."""
    return rows(subject, torch.tensor([pair.predicted]), torch.tensor([pair.true]), gradient)


def numbers(values: Iterable[float]) -> str:
    """Coordinates for a message: (10, 10, 30, 50)."""
    return "(" + ", ".join(f"{float(value):.4g}" for value in values) + ")"
