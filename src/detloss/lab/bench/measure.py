"""How long a call takes and how much memory it asks for; nothing here knows about losses."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function

MARK = "detloss: forward is done"


@dataclass(frozen=True)
class Work:
    """What is measured: `forward`, and the backward pass where its result has one."""

    forward: Callable[[], Any]
    leaves: Sequence[Tensor] = ()
    """Tensors whose gradient is forgotten before each call, outside of what is timed."""

    def run(self) -> None:
        """One call, with nothing measured."""
        self.forget()
        _backward(self.forward())

    def forget(self) -> None:
        """Drops the gradients of the call before."""
        for leaf in self.leaves:
            leaf.grad = None


@dataclass(frozen=True)
class Memory:
    """Bytes asked for beyond the arguments."""

    peak: int
    """Most that is alive at a time, the gradient included."""
    kept: int
    """What is alive between the forward and the backward pass."""


def _backward(result: Any) -> None:
    if isinstance(result, Tensor) and result.requires_grad:
        result.backward()


def seconds(work: Work, device: torch.device, new_memory: bool = False) -> float:
    """Wall time of one call; on a GPU until its queue is empty. `new_memory`: see `return_memory`."""
    work.forget()
    if new_memory:
        return_memory()
    _wait(device)
    began = time.perf_counter()
    result = work.forward()
    _backward(result)
    _wait(device)
    return time.perf_counter() - began


def return_memory() -> None:
    """Gives free memory back to the system: what is allocated next costs page faults.

    On the CPU the same call takes up to four times as long with memory that is new to the process as with
    memory that it freed a moment ago. Which of the two a training step finds depends on what else it did: a
    comparison is fair where all variants find the same.
    """
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def interleave(
    works: Mapping[str, Work],
    device: torch.device,
    budget: float,
    least: int,
    most: int = 1000,
    new_memory: bool = False,
) -> tuple[dict[str, list[float]], dict[str, Exception]]:
    """Seconds of each, in rounds A, B, C, A, B, C, ... in which each has the same luck with the machine.

    As many rounds as fit into `budget` seconds, between `least` and `most`. Python's garbage collector waits.
    What raises drops out, and is among the second value instead. `new_memory`: see `return_memory`.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    failed: dict[str, Exception] = {}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + budget
        for done in range(most):
            if done >= least and time.perf_counter() > end:
                break
            for name in list(times):
                try:
                    times[name].append(seconds(works[name], device, new_memory))
                except Exception as error:
                    failed[name] = error
                    del times[name]
    finally:
        if collecting:
            gc.enable()
        for work in works.values():
            work.forget()
    return times, failed


def memory(work: Work, device: torch.device) -> Memory:
    """Bytes of one call by the allocator's own count, which also sees what compiled code asks for.

    On a GPU torch's allocator keeps the count. On the CPU it is added up from torch's profiler, which is told
    of every tensor's memory; what a library takes past torch (MKL's packed matrices) is not in it. A view of
    an argument asks for nothing.
    """
    work.forget()
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work.forward()
        kept = torch.cuda.memory_allocated(device) - before
        _backward(result)
        _wait(device)
        found = Memory(torch.cuda.max_memory_allocated(device) - before, kept)
    else:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes of its own start and stop to stderr
        with profile(profile_memory=True) as profiler:
            result = work.forward()
            with record_function(MARK):
                pass
            _backward(result)
        found = _added_up(profiler.kineto_results.events())
    del result
    work.forget()
    return found


def _added_up(events: Sequence[Any]) -> Memory:
    alive = peak = kept = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == MARK:
            kept = alive
        elif event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return Memory(peak, kept)


def available(device: torch.device) -> int:
    """Bytes that can be had without swapping or failing."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found = [int(line.split()[1]) * 1024]
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():  # a container may have less than the machine
        found.append(int(limit[0]) - int(used[0]))
    return min(found)


def copy_rate(tensor_bytes: int, times: Sequence[float]) -> float:
    """Bytes a second of a copy at its best: each is read once and written once."""
    return 2 * tensor_bytes / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
