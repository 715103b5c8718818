import numpy as np
import pytest
from PIL import Image

from detloss.lab.data import load, save

XML = """<annotation><filename>photo.png</filename><size><width>20</width><height>10</height></size>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>
<object><name>cat</name><bndbox><ymin>3</ymin><xmin>2</xmin><ymax>5.5</ymax><xmax>7</xmax></bndbox></object>
</annotation>"""


@pytest.fixture
def root(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for id in ("a", "b", "c"):
        (tmp_path / "Annotations" / f"{id}.xml").write_text(XML)
        Image.new("RGB", (20, 10)).save(tmp_path / "JPEGImages" / f"{id}.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\n")
    return tmp_path


def test_corners_count_from_one_and_include_both_ends(root):
    data = load(root)
    assert data.names == ("cat", "dog")
    boxes, labels, ignored, id = data.annotation(0)
    # xmin 1, xmax 20 of a 20 px image is all of it: 0 to 20.
    assert boxes.tolist() == [[0, 0, 20, 10], [1, 2, 7, 5.5]]
    assert labels.tolist() == [1, 0]
    assert ignored.tolist() == [True, False]
    assert id == "a"


def test_corners_are_written_as_they_were_read(root, tmp_path):
    save({"train": load(root)}, tmp_path / "out", "voc")
    text = (tmp_path / "out/Annotations/a.xml").read_text()
    assert "<xmin>1</xmin>" in text
    assert "<xmax>20</xmax>" in text
    assert "<ymax>5.5</ymax>" in text
    assert (tmp_path / "out/classes.txt").read_text() == "cat\ndog\n"


def test_classes_file_gives_names_and_their_order(root):
    (root / "classes.txt").write_text("dog\nbird\n\ncat\n")
    assert load(root).names == ("dog", "bird", "cat")
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(ValueError, match=r"a\.xml: object 2 \(cat\): class 'cat' is not among"):
        load(root)


def test_names_of_both_parts_of_a_split_by_hash(root, edit):
    (root / "ImageSets/Main/val.txt").unlink()
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    edit(root / "Annotations/c.xml", "cat", "rare")
    assert load(root, "train").names == load(root, "val").names == ("cat", "dog", "rare")


def test_lists_of_single_classes_are_no_splits(root):
    (root / "ImageSets/Main/dog_train.txt").write_text("a  1\nb -1\n")
    with pytest.raises(ValueError, match=r"no split 'dog_train'; there are train, val"):
        load(root, "dog_train")


def test_without_image_sets_it_is_split_by_hash(root):
    for file in (root / "ImageSets/Main").iterdir():
        file.unlink()
    parts = [load(root, split) for split in ("train", "val")]
    assert sorted(a.id for d in parts for a in map(d.annotation, range(len(d)))) == ["a", "b", "c"]
    assert len(load(root, "all")) == 3


def test_image_named_in_the_xml_and_size_left_out(root, edit):
    (root / "JPEGImages/c.jpg").unlink()
    Image.new("L", (20, 10), 7).save(root / "JPEGImages/photo.png")
    edit(root / "Annotations/c.xml", "<size><width>20</width><height>10</height></size>", "")
    data = load(root, "val")
    assert data.size(0) == (10, 20)
    np.testing.assert_array_equal(data[0].image, np.full((10, 20, 3), 7))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", r"a\.xml: not valid XML \(no element found: line"),
        ("<xmin>1</xmin>", "", r"a\.xml: object 1 \(dog\): bndbox/xmin is None, must be a number"),
        ("<xmin>1</xmin>", "<xmin>one</xmin>", r"a\.xml: object 1 \(dog\): bndbox/xmin is 'one'"),
        ("<name>cat</name>", "", r"a\.xml: object 2 has no <name>"),
        ("<name>cat</name>", "<name> </name>", r"a\.xml: object 2 has no <name>"),
        *(
            (
                "<difficult>1<",
                f"<difficult>{flag}<",
                rf"a\.xml: object 1 \(dog\): difficult is '{flag}', must be 0, 1 or left out",
            )
            for flag in ("False", "no", "true", "2", "-1", "0.0")
        ),
        ("<width>20</width>", "<width>wide</width>", r"a\.xml: size: width and height must be whole numbers"),
        ("<xmax>7</xmax>", "<xmax>70</xmax>", r"object 2 \(cat\): the box .* outside the 20×10 image"),
        ("<xmax>7</xmax>", "<xmax>nan</xmax>", r"object 2 \(cat\): the box .* is not finite"),
        ("<xmax>7</xmax>", "<xmax>0</xmax>", r"object 2 \(cat\): the box .* is inverted"),
    ],
)
def test_errors_name_file_and_object(root, edit, old, new, message):
    edit(root / "Annotations/a.xml", old, new)
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("element", "ignored"),
    [
        ("<difficult>0</difficult>", False),
        ("<difficult> 1 </difficult>", True),
        ("<difficult/>", False),
        ("<difficult> </difficult>", False),
        ("", False),
    ],
)
def test_ways_to_say_difficult(root, edit, element, ignored):
    edit(root / "Annotations/a.xml", "<difficult>1</difficult>", element)
    assert load(root).annotation(0).ignored.tolist() == [ignored, False]


def test_listed_but_not_annotated(root):
    (root / "ImageSets/Main/train.txt").write_text("a\nghost\n")
    with pytest.raises(ValueError, match=r"ghost\.xml: no such annotation"):
        load(root)
