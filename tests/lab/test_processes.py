"""A supervised process: what it tells, and what becomes of it when it hangs, crashes or takes all memory."""

import sys
import textwrap
import time

import pytest

from detloss.lab import processes

BEGIN = """\
    import faulthandler, json, os, signal, sys, time
    spec = json.loads(sys.argv[1])
    trace = open(spec["trace"], "w")
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    def tell(**event):
        os.write(spec["pipe"], (json.dumps(event) + "\\n").encode())
    tell(stage="a stage")
    """


@pytest.fixture
def watched(tmp_path):
    """How a small script ends, and its events."""

    def run(body, seconds=20.0, stage_seconds=0.5):
        file = tmp_path / "worker.py"
        file.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(body))
        events = []

        def take(event):
            events.append(event)
            return "done" in event

        command = [sys.executable, str(file)]
        end = processes.supervise(command, {}, take, tmp_path / "printed", seconds, stage_seconds)
        assert events[0] == {"stage": "a stage"}
        return end, events

    return run


def test_events_come_in_order_and_done_ends_it(watched):
    end, events = watched('tell(note="n"); tell(done=True); time.sleep(60)')
    assert end.how == "done"
    assert events[1:] == [{"note": "n"}, {"done": True}]


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(60)"])
def test_what_hangs_is_ended_with_its_line(watched, body):
    began = time.monotonic()
    end, _ = watched(f"def loss():\n    {body}\nloss()")
    assert time.monotonic() - began < 10
    assert end.how == "late"
    assert end.line.startswith("worker.py:1")


def test_running_out_of_the_whole_time_blames_no_stage(watched):
    end, _ = watched("while True:\n    time.sleep(0.01)\n    tell(stage='the next')", 0.6, 20)
    assert end.how == "out of time"


@pytest.mark.parametrize(
    ("body", "detail", "line"),
    [
        ("os._exit(7)", "with exit status 7", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", "by signal SIGKILL", False),
        ("import ctypes; ctypes.string_at(0)", "by signal SIGSEGV", True),
        ("os.abort()", "by signal SIGABRT", True),
    ],
)
def test_what_dies_is_told_with_its_line_where_one_was_left(watched, body, detail, line):
    end, _ = watched(body, stage_seconds=20)
    assert (end.how, end.detail) == ("died", detail)
    assert end.line.startswith("worker.py:9: ") == line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_what_takes_all_memory_is_ended(watched, monkeypatch):
    monkeypatch.setattr(processes, "memory_allowed", lambda: 100 << 20)
    end, _ = watched("keep = [bytearray(b'1') * (200 << 20)]\ntime.sleep(60)", stage_seconds=20)
    assert (end.how, end.detail) == ("memory", "0.1")
    assert end.line.startswith("worker.py:")


def test_children_end_with_it(watched, tmp_path):
    left = tmp_path / "left"
    end, _ = watched(
        f"""\
        if os.fork() == 0:
            time.sleep(3)
            open({str(left)!r}, "w")
            os._exit(0)
        tell(done=True)
        """
    )
    assert end.how == "done"
    time.sleep(0.2)
    assert not left.exists()
