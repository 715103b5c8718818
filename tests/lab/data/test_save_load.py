"""What holds for every format: round trips, splits, class names, nothing half-written."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detloss.lab.data import Dataset, Sample, SceneConfig, load, save, scenes, summary

FORMATS = ("coco", "voc", "yolo")
IGNORED = ("coco", "voc")


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(format, splits, assert_same, tmp_path):
    save(splits, tmp_path / "out", format)
    for split in splits:
        found = load(tmp_path / "out", split)
        assert_same(found, splits[split])
        assert found.notes == ()


@pytest.mark.parametrize("format", FORMATS)
def test_writing_what_was_read_gives_the_same_files(format, splits, tmp_path):
    save(splits, tmp_path / "one", format)
    save({s: load(tmp_path / "one", s) for s in splits}, tmp_path / "two", format)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*") if p.is_file()
    )
    for file in files:
        first, second = (tmp_path / "one" / file).read_bytes(), (tmp_path / "two" / file).read_bytes()
        if format != "coco" or file.suffix != ".json":  # ids of images are numbered in the order given
            assert first == second


@pytest.mark.parametrize("format", IGNORED)
def test_ignored_objects_survive(format, make, assert_same, tmp_path):
    sample = make("a", [[1, 1, 5, 5], [2, 2, 9, 9]], [0, 1], [False, True])
    data = Dataset("xy", [sample.annotation], [sample.image])
    save({"train": data, "val": data.select([])}, tmp_path / "out", format)
    # An empty val list is a mistake, said when it is read; train is as shipped.
    assert_same(load(tmp_path / "out", "train"), data)
    with pytest.raises(ValueError, match="no images"):
        load(tmp_path / "out", "val")


def test_yolo_refuses_ignored_objects_and_leaves_nothing(make, tmp_path):
    sample = make("a", [[1, 1, 5, 5], [2, 2, 9, 9]], [0, 1], [False, True])
    data = Dataset("xy", [sample.annotation], [sample.image])
    with pytest.raises(ValueError, match=r"sample a: object 2 is ignored.*without_ignored"):
        save({"train": data}, tmp_path / "out", "yolo")
    assert os.listdir(tmp_path) == []
    save({"train": data.without_ignored(), "test": data.without_ignored()}, tmp_path / "out", "yolo")
    assert load(tmp_path / "out", "test").annotation(0).boxes.tolist() == [[1, 1, 5, 5]]


@pytest.mark.parametrize("format", FORMATS)
def test_jpeg_files_are_copied_unchanged(format, splits, assert_same, tmp_path):
    save(splits, tmp_path / "png", "voc")
    for file in (tmp_path / "png" / "JPEGImages").iterdir():
        Image.open(file).save(file.with_suffix(".jpg"), quality=90)
        file.unlink()
    jpeg = {s: load(tmp_path / "png", s) for s in splits}
    assert jpeg["train"].file(0).suffix == ".jpg"
    save(jpeg, tmp_path / "out", format)
    for split in splits:
        assert_same(load(tmp_path / "out", split), jpeg[split])


@st.composite
def objects(draw):
    width, height = draw(st.integers(2, 90)), draw(st.integers(2, 90))
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x, y = (
            draw(st.integers(0, 8 * (width - 2))),
            draw(st.integers(0, 8 * (height - 2))),
        )  # eighths of a pixel
        w, h = draw(st.integers(16, 8 * width - x)), draw(st.integers(16, 8 * height - y))
        box = [x / 8, y / 8, (x + w) / 8, (y + h) / 8]
        boxes += [box] if box not in boxes else []  # what is twice in an image is read once
    n = len(boxes)
    flags = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return (height, width), boxes, draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), flags


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=objects())
def test_any_boxes_round_trip(format, case, tmp_path_factory):
    (height, width), boxes, labels, ignored = case
    sample = Sample(
        np.zeros((height, width, 3), np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        "a",
        np.array(ignored if format in IGNORED else [False] * len(boxes), bool),
    )
    folder = tmp_path_factory.mktemp("out")
    save({"test": [sample]}, folder, format, names=["x", "y", "z"])
    found = load(folder, "test")[0]
    # Eighths of a pixel are exact in VOC and COCO; YOLO divides by the sides and comes back within rounding.
    np.testing.assert_allclose(found.boxes, sample.boxes, rtol=0, atol=1e-5 if format == "yolo" else 0)
    assert found.labels.tolist() == labels
    assert found.ignored.tolist() == sample.ignored.tolist()


@pytest.mark.parametrize("format", FORMATS)
def test_a_set_without_val_is_cut_by_hash(format, make, tmp_path):
    samples = [make(f"im{i}", [[1, 1, 9, 9]], [i % 2], size=(12, 12)) for i in range(60)]
    save({"train": samples}, tmp_path / "out", format, names=["x", "y"])
    train, val = load(tmp_path / "out", "train"), load(tmp_path / "out", "val")
    ids = [{a.id for a in map(d.annotation, range(len(d)))} for d in (train, val)]
    assert ids[0] | ids[1] == {s.id for s in samples}
    assert not ids[0] & ids[1]
    assert 5 <= len(val) <= 19  # 12 ± 2.3 standard deviations
    assert train.notes == val.notes
    assert "no validation split" in train.notes[0]
    # An image more moves no other from one side to the other.
    save({"train": [*samples, make("new", [], [])]}, tmp_path / "more", format, names=["x", "y"])
    assert {a.id for a in map(load(tmp_path / "more", "val").annotation, range(len(val)))} <= ids[1] | {"new"}


def test_two_images_are_cut_into_one_and_one(make, tmp_path):
    save({"train": [make("p", [], []), make("q", [], [])]}, tmp_path / "two", names=["x"])
    assert [len(load(tmp_path / "two", s)) for s in ("train", "val")] == [1, 1]
    save({"train": [make("p", [], [])]}, tmp_path / "one", names=["x"])
    with pytest.raises(ValueError, match="one image only"):
        load(tmp_path / "one", "train")


@pytest.mark.parametrize("format", FORMATS)
def test_names_given_remap_by_name(format, splits, tmp_path):
    save(splits, tmp_path / "out", format)
    train = load(tmp_path / "out", "train")
    turned = load(tmp_path / "out", "train", names=train.names[::-1])
    assert turned.class_map == {name: label for label, name in enumerate(train.names[::-1])}
    for i in range(len(train)):
        before = [train.names[k] for k in train.annotation(i).labels]
        assert [turned.names[k] for k in turned.annotation(i).labels] == before
    wider = load(tmp_path / "out", "train", names=["extra", *train.names])
    assert wider.annotation(0).labels.tolist() == (train.annotation(0).labels + 1).tolist()


@pytest.mark.parametrize(
    ("format", "where"),
    [
        ("coco", r"instances_val\.json: annotation 2 of image 2 \(v2, new\)"),
        ("voc", r"v2\.xml: object 1 \(new\)"),
        ("yolo", r"v2\.txt: line 1 \(new\)"),
    ],
)
def test_a_class_in_validation_only_is_an_error(format, where, make, tmp_path):
    names = ["old", "new"]
    val = [make("v1", [[1, 1, 4, 4]], [0]), make("v2", [[1, 1, 4, 4]], [1])]
    save({"train": [make("t", [[1, 1, 4, 4]], [0])], "val": val}, tmp_path / "out", format, names)
    with pytest.raises(ValueError, match=rf"{where}: class 'new' is not among .*\(old\)"):
        load(tmp_path / "out", "val", names=["old"])
    assert load(tmp_path / "out", "train", names=["old"]).names == ("old",)  # an unused name does no harm


@pytest.mark.parametrize("format", FORMATS)
def test_unknown_split(format, splits, tmp_path):
    save(splits, tmp_path / "out", format)
    with pytest.raises(ValueError, match=r"no split 'test'; there are train, val"):
        load(tmp_path / "out", "test")


def test_no_such_path_empty_folder_other_file(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: no such path"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no data set found.*COCO.*VOC.*YOLO") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="no data set found"):
            load(path)


@pytest.mark.parametrize("format", FORMATS)
def test_save_refuses_a_taken_path_and_takes_an_empty_one(format, splits, tmp_path):
    (tmp_path / "empty").mkdir()
    save(splits, tmp_path / "empty", format)
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "empty", next(p for p in before if p.is_file())):
        with pytest.raises(ValueError, match="not an empty folder"):
            save(splits, path, format)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_failing_save_leaves_nothing(format, make, tmp_path):
    def samples():
        yield make("a", [], [])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save({"train": samples()}, tmp_path / "out", format, names=["x"])
    assert os.listdir(tmp_path) == []


def test_save_argument_errors(splits, make, tmp_path):
    cases: list[tuple[dict, str, tuple, str]] = [
        (splits, "xml", (), r"format: is 'xml', must be 'coco', 'voc', 'yolo'"),
        ({}, "coco", (), "splits"),
        ({"a/b": splits["train"]}, "coco", (), "splits"),
        ({"train": [make("a", [], [])]}, "coco", (), "names: must be given"),
        ({"train": [make("a", [[1, 1, 4, 4]], [1])]}, "coco", (["x"],), r"sample a: labels must be 0\.\.0"),
        ({"train": [make("a", [], []), make("a", [], [])]}, "yolo", (["x"],), "'a' occurs twice"),
        ({"train": [make("a/b", [], [])]}, "yolo", (["x"],), "cannot be the name of a file"),
        ({"train": [make("a", [], [])], "val": [make("a", [], [])]}, "voc", (["x"],), "two splits"),
    ]
    for what, format, names, message in cases:
        with pytest.raises(ValueError, match=message):
            save(what, tmp_path / "out", format, *names)
    other = Dataset(["p"], [], [])
    with pytest.raises(ValueError, match=r"different names.*names=train\.names"):
        save({"train": splits["train"], "val": other}, tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", FORMATS)
def test_scenes_can_be_written_out(format, assert_same, tmp_path, monkeypatch):
    monkeypatch.setenv("DETLOSS_CACHE", str(tmp_path / "cache"))
    config = SceneConfig(train=6, val=3)
    drawn = {split: scenes(config, split) for split in ("train", "val")}
    save(drawn, tmp_path / "out", format)
    for split, data in drawn.items():
        assert_same(load(tmp_path / "out", split), data)


def break_image(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


def resize_image(file: Path) -> None:
    Image.open(file).resize((10, 20)).save(file)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [(break_image, "cannot be decoded"), (resize_image, "is 10×20 but annotated as 90×60")],
)
def test_damaged_images_are_named(format, damage: Callable[[Path], None], message, splits, tmp_path):
    save(splits, tmp_path / "out", format)
    file = next((tmp_path / "out").rglob("a.png"))
    data = load(tmp_path / "out", "train")
    damage(file)
    index = [data.annotation(i).id for i in range(len(data))].index("a")
    with pytest.raises(ValueError, match=rf"{re.escape(str(file))}.*{message}"):
        data[index]
    seen = []
    with pytest.raises(ValueError, match=message):
        data.check_images(lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, 4) for k in range(4)]


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_image_is_named(format, splits, tmp_path):
    save(splits, tmp_path / "out", format)
    next((tmp_path / "out").rglob("c.png")).unlink()
    where = {
        "coco": r"instances_train\.json: images\[3\]: image 'c\.png' is in none of",
        "voc": r"c\.xml: no image",
        "yolo": r"c\.txt: there",
    }
    with pytest.raises(ValueError, match=where[format]):
        load(tmp_path / "out", "train")


def test_bccd():
    path = Path(__file__).parents[3] / "../shared/data/bccd"
    if not path.is_dir():
        pytest.skip("the BCCD data set is not beside the checkout")
    train, val, test = (
        load(path, split, names=["RBC", "WBC", "Platelets"]) for split in ("train", "val", "test")
    )
    # Counted from the XML files: 364 images, 4888 objects, two of them of one pixel.
    assert [len(train), len(val), len(test)] == [205, 87, 72]
    total = {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    counts = [summary(d)["per_class"] for d in (train, val, test)]
    assert {name: sum(c[name] for c in counts) for name in total} == total
    assert [len(d.notes) for d in (train, val, test)] == [1, 1, 0]
    assert "BloodImage_00343.xml: object 4 (RBC)" in train.notes[0]
    assert "BloodImage_00338.xml: object 13 (RBC)" in val.notes[0]
    assert train[0].image.shape == (480, 640, 3)
