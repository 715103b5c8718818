import json
import re

import pytest
from PIL import Image

from detloss.lab.data import coco, find, load, save

TABLE = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 20, "height": 10},
        {"id": 3, "file_name": "b.jpg", "width": 20, "height": 10},
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 41, "name": "unused"}],
    "annotations": [
        {"id": 11, "image_id": 3, "category_id": 90, "bbox": [1, 2, 3.5, 4], "iscrowd": 1},
        {"id": 12, "image_id": 3, "category_id": 2, "bbox": [0, 0, 20, 10]},
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(table=TABLE, file="annotations/instances_train.json", images="images/train"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        (tmp_path / images).mkdir(parents=True, exist_ok=True)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (20, 10)).save(tmp_path / images / name)
        return tmp_path

    return write


def test_sparse_category_ids_become_labels_in_the_order_of_the_ids(write):
    data = load(write(file="x.json", images=".") / "x.json", "all")
    assert data.names == ("cat", "unused", "dog")
    assert data.annotation(0).id == "a"
    assert data.annotation(0).boxes.shape == (0, 4)
    boxes, labels, ignored, id = data.annotation(1)
    assert id == "b"
    assert boxes.tolist() == [[1, 2, 4.5, 6], [0, 0, 20, 10]]
    assert labels.tolist() == [2, 0]
    assert ignored.tolist() == [True, False]


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),  # as COCO unpacks
        ("annotations/instances_{}2017.json", "images/{}2017"),
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/{}.json", "images"),
        ("{}.json", "{}"),
        ("instances_{}.json", "."),
        ("{}/_annotations.coco.json", "{}"),  # Roboflow's
    ],
)
def test_usual_folder_shapes(write, file, images):
    for split in ("train", "val"):
        root = write(file=file.format(split), images=images.format(split))
    for split in ("train", "val"):
        data = load(root, split)
        assert len(data) == 2
        assert data[1].image.shape == (10, 20, 3)
        assert data.notes == ()


def test_other_json_files_are_passed_over(write):
    root = write()
    write(file="annotations/instances_val.json", images="images/val")
    (root / "annotations/captions_train2017.json").write_text("[]")
    (root / "package.json").write_text("[]")
    assert set(find(root).splits) == {"train", "val"}


def test_a_json_file_is_one_list_of_images(write):
    root = write()
    file = root / "annotations/instances_train.json"
    assert len(load(file, "all")) == 2
    train, val = load(file, "train"), load(file, "val")
    assert {train.annotation(0).id, val.annotation(0).id} == {"a", "b"}


def test_same_stem_in_two_folders(write):
    table = json.loads(json.dumps(TABLE).replace("b.jpg", "sub/a.jpg"))
    root = write(table)
    (root / "images/train/sub").mkdir()
    Image.new("RGB", (20, 10)).save(root / "images/train/sub/a.jpg")
    data = load(root / "annotations/instances_train.json", "all")
    assert [data.annotation(i).id for i in (0, 1)] == ["a.jpg", "sub_a.jpg"]


def test_area_and_ids_for_other_tools(make, tmp_path):
    save({"val": [make("a", [[1, 2, 4, 7]], [1])]}, tmp_path / "out", "coco", ["x", "y"])
    table = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert table["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 5], "area": 15, "iscrowd": 0}
    ]
    assert [c["id"] for c in table["categories"]] == [1, 2]


def test_pycocotools_reads_what_is_written(splits, tmp_path, capsys):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    save(splits, tmp_path / "out", "coco")
    table = COCO(str(tmp_path / "out/annotations/instances_train.json"))
    train = splits["train"]
    assert [c["name"] for c in table.loadCats(table.getCatIds())] == list(train.names)
    for i, image in enumerate(table.loadImgs(table.getImgIds())):
        rows = table.loadAnns(table.getAnnIds(imgIds=image["id"]))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
        assert boxes == train.annotation(i).boxes.tolist()


def changed(change):
    table = json.loads(json.dumps(TABLE))
    change(table)
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"images": [', r"instances_train\.json: not valid JSON \(Expecting value: line 1"),
        ([], r"has no list 'images'"),
        (changed(lambda t: t.pop("annotations")), r"has no list 'annotations'"),
        (changed(lambda t: t["annotations"][1].pop("bbox")), r"annotations\[1\] has no 'bbox'"),
        (changed(lambda t: t["images"][1].update(id=7)), r"images: id 7 occurs more than once"),
        (
            changed(lambda t: t["annotations"][0].update(image_id=99)),
            r"annotation 11 of image 99: there is no image",
        ),
        (
            changed(lambda t: t["annotations"][0].update(category_id=99)),
            r"annotation 11 .*no category of id 99",
        ),
        (
            changed(lambda t: t["annotations"][0].update(bbox=[1, 2, -3, 4])),
            r"annotation 11 .*\(b, dog\).*inverted",
        ),
        (
            changed(lambda t: t["annotations"][0].update(bbox=[30, 2, 3, 4])),
            r"annotation 11 .*outside the 20×10",
        ),
        (
            changed(lambda t: t["images"][0].update(file_name="no.jpg")),
            r"images\[0\]: image 'no\.jpg' is in none of",
        ),
        (changed(lambda t: t.update(images=[], annotations=[])), r"no images"),
        ("[" * 10**6, r"instances_train\.json: not valid JSON"),
        ('{"images": ' + "9" * 5000 + "}", r"instances_train\.json: not valid JSON"),
        (changed(lambda t: t["images"].append(5)), r"images\[2\] has no 'id'"),
        (
            changed(lambda t: t["images"][1].update(file_name="a.jpg")),
            r"images: file_name 'a\.jpg' occurs more",
        ),
        (
            changed(lambda t: t["annotations"][0].update(image_id="3")),
            r"annotation 11 of image 3: there is no image of id '3'",
        ),
    ],
)
def test_errors_name_file_and_object(write, table, message):
    file = write(table) / "annotations/instances_train.json"
    with pytest.raises(ValueError, match=message) as caught:
        load(file, "all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "field", "values", "must"),
    [
        ("images", "id", [None, [7], {}, True, 1.5, float("nan")], "a whole number or a text"),
        ("images", "file_name", [5, None, "", " ", ["a.jpg"]], "a text that is not empty"),
        ("images", "width", ["abc", "20", -1, 20.5, True, [20], 2**31], "a whole number of pixels"),
        ("images", "height", ["abc", float("inf"), 10**400], "a whole number of pixels, at least 1"),
        ("categories", "id", ["x", None, [2], {}, False], "a whole number"),
        ("categories", "name", [None, "", 5, ["cat"]], "a text that is not empty"),
        ("annotations", "image_id", [None, [3], {"id": 3}], "a whole number or a text"),
        ("annotations", "category_id", [None, [90], {}, "90"], "a whole number"),
        (
            "annotations",
            "bbox",
            ["1234", [1, 2, 3], [1, 2, 3, 4, 5], None, 5, {"x": 1}, []],
            "[x, y, width, height]",
        ),
        (
            "annotations",
            "bbox",
            [["1", 2, 3, 4], [1, None, 3, 4], [1, 2, 3, True], [1, 2, 3, float("nan")], [10**400, 2, 3, 4]],
            "[x, y, width, height], four finite numbers",
        ),
        ("annotations", "iscrowd", ["0", "false", 2, [], [0]], "0 or 1"),
    ],
)
def test_a_field_of_another_type(write, kind, field, values, must):
    root = write()
    for value in values:
        write(changed(lambda t, value=value: t[kind][1].update({field: value})))
        file = root / "annotations/instances_train.json"
        start = re.escape(f"{file}: {kind}[1].{field} is ")
        with pytest.raises(ValueError, match=f"^{start}.*, must be {re.escape(must)}") as caught:
            load(file, "all")
        message = str(caught.value)
        assert len(message) < len(str(file)) + 250
        assert "\n" not in message


@pytest.mark.parametrize("names", [None, ("cat", "unused", "dog")])
def test_two_categories_of_one_name(write, names):
    root = write(changed(lambda t: t["categories"][0].update(name="cat")))
    with pytest.raises(
        ValueError, match=r"instances_train\.json: categories: name 'cat' occurs more than once"
    ):
        load(root / "annotations/instances_train.json", "all", names)


def test_whole_floats_texts_as_image_ids_and_true_for_1_are_read(write):
    table = changed(lambda t: t["images"][1].update(id="b", width=20.0, height=10.0))
    for annotation in table["annotations"]:
        annotation.pop("id")
        annotation.update(image_id="b", category_id=float(annotation["category_id"]))
    table["annotations"][0]["iscrowd"] = True
    data = load(write(table) / "annotations/instances_train.json", "all")
    boxes, labels, ignored, _ = data.annotation(1)
    assert data.size(1) == (10, 20)
    assert boxes.tolist() == [[1, 2, 4.5, 6], [0, 0, 20, 10]]
    assert labels.tolist() == [2, 0]
    assert ignored.tolist() == [True, False]


def test_a_list_of_images_where_they_lie(splits, tmp_path, assert_same):
    coco.list_images(splits["train"], tmp_path / "drawn.json")
    drawn = load(tmp_path / "drawn.json", "all")
    assert_same(drawn, splits["train"])
    assert {drawn.file(i).parent for i in range(len(drawn))} == {tmp_path / "drawn"}
    part = drawn.select([3, 0])
    coco.list_images(part, tmp_path / "part.json")
    assert_same(load(tmp_path / "part.json", "all"), part)
    assert not (tmp_path / "part").exists()  # nothing was copied
    table = json.loads((tmp_path / "part.json").read_text())
    assert [(i["id"], i["file_name"]) for i in table["images"]] == [
        (1, str(tmp_path / "drawn" / "c.png")),
        (2, str(tmp_path / "drawn" / "a.png")),
    ]
    assert [(a["image_id"], a["category_id"]) for a in table["annotations"]] == [
        (1, 2),
        (1, 2),
        (1, 1),
        (2, 1),
        (2, 4),
    ]
