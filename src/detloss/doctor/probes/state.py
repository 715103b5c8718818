"""Probes of what a loss does besides: to its arguments, to torch's settings, to dtypes, in its reduction."""

import warnings
from functools import partial

import torch

from detloss.doctor.elements import attempt, in_a_line
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.matching.reductions import AFTER
from detloss.doctor.probes.devices import holds_tensors
from detloss.doctor.samples import batch
from detloss.doctor.subject import Subject


def mutates_input(subject: Subject, match: Match | None) -> list[Finding]:
    """It changes its arguments, torch's settings, or its own next answer."""
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    findings = _of_arguments(subject, match)
    x, t = batch(subject, match)
    first, second = (attempt(subject.call, x, t).value for _ in range(2))
    random = attempt(partial(_with_other_random_numbers, subject), x, t).value
    with torch.no_grad():  # as validation calls it
        attempt(subject.call, x, t)
        enabled = torch.is_grad_enabled()
    after = torch.get_default_dtype(), torch.is_grad_enabled()
    if before != after:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])
        findings.append(
            Finding(
                "mutates-input",
                "error",
                "it changes torch's settings for all that follows",
                f"default dtype and gradient mode before: {before}, after: {after}",
                "use a with block, which restores them",
            )
        )
    elif enabled:
        findings.append(
            Finding(
                "mutates-input",
                "warning",
                "it switches gradients on, also for a caller that had them off",
                "called under torch.no_grad(): torch.is_grad_enabled() is True afterwards",
                "use `with torch.no_grad():` around the lines, not torch.set_grad_enabled(True) after them",
            )
        )
    if first is None or second is None or random is None:
        return findings
    if _same(first, second) and not _same(first, random):
        findings.append(
            Finding(
                "mutates-input",
                "warning",
                "it draws random numbers: the same call has another value each time",
                f"seed 0: {float(first.sum()):.6g}, seed 1: {float(random.sum()):.6g}",
                "draw outside of the loss, so that the same prediction costs the same",
            )
        )
    elif not _same(first, second):
        findings.append(
            Finding(
                "mutates-input",
                "warning",
                "the same call has another value the second time: it keeps a state",
                f"first {float(first.sum()):.6g}, then {float(second.sum()):.6g}",
                "a loss is a function of its arguments; pass a schedule's step as one",
            )
        )
    return findings


def _with_other_random_numbers(subject: Subject, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return subject.call(x, t)


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, 1e-5, 1e-8, equal_nan=True)


def _of_arguments(subject: Subject, match: Match | None) -> list[Finding]:
    findings = []
    seen: set[str] = set()
    x, t = batch(subject, match)
    edge = t.clone()
    if subject.kind == "distribution":
        edge[:2] = float(subject.bins)  # the last bin: where some clamp
    for targets in (t, edge):
        for name, needs in (("predictions", False), ("targets", False), ("predictions", True)):
            given = x.clone(), targets.clone()
            argument = given[0] if name == "predictions" else given[1]
            kept = argument.clone()
            first = given[0].requires_grad_() if needs else given[0]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                error = ""
                try:
                    subject.call(first, given[1])
                except Exception as problem:
                    error = in_a_line(problem)
            changed = not torch.equal(argument.detach(), kept)
            refused = "in-place" in error and needs
            if (changed or refused) and name not in seen:
                seen.add(name)
                at = (argument.detach() != kept).nonzero()
                told = error
                if changed and len(at):
                    place = tuple(at[0].tolist())
                    told = f"{name}{list(place)} was {float(kept[place]):g}, is {float(argument[place]):g}"
                findings.append(
                    Finding(
                        "mutates-input",
                        "error",
                        f"it changes its argument {name} in place",
                        told,
                        "write x = x.clamp(...) instead of x.clamp_(...), a * b instead of a *= b",
                    )
                )
    return findings


def dtype_hardcoded(subject: Subject, match: Match | None) -> list[Finding]:
    """float64 in, something else out, or an exception; not of a Module whose tensors `.to` casts."""
    if holds_tensors(subject):
        return []
    x, t = batch(subject, match)
    narrow = attempt(subject.call, x, t, gradient=True)
    wide = attempt(subject.call, x.double(), t.double() if t.is_floating_point() else t, gradient=True)
    if narrow.value is None:
        return []
    if wide.value is None:
        if "dtype" not in wide.error.lower() and "double" not in wide.error.lower():
            return []
        told = f"float32 works, float64: {wide.error}"
    elif wide.value.dtype != torch.float64:
        told = f"float64 in, {str(wide.value.dtype).removeprefix('torch.')} out"
    else:
        return []
    return [
        Finding(
            "dtype-hardcoded",
            "warning",
            "a dtype is written into it",
            told,
            "make tensors with inputs.new_tensor, zeros_like or dtype=inputs.dtype",
        )
    ]


def reduction(subject: Subject, match: Match | None) -> list[Finding]:
    """What a mean divides by, and whether the argument `reduction` does anything."""
    findings = [*_ignored(subject, match)]
    words = match.convention.get("reduction", "") if match is not None else ""
    if subject.kind == "classification" and str(words).startswith("mean over all elements"):
        findings.append(
            Finding(
                "reduction",
                "note",
                "it divides by all elements, background included: the loss of the few positives shrinks with "
                "the number of locations and classes",
                f"reduction: {words}",
                "sum, then divide by the number of positives (at least 1), as detectors do",
            )
        )
    elif AFTER in str(words):
        findings.append(_weighed_too_late(subject, str(words)))
    elif str(words).startswith("other"):
        findings.append(
            Finding(
                "reduction",
                "note",
                "the value of a batch is none of the usual sums and means of its elements' values",
                f"reduction: {words}",
                "give the values of the elements (reduction='none') and reduce them outside",
            )
        )
    return findings


def _weighed_too_late(subject: Subject, words: str) -> Finding:
    if subject.kind == "classification":
        x, t = torch.tensor([[3.0], [-3.0]]), torch.ones(2, 1)
        told = "logits 3 and -3, targets 1"
    else:
        x, t = torch.tensor([[3.0], [-3.0]]), torch.zeros(2, dtype=torch.long)
        x = torch.cat((x, torch.zeros(2, subject.classes - 1)), 1)
        told = f"logits (3, 0, ...) and (-3, 0, ...), target 0, {subject.classes} classes"
    alone = [attempt(subject.call, x[i : i + 1], t[i : i + 1]).value for i in range(2)]
    both = attempt(subject.call, x, t).value
    values = [float("nan") if value is None else float(value) for value in (*alone, both)]
    return Finding(
        "reduction",
        "error",
        "the weight is put on the mean of the cross entropy, not on each element: it tells no easy from hard",
        f"{told}: alone {values[0]:.4g} and {values[1]:.4g}, together {values[2]:.4g} (reduction: {words})",
        "cross entropy with reduction='none', then the weight, then the mean",
    )


def _ignored(subject: Subject, match: Match | None) -> list[Finding]:
    if subject.rebuild is None or "reduction" not in subject.takes:
        return []
    x, t = batch(subject, match)
    values = {}
    for name in ("none", "mean", "sum"):
        try:
            values[name] = attempt(subject.rebuild(reduction=name).call, x, t).value
        except Exception:
            return []
    got = {name: value for name, value in values.items() if value is not None}
    if len(got) < 2:
        return []
    alike = {name for name in got for other in got if name != other and _same(got[name], got[other])}
    if not alike:
        return []
    return [
        Finding(
            "reduction",
            "warning",
            "the argument reduction is not followed",
            "; ".join(
                f"{name!r}: shape {tuple(value.shape)}, sum {float(value.sum()):.6g}"
                for name, value in got.items()
            ),
            "reduce where it says so, and raise for a name that is not known",
        )
    ]
