"""`diagnose`: examines anybody's loss in a process of its own, which may hang, crash or print."""

import contextlib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from detloss.doctor.calling.load import CannotExamine, parse, split_target
from detloss.doctor.curve import NEAR
from detloss.doctor.findings import Diagnosis, Finding
from detloss.doctor.matching.known import PEERS

Kind = Literal["auto", "classification", "box", "distribution"]
Progress = Callable[[int, int, str], None]
STAGE_SECONDS = 20.0
STARTING, LOADING = "starting", "loading it"
LEVELS = ("error", "warning", "note")
MERGED = ("python-loop", "device-hardcoded", "dtype-hardcoded")  # seen in the source and when it runs


@dataclass(frozen=True)
class DoctorConfig:
    """What is examined."""

    target: tyro.conf.Positional[str] = ""
    """The loss: PATH.py:NAME or module:NAME; a function, a class, or an object that can be called."""
    kind: Kind = "auto"
    """Of loss: auto finds out by trial calls."""
    like: str | None = None
    """A peer: says where its convention differs from that one's. May be
    detloss torchvision mmdet ultralytics fvcore optax monai kornia smp keras deim paddle."""
    time_limit: float = 60.0
    """Seconds after which it is stopped."""

    def __post_init__(self) -> None:
        if self.like is not None and self.like not in PEERS:
            raise ValueError(f"like is {self.like!r}; it may be {', '.join(PEERS)}")
        if not 0 < self.time_limit < math.inf:
            raise ValueError(f"time_limit is {self.time_limit}; it must be a positive number of seconds")


def diagnose(
    target: str,
    kind: Kind = "auto",
    like: str | None = None,
    time_limit: float = 60.0,
    progress: Progress | None = None,
) -> Diagnosis:
    """What a loss is, and what is wrong with it. Its code runs in another process only.

    Args:
        target: `PATH.py:NAME` or `module:NAME`: a function, a class, an object that can be called.
        kind: of loss; "auto" finds out.
        like: torchvision, mmdet, ultralytics, ...: says where its convention differs from that one's.
        time_limit: seconds after which it is stopped, torch's own start not counted; one stage may take at
            most 20 of them.
        progress: called with (stages begun, all stages, the stage's name).

    Raises:
        ValueError: no such file, module or name; an unknown kind or peer; a limit that is not positive.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; it may be {', '.join(get_args(Kind))}")
    DoctorConfig(target, kind, like, time_limit)
    path, _, name = split_target(target)
    if path is not None:
        try:
            parse(path, name)
        except CannotExamine as end:
            return Diagnosis(target, None, findings=(end.finding,))
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        _watch_all(target, kind, like, time_limit, progress, seen, Path(folder))
        with (Path(folder) / "printed").open(encoding="utf-8", errors="replace") as file:
            printed = file.read(1 << 16).strip()
    return _diagnosis(target, seen, printed)


@dataclass
class Seen:
    """What the workers have told so far."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    subject: dict[str, Any] = field(default_factory=dict)
    match: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, Any] | None = None
    done: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """One event of a worker.

        Raises:
            ValueError: the worker says that what was asked for is not there.
        """
        match event:
            case {"stage": str(stage)}:
                self.begun.append(stage)
            case {"finding": dict(finding)}:
                self.findings.append(Finding(**finding))
            case {"note": str(note)}:
                self.notes.append(note)
            case {"checked": str(stage)}:
                self.checked.append(stage)
            case {"subject": dict(subject)}:
                self.subject = subject
            case {"match": dict(match)}:
                self.match = match
            case {"curve": curve}:
                self.curve = curve
            case {"refused": str(text)}:
                raise ValueError(text)
            case {"done": True}:
                self.done = True


def _watch_all(
    target: str,
    kind: str,
    like: str | None,
    time_limit: float,
    progress: Progress | None,
    seen: Seen,
    folder: Path,
) -> None:
    """Workers, one after the other, each going on after the stage that ended the one before."""
    from detloss.doctor.worker import NEEDED, STAGES

    left = time_limit
    skip: list[str] = []
    while True:
        spec = {"target": target, "kind": kind, "like": like, "skip": skip, "time_limit": time_limit}
        seen.begun.clear()

        def tell(stage: str) -> None:
            if progress is not None and stage in STAGES:
                progress(STAGES.index(stage), len(STAGES), stage)

        end = watch([sys.executable, "-P", "-m", "detloss.doctor.worker"], spec, left, seen, folder, tell)
        if end is None:
            return
        stage = seen.begun[-1] if seen.begun else STARTING
        left -= end.seconds
        if end.finding is not None:
            seen.findings.append(end.finding)
        rest = [one for one in STAGES[STAGES.index(stage) + 1 :]] if stage in STAGES else list(STAGES)
        if stage in (STARTING, *NEEDED) or left <= 0 or end.finding is None:
            if rest:
                why = (
                    ""
                    if stage in (STARTING, *NEEDED)
                    else f" within {time_limit:g} s; give more --time-limit"
                )
                what = ", ".join(rest) if len(rest) < 4 else f"{rest[0]}, and all {len(rest) - 1} after it"
                seen.notes.append(f"not examined{why}: {what}")
            return
        skip = [one for one in STAGES if one not in rest]


@dataclass(frozen=True)
class Ended:
    """How a worker ended before it was done: the finding, if the user's code is to blame."""

    finding: Finding | None
    seconds: float


def watch(
    command: Sequence[str],
    spec: dict[str, Any],
    seconds: float,
    seen: Seen,
    folder: Path,
    tell: Callable[[str], None],
) -> Ended | None:
    """Runs one worker to its end; None where it was done.

    Args:
        command: that starts it; the spec is added as JSON.
        spec: what it shall do.
        seconds: that it has, from its first event on.
        seen: gets its events.
        folder: for what it prints, and for its traceback.
        tell: called with each stage.
    """
    trace, printed = folder / "trace", folder / "printed"
    trace.write_text("")
    read_end, write_end = os.pipe()
    arguments = [*command, json.dumps({**spec, "pipe": write_end, "trace": str(trace)})]
    # No GPU: what asks for one is then told by the same exception on every machine.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
    with printed.open("ab") as out:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(write_end,),
            env=environment,
            start_new_session=True,  # killed with all that it started; Ctrl-C reaches this process only
        )
    os.close(write_end)
    try:
        return _follow(process, read_end, seconds, seen, trace, tell)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(read_end)


def _follow(
    process: subprocess.Popen[bytes],
    pipe: int,
    seconds: float,
    seen: Seen,
    trace: Path,
    tell: Callable[[str], None],
) -> Ended | None:
    began = stage_began = None
    allowed = _memory_allowed()
    for event in _events(process, pipe):
        now = time.monotonic()
        began = began if began is not None else now if event else None
        if event:
            seen.take(event)
            if seen.done:
                return None
            if "stage" in event:
                stage_began = now
                tell(event["stage"])
        gone = 0.0 if began is None else now - began
        stage_gone = 0.0 if stage_began is None else now - stage_began
        limit = min(STAGE_SECONDS, seconds)
        stage = seen.begun[-1] if seen.begun else STARTING
        if stage_gone > limit or gone > seconds:
            if stage_gone < limit / 2:
                return Ended(None, gone)
            message = f"it did not end within {stage_gone:.0f} s (stage: {stage})"
            remedy = "look for a loop that never ends"
            if stage == LOADING:
                remedy = 'what a script does, such as training, belongs under `if __name__ == "__main__":`'
            return Ended(_stopped("hangs", message, process, trace, remedy), gone)
        if _memory(process.pid) > allowed:
            message = f"it needed more than {allowed / 2**30:.1f} GiB of memory (stage: {stage})"
            remedy = "look for shapes that broadcast, or for a list that grows"
            return Ended(_stopped("crashes", message, process, trace, remedy), gone)
    process.wait()
    stage = seen.begun[-1] if seen.begun else STARTING
    gone = 0.0 if began is None else time.monotonic() - began
    code = process.returncode
    how = f"with signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    if stage == STARTING:
        raise RuntimeError(f"the doctor's process ended {how} before it began")
    message = f"it ended the process {how} (stage: {stage})"
    return Ended(Finding("crashes", "error", message, user_line(trace), "raise an exception instead"), gone)


def _events(process: subprocess.Popen[bytes], pipe: int) -> Iterator[dict[str, Any]]:
    """The events of a worker as they come, and `{}` five times a second, until it ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        text = b""
        while True:
            if not selector.select(0.2):
                if process.poll() is not None:
                    return  # a child of the user's may still hold the pipe
                yield {}
                continue
            part = os.read(pipe, 1 << 16)
            if not part:
                return
            *lines, text = (text + part).split(b"\n")
            yield from (json.loads(line) for line in lines)


def _stopped(code: str, message: str, process: subprocess.Popen[bytes], trace: Path, remedy: str) -> Finding:
    """The finding of a worker that must be ended, with the line where it was."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)  # faulthandler writes down where it is
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not trace.read_text():
        time.sleep(0.02)
    time.sleep(0.05)
    return Finding(code, "error", message, user_line(trace), remedy)


def user_line(trace: Path) -> str:
    """The innermost line of a faulthandler's traceback that is neither this package's nor a library's."""
    frames = re.findall(r'File "(.+?)", line (\d+) in', trace.read_text(errors="replace"))
    here = str(Path(__file__).parent)
    own = [f for f in frames if not f[0].startswith((here, sys.base_prefix, sys.prefix, "<"))]
    for file, line in own or frames[:1]:
        try:
            text = Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
        except (OSError, IndexError, UnicodeDecodeError):
            text = ""
        return f"{Path(file).name}:{line}: {text}"
    return "no traceback was left"


def _memory(process: int) -> int:
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _memory_allowed() -> int:
    """Three quarters of what is free, at least 1 GiB."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 1 << 62
    return max(1 << 30, int(0.75 * free))


def _diagnosis(target: str, seen: Seen, printed: str) -> Diagnosis:
    chosen = seen.subject.get("chosen", {}).items()
    notes = [text if name.startswith("mended") else f"{name}: {text}" for name, text in chosen]
    if seen.match and seen.match.get("name") is None:
        off = f"off by up to {100 * seen.match['error']:.3g} %"
        near = seen.match["error"] < NEAR
        notes.append(
            f"nearest known loss: {seen.match['nearest']}, {off}" if near else "no known loss is near"
        )
    if printed:
        lines = printed.splitlines()
        more = f" (the first of {len(lines)} lines)" if len(lines) > 1 else ""
        notes.append(f"it prints: {lines[0][:100]}{more}")
    found = merged(seen.findings)
    return Diagnosis(
        target,
        seen.match.get("name"),
        {"kind": seen.subject["kind"], **seen.match.get("convention", {})} if seen.subject else {},
        tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level))),
        tuple(dict.fromkeys([*notes, *seen.notes])),
        tuple(dict.fromkeys(seen.checked)),
        seen.curve,
    )


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Nothing twice; what was seen at run time is added to the line that the source showed.

    What is told of a line, or of an undefined name, is told once for each code.
    """
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        line = re.match(r"[^\s:]+\.py:\d+:", finding.evidence)
        about = line[0] if line else finding.message
        if finding.code == "undefined-name" and (name := re.search(r"[`'](\w+)[`']", finding.message)):
            about = name[1]
        read = next(
            (key for key, one in found.items() if key[0] == finding.code and ".py:" in one.evidence), None
        )
        if not line and read is not None and finding.code in MERGED:
            first = found[read]
            worst = min(first.level, finding.level, key=LEVELS.index)
            found[read] = replace(first, level=worst, evidence=f"{first.evidence}; {finding.evidence}")
        else:
            found.setdefault((finding.code, about), finding)
    return list(found.values())
