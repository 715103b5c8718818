"""Calling anybody's loss: an exception is an answer, and values come one per row whatever it returns."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detloss.lab.doctor.forms import BINS, Kind, NoTensor, Subject
from detloss.lab.doctor.running import in_a_line

SURE = 40.0  # a logit at which a right prediction costs nothing


@dataclass(frozen=True)
class Answer:
    """What a loss answered.

    Attributes:
        value: what it returned; None where it raised.
        gradient: of the sum of the value, for the predictions; None where not asked for, or there is none.
        error: the exception.
    """

    value: Tensor | None = None
    gradient: Tensor | None = None
    error: BaseException | None = None

    def same(self, other: "Answer") -> bool:
        """Whether both have the same value, to the last bit."""
        return self.value is not None and other.value is not None and torch.equal(self.value, other.value)

    @property
    def broken(self) -> bool:
        """It raised, or its value is not finite."""
        return self.value is None or not bool(self.value.isfinite().all())

    @property
    def infinite_gradient(self) -> bool:
        """The value is finite, and the gradient is not."""
        return not self.broken and self.gradient is not None and not bool(self.gradient.isfinite().all())

    def shown(self) -> str:
        """What went wrong: the exception, NaN or Inf."""
        if self.value is None:
            return in_a_line(self.error) if self.error else "nothing"
        bad = self.value[~self.value.isfinite()]
        if not len(bad):
            return "a gradient that is not finite"
        return "NaN" if bad.isnan().any() else f"{float(bad[0]):g}"


def attempt(
    call: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, gradient: bool = False, seed: int = 0
) -> Answer:
    """The answer of `call(x, t)` on copies of both; warnings are not shown.

    With `gradient` the predictions are the output of an operation, as those of a network are: a loss that
    changes them in place then works as it does in training. Random numbers are those of the seed.
    """
    torch.default_generator.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            leaf = x.detach().clone(memory_format=torch.preserve_format)
            if gradient:
                leaf.requires_grad_()
            value = call(leaf.clone() if gradient else leaf, t.clone())
            if not isinstance(value, Tensor):
                raise NoTensor(value)
            if not gradient or not value.requires_grad:
                return Answer(value.detach())
            (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            return Answer(value.detach(), slope)
        except (Exception, SystemExit) as error:
            return Answer(error=error)


def rows(subject: Subject, x: Tensor, t: Tensor, gradient: bool = False) -> Answer:
    """The value `(M,)` of each row on its own, and the gradient in the shape of the predictions.

    Args:
        subject: the loss; where it has no value without positives, each row is put beside a sure positive,
            and where it ties its elements, into a usual batch of which it then gives the value.
        x: `(M,)` logits for classification, `(M, k)` for the other kinds.
        t: `(M,)`, for boxes `(M, 4)`.
        gradient: whether to take it.

    A loss that reduces is called on one row at a time, where its mean and its sum are the row's own value. A
    row that raises ends it, with the error; a gradient that is missing counts as zero.
    """
    flat = subject.kind == "classification"
    columns, labels = (x.unsqueeze(-1), t.unsqueeze(-1)) if flat else (x, t)
    together = subject.reduction == "none" and not subject.region
    answer = attempt(subject, columns, labels, gradient) if together else None
    if answer is None or (answer.value is not None and answer.value.numel() != len(x)):
        answer = _one_by_one(subject, columns, labels, gradient)
    if answer.value is None:
        return answer
    slope = torch.zeros_like(x) if answer.gradient is None else answer.gradient.reshape(x.shape)
    return Answer(answer.value.reshape(-1), slope if gradient else None)


def _one_by_one(subject: Subject, x: Tensor, t: Tensor, gradient: bool) -> Answer:
    values, slopes, sure = [x.new_zeros(0)], [torch.zeros_like(x[:0])], x.new_full((1, 1), SURE)
    usual, labels = batch(subject, dtype=x.dtype, background=False) if subject.region else (x, t)
    for one, label in zip(x.unsqueeze(1), t.unsqueeze(1)):
        times, at = 1.0, (slice(-1, None), slice(None))
        if subject.region:  # in place of one of a batch
            at = (slice(1, 2), slice(0, x.shape[-1]))
            full, all_labels = usual.clone(), labels.to(t.dtype)
            full[at], all_labels[at if t.ndim > 1 else at[0]] = one, label
            one, label = full, all_labels
        elif subject.divisor:
            times += float(label if subject.divisor == "targets" else (label > 0).sum())
            one, label = torch.cat((sure, one)), torch.cat((torch.ones_like(sure), label))
        answer = attempt(subject, one, label, gradient)
        if answer.value is None:
            return answer
        values.append(answer.value.sum().reshape(1) * times)
        slopes.append((torch.zeros_like(one) if answer.gradient is None else answer.gradient)[at] * times)
    return Answer(torch.cat(values), torch.cat(slopes))


def is_tied(subject: Subject) -> bool:
    """Whether what an element costs depends on the predictions beside it: so it is in a region (Dice), where
    the hardest are chosen, and where weights come from the batch.
    """
    x, t = batch(subject, columns=3)

    def cost(*moved: tuple[tuple[int, int], float]) -> float:
        predictions = x.clone()
        for place, step in moved:
            predictions[place] += step
        value = attempt(subject, predictions, t).value
        return math.nan if value is None else float(value.sum())

    usual = cost()
    pairs = [((0, 0), (4, 0)), ((5, 0), (3, 0))]
    if x.shape[1] > 1:
        pairs += [((1, 1), (2, 0)), ((5, 1), (3, 0))]
        # a softmax ties the classes of a row
        pairs += [((0, 1), (0, 2)), ((0, 0), (0, 1))] if subject.kind == "classification" else []
    for first, second in pairs:
        for step in (3.0, -3.0):
            alone = cost((first, step)) - usual, cost((second, step)) - usual
            both = cost((first, step), (second, step)) - usual
            if abs(both - sum(alone)) > 2e-3 * max(map(abs, (*alone, both))) + 1e-5 * abs(usual):
                return True
    return False


def with_divisor(subject: Subject) -> Subject:
    """The same, knowing what it divides by where it has no finite value without positives.

    The number of positives and the sum of their targets differ on a soft target, alone and beside a sure
    positive: e and e/2, or 2e and e/1.5.
    """
    if subject.kind != "classification" or subject.reduction == "none":
        return subject
    counted, half = replace(subject, divisor="positives"), torch.full((1,), 0.5)
    alone, near = (rows(one, half * 0, half * 0) for one in (subject, counted))
    if alone.value is None or not alone.broken or near.broken:
        return subject
    alone, near = (rows(one, half * 0, half) for one in (subject, counted))
    soft = alone.value is not None and near.value is not None and float(alone.value / near.value) > 1.4
    return replace(subject, divisor="targets" if soft else "positives")


def slopes(subject: Subject, x: Tensor, t: Tensor, times: float = 1) -> Tensor | None:
    """The gradient of each row as the differences of its own values have it (five points, fourth order).

    Predictions as in `rows`, float64. The step suits float32 too; it is so many `times` as large.
    """
    step = times * (4e-3 if subject.kind != "box" else 0.02)
    wide = x.unsqueeze(-1) if x.ndim == 1 else x
    result = torch.zeros_like(wide)
    for column in range(wide.shape[1]):
        for offset, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = wide.clone()
            moved[:, column] += offset * step
            value = rows(subject, moved.reshape(x.shape), t).value
            if value is None:
                return None
            result[:, column] += factor * value.double() / (12 * step)
    return result.reshape(x.shape)


# Usual numbers


def sample_boxes(count: int, seed: int = 0, gap: float = 0.5) -> tuple[Tensor, Tensor]:
    """Pairs of boxes in pixels, xyxy, float64, that are boxes in every format; two of three pairs overlap.

    No side of a pair lies within `gap` of another that it is compared with: no kink is near.
    """
    draw = torch.Generator().manual_seed(seed)
    corner, size = (torch.rand(30 + 30 * count, 2, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    corner, size = 20 + 30 * corner, 10 + 35 * size
    corner[2::3, 1] += 40
    corners = torch.stack((corner, corner + size), 2)  # pair, box, corner, coordinate
    apart = corners[:, 0, :, None] - corners[:, 1, None]
    first, second = corners[apart.abs().amin((1, 2, 3)) > gap][:count].flatten(2).unbind(1)
    return first, second


def examples(kind: Kind, columns: int, count: int = 6) -> tuple[Tensor, Tensor]:
    """Usual predictions and targets of a kind, float64, away from kinks; a positive in each dense row."""
    if kind == "box":
        return sample_boxes(count, seed=11)
    draw, wide = torch.Generator().manual_seed(13), BINS + 1 if kind == "distribution" else columns
    x = 2 * torch.randn(count, wide, generator=draw, dtype=torch.float64)
    if kind == "distribution":
        return x, torch.rand(count, generator=draw, dtype=torch.float64) * (BINS - 1.1)
    classes = torch.arange(count) % columns
    return x, classes if kind == "softmax" else torch.nn.functional.one_hot(classes, columns).double()


def samples(subject: Subject, count: int = 12) -> tuple[Tensor, Tensor]:
    """Usual predictions and targets as `rows` takes them, float64, away from kinks."""
    if subject.kind == "classification":
        return torch.linspace(-3.3, 3.1, count, dtype=torch.float64), (torch.arange(count) % 2).double()
    return examples(subject.kind, subject.classes, count)


def batch(
    subject: Subject,
    count: int = 6,
    dtype: torch.dtype = torch.float32,
    columns: int = 5,
    background: bool = True,
) -> tuple[Tensor, Tensor]:
    """A usual batch as the subject takes it: about a tenth of the elements positive, with `background` every
    other row without one.
    """
    dense = subject.kind == "classification"
    columns = 1 if not subject.form.columns else columns if dense else subject.classes
    x, t = examples(subject.kind, columns, count)
    if dense and (background or columns == 1):
        t[1::2] = 0
    return x.to(dtype), t.to(dtype) if t.is_floating_point() else t


# What it answered, as numbers to compare: where it raises they are NaN, which equals nothing

Formula = Callable[[Tensor, Tensor], Tensor]
TOLERANCE = 1e-3
"""The largest relative deviation at which a loss equals a known one: an eps costs 1e-6 to 1e-4."""


def total(answer: Answer) -> float:
    """The sum of its value."""
    return math.nan if answer.value is None else float(answer.value.sum())


def values(subject: Subject, x: Tensor, t: Tensor) -> Tensor:
    """The value of each row as `rows` takes it, float64."""
    value = rows(subject, x, t).value
    return torch.full((len(x),), math.nan, dtype=torch.float64) if value is None else value.double()


def alone(subject: Subject, x: Tensor, t: Tensor) -> Tensor:
    """The value of each row of a batch on its own, of each element where the batch is `(N, C)`."""
    flat = subject.kind == "classification"
    return values(subject, x.reshape(-1), t.reshape(-1)) if flat else values(subject, x, t)


def together(call: Formula, x: Tensor, t: Tensor) -> Tensor:
    """The value of a batch in the shape in which it comes, float64."""
    value = attempt(call, x, t).value
    return torch.tensor(math.nan, dtype=torch.float64) if value is None else value.double()


def near(first: Answer, second: Answer) -> bool:
    """Whether both have the same values, but for rounding; NaN equals NaN here."""
    a, b = first.value, second.value
    return a is not None and b is not None and a.shape == b.shape and torch.allclose(a, b, 1e-5, 1e-6, True)


def cast(dtype: torch.dtype, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets in another floating dtype; class indices stay."""
    return x.to(dtype), t.to(dtype) if t.is_floating_point() else t


def derivative(formula: Formula, x: Tensor, t: Tensor) -> Tensor:
    """The gradient of a known loss for the predictions."""
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(formula(leaf, t).sum(), leaf)[0]


def deviation(got: Tensor, expected: Tensor) -> float:
    """The largest |got - expected| relative to |expected| + 1 % of its largest; infinite where not finite."""
    if got.shape != expected.shape or not got.isfinite().all():
        return math.inf
    got, expected = got.double(), expected.double()
    size = expected.abs()
    return float(((got - expected).abs() / (size + 0.01 * size.max() + 1e-12)).max())


def shown(numbers: float | Iterable[float]) -> str:
    """A number, or coordinates, for a message: 0.5, (10, 10, 30, 50)."""
    if isinstance(numbers, float) or (isinstance(numbers, Tensor) and numbers.numel() == 1):
        return f"{float(numbers):.4g}"
    return "(" + ", ".join(f"{float(number):.4g}" for number in numbers) + ")"


def shapes(x: Tensor, t: Tensor) -> str:
    """Those of predictions and targets, for a message."""
    return f"predictions {tuple(x.shape)}, targets {tuple(t.shape)}"
