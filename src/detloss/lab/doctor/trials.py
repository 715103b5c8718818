"""One loss called once in one form on a few numbers, and what such calls tell about it."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.lab.doctor.answers import Answer, attempt, reseeded
from detloss.lab.doctor.forms import BINS, Form, Kind, call_in_form
from detloss.lab.doctor.loading import COLUMNS, Loaded

ROWS = 6
Pair = tuple[Tensor, Tensor]


def near(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are there and equal, but for rounding and an eps."""
    return (
        a is not None and b is not None and a.shape == b.shape and torch.allclose(a, b, rtol=2e-3, atol=2e-5)
    )


def examples(kind: Kind, columns: int = COLUMNS) -> Pair:
    """A few predictions and targets; each row of dense targets has one positive."""
    draw = torch.Generator().manual_seed(0)
    if kind == "box":
        corners = torch.rand(ROWS, 2, generator=draw) * 6
        target = torch.cat((corners, corners + 2 + 4 * torch.rand(ROWS, 2, generator=draw)), 1)
        shift = torch.rand(ROWS, 4, generator=draw) - 0.3
        return target + shift * torch.tensor([1.0, 0.7, 1.2, 1.5]), target
    if kind == "distribution":
        logits = torch.randn(ROWS, BINS + 1, generator=draw)
        return logits, torch.rand(ROWS, generator=draw) * (BINS - 1.2) + 0.1
    logits, classes = 2.5 * torch.randn(ROWS, columns, generator=draw), torch.arange(ROWS) % columns
    return logits, classes if kind == "softmax" else torch.nn.functional.one_hot(classes, columns).float()


@dataclass(frozen=True)
class Trial:
    """One loss in one form, and what it answered."""

    loaded: Loaded
    form: Form
    pair: Pair
    answer: Answer

    @property
    def finite(self) -> bool:
        """Whether it answered with numbers."""
        return not self.answer.broken

    def again(self, x: Tensor, t: Tensor) -> Tensor | None:
        """The value for other arguments; None where it raises."""
        return tried(self.loaded, self.form, (x, t)).answer.value

    def same(self, x: Tensor, t: Tensor) -> bool:
        """Whether other arguments give the value of the trial."""
        return near(self.again(x, t), self.answer.value)

    # What is nothing to it

    def moves(self) -> bool:
        """Whether its value depends on the predictions."""
        once = stirred(self.pair[0])
        return not (self.same(once, self.pair[1]) and self.same(stirred(once), self.pair[1]))

    def shifts(self) -> bool:
        """Whether a constant added to all logits of a row changes nothing: so it is for a softmax."""
        return self.same(self.pair[0] + 1.7, self.pair[1])

    def compares_numbers(self) -> bool:
        """Whether a constant added to predictions and targets changes nothing: so it is for an L1 loss."""
        return self.form.takes == "logits" and self.same(self.pair[0] + 1.7, self.pair[1] + 1.7)

    def treats_columns_alike(self) -> bool:
        """Whether the order of the classes is nothing to it: that of a box's four numbers is."""
        logits, targets = self.pair
        for one in (logits, -logits, logits.flip(0), stirred(logits)):
            for by in (1, 2):
                moved = targets.roll(by, -1) if targets.ndim > 1 else (targets + by) % logits.shape[-1]
                here, there = self.again(one, targets), self.again(one.roll(by, -1), moved)
                if here is None or there is None or not near(here.sum(), there.sum()):
                    return False
        return True

    def is_random(self) -> bool:
        """Whether other random numbers give another value."""
        call = functools.partial(call_in_form, self.form, self.loaded)
        return not near(attempt(reseeded(call), *self.pair).value, self.answer.value)

    def is_of_probabilities(self) -> bool:
        """Whether it makes sense on probabilities only.

        On logits all that is outside of [0, 1] counts as one, or a wrong prediction costs less than a less
        wrong one, while on probabilities a right one costs nothing and each step away from it more.
        """
        if self.compares_numbers():
            return False
        wrong = 1 - 2 * self.pair[1]
        if near(self.again(4 * wrong, self.pair[1]), self.again(2 * wrong, self.pair[1])):
            return True
        steps = torch.linspace(0.0005, 0.9995, 15)[:, None, None]

        def course(predictions: Tensor) -> Tensor | None:
            values = [self.again(one, self.pair[1]) for one in predictions]
            kept = [value.sum() for value in values if value is not None]
            return torch.stack(kept) if len(kept) == len(values) else None

        on_logits = course(-torch.linspace(-7, 7, 15)[:, None, None] * wrong)
        on_probabilities = course(torch.where(self.pair[1] > 0, steps, 1 - steps))
        if on_logits is None or on_probabilities is None or not on_probabilities.isfinite().all():
            return False
        size = float(on_probabilities.max() - on_probabilities.min())
        rises = bool((on_logits.diff() > 1e-3 * on_logits.abs().max()).any())
        # right ones cost less than nothing
        rewards = bool(on_logits[0] > 0 > on_logits[-1] + 1e-3 * on_logits[0])
        falls = bool((on_probabilities.diff() < 1e-6 * size).all())
        return (rises or rewards) and falls and abs(float(on_probabilities[-1])) < 0.01 * size

    def counts_the_positive_only(self) -> bool:
        """Whether it is of a softmax: only the true class's probability counts, or each row is normalised."""
        p, t = self.pair[0].sigmoid(), self.pair[1]
        plain = tried(self.loaded, self.form._replace(takes="logits"), (p, t))
        others_less = plain.again(torch.where(t > 0, p, 0.7 * p), t)
        return near(plain.answer.value, others_less) or near(plain.answer.value, plain.again(0.5 * p, t))

    def is_linear(self) -> bool:
        """Whether twice the predictions cost twice as much: so it is where they are logarithms."""
        x, t = self.pair
        plain = self.form._replace(takes="logits")
        once, twice = (tried(self.loaded, plain, (times * x, t)) for times in (1, 2))
        return once.answer.value is not None and near(2 * once.answer.value, twice.answer.value)

    def mirrors(self) -> bool:
        """Whether a mirror, and a shift, of both boxes change nothing: so it is in the right format only."""

        def moved(boxes: Tensor, by: tuple[float, float], flip: float) -> Tensor:
            place, size = box_convert(boxes, "xyxy", "cxcywh").chunk(2, -1)
            return box_convert(torch.cat((place * flip + torch.tensor(by), size), -1), "cxcywh", "xyxy")

        changes = (((20.0, 20.0), -1.0), ((3.0, 5.0), 1.0))
        return all(self.same(*(moved(boxes, *change) for boxes in self.pair)) for change in changes)

    def spares_background(self) -> bool:
        """Whether a row without a class costs nothing where all logits are low: so it is called the right
        way.
        """
        value = self.again(torch.full_like(self.pair[0], -20.0), torch.zeros_like(self.pair[1]))
        return value is not None and float(value.abs().max()) < 1e-3


def tried(loaded: Loaded, form: Form, pair: Pair) -> Trial:
    """One call, its predictions the output of an operation, as those of a network are."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        return call_in_form(form, loaded, x.requires_grad_().clone(), t)

    return Trial(loaded, form, pair, attempt(call, *pair))


def stirred(x: Tensor) -> Tensor:
    """Other predictions."""
    return x * 0.6 + 0.3 * x.roll(1, -1)
