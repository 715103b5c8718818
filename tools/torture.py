"""Bad days on purpose: kills, signals, full disks, damaged files. `make torture` prints what survived.

Survived means one of two. Either the same command, given once more, ends with files that are bit for bit
those of an undisturbed run (times, memory and pictures aside). Or it says in one line what is wrong, nothing
that was there before has changed, and with what was wrong put right the same command ends as above.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

import detloss_command
from detloss.lab.files import before
from detloss.lab.runs import read_csv, read_json, table_rows, write_json
from detloss.lab.signals import KINDS

START = [sys.executable, "-c", "from detloss_command import main; main()"]
SMALL = (
    "--data voc --size 32 --batch 2 --evaluations 2 --detector.width 8 --detector.channels 8 --device cpu "
    "--checkpoint-minutes 0.001"
).split()
TRAIN = ["train", *SMALL, "--steps", "120", "--loss", "mine.py:mine", "--out", "out"]
SHORT = ["train", *SMALL, "--steps", "12", "--loss", "mine.py:mine", "--out", "out"]
COMPARE = ["compare", *SMALL, "--steps", "24", "--seeds", "1", "--losses", "bce", "mine.py:mine"]
COMPARE += ["--lrs", "0.005", "0.01", "--box-weight", "2", "--workers", "2", "--threads", "1", "--out", "out"]
MINE = (
    "from beside import factor\n\ndef mine(logits, targets):\n    return factor * (logits - targets) ** 2\n"
)
COSTS = {"seconds": 0, "peak_memory_mb": 0}
PICTURES = (".svg", ".png", ".html")
IMPORTED = (
    *("detloss.lab.cli.main", "detloss.lab.training.train_command", "detloss.lab.training.figures"),
    *("detloss.lab.compare.command", "detloss.lab.compare.page", "detloss.lab.data.command", "torch._dynamo"),
)
SIZES = (500, 5_000, 60_000, 100_000, 200_000, 400_000, 700_000)
"""Of disks that are too small, in bytes."""
FREE = ("versions.json", ".lock")
MARK = ".detloss-"  # what a killed command on Ray leaves: an empty file
PATIENCE = 300  # seconds for a command


@dataclass
class Count:
    """A row of the table."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)


# What a command leaves


def contents(folder: Path) -> dict[str, Any]:
    """All that must be equal of what a command left."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    kept = {
        str(file.relative_to(folder)): file for file in files if file.suffix not in (".svg", ".png", ".html")
    }
    return {
        name: _content(file)
        for name, file in sorted(kept.items())
        if file.name not in FREE and not file.name.startswith(MARK)
    }


def _content(file: Path) -> Any:
    if file.suffix == ".csv":
        return [row | COSTS for row in read_csv(file)]
    if file.name == "metrics.json":
        return read_json(file) | COSTS
    if file.suffix == ".pt":
        state = torch.load(file, weights_only=True) | COSTS
        return _plain(state | {"log": [row | COSTS for row in table_rows(state["log"])]})
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first file that is not equal."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            return f"{name} {'differs' if name in found and name in wanted else 'is there once only'}"
    return ""


# Commands


class Begun:
    """A command under way.

    It is a fork of this process, which has imported all that the command needs, so that it begins to work at
    once; its start has tries of its own, where it is a process from the very beginning.
    """

    def __init__(self, arguments: Sequence[str], place: Path, limit: int, fresh: bool) -> None:
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed at its end)
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(arguments, place, limit, fresh)
            finally:
                os._exit(1)

    def _become(self, arguments: Sequence[str], place: Path, limit: int, fresh: bool) -> None:
        os.setsid()
        os.chdir(place)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, handle in enumerate((nothing, nothing, self.told.fileno())):
            os.dup2(handle, number)
        for kind in KINDS:  # what started this may have them ignored
            signal.signal(kind, signal.SIG_DFL if kind != signal.SIGINT else signal.default_int_handler)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if fresh:
            os.execv(sys.executable, [*START, *arguments])
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["detloss", *arguments]
        sys.path.insert(0, str(place))
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            detloss_command.main()
            code: Any = 0
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)

    def poll(self) -> int | None:
        """The exit status, once it has ended."""
        if self.status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def begin(arguments: Sequence[str], place: Path, limit: int = 0, fresh: bool = False) -> Begun:
    """Starts a command in a folder; `limit` is the largest file that it may write."""
    return Begun(arguments, place, limit, fresh)


def end(process: Begun) -> tuple[int, str]:
    """Exit status and what it said of errors."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None:
        if time.monotonic() > until:
            os.killpg(process.pid, signal.SIGKILL)
            return -1, "it did not end"
        time.sleep(0.01)
    process.told.seek(0)
    told = process.told.read()
    process.told.close()
    # What matplotlib says of fonts.
    return process.poll() or 0, "\n".join(line for line in told.splitlines() if "findfont" not in line)


def one_line(status: int, told: str, wanted: tuple[int, ...]) -> str:
    """What is wrong with how a command ended; "" where it ended with one line."""
    lines = told.splitlines()
    if status not in wanted or len(lines) != 1:
        return f"status {status}, {len(lines)} lines: {' | '.join(lines[-3:])}"
    return ""


def descendants(process: int) -> dict[int, str]:
    """The processes below another one, and their command lines."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set[int](), {process}
    while new:
        new = {one for one, parent in parents.items() if parent in new}
        found |= new
    lines = {}
    for one in found:
        try:
            lines[one] = Path(f"/proc/{one}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return lines


class Torture:
    """The tries, each in a folder of its own, and what came of them."""

    def __init__(self, root: Path, ray: bool) -> None:
        self.root, self.ray = root, ray
        self.counts: dict[str, Count] = {}
        self.known: dict[str, tuple[dict[str, Any], float]] = {}
        self.number = 0
        self.data = self.place()
        scenes = "scenes --format voc --out voc --scenes.size 32 --scenes.object-size 8 16 --scenes.train 12"
        status, told = end(begin([*scenes.split(), "--scenes.val", "6"], self.data))
        assert status == 0, told
        for image in (self.data / "voc" / "JPEGImages").glob("*.png"):
            Image.open(image).save(image, compress_level=0)
        (self.data / "mine.py").write_text(MINE)
        (self.data / "beside.py").write_text("factor = 1.0\n")

    def place(self) -> Path:
        """A new working folder, with data and the user's files but for the first."""
        self.number += 1
        place = self.root / str(self.number)
        if self.number == 1:
            place.mkdir()
        else:
            shutil.copytree(self.data, place)
        return place

    def whole(self, command: list[str]) -> tuple[dict[str, Any], float]:
        """What an undisturbed command leaves, and its seconds."""
        key = " ".join(command)
        if key not in self.known:
            place, began = self.place(), time.monotonic()
            status, told = end(begin(command, place))
            assert status == 0, told
            self.known[key] = contents(place / "out"), time.monotonic() - began
            shutil.rmtree(place)
        return self.known[key]

    def tell(self, kind: str, place: Path, what: str, wrong: str) -> None:
        """Counts a try."""
        count = self.counts.setdefault(kind, Count())
        count.tried += 1
        if wrong:
            count.lost.append(f"{what}: {wrong}")
        print(f"{kind}, {what}: {wrong or 'survived'}", flush=True)
        shutil.rmtree(place, ignore_errors=True)

    def again(self, command: list[str], place: Path) -> str:
        """What is wrong after the same command was given once more."""
        status, told = end(begin(command, place))
        if status:
            return f"again: status {status}: {told[-300:]}"
        return difference(contents(place / "out"), self.whole(command)[0])

    # Kills and signals

    def kills(self, command: list[str], moments: int, kind: str = "") -> None:
        """SIGKILL at moments that are spread over the command."""
        seconds = self.whole(command)[1]
        for moment in np.linspace(0.15, 0.98, moments) * seconds:
            place = self.place()
            process = begin(command, place)
            time.sleep(moment)
            process.kill()
            end(process)
            self.tell(kind or f"kill, {command[0]}", place, f"at {moment:.1f} s", self.again(command, place))

    def worker_kills(self, command: list[str], moments: int, of: str, kind: str, above: int = 0) -> None:
        """SIGKILL of a process that the command has started: the command itself goes on."""
        for number in range(moments):
            place = self.place()
            process = begin(command, place)
            victim, until = 0, time.monotonic() + PATIENCE
            while not victim and process.poll() is None and time.monotonic() < until:
                time.sleep(0.1 + 0.13 * number)
                if list((place / "out").glob("*/*/*/log.csv")):  # somebody trains
                    below = descendants(above or process.pid)
                    victim = max((one for one, line in below.items() if of in line), default=0)
            if victim:
                os.kill(victim, signal.SIGKILL)
            status, told = end(process)
            wrong = "" if status == 0 else f"status {status}: {told[-300:]}"
            wrong = wrong or difference(contents(place / "out"), self.whole(command)[0])
            self.tell(kind, place, f"{number + 1} of {moments}" if victim else "nobody to kill", wrong)

    def starts(self, command: list[str], moments: Sequence[float]) -> None:
        """Each signal while the command starts, in the seconds that its imports take."""
        self.signals(command, moments, fresh=True)

    def signals(self, command: list[str], moments: Sequence[float], fresh: bool = False) -> None:
        """Each signal that can be caught, at parts of the time that the command takes, or at seconds."""
        seconds = 1.0 if fresh else self.whole(command)[1]
        for kind in KINDS:
            for moment in np.array(moments) * seconds:
                place = self.place()
                process = begin(command, place, fresh=fresh)
                time.sleep(moment)
                # As a terminal sends it: to all processes.
                with suppress(ProcessLookupError):  # it may be gone
                    os.killpg(process.pid, kind)
                sent = time.monotonic()
                status, told = end(process)
                done = status == 0 and time.monotonic() - sent < 2  # it was at its end anyway
                wrong = "" if done else one_line(status, told, (128 + kind,))
                what = f"{kind.name} at {moment:.1f} s"
                who = f"signal{' at the start' if fresh else ''}, {command[0]}"
                self.tell(who, place, what, wrong or self.again(command, place))

    # Disks

    def full_disks(self, command: list[str], sizes: Sequence[int]) -> None:
        """A disk that is full after so many bytes: a small one in memory, or else a limit for each file."""
        for size in sizes:
            place = self.place()
            with small_disk(place / "out", size) as mounted:
                status, told = end(begin(command, place, limit=0 if mounted else size))
                wrong = "" if status == 0 else one_line(status, told, (1, 2))
                if mounted:
                    subprocess.run(["mount", "-o", "remount,size=1g", str(place / "out")], check=True)
                what = f"{size // 1000} kB{'' if mounted else ' a file'}"
                self.tell("full disk", place, what, wrong or self.again(command, place))

    def read_only(self, command: list[str]) -> None:
        """A folder that cannot be written to, from the start and after a kill."""
        for moment in (0.0, 0.7):
            place = self.place()
            (place / "out").mkdir()
            with small_disk(place / "out", 1 << 30) as mounted:
                if not mounted and os.geteuid() == 0:
                    return  # root writes where it may not
                if moment:
                    process = begin(command, place)
                    time.sleep(moment * self.whole(command)[1])
                    process.kill()
                    end(process)
                read_only(place / "out", mounted, True)
                status, told = end(begin(command, place))
                read_only(place / "out", mounted, False)
                wrong = one_line(status, told, (1, 2))
                self.tell(
                    "read-only disk",
                    place,
                    "after a kill" if moment else "new",
                    wrong or self.again(command, place),
                )

    # Files

    def damaged(self, command: list[str]) -> None:
        """Checkpoints and results that are cut off, changed, of another run, or of an older version."""
        other = self.place()
        foreign = [*command[:-2], "--seed", "5", "--out", "out"]
        assert end(begin(foreign, other))[0] == 0
        for what, harm in harms(other / "out").items():
            for files in (("last.pt",), ("last.pt", "last-before.pt")):
                place = self.stopped(command)
                for name in files:
                    harm(place / "out" / name)
                wrong = self.again(command, place)
                if wrong and len(files) == 2:  # nothing to go on from: one line, and the way out
                    status, told = end(begin(command, place))
                    wrong = one_line(status, told, (2,)) or ("" if "remove" in told else told)
                    for name in files:
                        (place / "out" / name).unlink()
                    wrong = wrong or self.again(command, place)
                self.tell("damaged checkpoint", place, f"{' and '.join(files)} {what}", wrong)
        shutil.rmtree(other)
        for name in ("metrics.json", "config.json", "origin.json", "log.csv"):
            for content in (b"", b"{", b"[]", b"\xff\xfe"):
                place = self.stopped(command)
                file = place / "out" / name
                kept = file.read_bytes() if file.exists() else None
                file.write_bytes(content)
                wrong = self.again(command, place)
                if wrong:
                    status, told = end(begin(command, place))
                    wrong = one_line(status, told, (2,)) or ("" if name in told else told)
                    file.unlink() if kept is None else file.write_bytes(kept)
                    wrong = wrong or self.again(command, place)
                self.tell("damaged table", place, f"{name} is {content!r}", wrong)

    def stopped(self, command: list[str]) -> Path:
        """A folder that a command was stopped in, after two checkpoints."""
        place = self.place()
        process = begin(command, place)
        until = time.monotonic() + PATIENCE
        while not before(place / "out" / "last.pt").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
        end(process)
        return place

    # Inputs

    def inputs(self, command: list[str]) -> None:
        """Data, own files and versions that change between two calls; two calls at once."""
        for what, change in CHANGES.items():
            place = self.stopped(command)
            kept = self.root / "kept"
            shutil.copytree(place, kept)
            change(place)
            there = contents(place / "out")
            status, told = end(begin(command, place))
            wrong = one_line(status, told, (2,)) or difference(contents(place / "out"), there)
            shutil.rmtree(place)
            kept.rename(place)
            self.tell("changed input", place, what, wrong or self.again(command, place))
        for pause in (0.0, 0.3, 0.8):
            place = self.place()
            first = begin(command, place)
            time.sleep(pause * self.whole(command)[1])
            second = begin(command, place)
            ends = sorted([end(first), end(second)])
            wrong = "" if ends[0][0] == 0 else f"neither was done: {ends}"
            wrong = wrong or ("" if ends[1][0] == 0 else one_line(*ends[1], (2,)))
            self.tell("two at once", place, f"after {pause:.0%}", wrong or self.again(command, place))

    def on_ray(self, kills: int, tasks: int) -> None:
        """The same on a Ray cluster of this machine: the command is killed, or one of its tasks."""
        if not self.ray:
            print("Ray is left out: it is not installed, or not asked for")
            return
        with cluster() as (head, address):
            command = [*COMPARE[:-2], "--engine", "ray", "--address", address, "--out", "out"]
            self.kills(command, kills, "kill, compare on Ray")
            self.worker_kills(command, tasks, "ray::work", "kill of a Ray task", head)

    def table(self) -> str:
        """What was tried, survived and lost."""
        rows = [(kind, c.tried, c.tried - len(c.lost), len(c.lost)) for kind, c in self.counts.items()]
        rows.append(("all", *(sum(row[i] for row in rows) for i in (1, 2, 3))))
        lines = ["| bad day | tried | survived | lost |", "|---|---|---|---|"]
        return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


# How things go wrong


def harms(foreign: Path) -> dict[str, Callable[[Path], Any]]:
    """What happens to a checkpoint."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for place in range(len(content) // 7, len(content), len(content) // 7):
            content[place] ^= 4
        path.write_bytes(content)

    def older(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in state.items() if name != "config"}, path)

    return {
        "is empty": lambda path: path.write_bytes(b""),
        "is cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "has flipped bits": flip,
        "is of another run": lambda path: shutil.copy(foreign / "last.pt", path),
        "is of an older version": older,
        "is no checkpoint": lambda path: path.write_text("a text"),
    }


def _pixel(place: Path) -> None:
    file = sorted((place / "voc" / "JPEGImages").glob("train-*"))[2]
    image = np.array(Image.open(file))
    image[3, 3] ^= 1
    Image.fromarray(image).save(file, compress_level=0)


def _box(place: Path) -> None:
    files = sorted((place / "voc" / "Annotations").glob("train-*"))
    file = next(file for file in files if "<xmax>" in file.read_text())
    start, rest = file.read_text().split("<xmax>", 1)
    number, rest = rest.split("<", 1)
    file.write_text(f"{start}<xmax>{int(number) - 1}<{rest}")


def _append(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).write_text((place / name).read_text() + "# changed\n") and None


def _version(place: Path) -> None:
    file = place / "out" / "origin.json"
    write_json(file, json.loads(file.read_text()) | {"the version of torch": "1.0"})


CHANGES: dict[str, Callable[[Path], None]] = {
    "a pixel": _pixel,
    "a box": _box,
    "the user's loss": _append("mine.py"),
    "what it imports": _append("beside.py"),
    "the version of torch": _version,
}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of its own in memory, where this user may make one; whether it is."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def read_only(folder: Path, mounted: bool, yes: bool) -> None:
    """Makes a folder read-only, or lets it be written to again."""
    if mounted:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(folder)], check=True)
        return
    for one in (folder, *folder.rglob("*")):
        if one.is_dir():
            one.chmod(0o555 if yes else 0o755)


@contextmanager
def cluster() -> Iterator[tuple[int, str]]:
    """A Ray cluster of this machine with two CPUs: its first process and its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2"]
    command += ["--port", str(port), "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    quiet = subprocess.DEVNULL
    head = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        time.sleep(5)
        yield head.pid, f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait()


def main() -> None:
    """Prints the table; the exit status is 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few tries of each kind, in minutes")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    options = parser.parse_args()
    few = options.short
    torch.set_num_threads(1)
    for name in IMPORTED:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="detloss-torture-") as folder:
        os.environ["DETLOSS_CACHE"] = str(Path(folder, "cache"))
        torture = Torture(Path(folder), bool(find_spec("ray")) and not options.no_ray)
        torture.kills(TRAIN, 2 if few else 24)
        torture.kills(COMPARE, 1 if few else 19)
        torture.worker_kills(COMPARE, 1 if few else 4, "forkserver", "kill of a worker")
        if not few:
            torture.on_ray(7, 3)
        torture.signals(TRAIN, (0.5,) if few else (0.1, 0.3, 0.5, 0.7, 0.9))
        torture.starts(TRAIN, (1.5,) if few else (0.3, 1.0, 2.0, 3.0))
        if not few:
            torture.signals(COMPARE, (0.2, 0.4, 0.6, 0.8))
        torture.full_disks(
            SHORT, (60_000,) if few else (500, 5_000, 30_000, 100_000, 200_000, 400_000, 700_000)
        )
        torture.read_only(SHORT)
        torture.inputs(SHORT)
        if not few:
            torture.damaged(SHORT)
        print(torture.table())
        for kind, count in torture.counts.items():
            for one in count.lost:
                print(f"lost: {kind}, {one}")
    if any(count.lost for count in torture.counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
