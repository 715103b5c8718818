"""`detloss calibration`: of which runs, what it writes, and answers to mistakes."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.calibration.command import CalibrationConfig, verdict
from detloss.lab.calibration.measure import loss_rows, measure
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import folder_name
from detloss.lab.detector.postprocess import Limits
from detloss.lab.evaluate.calibrator import Calibrators
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import read_csv, read_json, write_json
from detloss.lab.training.config import Recipe, TrainConfig
from helpers.commands import SCENES, TINY, detloss, refused

FIGURES = ("reliability", "reliability_iou", "score_iou", "thresholds")
TABLES = ("calibration", "thresholds", "per_class")


@pytest.fixture
def coco(here) -> Path:
    """The scenes as a user's own COCO folder."""
    assert detloss("scenes", "--out", "coco", "--format", "coco", *SCENES).status == 0
    return here / "coco"


def coco_results(data: Path) -> list[dict]:
    """Every validation object with its exact box and score .75, and as many mistakes with score .25."""
    objects = read_json(data / "annotations" / "instances_val.json")["annotations"]
    return [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": box,
            "score": score,
        }
        for one in objects
        for box, score in ((one["bbox"], 0.75), ([0, 0, 1, 1], 0.25))
    ]


def write(results: object, name: str = "theirs.json") -> str:
    Path(name).write_text(json.dumps(results), encoding="utf-8")
    return name


def of_run(folder: Path, table: str = "calibration") -> list[dict[str, str]]:
    return read_csv(folder / f"{table}.csv")


def test_coco_results_of_another_detector(coco):
    results = coco_results(coco)
    done = detloss("calibration", write(results), "--data", coco, "--out", "found")
    assert done.status == 0, done.err
    assert done.folder == Path("found")
    files = {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    files |= {f"{name}.csv" for name in TABLES} | {"config.json", "versions.json"}
    assert {file.name for file in Path("found").iterdir()} == files
    (row,) = of_run(done.folder)
    assert (row["loss"], row["seed"], row["threshold"]) == ("theirs", "", "0.05")
    assert (int(row["detections"]), float(row["recall"]), float(row["ap"])) == (len(results), 1, 1)
    # all right at .75, none at .25: each is .25 away, and the two cancel in the whole
    assert float(row["ece"]) == pytest.approx(0.25)
    assert float(row["signed_gap"]) == pytest.approx(0, abs=1e-12)
    assert float(row["laece"]) == pytest.approx(0.25)
    # from .3 on only the right ones are left
    by_threshold = of_run(done.folder, "thresholds")
    assert [float(row["threshold"]) for row in by_threshold] == [0.05, 0.1, 0.3, 0.5]
    assert [int(row["detections"]) for row in by_threshold] == [len(results)] * 2 + [len(results) // 2] * 2
    assert float(by_threshold[3]["signed_gap"]) == pytest.approx(-0.25)
    assert "−25.0 from a score of 0.5 on (under-confident, one seed)" in done.out
    classes = of_run(done.folder, "per_class")
    assert sum(int(row["objects"]) for row in classes) == len(results) // 2
    for row in classes:
        assert row["ece"] == "" or float(row["ece"]) == pytest.approx(0.25)
    # its configuration makes the same tables; what is there is not overwritten by something else
    assert detloss("calibration", "--config", "found", "--out", "again").status == 0
    for name in TABLES:
        assert Path(f"found/{name}.csv").read_bytes() == Path(f"again/{name}.csv").read_bytes()
    refused(detloss("calibration", "theirs.json", "--out", "found"), "found holds something else")


def of_data(data: Path) -> CompareConfig:
    default = CalibrationConfig().training
    return replace(default, data=str(data))


def rows_of(*runs: object) -> list[dict]:
    """The table by loss, every detection counted; nothing drawn."""
    return loss_rows(measure(list(map(str, runs)), (0.0, 0.5), Recipe()))


def test_runs_and_what_evaluate_leaves(here, trained):
    before = {file.name: file.read_bytes() for file in trained.iterdir()}
    assert detloss("evaluate", trained, "--split", "train", "--out", "on-train").status == 0
    rows = rows_of(trained, "on-train")
    # one loss on other data is not another seed of it
    assert [row["loss"] for row in rows] == [f"focal,gamma=1.5 ({trained})", "focal,gamma=1.5 (on-train)"]
    for row, folder in zip(rows, (trained, Path("on-train"))):
        metrics = read_json(folder / "metrics.json")
        assert (row["seed"], row["ap"]) == (0, metrics["ap"])
        assert row["detections"] == metrics["detections"] > 0
    refused(detloss("calibration", trained, "--out", trained), "holds something else, which is kept")
    refused(detloss("calibration", trained, trained), "are the same run; give each once")
    assert {file.name: file.read_bytes() for file in trained.iterdir()} == before


def test_of_an_evaluation_of_the_first_images(here, trained):
    again = here / "trained"
    shutil.copytree(trained, again)
    config = read_json(again / "config.json")
    config["scenes"]["val"] = 70
    write(config, "trained/config.json")
    assert detloss("evaluate", again, "--quick", "--out", "quick").status == 0
    (row,) = rows_of("quick")
    metrics = read_json(Path("quick/metrics.json"))
    assert metrics["images"] == 64
    assert (row["ap"], row["detections"]) == (metrics["ap"], metrics["detections"])
    # images that are gone
    config["scenes"]["val"] = 5
    write(config, "quick/config.json")
    refused(detloss("calibration", "quick"), "was evaluated on 64 images, but embedded has 5 now")


@pytest.mark.slow
def test_without_runs_losses_are_trained(here):
    losses = ("--losses", "bce", "focal", "--seeds", "2", "--thresholds", "0", "0.5")
    done = detloss("calibration", *losses, *TINY, "--out", "found")
    assert done.status == 0, done.err
    assert "bce: mean score - share right is" in done.out
    rows = of_run(done.folder)
    runs = [("bce", 0), ("bce", 1), ("focal", 0), ("focal", 1)]
    assert [(row["loss"], int(row["seed"])) for row in rows] == runs
    results = read_csv(Path("found/comparison/results.csv"))
    assert [row["ap"] for row in rows] == [row["ap"] for row in results]
    # the folder of the comparison and its runs one by one say the same
    whole = rows_of("found/comparison")
    assert [str(row["detections"]) for row in whole] == [row["detections"] for row in rows]
    one_by_one = rows_of(*(f"found/comparison/runs/{loss}+giou/seed-{seed}" for loss, seed in runs))
    np.testing.assert_equal(one_by_one, whole)


# Mistakes: one line, exit status 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a finished run: it has no config.json and no detections.json"),
        (["nowhere.json"], "nowhere.json: no such file"),
        (["nowhere", "--losses", "bce"], "nowhere is trained already"),
        (["nowhere", "--steps", "5"], "nowhere is trained already"),
        (["nowhere", "--data", "mine"], "data is 'mine', but nowhere has its own"),
        (["--thresholds", "0.5", "0.1"], "thresholds is 0.5 0.1; they must increase"),
        (["--thresholds", "0.1", "0.1"], "thresholds is 0.1 0.1; they must increase"),
        (["--thresholds", "0.5", "2"], "thresholds is 0.5 2; give at least one, each from 0 to 1"),
        (["--losses", "focl"], "'focl'; did you mean 'focal'"),
        (["--data", "nowhere"], "nowhere"),
        (["--config", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments(here, arguments, message):
    refused(detloss("calibration", *arguments), message)
    assert list(here.iterdir()) == []


def test_bad_results(coco):
    good = coco_results(coco)

    def refuse(results: object, message: str, data: object = coco) -> None:
        refused(detloss("calibration", write(results), "--data", data), message)

    refuse({"a": 1}, "theirs.json is not a list of COCO results")
    refuse([*good, {"image_id": 1}], rf"results\[{len(good)}\] has no 'category_id'")
    refuse([good[0] | {"bbox": [1, 2, 3]}], r"results\[0\]\.bbox is \[1, 2, 3\]")
    refuse([good[0] | {"bbox": [0, 0, -5, 5]}], r"theirs\.json: detections\.boxes\[0\]: expected finite")
    refuse([good[0] | {"score": 1.5}], r"theirs\.json: detections\.scores\[0\]: expected 0\.\.1, got 1\.5")
    refuse([good[0] | {"image_id": 99}], r"results\[0\]: image_id 99 is not an image")
    refuse([good[0] | {"category_id": 99}], r"results\[0\]: category_id 99 is not a class")
    refuse(good, "image_id 1 is not an image of the data.*embedded, split 'val'", "embedded")
    Path("theirs.json").write_text("[", encoding="utf-8")
    refused(detloss("calibration", "theirs.json", "--data", coco), "theirs.json is not JSON")
    assert not Path("runs").exists()


def test_ids_of_a_data_set_that_are_its_file_names(coco):
    results, names = coco_results(coco), {}
    for file in (coco / "annotations").iterdir():
        table = read_json(file)
        names = {image["id"]: Path(image["file_name"]).stem for image in table["images"]}
        for image in table["images"]:
            image["id"] = names[image["id"]]
        for one in table["annotations"]:
            one["image_id"] = names[one["image_id"]]
        file.write_text(json.dumps(table), encoding="utf-8")
        if file.stem == "instances_val":
            results = [one | {"image_id": names[one["image_id"]]} for one in results]
    (row,) = loss_rows(measure([write(results)], (0.05,), Recipe(data=str(coco))))
    assert (row["recall"], row["ap"]) == (1, 1)  # its category ids, from 1, are no labels, from 0


@pytest.fixture
def comparison(here, trained) -> Path:
    """Two losses on two seeds: one run finished, one diverged, two not finished."""
    config = load_config(TrainConfig, trained)
    pairs = CompareConfig(losses=(config.loss, "bce"), box_losses=(config.box_loss,), **config.shared())
    write(to_dict(replace(pairs, seeds=2)), "config.json")
    write([], "results.csv")
    runs = [here / "runs" / folder_name(pair) for pair in pairs.pairs]
    shutil.copytree(trained, runs[0] / "seed-0")
    (runs[1] / "seed-1").mkdir(parents=True)
    write("not finite at step 3", str(runs[1] / "seed-1" / "diverged.json"))
    return here


def test_runs_without_a_result_are_named(comparison):
    done = detloss("calibration", comparison, "--out", "found")
    assert done.status == 0, done.err
    (row,) = of_run(done.folder)
    assert (row["loss"], row["seed"]) == ("focal,gamma=1.5", "0")
    said = [line for line in done.out.splitlines() if line.startswith("left out: ")]
    assert [line.rpartition("/")[2] for line in said] == [
        "seed-1 is not finished",
        "seed-0 is not finished",
        "seed-1 diverged: not finite at step 3",
    ]


def test_runs_on_different_data_are_said_to_be(comparison, coco, trained):
    shutil.copytree(trained, "alone")
    done = detloss("calibration", "alone", write(coco_results(coco)), "--data", coco, "--out", "found")
    assert done.status == 0, done.err
    assert "These are of different data" in done.out
    assert f"theirs: {coco}, val: " in done.out
    # a run of a comparison is known by the comparison
    assert [row["loss"] for row in rows_of(comparison)] == ["focal,gamma=1.5"]
    config = read_json(Path("alone/config.json"))
    write(config | {"lr": 0.123}, "alone/config.json")
    names = [row["loss"] for row in rows_of(comparison, "alone")]
    assert names == [f"focal,gamma=1.5 ({comparison})", "focal,gamma=1.5 (alone)"]


def test_a_loss_that_lacks_a_seed_is_not_of_different_data(here, trained):
    """Where each seed has scenes of its own, the losses still share those of each seed."""
    for folder, loss, seed in (("a-0", "focal", 0), ("a-1", "focal", 1), ("b-0", "bce", 0)):
        shutil.copytree(trained, folder)
        config = read_json(Path(folder) / "config.json")
        config |= {"loss": loss, "seed": seed, "scenes": config["scenes"] | {"seed": seed}}
        write_json(Path(folder) / "config.json", config)
        write_json(Path(folder) / "detections.json", [])  # which name their images
    done = detloss("calibration", "a-0", "a-1", "b-0", "--out", "found")
    assert done.status == 0, done.err
    assert len(of_run(done.folder)) == 3
    assert "different data" not in done.out


def test_no_detections_at_all(coco):
    done = detloss("calibration", write([]), "--data", coco, "--out", "found")
    assert done.status == 0, done.err
    (row,) = of_run(done.folder)
    assert (row["detections"], row["recall"], row["ece"], row["dece"]) == ("0", "0.0", "", "")
    assert "theirs: mean score - share right is not known from a score of 0.05 on (no detections)" in done.out


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ([0.1], "+10.0 from a score of 0.5 on (over-confident, one seed)"),
        ([-0.1, -0.12], "−11.0 ± 12.7 from a score of 0.5 on (within the spread over seeds)"),
        ([-0.1, -0.101], "−10.1 ± 0.6 from a score of 0.5 on (under-confident)"),
        ([math.nan], "not known from a score of 0.5 on (no detections)"),
    ],
)
def test_verdict(gaps, said):
    rows = [{"threshold": 0.5, "signed_gap": gap} for gap in gaps]
    assert verdict("focal", rows).replace("\u00a0", " ") == f"focal: mean score - share right is {said}"


def test_fit_and_apply(coco, trained, monkeypatch):
    """What predict writes with a calibrator is what the calibrator makes of what it writes without."""
    write(coco_results(coco))
    done = detloss("calibration", "theirs.json", "--data", coco, "--fit", "--out", "fitted")
    assert done.status == 0, done.err
    # all right at .75, none at .25: isotonic regression repairs it whole, on the other half too
    assert "ECE before 25.0, after" in done.out
    assert "isotonic 0.0" in done.out
    assert "these images cannot judge them" in done.out
    found = Calibrators.load(Path("fitted/calibrator.json"))
    assert found.data == f"{coco}, val"
    assert found.isotonic(np.array([0.25, 0.75])).tolist() == [0, 1]
    # after three steps no score reaches the paper's limit
    monkeypatch.setattr("detloss.lab.training.predict_command.Limits", lambda: Limits(score=1e-4))
    image = next((coco / "images" / "val").iterdir())
    assert detloss("predict", trained, image, "--out", "raw").status == 0
    raw = read_json(Path("raw/detections.json"))
    assert raw
    for method in ("platt", "temperature", "isotonic"):
        kind = [] if method == "platt" else ["--calibrator", method]
        words = ["--calibrate", "fitted/calibrator.json", *kind]
        assert detloss("predict", trained, image, *words, "--out", method).status == 0
        calibrated = read_json(Path(method) / "detections.json")
        scores = getattr(found, method)(np.array([one["score"] for one in raw], np.float32))
        assert [one["score"] for one in calibrated] == scores.tolist()
        assert [one["bbox"] for one in calibrated] == [one["bbox"] for one in raw]


def test_fit_is_of_one_run_with_detections_on_two_images(coco, trained):
    refused(detloss("calibration", "--fit"), "fit is given with 0 runs.*give one RUN")
    results = coco_results(coco)
    one = [result for result in results if result["image_id"] == results[0]["image_id"]]
    words = ["calibration", write(one), "--data", coco, "--fit", "--out", "out"]
    refused(detloss(*words), "on 1 images; a calibrator needs two")
    assert not Path("out").exists()
    write({"platt": 1}, "wrong.json")
    for file, why in (("wrong.json", "has no 'temperature'"), ("gone.json", "No such file")):
        done = detloss("predict", trained, ".", "--calibrate", file)
        refused(done, f"{file} is not a calibrator.*{why}")
