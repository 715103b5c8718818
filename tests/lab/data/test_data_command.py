"""`detloss data` as a user types it, and what commands say of the data that they are given."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from detloss.lab.data import SceneConfig, load, save, scenes
from detloss.lab.runs import read_csv
from helpers.commands import NETWORK, detloss, refused

SCENES = SceneConfig(train=6, val=3, size=32, object_size=(8, 12))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save({split: scenes(SCENES, split) for split in ("train", "val")}, "data", "voc")
    return Path("data")


def broken(data: Path) -> Path:
    """The same with a box out of the image and a photograph that is none, in train and in val."""
    for file, kind in (("Annotations/train-000001.xml", "xml"), ("JPEGImages/val-000001.png", "png")):
        path = data / file
        assert path.is_file()
        if kind == "png":
            path.write_bytes(b"GIF8")
        else:
            corners = "<xmin>90</xmin><ymin>1</ymin><xmax>95</xmax><ymax>9</ymax>"
            object = f"<object><name>ring</name><bndbox>{corners}</bndbox></object>"
            path.write_text(f"<annotation>{object}</annotation>")
    return data


def test_check_of_good_data(data):
    done = detloss("data", "check", data, "--out", "out")
    assert done.status == 0, done.err
    assert done.folder == Path("out")
    assert "data: voc data; lists: train, val; read: train, val" in done.out
    assert "train: 6 images (" in done.out
    assert "val: shares no image with train" in done.out
    assert "no problems" in done.out
    assert read_csv(Path("out/problems.csv")) == []


def test_check_lists_everything(data):
    done = detloss("data", "check", broken(data))
    assert (done.status, done.folder) == (1, Path("runs/data-001"))
    rows = read_csv(done.folder / "problems.csv")
    assert {row["kind"] for row in rows} >= {"box outside its image", "image that cannot be decoded"}
    for row in rows:
        assert row["kind"] in done.out
        assert row["file"].startswith("data/")
        assert row["lenient"]
    assert [row["file"] for row in rows if row["kind"].startswith("image")] == [
        "data/JPEGImages/val-000001.png"
    ]


def test_a_command_names_what_is_wrong_and_goes_on_leniently(data):
    refused(detloss("train", "--data", broken(data), "--out", "out", *NETWORK), ".*train-000001.*lenient")
    assert not Path("out").exists()
    done = detloss("train", "--data", data, "--lenient", "--out", "out", "--steps", "2", *NETWORK)
    assert done.status == 0, done.err
    assert "train: box outside its image ×1: left out (first: data/Annotations/train-000001.xml" in done.out
    assert "val: image that cannot be decoded ×1: left out" in done.out
    assert "6 training and 2 validation images" in done.out
    assert json.loads(Path("out/config.json").read_text())["reading"]["lenient"] is True


def test_shared_images_reach_the_output_and_the_report(data):
    arguments = [
        "--losses",
        "bce",
        "focal",
        "--lr",
        "0.01",
        "--box-weight",
        "2",
        "--seeds",
        "1",
        "--steps",
        "2",
    ]
    splits = ["--splits", "train=ImageSets/Main/train.txt", "val=ImageSets/Main/train.txt"]
    done = detloss("compare", "--data", data, *splits, *arguments, "--workers", "1", "--out", "out", *NETWORK)
    assert done.status == 0, done.err
    said = "all 6 validation images are training images, too"
    assert f"val: {said}" in done.out
    assert said in Path("out/report.html").read_text("utf-8")


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_convert(data, format):
    done = detloss("data", "convert", data, "--format", format, "--out", "new")
    assert done.status == 0, done.err
    for split, count in (("train", 6), ("val", 3)):
        before, after = load(data, split), load("new", split, names=load(data, split).names)
        assert len(after) == count
        assert [before.annotation(i).id for i in range(count)] == [
            after.annotation(i).id for i in range(count)
        ]
    refused(detloss("data", "convert", data, "--out", "new"), "new: exists and is not an empty folder")


def test_convert_a_list_alone(data):
    (data / "ImageSets/Main/val.txt").unlink()
    (data / "ImageSets/Main/train.txt").rename(data / "ImageSets/Main/default.txt")
    assert detloss("data", "convert", data, "--format", "yolo", "--out", "whole").status == 0
    assert len(load("whole", "all")) == 6
    assert detloss("data", "convert", data, "--split", "train", "val", "--out", "two").status == 0
    assert len(load("two", "train")) + len(load("two", "val")) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data check", "which data"),
        ("data check nowhere", "nowhere: no such path"),
        ("data look data", "look"),
        ("data check data --split test", "no split 'test'; there are train, val"),
        ("data convert data --format xml", "xml"),
        ("train --data data --annotations nowhere", "annotations: nowhere is neither in data nor here"),
        ("train --annotations nowhere", "nowhere: no such path"),
        ("train --data data --splits train", "splits: 'train' must be NAME=PATH"),
    ],
)
def test_mistakes(data, line, message):
    refused(detloss(*line.split()), message)
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_images_and_annotations_alone_say_where_the_data_are(data):
    (data / "JPEGImages").rename("pictures")
    done = detloss("data", "check", "--images", "pictures", "--annotations", "data/Annotations")
    assert done.status == 0, done.err
    assert "9 images" in done.out


def test_class_names_are_no_formulas_in_problems(data):
    for file in (data / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<name>", "<name>=HYPERLINK "))
    (data / "classes.txt").write_text("")
    Image.new("RGB", (32, 32)).save(data / "JPEGImages/=x.png")
    (data / "Annotations/=x.xml").write_text("<annotation>")
    (data / "ImageSets/Main/train.txt").write_text("=x\n")
    done = detloss("data", "check", data, "--out", "out")
    assert done.status == 1
    with Path("out/problems.csv").open(newline="", encoding="utf-8") as file:
        assert not any(cell[:1] in "=+-@" for row in csv.reader(file) for cell in row if cell)
