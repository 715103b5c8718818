"""Which known loss anybody's loss equals, in which convention, and how far it is from a peer's."""

from dataclasses import replace

import torch
from torch import Tensor

from detloss.doctor.accuracy import accuracy
from detloss.doctor.classification import classification
from detloss.doctor.elements import Divisor, attempt, needs_a_positive, rows
from detloss.doctor.findings import Finding, Level
from detloss.doctor.known import PEERS
from detloss.doctor.match import Match
from detloss.doctor.regression import box, distribution, sample_boxes
from detloss.doctor.softmax import softmax
from detloss.doctor.subject import Subject


def identify(subject: Subject, like: str | None = None) -> Match | None:
    """The known loss that a loss equals, and in which convention.

    Args:
        subject: the loss.
        like: a peer (`detloss.doctor.known.PEERS`) that its convention is compared with.

    Returns:
        A match with a name; one without a name but with the nearest known loss, where it equals none; None
        where it has no values to compare.

    Raises:
        ValueError: a peer that is not known.
    """
    if like is not None and like not in PEERS:
        raise ValueError(f"like is {like!r}; it may be {', '.join(PEERS)}")
    by_kind = {"classification": classification, "softmax": softmax, "box": box, "distribution": distribution}
    match = by_kind[subject.kind](subject)
    if match is None:
        return None
    match.convention.setdefault("reduction", _reduction(subject))
    match.convention["float32_error"] = accuracy(subject, match)
    return match if like is None else replace(match, findings=tuple(_differences(match, like)))


# How many values become one


def _reduction(subject: Subject) -> str:
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
        wide = 5 if subject.kind == "softmax" else subject.bins + 1
        x = torch.randn(batch, wide, generator=generator, dtype=torch.float64)
        t = torch.arange(batch) % wide
        if subject.kind == "distribution":
            t = torch.linspace(0.3, subject.bins - 1.3, batch, dtype=torch.float64)
        each = rows(subject, x, t).value
    whole = _whole(subject, x, t)
    if each is None or whole is None:
        return "other"
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
    return f"other (of {batch} × {columns} values the sum divided by {divisor:.4g})"


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


# --like

_CODES: dict[str, tuple[str, Level]] = {
    "takes": ("probabilities-not-logits", "warning"),
    "alpha_on": ("alpha-inverted", "warning"),
    "soft_targets": ("soft-target-minimiser", "warning"),
    "reduction": ("reduction", "note"),
    "gradient": ("wrong-gradient", "warning"),
    "form": ("similarity-not-loss", "note"),
    "eps": ("no-eps", "note"),
}


def _differences(match: Match, like: str) -> list[Finding]:
    """Where the convention is not a peer's; what has no code of its own stands in the convention."""
    if match.name is None:
        return []
    peer = PEERS[like].get(match.name) or PEERS[like].get("*" if "form" in match.convention else "", {})
    unlike, findings = {}, []
    for key, theirs in peer.items():
        ours = match.convention.get(key)
        if ours is None or ours == theirs:
            continue
        unlike[key] = f"{ours}, {like} has {theirs}"
        if key in _CODES:
            code, level = _CODES[key]
            findings.append(
                Finding(
                    code,
                    level,
                    f"{key.replace('_', ' ')} is not as in {like}",
                    f"here: {ours}; {like}: {theirs}",
                    f"do not carry hyperparameters over from {like} as they are",
                )
            )
    match.convention[f"unlike {like}"] = unlike or "nothing that was compared"
    return findings
