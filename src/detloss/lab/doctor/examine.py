"""The process in which anybody's code runs: it says what it begins and what it finds, a JSON line each.

Started by `detloss.lab.doctor.diagnose` as `python -m detloss.lab.doctor.examine SPEC`.
"""

import faulthandler
import json
import math
import os
import re
import resource
import signal
import sys
import unittest.mock
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, NoReturn

import torch

from detloss.lab.doctor import probe_effects, probe_numbers, probe_operations, probe_shapes, probe_values
from detloss.lab.doctor.answers import attempt, batch, is_tied, with_divisor
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.curve import curve
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.identify import identify, unlike
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.loading import load
from detloss.lab.doctor.reductions import EVERY, LATE
from detloss.lab.doctor.running import GPU_TYPES, in_a_line, line_of_error
from detloss.lab.doctor.settle import Wanted, needs_eps, settle

Probe = Callable[[Subject, Match | None], Iterator[Finding]]
Event = dict[str, Any]
NEEDED = ("loading it", "the form in which it is called")
PROBES: dict[str, Probe] = {
    "alpha": probe_values.alpha_side,
    "weights in p_t": probe_values.weights_in_p,
    "right and wrong predictions": probe_values.similarity,
    "values at the extremes": probe_numbers.finite_value,
    "whether there is a gradient": probe_numbers.has_gradient,
    "gradient against the slope of the value": probe_numbers.own_gradient,
    "gradients at the extremes": probe_numbers.finite_gradient,
    "where wrong predictions are pushed": probe_values.direction,
    "soft targets": probe_values.soft_minimum,
    "reduction": probe_effects.reductions,
    "other settings of its flags": probe_effects.other_settings,
    "arguments after the call": probe_effects.effects,
    "shapes that do not fit": probe_shapes.broadcast,
    "empty batches and one class": probe_shapes.empty,
    "targets to ignore": probe_shapes.ignored_targets,
    "transposed tensors": probe_shapes.transposed,
    "half precision": probe_shapes.half_precision,
    "dtypes": probe_effects.dtypes,
    "casts": probe_operations.casts,
    "devices": probe_operations.devices,
    "loops": probe_operations.loops,
    "memory": probe_operations.memory,
}
"""Each by what it looks at, in a person's words."""
OF_ROWS = {"soft targets", "half precision"}
"""Those that look at one element alone: not asked where elements are tied."""
TIED = "its elements are tied to each other, as in regions (Dice) or mining: examined within a batch"
KEPT = ("takes", "gamma", "alpha", "alpha_on", "memory")  # of the convention, where its elements are tied
STAGES = (*NEEDED, "which loss it is", *PROBES, "its curve")
FILE_LIMIT = 1 << 28


@unittest.mock.patch.dict(vars(torch.cuda), GPU_TYPES)
def examine(spec: Mapping[str, Any], emit: Callable[[Event], object]) -> None:
    """All stages, each told as `{"stage": name}` when it begins, then its findings; at the end `"done"`.

    Args:
        spec: the arguments of `diagnose`, and stages to `skip` (of those that nothing else needs).
        emit: takes the events.

    Raises:
        ValueError: the target is not there.
    """
    findings, told = dict[Finding, None](), 0
    settings = torch.get_default_dtype(), torch.is_grad_enabled()
    for event in _events(findings, **spec):
        if (now := (torch.get_default_dtype(), torch.is_grad_enabled())) != settings:
            torch.set_default_dtype(settings[0])
            torch.set_grad_enabled(settings[1])
            seen = f"dtype and gradient mode: {settings}, then {now}"
            findings.setdefault(found("changes settings", seen))
        for finding in list(findings)[told:]:
            emit({"finding": asdict(finding)})
        told = len(findings)
        emit(event)


def _events(
    findings: dict[Finding, None],
    target: str,
    kind: Wanted = "auto",
    like: str | None = None,
    skip: Collection[str] = (),
    call: str | None = None,
    **_: Any,
) -> Iterator[Event]:
    try:
        yield {"stage": NEEDED[0]}
        loaded = load(target, findings, call)
        yield from ({"note": note} for note in loaded.mended)
        yield {"stage": NEEDED[1]}
        subject = settle(loaded, kind)
        findings |= dict.fromkeys(needs_eps(subject))
    except NotExamined as end:
        findings.setdefault(end.finding)
        yield {"done": True}
        return
    if gammas := _all_zero(subject):
        subject = subject.with_hyper(**dict.fromkeys(gammas, 2.0))
        subject.chosen[" and ".join(gammas)] = "2; the default is 0, which makes a plain cross entropy of it"
    as_it_is = with_divisor(subject)
    subject = _narrowed(as_it_is)
    refusal = attempt(as_it_is, *batch(as_it_is)).error
    if refusal is not None:
        findings.setdefault(found("few numbers only", in_a_line(refusal)))
    yield {"stage": "which loss it is"}
    match = None if "which loss it is" in skip else identify(subject)
    late = match is not None and match.convention.get("reduction") in (*LATE.values(), *EVERY.values())
    alone = match.name if match is not None else None
    if not late and subject.kind in ("classification", "softmax") and is_tied(subject):
        subject = replace(subject, region=True)
        words = {key: match.convention[key] for key in KEPT if key in match.convention} if match else {}
        match = Match(None, "", math.inf, words)
        yield {"note": TIED + (f"; alone an element costs what {alone} has" if alone else "")}
    constants = {name: "1e-7, since the file does not define it" for name in loaded.names.constants}
    told = "region" if subject.region and not alone else subject.kind
    yield {"subject": {"kind": told, "chosen": subject.chosen | constants}}
    if match is not None:
        findings |= dict.fromkeys(unlike(match, like) if like is not None else ())
        yield {"match": {key: getattr(match, key) for key in ("name", "nearest", "error", "convention")}}
    for stage, probe in PROBES.items():
        yield {"stage": stage}
        if stage in skip or (subject.region and stage in OF_ROWS):
            continue
        try:
            seen = list(probe(as_it_is if stage == "dtypes" else subject, match))
        except Exception as error:  # a slip of the doctor's own stops one probe only
            yield {"note": f"not examined: {stage} ({in_a_line(error)})"}
            continue
        findings |= dict.fromkeys(seen)
        if not seen and refusal is None:
            yield {"checked": stage}
    yield {"stage": "its curve"}
    if "its curve" not in skip and not subject.region:
        yield {"curve": curve(subject, match)}
    yield {"done": True}


def _all_zero(subject: Subject) -> list[str]:
    """The exponents of a focal loss, where all are 0 by default and other ones work too."""
    takes = {name: value for name, value in subject.loaded.takes.items() if re.search("gamma|focus", name)}
    zero = takes and all(type(value) in (int, float) and value == 0 for value in takes.values())
    focal = subject.with_hyper(**dict.fromkeys(takes, 2.0))
    return [*takes] if zero and attempt(focal, *batch(focal)).value is not None else []


def _narrowed(subject: Subject) -> Subject:
    """The same loss, called in float32 where it does not run in float64, which most is compared in."""
    x, t = batch(subject, dtype=torch.float64)
    wide, narrow = attempt(subject, x, t, gradient=True).value, replace(subject, narrow=True)
    fits = wide is not None and wide.dtype == torch.float64
    return subject if fits or attempt(narrow, x, t).value is None else narrow


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no loss needs another machine."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise OSError("the doctor examines without network")


def main() -> NoReturn:
    """Examines what the first argument says, in JSON."""
    spec = json.loads(sys.argv[1])
    trace = open(spec["trace"], "w")  # noqa: SIM115
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    signal.alarm(int(spec["time_limit"]) + 300)  # the caller may have been killed
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))  # what prints for ever fills no disk
    sys.addaudithook(refuse_network)
    sys.argv = [spec["target"]]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with os.fdopen(spec["pipe"], "w") as pipe:

        def emit(event: Event) -> None:
            print(json.dumps(event, default=str), file=pipe, flush=True)

        try:
            examine(spec, emit)
        except ValueError as error:
            emit({"refused": str(error)})
        except BaseException as error:
            end = found("stops the doctor", line_of_error(error), what=in_a_line(error))
            emit({"finding": asdict(end), "done": True})
    os._exit(0)  # threads and exit handlers of the user's are not waited for


if __name__ == "__main__":
    main()
