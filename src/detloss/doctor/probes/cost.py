"""Probes of cost: operations that grow with the positives, memory that waits for the backward pass."""

import torch
from torch import Tensor

from detloss.doctor.elements import attempt
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.probes.modes import Operations
from detloss.doctor.samples import batch
from detloss.doctor.subject import Subject
from detloss.lab.bench.measure import kept_by_hooks

FEW, MANY = 4, 64
ROWS = 2048
MOST = 12.0  # times the logits: an eager focal loss, torchvision's or this package's, keeps 8 to 10
MOST_OF_BOXES = 40.0  # times the boxes: more is N × N


def _operations(subject: Subject, x: Tensor, t: Tensor) -> int | None:
    """How many operations the loss asks for, None where it raises."""
    counter = Operations()

    def counted(predictions: Tensor, targets: Tensor) -> Tensor:
        with counter:
            return subject.call(predictions, targets)

    return None if attempt(counted, x, t).error else counter.count


def python_loop(subject: Subject, match: Match | None) -> list[Finding]:
    """The number of operations grows with positives, or with rows: a loop in Python, with a kernel a turn."""
    if subject.one_by_one:
        return []
    if subject.kind == "classification":
        x, _ = batch(subject, match, 2 * MANY)
        few, many = (torch.zeros_like(x) for _ in range(2))
        for t, count in ((few, FEW), (many, MANY)):
            at = torch.arange(count)
            t[at, at % t.shape[1]] = 1
        counts = _operations(subject, x, few), _operations(subject, x, many)
        if _grows(*counts):
            return [_loop("positives", f"{2 * MANY} rows", *counts)]
    small, large = (_operations(subject, *batch(subject, match, count)) for count in (FEW, MANY))
    if _grows(small, large):
        return [_loop("pairs of boxes" if subject.kind == "box" else "rows", "", small, large)]
    return []


def _grows(few: int | None, many: int | None) -> bool:
    return few is not None and many is not None and many - few >= MANY - FEW


def _loop(what: str, beside: str, few: int | None, many: int | None) -> Finding:
    return Finding(
        "python-loop",
        "warning",
        f"a Python loop over {what}: its time grows with their number",
        (f"{beside}: " if beside else "") + f"{few} operations for {FEW} {what}, {many:,} for {MANY}",
        "write it with masks or torch.where, on whole tensors",
    )


def memory_kept(subject: Subject, match: Match | None) -> float | None:
    """What autograd keeps for the backward pass, in units of the predictions; None where it does not run."""
    x, t = batch(subject, match, ROWS)
    if attempt(subject.call, x, t, gradient=True).value is None:
        return None
    leaf = x.clone().requires_grad_()
    predictions = leaf.clone()
    return kept_by_hooks(lambda: subject.call(predictions, t), (predictions, t)) / x.nbytes


def memory(subject: Subject, match: Match | None) -> list[Finding]:
    """More than others keep."""
    x, _ = batch(subject, match, ROWS)
    known = match.convention.get("memory") if match is not None else None
    kept = memory_kept(subject, match) if known is None else known
    if kept is None or kept <= (MOST_OF_BOXES if subject.kind == "box" else MOST):
        return []
    return [
        Finding(
            "memory",
            "warning",
            f"autograd keeps {kept:.1f} times the predictions for the backward pass",
            f"{x.shape[0]} × {x.shape[1]} predictions of {x.nbytes / 1024:.0f} KiB in float32: "
            f"{kept * x.nbytes / 1024:.0f} KiB kept, without predictions and targets",
            "take the pairs alone, not N × N"
            if subject.kind == "box"
            else "a fused loss keeps the gradient alone: one time the predictions",
        )
    ]
