"""A training that is stopped or killed, or finds files damaged, goes on bit for bit or says what is wrong."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from detloss.lab import signals
from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.files import Damaged, before, save_checkpoint
from detloss.lab.runs import read_csv, read_json
from detloss.lab.training import train as module
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.state import Training
from detloss.lab.training.train import train
from detloss.lab.training.trained import load_detector
from helpers.commands import TINY, detloss, refused

RECIPE = Recipe(
    scenes=SceneConfig(size=32, object_size=(8.0, 16.0), train=8, val=4),
    size=32,
    batch=2,
    steps=6,
    evaluations=2,
    detector=DetectorConfig(width=8, channels=8),
    device="cpu",
)
CONFIG = TrainConfig("focal", "giou", lr=0.01, **RECIPE.shared())


@pytest.fixture(scope="module")
def data() -> tuple[Letterboxed, Letterboxed]:
    return Letterboxed(scenes(RECIPE.scenes, "train"), 32), Letterboxed(scenes(RECIPE.scenes, "val"), 32)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole")
    train(CONFIG, *data, out)
    return left(out)


def left(out: Path) -> dict[str, Any]:
    """All that a run leaves, without times and memory."""
    cost = {"seconds": 0, "peak_memory_mb": 0}
    weights = {name: value.numpy().tobytes() for name, value in load_file(out / "last.safetensors").items()}
    return {
        "names": sorted(file.name for file in out.iterdir()),
        "log": [row | {"seconds": 0} for row in read_csv(out / "log.csv")],
        "metrics": read_json(out / "metrics.json") | cost,
        "weights": weights,
        "others": [(out / n).read_bytes() for n in ("evaluations.csv", "detections.json", "matches.npz")],
    }


class Killed(Exception):
    """In the place of SIGKILL: nothing is done about it."""


def at(step: int, act: Callable[[], None]) -> dict[str, Any]:
    def on_step(row: dict[str, float]) -> None:
        if row["step"] == step:
            act()

    return {"on_step": on_step}


def kill() -> None:
    raise Killed


# Checkpoints by time


@pytest.mark.parametrize(("minutes", "first"), [(1e-9, 5), (0.0, 4), (60.0, 4)])
def test_a_checkpoint_by_time_lets_less_be_lost(data, whole, tmp_path, minutes, first):
    config = replace(CONFIG, checkpoint_minutes=minutes)
    with pytest.raises(Killed):
        train(config, *data, tmp_path, **at(5, kill))
    steps: list[float] = []
    # How often changes no result, and may change.
    train(CONFIG, *data, tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(first, 7))
    assert left(tmp_path) == whole


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_minutes_that_are_none(here, minutes):
    refused(detloss("train", *TINY, "--checkpoint-minutes", minutes, "--out", "out"), "checkpoint_minutes is")


# Signals


@pytest.mark.parametrize("number", signals.KINDS)
@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_a_signal_leaves_a_checkpoint_of_the_step_that_it_came_in(data, whole, tmp_path, number, step):
    def send() -> None:
        os.kill(os.getpid(), number)

    words = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with (
        signals.caught(),
        pytest.raises(signals.Stopped, match=f"^{words}, saved at step {step}$") as caught,
    ):
        train(CONFIG, *data, tmp_path, **at(step, send))
    assert caught.value.status == 128 + number
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == step
    steps: list[float] = []
    train(CONFIG, *data, tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(step + 1, 7))
    assert left(tmp_path) == whole


@pytest.mark.parametrize("call", [1, 2])
def test_a_signal_within_an_evaluation(data, whole, tmp_path, monkeypatch, call):
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    real = module.evaluate_on
    monkeypatch.setattr(module, "evaluate_on", interrupted)
    with signals.caught(), pytest.raises(signals.Stopped, match=f"saved at step {3 * call}"):
        train(CONFIG, *data, tmp_path)
    train(CONFIG, *data, tmp_path)
    assert left(tmp_path) == whole


def test_the_command_says_how_to_go_on(here, monkeypatch):
    def stopped(*arguments: Any, **keywords: Any) -> None:
        raise signals.and_then(signals.Stopped(signal.SIGTERM), ", saved at step 3")

    monkeypatch.setattr("detloss.lab.training.train_command.train", stopped)
    done = detloss("train", *TINY, "--out", "run")
    assert done.status == 143
    assert done.err == "ended by SIGTERM, saved at step 3; the same command with --out run continues\n"
    assert not Path("run/.lock").exists()


# Damaged, foreign and old files


@pytest.fixture
def begun(data, tmp_path) -> Path:
    """A run that was killed after its checkpoints of steps 4 and 5."""
    with pytest.raises(Killed):
        train(replace(CONFIG, checkpoint_minutes=1e-9), *data, tmp_path, **at(6, kill))
    return tmp_path


def damage(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("harm", [damage, cut, lambda path: path.write_bytes(b"")])
def test_the_checkpoint_before_is_taken_where_the_last_is_damaged(data, whole, begun, harm):
    harm(begun / "last.pt")
    told: list[str] = []
    train(CONFIG, *data, begun, tell=told.append)
    assert len(told) == 1
    assert told[0].startswith(f"{begun / 'last.pt'} is damaged")
    assert told[0].endswith("the checkpoint before it is taken")
    assert left(begun) == whole


@pytest.mark.parametrize("name", ["log.csv", "evaluations.csv", "last.safetensors"])
def test_tables_and_weights_of_an_unfinished_run_may_be_lost(data, whole, begun, name):
    (begun / name).write_bytes(b"\xff\x00")
    train(CONFIG, *data, begun)
    assert left(begun) == whole


def foreign(path: Path, data: Any) -> str:
    other = Training(replace(CONFIG, loss="bce", seed=3), data[0])
    other.save(path.parent / "other")
    shutil.copy(path.parent / "other" / "last.pt", path)
    shutil.rmtree(path.parent / "other")
    return "is of another run: loss is 'bce', not 'focal'"


def older(path: Path, data: Any) -> str:
    state = torch.load(path, weights_only=True)
    del state["config"]
    save_checkpoint(path, state)
    return "is no checkpoint of this version of detloss: it has no config"


def stranger(path: Path, data: Any) -> str:
    torch.save([1, 2], path)
    return "holds list, no state of a training"


@pytest.mark.parametrize("make", [foreign, older, stranger])
def test_a_checkpoint_of_something_else_is_named(data, whole, begun, make):
    message = make(begun / "last.pt", data)
    kept = before(begun / "last.pt").read_bytes()
    before(begun / "last.pt").unlink()
    with pytest.raises(Damaged, match=rf"last\.pt {message}.*; to train anew, remove last\.pt"):
        train(CONFIG, *data, begun)
    assert not (begun / "metrics.json").exists()
    before(begun / "last.pt").write_bytes(kept)
    train(CONFIG, *data, begun)
    assert left(begun) == whole


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"ap": 1}', '{"ap": 0.5, "calibration": 1, "seconds": 1}']
)
def test_metrics_that_are_none_name_their_file(data, begun, content):
    (begun / "metrics.json").write_text(content)
    with pytest.raises(Damaged, match=r"metrics\.json (is damaged|holds no metrics of a run).*remove it"):
        train(CONFIG, *data, begun)


def test_a_config_that_is_damaged_names_its_file(data, begun):
    for content in (b"", b"{", b"\xff"):
        (begun / "config.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.json is not JSON"):
            train(CONFIG, *data, begun)


def test_weights_have_a_checksum(data, tmp_path):
    train(replace(CONFIG, steps=1, evaluations=1), *data, tmp_path)
    file = tmp_path / "last.safetensors"
    content = file.read_bytes()
    load_detector(tmp_path, torch.device("cpu"))
    for position in np.linspace(8, len(content) - 1, 23).astype(int):
        flipped = bytearray(content)
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"last\.safetensors is (damaged|of an older version)"):
            load_detector(tmp_path, torch.device("cpu"))
    file.write_bytes(content[:5000])
    with pytest.raises(Damaged, match=r"last\.safetensors is damaged"):
        load_detector(tmp_path, torch.device("cpu"))


def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(data, whole, begun, monkeypatch):
    def full(path: Path, state: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device", str(path))

    saved = torch.load(begun / "last.pt", weights_only=True)["step"]
    with monkeypatch.context() as patch:
        patch.setattr("detloss.lab.training.state.save_checkpoint", full)
        with pytest.raises(OSError, match="No space left on device"):
            train(replace(CONFIG, checkpoint_minutes=1e-9), *data, begun)
    assert torch.load(begun / "last.pt", weights_only=True)["step"] == saved
    train(CONFIG, *data, begun)
    assert left(begun) == whole


# Several processes


def test_processes_that_torchrun_started_must_have_joined(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started together, and each would train the same"):
        train(CONFIG, *data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_another_process_is_in(here, monkeypatch):
    holder = {"host": "elsewhere", "pid": 7, "since": "2026-01-02 03:04:05"}
    monkeypatch.setattr("detloss.lab.lock._flock", lambda file: False)
    for command in ("train", "compare", "calibration", "inspect"):
        Path("run").mkdir(exist_ok=True)
        Path("run/.lock").write_text(json.dumps(holder))
        message = "run is in use by process 7 on elsewhere since 2026-01-02 03:04:05; wait until it ends"
        refused(detloss(command, *TINY, "--out", "run"), message)
        Path("run/.lock").unlink()
        assert set(os.listdir("run")) <= {"config.json", "versions.json"}
        shutil.rmtree("run")
