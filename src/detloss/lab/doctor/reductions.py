"""What becomes of the values of a batch: none, mean, sum, by which divisor, and what else people do."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.doctor.answers import alone, sample_boxes, samples, together, values
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import bce

LATE = {one: f"{one} of the cross entropy first, the weight after it" for one in ("mean", "sum")}
EVERY = {one: f"{one} over every prediction with every target" for one in ("mean", "sum")}
MEAN, OTHER = "mean over all elements", "other"


def reduction(subject: Subject) -> dict[str, Any]:
    """What happens to the values of a batch: in words, and where it is none of the usual ones the divisor."""
    x, t = _batch(subject)
    flat, count = subject.kind == "classification", len(x)
    columns = x.shape[1] if flat else 1
    each, whole = alone(subject, x, t), together(subject, x, t)
    other: dict[str, Any] = {"reduction": OTHER}
    if whole.numel() > 1:
        table = each.view(count, columns)
        kept = {"none": each} | {f"none, {name} over classes": table.sum(1) / divisor
                                 for name, divisor in (("sum", 1), ("mean", columns))}  # fmt: skip
        if subject.kind == "box" and whole.numel() == count * count:
            return {"reduction": "none, every box with every other"}
        return next(({"reduction": words} for words, value in kept.items() if _near(whole, value)), other)
    if subject.kind == "box":  # -log IoU of boxes apart is not finite
        x, t, each = (one[each.isfinite()] for one in (x, t, each))
        whole, count = together(subject, x, t), len(x)
    if whole.numel() != 1 or not each.isfinite().all() or not each.any():
        return other
    divisor = float(each.sum() / whole.reshape(()))
    names = {"sum": 1, MEAN if flat else "mean over rows": count * columns}
    if columns > 1:
        names |= {"sum over classes, mean over rows": count, "mean over classes, sum over rows": columns}
    names |= {"sum divided by the number of positives": 3} if flat else {}
    for words, expected in names.items():
        if abs(divisor - expected) < 2e-3 * expected:
            soft = t * 0.75  # does the divisor add up soft targets, or count positives?
            by_targets = "positives" in words and _equal(alone(subject, x, soft).sum() / 2.25,
                                                         together(subject, x, soft), 4e-3)  # fmt: skip
            return {"reduction": "sum divided by the sum of targets" if by_targets else words}
    unusual = _late(subject, x, t, whole) or _every(subject) or _by_class(subject, x, t, whole)
    return {"reduction": unusual} if unusual else {**other, "divisor": float(f"{divisor:.4g}")}


def _batch(subject: Subject) -> tuple[Tensor, Tensor]:
    if subject.kind != "classification":
        return sample_boxes(7) if subject.kind == "box" else samples(subject, 7)
    shape, hits = ((4, 6), [1, 8, 15]) if subject.form.columns else ((7, 1), [1, 2, 4])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    t = torch.zeros_like(x)
    t.view(-1)[hits] = 1  # at most one per row: indices can say that
    return x, t


def _near(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and torch.allclose(a.reshape(-1), b, 1e-3, 1e-6)


def _equal(value: Tensor, whole: Tensor, slack: float = 1e-4) -> bool:
    return whole.numel() == 1 and abs(float(value) - float(whole)) < slack * abs(float(whole))


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
        if _equal(values(subject, row, label).sum(), whole):
            return LATE[name]
    return ""


def _every(subject: Subject) -> str:
    """Whether the values of all pairs are in it, by a shape (N,) against (N, 1), or N boxes against N."""
    if subject.kind == "classification":
        x, t = torch.tensor([[-1.0, 0.7, 2.0], [1.0, 0.0, 1.0]], dtype=torch.float64).unsqueeze(-1)
    elif subject.kind == "box":
        x, t = (boxes[:2] for boxes in sample_boxes(2))
    else:
        return ""
    count, whole = len(x), together(subject, x, t)
    each = alone(subject, x.repeat_interleave(count, 0), t.repeat(count, 1))
    if _equal(each.view(count, count).diagonal().mean(), whole):
        return ""
    sums = (("mean", each.mean()), ("sum", each.sum()), ("sum", each.sum() / count))
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
        (first, second), both = values(subject, *pair), together(subject, *pair)
        weights.append(float((first - both) / (both - second)))
    weight = torch.tensor(weights, dtype=torch.float64)[t]
    if not weight.isfinite().all() or not _equal(weight @ alone(subject, x, t) / weight.sum(), whole):
        return ""
    return f"mean weighted by class, {' : '.join(f'{weight:.4g}' for weight in weights)}"
