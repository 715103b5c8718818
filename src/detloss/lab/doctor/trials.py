"""One loss called once in one form on a few numbers, and what such calls tell about it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.boxes import box_convert
from detloss.lab.doctor.answers import Answer, attempt, examples
from detloss.lab.doctor.forms import BINS, Form, Kind, Subject
from detloss.lab.doctor.loading import COLUMNS, Loaded

ROWS = 6
Pair = tuple[Tensor, Tensor]


def near(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are there and equal, but for rounding and an eps."""
    there = a is not None and b is not None and a.shape == b.shape
    return there and torch.allclose(a, b, rtol=2e-3, atol=2e-5)  # type: ignore[arg-type]


def few(kind: Kind, columns: int = COLUMNS) -> Pair:
    """A few predictions and targets in float32; of boxes pairs that overlap."""
    x, t = examples(kind, columns, ROWS)
    if kind == "box":
        x = t + 8 * torch.rand(t.shape, generator=torch.Generator().manual_seed(0)) - 2.4
    return x.float(), t.float() if t.is_floating_point() else t


@dataclass(frozen=True)
class Trial:
    """One loss in one form, and what it answered."""

    loaded: Loaded
    form: Form
    pair: Pair
    answer: Answer

    @property
    def works(self) -> bool:
        """Whether it answers with numbers, and these depend on the predictions."""
        if self.answer.broken:
            return False
        once = stirred(self.pair[0])
        return not (self.same(once, self.pair[1]) and self.same(stirred(once), self.pair[1]))

    def other(self, **flags: Any) -> "Trial":
        """The same in another form."""
        return tried(self.loaded, self.form._replace(**flags), self.pair)

    def again(self, x: Tensor, t: Tensor) -> Tensor | None:
        """The value for other arguments; None where it raises."""
        return tried(self.loaded, self.form, (x, t)).answer.value

    def same(self, x: Tensor, t: Tensor) -> bool:
        """Whether other arguments give the value of the trial."""
        return near(self.again(x, t), self.answer.value)

    # What is nothing to it

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
        again = attempt(Subject(self.loaded, self.form), *self.pair, seed=1)
        return not near(again.value, self.answer.value)

    def mirrors(self) -> bool:
        """Whether a mirror, and a shift, of both boxes change nothing: so it is in the right format only."""

        def moved(boxes: Tensor, flip: float) -> Tensor:
            place, size = box_convert(boxes, "xyxy", "cxcywh").chunk(2, -1)
            return box_convert(torch.cat((place * flip + 100, size), -1), "cxcywh", "xyxy")

        return all(self.same(*(moved(boxes, flip) for boxes in self.pair)) for flip in (-1, 1))

    # What its predictions are

    def course(self) -> Tensor | None:
        """What it costs on the way from surely wrong predictions to right ones; None where it raises."""
        x, t = self.pair
        if self.form.kind == "box":
            ways = [[t + off * 100 for off in (1, 0.5, 0)]]
        elif self.form.kind == "distribution":
            bins, places = torch.arange(x.shape[-1]), [(t + off) % BINS for off in (BINS / 2, BINS / 4, 0)]
            ways = [[-(bins - place[:, None]).square() for place in places]]
        else:  # some refuse large ones
            ways = [[step * self.right for step in torch.linspace(-end, end, 15)] for end in (7, 4)]
        for way in ways:
            values = [value.sum() for x in way if (value := self.again(x, t)) is not None]
            if len(values) == len(way):
                return torch.stack(values)
        return None

    @property
    def right(self) -> Tensor:
        """Which way each logit should go."""
        x, t = self.pair
        return 2.0 * (t if t.is_floating_point() else F.one_hot(t, x.shape[-1])) - 1

    def is_sensible(self) -> bool:
        """Whether right predictions cost less than wrong ones: so it is in the form that it is meant for."""
        course, (x, t) = self.course(), self.pair
        if course is None or not course[-1] < course[0] - 1e-3 * course.abs().max():
            return False
        if self.form.kind not in ("classification", "softmax"):
            return True
        others = (t.roll(by, -1) if t.is_floating_point() else (t + by) % x.shape[-1] for by in (1, -1))
        own, *costs = (self.again(4 * self.right, target) for target in (t, *others))
        size = 1e-3 * course.abs().max()
        return own is not None and all(cost is not None and cost.sum() > own.sum() + size for cost in costs)

    def is_of_probabilities(self) -> bool:
        """Whether it makes sense on probabilities only.

        On logits all that is outside of [0, 1] counts as one, or a wrong prediction costs less than a less
        wrong one, or a right one less than nothing, while on probabilities a right one costs nothing and each
        step away from it more.
        """
        if self.compares_numbers():
            return False
        logits, probabilities = self.course(), self.other(takes="probabilities").course()
        if logits is None or probabilities is None:
            return False
        size = float(probabilities.max() - probabilities.min())
        flat = logits[:6].std() + logits[-6:].std() < 1e-4 * logits.abs().max()
        rises = bool((logits.diff() > 1e-3 * logits.abs().max()).any())
        rewards = bool(logits[0] > 0 > logits[-1] + 1e-3 * logits[0])
        exactly = (probabilities.diff() < 1e-6 * size).all() and abs(float(probabilities[-1])) < 0.01 * size
        bounded = (logits[:4] - logits[0]).abs().max() < 0.1 * (logits.max() - logits.min())  # as Dice is
        nearly = bounded and (probabilities.diff() < 0.02 * size).all() and probabilities[-1] < logits[-1]
        return bool(flat or ((rises or rewards) and (exactly or nearly)))

    def counts_the_positive_only(self) -> bool:
        """Whether it is of a softmax: only the true class's probability counts, or each row is normalised."""
        p, t = self.pair[0].sigmoid(), self.pair[1]
        plain = tried(self.loaded, self.form._replace(takes="logits"), (p, t))
        return plain.same(torch.where(t > 0, p, 0.7 * p), t) or plain.same(0.5 * p, t)

    def is_linear(self) -> bool:
        """Whether twice the predictions cost twice as much: so it is where they are logarithms."""
        plain = self.other(takes="logits")
        once, twice = plain.answer.value, plain.again(2 * self.pair[0], self.pair[1])
        return once is not None and near(2 * once, twice)

    def spares_background(self) -> bool:
        """Whether a row without a class costs nothing where all logits are low, as in the right form."""
        value = self.again(torch.full_like(self.pair[0], -20.0), torch.zeros_like(self.pair[1]))
        return value is not None and float(value.abs().max()) < 1e-3


def tried(loaded: Loaded, form: Form, pair: Pair) -> Trial:
    """One call, its predictions the output of an operation, as those of a network are."""

    call = Subject(loaded, form)
    return Trial(loaded, form, pair, attempt(lambda x, t: call(x.requires_grad_().clone(), t), *pair))


def stirred(x: Tensor) -> Tensor:
    """Other predictions."""
    return x * 0.6 + 0.3 * x.roll(1, -1)
