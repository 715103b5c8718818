"""What is read is what is named; what is wrong is said, all of it; nothing outside the folder is opened."""

import codecs
import json
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from detloss.lab.data import DataError, Dataset, find, load, save, shared_images
from detloss.lab.data.text import read_json, read_text, read_xml


def ids(data: Dataset) -> list[str]:
    return sorted(data.annotation(i).id for i in range(len(data)))


def picture(file: Path, size=(20, 10), shade: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, 9)).save(file)
    return file


def text(file: Path, content: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode(encoding))
    return file


def yolo_set(root: Path, yaml: str, **folders: str) -> Path:
    """Folders of images and their labels: a="images/train" is one image a.png there."""
    text(root / "data.yaml", f"names: [cat, dog]\n{yaml}")
    for shade, (id, folder) in enumerate(folders.items()):
        picture(root / folder / f"{id}.png", shade=shade)
        text(root / folder.replace("images", "labels") / f"{id}.txt", "0 .5 .5 .5 .5\n")
    return root


def voc_set(root: Path, *names: str, object: str = "") -> Path:
    corners = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for id in names:
        picture(root / f"JPEGImages/{id}.png")
        own = object or f"<object><name>cat</name>{corners}</object>"
        size = "<size><width>20</width><height>10</height></size>"
        text(root / f"Annotations/{id}.xml", f"<annotation>{size}{own}</annotation>")
    return root


def coco_table(**changes) -> dict:
    return {
        "images": [
            {"id": k, "file_name": f"{id}.png", "width": 20, "height": 10} for k, id in enumerate("ab")
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 8, 7], "iscrowd": 0} for k in range(2)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    } | changes


def coco_set(root: Path, **changes) -> Path:
    for id in "ab":
        picture(root / f"images/{id}.png")
    text(root / "annotations/instances_all.json", json.dumps(coco_table(**changes)))
    return root


class TestWhatIsNamed:
    FOLDERS: ClassVar = dict(zip("abcd", ["images/train", "images/train", "images/more", "images/val"]))

    @pytest.mark.parametrize(
        ("entry", "wanted"),
        [
            ("images/train", "ab"),
            ("[images/train, images/more]", "abc"),
            ("\n- images/train\n- images/more", "abc"),
            ("images", "abcd"),
            ("list.txt", "ad"),
            ("[list.txt, images/more]", "acd"),
            ("images/train/a.png", "a"),
            ("/somewhere/else/images/more", "c"),
        ],
    )
    def test_an_entry_of_data_yaml(self, tmp_path, entry, wanted):
        root = yolo_set(tmp_path, f"train: {entry}\nval: images/val", **self.FOLDERS)
        text(root / "list.txt", "./images/train/a.png\nimages/val/d.png\n\n")
        data = load(root)
        assert ids(data) == list(wanted)
        assert all(len(data.annotation(i).labels) == 1 for i in range(len(data)))
        guessed = "is not there; read is images/more" in " ".join(data.notes)
        assert guessed == entry.startswith("/")

    def test_a_split_that_data_yaml_does_not_name_is_said(self, tmp_path):
        root = yolo_set(tmp_path, "val: images/val", **self.FOLDERS)
        (root / "images/valid").mkdir()
        found = find(root)
        assert found.splits == ["val", "train"]
        assert ids(found.load("train")) == ["a", "b"]
        assert found.load("train").notes == (f"{root}/data.yaml: names no 'train'; read is images/train",)

    def test_labels_of_two_images_are_asked_for(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", **self.FOLDERS)
        Image.open(root / "images/train/a.png").save(root / "images/train/a.jpg")
        with pytest.raises(DataError, match=r"a\.png: a\.jpg has the same labels, .*a\.txt"):
            load(root)
        assert len(load(root, lenient=True)) == 2

    def test_a_number_of_classes_that_is_another(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val\nnc: 3", **self.FOLDERS)
        with pytest.raises(ValueError, match=r"data\.yaml: says 3 classes, and names has 2"):
            load(root)

    @pytest.mark.parametrize("entry", ["images/nowhere", "[images/train, nowhere.txt]", "{a: b}"])
    def test_an_entry_that_is_not_there_is_an_error(self, tmp_path, entry):
        root = yolo_set(tmp_path, f"train: {entry}\nval: images/val", **self.FOLDERS)
        with pytest.raises(ValueError, match=r"data\.yaml: train: "):
            load(root)

    def test_an_image_named_again_is_read_once_and_said(self, tmp_path):
        root = yolo_set(tmp_path, "train: [images/train, list.txt]\nval: images/val", **self.FOLDERS)
        text(root / "list.txt", "images/train/a.png\nimages/more/c.png\nimages/more/c.png\n")
        data = load(root)
        assert ids(data) == list("abc")
        assert "2 images are named again and read once (list 'train')" in data.notes

    def test_an_entry_of_a_list_that_is_not_there(self, tmp_path):
        root = yolo_set(tmp_path, "train: list.txt\nval: images/val", **self.FOLDERS)
        text(root / "list.txt", "images/train/a.png\nimages/train/ghost.png\n")
        with pytest.raises(DataError, match=r"list\.txt: entry 2: 'images/train/ghost\.png' is not there"):
            load(root)
        data = load(root, lenient=True)
        assert ids(data) == ["a"]
        assert any(note.startswith("image that is not there ×1: left out") for note in data.notes)

    def test_folders_below_are_read_and_images_of_one_name_stay_apart(self, tmp_path):
        folders = {"a": "images/train/x", "b": "images/train/y/z", "v": "images/val"}
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", **folders)
        picture(root / "images/train/y/a.png")
        text(root / "labels/train/y/a.txt", "1 .5 .5 .2 .2\n1 .2 .2 .2 .2")
        data = load(root)
        counts = {data.annotation(i).id: len(data.annotation(i).labels) for i in range(3)}
        assert counts == {
            "images_train_x_a.png": 1,
            "images_train_y_a.png": 2,
            "images_train_y_z_b.png": 1,
        }

    @pytest.mark.parametrize(
        ("splits", "wanted"),
        [
            (["train=instances_fold1.json"], "a"),
            (["train=fold1", "train=fold2"], "ab"),
            (["train=annotations/instances_fold1.json", "train=annotations/instances_fold2.json"], "ab"),
        ],
    )
    def test_splits_say_what_is_read(self, tmp_path, splits, wanted):
        for k, id in enumerate("abc"):
            picture(tmp_path / f"images/{id}.png")
            table = coco_table(images=[{"id": 0, "file_name": f"{id}.png"}])
            table["annotations"].pop()
            folder = tmp_path if wanted == "a" else tmp_path / "annotations"
            text(folder / f"instances_fold{k + 1}.json", json.dumps(table))
        with pytest.raises(ValueError, match="'fold' may be fold1, fold2, fold3"):
            load(tmp_path, "fold")
        data = load(tmp_path, "train", splits=[*splits, "val=fold3"])
        assert ids(data) == list(wanted)
        assert ids(load(tmp_path, "val", splits=[*splits, "val=fold3"])) == ["c"]
        assert any("have no size there; it is read from the images" in note for note in data.notes)

    @pytest.mark.parametrize(
        "lines", ["a\n", "a.png\n", "images/a.png\n", "./images/a.png\r\n", "/home/me/a.png\n"]
    )
    def test_a_list_of_images_of_one_annotation_file(self, tmp_path, lines):
        root = coco_set(tmp_path)
        text(root / "first.txt", lines)
        (root / "images/two").mkdir()
        (root / "images/b.png").rename(root / "images/two/b.png")
        splits = ["train=first.txt", "val=images/two"]
        assert ids(load(root, splits=splits)) == ["a"]
        assert ids(load(root, "val", splits=splits)) == ["b"]
        text(root / "first.txt", lines + "ghost\n")
        with pytest.raises(DataError, match=r"first\.txt: entry 2 \(ghost\): no such image"):
            load(root, splits=splits)

    @pytest.mark.parametrize(
        "split", ["all", "instances_all", "instances_all.json", "annotations/instances_all.json"]
    )
    def test_a_list_is_named_as_its_file(self, tmp_path, split):
        assert len(load(coco_set(tmp_path), split)) == 2

    def test_splits_are_seen_from_the_data_folder_or_from_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(coco_set(tmp_path / "set").parent)
        for path in ("annotations/instances_all.json", "set/annotations/instances_all.json"):
            assert len(load("set", "x", splits=[f"x={path}"])) == 2

    def test_splits_of_the_other_formats(self, tmp_path):
        voc = voc_set(tmp_path / "voc", *"abc")
        text(voc / "mine/first.txt", "a\nb\n")
        assert ids(load(voc, splits=["train=mine/first.txt", "val=mine/first.txt"])) == ["a", "b"]
        assert ids(load(voc, "x", splits=["x=JPEGImages"])) == list("abc")
        yolo = yolo_set(tmp_path / "yolo", "train: images/train\nval: images/val", **self.FOLDERS)
        text(yolo / "mine.txt", "images/train/b.png\n")
        assert ids(load(yolo, splits=["train=mine.txt"])) == ["b"]
        assert ids(load(yolo, splits=["train=images/more", "train=mine.txt"])) == ["b", "c"]

    @pytest.mark.parametrize(
        ("word", "message"),
        [("train", "must be NAME=PATH"), ("=x", "must be NAME=PATH"), ("train=no", "no such file or folder")],
    )
    def test_splits_that_are_wrong(self, tmp_path, word, message):
        with pytest.raises(ValueError, match=f"splits: .*{message}"):
            load(voc_set(tmp_path, "a"), splits=[word])

    def test_shared_images_are_said_by_file_and_by_content(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", **self.FOLDERS)
        train, val = load(root, "train"), load(root, "val")
        assert shared_images(train, val) is None
        assert "all 2 validation images are training images" in (shared_images(train, train) or "")
        (root / "images/val/copy.png").write_bytes((root / "images/train/b.png").read_bytes())
        text(root / "labels/val/copy.txt", "")
        assert "1 of 2 validation images" in (shared_images(train, load(root, "val")) or "")

    def test_an_object_twice_is_read_once_and_said(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", a="images/train", b="images/val")
        text(root / "labels/train/a.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n0 .5 .5 .5 .5\n0 .4 .5 .5 .5\n")
        data = load(root)
        assert data.annotation(0).labels.tolist() == [0, 1, 0]
        (note,) = data.notes
        assert note.startswith("1 object twice in an image, read once (first: ")
        assert note.endswith("a.txt: line 3 (cat))")


class TestLabelsOfYolo:
    def images(self, root: Path, labels: str, content: str = "0 .5 .5 .5 .5") -> Path:
        text(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/val\n")
        for split in ("train", "val"):
            picture(root / f"images/{split}/a.png")
            text(root / labels.format(split) / "a.txt", content)
        return root

    @pytest.mark.parametrize("folder", ["labels/{}", "Labels/{}", "label/{}", "images/{}"])
    def test_spellings_of_the_folder(self, tmp_path, folder):
        assert len(load(self.images(tmp_path, folder)).annotation(0).labels) == 1

    def test_labels_that_are_nowhere_are_an_error_that_says_where_it_looked(self, tmp_path):
        root = self.images(tmp_path, "elsewhere/{}")
        message = (
            r"images/train: none of the images has a label file; looked in .*labels/train \(no such folder\)"
        )
        with pytest.raises(ValueError, match=message):
            load(root)
        data = load(root, lenient=True)
        assert len(data.annotation(0).labels) == 0
        assert any(note.startswith("no labels ×1: read as images without objects") for note in data.notes)

    def test_images_without_a_label_file_are_counted(self, tmp_path):
        root = self.images(tmp_path, "labels/{}")
        picture(root / "images/train/empty.png")
        assert "1 of 2 images have no label file: images without objects" in load(root).notes

    @pytest.mark.parametrize(
        ("rows", "box", "note"),
        [
            ("0 .1 .2 .5 .2 .5 .8 .3 .9", (2, 2, 10, 9), "oriented boxes"),
            ("1 .1 .2 .5 .2 .5 .8", (2, 2, 10, 8), "polygons"),
            ("0.0 0.3 0.5 0.4 0.6", (2, 2, 10, 8), ""),
            ("imagesource:x\ngsd:1\n2 2 10 2 10 8 2 8 dog 0", (2, 2, 10, 8), "oriented boxes"),
        ],
    )
    def test_rows_other_than_five_numbers(self, tmp_path, rows, box, note):
        data = load(self.images(tmp_path, "labels/{}", rows))
        np.testing.assert_allclose(data.annotation(0).boxes, [box], atol=1e-5)
        assert [note in one for one in data.notes] == [True] * bool(note)

    def test_key_points_are_no_polygon(self, tmp_path):
        root = self.images(tmp_path, "labels/{}", "0 .3 .5 .4 .6 .1 .1 2 .9 .9 2")
        text(root / "data.yaml", "names: [cat]\nkpt_shape: [2, 3]\ntrain: images/train\nval: images/val\n")
        data = load(root)
        np.testing.assert_allclose(data.annotation(0).boxes, [(2, 2, 10, 8)], atol=1e-5)

    def test_a_readme_among_labels_is_no_label_file(self, tmp_path):
        root = self.images(tmp_path, "labels/{}")
        text(root / "labels/train/README.txt", "These are the labels.")
        text(root / "labels/train/classes.txt", "cat\ndog")
        assert len(load(root)) == 1


class TestLenient:
    BOX = "<bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"

    def bad(self, root: Path) -> Path:
        """One set with a problem of nearly every kind, and one image that is as it should be."""
        voc_set(root, *"abcdefgh")
        odd = {
            "a": "<object><name>cat</name>" + self.BOX.format(9, 2) + "</object>",
            "b": "<object><name>cat</name>" + self.BOX.format(90, 99) + "</object>",
            "c": "<object><name>cat</name><difficult>maybe</difficult>" + self.BOX.format(2, 9) + "</object>",
        }
        for id, object in odd.items():
            file = root / f"Annotations/{id}.xml"
            file.write_text(f"<annotation>{object}</annotation>")
        text(root / "Annotations/d.xml", "<annotation><object>")
        (root / "JPEGImages/e.png").unlink()
        (root / "JPEGImages/f.png").write_bytes(b"<html>404</html>")
        picture(root / "JPEGImages/g.png", (21, 11))
        picture(root / "JPEGImages/h.png", (40, 20))
        return voc_set(root, "z")

    KINDS = (
        "inverted box",
        "box outside its image",
        "wrong flag",
        "annotation that cannot be read",
        "image that is not there",
        "image that cannot be decoded",
        "image of another size",
    )

    def test_everything_wrong_is_found_in_one_pass(self, tmp_path):
        root = self.bad(tmp_path)
        dataset, problems = find(root).check("all")
        assert {kind: problems.counts[kind] for kind in self.KINDS} == dict.fromkeys(self.KINDS, 1) | {
            "image of another size": 2
        }
        assert len(problems) == 8
        assert dataset is not None
        assert ids(dataset) == ["a", "b", "c", "g", "z"]
        for problem in problems.listed:
            assert Path(problem.file).is_relative_to(root)
            assert "\n" not in str(problem)

    def test_strict_names_them_lenient_goes_on(self, tmp_path):
        root = self.bad(tmp_path)
        with pytest.raises(DataError, match=r"\d problems: .*\(first: .*and \d more kinds") as caught:
            load(root, "all")
        assert "\n" not in str(caught.value)
        data = load(root, "all", lenient=True)
        assert ids(data) == ["a", "b", "c", "g", "z"]
        assert data.annotation(0).boxes.tolist() == [[1, 1, 9, 9]]  # 9 to 2 is 2 to 9, from 1 and inclusive
        assert [len(data.annotation(i).labels) for i in range(5)] == [1, 0, 1, 1, 1]
        assert data.size(3) == (11, 21)
        said = " ".join(data.notes)
        assert all(kind in said for kind in self.KINDS)
        data.check_images()

    def test_a_photograph_that_lacks_its_last_bytes(self, tmp_path):
        root = voc_set(tmp_path, "a", "b")
        rng = np.random.default_rng(0)
        file = root / "JPEGImages/a.jpg"
        (root / "JPEGImages/a.png").unlink()
        Image.fromarray(rng.integers(0, 256, (10, 20, 3), np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:-60])
        data = load(root, "all")
        with pytest.raises(DataError, match=r"a\.jpg: the image cannot be decoded"):
            data.check_images()
        data = load(root, "all", lenient=True)
        data.check_images()
        assert data[0].image.shape == (10, 20, 3)
        assert find(root).check("all")[1].counts == {"image that cannot be decoded": 1}

    @pytest.mark.parametrize(
        ("changes", "objects", "kind"),
        [
            ({"iscrowd": 5}, 2, "wrong flag"),
            ({"bbox": "none"}, 1, "wrong value"),
            ({"bbox": [8, 9, -7, -7]}, 2, "inverted box"),
            ({"bbox": [1, 2, 1e308, 1e308]}, 1, "box outside its image"),
            ({"category_id": 9}, 1, "wrong value"),
            ({"image_id": 9}, 1, "wrong value"),
        ],
    )
    def test_objects_of_coco(self, tmp_path, changes, objects, kind):
        table = coco_table()
        table["annotations"][1] |= changes
        root = coco_set(tmp_path, **table)
        with pytest.raises(DataError, match=r"instances_all\.json: "):
            load(root, "all")
        data = load(root, "all", lenient=True)
        assert sum(len(data.annotation(i).labels) for i in range(2)) == objects
        assert any(note.startswith(f"{kind} ×1: ") for note in data.notes)

    def test_a_row_with_a_confidence(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", a="images/train", b="images/val")
        text(root / "labels/train/a.txt", "0 .5 .5 .5 .5 .97\n0 .5 .5\n")
        with pytest.raises(DataError, match=r"a confidence, of saved predictions"):
            load(root)
        data = load(root, lenient=True)
        assert len(data.annotation(0).labels) == 1


class TestCoco:
    def test_a_root_category_of_the_same_name(self, tmp_path):
        categories = [
            {"id": 0, "name": "cat", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "cat"},
        ]
        data = load(coco_set(tmp_path, categories=categories), "all")
        assert data.names == ("cat",)
        assert data.annotation(0).labels.tolist() == [0]
        assert data.notes == ("category 'cat' (id 0) is above others only: left out",)

    def test_a_category_that_is_above_others_and_has_objects_stays(self, tmp_path):
        categories = [
            {"id": 1, "name": "animal", "supercategory": "none"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
        ]
        data = load(coco_set(tmp_path, categories=categories), "all")
        assert data.names == ("animal", "cat")
        assert data.notes == ()

    def test_null_is_no_value_and_ids_of_annotations_are_not_used(self, tmp_path):
        table = coco_table()
        for row in table["annotations"]:
            row |= {"iscrowd": None, "id": 7}
        data = load(coco_set(tmp_path, **table), "all")
        assert not data.annotation(0).ignored.any()
        assert any("1 ids of annotations are there again" in note for note in data.notes)

    def test_polygons_in_place_of_boxes(self, tmp_path):
        table = coco_table()
        table["annotations"][0]["bbox"] = []
        table["annotations"][0]["segmentation"] = [[1, 2, 9, 2, 9, 8], [3, 1, 4, 1, 4, 2]]
        data = load(coco_set(tmp_path, **table), "all")
        assert data.annotation(0).boxes.tolist() == [[1, 1, 9, 8]]
        assert any("1 objects have no box" in note for note in data.notes)

    def test_images_of_one_name_in_two_folders_are_an_error(self, tmp_path):
        root = coco_set(tmp_path)
        (root / "images/a.png").unlink()
        picture(root / "x/a.png")
        picture(root / "y/a.png")
        with pytest.raises(DataError, match=r"several images are named 'a\.png': x/a\.png, y/a\.png"):
            load(root, "all")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_every_text_of_a_data_set(self, tmp_path, encoding):
        voc = voc_set(tmp_path / "voc", "a", "b")
        for id in "ab":
            file = voc / f"Annotations/{id}.xml"
            text(file, file.read_text().replace("cat", "猫"), encoding)
        text(voc / "ImageSets/Main/all.txt", "a\nb\n", encoding)
        text(voc / "classes.txt", "猫\n犬\n", encoding)
        data = load(voc, "all")
        assert (data.names, ids(data)) == (("猫", "犬"), ["a", "b"])
        yolo = yolo_set(tmp_path / "yolo", "", a="images/train", b="images/val")
        text(yolo / "data.yaml", "names: [猫, 犬]\ntrain: list.txt\nval: images/val\n", encoding)
        text(yolo / "list.txt", "images/train/a.png\r\n", encoding)
        text(yolo / "labels/train/a.txt", "1 .5 .5 .5 .5\r\n", encoding)
        data = load(yolo)
        assert (data.names, data.annotation(0).labels.tolist()) == (("猫", "犬"), [1])
        coco = coco_set(tmp_path / "coco")
        table = json.dumps(coco_table(categories=[{"id": 1, "name": "猫"}]), ensure_ascii=False)
        text(coco / "annotations/instances_all.json", table, encoding)
        assert load(coco, "all").names == ("猫",)

    @pytest.mark.parametrize(
        "encoding", ["gb2312", "GBK", "gb18030", "big5", "shift_jis", "euc-kr", "iso-8859-1"]
    )
    def test_declared_encodings_of_xml(self, tmp_path, encoding):
        name = "caf\xe9" if encoding == "iso-8859-1" else "犬"
        if encoding == "euc-kr":
            name = "개"
        content = f'<?xml version="1.0" encoding="{encoding}"?><annotation><a>{name}</a></annotation>'
        assert read_xml(text(tmp_path / "a.xml", content, encoding)).findtext("a") == name

    @pytest.mark.parametrize("encoding", ["no-such", "punycode", "hex", "zip"])
    def test_declared_encodings_that_are_none(self, tmp_path, encoding):
        file = text(tmp_path / "a.xml", f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
        with pytest.raises(ValueError, match=r"a\.xml: "):
            read_xml(file)

    def test_utf_16_without_a_mark(self, tmp_path):
        for encoding in ("utf-16-le", "utf-16-be"):
            assert read_text(text(tmp_path / "a.txt", "0 .5 .5 .5 .5\n", encoding)) == "0 .5 .5 .5 .5\n"

    def test_other_bytes_are_an_error_that_names_the_file(self, tmp_path):
        for start in (b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE):
            (tmp_path / "a.txt").write_bytes(start + b"\xff\xd8\xff")
            with pytest.raises(ValueError, match=r"a\.txt: not a text file in UTF-.*save it as UTF-8"):
                read_text(tmp_path / "a.txt")

    @pytest.mark.parametrize(
        ("written", "name"),
        [(r'"caf\xE9"', "café"), (r'"\u732B"', "猫"), ("no", "no"), ("007", "007"), ("$5 $x$", "$5 $x$"),
         ("null", "null"), ("1.50", "1.50"), ("2024-01-01", "2024-01-01"), ("'it''s'", "it's")],
    )  # fmt: skip
    def test_names_in_yaml(self, tmp_path, written, name, make):
        root = yolo_set(tmp_path / "a", "", a="images/train", b="images/val")
        text(root / "data.yaml", f"names: [{written}, dog]\ntrain: images/train\nval: images/val\n")
        data = load(root)
        assert data.names == (name, "dog")
        for format in ("coco", "voc", "yolo"):
            save({"train": data, "val": load(root, "val")}, tmp_path / format, format)
            again = load(tmp_path / format, names=data.names)
            assert again.annotation(0).labels.tolist() == [0]

    def test_control_characters_in_names_are_refused(self, tmp_path, make):
        coco = coco_set(tmp_path / "a", categories=[{"id": 1, "name": "c\x1bat"}])
        with pytest.raises(ValueError, match=r"instances_all\.json: .*without control characters"):
            load(coco, "all")
        yolo = yolo_set(tmp_path / "b", "", a="images/train", b="images/val")
        text(yolo / "data.yaml", 'names: ["c\\eat"]\ntrain: images/train\nval: images/val\n')
        with pytest.raises(ValueError, match=r"data\.yaml: class .* has control characters"):
            load(yolo)
        with pytest.raises(ValueError, match="control characters"):
            save({"train": [make("a", [], [])]}, tmp_path / "c", names=["a\nb"])
        with pytest.raises(ValueError, match="cannot be the name of a file"):
            save({"train": [make("a\nb", [], [])]}, tmp_path / "c", names=["a"])


class TestHostile:
    @pytest.mark.parametrize("how", ["absolute", "above", "link", "folder link"])
    def test_images_outside_the_folder(self, tmp_path, how):
        outside = picture(tmp_path / "private/a.png")
        root = coco_set(tmp_path / "set")
        (root / "images/a.png").unlink()
        name = {"absolute": str(outside), "above": "../private/a.png"}.get(how, "a.png")
        if how == "link":
            (root / "images/a.png").symlink_to(outside)
        if how == "folder link":
            (root / "images/b.png").rename(outside.parent / "b.png")
            (root / "images").rmdir()
            (root / "images").symlink_to(outside.parent)
        table = coco_table()
        table["images"][0]["file_name"] = name
        text(root / "annotations/instances_all.json", json.dumps(table))
        with pytest.raises(DataError, match=r"out(side)? (of )?the data folder; allow_outside reads it"):
            load(root, "all")
        data = load(root, "all", allow_outside=True)
        assert data.file(0).resolve() == outside.resolve()

    def test_entries_of_data_yaml_outside_the_folder(self, tmp_path):
        yolo_set(tmp_path / "other", "", a="images/train", b="images/val")
        root = yolo_set(tmp_path / "set", "", c="images/val")
        for entry in ("../other/images/train", str(tmp_path / "other/images/train")):
            text(root / "data.yaml", f"names: [cat]\ntrain: {entry}\nval: images/val\n")
            with pytest.raises(
                ValueError, match=r"data\.yaml: train: .*outside the data folder.*allow_outside"
            ):
                load(root)
            data = load(root, allow_outside=True)
            assert ids(data) == ["a"]
            assert len(data.annotation(0).labels) == 1

    def test_which_of_two_is_meant_is_asked(self, tmp_path):
        yolo_set(tmp_path, "", a="train/images")
        root = yolo_set(tmp_path / "set", "train: ../train/images\nval: train/images", b="train/images")
        with pytest.raises(ValueError, match=r"outside the data folder; train/images in the data folder is"):
            load(root)

    @pytest.mark.parametrize("target", ["/dev/zero", "fifo"])
    @pytest.mark.parametrize("name", ["JPEGImages/b.png", "Annotations/b.xml", "classes.txt"])
    def test_devices_and_pipes_are_not_opened(self, tmp_path, target, name):
        root = voc_set(tmp_path, "a", "b")
        (root / name).unlink(missing_ok=True)
        if target == "fifo":
            os.mkfifo(root / name)
        else:
            (root / name).symlink_to(target)
        if name == "classes.txt":
            assert load(root, "all").names == ("cat",)
            return
        if name.endswith("xml"):
            data = load(root, "all")
            assert ids(data) == ["a"]
            assert "1 images have no annotation" in data.notes[0]
            return
        with pytest.raises(DataError, match=r"b\.xml: no image b\.jpg.*b\.png is "):
            load(root, "all")

    @pytest.mark.parametrize(
        "content",
        [
            '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation>&d;</annotation>',
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            '<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation>&b;</annotation>',
        ],
    )
    def test_entities_are_refused(self, tmp_path, content):
        root = voc_set(tmp_path, "a", "b")
        text(root / "Annotations/b.xml", content)
        with pytest.raises(DataError, match=r"b\.xml: not valid XML"):
            load(root, "all")

    @pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "[1e999999]]"])
    def test_json_of_absurd_depth(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
            read_json(text(tmp_path / "a.json", content))

    def test_files_of_absurd_size_are_not_read(self, tmp_path):
        file = tmp_path / "a.json"
        with file.open("wb") as opened:
            opened.truncate(5 * 2**30)  # takes no room on the disk
        with pytest.raises(ValueError, match=r"a\.json: has 5,120 MiB, and such a file may have 4,096"):
            read_json(file)

    @pytest.mark.parametrize("yaml", ["[" * 50_000, "a: &a [*a]", "names: &a [*a]", "- 1"])
    def test_yaml_that_is_none(self, tmp_path, yaml):
        root = yolo_set(tmp_path, "", a="images/train")
        text(root / "data.yaml", yaml)
        with pytest.raises(ValueError, match=r"data\.yaml: "):
            load(root)

    def test_an_image_too_large_to_decode(self, tmp_path):
        root = voc_set(tmp_path, "a", "b")
        small = (root / "JPEGImages/b.png").read_bytes()
        header = small[12:16] + (60_000).to_bytes(4) * 2 + small[24:29]
        crc = __import__("zlib").crc32(header).to_bytes(4)
        (root / "JPEGImages/b.png").write_bytes(small[:12] + header + crc + small[33:])
        assert find(root).check("all")[1].counts["image that cannot be decoded"] == 1

    def test_a_program_in_place_of_an_image_is_not_run(self, tmp_path):
        root = voc_set(tmp_path, "a", "b")
        (root / "JPEGImages/b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n")
        with pytest.raises(DataError, match=r"b\.png: the image cannot be decoded"):
            load(root, "all").check_images()

    def test_links_in_circles_end(self, tmp_path):
        root = voc_set(tmp_path, "a", "b")
        (root / "Annotations/self").symlink_to(root)
        (root / "loop").symlink_to(root / "loop")
        assert ids(load(root, "all")) == ["a", "b"]


class TestNames:
    def test_accents_as_macos_writes_them(self, tmp_path):
        import unicodedata

        root = coco_set(tmp_path)
        (root / "images/a.png").rename(root / "images" / unicodedata.normalize("NFD", "café.png"))
        table = coco_table()
        table["images"][0]["file_name"] = unicodedata.normalize("NFC", "café.png")
        text(root / "annotations/instances_all.json", json.dumps(table))
        assert load(root, "all")[0].image.shape == (10, 20, 3)

    def test_files_that_are_not_opened_are_said(self, tmp_path):
        root = yolo_set(tmp_path, "train: images/train\nval: images/val", a="images/train", b="images/val")
        picture(root / "images/train/c\x1b.png")
        (note,) = load(root).notes
        assert note.startswith(
            "1 of the files and folders are not opened (first: images/train/c\ufffd.png has"
        )

    @pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
    def test_a_folder_that_is_a_link_out(self, tmp_path, folder):
        root = voc_set(tmp_path / "set", "a", "b")
        (root / folder).rename(tmp_path / "elsewhere")
        (root / folder).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=rf"{folder} is a link out of the data folder; allow_outside"):
            load(root, "all")
        assert len(load(root, "all", allow_outside=True)) == 2

    def test_very_many_classes_take_no_longer_than_their_number(self, tmp_path):
        categories = [{"id": k, "name": f"c{k}", "supercategory": "x"} for k in range(40_000)]
        data = load(coco_set(tmp_path, categories=categories), "all-splits")
        assert len(data.names) == 40_000
