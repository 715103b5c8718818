"""Probes of shapes, layouts and dtypes: no rows, one column, transposed, half precision, misfits."""

from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.doctor.elements import Answer, attempt, rows
from detloss.doctor.findings import Finding, Level
from detloss.doctor.match import Match
from detloss.doctor.matching.reductions import EVERY
from detloss.doctor.probes.devices import holds_tensors
from detloss.doctor.samples import batch
from detloss.doctor.subject import Subject


def breaks_empty(subject: Subject, match: Match | None) -> list[Finding]:
    """An image without boxes, a batch without rows, one class."""
    x, t = batch(subject, match)
    if _bad(attempt(subject.call, x, t, gradient=True)):
        return []  # it does not work at all: another's finding
    findings = []
    none = attempt(subject.call, x[:0], t[:0], gradient=True)
    if _bad(none):
        findings.append(_breaks("no rows at all (N = 0)", none, _of(x[:0], t[:0]), "warning"))
    elif subject.reduction != "none" and none.value is not None and none.gradient is None:
        findings.append(
            Finding(
                "breaks-empty",
                "warning",
                "without rows its result has no gradient: backward raises",
                f"{_of(x[:0], t[:0])}: {none.value.sum().item():g}, requires_grad False",
                "return inputs.sum() * 0 for an empty batch",
            )
        )
    if subject.kind != "classification":
        return findings
    background = attempt(subject.call, x, torch.zeros_like(t), gradient=True)
    if _bad(background) or (background.gradient is not None and not background.gradient.isfinite().all()):
        findings.append(_breaks("no positives, an image of background", background, "all targets 0", "error"))
    if subject.columns:
        one = attempt(subject.call, x[:, :1], t[:, :1], gradient=True)
        if _bad(one):
            findings.append(_breaks("one class (C = 1)", one, _of(x[:, :1], t[:, :1]), "warning"))
    return findings


def _of(x: Tensor, t: Tensor) -> str:
    return f"predictions {tuple(x.shape)}, targets {tuple(t.shape)}"


def _bad(answer: Answer) -> bool:
    return answer.value is None or not bool(answer.value.isfinite().all())


def _got(answer: Answer) -> str:
    if answer.value is None:
        return answer.error
    bad = answer.value[~answer.value.isfinite()]
    return f"{float(bad[0]):g}" if len(bad) else "a gradient that is not finite"


def _breaks(what: str, answer: Answer, given: str, level: Level) -> Finding:
    return Finding(
        "breaks-empty",
        level,
        f"it breaks for {what}",
        f"{given}: {_got(answer)}",
        "divide by max(number, 1); a mean over nothing is 0 / 0: sum, then divide",
    )


def ignored(subject: Subject, match: Match | None) -> list[Finding]:
    """Targets that it says it ignores raise, or are not ignored."""
    index = subject.defaults.get("ignore_index")
    one_hot = "one-hot" in subject.chosen.get("called with", "")
    if subject.kind != "softmax" or not isinstance(index, int) or one_hot:
        return []
    x, t = batch(subject, match)
    if _bad(attempt(subject.call, x, t, gradient=True)):
        return []
    t[0] = index
    answer = attempt(subject.call, x, t, gradient=True)
    told = answer.error
    if not told and answer.gradient is not None and answer.gradient[0].any():
        told = "the prediction of that row gets a gradient"
    if not told:
        return []
    return [
        Finding(
            "crashes" if answer.error else "wrong-gradient",
            "error",
            f"it has ignore_index = {index}, and {'fails on' if answer.error else 'does not ignore'} such a "
            "target",
            f"targets {t.tolist()}: {told}",
            "select first: keep = target != ignore_index, then logits[keep], target[keep]",
        )
    ]


def breaks_noncontiguous(subject: Subject, match: Match | None) -> list[Finding]:
    """A transposed tensor, as detection heads give, raises or has another value."""
    x, t = batch(subject, match)
    usual = attempt(subject.call, x, t, gradient=True)
    if _bad(usual):
        return []
    mixed = attempt(subject.call, _transposed(x), _transposed(t), gradient=True)
    if not _bad(mixed) and torch.allclose(_value(mixed), _value(usual), 1e-4, 1e-6):
        return []
    return [
        Finding(
            "breaks-noncontiguous",
            "warning",
            "it raises on tensors that are not contiguous"
            if mixed.value is None
            else "on tensors that are not contiguous it has another value",
            f"predictions {tuple(x.shape)} with strides {_transposed(x).stride()}: "
            + (mixed.error or f"{_value(mixed).sum():g} instead of {_value(usual).sum():g}"),
            "use .reshape instead of .view",
        )
    ]


def _transposed(values: Tensor) -> Tensor:
    """The same values with other strides; a clone keeps them."""
    if values.ndim == 1:
        return values.repeat_interleave(2)[::2]
    return values.t().contiguous().t()


def _value(answer: Answer) -> Tensor:
    assert answer.value is not None
    return answer.value.double().reshape(-1)


def breaks_half(subject: Subject, match: Match | None) -> list[Finding]:
    """float16 and bfloat16 raise, overflow, or are far off at moderate logits.

    Not asked of a Module whose tensors `.to` casts.
    """
    if holds_tensors(subject):
        return []
    x, t = _moderate(subject, match)
    labels = t.is_floating_point()
    if _bad(rows(subject, x, t.float() if labels else t, gradient=True)):
        return []
    told: dict[str, str] = {}
    for dtype in (torch.float16, torch.bfloat16):
        rounded = x.to(dtype)
        # boxes and soft labels are rounded too; what is compared is the arithmetic
        label = t.to(dtype) if labels else t
        true = rows(subject, rounded.float(), label.float() if labels else label).value
        got = rows(subject, rounded, label, gradient=True)
        name = str(dtype).removeprefix("torch.")
        if got.value is None:
            told[name] = got.error
        elif true is not None:
            value, true = got.value.double(), true.double()
            bad = ~value.isfinite()
            if got.gradient is not None:
                slope = got.gradient.isfinite()
                bad = bad | ~(slope if slope.ndim == 1 else slope.all(1))
            if bad.any():
                i = int(bad.int().argmax())
                told[name] = f"{_row(x[i], t[i])}: value {float(value[i]):g} (float32 {float(true[i]):.4g})"
                if value[i].isfinite():
                    told[name] += ", its gradient not finite"
            else:
                # a loss near 0 is a difference of larger numbers
                off = (value - true).abs() / (true.abs() + (0.3 if subject.kind == "box" else 0.2))
                if off.max() > 0.1:
                    i = int(off.argmax())
                    told[name] = f"{_row(x[i], t[i])}: {float(value[i]):.4g} (float32 {float(true[i]):.4g})"
    if not told:
        return []
    return [
        Finding(
            "breaks-half",
            "warning",
            f"it does not work in {' and '.join(told)}",
            "; ".join(f"{name}: {what}" for name, what in told.items()),
            "do the arithmetic in float32: inputs.float() first, and autocast off for the loss",
        )
    ]


def _moderate(subject: Subject, match: Match | None) -> tuple[Tensor, Tensor]:
    """Predictions and targets that networks have: logits of ±12, boxes of up to 600 pixels."""
    if subject.kind == "classification":
        x = torch.tensor([-12.0, -9.5, -5, -1, 0, 1, 5, 9.5, 12]).repeat(2)
        return x, torch.tensor([0.0, 1.0]).repeat_interleave(9)
    x, t = batch(subject, match)
    if subject.kind == "box":
        return (x * 8).round(), (t * 8).round()
    x = x.clone()
    x[0, 0], x[1, 1] = 12, -12
    return x, t


def _row(x: Tensor, t: Tensor) -> str:
    values = ", ".join(f"{value:g}" for value in x.reshape(-1).tolist()[:5])
    labels = ", ".join(f"{value:g}" for value in t.reshape(-1).tolist())
    return f"prediction {values}, target {labels}"


def silent_broadcast(subject: Subject, match: Match | None) -> list[Finding]:
    """Targets whose shape does not fit are accepted, and mean something else."""
    told: list[tuple[str, str]] = []
    inside = _spread_inside(subject, match)
    for x, t in _misfits(subject, match):
        answer = attempt(subject.raw, x, t)
        if answer.value is not None and answer.value.isfinite().any():
            told.append((_of(x, t), f"a result of shape {tuple(answer.value.shape)}"))
    findings = list(inside)
    words = str(match.convention.get("reduction", "")) if match is not None else ""
    if EVERY in words and not findings:
        findings.append(_all_pairs(subject, match, words))
    if told:
        boxes = subject.kind == "box"
        findings.append(
            Finding(
                "silent-broadcast",
                "note" if boxes else "warning",
                "one box is compared with all, without a word"
                if boxes
                else "targets of a shape that does not fit are accepted and spread",
                f"{told[0][0]}: {told[0][1]}" + "".join(f"; so do {given}" for given, _ in told[1:]),
                "raise where predictions.shape != targets.shape",
            )
        )
    if subject.kind == "box":
        x, t = batch(subject, match)
        answer = attempt(subject.raw, x, t)
        if answer.value is not None and answer.value.shape == (len(x), 1):
            findings.append(
                Finding(
                    "silent-broadcast",
                    "note",
                    "it returns (N, 1): times a weight of shape (N,) that becomes (N, N)",
                    f"{_of(x, t)}: a result of shape {tuple(answer.value.shape)}",
                    "squeeze the last dimension: (N,)",
                )
            )
    return findings


def _all_pairs(subject: Subject, match: Match | None, words: str) -> Finding:
    x, t = batch(subject, match, 3, columns=1)
    each = rows(subject, x.view(-1), t.view(-1)) if subject.kind == "classification" else rows(subject, x, t)
    whole = attempt(subject.call, x, t)
    right, got = (float("nan") if one.value is None else float(one.value.mean()) for one in (each, whole))
    boxes = subject.kind == "box"
    return Finding(
        "silent-broadcast",
        "error",
        f"it takes the {words}: N × N values, of which N are meant",
        f"{_of(x, t)}: {got:.6g}; its 3 values alone are {right:.6g} on average",
        "take the pairs alone: the diagonal, or a function of paired boxes"
        if boxes
        else "keep one shape: squeeze or view both, or neither",
    )


def _misfits(subject: Subject, match: Match | None) -> Iterator[tuple[Tensor, Tensor]]:
    x, t = batch(subject, match, 6)
    usual = attempt(subject.raw, x, t)
    if _bad(usual):
        # `raw` takes another form than this batch: only what is flat can be tried
        if subject.kind == "classification" and not subject.columns:
            flat = x.view(-1), t.view(-1)
            if not _bad(attempt(subject.raw, *flat)):
                yield flat[0], t.view(-1, 1)
                yield flat[0], flat[1][:1]
        return
    if subject.kind == "classification":
        if subject.columns:
            yield x, t[:, :1]
            yield x, t[:1]
            square = x[:5, :5]
            yield square, t[0]
        yield x, t.view(-1)[:1]
    elif subject.kind == "box" and usual.value is not None and usual.value.numel() == len(x):
        yield x, t[:1]
        yield x[:1], t


def _spread_inside(subject: Subject, match: Match | None) -> Iterator[Finding]:
    """Predictions and targets of one shape that are broadcast against each other within the loss."""
    if subject.kind != "classification" or not subject.columns:
        return
    told = match.convention.get("reduction") if match is not None else None
    for shape in ((6, 1), (6, 5)):
        x, t = batch(subject, match, columns=shape[1])
        answer, alone = attempt(subject.call, x, t), rows(subject, x.view(-1), t.view(-1))
        if _bad(answer) or _bad(alone) or answer.value is None or alone.value is None:
            continue
        each, got = alone.value.double(), answer.value.double()
        spread = got.numel() > x.numel()
        if told in ("mean over all elements", "sum"):
            right = float(each.sum() if told == "sum" else each.mean())
            spread = abs(float(got) - right) > 1e-3 * (1e-3 + abs(right))
        if spread:
            yield Finding(
                "silent-broadcast",
                "error",
                f"for predictions and targets of shape {shape} a factor of shape ({shape[0] * shape[1]},) is "
                "spread over them",
                f"{_of(x, t)}: a result of shape {tuple(got.shape)}, {float(got.mean()):.6g} on average; the "
                f"elements alone give {float(each.mean()):.6g} on average",
                "keep the shape: index with targets.long() instead of targets.view(-1)",
            )
            return
