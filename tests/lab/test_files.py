"""Files are whole or not there, and what is damaged is named: checkpoints, and all that is written."""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detloss.lab import signals
from detloss.lab.files import Damaged, before, read_checkpoint, replacing, save_checkpoint

STATE = {"step": 3, "log": "a,b\n", "weights": {"x": torch.arange(2000.0), "y": torch.ones(3)}}


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file may become larger, as on a disk that is full; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read(path: Path, check=lambda state: None) -> tuple[Any, list[str]]:
    told: list[str] = []
    return read_checkpoint(path, check, told.append), told


class TestReplacing:
    def test_is_on_the_disk_before_it_counts(self, tmp_path, monkeypatch):
        done: list[str] = []
        fsync, rename = os.fsync, Path.replace

        def synced(handle: int) -> None:
            name = os.readlink(f"/proc/self/fd/{handle}") if Path("/proc/self").exists() else ""
            done.append(f"sync {Path(name).name}")
            fsync(handle)

        def renamed(path: Path, to: Path) -> Path:
            done.append(f"rename {path.name}")
            return rename(path, to)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", renamed)
        replacing(tmp_path / "a", lambda part: part.write_text("x"))
        assert done == ["sync a.part", "rename a.part", f"sync {tmp_path.name}"]

    def test_keeps_what_was_there(self, tmp_path):
        path, kept = tmp_path / "a", tmp_path / "kept"
        for text in ("1", "2", "3"):
            replacing(path, lambda part, text=text: part.write_text(text), keep=kept)
        assert (path.read_text(), kept.read_text()) == ("3", "2")

    @pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
    @pytest.mark.parametrize("kind", ["text", "checkpoint", "arrays"])
    def test_a_full_disk_leaves_what_was_there_and_names_the_file(self, tmp_path, kind: str):
        path = tmp_path / "file.pt"

        def arrays(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, x=np.zeros(9000))

        write = {
            "text": lambda: replacing(path, lambda part: part.write_text("x" * 9000)),
            "checkpoint": lambda: save_checkpoint(path, STATE),
            "arrays": lambda: replacing(path, arrays),
        }[kind]
        path.write_text("before")
        with little_room(4000), pytest.raises(OSError, match="File too large") as caught:
            write()
        assert caught.value.filename == str(path)
        assert path.read_text() == "before"
        assert [file.name for file in tmp_path.iterdir()] == ["file.pt"]
        write()
        assert path.stat().st_size > 4000

    def test_a_signal_does_not_cut_it_in_two(self, tmp_path):
        def write(part: Path) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            part.write_text("whole")

        with signals.caught(), pytest.raises(signals.Stopped):
            replacing(tmp_path / "a", write)
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "whole")]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ValueError])
    def test_what_fails_for_another_reason_says_its_own(self, tmp_path, error):
        def write(part: Path) -> None:
            part.write_text("half")
            raise error("mine")

        (tmp_path / "a").write_text("before")
        with pytest.raises(error, match="mine"):
            replacing(tmp_path / "a", write)
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "before")]


class TestCheckpoint:
    def test_two_generations(self, tmp_path):
        path = tmp_path / "last.pt"
        assert read(path) == (None, [])
        for step in (1, 2, 3):
            save_checkpoint(path, STATE | {"step": step})
        assert {file.name for file in tmp_path.iterdir()} == {"last.pt", "last-before.pt"}
        state, told = read(path)
        assert (state["step"], told) == (3, [])
        assert torch.equal(state["weights"]["x"], STATE["weights"]["x"])
        for damage in (lambda: path.write_bytes(path.read_bytes()[:300]), path.unlink):
            damage()
            state, told = read(path)
            assert state["step"] == 2
        assert told == []  # what is gone is not damaged

    @pytest.mark.parametrize("where", range(40))
    def test_a_bit_that_flips_is_noticed_or_changes_nothing(self, tmp_path, where: int):
        path = tmp_path / "last.pt"
        save_checkpoint(path, STATE | {"step": 1})
        save_checkpoint(path, STATE)
        content = bytearray(path.read_bytes())
        position = int(np.random.default_rng(where).integers(len(content)))
        content[position] ^= 1 << (where % 8)
        path.write_bytes(content)
        state, told = read(path)
        if told:
            assert state["step"] == 1
            assert f"{path} is damaged (" in told[0]
            assert told[0].endswith("; the checkpoint before it is taken")
        else:
            assert (state["step"], state["log"]) == (3, STATE["log"])
            assert all(torch.equal(state["weights"][k], v) for k, v in STATE["weights"].items())

    def test_a_bit_of_a_weight_is_noticed(self, tmp_path):
        path = tmp_path / "last.pt"
        save_checkpoint(path, STATE)
        content = bytearray(path.read_bytes())
        place = content.index(torch.arange(2000.0).numpy().tobytes()[400:440])
        content[place] ^= 1
        path.write_bytes(content)
        assert torch.load(path, weights_only=True)["step"] == 3  # torch does not notice
        with pytest.raises(
            Damaged, match=r"last\.pt is damaged \(the checksum of .* is wrong\); to train anew"
        ):
            read(path)

    @pytest.mark.parametrize("size", [0, 1, 100, 5000])
    def test_what_is_cut_off_is_named(self, tmp_path, size: int):
        for path in (tmp_path / "last.pt", before(tmp_path / "last.pt")):
            save_checkpoint(path, STATE)
            path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(Damaged) as caught:
            read(tmp_path / "last.pt")
        message = str(caught.value)
        assert "last.pt is damaged" in message
        assert "last-before.pt is damaged" in message
        assert message.endswith("to train anew, remove last.pt and last-before.pt")

    def test_nothing_is_executed(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return Path.touch, (tmp_path / "executed",)

        torch.save({"step": Evil()}, tmp_path / "last.pt")
        with pytest.raises(Damaged, match=r"last\.pt is damaged"):
            read(tmp_path / "last.pt")
        assert not (tmp_path / "executed").exists()

    def test_one_that_does_not_fit_is_passed_over(self, tmp_path):
        def check(state: dict[str, Any]) -> None:
            if state["step"] != 1:
                raise ValueError("is of another run: seed is 2, not 1")

        path = tmp_path / "last.pt"
        save_checkpoint(path, STATE | {"step": 1})
        save_checkpoint(path, STATE)
        state, told = read(path, check)
        assert state["step"] == 1
        assert told == [f"{path} is of another run: seed is 2, not 1; the checkpoint before it is taken"]

    def test_a_disk_that_cannot_be_read_is_not_a_damaged_file(self, tmp_path, monkeypatch):
        save_checkpoint(tmp_path / "last.pt", STATE)

        def fails(*arguments: Any, **keywords: Any) -> None:
            raise OSError(5, "Input/output error", "last.pt")

        monkeypatch.setattr("detloss.lab.files.zipfile.ZipFile", fails)
        with pytest.raises(OSError, match="Input/output error"):
            read(tmp_path / "last.pt")
