"""Where independent jobs are run. An engine is a function from jobs to events: `local`, or `ray_tasks`."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any


class JobFailed(RuntimeError):
    """A job raised or died; the message says which and why."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        job: its index.
        kind: "started", "message" (what it sent), "done" (its result), "failed" (it raised; the reason),
            "again" (its process or its machine died, for this reason: it is run once more), or "died" (so did
            that).
        value: that.
    """

    job: int
    kind: str
    value: Any = None


Function = Callable[[Any, Callable[[Any], None]], Any]
"""Does a job; what it passes to its second argument arrives as "message" events."""

Engine = Callable[[Function, Sequence[Any]], Generator[Event, None, None]]
"""Runs a function for each of some jobs, in order, several at a time. When the caller stops iterating, or is
interrupted, the running jobs are stopped: they may leave what they go on from. A job that is run once more
finds what it has left in its folder."""

TRIES = 2
"""How often a job is run whose process or machine dies."""
ENDING = 60.0
"""Seconds that a job which is stopped has for its last step and checkpoint."""
