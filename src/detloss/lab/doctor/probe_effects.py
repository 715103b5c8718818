"""Probes of what a loss does besides: to its arguments, to torch's settings, to dtypes, in its reduction."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from detloss.lab.doctor.answers import attempt, batch, reseeded
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.loading import in_a_line, line_of_error
from detloss.lab.doctor.reductions import LATE, MEAN, OTHER

Found = Iterator[Finding]


def holds_tensors(subject: Subject) -> bool:
    """Whether it is a Module with buffers or parameters, which `.to` moves to other devices and dtypes."""
    modules = [
        one for one in (subject.loaded.object, *subject.loaded.built.values()) if isinstance(one, nn.Module)
    ]
    return any(True for module in modules for _ in (*module.buffers(), *module.parameters()))


def effects(subject: Subject, match: Match | None) -> Found:
    """It changes its arguments, or its own next answer."""
    yield from _on_arguments(subject)
    x, t = batch(subject)
    # a class is built once here, so that a state shows
    calls = replace(subject, loaded=replace(subject.loaded, fresh=False))
    first, second = (attempt(calls, x, t).value for _ in range(2))
    random = attempt(reseeded(calls), x, t).value
    with torch.no_grad():  # as validation calls it
        attempt(subject, x, t)
        enabled = torch.is_grad_enabled()
    if enabled:
        seen = "called under torch.no_grad(): torch.is_grad_enabled() is True afterwards"
        yield found("gradients on", seen)
    if first is None or second is None or random is None:
        return
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        yield found("state", f"first {float(first.sum()):.9g}, then {float(second.sum()):.9g}")
    elif not torch.allclose(first, random, 1e-5, 1e-8, equal_nan=True):
        yield found("random", f"seed 0: {float(first.sum()):.6g}, seed 1: {float(random.sum()):.6g}")


def _on_arguments(subject: Subject) -> Found:
    seen: set[str] = set()
    x, t = batch(subject)
    edge = t.clone()
    if subject.kind == "distribution":
        edge[:2] = float(BINS)  # the last bin: where some clamp
    for targets in (t, edge):
        for name, needs in (("predictions", False), ("targets", False), ("predictions", True)):
            given = x.clone().requires_grad_(needs), targets.clone()
            argument = given[0] if name == "predictions" else given[1]
            kept = argument.detach().clone()

            def on_these(_: Tensor, __: Tensor, given: tuple[Tensor, Tensor] = given) -> Tensor:
                return subject(*given)

            error = attempt(on_these, x, t).error
            at = (argument.detach() != kept).nonzero()
            # a leaf that needs a gradient may not be changed: that it works on a copy says that this is why
            refused = (
                needs and error is not None and attempt(subject, x, targets, gradient=True).error is None
            )
            if name in seen or not (len(at) or refused):
                continue
            seen.add(name)
            told = in_a_line(error) if error is not None else ""
            if len(at):
                place = tuple(at[0].tolist())
                told = f"{name}{list(place)} was {float(kept[place]):g}, is {float(argument[place]):g}"
            yield found("changes argument", told, name=name)


def dtypes(subject: Subject, match: Match | None) -> Found:
    """float64 in, something else out, or an exception; not of a Module whose tensors `.to` casts."""
    x, t = batch(subject)
    narrow = attempt(subject, x, t, gradient=True)
    if holds_tensors(subject) or narrow.value is None:
        return
    wide = attempt(subject, x.double(), t.double() if t.is_floating_point() else t, gradient=True)
    if wide.value is None:
        yield found("dtype written in", f"float32 works, float64: {wide.shown()}")
    elif wide.value.dtype != torch.float64:
        yield found("dtype written in", f"float64 in, {str(wide.value.dtype).removeprefix('torch.')} out")


def reductions(subject: Subject, match: Match | None) -> Found:
    """What a mean divides by, and whether the argument `reduction` does anything."""
    if "reduction" in subject.loaded.takes:
        x, t = batch(subject)
        values = {
            name: attempt(subject.with_hyper(reduction=name), x, t).value for name in ("none", "mean", "sum")
        }
        got = {name: value for name, value in values.items() if value is not None}
        if any(_same(got[a], got[b]) for a in got for b in got if a < b):
            shown = (f"{name!r}: shape {tuple(v.shape)}, sum {float(v.sum()):.6g}" for name, v in got.items())
            yield found("reduction ignored", "; ".join(shown))
    words = str(match.convention.get("reduction", "")) if match is not None else ""
    if subject.kind == "classification" and words == MEAN and not subject.region:
        yield found("mean over all", f"reduction: {words}")
    elif words in LATE.values():
        x, t = torch.tensor([[3.0], [-3.0]]), torch.ones(2, 1)
        if subject.kind == "softmax":
            x, t = torch.cat((x, torch.zeros(2, subject.classes - 1)), 1), torch.zeros(2, dtype=torch.long)
        answers = (attempt(subject, *pair).value for pair in ((x[:1], t[:1]), (x[1:], t[1:]), (x, t)))
        easy, hard, both = (float("nan") if value is None else float(value) for value in answers)
        seen = f"a right logit of 3 and a wrong one: alone {easy:.4g} and {hard:.4g}, together {both:.4g} "
        yield found("weighed too late", f"{seen}(reduction: {words})")
    elif words == OTHER and match is not None and not subject.region:
        divisor = match.convention.get("divisor")
        yield found(
            "odd reduction", f"reduction: {words}" + (f", the sum divided by {divisor:g}" if divisor else "")
        )


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, 1e-5, 1e-8, equal_nan=True)


def other_settings(subject: Subject, match: Match | None) -> Found:
    """What its flags lead to: a name without a value, or no value at all."""
    x, t = batch(subject)
    for name, default in subject.loaded.takes.items():
        others: tuple[Any, ...] = (not default,) if isinstance(default, bool) else ()
        others = (
            ("none", "mean", "sum")
            if isinstance(default, str) and default in ("none", "mean", "sum")
            else others
        )
        for other in others:
            answer = attempt(subject.with_hyper(**{name: other}).loaded, x, t)
            hyper = f"{name}={other!r}"
            if isinstance(answer.error, UnboundLocalError):
                seen = f"{line_of_error(answer.error)} ({in_a_line(answer.error)})"
                yield found("unbound at", seen, hyper=hyper)
                break
            if getattr(answer.error, "value", inspect) is None:
                yield found("no return at", f"called with {hyper}: None", hyper=hyper)
                break
