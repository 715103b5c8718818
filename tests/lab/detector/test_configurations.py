"""The files in experiments/detectors/ are what docs/detectors.md says of them, and train."""

from dataclasses import replace
from pathlib import Path

import pytest

from detloss.lab.compare.config import CompareConfig
from detloss.lab.records import load_config
from detloss.lab.runs import read_csv, read_json
from detloss.lab.training.config import TrainConfig
from helpers.commands import SCENES, detloss

FOLDER = Path(__file__).parents[3] / "experiments" / "detectors"
FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_train_and_compare_read_it_alike(file: Path):
    config = load_config(TrainConfig, file)
    assert config.shared() == load_config(CompareConfig, file).shared()
    assert config != replace(config, detector=TrainConfig().detector) or file.stem == "vfnet"


def test_every_file_is_on_the_page():
    text = (FOLDER.parents[1] / "docs" / "dense.md").read_text(encoding="utf-8")
    assert {file.name for file in FILES} == {
        "retinanet.json", "retinanet_resnet50.json", "gfl.json", "vfnet.json", "yolov2.json",
        "yolov2_darknet19.json",
    }  # fmt: skip
    assert all(file.name in text for file in FILES)


@pytest.mark.parametrize("name", ["retinanet", "gfl", "vfnet", "yolov2"])
def test_the_small_ones_train_and_are_evaluated(name: str, tmp_path: Path):
    config = ["--config", FOLDER / f"{name}.json", "--size", "32", "--batch", "2", "--device", "cpu"]
    losses = {"gfl": "quality_focal", "vfnet": "varifocal", "yolov2": "softmax_focal"}
    loss = losses.get(name, "focal")
    small = ["--detector.width", "2", "--detector.channels", "8", "--steps", "2", "--evaluations", "1"]
    done = detloss("train", *config, *small, *SCENES, "--loss", loss, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    detector = read_json(tmp_path / "run" / "config.json")["detector"]
    assert len(detector["anchors"]) == (5 if name == "yolov2" else 0)
    row = read_csv(tmp_path / "run" / "log.csv")[-1]
    assert (float(row["objectness_loss"]) > 0) == (name == "yolov2")
    assert (float(row["distribution_loss"]) > 0) == (name == "gfl")
    done = detloss("evaluate", tmp_path / "run", "--out", tmp_path / "again", "--device", "cpu")
    assert done.status == 0, done.err
    metrics = [read_json(tmp_path / folder / "metrics.json")["ap"] for folder in ("run", "again")]
    assert metrics[0] == metrics[1]
