"""`detloss verdict` says of files what `compare` says of the runs behind them, and refuses mistakes."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.data import load
from detloss.lab.evaluate import Detections, evaluate, to_coco_results
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.matches import resample_images
from detloss.lab.runs import read_csv
from detloss.lab.statistics import verdicts
from detloss.lab.verdict.files import files_of
from helpers.commands import SCENES, detloss, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "coco"
    scenes = [*SCENES, "--scenes.val", "24"]
    assert detloss("scenes", "--out", folder, "--format", "coco", *scenes).status == 0
    return folder


def found(data: Path, seed: int, noise: float) -> list[Detections]:
    """The objects, moved by noise, and a mistake on each image."""
    rng, dataset = np.random.default_rng(seed), load(data, "val")
    result = []
    for i in range(len(dataset)):
        truth = dataset.annotation(i)
        moved = truth.boxes + rng.normal(0, noise, truth.boxes.shape)
        boxes = np.concatenate([np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4), [[0, 0, 3, 3]]])
        scores = rng.uniform(0.1, 1, len(boxes))
        labels = np.concatenate([truth.labels, [0]])
        result.append(Detections(boxes.astype(np.float32), scores.astype(np.float32), labels))
    return result


def write(data: Path, file: str, detections: list[Detections]) -> str:
    """In the numbers of the data set's own annotations."""
    table = json.loads((data / "annotations" / "instances_val.json").read_text())
    ids = [image["id"] for image in table["images"]]
    Path(file).write_text(
        json.dumps(to_coco_results(detections, ids, [c["id"] for c in table["categories"]]))
    )
    return file


@pytest.fixture
def files(here, data) -> dict[str, list[str]]:
    """Three seeds of a good and of a worse detector."""
    return {
        name: [write(data, f"{name}-{seed}.json", found(data, seed, noise)) for seed in range(3)]
        for name, noise in (("good", 0.3), ("bad", 2.0))
    }


def named(files: dict[str, list[str]]) -> list[str]:
    return [f"{name}={','.join(own)}" for name, own in files.items()]


def numbers(row: dict[str, str]) -> list[float]:
    return [float(row[name]) for name in ("difference", "low", "high", "images_low", "images_high")]


def test_the_verdict_is_that_of_compare(here, data, files):
    done = detloss("verdict", *named(files), "--data", data, "--looks", "3", "--quick", "--out", "out")
    assert done.status == 0, done.err
    assert done.folder == Path("out")
    dataset = load(data, "val")
    truths = [dataset.annotation(i) for i in range(len(dataset))]
    ap, matches = {}, {}
    for name, noise in (("good", 0.3), ("bad", 2.0)):
        runs = [found(data, seed, noise) for seed in range(3)]
        ap[name] = [evaluate(run, truths, dataset.names).ap for run in runs]
        matches[name] = [count(run, truths, dataset.names, [ALL]).matches for run in runs]
    (expected,) = verdicts(ap, looks=(3,), images=resample_images(matches, 100))
    (row,) = read_csv(Path("out/verdicts.csv"))
    assert (row["first"], row["second"], row["verdict"]) == ("good", "bad", "better")
    ends = (expected.low, expected.high, expected.images_low, expected.images_high)
    np.testing.assert_allclose(numbers(row), [expected.difference, *ends], rtol=1e-5)
    rows = read_csv(Path("out/results.csv"))
    assert [(row["loss"], row["seed"], row["file"]) for row in rows] == [
        (name, str(seed), file) for name, own in files.items() for seed, file in enumerate(own)
    ]
    np.testing.assert_allclose([float(row["ap"]) for row in rows], [*ap["good"], *ap["bad"]], rtol=1e-5)
    assert "Over 3 seeds: good has the highest mean AP" in done.out
    assert "it is better than bad" in done.out
    page = Path("out/report.html").read_text()
    for label in (
        "Results of each loss",
        "Differences of all pairs",
        "What each loss gets wrong",
        "Calibration",
    ):
        assert f'aria-label="{label}"' in page
    for stem in ("errors", "f1", "confusion", "reliability", "samples", "precision_recall"):
        assert f'<figure class="{stem}">' in page
        assert Path(f"out/figures/{stem}.png").exists()
    # nothing of a training that nobody knows of
    assert not re.search("Imbalance|Time and memory|learning rate|further training", page)
    assert not re.search(r'(src|href)="(?!data:)', page)
    # the same again from its configuration; something else is not written over it
    assert detloss("verdict", "--config", "out", "--quick", "--out", "again").status == 0
    assert Path("again/verdicts.csv").read_bytes() == Path("out/verdicts.csv").read_bytes()
    refused(detloss("verdict", "--config", "out", "--rope", "2", "--out", "out"), "holds something else")


def test_one_file_each_is_judged_over_images_alone(here, data, files):
    done = detloss("verdict", "good-0.json", "bad-0.json", "--data", data, "--quick", "--out", "out")
    assert done.status == 0, done.err
    (row,) = read_csv(Path("out/verdicts.csv"))
    assert (row["first"], row["second"], row["verdict"]) == ("good-0", "bad-0", "better")
    assert row["low"] == row["high"] == "nan"
    assert 0 < float(row["images_low"]) < float(row["difference"]) < float(row["images_high"])
    assert "There is one run of each, so this is on these runs, not on their losses" in done.out
    assert "Over other images: good-0 has the highest mean AP" in done.out
    assert "one file: how its runs differ is not known from it" in done.out


def test_unequal_numbers_of_files_miss_nothing(here, data, files):
    words = [f"good={files['good'][0]}", f"bad={','.join(files['bad'])}"]
    done = detloss("verdict", *words, "--data", data, "--quick", "--out", "out")
    assert done.status == 0, done.err
    assert "Over 1 to 3 seeds: good has the highest mean AP" in done.out
    assert "no result" not in done.out


def test_the_same_file_twice_over_is_equivalent(here, data, files):
    Path("copy.json").write_bytes(Path("good-0.json").read_bytes())
    done = detloss("verdict", "good-0.json", "copy.json", "--data", data, "--quick", "--out", "out")
    assert done.status == 0, done.err
    (row,) = read_csv(Path("out/verdicts.csv"))
    assert (float(row["difference"]), row["verdict"]) == (0, "equivalent")


# Mistakes: one line that names the file, nothing written


def change(row: dict, **values: object) -> list[dict]:
    return [row | values]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: change(rows[0], image_id=999), r"image_id 999 is not an image.*split 'val'"),
        (lambda rows: change(rows[0], image_id="street"), "image_id 'street' is not an image"),
        (lambda rows: change(rows[0], category_id=77), "category_id 77 is not a class of the data"),
        (lambda rows: change(rows[0], bbox=[0, 0, math.nan, 1]), r"results\[0\].bbox is .*nan.*must be"),
        (lambda rows: change(rows[0], bbox=[9, 9, -1, 1]), "expected finite x1 ≤ x2"),
        (lambda rows: change(rows[0], score=1.5), r"expected 0..1, got 1.5"),
        (lambda rows: change(rows[0], score=math.nan), r"expected 0..1, got nan"),
        (lambda rows: {"detections": rows}, "is not a list of COCO results"),
        (lambda rows: [], "is empty"),
        (lambda rows: rows[:1], "has results on 1 images, the files together on 24.*allow_empty"),
    ],
)
def test_a_file_that_does_not_fit(here, data, files, damage, message):
    rows = json.loads(Path("bad-0.json").read_text())
    Path("bad-0.json").write_text(json.dumps(damage(rows)))
    done = detloss("verdict", "good-0.json", "bad-0.json", "--data", data, "--out", "out")
    refused(done, f"bad-0.json.*{message}")
    assert not Path("out").exists()


def test_nothing_found_on_an_image_where_it_is_said(here, data, files):
    rows = json.loads(Path("bad-0.json").read_text())
    Path("bad-0.json").write_text(json.dumps(rows[3:]))
    words = ["verdict", "good-0.json", "bad-0.json", "--data", data, "--quick", "--out", "out"]
    refused(detloss(*words), "bad-0.json has results on 23 images")
    assert detloss(*words, "--allow-empty").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("good-0.json bad-0.json", "data is empty; --data"),
        ("good-0.json --data DATA", "at least two"),
        ("good-0.json sub/good-0.json --data DATA", "there are two losses 'good-0'"),
        ("a=good-0.json a=bad-0.json --data DATA", "a=bad-0.json: there are two losses 'a'"),
        ("a=good-0.json,good-0.json b=bad-0.json --data DATA", "good-0.json is given twice"),
        ("a=good-0.json,gone.json b=bad-0.json --data DATA", "no such file 'gone.json'"),
        ("a=good-0.json b=empty.json --data DATA", "empty.json is not JSON"),
        ("good-0.json bad-0.json --data DATA --split test", "test"),
        ("good-0.json bad-0.json --data DATA --rope 0", "rope is 0"),
        ("good-0.json bad-0.json --data DATA --looks 5 3", "looks is .*increasing"),
    ],
)
def test_wrong_words(here, data, files, words, message):
    Path("sub").mkdir()
    Path("sub/good-0.json").write_bytes(Path("good-0.json").read_bytes())
    Path("empty.json").write_text("")
    refused(detloss("verdict", *words.replace("DATA", str(data)).split(), "--out", "out"), message)
    assert not Path("out").exists()


def test_names(here):
    for file in ("a.json", "b.json", "c=1.json"):
        Path(file).write_text("[]")
    assert files_of(["x=a.json,b.json", "c=1.json"]) == {
        "x": [Path("a.json"), Path("b.json")],
        "c=1": [Path("c=1.json")],
    }
