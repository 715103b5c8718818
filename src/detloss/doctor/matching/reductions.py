"""What becomes of the values of a batch: none, mean, sum, by which divisor, and what else people do."""

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.doctor.elements import Divisor, attempt, needs_a_positive, rows
from detloss.doctor.matching.known import bce
from detloss.doctor.matching.regression import sample_boxes
from detloss.doctor.subject import Subject

AFTER = "of the cross entropy first, the weight after it"
EVERY = "every prediction with every target"


def reduction(subject: Subject) -> str:
    """What happens to the values of a batch, found by comparing them with the result."""
    generator = torch.Generator().manual_seed(3)
    beside = needs_a_positive(subject)
    batch, columns = 7, 1
    if subject.kind == "classification":
        batch, columns = (4, 6) if subject.columns else (7, 1)
        x = torch.randn(batch, columns, generator=generator, dtype=torch.float64)
        t = torch.zeros_like(x)
        t.view(-1)[[1, 2, 4] if columns == 1 else [1, 8, 15]] = (
            1  # at most one a row: class indices can say that
        )
        each = rows(subject, x.view(-1), t.view(-1), beside=beside).value
    elif subject.kind == "box":
        x, t = sample_boxes(batch)
        each = rows(subject, x, t).value
    else:
        wide = subject.classes if subject.kind == "softmax" else subject.bins + 1
        x = torch.randn(batch, wide, generator=generator, dtype=torch.float64)
        t = torch.arange(batch) % wide
        if subject.kind == "distribution":
            t = torch.linspace(0.3, subject.bins - 1.3, batch, dtype=torch.float64)
        each = rows(subject, x, t).value
    whole = attempt(subject.call, x, t).value
    if each is None or whole is None:
        return "other"
    whole = whole.double()
    if whole.numel() == each.numel() > 1:
        return "none" if torch.allclose(whole.reshape(-1), each, 1e-3, 1e-6) else "other"
    if subject.kind == "box" and whole.numel() == batch * batch:
        return "none, every box with every other"
    if whole.numel() == batch and columns > 1:
        table = each.view(batch, columns)
        for name, sums in (("sum over classes", table.sum(1)), ("mean over classes", table.mean(1))):
            if torch.allclose(whole.reshape(-1), sums, 1e-3, 1e-6):
                return f"none, {name}"
        return "other"
    if whole.numel() != 1:
        return "other"
    kept = each.isfinite()  # -log IoU of boxes apart is not
    if not kept.all():
        x, t, each, batch = x[kept], t[kept], each[kept], int(kept.sum())
        whole = _whole(subject, x, t)
    if whole is None or not each.any():
        return "other"
    divisor = float(each.sum() / whole.reshape(()))
    if subject.kind != "classification":
        names = {"sum": 1.0, "mean over rows": float(batch)}
    elif columns == 1:
        names = {"sum": 1.0, "mean over all elements": float(batch)}
    else:
        names = {
            "sum": 1.0,
            "mean over all elements": float(batch * columns),
            "sum over classes, mean over rows": float(batch),
            "mean over classes, sum over rows": float(columns),
        }
    if subject.kind == "classification":
        names["sum divided by the positives"] = 3.0
    for name, expected in names.items():
        if abs(divisor - expected) < 2e-3 * expected:
            return _of_soft_targets(subject, x, t, beside) if "divided by the positives" in name else name
    unusual = _unusual(subject, x, t, whole)
    return unusual or f"other (of {batch} × {columns} values the sum divided by {divisor:.4g})"


def _whole(subject: Subject, x: Tensor, t: Tensor) -> Tensor | None:
    value = attempt(subject.call, x, t).value
    return None if value is None or not value.isfinite().all() else value.double()


def _of_soft_targets(subject: Subject, x: Tensor, t: Tensor, beside: Divisor) -> str:
    """Whether the divisor counts positives or adds up their soft targets."""
    soft = t * 0.75
    each, whole = rows(subject, x.view(-1), soft.view(-1), beside=beside).value, _whole(subject, x, soft)
    if each is not None and whole is not None and whole.numel() == 1:
        divisor = float(each.sum() / whole.reshape(()))
        if abs(divisor - 3 * 0.75) < 1e-2:
            return "sum divided by the sum of targets"
    return "sum divided by the number of positives"


def _unusual(subject: Subject, x: Tensor, t: Tensor, whole: Tensor) -> str:
    """Reductions that are no sum of the elements' values over a divisor; "" where it is none of them."""
    return (
        _of_the_cross_entropy(subject, x, t, whole)
        or _of_all_pairs(subject)
        or _by_class(subject, x, t, whole)
    )


def _equal(value: Tensor | None, whole: Tensor | float) -> bool:
    return value is not None and abs(float(value.sum()) - float(whole)) < 1e-4 * abs(float(whole))


def _of_the_cross_entropy(subject: Subject, x: Tensor, t: Tensor, whole: Tensor) -> str:
    """Whether the batch costs what one element with the mean, or the sum, of the cross entropies costs."""
    if subject.kind == "classification":
        cross, others = bce(x, t), 1
    elif subject.kind == "softmax":
        cross, others = F.cross_entropy(x, t, reduction="none"), x.shape[1] - 1
    else:
        return ""
    for name, of_all in (("mean", cross.mean()), ("sum", cross.sum())):
        logit = -torch.log(torch.expm1(of_all) / others)
        if subject.kind == "classification":
            value = rows(subject, logit.reshape(1), torch.ones_like(logit).reshape(1)).value
        else:
            row = F.pad(logit.reshape(1, 1), (0, others))
            value = rows(subject, row, torch.zeros(1, dtype=torch.long)).value
        if _equal(value, whole):
            return f"{name} {AFTER}"
    return ""


def _of_all_pairs(subject: Subject) -> str:
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
    paired = each.view(len(x), len(x)).diagonal().mean()
    for name, value in (("mean", each.mean()), ("sum", each.sum()), ("sum", each.sum() / len(x))):
        if _equal(value, whole) and not _equal(paired, whole):
            return f"{name} over {EVERY}"
    return ""


def _by_class(subject: Subject, x: Tensor, t: Tensor, whole: Tensor) -> str:
    """Whether it is torch's mean with class weights: the sum of w l over the sum of w."""
    if subject.kind != "softmax":
        return ""
    logits = torch.zeros(2, x.shape[1], dtype=torch.float64)
    weights = [1.0]
    for other in range(1, x.shape[1]):
        pair = (
            torch.stack((logits[0], F.one_hot(torch.tensor(other), x.shape[1]).double())),
            torch.tensor([0, other]),
        )
        each, both = rows(subject, *pair).value, _whole(subject, *pair)
        if each is None or both is None:
            return ""
        weights.append(float((each[0] - both) / (both - each[1])))
    each = rows(subject, x, t).value
    weight = torch.tensor(weights, dtype=torch.float64)[t]
    if each is None or not weight.isfinite().all() or not _equal((weight * each).sum() / weight.sum(), whole):
        return ""
    return f"mean weighted by class, {' : '.join(f'{weight:.4g}' for weight in weights)}"
