"""Jobs in processes: what they answer, how they fail or die, and that none outlives its caller."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detloss.lab.engines import Event
from detloss.lab.engines.local import run_jobs
from detloss.lab.signals import Stopped
from helpers.commands import TINY

ENDS = ("done", "failed", "died")


def act(job: tuple[str, Any], send: Callable[[Any], None]) -> Any:
    """A job that does what it is told."""
    name, value = job
    if name == "double":
        for i in range(value):
            send(i)
        return 2 * value
    if name == "threads":
        return torch.get_num_threads(), os.getpid()
    if name == "raise":
        raise RuntimeError(value)
    if name == "exit":
        os._exit(value)
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "die once":
        if value.exists():
            return "second"
        value.touch()
        send("first")
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "gpus":
        return os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if name == "unpicklable":
        return lambda: None
    if name == "half":
        # Dies in the middle of a message: the length is there, the rest is not.
        send.__closure__[0].cell_contents._send((1000).to_bytes(4, "big") + b"only this")
        os._exit(3)
    if name == "wait":
        send(os.getpid())
        time.sleep(60)
    if name == "save":
        try:
            send(os.getpid())
            time.sleep(60)
        except Stopped:
            value.write_text("saved")
            send("x" * 1_000_000)  # more than a pipe holds
            raise
    raise AssertionError(name)


def events(jobs: list[tuple[str, Any]], workers: int = 2) -> list[Event]:
    return list(run_jobs(act, jobs, [""] * workers, threads=1))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Event]:
    """One run for all questions: starting the server costs seconds."""
    return events(
        [
            ("double", 3),
            ("raise", "the reason"),
            ("exit", 7),
            ("kill", None),
            ("raise", ""),
            ("unpicklable", None),
            ("half", None),
            ("threads", None),
            ("double", 0),
            ("die once", tmp_path_factory.mktemp("died") / "first"),
        ]
    )


def of(found: list[Event], job: int) -> list[tuple[str, Any]]:
    return [(event.kind, event.value) for event in found if event.job == job]


def test_results_and_messages_in_order(mixed: list[Event]):
    assert of(mixed, 0) == [("started", None), ("message", 0), ("message", 1), ("message", 2), ("done", 6)]
    assert of(mixed, 8) == [("started", None), ("done", 0)]


def test_every_job_starts_in_order_and_ends_once(mixed: list[Event]):
    first = dict.fromkeys(event.job for event in mixed if event.kind == "started")
    assert list(first) == list(range(len(first))) == list(range(10))
    assert sorted(event.job for event in mixed if event.kind in ENDS) == list(range(10))


def test_no_more_workers_than_asked(mixed: list[Event]):
    running = most = 0
    for event in mixed:
        running += (event.kind == "started") - (event.kind in (*ENDS, "again"))
        most = max(most, running)
    assert most == 2


def test_a_failed_job_says_why_and_the_others_go_on(mixed: list[Event]):
    assert of(mixed, 1)[-1] == ("failed", "the reason")
    assert of(mixed, 4)[-1] == ("failed", "RuntimeError")
    kind, reason = of(mixed, 5)[-1]
    assert kind == "failed"
    assert "pickle" in reason


def test_a_job_that_dies_is_run_once_more(mixed: list[Event]):
    assert [kind for kind, _ in of(mixed, 9)] == ["started", "message", "again", "started", "done"]
    assert of(mixed, 9)[-1] == ("done", "second")


def test_a_job_that_dies_twice_says_how(mixed: list[Event]):
    for job, how in ((2, "with exit status 7"), (6, "with exit status 3"), (3, "killed (out of memory?")):
        assert [kind for kind, _ in of(mixed, job)] == ["started", "again", "started", "died"]
        assert all(how in reason for kind, reason in of(mixed, job) if kind != "started")


def test_own_process_and_threads(mixed: list[Event]):
    kind, (threads, process) = of(mixed, 7)[-1]
    assert (kind, threads) == ("done", 1)
    assert process != os.getpid()


def test_no_jobs():
    assert events([]) == []


def test_no_devices():
    with pytest.raises(ValueError, match="devices is empty"):
        events([("double", 1)], workers=0)


def test_a_job_of_a_cpu_sees_no_gpu():
    found = run_jobs(act, [("gpus", None)] * 2, ["", "cpu"], threads=1)
    seen = {event.job: event.value for event in found if event.kind == "done"}
    assert seen[1] == ""
    assert seen[0] != ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_jobs_end_when_the_caller_stops():
    found = run_jobs(act, [("wait", None), ("wait", None), ("wait", None)], ["", ""], threads=1)
    processes = []
    for event in found:
        if event.kind == "message":
            processes.append(event.value)
        if len(processes) == 2:
            break
    assert all(Path(f"/proc/{process}").exists() for process in processes)
    found.close()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_job_that_is_stopped_may_save(tmp_path):
    found = run_jobs(act, [("save", tmp_path / "saved")], [""], threads=1)
    next(event for event in found if event.kind == "message")
    found.close()
    assert (tmp_path / "saved").read_text() == "saved"


def test_signals_of_a_terminal_do_not_reach_a_job(tmp_path):
    """It sends them to all processes; the parent stops its jobs itself."""
    found = run_jobs(act, [("save", tmp_path / "saved")], [""], threads=1)
    process = next(event.value for event in found if event.kind == "message")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(process, number)
    time.sleep(0.3)
    assert not (tmp_path / "saved").exists()
    found.close()
    assert (tmp_path / "saved").exists()


PARENT = """
import sys
from pathlib import Path

def main():
    from lab.engines.test_local import act
    from detloss.lab.engines.local import run_jobs
    for event in run_jobs(act, [("save", Path(sys.argv[1]))], [""], threads=1):
        if event.kind == "message":
            print(event.value, flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_jobs_of_a_parent_that_is_killed_save_and_end(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    places = [str(Path(__file__).parents[2]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "saved")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    job = int(process.stdout.readline())
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while Path(f"/proc/{job}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{job}").exists()
    assert (tmp_path / "saved").read_text() == "saved"


START = """
import os, sys, threading
from detloss.lab.cli.main import main
from detloss.lab.engines import local

number = int(sys.argv.pop())
real = local.signals.blocked

def blocked():
    threading.Timer(0.7, lambda: os.killpg(os.getpgrp(), number)).start()
    return real()

local.signals.blocked = blocked
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_server_starts_is_one_line(tmp_path, number):
    """A terminal sends it to all processes of the command, the server of the jobs among them."""
    fixed = ["--losses", "bce", "focal", "--seeds", "1", "--lr", "0.01", "--box-weight", "2"]
    command = [sys.executable, "-c", START, "compare", *fixed, *TINY, "--workers", "1", "--out", "out"]
    command += ["--steps", "100000", str(int(number))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        start_new_session=True,
    )  # fmt: skip
    how = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert done.returncode == 128 + number
    told = [line for line in done.stderr.splitlines() if "findfont" not in line]
    assert told == [f"{how}; the same command with --out out continues"]
