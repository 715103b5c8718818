"""Probes of numbers: finite at the ends, and a gradient that is there and is the value's own."""

import ast
from dataclasses import replace

import torch
from torch import Tensor

from detloss.lab.doctor.answers import (
    TOLERANCE,
    Answer,
    attempt,
    batch,
    cast,
    deviation,
    rows,
    samples,
    shown,
    slopes,
)
from detloss.lab.doctor.catalogue import Found, found
from detloss.lab.doctor.findings import Level
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import ALPHA_DETACHED, LABEL_DETACHED, THROUGH_ALPHA, WEIGHT_DETACHED, Match
from detloss.lab.doctor.running import in_a_line
from detloss.lab.doctor.source import reached
from detloss.lab.doctor.ways import PAIRS, onset, ways

DETACHED_BY_AUTHORS = ("varifocal", "mal", "asymmetric")
DETACHING = ("detach", "no_grad", "set_grad_enabled", "data", "item", "tolist", "numpy")


def finite_value(subject: Subject, match: Match | None) -> Found:
    """NaN and Inf at large logits, where they begin; and at boxes without area, apart or inverted."""
    if subject.kind == "box":
        yield from _values_of_boxes(subject, match)
        return
    # what does not run at logit 0 either is not the extremes' fault
    running = [way for way in ways(subject) if way.answer(subject, 0.0).value is not None]
    onsets = [first for way in running if (first := onset(subject, way, lambda _, answer: answer.broken))]
    if onsets:
        worst = min(onsets, key=lambda first: first.magnitude)
        what = worst.answer.shown()
        seen = "; ".join(f"{one.where}: {one.answer.shown()}" for one in onsets) + " (float32)"
        # a caller may clamp what it passes
        level: Level | None = "warning" if subject.probabilities else None
        yield found("value not finite", seen, level, what=what, where=worst.where)
        if subject.probabilities:
            seen = f"{worst.where}: {what}: its sigmoid or softmax is exactly 0 or 1 in float32"
            yield found("log of 0", seen)


def _values_of_boxes(subject: Subject, match: Match | None) -> Found:
    broken = [(pair, answer) for pair in PAIRS if (answer := pair.answer(subject)).broken]
    if not broken:
        return
    logarithm = match is not None and match.convention.get("form") == "-log x"
    remedy = "add an eps (1e-7) to every denominator"
    remedy = "clamp the IoU to at least an eps before the logarithm, or use 1 - IoU" if logarithm else remedy
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    seen = [f"{pair.says}: {answer.shown()}" for pair, answer in broken]
    level: Level | None = "warning" if all(pair.odd for pair, _ in broken) else None
    yield found("box not finite", "; ".join(seen), level, what=broken[0][0].name + more, remedy=remedy)
    nan = [text for text, (pair, answer) in zip(seen, broken) if pair.flat and answer.shown() == "NaN"]
    if nan or logarithm:
        what = "the logarithm of 0" if logarithm else "0 divided by 0"
        yield found("box without eps", (nan or seen)[0], what=what, remedy=remedy)


def finite_gradient(subject: Subject, match: Match | None) -> Found:
    """NaN and Inf in gradients where the value is finite: saturated logits, boxes without area."""
    if subject.kind == "box":
        answers = [(pair, pair.answer(subject, gradient=True)) for pair in PAIRS]
        broken = [(pair, answer.gradient) for pair, answer in answers if answer.infinite_gradient]
        if broken:
            told = (f"{pair.says}: gradient {shown(one.view(-1))}" for pair, one in broken if one is not None)
            seen = "; ".join(told)
            level: Level | None = "warning" if all(pair.odd for pair, _ in broken) else None
            yield found("box gradient not finite", seen, level, what=broken[0][0].name)
        return
    findings = list(_at_saturation(subject, None))
    for gamma in (0.5, 0.0) if "gamma" in subject.loaded.takes else ():
        findings = findings or list(_at_saturation(subject.with_hyper(gamma=gamma), gamma))
    yield from findings


def _at_saturation(subject: Subject, gamma: float | None) -> Found:
    growing = ways(subject)
    if any(way.answer(subject, 0.0, gradient=True).infinite_gradient for way in growing[:1]):
        return  # everywhere: not the extremes' fault
    firsts = (onset(subject, way, _infinite, gradient=True) for way in growing)
    onsets = [one for one in firsts if one is not None]
    if onsets:
        where = min(onsets, key=lambda one: one.magnitude).where
        pairs = ((one.where, _worst(one.answer.value), _worst(one.answer.gradient)) for one in onsets)
        seen = (f"{at}: value {value}, gradient {gradient}" for at, value, gradient in pairs)
        kind = "gradient not finite" if gamma is None else "gradient not finite at"
        level: Level | None = "warning" if subject.probabilities else None
        yield found(kind, "; ".join(seen) + " (float32)", level, where=where, gamma=gamma)


def _infinite(magnitude: float, answer: Answer) -> bool:
    return answer.infinite_gradient


def _worst(values: Tensor | None) -> str:
    """The first that is not finite, else the first."""
    if values is None:
        return "none"
    flat = values.reshape(-1)
    return shown(flat[flat.isfinite().int().argmin()])


def has_gradient(subject: Subject, match: Match | None) -> Found:
    """There is no gradient, or it is zero everywhere."""
    x, t = cast(torch.float32, *samples(subject))
    subject = replace(subject, region=False)
    if rows(subject, x, t).value is None:
        return  # it does not run at all: another's finding
    answer = rows(subject, x, t, gradient=True)
    if answer.error is not None:
        yield found("raises with gradient", in_a_line(answer.error))
    elif answer.gradient is None or not answer.gradient.any():
        whole = attempt(subject, *batch(subject), gradient=True).gradient
        if whole is None or not whole.any():
            yield found("no gradient", f"the gradient of {len(x)} usual rows is zero or missing")
        else:
            seen = f"the gradient of {len(x)} single rows is zero, that of a batch is not"
            yield found("only together", seen)


def own_gradient(subject: Subject, match: Match | None) -> Found:
    """Autograd's gradient is not the derivative of the value."""
    x, t = samples(subject)
    got = rows(subject, x, t, gradient=True).gradient
    own, wide = (slopes(subject, x, t, times=times) for times in (1, 2))
    if got is None or own is None or wide is None or not got.any():
        return
    # differences of values that are rounded (to half precision) say nothing: another step, another slope
    sure = (own - wide).abs() <= 0.02 * own.abs() + 1e-3 * own.abs().max()
    finite = own.isfinite() & got.isfinite() & sure
    got, own = torch.where(finite, got.double(), 0), torch.where(finite, own, 0)
    words, name = (match.convention.get("gradient"), match.name) if match is not None else (None, None)
    # beside the value of a batch, that of an element is rounded
    if deviation(got, own) < (50 if subject.region else 5) * TOLERANCE:
        if words == THROUGH_ALPHA:
            seen = "it is the slope of the value; the paper and torchvision take alpha as a constant"
            yield found("through alpha", seen)
        return
    if words in (ALPHA_DETACHED, LABEL_DETACHED) or finite.float().mean() < 0.5:
        return
    at = int((got - own).abs().argmax()) // (x.numel() // len(x))
    seen = f"prediction {shown(x[at])}, target {shown(t[at])}: gradient {shown(got[at])}, slope of the value "
    seen += shown(own[at])
    if words == WEIGHT_DETACHED:
        yield found("weight detached", seen, "note" if name in DETACHED_BY_AUTHORS else None)
        return
    line = _detached_at(subject)
    yield found("detached", f"{seen}; {line}") if line else found("wrong gradient", seen)


def _detached_at(subject: Subject) -> str:
    """The first line that takes something out of the gradient on purpose, "" where there is none."""
    source = subject.loaded.names.source
    nodes = (node for one in (reached(source) if source else ()) for node in ast.walk(one))
    detaching = (one.lineno for one in nodes if isinstance(one, ast.Attribute) and one.attr in DETACHING)
    line = next(detaching, None)
    return source.at(line) if source and line is not None else ""
