"""The commands as a user types them: what they print, leave on disk and answer to mistakes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from detloss.lab.cli.main import COMMANDS
from detloss.lab.data import load, read_image
from detloss.lab.runs import read_csv, read_json
from helpers.commands import NETWORK, SCENES, TINY, detloss, refused

# What it says of itself


def test_overview_and_version():
    for arguments in ((), ("--help",), ("-h",)):
        done = detloss(*arguments)
        assert done.status == 0
        assert all(f"detloss {command} " in done.out for command in COMMANDS)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", detloss("--version").out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    done = detloss(command, "--help")
    assert done.status == 0
    # What takes the doctor its time is the loss examined: --time-limit.
    for argument in ("--out", "--time-limit" if command == "doctor" else "--quick"):
        assert argument in done.out


def test_as_a_process(here):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "detloss", "train", "--loss", "focl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("detloss train: unknown loss 'focl'; did you mean 'focal'?")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("backend", "resource"),
    [("module://matplotlib_inline.backend_inline", True), ("nonsense", True), (None, False)],
)
def test_in_a_notebook_and_where_resource_is_missing(here, backend, resource):
    """A notebook names a backend of its own for every process; Windows has no module `resource`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"MPLBACKEND": backend} if backend else {})
    if not resource:
        Path("hidden").mkdir()
        Path("hidden/resource.py").write_text("raise ModuleNotFoundError('resource')")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, ["hidden", environment.get("PYTHONPATH")]))
    for arguments in (
        ["train", "--out", "run", *TINY],
        ["evaluate", "run", "--out", "evaluated"],
        ["--help"],
    ):
        command = [sys.executable, "-m", "detloss", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert Path("evaluated/reliability.png").is_file()


def test_in_an_encoding_of_few_characters(here):
    encoding = "ascii"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}

    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "detloss", *arguments]
        return subprocess.run(command, capture_output=True, timeout=120, env=environment)

    wrong = call("train", "--losss", "bce")
    assert wrong.stderr.decode(encoding) == (
        "detloss train: Unrecognized options: --losss, bce; did you mean --loss?\n"
    )
    assert call("train", "--out", "run", *TINY).returncode == 0


# Mistakes: one line, exit status 2, nothing written


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("comapre", r"unknown command 'comapre'.*compare"),
        ("train --losss bce", r"--losss.*did you mean --loss\?"),
        ("train --loss focl", "'focl'; did you mean 'focal'"),
        ("train --box-loss gio", "'gio'; did you mean 'giou'"),
        ("train --loss focal,gama=2", "focal has no setting 'gama'; it has .*gamma"),
        ("train --loss focal,gamma", "'gamma' is not a hyperparameter.*focal,gamma=1.5"),
        ("train --loss nothere.py:loss", "no file nothere.py"),
        ("train --loss nomodule:loss", "nomodule"),
        ("compare --losses bce focl", "'focl'; did you mean 'focal'"),
        ("compare --losses bce focal+cio", "'cio'; did you mean '.iou'"),
        ("compare --box-losses giou cio", "'cio'; did you mean '.iou'"),
        ("compare --seeds 0", "seeds is 0"),
        ("train --steps many", "--steps.*'many'"),
        ("train --steps 0", "steps is 0; it must be at least 1"),
        ("train --lr -1", "lr is -1.0; it must be"),
        ("train --optimizer adam", "'adam'.*adamw"),
        ("train --device cuda:99", "cuda:99"),
        ("train --device gpu", "device is 'gpu'"),
        (
            "train --detector.kind yolov2 --detector.strides 8 --scenes.classes 1 --scenes.train 8 "
            "--scenes.val 4 --loss softmax_focal",
            "of one its loss is always 0; take a sigmoid loss",
        ),
        (
            "compare --detector.kind yolov2 --detector.strides 8 --scenes.classes 1 --scenes.train 8 "
            "--scenes.val 4 --losses softmax_focal",
            "of one its loss is always 0; take a sigmoid loss",
        ),
        ("train --scenes.size 8", "size is 8"),
        ("train --config nothere.json", "nothere.json: No such file"),
        ("train --data nothere", "nothere: no such path"),
        ("compare --data nothere", "nothere: no such path"),
        ("train --data empty", "empty: .*COCO.*VOC.*YOLO"),
        ("compare --data empty", "empty: .*COCO.*VOC.*YOLO"),
        ("evaluate empty", "empty is not a run folder.*no config.json"),
        ("predict", "run is missing"),
        ("predict empty empty", "empty is not a run folder.*no config.json"),
        ("scenes --format xml", r"'xml'.*coco, voc, yolo"),
        ("scenes --scenes.classes 99", "classes is 99"),
    ],
)
def test_mistakes(here, line, message):
    (here / "empty").mkdir()
    out = ["--out", "out"] if " " in line else []
    refused(detloss(*line.split(), *out), message)
    assert sorted(here.iterdir()) == [here / "empty"]
    assert not any((here / "empty").iterdir())


def damage_class(voc: Path) -> str:
    """A class in validation only, and no list of classes that it would not be on."""
    (voc / "classes.txt").unlink()
    file = next(f for f in sorted((voc / "Annotations").glob("val-*.xml")) if "<object>" in f.read_text())
    file.write_text(re.sub(r"<name>\w+</name>", "<name>zebra</name>", file.read_text(), count=1))
    return rf"{file.name}.*'zebra'"


def damage_box(voc: Path) -> str:
    file = next(f for f in sorted((voc / "Annotations").glob("train-*.xml")) if "<object>" in f.read_text())
    file.write_text(re.sub(r"<xmax>\d+", "<xmax>1000", file.read_text(), count=1))
    return rf"{file.name}.*1000.*outside"


def damage_jpeg(voc: Path) -> str:
    """A JPEG whose second half is missing: its size can still be read."""
    image = sorted((voc / "JPEGImages").glob("train-*"))[-1]
    jpeg = image.with_suffix(".jpg")
    with Image.open(image) as picture:
        picture.save(jpeg, quality=95)
    image.unlink()
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    annotation = voc / "Annotations" / f"{image.stem}.xml"
    annotation.write_text(annotation.read_text().replace(image.name, jpeg.name))
    return jpeg.name


def damage_missing(voc: Path) -> str:
    image = sorted((voc / "JPEGImages").glob("val-*"))[0]
    image.unlink()
    return image.stem


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("damage", [damage_class, damage_box, damage_jpeg, damage_missing])
def test_damaged_data(here, voc, command, damage):
    message = damage(voc)
    refused(detloss(command, "--data", voc, "--out", "out", *NETWORK), message)
    assert not (here / "out").exists()


def test_no_such_split(here, voc):
    refused(detloss("train", "--data", voc, "--val-split", "test", "--out", "out"), "'?test'?.*train")
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"lr": 0.1, "step": 4}', " has no 'step'; did you mean 'steps'"),
        ('{"lr": "fast"}', "lr is 'fast'; it must be float"),
        ('{"size": 32.5}', "size is 32.5; it must be int"),
        ('{"optimizer": "adam"}', "optimizer is 'adam'; it may be adamw, sgd"),
        ('{"lr": 0.1', "not JSON"),
        ('{"losses": ["bce"]}', "no 'losses'"),
    ],
)
def test_bad_config(here, content, message):
    (here / "wrong.json").write_text(content)
    refused(detloss("train", "--config", "wrong.json", "--out", "out"), f"wrong.json.*{message}")
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", ["train", "compare", "scenes"])
def test_out_is_a_file(here, command):
    (here / "out").write_text("mine")
    small = SCENES if command == "scenes" else TINY
    refused(detloss(command, "--out", "out", *small), "out")
    assert (here / "out").read_text() == "mine"


def test_out_of_evaluate_or_predict_is_a_file(here, trained):
    (here / "out").write_text("mine")
    refused(detloss("evaluate", trained, "--out", "out"), "out")
    Image.new("RGB", (40, 30)).save("image.png")
    refused(detloss("predict", trained, "image.png", "--out", "out"), "out")
    assert (here / "out").read_text() == "mine"


def test_interrupted(monkeypatch):
    def interrupt(command):
        raise KeyboardInterrupt

    monkeypatch.setattr("detloss.lab.training.evaluate_command.run", interrupt)
    monkeypatch.setattr("detloss.lab.training.evaluate_command.parse", lambda arguments: None)
    done = detloss("evaluate")
    assert (done.status, done.err) == (130, "interrupted\n")


def test_interrupted_training_says_how_to_go_on(monkeypatch, tmp_path):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detloss.lab.training.train_command.train", interrupt)
    done = detloss("train", *TINY)
    assert done.status == 130
    assert "--out runs/train-001 continues" in done.err


def test_a_full_disk_is_one_line(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device", "last.pt")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detloss.lab.training.train_command.train", full)
    done = detloss("train", *TINY)
    assert done.status == 1
    assert done.err == ("detloss train: last.pt: No space left on device; what was finished before is kept\n")


def test_predict_does_not_draw_over_the_photos(trained, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    refused(detloss("predict", trained, tmp_path, "--out", tmp_path), "is where the images are")
    assert (tmp_path / "a.png").read_bytes() == before


# What they do


def test_train_leaves(trained):
    names = {file.name for file in trained.iterdir()}
    assert names == {
        *("config.json", "versions.json", "log.csv", "evaluations.csv", "metrics.json", "detections.json"),
        *("matches.npz", "last.pt", "last.safetensors", "origin.json", "curves.png", "curves.svg"),
    }
    config = read_json(trained / "config.json")
    assert (config["loss"], config["steps"]) == ("focal,gamma=1.5", 3)
    assert [row["step"] for row in read_csv(trained / "log.csv")] == ["1", "2", "3"]
    assert read_json(trained / "metrics.json")["images"] == 4


def test_numbered_under_runs(here):
    folders = [detloss("scenes", *SCENES).folder for _ in range(2)]
    assert folders == [Path("runs/scenes-001"), Path("runs/scenes-002")]
    assert all(any(folder.iterdir()) for folder in folders)


def test_a_finished_run_is_not_repeated(trained):
    before = {f.name: f.read_bytes() for f in trained.glob("*.csv")}
    weights = (trained / "last.safetensors").read_bytes()
    assert detloss("train", "--config", trained, "--out", trained).status == 0
    assert {f.name: f.read_bytes() for f in trained.glob("*.csv")} == before
    assert (trained / "last.safetensors").read_bytes() == weights


def test_config_of_a_run_makes_the_same_run(here, trained):
    assert detloss("train", "--config", trained / "config.json", "--out", "again").status == 0
    assert Path("again/config.json").read_bytes() == (trained / "config.json").read_bytes()
    assert Path("again/last.safetensors").read_bytes() == (trained / "last.safetensors").read_bytes()


def test_arguments_change_what_config_says(here, trained):
    assert (
        detloss("train", "--config", trained, "--lr", "0.002", "--steps", "1", "--out", "other").status == 0
    )
    old, new = read_json(trained / "config.json"), read_json(Path("other/config.json"))
    assert (new["lr"], new["steps"]) == (0.002, 1)
    old["lr"], old["steps"] = 0.002, 1
    assert new == old


def test_another_run_is_not_overwritten(trained):
    before = {f.name: f.read_bytes() for f in trained.iterdir()}
    refused(detloss("train", "--config", trained, "--lr", "1", "--out", trained), "another configuration")
    refused(detloss("compare", "--out", trained, *TINY), "")
    assert {f.name: f.read_bytes() for f in trained.iterdir()} == before


def test_evaluate(here, trained):
    done = detloss("evaluate", trained, "--out", "found")
    assert done.status == 0
    assert done.folder == Path("found")
    for text in ("AP, AP50, AP75", "AP of disc", "ECE", "score-IoU"):
        assert text in done.out
    # the same images, network and limits as at the end of training
    measured, expected = read_json(Path("found/metrics.json")), read_json(trained / "metrics.json")
    assert measured == {name: expected[name] for name in measured}
    assert read_json(Path("found/detections.json")) == read_json(trained / "detections.json")


def test_evaluate_on_other_data(trained, voc):
    done = detloss("evaluate", trained, "--data", voc, "--split", "train", "--out", "found")
    assert done.status == 0
    assert read_json(Path("found/metrics.json"))["images"] == 8
    damage_class(voc)
    refused(detloss("evaluate", trained, "--data", voc, "--out", "other"), "'zebra'")
    assert not Path("other").exists()


def test_evaluate_does_not_write_into_its_run(trained):
    before = {f.name: f.read_bytes() for f in trained.iterdir()}
    refused(detloss("evaluate", trained, "--out", trained), "out")
    assert {f.name: f.read_bytes() for f in trained.iterdir()} == before


def test_predict(here, trained):
    (here / "album").mkdir()
    for name, size in (("wide.png", (90, 40)), ("tall.jpg", (33, 64))):
        Image.new("RGB", size, "grey").save(here / "album" / name)
    Image.new("L", (50, 50)).save(here / "grey.png")
    done = detloss("predict", trained, "album", "grey.png", "--out", "found", "--score", "0")
    assert done.status == 0
    assert done.folder == Path("found")
    drawn = {file.stem: read_image(file).shape[1::-1] for file in Path("found").glob("*.png")}
    assert drawn == {"wide": (90, 40), "tall": (33, 64), "grey": (50, 50)}
    rows = read_json(Path("found/detections.json"))
    assert {row["image_id"] for row in rows} <= set(drawn)
    for row in rows:
        x, y, width, height = row["bbox"]
        w, h = drawn[row["image_id"]]
        assert -0.01 <= x <= x + width <= w + 0.01
        assert -0.01 <= y <= y + height <= h + 0.01


@pytest.mark.parametrize("files", [["nothere.png"], ["empty"], ["good.png", "broken.jpg"], ["text.txt"]])
def test_predict_on_what_is_no_image(here, trained, files):
    (here / "empty").mkdir()
    Image.new("RGB", (40, 30)).save("good.png")
    Image.new("RGB", (40, 30)).save("broken.jpg")
    (here / "broken.jpg").write_bytes((here / "broken.jpg").read_bytes()[:200])
    (here / "text.txt").write_text("no picture")
    refused(detloss("predict", trained, *files, "--out", "out"), files[-1])
    assert not (here / "out").exists()


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_scenes_are_a_data_set(here, format):
    done = detloss("scenes", "--format", format, "--out", "data", *SCENES)
    assert done.status == 0
    assert done.folder == Path("data")
    assert [len(load("data", split)) for split in ("train", "val")] == [8, 4]
    refused(detloss("scenes", "--format", format, "--out", "data", *SCENES), "data: exists")


def test_train_on_own_data(voc):
    done = detloss("train", "--data", voc, "--out", "run", "--steps", "2", *NETWORK)
    assert done.status == 0, done.err
    assert "8 training and 4 validation images" in " ".join(done.out.split())
    # ... and the run's own data is found again
    assert detloss("evaluate", "run", "--out", "found").status == 0
    assert read_json(Path("found/metrics.json"))["images"] == 4


def test_a_loss_that_becomes_nan_stops_with_the_images(here):
    (here / "mine.py").write_text(
        "def nan_when_trained(logits, targets):\n"
        "    return (logits - targets) ** 2 * (1 if len(logits) == 1 else float('nan'))\n"
    )
    done = detloss("train", "--loss", "mine.py:nan_when_trained", "--out", "run", *TINY)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert re.search(
        r"mine.py:nan_when_trained.*not finite at step 1 .*images of the batch: train-\d+", done.err
    )
    assert not Path("run/metrics.json").exists()


# --quick: a first look


@pytest.mark.slow
def test_quick(here):
    def quick(*arguments: str) -> Path:
        command = [sys.executable, "-m", "detloss", *arguments, "--quick"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1])

    run = quick("train")
    assert json.loads((run / "metrics.json").read_text())["images"] == 48
    quick("evaluate", str(run))
    data = quick("scenes")
    assert quick("predict", str(run), str(data)) == Path("runs/predict-001")
    assert (quick("compare") / "report.html").stat().st_size > 100_000
