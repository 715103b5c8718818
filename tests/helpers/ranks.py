"""A training over several real processes on this machine, which talk by gloo."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def on_ranks(world: int, program: Sequence[object]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each of `world` processes that run a Python program.

    A process that does not end within minutes fails the test: nothing may hang.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipe, command = subprocess.PIPE, [sys.executable, *map(str, program)]
    running = [
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(i, world, port))
        for i in range(world)
    ]
    try:
        ended = [process.communicate(timeout=400) for process in running]
    except subprocess.TimeoutExpired:
        pytest.fail(f"a process of {world} hangs: {program}")
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [(process.returncode, *texts) for process, texts in zip(running, ended)]


def torchrun(world: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node WORLD -m detloss ...`"""
    program = ["--standalone", "--nproc-per-node", world, "-m", "detloss", *arguments]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def passed(ended: list[tuple[int, str, str]]) -> None:
    for status, _, err in ended:
        assert status == 0, err


PROGRAM = Path(__file__).with_name("rank_program.py")
