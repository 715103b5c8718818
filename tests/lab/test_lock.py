"""One process at a time in a folder: the second is told who, and a lock dies with its process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detloss.lab import lock as module
from detloss.lab.lock import Locked, locked

HOLD = """
import sys, time
from pathlib import Path
from detloss.lab.lock import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


def test_is_given_back_and_leaves_nothing(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "new"):
            assert json.loads((tmp_path / "new/.lock").read_text())["pid"] == os.getpid()
    with pytest.raises(RuntimeError, match="oh"), locked(tmp_path / "new"):
        raise RuntimeError("oh")
    assert not any((tmp_path / "new").iterdir())


def test_the_second_is_told_who_where_and_since_when(tmp_path, holder):
    message = (
        rf"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d"
    )
    for _ in range(2):  # also not the one after it
        with pytest.raises(Locked, match=message), locked(tmp_path):
            pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path, holder, how):
    holder.send_signal(how)
    holder.wait()
    with locked(tmp_path):
        pass
    assert not any(tmp_path.iterdir())


def test_one_waits_for_the_other_to_end(tmp_path, holder):
    threading.Timer(0.5, holder.kill).start()
    with locked(tmp_path, patience=60):
        pass


@pytest.mark.parametrize("left", ["", "{", "[1]", '{"host": 3}', "torn \\u"])
def test_what_a_torn_lock_says_does_not_matter(tmp_path, left):
    (tmp_path / ".lock").write_text(left)
    with locked(tmp_path):
        pass


class TestWithoutFlock:
    """As on a disk of the network that cannot lock files."""

    @pytest.fixture(autouse=True)
    def cannot(self, monkeypatch):
        monkeypatch.setattr(module, "_flock", lambda file: False)

    @staticmethod
    def left_by(folder: Path, pid: int, host: str = socket.gethostname()) -> None:
        (folder / ".lock").write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-02 03:04:05"}))

    def test_one_that_lives_or_is_elsewhere_counts(self, tmp_path):
        for pid, host in ((os.getppid(), socket.gethostname()), (1, "elsewhere")):
            self.left_by(tmp_path, pid, host)
            message = f"process {pid} on {host} since 2026-01-02 03:04:05; .* remove {tmp_path / '.lock'}"
            with pytest.raises(Locked, match=message), locked(tmp_path):
                pass

    def test_one_that_is_dead_does_not(self, tmp_path):
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True)
        self.left_by(tmp_path, int(dead.stdout))
        with locked(tmp_path), pytest.raises(Locked), locked_by_another(tmp_path):
            pass
        assert not any(tmp_path.iterdir())


def locked_by_another(folder: Path):
    """What another process would meet: the lock says a pid that is not its own."""
    held = json.loads((folder / ".lock").read_text())
    (folder / ".lock").write_text(json.dumps(held | {"pid": os.getppid()}))
    return locked(folder)


def test_the_message_says_how_to_get_out_of_it(tmp_path, holder):
    with pytest.raises(Locked) as caught, locked(tmp_path):
        pass
    assert re.search(
        r"wait until it ends, or give another folder\. If there is no such process, remove .*\.lock$",
        str(caught.value),
    )
