"""Data sets as the common tools lay them out: each is found, with every image and every object."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detloss.lab.data import find, load
from detloss.lab.data.lists import word_of

SIZE = (120, 80)
BOXES = {"cat": (20, 10, 60, 50), "dog": (70, 30, 110, 70)}
IDS = [f"im{i}" for i in range(6)]


def picture(file: Path, number: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (number, 50, 90)).save(file)


def text(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def coco(file: Path, ids=IDS, name: str = "{}.png", **changes) -> None:
    images = [
        {"id": k, "file_name": name.format(id), "width": SIZE[0], "height": SIZE[1]}
        for k, id in enumerate(ids)
    ]
    annotations = [
        {"id": 2 * k + c, "image_id": k, "category_id": c + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for k in range(len(ids))
        for c, (x1, y1, x2, y2) in enumerate(BOXES.values())
    ]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(BOXES)]
    text(
        file,
        json.dumps({"images": images, "annotations": annotations, "categories": categories} | changes),
    )


def voc(file: Path, image: str = "") -> None:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in BOXES.items()
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    text(file, f"<annotation><filename>{image or file.stem}.png</filename>{size}{objects}</annotation>")


def yolo(file: Path) -> None:
    rows = []
    for c, (x1, y1, x2, y2) in enumerate(BOXES.values()):
        values = ((x1 + x2) / 2 / 120, (y1 + y2) / 2 / 80, (x2 - x1) / 120, (y2 - y1) / 80)
        rows.append(f"{c} {' '.join(f'{value:.9f}' for value in values)}")
    text(file, *rows)


def labelme(file: Path) -> None:
    shapes = [
        {"label": name, "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle", "flags": {}}
        for name, (x1, y1, x2, y2) in BOXES.items()
    ]
    table = {"version": "5.0", "flags": {}, "shapes": shapes, "imagePath": f"{file.stem}.png"}
    text(file, json.dumps(table | {"imageData": None, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}))


LAYOUTS: dict[str, Callable[[Path], None]] = {}
"""A function that lays out one list of IDS, or train of im0 to im3 and another list of the rest."""


def layout(function: Callable[[Path], None]) -> Callable[[Path], None]:
    LAYOUTS[function.__name__] = function
    return function


def halves(*names: str):
    return zip(names, (IDS[:4], IDS[4:]))


@layout
def coco_of_roboflow(root: Path) -> None:
    for split, ids in halves("train", "valid"):
        coco(root / split / "_annotations.coco.json", ids)
        for id in ids:
            picture(root / split / f"{id}.png")
    text(root / "README.roboflow.txt", "exported")


@layout
def voc_of_roboflow(root: Path) -> None:
    for split, ids in halves("train", "valid"):
        for id in ids:
            voc(root / split / f"{id}.xml")
            picture(root / split / f"{id}.png")
    text(root / "README.dataset.txt", "im0 im1")


@layout
def yolo_of_roboflow(root: Path) -> None:
    for split, ids in halves("train", "valid"):
        for id in ids:
            yolo(root / split / "labels" / f"{id}.txt")
            picture(root / split / "images" / f"{id}.png")
    text(root / "data.yaml", "train: ../train/images", "val: ../valid/images", "test: ../test/images",
         "nc: 2", "names: ['cat', 'dog']", "roboflow:", "  version: 1", "  url: https://a.b/c")  # fmt: skip
    (root / "test/images").mkdir(parents=True)
    text(root / "README.roboflow.txt", "exported")


@layout
def labelimg_flat(root: Path) -> None:
    for id in IDS:
        voc(root / f"{id}.xml")
        picture(root / f"{id}.png")


@layout
def labelimg_flat_yolo(root: Path) -> None:
    for id in IDS:
        yolo(root / f"{id}.txt")
        picture(root / f"{id}.png")
    text(root / "classes.txt", *BOXES)


@layout
def coco_of_cvat(root: Path) -> None:
    coco(root / "annotations/instances_default.json")
    for id in IDS:
        picture(root / "images" / f"{id}.png")


@layout
def coco_of_cvat_with_subsets(root: Path) -> None:
    coco(root / "annotations/instances_default.json", name="sub/{}.png")
    for id in IDS:
        picture(root / "images/default/sub" / f"{id}.png")


@layout
def voc_of_cvat(root: Path) -> None:
    for id in IDS:
        voc(root / "Annotations" / f"{id}.xml")
        picture(root / "JPEGImages" / f"{id}.png")
    text(root / "ImageSets/Main/default.txt", *IDS)
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", "cat:128,0,0::", "dog:0,128,0::")


@layout
def voc_of_cvat_in_folders(root: Path) -> None:
    for id in IDS:
        voc(root / "Annotations/a b" / f"{id}.xml")
        picture(root / "JPEGImages/a b" / f"{id}.png")
    text(root / "ImageSets/Main/default.txt", *(f"a b/{id}" for id in IDS))
    text(root / "ImageSets/Main/cat_default.txt", *(f"a b/{id}  1" for id in IDS))


@layout
def yolo_of_cvat(root: Path) -> None:
    for id in IDS:
        yolo(root / "obj_train_data" / f"{id}.txt")
        picture(root / "obj_train_data" / f"{id}.png")
    text(root / "train.txt", *(f"data/obj_train_data/{id}.png" for id in IDS))
    text(root / "obj.names", *BOXES)
    text(
        root / "obj.data",
        "classes = 2",
        "train = data/train.txt",
        "names = data/obj.names",
        "backup = backup/",
    )


@layout
def ultralytics_of_cvat(root: Path) -> None:
    for id in IDS:
        yolo(root / "labels/train" / f"{id}.txt")
        picture(root / "images/train" / f"{id}.png")
    text(root / "train.txt", *(f"data/images/train/{id}.png" for id in IDS))
    text(root / "data.yaml", "names:", "  0: cat", "  1: dog", "path: .", "train: train.txt")


@layout
def coco_of_label_studio(root: Path) -> None:
    coco(root / "result.json", name="images\\{}.png")
    for id in IDS:
        picture(root / "images" / f"{id}.png")


@layout
def coco_of_label_studio_on_a_server(root: Path) -> None:
    coco(root / "result.json", name="../../label-studio/data/media/upload/1/{}.png")
    for id in IDS:
        picture(root / "images" / f"{id}.png")


@layout
def yolo_of_label_studio(root: Path) -> None:
    for id in IDS:
        yolo(root / "labels" / f"{id}.txt")
        picture(root / "images" / f"{id}.png")
    text(root / "classes.txt", *BOXES)
    text(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}))


@layout
def coco_of_fiftyone(root: Path) -> None:
    coco(root / "labels.json")
    for id in IDS:
        picture(root / "data" / f"{id}.png")


@layout
def voc_of_fiftyone(root: Path) -> None:
    for id in IDS:
        voc(root / "labels" / f"{id}.xml")
        picture(root / "data" / f"{id}.png")


@layout
def yolo_of_fiftyone(root: Path) -> None:
    for split, ids in halves("train", "val"):
        for id in ids:
            yolo(root / "labels" / split / f"{id}.txt")
            picture(root / "images" / split / f"{id}.png")
    text(root / "dataset.yaml", "names:", "  0: cat", "  1: dog", "path: /home/me/export",
         "train: ./images/train/", "val: ./images/val/")  # fmt: skip


@layout
def yolov4_of_fiftyone(root: Path) -> None:
    for id in IDS:
        yolo(root / "data" / f"{id}.txt")
        picture(root / "data" / f"{id}.png")
    text(root / "obj.names", *BOXES)
    text(root / "images.txt", *(f"data/{id}.png" for id in IDS))


@layout
def own_format_of_datumaro(root: Path) -> None:
    for split, ids in halves("train", "val"):
        items = [
            {
                "id": id,
                "annotations": [
                    {
                        "id": 0,
                        "type": "bbox",
                        "label_id": c,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "attributes": {},
                    }
                    for c, (x1, y1, x2, y2) in enumerate(BOXES.values())
                ],
                "image": {"path": f"{id}.png", "size": [SIZE[1], SIZE[0]]},
            }
            for id in ids
        ]
        labels = {"label": {"labels": [{"name": name, "parent": ""} for name in BOXES], "attributes": []}}
        text(
            root / f"annotations/{split}.json", json.dumps({"info": {}, "categories": labels, "items": items})
        )
        for id in ids:
            picture(root / "images" / split / f"{id}.png")


@layout
def voc_devkit_from_above(root: Path) -> None:
    year = root / "data/VOCdevkit/VOC2012"
    for id in IDS:
        voc(year / "Annotations" / f"{id}.xml")
        picture(year / "JPEGImages" / f"{id}.png")
        picture(year / "SegmentationClass" / f"{id}.png")
    text(year / "ImageSets/Main/train.txt", *IDS[:4])
    text(year / "ImageSets/Main/val.txt", *IDS[4:])
    text(year / "ImageSets/Main/trainval.txt", *IDS)
    text(year / "ImageSets/Main/cat_train.txt", *(f"{id}  1" for id in IDS[:4]))
    text(year / "ImageSets/Segmentation/train.txt", *IDS[:1])


@layout
def lists_outside_of_main(root: Path) -> None:
    for id in IDS:
        voc(root / "Annotations" / f"{id}.xml")
        picture(root / "JPEGImages" / f"{id}.png")
    text(root / "ImageSets/train.txt", *IDS[:4])
    text(root / "ImageSets/val.txt", *IDS[4:])


@layout
def lists_beside_the_annotations(root: Path) -> None:
    for id in IDS:
        voc(root / "annotations/xmls" / f"{id}.xml")
        picture(root / "images" / f"{id}.png")
    text(root / "annotations/train.txt", *(f"{id} 1 1 1" for id in IDS[:4]))
    text(root / "annotations/val.txt", *(f"{id} 1 1 1" for id in IDS[4:]))


@layout
def raccoon(root: Path) -> None:
    for id in IDS:
        voc(root / "annotations" / f"{id}.xml")
        picture(root / "images" / f"{id}.png")
    text(root / "data/train_labels.csv", "filename,width,height", "im0.png,120,80")


@layout
def kangaroo(root: Path) -> None:
    for id in IDS:
        voc(root / "annots" / f"{id}.xml")
        picture(root / "images" / f"{id}.png")
    text(root / "README.md", "# im0")


@layout
def annotations_in_several_folders(root: Path) -> None:
    for id, folder in zip(IDS, "aabbcc"):
        voc(root / folder / f"{id}.xml")
        picture(root / folder / f"{id}.png")


@layout
def darknet(root: Path) -> None:
    for split, ids in halves("train", "valid"):
        for id in ids:
            yolo(root / "obj" / f"{id}.txt")
            picture(root / "obj" / f"{id}.png")
        text(root / f"{split}.txt", *(f"obj/{id}.png" for id in ids))
    text(root / "voc.names", *BOXES)
    text(root / "voc.data", "classes=2", "train = train.txt", "valid=valid.txt", "names = voc.names")


@layout
def coco_yaml_of_ultralytics(root: Path) -> None:
    for split, ids in halves("train2017", "val2017"):
        for id in ids:
            yolo(root / "labels" / split / f"{id}.txt")
            picture(root / "images" / split / f"{id}.png")
        text(root / f"{split}.txt", *(f"./images/{split}/{id}.png" for id in ids))
    text(root / "coco.yaml", "# COCO", "path: ../datasets/coco  # root", "train: train2017.txt # 4 images",
         "val: val2017.txt", "", "names:", "  0: cat", "  1: dog", "download: |", "  import x")  # fmt: skip


@layout
def yolo_in_folders_below(root: Path) -> None:
    for split, ids in halves("train", "val"):
        for k, id in enumerate(ids):
            yolo(root / "labels" / split / f"part{k % 2}" / f"{id}.txt")
            picture(root / "images" / split / f"part{k % 2}" / f"{id}.png")
    text(root / "data.yaml", "train: images/train", "val: images/val", "names: [cat, dog]")


@layout
def yolo_without_yaml_by_folder(root: Path) -> None:
    for split, ids in halves("train", "test"):
        for id in ids:
            yolo(root / split / "labels" / f"{id}.txt")
            picture(root / split / "images" / f"{id}.png")
    text(root / "classes.txt", *BOXES)


@layout
def labels_in_capitals(root: Path) -> None:
    for split, ids in halves("train", "val"):
        for id in ids:
            yolo(root / "Labels" / split / f"{id}.TXT")
            picture(root / "Images" / split / f"{id}.PNG")
    text(root / "data.yaml", "train: Images/train", "val: Images/val", "names: [cat, dog]")


@layout
def labelme_flat(root: Path) -> None:
    for id in IDS:
        labelme(root / f"{id}.json")
        picture(root / f"{id}.png")


@layout
def labelme_by_split(root: Path) -> None:
    for split, ids in halves("train", "val"):
        for id in ids:
            labelme(root / split / "json" / f"{id}.json")
            picture(root / split / "img" / f"{id}.png")


@layout
def coco_with_names_of_its_own(root: Path) -> None:
    for split, ids in halves("train", "val"):
        coco(root / f"annotations/cats_{split}2024.json", ids)
    for id in IDS:
        picture(root / "pictures" / f"{id}.png")
    text(root / "package.json", "{}")
    text(
        root / "annotations/captions_train2024.json", '{"images": [], "annotations": [{"caption": "a cat"}]}'
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_image_and_object_is_found(name, tmp_path):
    root = tmp_path / "set"
    LAYOUTS[name](root)
    for junk in ("._im0.xml", ".DS_Store", "__MACOSX/train/._im0.png", "Thumbs.db"):
        text(root / junk, "no data")
    found = find(root)
    whole = found.load("all-splits")
    assert sorted(whole.annotation(i).id for i in range(6)) == IDS
    assert len(whole) == 6
    assert sorted(whole.names) == ["cat", "dog"]
    for i in range(6):
        boxes, labels, ignored, _ = whole.annotation(i)
        order = np.argsort(labels) if whole.names == ("cat", "dog") else np.argsort(-labels)
        np.testing.assert_allclose(boxes[order], list(BOXES.values()), atol=1e-4)
        assert not ignored.any()
        assert whole[i].image.shape == (SIZE[1], SIZE[0], 3)
        assert whole.file(i).parent.name != "SegmentationClass"
    train = found.load("train")
    if not any(word_of(one) == "val" for one in found.splits):
        val = found.load("val")
        assert "no validation split" in train.notes[0]
    else:
        assert sorted(train.annotation(i).id for i in range(len(train))) == IDS[:4]
        val = found.load("val", train.names)
    ids = {data.annotation(i).id for data in (train, val) for i in range(len(data))}
    assert ids == set(IDS) or "test" in found.splits


def test_a_named_file_is_read_in_place_of_a_search(tmp_path):
    coco_of_cvat(tmp_path)
    yolo_of_cvat(tmp_path)
    with pytest.raises(ValueError, match=r"several data sets: COCO .*; YOLO \(obj\.data\)"):
        load(tmp_path)
    assert len(load(tmp_path / "annotations/instances_default.json", "all")) == 6
    assert find(tmp_path / "obj.data").format == "yolo"
    assert len(load(tmp_path, "all", annotations="annotations")) == 6


def test_two_years_of_the_devkit_are_named(tmp_path):
    voc_devkit_from_above(tmp_path)
    (tmp_path / "data/VOCdevkit/VOC2012").rename(tmp_path / "VOC2007")
    voc_devkit_from_above(tmp_path)
    year = "VOC2007/ImageSets/Main"
    with pytest.raises(ValueError, match=rf"'train' may be {year}/train, data/VOCdevkit/VOC2012/"):
        load(tmp_path)
    assert len(load(tmp_path, f"{year}/train")) == 4
    assert len(load(tmp_path / "VOC2007")) == 4
    named = [f"train={year}/train.txt", f"train={year}/val.txt", f"val={year}/val.txt"]
    assert len(load(tmp_path, splits=named)) == 6


def test_images_and_annotations_anywhere(tmp_path):
    for id in IDS:
        voc(tmp_path / "a/xml" / f"{id}.xml")
        yolo(tmp_path / "c" / f"{id}.txt")
        picture(tmp_path / "b/pics/deep" / f"{id}.png")
        labelme(tmp_path / "d" / f"{id}.json")
    coco(tmp_path / "e.json")
    text(tmp_path / "c/classes.txt", *BOXES)
    for annotations in ("a/xml", "c", "d", "e.json"):
        for path in (tmp_path, tmp_path / annotations):
            where = {"images": tmp_path / "b/pics", "annotations": tmp_path / annotations}
            data = load(path, "all", **where)
            assert len(data) == 6, annotations
            assert len(data.annotation(5).labels) == 2
    with pytest.raises(ValueError, match=r"images: no/such is neither in .* nor here"):
        load(tmp_path, images="no/such")


def test_what_is_not_found_says_what_was_looked_for_and_what_is_there(tmp_path):
    text(tmp_path / "table.csv", "a,b")
    picture(tmp_path / "photos/a.png")
    with pytest.raises(
        ValueError, match=r"COCO.*VOC.*labelme.*YOLO.*photos/, table\.csv \(1 \.png, 1 \.csv\)"
    ):
        load(tmp_path)
    yolo(tmp_path / "photos/a.txt")
    with pytest.raises(
        ValueError, match=r"label files \(photos/a\.txt\) but no names of classes.*classes\.txt"
    ):
        load(tmp_path)


def test_large_files_of_others_do_not_hinder(tmp_path):
    coco_of_cvat(tmp_path)
    for name in ("weights.data", "tracks.xml", "log.yaml", "log.json"):
        with (tmp_path / name).open("wb") as opened:
            opened.truncate(2**30)  # takes no room on the disk
    assert len(load(tmp_path, "all")) == 6
