"""`diagnose`: examines anybody's loss in a process of its own, which may hang, crash or print."""

import ast
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.curve import NEAR
from detloss.lab.doctor.findings import LEVELS, Diagnosis, Finding, NotExamined
from detloss.lab.doctor.known import PEERS
from detloss.lab.doctor.loading import split_target
from detloss.lab.doctor.source import read_source
from detloss.lab.processes import End, supervise

Kind = Literal["auto", "classification", "box", "distribution"]
Progress = Callable[[int, int, str], None]
STAGE_SECONDS = 20.0
STARTING = "starting"


def check(kind: str, like: str | None, time_limit: float, call: str | None) -> None:
    """Refuse what `diagnose` does not take.

    Raises:
        ValueError: which argument, and what it may be.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; it may be {', '.join(get_args(Kind))}")
    if like is not None and like not in PEERS:
        raise ValueError(f"like is {like!r}; it may be {', '.join(PEERS)}")
    if not 0 < time_limit < math.inf:
        raise ValueError(f"time_limit is {time_limit}; it must be a positive number of seconds")
    if call is not None:
        try:
            written = ast.parse(call.strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"call is {call!r}, which is not Python: {error.msg}") from None
        if not isinstance(written, ast.Lambda) or len(written.args.args) != 3:
            raise ValueError(f"call is {call!r}; it must be a lambda of a loss, predictions and targets")


def diagnose(
    target: str,
    kind: Kind = "auto",
    like: str | None = None,
    time_limit: float = 60.0,
    call: str | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """What a loss is, and what is wrong with it. Its code runs in another process, which is no sandbox.

    Args:
        target: `PATH.py:NAME` or `module:NAME`: a function, a class, an object that can be called.
        kind: the kind of loss; "auto" finds out.
        like: torchvision, mmdet, ultralytics, ...: says where its convention differs from that one's.
        time_limit: seconds after which it is stopped, torch's own start not counted; one stage may take at
            most 20 of them.
        call: how it is called, where the doctor cannot tell: "lambda loss, logits, labels: loss(...)". What
            the name stands for is passed as it is, a class as a class. The text is run, like the file.
        progress: called with (stages begun, all stages, the stage's name).

    Raises:
        ValueError: no such file, module or name; an unknown kind or peer; a limit that is not positive;
            a call that is no lambda of three arguments.
    """
    check(kind, like, time_limit, call)
    path, _, name = split_target(target)
    if path is not None:
        try:
            read_source(path, name)
        except NotExamined as end:
            return Diagnosis(target, None, findings=(end.finding,))
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "printed"
        spec = {"target": target, "kind": kind, "like": like, "time_limit": time_limit, "call": call}
        _examine_all(spec, seen, printed, progress)
        with printed.open(encoding="utf-8", errors="replace") as file:
            return _diagnosis(target, seen, file.read(1 << 16).strip())


@dataclass
class Seen:
    """What the processes have told so far, by the keys of their events."""

    begun: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    subject: dict[str, Any] = field(default_factory=dict)
    match: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, Any] | None = None
    done: bool = False

    def take(self, event: dict[str, Any]) -> bool:
        """One event; True where it is the last.

        Raises:
            ValueError: what was asked for is not there.
        """
        lists: dict[str, list[Any]] = {"stage": self.begun, "note": self.notes, "checked": self.checked}
        for key, told in event.items():
            if key == "refused":
                raise ValueError(told)
            if key == "finding":
                self.findings.append(Finding(**told))
            elif key in lists:
                lists[key].append(told)
            else:
                setattr(self, key, told)
        return self.done


def _examine_all(spec: dict[str, Any], seen: Seen, printed: Path, progress: Progress | None) -> None:
    """One process after the other, each going on after the stage that ended the one before."""
    from detloss.lab.doctor.examine import NEEDED, STAGES

    left, skip = spec["time_limit"], list[str]()

    def take(event: dict[str, Any]) -> bool:
        if progress is not None and event.get("stage") in STAGES:
            progress(STAGES.index(event["stage"]), len(STAGES), event["stage"])
        return seen.take(event)

    while True:
        seen.begun.clear()
        command = [sys.executable, "-P", "-m", "detloss.lab.doctor.examine"]
        end = supervise(command, {**spec, "skip": skip}, take, printed, left, STAGE_SECONDS)
        if end.how == "done":
            return
        stage = seen.begun[-1] if seen.begun else STARTING
        left -= end.seconds
        seen.findings += _of_end(end, stage)
        rest = STAGES[STAGES.index(stage) + 1 :] if stage in STAGES else STAGES
        needed = stage in (STARTING, *NEEDED)
        if needed or left <= 0 or end.how == "out of time":
            if rest:
                why = "" if needed else f" within {spec['time_limit']:g} s; a larger time_limit examines all"
                what = ", ".join(rest) if len(rest) < 4 else f"{rest[0]}, and all {len(rest) - 1} after it"
                seen.notes.append(f"not examined{why}: {what}")
            return
        skip = [one for one in STAGES if one not in rest]


def _of_end(end: End, stage: str) -> list[Finding]:
    """The finding where the user's code is to blame.

    Raises:
        RuntimeError: it ended before any of that code ran.
    """
    if stage == STARTING and end.how == "died":
        raise RuntimeError(f"the doctor's process ended {end.detail} before it began")
    kinds = {"late": "hangs", "memory": "memory limit", "died": "process ends"}
    if end.how not in kinds:
        return []
    kind = "import hangs" if end.how == "late" and stage == "loading it" else kinds[end.how]
    return [found(kind, end.line or "no line known", how=end.detail, stage=stage)]


def _diagnosis(target: str, seen: Seen, printed: str) -> Diagnosis:
    notes = [f"{name}: {text}" for name, text in seen.subject.get("chosen", {}).items()]
    if seen.match.get("nearest") and seen.match["name"] is None:
        near = f"nearest known loss: {seen.match['nearest']}, off by up to {100 * seen.match['error']:.3g} %"
        notes.append(near if seen.match["error"] < NEAR else "no known loss is near")
    if printed:
        lines = printed.splitlines()
        more = f" (the first of {len(lines)} lines)" if len(lines) > 1 else ""
        notes.append(f"it prints: {lines[0][:100]}{more}")
    once = {(one.code, one.message, one.evidence): one for one in seen.findings}
    return Diagnosis(
        target,
        seen.match.get("name"),
        {"kind": seen.subject["kind"], **seen.match.get("convention", {})} if seen.subject else {},
        tuple(sorted(once.values(), key=lambda finding: LEVELS.index(finding.level))),
        tuple(dict.fromkeys([*notes, *seen.notes])),
        tuple(dict.fromkeys(seen.checked)),
        seen.curve,
    )
