"""Independent jobs in processes of their own, a few at a time, with messages while they run."""

import multiprocessing as mp
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from detloss.lab.processes import ended

J = TypeVar("J")


class JobFailed(RuntimeError):
    """A job raised or died; the message says which and why."""


@dataclass(frozen=True)
class Event:
    """Something a job said.

    Attributes:
        job: its index.
        kind: "started", "message" (what it sent), "done" (its result) or "failed" (the reason).
        value: that.
    """

    job: int
    kind: str
    value: Any = None


def run_jobs(
    function: Callable[[J, Callable[[Any], None]], Any], jobs: Sequence[J], workers: int, threads: int
) -> Generator[Event, None, None]:
    """Runs `function(job, send)` for each job in a fresh process, `workers` at a time, in order.

    A process of its own gives each job its own peak memory, and a crash takes one job only. When the caller
    stops iterating (or is interrupted), the running jobs are ended.

    Args:
        function: importable from a module; what it passes to `send` arrives as "message" events.
        jobs: pickled to the process.
        workers: jobs at a time.
        threads: PyTorch threads a job.

    Raises:
        ValueError: no workers.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    # The server imports PyTorch once, and what making an optimiser imports, two seconds' worth; each job is
    # then a fork of it, ready in milliseconds.
    context: Any = mp.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([function.__module__, "torch._dynamo"])
    running: dict[Connection, tuple[int, Any]] = {}
    waiting = list(enumerate(jobs))[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, function, job, threads), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (index, process)
                yield Event(index, "started")
            for connection in wait(list(running), timeout=1.0):
                assert isinstance(connection, Connection)
                index, process = running[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):  # the latter in the middle of a message
                    process.join()
                    kind, value = "failed", _died(process.exitcode)
                if kind != "message":
                    del running[connection]
                    process.join()
                    connection.close()
                yield Event(index, kind, value)
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()


def _died(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (out of memory? a smaller batch or size, or fewer workers, needs less)"
    return f"its process ended {ended(code)}"


def _work(connection: Connection, function: Callable[..., Any], job: Any, threads: int) -> None:
    # The terminal sends Ctrl-C to every process; the parent ends its jobs itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        result = function(job, lambda value: connection.send(("message", value)))
        connection.send(("done", result))
    except Exception as error:
        if os.environ.get("DETLOSS_TRACEBACK"):
            traceback.print_exc()
        connection.send(("failed", str(error) or type(error).__name__))
    finally:
        connection.close()
