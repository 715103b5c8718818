"""Calling anybody's loss: an exception is an answer, and values come one a row whatever it returns."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from detloss.doctor.subject import Subject

Divisor = Literal["", "positives", "targets"]
SURE = 40.0  # a logit at which a right prediction costs nothing


@dataclass(frozen=True)
class Answer:
    """What a loss answered.

    Attributes:
        value: what it returned; None where it raised.
        gradient: of the sum of the value, for the predictions; None where not asked for, or there is none.
        error: the exception in a line, "" where there is none.
        backward: whether the error came in the backward pass.
    """

    value: Tensor | None = None
    gradient: Tensor | None = None
    error: str = ""
    backward: bool = False


def attempt(call: Any, predictions: Tensor, targets: Tensor, gradient: bool = False) -> Answer:
    """The answer of `call(predictions, targets)` on copies of both; warnings are not shown.

    With `gradient` the predictions are the output of an operation, as those of a network are: a loss that
    changes them in place then works as it does in training. What draws random numbers draws the same ones.
    """
    value = None
    torch.default_generator.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            leaf = predictions.detach().clone(memory_format=torch.preserve_format)
            if not gradient:
                return Answer(_checked(call(leaf, targets.clone())).detach())
            leaf.requires_grad_()
            value = _checked(call(leaf.clone(), targets.clone()))
            if not value.requires_grad:
                return Answer(value.detach())
            (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            return Answer(value.detach(), found)
        except Exception as error:
            return Answer(value=None, error=in_a_line(error), backward=value is not None)


def _checked(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"it returned {type(value).__name__}, not a tensor")
    return value


def in_a_line(error: BaseException) -> str:
    """An exception as a line of text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def rows(
    subject: Subject, predictions: Tensor, targets: Tensor, gradient: bool = False, beside: Divisor = ""
) -> Answer:
    """The value `(M,)` of each row on its own, and the gradient in the shape of the predictions.

    Args:
        subject: the loss.
        predictions: `(M,)` logits for classification, `(M, k)` for the other kinds.
        targets: `(M,)`, for boxes `(M, 4)`.
        gradient: whether to take it.
        beside: what the loss divides by where it has no value without positives, "" where it has one; each
            row is then put beside a sure positive.

    A loss that reduces is called on one row at a time, where its mean and its sum are the row's own value. A
    row that raises ends it, with the error; a gradient that is missing counts as zero.
    """
    flat = subject.kind == "classification"
    columns = predictions.unsqueeze(-1) if flat else predictions
    labels = targets.unsqueeze(-1) if flat else targets
    if subject.reduction == "none" and not beside:
        answer = attempt(subject.call, columns, labels, gradient)
        if answer.error or (answer.value is not None and answer.value.numel() == len(predictions)):
            return _shaped(answer, predictions, gradient)
    values, gradients = [], []
    sure = columns.new_full((1, 1), SURE)
    for i in range(len(predictions)):
        one, label, times = columns[i : i + 1], labels[i : i + 1], 1.0
        if beside:
            times = 1 + float(label if beside == "targets" else (label > 0).sum())
            one, label = torch.cat((sure, one)), torch.cat((torch.ones_like(sure), label))
        answer = attempt(subject.call, one, label, gradient)
        if answer.value is None:
            return answer
        values.append(answer.value.sum() * times)
        got = torch.zeros_like(one) if answer.gradient is None else answer.gradient
        gradients.append(got[-1:] * times)
    if not values:
        return Answer(predictions.new_zeros(0), torch.zeros_like(predictions))
    return _shaped(
        Answer(torch.stack(values), torch.cat(gradients) if gradient else None), predictions, gradient
    )


def _shaped(answer: Answer, predictions: Tensor, gradient: bool) -> Answer:
    if answer.value is None:
        return answer
    slope = answer.gradient
    if gradient:
        slope = torch.zeros_like(predictions) if slope is None else slope.reshape(predictions.shape)
    return Answer(answer.value.reshape(-1), slope)


def needs_a_positive(subject: Subject) -> Divisor:
    """What a loss divides by that has no finite value without positives: their number, or their targets' sum.

    "" for all others. The two differ on a soft target, alone and beside a sure positive: e and e/2, or 2e and
    e/1.5.
    """
    if subject.kind != "classification" or subject.reduction == "none":
        return ""
    at = torch.zeros(1)
    alone, near = rows(subject, at, at), rows(subject, at, at, beside="positives")
    if alone.value is None or near.value is None or alone.value.isfinite().all():
        return ""
    if not near.value.isfinite().all():
        return ""
    half = torch.full((1,), 0.5)
    alone, near = rows(subject, at, half), rows(subject, at, half, beside="positives")
    if alone.value is None or near.value is None:
        return "positives"
    return "targets" if abs(float(alone.value / near.value) - 1.5) < 0.1 else "positives"


def slopes(
    subject: Subject, predictions: Tensor, targets: Tensor, beside: Divisor = "", times: float = 1
) -> Tensor | None:
    """The gradient of each row as the differences of its own values have it (five points, fourth order).

    Predictions as in `rows`, float64. The step suits arithmetic in float32 too; a kink within it shows. It is
    so many `times` as large.
    """
    step = times * (4e-3 if subject.kind != "box" else 0.02)
    flat = predictions.ndim == 1
    result = torch.zeros_like(predictions)
    for column in range(1 if flat else predictions.shape[1]):
        total = torch.zeros(len(predictions), dtype=torch.float64)
        for offset, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = predictions.clone()
            (moved if flat else moved[:, column]).add_(offset * step)
            value = rows(subject, moved, targets, beside=beside).value
            if value is None:
                return None
            total += factor * value.double()
        (result if flat else result[:, column]).copy_(total / (12 * step))
    return result
