"""Ways for predictions to go: logits that grow until something breaks, boxes that lose their area."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.lab.doctor.answers import Answer, rows, shown
from detloss.lab.doctor.forms import BINS, Subject

LADDER = (1, 4, 8, 9.5, 12, 16, 17.5, 20, 30, 50, 80, 90, 104, 110, 200, 500, 1e3, 1e4)


class Way(NamedTuple):
    """A line of predictions for one target: `start + magnitude * step`, more and more `wrong` or right."""

    name: str
    label: str
    step: Tensor
    target: Tensor
    wrong: bool = True
    start: Tensor = torch.tensor(0.0)

    def at(self, magnitude: float) -> str:
        """In words, at a magnitude."""
        return self.name.format(f"{magnitude:.4g}") + f", {self.label}"

    def make(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """A row of predictions for each, and their targets, in the dtype of the magnitudes."""
        x = self.start.to(magnitudes) + torch.tensordot(magnitudes, self.step.to(magnitudes), 0)
        target = self.target.to(magnitudes) if self.target.is_floating_point() else self.target
        return x, target.expand(len(x), *target.shape)

    def answer(self, subject: Subject, magnitude: float, gradient: bool = False) -> Answer:
        """What a loss says there in float32."""
        return rows(subject, *self.make(torch.tensor([float(magnitude)])), gradient)

    def along(self, gradient: Tensor) -> Tensor:
        """How much the loss grows with the magnitude, by its gradient for each row."""
        products = gradient * self.step.to(gradient)
        return products.sum(-1) if self.step.ndim else products

    def slope(self, answer: Answer) -> float:
        """The same at a single magnitude; NaN where there is no number."""
        if answer.gradient is None or not answer.gradient.isfinite().all():
            return math.nan
        return float(self.along(answer.gradient.double()))


class Onset(NamedTuple):
    """Where it begins, in words: the smallest magnitude found, and the answer there."""

    where: str
    magnitude: float
    answer: Answer


def ways(subject: Subject) -> list[Way]:
    """The ways for the logits of a loss to grow."""
    if subject.kind == "classification":
        return [
            Way(f"logit {'-' * (sign < 0)}{{}}", f"target {label}", torch.tensor(sign),
                torch.tensor(float(label)), wrong=(sign > 0) != label)
            for label in (1, 0) for sign in (1.0, -1.0)
        ]  # fmt: skip
    if subject.kind == "softmax":
        step, rest = torch.eye(subject.classes)[1], ", 0" * (subject.classes - 2)
        return [
            Way(f"logits (0, {'-' * (s < 0)}{{}}{rest})", f"target {t}", s * step, torch.tensor(t), wrong)
            for s, t, wrong in ((1, 0, True), (1, 1, False), (-1, 1, True))
        ]
    if subject.kind == "distribution":
        steps, target = torch.eye(BINS + 1), torch.tensor(0.4)
        return [
            Way(f"logit {{}} at bin {bin}, others 0", "distance 0.4", steps[bin], target, wrong=bin > 0)
            for bin in (BINS, 0)
        ]
    return []


def onset(
    subject: Subject, way: Way, bad: Callable[[float, Answer], bool], gradient: bool = False
) -> Onset | None:
    """Where a way first goes bad, up to 1e4 in logits, by bisection; None where it nowhere does."""
    good = 0.0
    for first in LADDER:
        answer = way.answer(subject, first, gradient)
        if bad(first, answer):
            break
        good = first
    else:
        return None
    for _ in range(12):
        middle = (good + first) / 2
        there = way.answer(subject, middle, gradient)
        good, first, answer = (good, middle, there) if bad(middle, there) else (middle, first, answer)
    first = float(f"{first:.3g}") if float(f"{first:.3g}") > good else first
    return Onset(way.at(first), first, answer)


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
        return f"{self.name}, {shown(self.predicted)} and {shown(self.true)}"

    def answer(self, subject: Subject, gradient: bool = False) -> Answer:
        """What a loss says of it in float32."""
        return rows(subject, torch.tensor([self.predicted]), torch.tensor([self.true]), gradient)


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
