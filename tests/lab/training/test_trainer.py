"""Trainings by a function of the user's: what it is given, what it may return, what becomes of failures."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detloss.lab.compare.command import open_comparison, parse
from detloss.lab.compare.comparison import Comparison, compare, fail_if_died
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.prepare import prepare
from detloss.lab.data import SceneConfig, scenes
from detloss.lab.engines import JobFailed
from detloss.lab.records import load_config
from detloss.lab.runs import WrongFolder, read_csv, read_json, write_json
from detloss.lab.training.by_trainer import TrainerFailed, read_returned, train_by
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.splits import open_data
from detloss.lab.training.state import NonFiniteLoss
from detloss.lab.training.trainer import check_trainer
from detloss.lab.training.trainer_process import NoResults, keep
from helpers.commands import SCENES, TINY, detloss, refused
from helpers.own_trainer import OWN

RECIPE = Recipe(
    scenes=SceneConfig(size=32, object_size=(8, 16), train=8, val=4), size=32, steps=3, device="cpu"
)
FIXED = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--workers", "2"]


@pytest.fixture
def own(here, monkeypatch) -> Path:
    """A working folder with the user's file."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "own.py").write_text(OWN)
    (here / "beside.py").write_text("SCORE = 0.75\n")
    return here


def config_of(loss: str = "focal", **changes) -> TrainConfig:
    shared = RECIPE.shared() | {"trainer": "own.py:train"} | changes
    return TrainConfig(loss, "giou", 0.02, 3.0, 5, **shared)


def test_what_a_trainer_is_given(own):
    config = config_of("own.py:squares", batch=7)
    training, validation = open_data(config)
    steps: list[int] = []
    result = train_by(config, training, validation, own / "run", steps.append)
    assert result.evaluation.ap == pytest.approx(1)
    assert (result.evaluation.images, result.clipped) == (4, None)
    assert steps[-1] == 3
    seen = read_json(own / "run" / "seen.json")
    assert seen["numbers"] == [0.02, 3.0, 5, 3, 7, 32, "cpu", "own.py:squares", "giou"]
    assert seen["losses"] == {"classification": "own.py:squares", "box": "giou"}
    assert seen["sum"] == pytest.approx(2.25)  # of the user's own loss, which knows no reduction
    assert seen["names"] == list(training.names)
    assert seen["recipe"] == config.data
    assert seen["ids"] == [[validation.annotation(i).id for i in range(4)], [1, 2, 3, 4], len(training)]
    assert not (own / "run" / "data").exists()
    found = read_json(own / "run" / "detections.json")
    assert {one["image_id"] for one in found} == {
        a.id for a in map(validation.annotation, range(4)) if len(a.boxes)
    }
    assert "a word of the trainer" in (own / "run" / "trainer.log").read_text()


def test_a_finished_run_is_not_trained_again_and_another_one_is_refused(own):
    config = config_of()
    training, validation = open_data(config)
    first = train_by(config, training, validation, own / "run")
    again = train_by(config, training, validation, own / "run")
    assert again.evaluation.to_dict() == first.evaluation.to_dict()
    assert (again.seconds, again.clipped) == (first.seconds, None)
    assert len((own / "calls.txt").read_text().splitlines()) == 1
    with pytest.raises(WrongFolder, match="another configuration"):
        train_by(config_of("bce"), training, validation, own / "run")
    # Trained, and stopped before it was evaluated.
    (own / "run" / "metrics.json").unlink()
    write_json(own / "run" / "results.json", [])
    write_json(own / "run" / "spent.json", {"seconds": 7.0, "peak_memory_mb": 8.0})
    late = train_by(config, training, validation, own / "run")
    assert (late.seconds, late.evaluation.ap) == (7.0, 0.0)
    assert len((own / "calls.txt").read_text().splitlines()) == 1


def test_a_comparison_goes_on_without_a_run_that_failed(own):
    command = ["--trainer", "own.py:train", "--losses", "focal", "bce", *FIXED, *TINY, "--out", own / "out"]
    (own / "fail").touch()
    config, *data = open_comparison(parse([str(word) for word in command]).settings)
    state = Comparison(prepare(config, own / "out", *data)[0], own / "out")
    list(compare(state))
    log = own / "out" / "runs" / "focal+giou" / "seed-0" / "trainer.log"
    assert [note.partition(": trainer ")[2] for note in state.notes] == [
        f"own.py:train: KeyError: 'oh'; what it printed is in {log}; the others go on"
    ]
    with pytest.raises(JobFailed, match=re.escape(f"{log}. The others are kept")):
        fail_if_died(state)
    assert 'raise KeyError("oh")' in log.read_text()
    assert [row["classification_loss"] for row in read_csv(own / "out" / "results.csv")] == ["bce"]
    assert state.steps_done == config.steps

    (own / "fail").unlink()
    done = detloss("compare", *command)
    assert done.status == 0, done.err
    calls = [Path(line).parent.name for line in (own / "calls.txt").read_text().splitlines()]
    assert sorted(calls) == ["bce+giou", "focal+giou", "focal+giou"]
    rows = read_csv(own / "out" / "results.csv")
    assert [(row["ap"], row["clipped"]) for row in rows] == 2 * [("1.0", "")]
    page = (own / "out" / "report.html").read_text()
    assert "Not measured: which locations of own.py:train" in page
    assert "own.py:train made the trainings" in page
    assert load_config(CompareConfig, own / "out").trainer == "own.py:train"


@pytest.mark.slow
def test_sweep_and_folds(own):
    assert detloss("scenes", "--out", "voc", "--format", "voc", *SCENES).status == 0
    command = "compare --trainer own.py:train --data voc --folds 2 --losses bce focal --seeds 1 --steps 3"
    command += " --lrs 0.01 0.02 --box-weight 1 --workers 2"
    done = detloss(*command.split(), "--out", own / "out")
    assert done.status == 0, done.err
    assert [row["ap"] for row in read_csv(own / "out" / "results.csv")] == ["1.0", "1.0"]
    assert len(read_csv(own / "out" / "sweep.csv")) == 4
    assert read_json(own / "out/runs/bce+giou/seed-0/metrics.json")["clipped"] is None


def test_train_with_a_trainer(own):
    done = detloss("train", "--trainer", "own.py:from_a_file", *TINY, "--out", own / "run")
    assert done.status == 0, done.err
    assert "AP 100.0" in done.out
    assert done.folder == own / "run"


def test_a_loss_that_the_trainer_calls_not_finite_is_a_diverged_run(own):
    config = config_of(trainer="own.py:diverges")
    with pytest.raises(NonFiniteLoss, match=r"focal \+ giou: trainer own.py:diverges: nan at step 2"):
        train_by(config, *open_data(config), own / "run")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("dies", "its process ended with exit status 3"),
        pytest.param("forgets", "it returned NoneType; it must return COCO", marks=pytest.mark.slow),
    ],
)
def test_a_trainer_without_results(own, function, message):
    config = config_of(trainer=f"own.py:{function}")
    with pytest.raises(TrainerFailed, match=f"trainer own.py:{function}: {message}.*run/trainer.log"):
        train_by(config, *open_data(config), own / "run")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_trainer_ends_with_the_command_and_so_does_what_it_started(own, how):
    # A shell starts what is in the background with SIGINT ignored.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from detloss.lab.cli.main import main; main()"
    command = [sys.executable, "-c", start, "train", *TINY]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*command, "--trainer", "own.py:sleeps", "--out", "run"], env=environment)
    told = own / "pids.txt"
    assert comes(lambda: told.exists() and told.read_text().endswith("."))
    process.send_signal(signal.Signals[how])
    process.wait()
    for pid in told.read_text().rstrip(".").split():
        assert comes(lambda: gone(pid)), pid  # noqa: B023


def comes(true) -> bool:
    """Whether something becomes true within a minute."""
    end = time.monotonic() + 60
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.1)
    return now


def gone(pid: str) -> bool:
    """Whether a process has ended; whoever adopted it may not have asked."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False)
    return not state.stdout.strip() or state.stdout.startswith("Z")


BOX = [1.0, 2.0, 3.0, 4.0]


def result(**changes) -> dict:
    return {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5} | changes


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([result(image_id=9)], "image_id 9 is not among .* images 1 to 4, categories 1 to 4"),
        ([result(image_id="val-000000")], "image_id 'val-000000' is not among"),
        ([result(category_id=0)], r"category_id 0 is not in \[1, 2, 3, 4\]"),
        ([result(bbox=BOX[:3])], r"results\[0\].bbox is \[1.0, 2.0, 3.0\]"),
        ([result(bbox=[1, 2, math.nan, 4])], "bbox is"),
        ([result(bbox=[1, 2, -3, 4])], "expected finite x1 ≤ x2"),
        ([result(score=math.nan)], "scores.* got nan"),
        ([result(score=2)], "scores.* expected 0..1"),
        ([{"image_id": 1}], "has no 'category_id'"),
        ([3], "has no 'image_id'"),
    ],
)
def test_nonsense(results, message, tmp_path):
    keep(results, tmp_path / "results.json")
    with pytest.raises(ValueError, match=message):
        read_returned(tmp_path / "results.json", scenes(RECIPE.scenes, "val"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; it must return COCO results"),
        ({"image_id": 1}, "returned dict"),
        ("nowhere.json", "the path 'nowhere.json', where there is no file"),
        ([{1, 2}], "a list that cannot be JSON"),
    ],
)
def test_what_is_no_list_and_no_file(returned, message, tmp_path):
    with pytest.raises(NoResults, match=message):
        keep(returned, tmp_path / "results.json")


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    data = scenes(RECIPE.scenes, "val")
    box = torch.tensor(BOX)
    keep([result(image_id=np.int64(2), bbox=box, score=torch.tensor(0.25))], tmp_path / "results.json")
    found = read_returned(tmp_path / "results.json", data)
    assert [len(one.scores) for one in found] == [0, 1, 0, 0]
    np.testing.assert_array_equal(found[1].boxes, [[1, 2, 4, 6]])
    assert (found[1].scores, found[1].labels) == (0.25, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--trainer", "nowhere.py:train"],
            "trainer nowhere.py:train cannot be imported .*no file nowhere.py",
        ),
        (["--trainer", "own.py:nothing"], "trainer own.py:nothing cannot be imported .*AttributeError"),
        (["--trainer", "own.py:NUMBER"], "trainer own.py:NUMBER is int, not a function"),
        (["--trainer", "own.train"], "trainer is own.train; it must be FILE.py:function"),
        (
            ["--trainer", "own.py:train", "--losses", "focal,gamma=linear:0:2"],
            "a schedule is not for a trainer",
        ),
        (["--trainer", "own.py:train", "--losses", "bce,mining=hard:3"], "mining is not for a trainer"),
        (["--trainer", "own.py:train", "--losses", "nonsense"], "unknown loss 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(own, arguments, message):
    refused(detloss("compare", *arguments, *TINY, "--out", own / "out"), message)
    assert not (own / "out").exists()


def test_the_losses_that_a_trainer_comes_with(own):
    check_trainer("own.py:train", [("default", "default"), ("focal", "giou+0.4*l1")])
