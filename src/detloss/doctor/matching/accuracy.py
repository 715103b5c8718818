"""How far a loss in float32 is from float64."""

import math

import torch
from torch import Tensor

from detloss.doctor.elements import needs_a_positive, rows
from detloss.doctor.match import Match
from detloss.doctor.matching.regression import sample_boxes
from detloss.doctor.subject import Subject


def accuracy(subject: Subject, match: Match | None) -> dict[str, float]:
    """The largest relative error of value and gradient in float32 against float64, up to logits of ±10.

    Against the known loss in float64 where it equals one, else against itself in float64. Empty where there
    is nothing to compare. For boxes: the pairs that identification compares.
    """
    beside = needs_a_positive(subject)
    if subject.kind == "box":
        x, t = sample_boxes(24)
    elif subject.kind == "classification":
        x = torch.linspace(-10, 10, 41, dtype=torch.float64).repeat(2)
        t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(41)
    else:
        columns = subject.classes if subject.kind == "softmax" else subject.bins + 1
        generator = torch.Generator().manual_seed(0)
        x = 4 * torch.randn(24, columns, generator=generator, dtype=torch.float64)
        t = torch.arange(24) % columns
        if subject.kind == "distribution":
            t = torch.linspace(0.25, subject.bins - 1.25, 24, dtype=torch.float64)
    x = x.float().double()
    if t.is_floating_point():
        t = t.float().double()
    narrow = rows(subject, x.float(), t.float() if t.is_floating_point() else t, gradient=True, beside=beside)
    wide = rows(subject, x, t, gradient=True, beside=beside)
    value, slope = wide.value, wide.gradient
    known = match is not None and match.name is not None and match.convention.get("form") != "-log x"
    reference = match.reference if known and match is not None else None  # of a logarithm the eps shows
    if reference is not None and match is not None and match.error < 1e-9:
        leaf = x.clone().requires_grad_()
        value = reference(leaf, t)
        usual = {"ciou": "alpha of the aspect term detached", "mal": "weight detached"}
        if match.convention.get("gradient") == usual.get(str(match.name), "full"):
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        value = value.detach()
    errors: dict[str, float] = {}
    for name, got, true in (("value", narrow.value, value), ("gradient", narrow.gradient, slope)):
        if got is not None and true is not None and got.shape == true.shape:
            worst = _relative(got.double(), true.double())
            errors |= {name: worst} if math.isfinite(worst) else {}  # what is not finite is a finding
    return errors


def _relative(got: Tensor, true: Tensor) -> float:
    worst = float(((got - true).abs() / (true.abs() + 1e-12 + 1e-6 * true.abs().max())).max())
    return float(f"{worst:.2g}")
