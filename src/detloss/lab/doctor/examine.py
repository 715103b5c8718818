"""The process in which anybody's code runs: it says what it begins and what it finds, a JSON line each.

Started by `detloss.lab.doctor.diagnose` as `python -m detloss.lab.doctor.examine SPEC`.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import torch

from detloss.lab.doctor import probe_effects, probe_gradients, probe_operations, probe_shapes, probe_values
from detloss.lab.doctor.answers import attempt, batch, with_divisor
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.curve import curve
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.identify import identify, unlike
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.loading import gpu_types_on_cpu, in_a_line, line_of_error, load
from detloss.lab.doctor.names import Names
from detloss.lab.doctor.probe_direction import direction
from detloss.lab.doctor.settle import Wanted, needs_eps, settle

Probe = Callable[[Subject, Match | None], Iterator[Finding]]
LOADING = "loading it"
NEEDED = (LOADING, "the form in which it is called")
PROBES: dict[str, Probe] = {
    "alpha": probe_values.alpha_side,
    "right and wrong predictions": probe_values.similarity,
    "values at the extremes": probe_values.finite_value,
    "whether there is a gradient": probe_gradients.has_gradient,
    "gradient against the slope of the value": probe_gradients.own_gradient,
    "gradients at the extremes": probe_gradients.finite_gradient,
    "where wrong predictions are pushed": direction,
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
OF_ROWS = {
    "alpha",
    "values at the extremes",
    "gradient against the slope of the value",
    "gradients at the extremes",
    "where wrong predictions are pushed",
    "soft targets",
    "half precision",
}
"""Those that look at one row, or element, alone: a loss of regions is not asked."""
STAGES = (*NEEDED, "which loss it is", *PROBES, "its curve")
FILE_LIMIT = 1 << 28
Emit = Callable[[dict[str, Any]], None]


def examine(target: str, kind: Wanted, like: str | None, skip: Collection[str], emit: Emit) -> None:
    """All stages, each told as `{"stage": name}` when it begins, then its findings.

    Args:
        target: `PATH.py:NAME` or `module:NAME`.
        kind: of loss, or "auto".
        like: a peer whose convention it is compared with.
        skip: stages that are not made (of those that nothing else needs).
        emit: takes the events.

    Raises:
        ValueError: the target is not there.
    """
    settings, requests = _settings(), dict[str, None]()
    try:
        with gpu_types_on_cpu(requests):
            _examine(target, kind, like, skip, _Telling(emit, requests, settings))
    finally:
        _restore(settings)


def _settings() -> tuple[torch.dtype, bool]:
    return torch.get_default_dtype(), torch.is_grad_enabled()


def _restore(settings: tuple[torch.dtype, bool]) -> None:
    torch.set_default_dtype(settings[0])
    torch.set_grad_enabled(settings[1])


@dataclass
class _Telling:
    """Passes events on; with findings goes what came up meanwhile: GPUs, names that were bound, settings."""

    emit: Emit
    requests: dict[str, None]
    settings: tuple[torch.dtype, bool]
    names: Names | None = None

    def tell(self, *findings: Finding) -> None:
        told = [*findings, *(found("asks for a gpu", line) for line in self.requests)]
        if self.names is not None:
            told += self.names.findings
            self.names.findings.clear()
        if (now := _settings()) != self.settings:
            _restore(self.settings)
            told.append(found("changes settings", f"dtype and gradient mode: {self.settings}, then {now}"))
        for finding in told:
            self.emit({"finding": asdict(finding)})

    def note(self, *notes: str) -> None:
        for note in notes:
            self.emit({"note": note})


def _examine(target: str, kind: Wanted, like: str | None, skip: Collection[str], to: _Telling) -> None:
    emit = to.emit
    try:
        emit({"stage": NEEDED[0]})
        loaded, findings = load(target, to.requests)
        to.names = loaded.names
        to.note(*loaded.mended)
        to.tell(*findings)
        emit({"stage": NEEDED[1]})
        subject, findings = settle(loaded, kind)
        to.tell(*findings, *needs_eps(subject))
    except NotExamined as end:
        to.tell(end.finding)
        to.note("nothing more could be examined")
        return
    subject, notes = _at_work(with_divisor(subject))
    chosen = subject.chosen | {
        name: "1e-7, since the file does not define it" for name in loaded.names.constants
    }
    emit({"subject": {"kind": "region" if subject.region else subject.kind, "chosen": chosen}})
    to.note(*notes)
    refusal = attempt(subject, *batch(subject)).error
    if refusal is not None:
        to.tell(found("few numbers only", in_a_line(refusal)))
    as_it_is, subject = subject, _narrowed(subject)
    match: Match | None = None
    emit({"stage": "which loss it is"})
    if "which loss it is" not in skip and (match := identify(subject)) is not None:
        to.tell(*(unlike(match, like) if like is not None else ()))
        emit({"match": {key: getattr(match, key) for key in ("name", "nearest", "error", "convention")}})
    for stage, probe in PROBES.items():
        emit({"stage": stage})
        if stage in skip or (subject.region and stage in OF_ROWS):
            continue
        try:
            findings = list(probe(as_it_is if stage == "dtypes" else subject, match))
        except Exception as error:  # a slip of the doctor's own stops one probe only
            to.note(f"not examined: {stage} ({in_a_line(error)})")
            continue
        to.tell(*findings)
        if not findings and refusal is None:
            emit({"checked": stage})
    emit({"stage": "its curve"})
    if "its curve" not in skip and not subject.region:
        emit({"curve": curve(subject, match)})


def _at_work(subject: Subject) -> tuple[Subject, list[str]]:
    """The subject at a gamma that does something."""
    gamma = subject.loaded.takes.get("gamma")
    if type(gamma) in (int, float) and gamma == 0 and "gamma" not in subject.chosen:
        focal = subject.with_hyper(gamma=2.0)
        if attempt(focal, *batch(focal)).value is not None:
            return focal, ["gamma: examined at 2; the default is 0, which makes a plain cross entropy of it"]
    if subject.region:
        return subject, ["a loss of regions, such as Dice: examined on a batch with positives and negatives"]
    return subject, []


def _narrowed(subject: Subject) -> Subject:
    """The same loss, called in float32 where it does not run in float64, which most is compared in."""
    x, t = batch(subject, dtype=torch.float64)
    wide = attempt(subject, x, t, gradient=True)
    if wide.value is not None and wide.value.dtype == torch.float64:
        return subject
    narrow = replace(subject, narrow=True)
    return subject if attempt(narrow, x, t).value is None else narrow


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

        def emit(event: dict[str, Any]) -> None:
            print(json.dumps(event, default=str), file=pipe, flush=True)

        try:
            examine(spec["target"], spec["kind"], spec["like"], spec["skip"], emit)
        except ValueError as error:
            emit({"refused": str(error)})
        except BaseException as error:
            emit({"finding": asdict(found("stops the doctor", line_of_error(error), what=in_a_line(error)))})
        emit({"done": True})
    os._exit(0)  # threads and exit handlers of the user's are not waited for


if __name__ == "__main__":
    main()
