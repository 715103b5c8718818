import json

import numpy as np
import pytest
from PIL import Image

from detloss.lab.data import load
from detloss.lab.data.tree import Tree
from detloss.lab.data.yolo import Lists


@pytest.fixture
def write(tmp_path):
    def write(yaml="names: [cat, dog]\n", images="images/{}", labels="labels/{}"):
        (tmp_path / "data.yaml").write_text(yaml, "utf-8")
        for split in ("train", "val"):
            for folder in (images, labels):
                (tmp_path / folder.format(split)).mkdir(parents=True, exist_ok=True)
            for id in ("a", "b"):
                Image.new("RGB", (20, 10)).save(tmp_path / images.format(split) / f"{id}.jpg")
            (tmp_path / labels.format(split) / "b.txt").write_text("1 0.5 0.5 0.2 0.4\n\n0 .1 0.2 0.2 4e-1")
        return tmp_path

    return write


def test_fractions_become_pixels_and_no_file_is_no_object(write):
    data = load(write(), "val")
    assert data.names == ("cat", "dog")
    assert data.annotation(0).boxes.shape == (0, 4)
    boxes, labels, ignored, id = data.annotation(1)
    # centre (.5, .5) of 20 × 10 is (10, 5); .2 × .4 of it is 4 × 4.
    np.testing.assert_allclose(boxes, [[8, 3, 12, 7], [0, 0, 4, 4]], atol=1e-6)
    assert labels.tolist() == [1, 0]
    assert ignored.tolist() == [False, False]
    assert id == "b"


@pytest.mark.parametrize(
    ("yaml", "images", "labels"),
    [
        ("train: images/train\nval: images/val\n", "images/{}", "labels/{}"),
        ("path: ../elsewhere\ntrain: images/train\nval: images/val\n", "images/{}", "labels/{}"),
        ("path: .\ntrain: pics/train/images # 2\nval: pics/val/images\n", "pics/{}/images", "pics/{}/labels"),
        ("train: ../train/images\nval: ../val/images\nnc: 2\n", "{}/images", "{}/labels"),  # Roboflow's
        ("", "{}/images", "{}/labels"),
        ("train: train\nval: val\n", "{}", "{}"),
    ],
)
def test_usual_folder_shapes(write, yaml, images, labels):
    root = write(yaml + "names:\n  0: cat\n  1: dog\n", images, labels)
    for split in ("train", "val"):
        data = load(root, split)
        assert [len(data.annotation(i).labels) for i in range(len(data))] == [0, 2]
    assert len(load(root / "data.yaml", "val")) == 2


def test_valid_is_val(write):
    root = write()
    (root / "images/val").rename(root / "images/valid")
    (root / "labels/val").rename(root / "labels/valid")
    assert len(load(root, "val")) == len(load(root, "train")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .2", r"b\.txt: line 2: 4 values, must be 'class cx cy width height'"),
        ("0 .5 .5 .2 .2 .9", r"line 2: 6 values; the last looks like a confidence"),
        ("0 .5 .5 .2 .2 .9 .9 .9", r"line 2: 8 values, must be"),
        ("0.5 .5 .5 .2 .2", r"line 2: class 0\.5 is not in 0\.\.1"),
        ("cat .5 .5 .2 .2", r"line 2: 'cat \.5 \.5 \.2 \.2' is not five numbers"),
        ("2 .5 .5 .2 .2", r"line 2: class 2 is not in 0\.\.1"),
        ("-1 .5 .5 .2 .2", r"line 2: class -1 is not in 0\.\.1"),
        ("0 10 5 4 4", r"line 2: .*must be fractions"),
        ("0 1.2 .5 .2 .2", r"line 2 \(cat\): the box .* outside the 20×10 image"),
        ("0 .5 .5 -.2 .2", r"line 2 \(cat\): the box .* is inverted"),
        ("0 nan .5 .2 .2", r"line 2 \(cat\): the box .* is not finite"),
    ],
)
def test_errors_name_file_and_line(write, line, message):
    root = write()
    (root / "labels/train/b.txt").write_text(f"0 .5 .5 .2 .2\n{line}\n")
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_label_file_that_is_no_text(write):
    root = write()
    (root / "labels/train/b.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(ValueError, match=r"b\.txt: not a text file"):
        load(root)


def test_an_image_that_cannot_be_measured(write):
    root = write()
    (root / "images/train/b.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"b\.jpg: the image cannot be decoded"):
        load(root)


def test_no_images(write):
    root = write()
    for file in [*(root / "images/train").iterdir(), *(root / "labels/train").iterdir()]:
        file.unlink()
    with pytest.raises(ValueError, match=r"images/train: no images"):
        load(root)


NAMES = ("a b", "c: d", 'e "f"', "g's", "x, y", "h #1", "白")


@pytest.mark.parametrize(
    "text",
    [
        "names: [" + ", ".join(json.dumps(n, ensure_ascii=False) for n in NAMES) + "]",
        "names: ['a b', 'c: d', 'e \"f\"', 'g''s', 'x, y', 'h #1', 白]  # seven",
        "names:\n- a b\n- 'c: d'\n- e \"f\"\n- g's\n- x, y\n- 'h #1'\n- 白",
        "nc: 7\nnames:\n  0: a b\n  1: 'c: d'\n\n  # and\n  2: 'e \"f\"'\n"
        "  3: g's # a\n  4: x, y\n  5: 'h #1'\n  6: 白",
        "names: [a b, 'c: d', 'e \"f\"',\n  \"g's\", 'x, y',\n  'h #1', 白,]\nnc: 7",
        "names: {0: a b, 1: 'c: d', 2: 'e \"f\"', 3: \"g's\", 4: 'x, y', 5: 'h #1', 6: 白}",
    ],
)
def test_ways_to_write_names(text, tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(
        f"# a comment\n\ntrain: 'images/train'\n{text}\ndownload: |\n  import x\n  y: z\n", "utf-8"
    )
    (tmp_path / "images/train").mkdir(parents=True)
    lists = Lists(Tree(tmp_path), "data.yaml", Tree(tmp_path))
    assert lists.names == NAMES
    assert list(lists.lists) == ["train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "names: is missing"),
        ("names:\n", "names: is missing"),
        ("names: [a, b", "not valid YAML"),
        ("names: [a, [b]]", "must be a list of texts"),
        ("names: {0: a, 2: b}", "must be numbered 0, 1, 2"),
        ("names:\n  a: 0\n  b: 1", "must be numbered 0, 1, 2"),
        ("names:\n- [a]", "must be a list of texts"),
        ("names: |\n  a", "must be a list of texts"),
        ("names: [a, '']", "must be a list of texts"),
        ("names: [a, a]", "'a' is there more than once"),
        ("names: [a]\nnames: [b]", "'names' is there more than once"),
        ('names: ["a\\ab"]', "control characters in its name"),
        ("names: *a", "not valid YAML"),
        ("just text", "must hold 'key: value' lines"),
    ],
)
def test_names_that_cannot_be_read(text, message, tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"data\.yaml: .*{message}"):
        Lists(Tree(tmp_path), "data.yaml", Tree(tmp_path))


def test_no_yaml(tmp_path):
    with pytest.raises(ValueError, match=r"no such file"):
        Lists(Tree(tmp_path), "data.yaml", Tree(tmp_path))
