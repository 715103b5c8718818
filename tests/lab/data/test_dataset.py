import re

import numpy as np
import pytest

from detloss.lab.data import (
    Annotation,
    Dataset,
    Sample,
    SceneConfig,
    fingerprint,
    load,
    save,
    scenes,
    summary,
)


@pytest.fixture
def data(splits):
    return splits["train"]


def test_is_a_sequence_of_samples(data):
    assert len(data) == 4
    assert [s.id for s in data] == ["a", "empty", "köln 1.2", "c"]
    for i, sample in enumerate(data):
        for found, wanted in zip(
            data.annotation(i), (sample.boxes, sample.labels, sample.ignored, sample.id)
        ):
            assert np.array_equal(found, wanted)
    assert data.size(2) == (33, 47)
    assert data.file(0) is None
    with pytest.raises(IndexError):
        data[4]


def test_class_map(data):
    assert [data.class_map[name] for name in data.names] == [0, 1, 2, 3]


def test_select_keeps_names_notes_and_images(data):
    data.notes = ("said",)
    chosen = data.select([3, 0, 0])
    assert (chosen.names, chosen.notes) == (data.names, ("said",))
    assert [s.id for s in chosen] == ["c", "a", "a"]
    for sample, i in zip(chosen, (3, 0, 0)):
        np.testing.assert_array_equal(sample.image, data[i].image)
    again = chosen.select(np.array([1]))
    np.testing.assert_array_equal(again[0].image, data[0].image)
    assert again.size(0) == data.size(0)
    assert len(data) == 4


def test_without_ignored(make):
    sample = make("a", [[0, 0, 4, 4], [1, 1, 3, 3]], [0, 1], [True, False])
    data = Dataset("xy", [sample.annotation], [sample.image])
    boxes, labels, ignored, _ = data.without_ignored().annotation(0)
    assert (boxes.tolist(), labels.tolist(), ignored.tolist()) == ([[1, 1, 3, 3]], [1], [False])
    assert len(data.annotation(0).labels) == 2


def test_summary(make, data):
    assert summary(data) == {
        "images": 4,
        "empty": 1,
        "objects": 6,
        "ignored": 0,
        "per_class": dict(zip(data.names, (2, 2, 1, 1))),
    }
    sample = make("a", [[0, 0, 4, 4]], [1], [True])
    assert summary(Dataset("xy", [sample.annotation], [sample.image])) == {
        "images": 1,
        "empty": 1,
        "objects": 0,
        "ignored": 1,
        "per_class": {"x": 0, "y": 0},
    }


def annotation(id, label=0):
    return Annotation(np.zeros((1, 4), np.float32), np.array([label]), np.zeros(1, bool), id)


@pytest.mark.parametrize(
    ("names", "annotations", "count", "message"),
    [
        ("aba", [], 0, "class name 'a' occurs more than once"),
        ("ab", [annotation("p"), annotation("p")], 2, "id 'p' occurs more than once"),
        ("ab", [annotation("p", 2)], 1, r"sample p: label 2 is not in 0\.\.1"),
        ("ab", [annotation("p", -1)], 1, r"sample p: label -1 is not in"),
        ("ab", [annotation("p")], 2, "images: 2 for 1 annotations"),
    ],
)
def test_construction_errors(names, annotations, count, message):
    with pytest.raises(ValueError, match=message):
        Dataset(names, annotations, [np.zeros((2, 2, 3), np.uint8)] * count)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((5, 5), np.uint8)},
        {"image": np.zeros((5, 5, 3), np.float32)},
        {"boxes": np.zeros((1, 4), np.float32)},
        {"boxes": np.zeros(8, np.float32)},
        {"ignored": np.zeros(3, bool)},
    ],
)
def test_samples_that_do_not_fit(make, change):
    good = make("s", [[0, 0, 1, 1]] * 2, [0, 0])
    fields = {k: getattr(good, k) for k in ("image", "boxes", "labels", "id", "ignored")}
    with pytest.raises(ValueError, match="sample s: "):
        Sample(**(fields | change))


def test_fingerprint_is_of_all_images_whatever_their_order_and_split(tmp_path):
    whole = scenes(SceneConfig(train=6, val=1, size=32, object_size=(8, 16)), "train")
    save({"train": whole.select([0, 1, 2, 3]), "val": whole.select([4, 5])}, tmp_path / "voc", "voc")
    train, val = load(tmp_path / "voc"), load(tmp_path / "voc", "val")
    known = fingerprint(train, val)
    assert fingerprint(val, train.select([3, 1]), train.select([0, 2])) == known
    assert fingerprint(train) != known
    assert fingerprint(train.select([0]), train, val) != known
    annotations, images = zip(*((whole.annotation(i), whole[i].image) for i in range(6)))
    assert fingerprint(Dataset(whole.names, annotations, images)) == fingerprint(whole)
    assert fingerprint(Dataset([f"other {n}" for n in whole.names], annotations, images)) != fingerprint(
        whole
    )


def test_fingerprint_sees_another_box_and_another_image(tmp_path):
    whole = scenes(SceneConfig(train=4, val=1, size=32, object_size=(8, 16), empty=0), "train")
    save({"train": whole.select([0, 1]), "val": whole.select([2, 3])}, tmp_path / "voc", "voc")
    known = fingerprint(load(tmp_path / "voc"))
    file = load(tmp_path / "voc").file(0)
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    assert fingerprint(load(tmp_path / "voc")) != known
    file.write_bytes(content)
    assert fingerprint(load(tmp_path / "voc")) == known
    truth = next((tmp_path / "voc/Annotations").glob(f"{file.stem}.xml"))
    truth.write_text(re.sub(r"<xmin>(\d+)", lambda m: f"<xmin>{int(m[1]) + 1}", truth.read_text(), count=1))
    assert fingerprint(load(tmp_path / "voc")) != known
