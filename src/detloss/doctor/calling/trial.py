"""One loss called once in one form, on a few numbers."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.doctor.calling.load import COLUMNS, Loaded
from detloss.doctor.subject import Form, Kind

ROWS, BINS = 6, 8
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Trial:
    """One loss in one form, and what it answered."""

    loaded: Loaded
    form: Form
    value: Tensor | None
    error: BaseException | None

    @property
    def pair(self) -> Pair:
        """What it was called with."""
        return examples(self.form.kind, self.loaded.columns)

    @property
    def finite(self) -> bool:
        """Whether it answered with numbers."""
        return self.value is not None and bool(self.value.isfinite().all())


def examples(kind: Kind, columns: int = COLUMNS) -> Pair:
    """A few predictions and targets; each row of dense targets has one positive."""
    draw = torch.Generator().manual_seed(0)
    if kind == "box":
        corners = torch.rand(ROWS, 2, generator=draw) * 6
        target = torch.cat((corners, corners + 2 + 4 * torch.rand(ROWS, 2, generator=draw)), 1)
        shift = torch.rand(ROWS, 4, generator=draw) - 0.3
        return target + shift * torch.tensor([1.0, 0.7, 1.2, 1.5]), target
    if kind == "distribution":
        return (
            torch.randn(ROWS, BINS + 1, generator=draw),
            torch.rand(ROWS, generator=draw) * (BINS - 1.2) + 0.1,
        )
    logits = 2.5 * torch.randn(ROWS, columns, generator=draw)
    classes = torch.arange(ROWS) % columns
    if kind == "softmax":
        return logits, classes
    return logits, torch.nn.functional.one_hot(classes, columns).float()


def attempt_form(loaded: Loaded, form: Form, pair: Pair) -> Trial:
    """One call, its predictions the output of an operation, as those of a network are."""
    torch.default_generator.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            leaf = pair[0].clone().requires_grad_()
            value = form.bind(loaded)(leaf.clone(), pair[1].clone()).detach()
            return Trial(loaded, form, value, None)
        except (Exception, SystemExit) as error:
            return Trial(loaded, form, None, error)


def near(a: Tensor, b: Tensor) -> bool:
    """Whether both are equal, but for rounding and an eps."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-3, atol=2e-5)


def again(trial: Trial, predictions: Tensor, targets: Tensor) -> Tensor | None:
    """The value for other arguments; None where it raises."""
    return attempt_form(trial.loaded, trial.form, (predictions, targets)).value
