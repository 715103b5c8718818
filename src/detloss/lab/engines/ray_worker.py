"""What runs in a Ray task: one job, whose messages and files go to the caller while they are made."""

import os
import tempfile
import traceback
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch

from detloss.lab import signals
from detloss.lab.engines import Function
from detloss.lab.engines.kept import Files, Kept
from detloss.lab.engines.own_files import OwnFiles, unpack

SAME = ("detloss", "torch", "numpy")
"""Packages of which all nodes have the same version, or results would differ by it."""


@dataclass(frozen=True)
class Call:
    """What all tasks of a call have in common.

    Attributes:
        function: what does a job.
        gpus: of each task; with 0 it sees none.
        threads: PyTorch threads.
        own: the user's own files.
        mark: a file in a folder above those of all jobs; who sees it shares that folder with the caller.
        versions: of the caller.
        traceback: whether a failure prints its traceback.
    """

    function: Function
    gpus: int
    threads: int
    own: OwnFiles
    mark: Path
    versions: dict[str, str]
    traceback: bool


class Mailbox:
    """An actor that keeps what tasks say until the caller asks, and tells them when to stop."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.stopped = False

    def put(self, *letter: Any) -> bool:
        """Adds (job, try, kind, value, [a reference to files]); whether the task is to stop."""
        self.letters.append(letter)
        return self.stopped

    def stop(self) -> None:
        """Lets tasks stop when they next say something."""
        self.stopped = True

    def take(self) -> list[Any]:
        """All since the last call."""
        letters, self.letters = self.letters, []
        return letters


def work(
    index: int, attempt: int, job: Any, files: Files, call: Call, mailbox: Any
) -> tuple[str, Any, Files]:
    """Does a job; with the files that were not sent before.

    Returns:
        "done" and its result, "failed" and why, or "stopped".
    """
    torch.set_num_threads(call.threads)
    if not call.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if ray.get(mailbox.put.remote(index, attempt, "started", None, [])):
        return "stopped", None, {}
    with tempfile.TemporaryDirectory(prefix="detloss-") as place:
        shared = call.mark.exists() and os.access(call.mark.parent, os.W_OK)
        folder = job.folder if shared else Path(place, "run")
        kept = Kept(folder, shared, files)

        def send(value: Any) -> None:
            changed = kept.changed()
            sent = [ray.put(changed)] if changed else []
            # Waited for: what a task has said is there before it ends.
            if ray.get(mailbox.put.remote(index, attempt, "message", value, sent)):
                raise signals.Stopped

        before = Path.cwd()
        try:
            check_versions(call.versions)
            unpack(call.own, Path(place, "root"))
            kind, value = "done", call.function(replace(job, folder=folder), send)
        except signals.Stopped:
            kind, value = "stopped", None
        except Exception as error:
            if call.traceback:
                traceback.print_exc()
            node = ray.util.get_node_ip_address()
            kind, value = "failed", f"{str(error) or type(error).__name__} (on node {node})"
        finally:
            os.chdir(before)
        return kind, value, kept.changed()


def check_versions(wanted: dict[str, str]) -> None:
    """ValueError where a package has another version here."""
    for name, here in own_versions().items():
        if here != wanted[name]:
            raise ValueError(
                f"{name} is {here} here and {wanted[name]} where the command runs; all nodes need the same"
            )


def own_versions() -> dict[str, str]:
    """Of the packages that must be the same; CPU and CUDA builds of one version are."""
    return {name: version(name).partition("+")[0] for name in SAME}
