"""The processes of one training, as torchrun starts them: which each is, and what they tell one another.

Each has a rank, from 0. Without torchrun there is one process, of rank 0, and nothing here sends or waits.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from torch import Tensor, distributed

T = TypeVar("T")
_TOLD = "why it ended"
_store: Any = None
"""What the processes share beside their group: still there when the group is broken."""


def world() -> int:
    """How many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """Which of them this one is; that of rank 0 writes files and speaks."""
    return distributed.get_rank() if world() > 1 else 0


def check_joined() -> None:
    """ValueError where torchrun started several processes of which each would do all the work alone."""
    started = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if started != world():
        raise ValueError(
            f"{started} processes were started together, and each would train the same run: start one, "
            "without torchrun; in a script of your own, train `with detloss.lab.ranks.joined():`"
        )


@contextmanager
def joined() -> Iterator[bool]:
    """Joins the processes that torchrun started with this one, until the end of the block; whether it did."""
    global _store
    environment = os.environ
    if "RANK" not in environment or int(environment.get("WORLD_SIZE", 1)) == 1:
        yield False
        return
    from torch.distributed.rendezvous import rendezvous

    _store, number, count = next(rendezvous("env://"))
    # Of each kind of device its own backend: gloo for CPUs, NCCL for GPUs.
    distributed.init_process_group(
        store=distributed.PrefixStore("group", _store), rank=number, world_size=count
    )
    try:
        yield True
    except BaseException as error:
        # The group is left as it is: to take leave of the others is to wait for them.
        if not isinstance(error, SystemExit):
            with suppress(RuntimeError):
                _store.set(_TOLD, f"{type(error).__name__}: {error}")
        raise
    distributed.destroy_process_group()


def tell_failure(text: str) -> None:
    """Writes to stderr why this process ends; where several end for one reason, one of them does."""
    if world() == 1:
        print(text, file=sys.stderr)
        return
    with suppress(RuntimeError):  # the store is gone with the process that kept it
        if _store.add("ended", 1) > 1 and _why_another_ended() == text:
            return
    print(f"{text} (rank {rank()} of {world()})", file=sys.stderr, flush=True)
    with suppress(RuntimeError):
        # After it is written: torchrun ends all processes as soon as one has ended.
        _store.set(_TOLD, text)


def lost_another(error: Exception) -> bool:
    """Whether an error means that another process is gone; if that one has not said so, this one does."""
    if world() == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
        return False
    if _why_another_ended() is None:
        tell_failure(
            "detloss: another process of this training is gone and could not say why (killed? out of "
            "memory?); what was saved before is kept"
        )
    return True


def _why_another_ended() -> str | None:
    """What it has said, or says within seconds."""
    with suppress(RuntimeError):
        for _ in range(50):
            if _store.check([_TOLD]):
                return _store.get(_TOLD).decode()
            time.sleep(0.1)
    return None


def from_first(make: Callable[[], T]) -> T:
    """What rank 0 makes, for all: of a file that only it reads, in a folder that only it writes."""
    if world() == 1:
        return make()
    made = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(made, src=0)
    return made[0]  # type: ignore[return-value]


def first_before_others(make: Callable[[], T]) -> T:
    """What each makes for itself, rank 0 first: what it leaves in a cache serves the others."""
    made = make() if rank() == 0 else None
    from_first(lambda: None)
    return made if rank() == 0 else make()  # type: ignore[return-value]


def gathered(value: T) -> list[T]:
    """The values of all ranks, in their order, on each."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def averaged(numbers: Tensor) -> Tensor:
    """The mean of all ranks' numbers, without gradient."""
    if world() == 1:
        return numbers.detach()
    numbers = numbers.detach().clone()
    distributed.all_reduce(numbers)
    return numbers / world()


def local_rank() -> int:
    """Which of the processes of this machine this one is."""
    return int(os.environ.get("LOCAL_RANK", rank())) if world() > 1 else 0
