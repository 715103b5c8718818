"""The process in which anybody's code runs: it says what it begins and what it finds, a JSON line each.

Started by `detloss.doctor.diagnose` as `python -m detloss.doctor.worker SPEC`.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, NoReturn

import torch

from detloss.doctor.calling.load import CannotExamine, crash, load, parse, split_target
from detloss.doctor.calling.settle import Wanted, settle
from detloss.doctor.curve import curve
from detloss.doctor.elements import attempt
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.matching.identify import identify
from detloss.doctor.probes import PROBES
from detloss.doctor.probes.state import dtype_hardcoded
from detloss.doctor.reading.source import source_findings
from detloss.doctor.samples import batch, without_float64

NEEDED = ("reading the source", "loading it", "the form in which it is called")
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

    def begin(stage: str) -> bool:
        emit({"stage": stage})
        return stage not in skip

    def tell(*findings: Finding) -> None:
        for finding in findings:
            emit({"finding": asdict(finding)})

    try:
        begin(NEEDED[0])
        path, _, name = split_target(target)
        if path is not None:
            tell(*source_findings(parse(path, name)))
        begin(NEEDED[1])
        loaded = load(target)
        if path is None and loaded.source is not None:
            tell(*source_findings(loaded.source))
        begin(NEEDED[2])
        subject, found = settle(loaded, kind)
    except CannotExamine as end:
        tell(end.finding)
        emit({"note": "nothing more could be examined"})
        return
    tell(*found)
    emit({"subject": {"kind": subject.kind, "chosen": subject.chosen}})
    refusal = attempt(subject.call, *batch(subject, None)).error
    if refusal:
        tell(_unusual(refusal))
    as_it_is, subject = subject, without_float64(subject)
    match: Match | None = None
    if begin("which loss it is"):
        match = identify(subject, like)
        if match is not None:
            tell(*match.findings)
            emit({"match": {key: getattr(match, key) for key in ("name", "nearest", "error", "convention")}})
    for stage, probe in PROBES.items():
        if begin(stage):
            try:
                findings = probe(as_it_is if probe is dtype_hardcoded else subject, match)
            except Exception as error:  # nobody's loss shall stop the doctor
                emit({"note": f"{stage}: not examined ({crash(error, 'it failed', loaded.source).message})"})
                continue
            tell(*findings)
            emit({"checked": stage} if not findings and not refusal else {})
    if begin("its curve"):
        emit({"curve": curve(subject, match)})


def _unusual(error: str) -> Finding:
    return Finding(
        "crashes",
        "warning",
        "it runs on the first few numbers, but not on other batches: little could be examined",
        error,
        "a loss takes any number of rows; examine a version of it that does",
    )


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: nobody's loss needs another machine."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise OSError("the doctor examines without network")


def main() -> NoReturn:
    """Examines what the first argument says, in JSON."""
    spec = json.loads(sys.argv[1])
    trace = open(spec["trace"], "w")  # noqa: SIM115
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    signal.alarm(int(spec["time_limit"]) + 300)  # nobody may be left to end it
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
            emit({"finding": asdict(crash(error, "it stopped the examination", None))})
        emit({"done": True})
    os._exit(0)  # threads and exit handlers of the user's are not waited for


if __name__ == "__main__":
    main()
