"""What a loss answered as numbers to compare: where it raises they are NaN, which equals nothing."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from detloss.lab.doctor.answers import Answer, attempt, rows
from detloss.lab.doctor.forms import Subject

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
