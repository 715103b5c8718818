"""Probes of what a loss does besides: to its arguments, to torch's settings, to dtypes, in its reduction."""

import warnings

import torch

from detloss.doctor.elements import attempt, in_a_line
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.probes_shapes import batch
from detloss.doctor.subject import Subject


def mutates_input(subject: Subject, match: Match | None) -> list[Finding]:
    """It changes its arguments, torch's settings, or its own next answer."""
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    findings = _of_arguments(subject, match)
    x, t = batch(subject, match)
    torch.manual_seed(0)
    first = attempt(subject.call, x, t).value
    torch.manual_seed(0)
    second = attempt(subject.call, x, t).value
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
    if first is not None and second is not None and not _same(first, second):
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
    """float64 in, something else out, or an exception."""
    x, t = batch(subject, match)
    narrow = attempt(subject.call, x, t)
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
