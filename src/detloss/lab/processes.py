"""A supervised process: its events as they come, its time and memory limits, its end with all it started."""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LOOKING = 0.2  # seconds between two looks at time and memory


@dataclass(frozen=True)
class End:
    """How a supervised process ended.

    Attributes:
        how: "done" (it said so), "late" (a stage took too long), "out of time" (all stages together),
            "memory", or "died".
        detail: seconds of a late stage, GiB of memory allowed, or how it died.
        line: the innermost line of the user's code at that moment, "" where none was left.
        seconds: since its first event.
    """

    how: Literal["done", "late", "out of time", "memory", "died"]
    detail: str = ""
    line: str = ""
    seconds: float = 0.0


def supervise(
    command: Sequence[str],
    spec: dict[str, Any],
    take: Callable[[dict[str, Any]], bool],
    printed: Path,
    seconds: float,
    stage_seconds: float,
) -> End:
    """Runs a command to its end, and ends it with all that it started where it takes too much.

    Args:
        command: gets the spec as JSON in one more argument, with `pipe`, where its events go as JSON lines,
            and `trace`, the file that its faulthandler writes on SIGUSR1.
        spec: what it is to do.
        take: called with each event; True says that the process is done. An event with the key "stage" begins
            a stage.
        printed: the file that its output is added to.
        seconds: the limit for all, from its first event on.
        stage_seconds: the limit for one stage.
    """
    handle, path = tempfile.mkstemp(prefix="detloss-trace-")
    os.close(handle)
    trace = Path(path)
    read_end, write_end = os.pipe()
    # No GPU: what asks for one then meets the same on every machine.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
    with printed.open("ab") as out:
        process = subprocess.Popen(
            [*command, json.dumps({**spec, "pipe": write_end, "trace": str(trace)})],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(write_end,),
            env=environment,
            start_new_session=True,  # ended with all that it started; Ctrl-C reaches the caller only
        )
    os.close(write_end)
    try:
        return _follow(process, read_end, take, trace, seconds, stage_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(read_end)
        trace.unlink(missing_ok=True)


def _follow(
    process: subprocess.Popen[bytes],
    pipe: int,
    take: Callable[[dict[str, Any]], bool],
    trace: Path,
    seconds: float,
    stage_seconds: float,
) -> End:
    began = stage_began = None
    allowed, limit = memory_allowed(), min(stage_seconds, seconds)
    for event in events(process, pipe):
        now = time.monotonic()
        if event:
            began = now if began is None else began
            stage_began = now if "stage" in event else stage_began
            if take(event):
                return End("done", seconds=now - began)
        gone = 0.0 if began is None else now - began
        stage_gone = 0.0 if stage_began is None else now - stage_began
        if stage_gone > limit or gone > seconds:
            if stage_gone < limit / 2:  # many stages took the time: no single one is to blame
                return End("out of time", seconds=gone)
            return End("late", f"{stage_gone:.0f}", _line_now(process, trace), gone)
        if memory(process.pid) > allowed:
            return End("memory", f"{allowed / 2**30:.1f}", _line_now(process, trace), gone)
    code = process.wait()
    return End("died", ended(code), user_line(trace), 0.0 if began is None else time.monotonic() - began)


def events(process: subprocess.Popen[bytes], pipe: int) -> Iterator[dict[str, Any]]:
    """The events as they come, and `{}` whenever there is none for a while, until the process ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        text = b""
        while True:
            if not selector.select(LOOKING):
                if process.poll() is not None:
                    return  # a child of the user's may still hold the pipe
                yield {}
                continue
            part = os.read(pipe, 1 << 16)
            if not part:
                return
            *lines, text = (text + part).split(b"\n")
            yield from (json.loads(line) for line in lines)


def _line_now(process: subprocess.Popen[bytes], trace: Path) -> str:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)  # its faulthandler writes down where it is
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not trace.read_text(errors="replace"):
        time.sleep(0.02)
    time.sleep(0.05)
    return user_line(trace)


def user_line(trace: Path) -> str:
    """The innermost line of a faulthandler's traceback that is neither this package's nor a library's."""
    frames = re.findall(r'File "(.+?)", line (\d+) in', trace.read_text(errors="replace"))
    here = str(Path(__file__).parents[1])
    own = [f for f in frames if not f[0].startswith((here, sys.base_prefix, sys.prefix, "<"))]
    for file, line in own or frames[:1]:
        try:
            text = Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
        except (OSError, IndexError, UnicodeDecodeError):
            text = ""
        return f"{Path(file).name}:{line}: {text}"
    return ""


def ended(code: int | None) -> str:
    """How a process ended, in words: with a status, or by a signal."""
    if code is not None and code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit status {code}"


def memory(process: int) -> int:
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def memory_allowed() -> int:
    """Three quarters of what is free, at least 1 GiB."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 1 << 62
    return max(1 << 30, int(0.75 * free))
