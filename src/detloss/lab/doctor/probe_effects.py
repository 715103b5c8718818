"""Probes of what a loss does besides: to its arguments, to torch's settings, to dtypes, in its reduction."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import torch
from torch import Tensor, nn

from detloss.lab.doctor.answers import attempt, batch, cast, near, together, total
from detloss.lab.doctor.catalogue import Found, found
from detloss.lab.doctor.forms import BINS, NoTensor, Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.reductions import LATE, MEAN
from detloss.lab.doctor.running import in_a_line, line_of_error
from detloss.lab.doctor.source import options

REDUCTIONS = ("none", "mean", "sum")


def holds_tensors(subject: Subject) -> bool:
    """Whether it is a Module with buffers or parameters, which `.to` moves to other devices and dtypes."""
    given = (subject.loaded.object, *subject.loaded.built.values())
    modules = (one for one in given if isinstance(one, nn.Module))
    return any(True for module in modules for _ in (*module.buffers(), *module.parameters()))


def effects(subject: Subject, match: Match | None) -> Found:
    """It changes its arguments, or its own next answer."""
    yield from _on_arguments(subject)
    x, t = batch(subject)
    # a class is built once here, so that a state shows
    calls = replace(subject, loaded=replace(subject.loaded, fresh=False))
    first, second, random = (attempt(calls, x, t, seed=seed) for seed in (0, 0, 1))
    with torch.no_grad():  # as validation calls it
        attempt(subject, x, t)
        enabled = torch.is_grad_enabled()
    if enabled:
        seen = "called under torch.no_grad(): torch.is_grad_enabled() is True afterwards"
        yield found("gradients on", seen)
    if first.value is None or second.value is None or random.value is None:
        return
    if not torch.equal(first.value.nan_to_num(), second.value.nan_to_num()):
        yield found("state", f"first {total(first):.9g}, then {total(second):.9g}")
    elif not near(first, random):
        yield found("random", f"seed 0: {total(first):.6g}, seed 1: {total(random):.6g}")


def _on_arguments(subject: Subject) -> Found:
    seen: set[str] = set()
    x, t = batch(subject)
    edge = t.clone()
    if subject.kind == "distribution":
        edge[:2] = float(BINS)  # the last bin: where some clamp
    cases = (("predictions", False), ("targets", False), ("predictions", True))
    for targets, (name, needs) in product((t, edge), cases):
        given = x.clone().requires_grad_(needs), targets.clone()
        argument = given[name == "targets"]
        kept = argument.detach().clone()

        def on_these(_: Tensor, __: Tensor, given: tuple[Tensor, Tensor] = given) -> Tensor:
            return subject(*given)

        error = attempt(on_these, x, t).error
        at = (argument.detach() != kept).nonzero()
        # a leaf that needs a gradient may not be changed: that it works on a copy says that this is why
        refused = needs and error is not None and attempt(subject, x, targets, gradient=True).error is None
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
    if holds_tensors(subject) or attempt(subject, x, t, gradient=True).value is None:
        return
    wide = attempt(subject, *cast(torch.float64, x, t), gradient=True)
    if wide.value is None:
        yield found("dtype written in", f"float32 works, float64: {wide.shown()}")
    elif wide.value.dtype != torch.float64:
        yield found("dtype written in", f"float64 in, {str(wide.value.dtype).removeprefix('torch.')} out")


def reductions(subject: Subject, match: Match | None) -> Found:
    """What a mean divides by, and whether the argument `reduction` does anything."""
    if "reduction" in subject.loaded.takes:
        tried = {name: attempt(subject.with_hyper(reduction=name), *batch(subject)) for name in REDUCTIONS}
        if any(near(*pair) for pair in combinations(tried.values(), 2)):
            values = ((name, one.value) for name, one in tried.items() if one.value is not None)
            shown = (f"{name!r}: shape {tuple(v.shape)}, sum {float(v.sum()):.6g}" for name, v in values)
            yield found("reduction ignored", "; ".join(shown))
    convention = match.convention if match is not None else {}
    words = convention.get("reduction")
    if subject.region and subject.reduction == "none":
        x, t = batch(subject)
        first, alone = (float(together(subject, *pair).reshape(-1)[0]) for pair in ((x, t), (x[:1], t[:1])))
        yield found("tied rows", f"the first element costs {first:.4g}, in its row alone {alone:.4g}")
    if subject.kind == "classification" and words == MEAN and not subject.region:
        yield found("mean over all", f"reduction: {words}")
    elif words in LATE.values():
        x, t = torch.tensor([[3.0], [-3.0]]), torch.ones(2, 1)
        if subject.kind == "softmax":
            x, t = torch.cat((x, torch.zeros(2, subject.classes - 1)), 1), torch.zeros(2, dtype=torch.long)
        parts = (slice(0, 1), slice(1, 2), slice(0, 2))
        easy, hard, both = (total(attempt(subject, x[part], t[part])) for part in parts)
        seen = f"a right logit of 3 and a wrong one: alone {easy:.4g} and {hard:.4g}, together {both:.4g} "
        yield found("weighed too late", f"{seen}(reduction: {words})")


def other_settings(subject: Subject, match: Match | None) -> Found:
    """What its flags lead to: a name without a value, or no value at all."""
    x, t = batch(subject)
    for name, default in subject.loaded.takes.items():
        others: Sequence[object] = (not default,) if isinstance(default, bool) else ()
        if isinstance(default, str):
            others = REDUCTIONS if default in REDUCTIONS else options(subject.loaded.names.source, name)
        for other in others:
            error = attempt(subject.with_hyper(**{name: other}).loaded, x, t).error
            hyper = f"{name}={other!r}"
            if isinstance(error, UnboundLocalError):
                yield found("unbound at", f"{line_of_error(error)} ({in_a_line(error)})", hyper=hyper)
                break
            if isinstance(error, NoTensor) and error.value is None:
                yield found("no return at", f"called with {hyper}: None", hyper=hyper)
                break
