"""Folds of a comparison: every image is validated once, and a seed's AP is one AP over all of them."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.results import read_results
from detloss.lab.data import SceneConfig, load, save, scenes
from detloss.lab.evaluate import evaluate, from_coco_results
from detloss.lab.evaluate.matches import average_precision
from detloss.lab.records import load_config
from detloss.lab.runs import read_csv, read_json, write_json
from detloss.lab.training.config import TrainConfig
from helpers.commands import NETWORK, detloss, refused

SCENES = SceneConfig(size=32, object_size=(8, 16), train=9, val=4, empty=0)
COMMAND = [
    *("--losses", "bce", "focal", "--seeds", "2", "--folds", "3", "--lr", "0.01", "--box-weight", "2"),
    *("--workers", "2", "--steps", "3", *NETWORK),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "coco"
    save({split: scenes(SCENES, split) for split in ("train", "val")}, folder, "coco")
    return folder


@pytest.fixture(scope="module")
def out(data, tmp_path_factory) -> Path:
    done = detloss("compare", "--data", data, "--out", tmp_path_factory.mktemp("folds") / "out", *COMMAND)
    assert done.status == 0, done.err
    return done.folder


def test_a_run_for_each_loss_seed_and_fold(out, data):
    assert len(list(out.glob("runs/*/seed-*/fold-*/metrics.json"))) == 2 * 2 * 3
    assert len(read_csv(out / "results.csv")) == 2 * 2
    whole = load(data, "all-splits")
    everything = {whole.annotation(i).id for i in range(len(whole))}
    for seed in out.glob("runs/*/seed-*"):
        judged = []
        for fold in (1, 2, 3):
            config = load_config(TrainConfig, seed / f"fold-{fold}")
            learned, own = (load(data, split) for split in (config.train_split, config.val_split))
            assert len(learned) + len(own) == 13
            ids = {own.annotation(i).id for i in range(len(own))}
            assert {one["image_id"] for one in read_json(seed / f"fold-{fold}" / "detections.json")} <= ids
            judged += ids
        assert sorted(judged) == sorted(everything)


def test_ap_of_a_seed_is_one_over_all_images(out, data):
    whole = load(data, "all-splits")
    truths = [whole.annotation(i) for i in range(len(whole))]
    results = read_results(out)
    for loss, runs in results.runs.items():
        for seed, run in runs.items():
            folder = out / "runs" / f"{loss}+giou" / f"seed-{seed}"
            parts = [read_json(folder / f"fold-{fold}" / "detections.json") for fold in (1, 2, 3)]
            found = from_coco_results([one for part in parts for one in part], [t.id for t in truths])
            assert run.row["ap"] == evaluate(found, truths, whole.names).ap
            assert run.row["ap"] == pytest.approx(average_precision(run.matches, np.ones((1, 13), int))[0])
            costs = [read_json(folder / f"fold-{fold}" / "metrics.json") for fold in (1, 2, 3)]
            assert run.row["seconds"] == pytest.approx(sum(one["seconds"] for one in costs))
            assert run.row["peak_memory_mb"] == max(one["peak_memory_mb"] for one in costs)
            assert len(run.log["step"]) == 3
    assert results.images is not None
    with (out / "verdicts.csv").open(newline="") as file:
        assert all(row["images_low"] != "nan" for row in csv.DictReader(file))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "13 images, each validated once in 3 folds" in page


@pytest.mark.slow
def test_only_what_is_missing_is_repeated(out, data, tmp_path):
    copy = shutil.copytree(out, tmp_path / "copy")
    before = {f: f.stat().st_mtime_ns for f in copy.rglob("runs/**/metrics.json")}
    lost = copy / "runs" / "bce+giou" / "seed-1" / "fold-2"
    shutil.rmtree(lost)
    assert detloss("compare", "--out", copy, "--config", copy).status == 0
    changed = {f for f, stamp in before.items() if f.stat().st_mtime_ns != stamp}
    assert changed == {lost / "metrics.json", lost.parent / "metrics.json"}
    assert len(read_csv(copy / "results.csv")) == 2 * 2
    refused(detloss("compare", "--out", copy, "--config", copy, "--folds", "4"), "another configuration")


@pytest.mark.slow
def test_a_fold_that_diverged_leaves_the_seed_without_a_result(out, tmp_path):
    copy = shutil.copytree(out, tmp_path / "copy")
    seed = copy / "runs" / "bce+giou" / "seed-1"
    (seed / "metrics.json").unlink()
    (seed / "fold-2" / "metrics.json").unlink()
    write_json(seed / "fold-2" / "diverged.json", "the loss is not finite")
    done = detloss("compare", "--out", copy, "--config", copy)
    assert done.status == 1
    assert "seed 1, fold 2: the loss is not finite" in done.err
    assert len(read_csv(copy / "results.csv")) == 3


@pytest.mark.slow
def test_other_commands_take_it(out, tmp_path):
    assert detloss("calibration", out, "--out", tmp_path / "calibration").status == 0
    assert len(read_csv(tmp_path / "calibration" / "calibration.csv")) == 4
    fold = out / "runs" / "focal+giou" / "seed-0" / "fold-3"
    assert detloss("evaluate", fold, "--out", tmp_path / "fold").status == 0
    assert read_json(tmp_path / "fold" / "metrics.json")["ap"] == read_json(fold / "metrics.json")["ap"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1, "data": "here"}, "folds is 1; it must be at least 2, or 0 for the data's own splits"),
        ({"folds": -2, "data": "here"}, "folds is -2; it must be at least 2"),
        ({"folds": 5}, "folds is 5 and data 'embedded'; folds are of images on disk"),
    ],
)
def test_folds_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**changes)


def test_more_folds_than_images(data, tmp_path):
    done = detloss("compare", "--data", data, "--out", tmp_path / "out", *COMMAND, "--folds", "14")
    refused(done, "folds is 14; it must be from 2 to the number of images, 13")
    assert not (tmp_path / "out").exists()
