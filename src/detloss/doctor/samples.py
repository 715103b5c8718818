"""Usual predictions and targets that the probes call a loss with."""

from dataclasses import replace

import torch
from torch import Tensor

from detloss.doctor.elements import attempt
from detloss.doctor.extremes import taken_as
from detloss.doctor.match import Match
from detloss.doctor.matching.regression import sample_boxes
from detloss.doctor.subject import Subject


def samples(subject: Subject, match: Match | None, count: int = 12) -> tuple[Tensor, Tensor]:
    """Usual predictions and targets, rows in float64, away from kinks."""
    generator = torch.Generator().manual_seed(11)
    if subject.kind == "box":
        predicted, true = sample_boxes(count, seed=11)
        return taken_as(subject, match, predicted), taken_as(subject, match, true)
    if subject.kind == "classification":
        x = torch.linspace(-3.3, 3.1, count, dtype=torch.float64)
        return x, (torch.arange(count) % 2).double()
    columns = subject.classes if subject.kind == "softmax" else subject.bins + 1
    x = torch.randn(count, columns, generator=generator, dtype=torch.float64)
    if subject.kind == "softmax":
        return x, torch.arange(count) % columns
    return x, torch.rand(count, generator=generator, dtype=torch.float64) * (subject.bins - 1.1)


def batch(
    subject: Subject,
    match: Match | None,
    count: int = 6,
    dtype: torch.dtype = torch.float32,
    columns: int = 5,
) -> tuple[Tensor, Tensor]:
    """A usual batch as `Subject.call` takes it: about a tenth of the elements positive."""
    if subject.kind != "classification":
        x, t = samples(subject, match, count)
        return x.to(dtype), t.to(dtype) if t.is_floating_point() else t
    columns = columns if subject.columns else 1
    generator = torch.Generator().manual_seed(13)
    x = 2 * torch.randn(count, columns, generator=generator, dtype=torch.float64)
    t = torch.zeros(count, columns, dtype=torch.float64)
    hits = torch.arange(max(1, count // 2)) * 2 % count
    t[hits, hits % columns] = 1
    return x.to(dtype), t.to(dtype)


def without_float64(subject: Subject) -> Subject:
    """The same loss, where it does not run in float64, which most is compared in: then called in float32."""
    x, t = batch(subject, None, dtype=torch.float64)
    if attempt(subject.call, x, t).value is not None:
        return subject

    def call(x: Tensor, t: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return subject.call(x, t)
        return subject.call(x.float(), t.float() if t.is_floating_point() else t).to(x.dtype)

    return subject if attempt(call, x, t).value is None else replace(subject, call=call)
