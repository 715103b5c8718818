"""`detloss inspect` as a user types it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detloss.lab.devices import pick_device
from detloss.lab.inspect.command import _class_weights
from detloss.lab.runs import read_csv, read_json
from detloss.lab.training.trained import load_detector
from helpers.commands import SCENES, TINY, detloss, refused

TABLES = (
    "alternatives",
    "claims",
    "classes",
    "counts",
    "figure4",
    "figure4_curves",
    "levels",
    "model",
    "objects_per_image",
    "quadrants",
    "sizes",
)
FIGURES = ("figure4", "images", "levels", "objects", "quadrants", "suspects")


def numbers(folder: Path, table: str, column: str) -> list[float]:
    return [float(row[column]) for row in read_csv(folder / f"{table}.csv")]


def counts(folder: Path) -> dict[str, float]:
    return {row["quantity"]: float(row["value"]) for row in read_csv(folder / "counts.csv")}


def model(folder: Path) -> dict[str, str]:
    return {row["quantity"]: row["value"] for row in read_csv(folder / "model.csv")}


@pytest.fixture(scope="module")
def inspected(trained, tmp_path_factory) -> Path:
    """Of the checkpoint of a run of three steps."""
    out = tmp_path_factory.mktemp("inspected") / "out"
    done = detloss("inspect", "--checkpoint", trained, "--out", out, "--examples", 1)
    assert done.status == 0, done.err
    assert done.folder == out
    return out


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Drawing takes most of the time; `inspected`, made before this, has its figures."""
    monkeypatch.setattr("detloss.lab.figures.save", lambda figure, path: None)


def test_tables_and_figures(inspected):
    for name in TABLES:
        assert read_csv(inspected / f"{name}.csv"), name
    for name in FIGURES:
        assert {(inspected / f"{name}.{kind}").stat().st_size > 1000 for kind in ("png", "svg")} == {True}
    losses = [float(row["loss"]) for row in read_csv(inspected / "suspects.csv")]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 100
    assert read_json(inspected / "versions.json")["torch"]
    assert not (inspected / "trained").exists()


def test_the_tables_agree(inspected):
    all_counts = counts(inspected)
    assert all_counts["images"] == 8
    assert model(inspected)["images"] == "4"
    assert re.search(r"the checkpoint .* \(focal\S* \+ giou, 3 steps, AP \d", model(inspected)["model"])
    assert "is hardly trained" in model(inspected)["doubt"]  # three steps
    assert sum(numbers(inspected, "classes", "objects")) == all_counts["objects"]
    assert sum(numbers(inspected, "sizes", "objects")) == all_counts["objects"]
    assert sum(numbers(inspected, "objects_per_image", "images")) == all_counts["images"]
    for kind in ("positives", "negatives"):
        assert sum(numbers(inspected, "levels", kind)) == all_counts[kind]
    quadrants = read_csv(inspected / "quadrants.csv")
    assert [row["loss"] for row in quadrants[::4]] == ["bce", "balanced_bce", "focal"]
    for i in (0, 4, 8):
        four = quadrants[i : i + 4]
        assert sum(int(row["count"]) for row in four) == int(model(inspected)["logits"])
        for share in ("count_share", "loss_share", "gradient_share"):
            assert sum(float(row[share]) for row in four) == pytest.approx(1)
    rate = all_counts["positives"] / (4 * (all_counts["positives"] + all_counts["negatives"]))
    prior = read_json(inspected / "recommendation.json")[0]
    assert prior["what"] == "--detector.prior"
    assert prior["value"] == pytest.approx(rate, rel=1e-2)
    assert set(prior) == {"what", "value", "why", "evidence"}
    shares = read_csv(inspected / "figure4.csv")
    assert len(shares) == 2 * 4 * 4
    assert all(0 <= float(row["share"]) <= 1 for row in shares)


def test_class_weights_are_told_of_the_rarest_and_the_most_frequent():
    told = _class_weights({"a": 90, "b": 10})  # 1/√90 and 1/√10 scaled to a mean of 1
    assert (
        "class_weight=effective:0.999 and inverse:0.5 (objects): b 1.79, 1.50 (10); a 0.21, 0.50 (90)" in told
    )
    many = _class_weights({f"c{n}": n for n in range(1, 21)})
    assert [f"c{n} " in many for n in (1, 3, 4, 17, 18, 20)] == [True, True, False, False, True, True]
    assert "; ...; " in many


def test_trains_where_there_is_no_checkpoint(here):
    done = detloss("inspect", "embedded", "--losses", "focal", "--out", "out", *TINY)
    assert done.status == 0, done.err
    assert "class weights of class_weight=effective:0.999" in done.out
    assert "trained here with focal (alpha .25, gamma 2)" in done.out
    assert "3 steps of 2 images" in done.out
    assert not (here / "out/suspects.csv").exists()
    detector, config, _ = load_detector(here / "out/trained", pick_device("cpu"))
    assert (config.loss, detector.network.softmax) == ("focal", False)
    # The same command with the same folder takes the detector that it finds there.
    before = read_csv(here / "out/quadrants.csv")
    modified = (here / "out/trained/last.safetensors").stat().st_mtime_ns
    assert detloss("inspect", "embedded", "--losses", "focal", "--out", "out", *TINY).status == 0
    assert read_csv(here / "out/quadrants.csv") == before
    assert (here / "out/trained/last.safetensors").stat().st_mtime_ns == modified


def test_the_configuration_of_a_run_goes_back_in(inspected, here):
    done = detloss("inspect", "--config", inspected, "--examples", 0, "--easy", 0.7)
    assert done.status == 0, done.err
    before, after = read_json(inspected / "config.json"), read_json(done.folder / "config.json")
    assert (after.pop("easy"), after.pop("examples")) == (0.7, 0)
    assert {name: before[name] for name in after} == after
    assert done.folder == Path("runs/inspect-001")


def test_own_data_and_its_classes_in_another_order(trained, voc):
    done = detloss("inspect", "voc", "--checkpoint", trained, "--out", "a", "--examples", 0)
    assert done.status == 0, done.err
    assert read_json(Path("a/config.json"))["data"] == "voc"
    # Without the first class the labels of the others differ from the checkpoint's.
    for file in (voc / "Annotations").glob("*.xml"):
        text = file.read_text().replace("<name>disc</name>", "<name>square</name>")
        file.write_text(text)
    done = detloss("inspect", "voc", "--checkpoint", trained, "--out", "b", "--examples", 0)
    assert done.status == 0, done.err
    classes = {row["name"]: int(row["objects"]) for row in read_csv(Path("b/classes.csv"))}
    assert list(classes) == ["disc", "ring", "triangle", "square"]
    assert classes["disc"] == 0
    assert classes["square"] > 0


def test_a_softmax_checkpoint(here):
    assert detloss("train", "--loss", "softmax_focal", "--out", "soft", *TINY).status == 0
    done = detloss("inspect", "--checkpoint", "soft", "--out", "out")
    assert done.status == 0, done.err
    assert "locations, one logit each" in done.out
    found = counts(here / "out")
    assert int(model(here / "out")["logits"]) == 4 * found["locations"]  # four images, nothing ignored
    prior = read_json(here / "out/recommendation.json")[0]["value"]
    assert prior == pytest.approx(found["positives"] / (found["positives"] + found["negatives"]), rel=1e-2)


def test_yolov2_is_looked_at_by_its_objectness(here):
    arguments = [*TINY, "--detector.kind", "yolov2", "--detector.strides", 8, "--examples", 1]
    done = detloss("inspect", *arguments, "--out", "out")
    assert done.status == 0, done.err
    found = counts(here / "out")
    assert (found["classes"], found["locations"]) == (1, 16 * 5)
    assert "examined is its objectness" in done.out
    assert "focal,gamma=" not in done.out  # --loss is of positives only
    assert [one["what"] for one in read_json(here / "out/recommendation.json")][1] == "--loss"
    again = detloss("inspect", "--checkpoint", "out/trained", "--examples", 0, "--out", "again")
    assert again.status == 0, again.err
    assert counts(here / "again") == found


def test_anchors(here):
    arguments = [*TINY, "--detector.kind", "retinanet", "--losses", "bce", "quality_focal", "--examples", 1]
    done = detloss("inspect", *arguments, "--out", "out")
    assert done.status == 0, done.err
    assert "rescue of an object's best anchors" in done.out
    assert read_csv(here / "out/alternatives.csv")[0]["change"] == "as configured"


# Mistakes: one line, exit status 2, nothing written


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("inspect nowhere", "nowhere: no such path"),
        ("inspect --checkpoint nowhere", "checkpoint is nowhere, which is not a folder"),
        ("inspect --losses softmax_focal", "softmax_focal.*name bce"),
        ("inspect --losses bce focl", "'focl'; did you mean 'focal'"),
        ("inspect --easy 1", "easy is 1.0"),
        ("inspect --gammas -1", "gammas has -1.0"),
        ("inspect --most-images 0", "images is 0"),
        ("inspect --siz 64", "--siz"),
    ],
)
def test_mistakes(here, line, message):
    refused(detloss(*line.split()), message)
    assert list(here.iterdir()) == []


def test_folders_that_hold_no_data_and_no_run(here):
    (here / "empty").mkdir()
    refused(detloss("inspect", "empty", "--out", "out"), "empty: no data set found")
    refused(detloss("inspect", "--checkpoint", "empty", "--out", "out"), "config.json")
    assert not (here / "out").exists()


def test_a_comparison_in_place_of_one_of_its_runs(trained, here):
    run = here / "compared/runs/focal+giou/seed-0"
    shutil.copytree(trained, run)
    refused(
        detloss("inspect", "--checkpoint", "compared"),
        "is a comparison; name one of its runs, such as .*seed-0",
    )
    assert detloss("inspect", "--checkpoint", run, "--examples", 0, "--out", "out").status == 0


def test_a_checkpoint_of_other_classes_or_another_detector(trained, here):
    refused(
        detloss("inspect", "--checkpoint", trained, "--scenes.classes", 5, "--out", "out"),
        "knows the classes disc, ring, triangle, square, and embedded has .*give a checkpoint",
    )
    refused(
        detloss("inspect", "--checkpoint", trained, "--detector.head-depth", 2, "--out", "out"),
        r"another detector than --detector\.\* describes",
    )
    assert not (here / "out").exists()


def test_a_split_without_objects(here):
    for split in ("train", "val"):
        (here / "data/images" / split).mkdir(parents=True)
        (here / "data/labels" / split).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(here / f"data/images/{split}/a.png")
    (here / "data/data.yaml").write_text("names: [a]\ntrain: images/train\nval: images/val\n")
    refused(detloss("inspect", "data", "--out", "out", *TINY), "split 'train' of data has no objects")
    assert not (here / "out").exists()


def test_a_damaged_configuration(here):
    (here / "config.json").write_text(json.dumps({"easyy": 0.5}))
    refused(detloss("inspect", "--config", "config.json"), "'easyy'; did you mean 'easy'")


def test_quick(here):
    done = detloss("inspect", "--quick", "--examples", 0, *SCENES, *TINY[len(SCENES) :])
    assert done.status == 0, done.err
    assert read_json(done.folder / "config.json")["images"] == 64
