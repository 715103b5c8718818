"""Probes of shapes, layouts and half precision: no rows, one column, transposed, misfits."""

from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.lab.doctor.answers import Answer, attempt, batch, reseeded, rows
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.loading import in_a_line
from detloss.lab.doctor.probe_effects import holds_tensors
from detloss.lab.doctor.reductions import EVERY, MEAN

Found = Iterator[Finding]


def empty(subject: Subject, match: Match | None) -> Found:
    """An image without boxes, a batch without rows, one class."""
    x, t = batch(subject)
    if attempt(subject, x, t, gradient=True).broken:
        return  # it does not work at all: another's finding
    none = attempt(subject, x[:0], t[:0], gradient=True)
    if none.broken:
        yield found("breaks empty", f"{_of(x[:0], t[:0])}: {none.shown()}", what="no rows at all (N = 0)")
    elif subject.reduction != "none" and none.value is not None and none.gradient is None:
        seen = f"{_of(x[:0], t[:0])}: {none.value.sum().item():g}, requires_grad False"
        yield found("empty without gradient", seen)
    if subject.kind != "classification":
        return
    background = attempt(subject, x, torch.zeros_like(t), gradient=True)
    if background.broken or background.infinite_gradient:
        what = "no positives, an image of background"
        yield found("breaks empty", f"all targets 0: {background.shown()}", "error", what=what)
    if subject.form.columns:
        one = attempt(subject, x[:, :1], t[:, :1], gradient=True)
        if one.broken:
            yield found("breaks empty", f"{_of(x[:, :1], t[:, :1])}: {one.shown()}", what="one class (C = 1)")


def _of(x: Tensor, t: Tensor) -> str:
    return f"predictions {tuple(x.shape)}, targets {tuple(t.shape)}"


def ignored_targets(subject: Subject, match: Match | None) -> Found:
    """Targets that it says it ignores raise, or are not ignored."""
    index = subject.loaded.defaults.get("ignore_index")
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
    other = attempt(subject, _transposed(x), _transposed(t), gradient=True)
    if usual.broken or usual.value is None:
        return
    if not other.broken and other.value is not None and torch.allclose(other.value, usual.value, 1e-4, 1e-6):
        return
    seen = f"predictions {tuple(x.shape)} with strides {_transposed(x).stride()}: "
    if other.value is None:
        yield found("not contiguous", seen + other.shown(), what="raises")
    elif usual.same(attempt(reseeded(subject), x, t)):  # random numbers fall otherwise there
        seen += f"{other.value.sum():g} instead of {usual.value.sum():g}"
        yield found("not contiguous", seen, what="has another value")


def _transposed(values: Tensor) -> Tensor:
    """The same values with other strides; a clone keeps them."""
    return values.repeat_interleave(2)[::2] if values.ndim == 1 else values.t().contiguous().t()


def half_precision(subject: Subject, match: Match | None) -> Found:
    """float16 and bfloat16 raise, overflow, or are far off at moderate logits.

    Not asked of a Module whose tensors `.to` casts.
    """
    x, t = _moderate(subject)
    labels = t.is_floating_point()
    if holds_tensors(subject) or rows(subject, x, t, gradient=True).broken:
        return
    told: dict[str, str] = {}
    for dtype in (torch.float16, torch.bfloat16):
        # boxes and soft labels are rounded too; what is compared is the arithmetic
        narrow, label = x.to(dtype), t.to(dtype) if labels else t
        true = rows(subject, narrow.float(), label.float() if labels else label).value
        got = rows(subject, narrow, label, gradient=True)
        raises = got.value is None or true is None
        seen = got.shown() if raises else _off(subject, x, t, got, true)
        if seen:
            told[str(dtype).removeprefix("torch.")] = seen
    if told:
        yield found(
            "half", "; ".join(f"{name}: {seen}" for name, seen in told.items()), what=" and ".join(told)
        )


def _off(subject: Subject, x: Tensor, t: Tensor, got: Answer, true: Tensor | None) -> str:
    assert got.value is not None
    assert true is not None
    value, true = got.value.double(), true.double()
    bad = ~value.isfinite()
    if got.gradient is not None:
        slope = got.gradient.isfinite()
        bad = bad | ~(slope if slope.ndim == 1 else slope.all(1))
    # a loss near 0 is a difference of larger numbers
    far = (value - true).abs() / (true.abs() + (0.3 if subject.kind == "box" else 0.2)) > 0.1
    wrong = bad if bad.any() else far
    if not wrong.any():
        return ""
    i = int(wrong.int().argmax())
    predicted = ", ".join(f"{v:g}" for v in x[i].reshape(-1).tolist()[:5])
    seen = f"prediction {predicted}, target {', '.join(f'{v:g}' for v in t[i].reshape(-1).tolist())}: "
    seen += f"value {float(value[i]):.4g} (float32 {float(true[i]):.4g})"
    return seen + (", its gradient not finite" if bad[i] and value[i].isfinite() else "")


def _moderate(subject: Subject) -> tuple[Tensor, Tensor]:
    """Predictions and targets that networks have: logits of ±12, boxes of up to 600 pixels."""
    if subject.kind == "classification":
        x = torch.tensor([-12.0, -9.5, -5, -1, 0, 1, 5, 9.5, 12]).repeat(2)
        return x, torch.tensor([0.0, 1.0]).repeat_interleave(9)
    x, t = batch(subject)
    if subject.kind == "box":
        return (x * 8).round(), (t * 8).round()
    x = x.clone()
    x[0, 0], x[1, 1] = 12, -12
    return x, t


def broadcast(subject: Subject, match: Match | None) -> Found:
    """Targets whose shape does not fit are accepted, and mean something else."""
    words = match.convention.get("reduction") if match is not None else None
    inside = list(_spread_inside(subject, words))
    yield from inside
    if words in EVERY.values() and not inside:
        x, t = batch(subject, 3, columns=1)
        flat = subject.kind == "classification"
        each = rows(subject, x.view(-1) if flat else x, t.view(-1) if flat else t)
        right, got = (
            float("nan") if a.value is None else float(a.value.mean()) for a in (each, attempt(subject, x, t))
        )
        yield found(
            "every with every", f"{_of(x, t)}: {got:.6g}; its 3 values alone are {right:.6g} on average"
        )
    told = []
    for x, t in _misfits(subject):
        answer = attempt(subject.loaded, x, t)
        if answer.value is not None and answer.value.isfinite().any():
            told.append((_of(x, t), f"a result of shape {tuple(answer.value.shape)}"))
    if told:
        seen = f"{told[0][0]}: {told[0][1]}" + "".join(f"; so do {given}" for given, _ in told[1:])
        yield found("one box with all" if subject.kind == "box" else "spread", seen)
    if subject.kind == "box":
        x, t = batch(subject)
        answer = attempt(subject.loaded, x, t)
        if answer.value is not None and answer.value.shape == (len(x), 1):
            yield found("column result", f"{_of(x, t)}: a result of shape {tuple(answer.value.shape)}")


def _misfits(subject: Subject) -> Iterator[tuple[Tensor, Tensor]]:
    x, t = batch(subject)
    usual = attempt(subject.loaded, x, t)
    if subject.kind == "classification":
        if not subject.form.columns:
            x, t = x.view(-1), t.view(-1)
            if not attempt(subject.loaded, x, t).broken:
                yield x, t.view(-1, 1)
                yield x, t[:1]
        elif not usual.broken:
            yield x, t[:, :1]
            yield x, t[:1]
            yield x[:5, :5], t[0]
            yield x, t.view(-1)[:1]
    elif (
        subject.kind == "box"
        and not usual.broken
        and usual.value is not None
        and usual.value.numel() == len(x)
    ):
        yield x, t[:1]
        yield x[:1], t


def _spread_inside(subject: Subject, words: str | None) -> Found:
    """Predictions and targets of one shape that are broadcast against each other within the loss."""
    if subject.kind != "classification" or not subject.form.columns or subject.region:
        return
    for shape in ((6, 1), (6, 5)):
        x, t = batch(subject, columns=shape[1])
        answer, alone = attempt(subject, x, t), rows(subject, x.view(-1), t.view(-1))
        if answer.broken or alone.broken or answer.value is None or alone.value is None:
            continue
        each, got = alone.value.double(), answer.value.double()
        spread = got.numel() > x.numel()
        if words in (MEAN, "sum"):
            right = float(each.sum() if words == "sum" else each.mean())
            spread = abs(float(got) - right) > 1e-3 * (1e-3 + abs(right))
        if spread:
            seen = (
                f"{_of(x, t)}: a result of shape {tuple(got.shape)}, {float(got.mean()):.6g} on average; the "
            )
            seen += f"elements alone give {float(each.mean()):.6g} on average"
            yield found("spread inside", seen, shape=shape, count=shape[0] * shape[1])
            return
