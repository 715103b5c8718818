"""Probes of shapes, layouts and half precision: no rows, one column, transposed, misfits."""

import torch
from torch import Tensor

from detloss.lab.doctor.answers import (
    Answer,
    alone,
    attempt,
    batch,
    cast,
    near,
    rows,
    shapes,
    shown,
    together,
    total,
    values,
)
from detloss.lab.doctor.catalogue import Found, found
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.probe_effects import holds_tensors
from detloss.lab.doctor.reductions import EVERY, MEAN
from detloss.lab.doctor.running import in_a_line


def empty(subject: Subject, match: Match | None) -> Found:
    """An image without boxes, a batch without rows, one class."""
    x, t = batch(subject)
    if attempt(subject, x, t, gradient=True).broken:
        return  # it does not work at all: another's finding
    none = attempt(subject, x[:0], t[:0], gradient=True)
    if none.broken:
        yield found("breaks empty", f"{shapes(x[:0], t[:0])}: {none.shown()}", what="no rows at all (N = 0)")
    elif subject.reduction != "none" and none.gradient is None:
        seen = f"{shapes(x[:0], t[:0])}: {total(none):g}, requires_grad False"
        yield found("empty without gradient", seen)
    if subject.kind != "classification":
        return
    background = attempt(subject, x, torch.zeros_like(t), gradient=True)
    if background.broken or background.infinite_gradient:
        what = "no positives, an image of background"
        yield found("breaks empty", f"all targets 0: {background.shown()}", "error", what=what)
    x, t = x[:, :1], t[:, :1]
    if subject.form.columns and (one := attempt(subject, x, t, gradient=True)).broken:
        yield found("breaks empty", f"{shapes(x, t)}: {one.shown()}", what="one class (C = 1)")


def ignored_targets(subject: Subject, match: Match | None) -> Found:
    """Targets that it says it ignores raise, or are not ignored."""
    index = getattr(subject.loaded.object, "ignore_index", subject.loaded.takes.get("ignore_index"))
    if subject.kind != "softmax" or not isinstance(index, int) or subject.form.targets == "one-hot":
        return
    x, t = batch(subject)
    if attempt(subject, x, t, gradient=True).broken:
        return
    t[0] = index
    answer = attempt(subject, x, t, gradient=True)
    if answer.error is not None:
        yield found("ignore raises", f"targets {t.tolist()}: {in_a_line(answer.error)}", index=index)
    elif answer.gradient is not None and answer.gradient[0].any():
        seen = f"targets {t.tolist()}: the prediction of the first row gets a gradient"
        yield found("not ignored", seen, index=index)


def transposed(subject: Subject, match: Match | None) -> Found:
    """A transposed tensor, as detection heads give, raises or has another value."""
    x, t = batch(subject)
    usual = attempt(subject, x, t, gradient=True)
    turned = _other_strides(x)
    other = attempt(subject, turned, _other_strides(t), gradient=True)
    if usual.broken or near(other, usual):
        return
    seen = f"predictions {tuple(x.shape)} with strides {turned.stride()}: "
    if other.value is None:
        yield found("not contiguous", seen + other.shown(), what="raises")
    elif usual.same(attempt(subject, x, t, seed=1)):  # random numbers fall otherwise there
        seen += f"{total(other):g} instead of {total(usual):g}"
        yield found("not contiguous", seen, what="has another value")


def _other_strides(values: Tensor) -> Tensor:
    """The same values; a clone keeps the strides."""
    return values.repeat_interleave(2)[::2] if values.ndim == 1 else values.t().contiguous().t()


def half_precision(subject: Subject, match: Match | None) -> Found:
    """float16 and bfloat16 raise, overflow, or are far off at moderate logits.

    Not asked of a Module whose tensors `.to` casts.
    """
    x, t = _moderate(subject)
    if holds_tensors(subject) or rows(subject, x, t, gradient=True).broken:
        return
    told = {}
    for dtype in (torch.float16, torch.bfloat16):
        # boxes and soft labels are rounded too; what is compared is the arithmetic
        narrow = cast(dtype, x, t)
        got, true = rows(subject, *narrow, gradient=True), values(subject, *cast(torch.float32, *narrow))
        if seen := _off(got, true, 0.3 if subject.kind == "box" else 0.2, x, t):
            told[str(dtype).removeprefix("torch.")] = seen
    if told:
        seen = "; ".join(f"{name}: {seen}" for name, seen in told.items())
        yield found("half", seen, what=" and ".join(told))


def _moderate(subject: Subject) -> tuple[Tensor, Tensor]:
    """Predictions and targets that networks have: logits of ±12, boxes of up to 600 pixels."""
    if subject.kind == "classification":
        x = torch.tensor([-12.0, -9.5, -5, -1, 0, 1, 5, 9.5, 12]).repeat(2)
        return x, torch.tensor([0.0, 1.0]).repeat_interleave(9)
    x, t = batch(subject)
    if subject.kind == "box":
        return (x * 8).round(), (t * 8).round()
    return x.index_put((torch.arange(2), torch.arange(2)), torch.tensor([12.0, -12.0])), t


def _off(got: Answer, true: Tensor, least: float, x: Tensor, t: Tensor) -> str:
    """The first row that is not finite, or far off; a loss below `least` is made of larger numbers."""
    if got.value is None or got.gradient is None:
        return got.shown()
    value = got.value.double()
    bad = ~(value.isfinite() & got.gradient.reshape(len(x), -1).isfinite().all(1))
    wrong = bad if bad.any() else (value - true).abs() > 0.1 * (true.abs() + least)
    if not wrong.any():
        return ""
    i = int(wrong.int().argmax())
    given = (", ".join(f"{number:g}" for number in one[i].reshape(-1)[:5].tolist()) for one in (x, t))
    seen = "prediction {}, target {}: ".format(*given)
    seen += f"value {shown(value[i])} (float32 {shown(true[i])})"
    return seen + (", its gradient not finite" if bad[i] and value[i].isfinite() else "")


def broadcast(subject: Subject, match: Match | None) -> Found:
    """Targets whose shape does not fit are accepted, and mean something else."""
    words = match.convention.get("reduction") if match is not None else None
    inside = list(_spread_inside(subject, words))
    yield from inside
    if words in EVERY.values() and not inside:
        x, t = batch(subject, 3, columns=1)
        got, right = (float(one.mean()) for one in (together(subject, x, t), alone(subject, x, t)))
        seen = f"{shapes(x, t)}: {got:.6g}; its 3 values alone are {right:.6g} on average"
        yield found("every with every", seen)
    results = [(shapes(x, t), together(subject.loaded, x, t)) for x, t in _misfits(subject)]
    told = [(given, tuple(value.shape)) for given, value in results if value.isfinite().any()]
    if told:
        more = "".join(f"; so do {given}" for given, _ in told[1:])
        seen = f"{told[0][0]}: a result of shape {told[0][1]}{more}"
        yield found("spread", seen)


def _misfits(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """Batches whose shapes do not fit, for a loss that takes one whose shapes do."""
    x, t = batch(subject)
    if subject.kind != "classification":
        return []
    if subject.form.columns:
        pairs = [(x, t[:, :1]), (x, t[:1]), (x[:5, :5], t[0]), (x, t.view(-1)[:1])]
    else:
        x, t = x.view(-1), t.view(-1)
        pairs = [(x, t.view(-1, 1)), (x, t[:1])]
    return pairs if together(subject.loaded, x, t).isfinite().all() else []


def _spread_inside(subject: Subject, words: str | None) -> Found:
    """Predictions and targets of one shape that are broadcast against each other within the loss."""
    if subject.kind != "classification" or not subject.form.columns or subject.region:
        return
    for shape in ((6, 1), (6, 5)):
        x, t = batch(subject, columns=shape[1])
        got, each = together(subject, x, t), alone(subject, x, t)
        if not (got.isfinite().all() and each.isfinite().all()):
            continue
        spread = got.numel() > x.numel()
        if words in (MEAN, "sum"):
            right = float(each.sum() if words == "sum" else each.mean())
            spread = abs(float(got) - right) > 1e-3 * (1e-3 + abs(right))
        if spread:
            averages = f"{float(got.mean()):.6g} on average; the elements alone give {float(each.mean()):.6g}"
            seen = f"{shapes(x, t)}: a result of shape {tuple(got.shape)}, {averages} on average"
            yield found("spread inside", seen, shape=shape, count=x.numel())
            return
