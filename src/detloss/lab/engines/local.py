"""Jobs in processes of their own on this machine, a few at a time."""

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from detloss.lab import signals
from detloss.lab.engines import ENDING, TRIES, Event, Function
from detloss.lab.processes import ended


def run_jobs(
    function: Function, jobs: Sequence[Any], devices: Sequence[str], threads: int
) -> Generator[Event, None, None]:
    """Runs `function(job, send)` for each job in a fresh process, one at a time for each device, in order.

    A process of its own gives each job its own peak memory, and a crash takes one job only: the job is run
    once more, from what it left. When the caller stops iterating (or is interrupted), or is gone, the running
    jobs are stopped, as by SIGTERM.

    Args:
        function: importable from a module.
        jobs: pickled to the process.
        devices: a job at a time for each. To a job "auto" and "cuda" are its device: "cuda:1" is its "cuda",
            and with "cpu" it sees no GPU. With "" it sees the machine as it is.
        threads: PyTorch threads a job.

    Raises:
        ValueError: no devices.
    """
    if not devices:
        raise ValueError("devices is empty; name one for each job that runs at a time")
    # The server imports PyTorch once, and what making an optimiser imports, two seconds' worth; each job is
    # then a fork of it, ready in milliseconds.
    context: Any = mp.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([function.__module__, "torch._dynamo"])
    resource_tracker.ensure_running()  # before: where it is started, it lets signals arrive again
    running: dict[Connection, tuple[int, Any, str]] = {}
    waiting, free, tries = list(range(len(jobs)))[::-1], list(devices)[::-1], Counter[int]()
    try:
        while waiting or running:
            while waiting and free:
                index, device = waiting.pop(), free.pop()
                # The server, which is started here, and the jobs: a terminal sends Ctrl-C to all processes.
                with signals.blocked():
                    ours, theirs = context.Pipe()
                    work = (theirs, function, jobs[index], threads, device)
                    process = context.Process(target=_work, args=work, daemon=True)
                    process.start()
                    theirs.close()
                    running[ours] = (index, process, device)
                tries[index] += 1
                yield Event(index, "started")
            for connection in wait(list(running), timeout=1.0):
                assert isinstance(connection, Connection)
                index, process, device = running[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):  # the latter in the middle of a message
                    process.join()
                    kind, value = "again" if tries[index] < TRIES else "died", _died(process.exitcode)
                if kind != "message":
                    del running[connection]
                    process.join()
                    connection.close()
                    free.append(device)
                if kind == "again":
                    waiting.append(index)
                yield Event(index, kind, value)
    finally:
        _end({connection: process for connection, (_, process, _) in running.items()})


def _end(running: dict[Connection, Any]) -> None:
    """Ends processes: each has time to leave a checkpoint, unless the user does not want to wait."""
    try:
        for process in running.values():
            process.terminate()
        until = time.monotonic() + ENDING
        waiting = set(running)
        while waiting and time.monotonic() < until:
            for connection in wait(list(waiting), timeout=0.2):
                assert isinstance(connection, Connection)
                try:
                    connection.recv()  # or it could not say its last words, and would wait
                except (EOFError, OSError):
                    waiting.remove(connection)
    finally:
        for connection, process in running.items():
            process.kill()
            process.join()
            connection.close()


def _died(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (out of memory? a smaller batch or size, or fewer workers, needs less)"
    return f"its process ended {ended(code)}"


def _work(connection: Connection, function: Callable[..., Any], job: Any, threads: int, device: str) -> None:
    try:
        signals.only_terminate()
        _do(connection, function, job, threads, device)
    except KeyboardInterrupt as error:
        raise SystemExit(signals.and_then(error).status) from None  # what it left is in its folder
    finally:
        connection.close()


def _do(connection: Connection, function: Callable[..., Any], job: Any, threads: int, device: str) -> None:
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    elif device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def send(value: Any) -> None:
        with signals.held():  # a message is whole
            connection.send(("message", value))

    try:
        result = function(job, send)
        connection.send(("done", result))
    except Exception as error:
        if os.environ.get("DETLOSS_TRACEBACK"):
            traceback.print_exc()
        connection.send(("failed", str(error) or type(error).__name__))


def _end_with_parent(connection: Connection) -> None:
    """Stops the job when its parent is gone, which closes its end and never sends."""
    with suppress(OSError):
        connection.poll(None)
        signals.stop()
        time.sleep(ENDING)
        os._exit(1)
