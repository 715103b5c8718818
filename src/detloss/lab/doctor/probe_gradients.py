"""Probes of gradients: there is one, it is the value's own, and finite at the ends."""

import ast
from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.lab.doctor.answers import attempt, batch, rows, samples, slopes
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.extremes import PAIRS, numbers, onset, pair_answer, ways
from detloss.lab.doctor.findings import Finding, Level
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import (
    ALPHA_DETACHED,
    THROUGH_ALPHA,
    TOLERANCE,
    WEIGHT_DETACHED,
    Match,
    deviation,
)
from detloss.lab.doctor.loading import in_a_line
from detloss.lab.doctor.source import reached

Found = Iterator[Finding]
DETACHED_BY_AUTHORS = ("varifocal", "mal", "asymmetric")


def has_gradient(subject: Subject, match: Match | None) -> Found:
    """There is no gradient, or it is zero everywhere."""
    x, t = (one.float() if one.is_floating_point() else one for one in samples(subject))
    if rows(subject, x, t).value is None:
        return  # it does not run at all: another's finding
    answer = rows(subject, x, t, gradient=True)
    if answer.error is not None:
        yield found("raises with gradient", in_a_line(answer.error))
    elif answer.gradient is None or not answer.gradient.any():
        whole = attempt(subject, *batch(subject), gradient=True).gradient
        if whole is not None and whole.any():
            if not subject.region:
                yield found(
                    "only together", f"the gradient of {len(x)} single rows is zero, that of a batch is not"
                )
        else:
            yield found("no gradient", f"the gradient of {len(x)} usual rows is zero or missing")


def own_gradient(subject: Subject, match: Match | None) -> Found:
    """Autograd's gradient is not the derivative of the value."""
    x, t = samples(subject)
    got = rows(subject, x, t, gradient=True).gradient
    own, wide = (slopes(subject, x, t, times=times) for times in (1, 2))
    if got is None or own is None or wide is None or not got.any():
        return
    got, own, wide = got.double(), own.double(), wide.double()
    # differences of values that are rounded (to half precision) say nothing: another step, another slope
    sure = (own - wide).abs() <= 0.02 * own.abs() + 1e-3 * own.abs().max()
    finite = own.isfinite() & got.isfinite() & sure
    got, own = torch.where(finite, got, 0), torch.where(finite, own, 0)
    words = match.convention.get("gradient") if match is not None else None
    if deviation(got, own) < 5 * TOLERANCE:
        if words == THROUGH_ALPHA:
            seen = "it is the slope of the value; the paper and torchvision take alpha as a constant"
            yield found("through alpha", seen)
        return
    if words == ALPHA_DETACHED or finite.float().mean() < 0.5:
        return
    at = int((got - own).abs().argmax()) // (x.numel() // len(x))
    seen = (
        f"prediction {_shown(x[at])}, target {_shown(t[at])}: gradient {_shown(got[at])}, slope of the value "
    )
    seen += _shown(own[at])
    if words == WEIGHT_DETACHED:
        by_authors = match is not None and match.name in DETACHED_BY_AUTHORS
        yield found("weight detached", seen, "note" if by_authors else None)
        return
    line = _detached_at(subject)
    yield found("detached", f"{seen}; {line}") if line else found("wrong gradient", seen)


def _detached_at(subject: Subject) -> str:
    """The first line that takes something out of the gradient on purpose, "" where there is none."""
    source = subject.loaded.names.source
    for node in (n for one in (reached(source) if source else ()) for n in ast.walk(one)):
        if isinstance(node, ast.Attribute) and node.attr in (
            "detach",
            "no_grad",
            "set_grad_enabled",
            "data",
            "item",
        ):
            return source.at(node.lineno) if source else ""
    return ""


def _shown(values: Tensor) -> str:
    return f"{float(values):.4g}" if values.numel() == 1 else numbers(values.tolist())


def finite_gradient(subject: Subject, match: Match | None) -> Found:
    """NaN and Inf in gradients where the value is finite: saturated logits, boxes without area."""
    if subject.kind == "box":
        yield from _finite_boxes(subject)
        return
    findings = list(_at_saturation(subject, None))
    gammas = (0.5, 0.0) if "gamma" in subject.loaded.takes and not findings else ()
    for gamma in gammas:
        findings = findings or list(_at_saturation(subject.with_hyper(gamma=gamma), gamma))
    yield from findings


def _at_saturation(subject: Subject, gamma: float | None) -> Found:
    at_zero = [way.make(0.0) for way in ways(subject)[:1]]
    if any(rows(subject, *one, gradient=True).infinite_gradient for one in at_zero):
        return  # everywhere: not the extremes' fault
    tried = (
        onset(subject, way, lambda _, answer: answer.infinite_gradient, gradient=True)
        for way in ways(subject)
    )
    onsets = [one for one in tried if one is not None]
    if onsets:
        where = min(onsets, key=lambda one: one.magnitude).where
        seen = (
            f"{one.where}: value {_one(one.answer.value)}, gradient {_one(one.answer.gradient)}"
            for one in onsets
        )
        kind = "gradient not finite" if gamma is None else "gradient not finite at"
        yield found(kind, "; ".join(seen) + " (float32)", where=where, gamma=gamma)


def _one(values: Tensor | None) -> str:
    if values is None:
        return "none"
    flat = values.reshape(-1)
    return f"{float(flat[~flat.isfinite()][0] if not flat.isfinite().all() else flat[0]):.4g}"


def _finite_boxes(subject: Subject) -> Found:
    answers = [(pair, pair_answer(subject, pair, gradient=True)) for pair in PAIRS]
    broken = [(pair, answer.gradient) for pair, answer in answers if answer.infinite_gradient]
    if broken:
        seen = (
            f"{pair.says}: gradient {numbers(g.reshape(-1).tolist())}" for pair, g in broken if g is not None
        )
        level: Level | None = None if any(not pair.odd for pair, _ in broken) else "warning"
        yield found("box gradient not finite", "; ".join(seen), level, what=broken[0][0].name)
