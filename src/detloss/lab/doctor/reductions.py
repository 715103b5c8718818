"""What becomes of the values of a batch: none, mean, sum, by which divisor, and what else people do."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor.answers import attempt, rows, sample_boxes
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import bce

LATE = {one: f"{one} of the cross entropy first, the weight after it" for one in ("mean", "sum")}
EVERY = {one: f"{one} over every prediction with every target" for one in ("mean", "sum")}
MEAN, OTHER = "mean over all elements", "other"


def reduction(subject: Subject) -> dict[str, Any]:
    """What happens to the values of a batch: in words, and where it is none of the usual ones the divisor."""
    words, divisor = _reduction(subject)
    return {"reduction": words} | ({"divisor": divisor} if divisor is not None else {})


def _reduction(subject: Subject) -> tuple[str, float | None]:
    x, t = _numbers(subject)
    flat = subject.kind == "classification"
    count, columns = (x.shape[0], x.shape[1]) if flat else (len(x), 1)
    each = rows(subject, x.view(-1) if flat else x, t.view(-1) if flat else t).value
    whole = attempt(subject, x, t).value
    if each is None or whole is None:
        return OTHER, None
    whole, each = whole.double(), each.double()

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a.reshape(-1), b, 1e-3, 1e-6)

    if whole.numel() == each.numel() > 1:
        return "none" if same(whole, each) else OTHER, None
    if subject.kind == "box" and whole.numel() == count * count:
        return "none, every box with every other", None
    if whole.numel() == count and columns > 1:
        table = each.view(count, columns)
        sums = {"sum over classes": table.sum(1), "mean over classes": table.mean(1)}
        return next((f"none, {name}" for name, of in sums.items() if same(whole, of)), OTHER), None
    if whole.numel() != 1:
        return OTHER, None
    kept = each.isfinite()  # -log IoU of boxes apart is not
    if not kept.all():
        x, t, each, count = x[kept], t[kept], each[kept], int(kept.sum())
        whole = _whole(subject, x, t)
    if whole is None or not each.any():
        return OTHER, None
    divisor = float(each.sum() / whole.reshape(()))
    names = {"sum": 1, MEAN if flat else "mean over rows": count * columns}
    if columns > 1:
        names |= {"sum over classes, mean over rows": count, "mean over classes, sum over rows": columns}
    positives = {"sum divided by the number of positives": 3} if flat else {}
    for name, expected in (names | positives).items():
        if abs(divisor - expected) < 2e-3 * expected:
            soft = name in positives and _by_the_sum_of_targets(subject, x, t)
            return "sum divided by the sum of targets" if soft else name, None
    unusual = _late(subject, x, t, whole) or _every(subject) or _by_class(subject, x, t, whole)
    return (unusual, None) if unusual else (OTHER, float(f"{divisor:.4g}"))


def _numbers(subject: Subject) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    if subject.kind == "box":
        return sample_boxes(7)
    if subject.kind == "classification":
        count, columns = (4, 6) if subject.form.columns else (7, 1)
        x = torch.randn(count, columns, generator=draw, dtype=torch.float64)
        t = torch.zeros_like(x)
        t.view(-1)[[1, 2, 4] if columns == 1 else [1, 8, 15]] = 1  # at most one per row: indices can say that
        return x, t
    wide = subject.classes if subject.kind == "softmax" else BINS + 1
    x = torch.randn(7, wide, generator=draw, dtype=torch.float64)
    bins = torch.linspace(0.3, BINS - 1.3, 7, dtype=torch.float64)
    return x, torch.arange(7) % wide if subject.kind == "softmax" else bins


def _whole(subject: Subject, x: Tensor, t: Tensor) -> Tensor | None:
    answer = attempt(subject, x, t)
    return None if answer.value is None or answer.broken else answer.value.double()


def _by_the_sum_of_targets(subject: Subject, x: Tensor, t: Tensor) -> bool:
    """Whether the divisor adds up soft targets, and does not count positives."""
    soft = t * 0.75
    each = rows(subject, x.view(-1), soft.view(-1)).value
    whole = _whole(subject, x, soft)
    if each is None or whole is None or whole.numel() != 1:
        return False
    return abs(float(each.sum() / whole.reshape(())) - 3 * 0.75) < 1e-2


def _equal(value: Tensor | None, whole: Tensor) -> bool:
    return value is not None and abs(float(value.sum()) - float(whole)) < 1e-4 * abs(float(whole))


def _late(subject: Subject, x: Tensor, t: Tensor, whole: Tensor) -> str:
    """Whether the batch costs what one element with the mean, or the sum, of the cross entropies costs."""
    if subject.kind not in ("classification", "softmax"):
        return ""
    sigmoid = subject.kind == "classification"
    cross, others = (bce(x, t), 1) if sigmoid else (F.cross_entropy(x, t, reduction="none"), x.shape[1] - 1)
    for name, of_all in (("mean", cross.mean()), ("sum", cross.sum())):
        logit = -torch.log(torch.expm1(of_all) / others).reshape(1)
        row = logit if sigmoid else F.pad(logit.reshape(1, 1), (0, others))
        label = torch.ones_like(logit) if sigmoid else torch.zeros(1, dtype=torch.long)
        if _equal(rows(subject, row, label).value, whole):
            return LATE[name]
    return ""


def _every(subject: Subject) -> str:
    """Whether the values of all pairs are in it, by a shape (N,) against (N, 1), or N boxes against N."""
    if subject.kind == "classification":
        x, t = torch.tensor([[-1.0, 0.7, 2.0], [1.0, 0.0, 1.0]], dtype=torch.float64).unsqueeze(-1)
        each = rows(subject, x.view(-1).repeat_interleave(3), t.view(-1).repeat(3)).value
    elif subject.kind == "box":
        x, t = (boxes[:2] for boxes in sample_boxes(2))
        each = rows(subject, x.repeat_interleave(2, 0), t.repeat(2, 1)).value
    else:
        return ""
    whole = _whole(subject, x, t)
    if each is None or whole is None or whole.numel() != 1:
        return ""
    if _equal(each.view(len(x), len(x)).diagonal().mean(), whole):
        return ""
    sums = (("mean", each.mean()), ("sum", each.sum()), ("sum", each.sum() / len(x)))
    return next((EVERY[name] for name, value in sums if _equal(value, whole)), "")


def _by_class(subject: Subject, x: Tensor, t: Tensor, whole: Tensor) -> str:
    """Whether it is torch's mean with class weights: the sum of w l over the sum of w."""
    if subject.kind != "softmax":
        return ""
    weights = [1.0]
    for other in range(1, x.shape[1]):
        logits = torch.zeros(2, x.shape[1], dtype=torch.float64)
        logits[1, other] = 1
        pair = logits, torch.tensor([0, other])
        each, both = rows(subject, *pair).value, _whole(subject, *pair)
        if each is None or both is None:
            return ""
        weights.append(float((each[0] - both) / (both - each[1])))
    each, weight = rows(subject, x, t).value, torch.tensor(weights, dtype=torch.float64)[t]
    if each is None or not weight.isfinite().all() or not _equal((weight * each).sum() / weight.sum(), whole):
        return ""
    return f"mean weighted by class, {' : '.join(f'{weight:.4g}' for weight in weights)}"
