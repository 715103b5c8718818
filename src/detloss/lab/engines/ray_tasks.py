"""Jobs as tasks of a Ray cluster, a machine's own or one of many."""

import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from detloss.lab import signals
from detloss.lab.engines import ENDING, TRIES, Event, Function, JobFailed
from detloss.lab.engines.kept import read_files, write_files
from detloss.lab.engines.own_files import pack
from detloss.lab.engines.ray_worker import Call, Mailbox, own_versions, work
from detloss.lab.records import first_line

LOOKING = 0.2  # seconds between two looks at what the tasks say
DIED = {
    exceptions.NodeDiedError: "its node was lost",
    exceptions.LocalRayletDiedError: "its node was lost",
    exceptions.ObjectLostError: "its node was lost with the result",
    exceptions.OutOfMemoryError: "its node was out of memory (a smaller batch or size needs less)",
    exceptions.WorkerCrashedError: "its process was killed (out of memory? a smaller size needs less)",
}


def connect(address: str) -> None:
    """Connects to the cluster of this address, or to one that Ray finds; otherwise starts one here.

    Raises:
        ValueError: no cluster has this address.
    """
    if ray.is_initialized():
        return
    known = address or os.environ.get("RAY_ADDRESS", "")
    if known:
        _reach(known)
    with signals.restored():  # Ray handles SIGTERM by a way of its own
        try:
            ray.init(address=known or "auto", logging_level="ERROR")
        except ConnectionError as error:
            if known:
                raise ValueError(f"address is {known!r}: {first_line(error)}") from error
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(include_dashboard=False, logging_level="ERROR")


def _reach(address: str) -> None:
    """ValueError where nothing answers at an address; Ray would try for a quarter of an hour."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        what = "it must be HOST:PORT of its head node, such as 10.0.0.1:6379"
        raise ValueError(f"address is {address!r}, where no Ray cluster answers ({error}); {what}") from error


def has_gpus() -> bool:
    """Whether the cluster has any GPU now."""
    return bool(ray.cluster_resources().get("GPU"))


def run_jobs(
    function: Function, jobs: Sequence[Any], gpus: int, threads: int, at_once: int
) -> Generator[Event, None, None]:
    """Runs `function(job, send)` for each job in a Ray task, whose process is its own.

    The caller needs no folder that the nodes share: what a job leaves in its folder comes here when it sends
    something and when it ends. Where a node sees the folder itself, the job writes there. A job whose process
    or node dies is run once more from what has come here. When the caller stops iterating (or is
    interrupted), the tasks are stopped, and what they leave comes here too.

    Args:
        function: importable from a module on every node.
        jobs: dataclasses; `job.folder` is where a job leaves its files, `job.data` its data's path or "".
        gpus: of each task.
        threads: PyTorch threads of a job, and CPUs of its task.
        at_once: tasks at a time; 0: as many as the cluster has room for.

    Raises:
        JobFailed: the cluster itself is gone.
    """
    # Beside the caller: a node that is lost takes no message along.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    # max_calls: a fresh process each, for its peak memory.
    task: Any = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0, max_calls=1)(work)
    waiting, running, tries = list(range(len(jobs)))[::-1], dict[Any, int](), Counter[int]()
    begun = set[int]()
    try:
        with _mark([job.folder for job in jobs]) as mark:
            told = bool(os.environ.get("DETLOSS_TRACEBACK"))
            call = ray.put(Call(function, gpus, threads, pack(jobs), mark, own_versions(), told))
            while waiting or running:
                while waiting and (not at_once or len(running) < at_once):
                    index = waiting.pop()
                    tries[index] += 1
                    job = replace(jobs[index], folder=jobs[index].folder.resolve())
                    files = ray.put(read_files(job.folder))
                    running[task.remote(index, tries[index], job, files, call, mailbox)] = index
                ended, _ = ray.wait(list(running), num_returns=len(running), timeout=LOOKING)
                for index, attempt, kind, value, sent in ray.get(mailbox.take.remote()):
                    if kind == "started":
                        begun.add(index)
                    if attempt == tries[index]:
                        _keep(jobs[index].folder, sent)
                        yield Event(index, kind, value)
                for ref in ended:
                    index = running.pop(ref)
                    event = _end(ref, index, jobs[index].folder, tries[index])
                    if event.kind == "again":
                        waiting.append(index)
                    yield event
    except exceptions.RayError as error:
        raise JobFailed(
            f"the Ray cluster is gone ({first_line(error)}); what has come here is kept"
        ) from error
    finally:
        with suppress(exceptions.RayError):
            try:
                _stop(mailbox, {ref: jobs[i].folder for ref, i in running.items() if i in begun})
            finally:
                for ref in running:
                    ray.cancel(ref, force=True)
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=10)
                ray.kill(mailbox)


def _stop(mailbox: Any, running: dict[Any, Path]) -> None:
    """Lets tasks stop, and takes what they leave."""
    ray.get(mailbox.stop.remote())
    until = time.monotonic() + ENDING
    while running and time.monotonic() < until:
        ended, _ = ray.wait(list(running), num_returns=len(running), timeout=LOOKING)
        for ref in ended:
            folder = running.pop(ref)
            with suppress(exceptions.RayError):
                write_files(folder, ray.get(ref)[2])


def _end(ref: Any, index: int, folder: Path, tried: int) -> Event:
    """What a task came to."""
    try:
        kind, value, files = ray.get(ref)
    except tuple(DIED) as error:
        why = next(words for kind, words in DIED.items() if isinstance(error, kind))
        return Event(index, "again" if tried < TRIES else "died", why)
    except (exceptions.RayTaskError, exceptions.TaskCancelledError) as error:
        # Not the job's own: that is told in its result.
        return Event(index, "failed", first_line(getattr(error, "cause", None) or error))
    write_files(folder, files)
    return Event(index, kind, value)


def _keep(folder: Path, sent: Sequence[Any]) -> None:
    for ref in sent:
        try:
            write_files(folder, ray.get(ref))
        except exceptions.ObjectLostError:
            return  # its node was lost before they came; the task's end says so


@contextmanager
def _mark(folders: Sequence[Path]) -> Iterator[Path]:
    """A file above all these folders while jobs run: a node that sees it shares them."""
    top = Path(os.path.commonpath([folder.resolve() for folder in folders])) if folders else Path.cwd()
    top.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".detloss-", dir=top)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
