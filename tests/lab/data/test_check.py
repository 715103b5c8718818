import hashlib
import re

import numpy as np
import pytest

from detloss.lab.data.check import check_boxes
from detloss.lab.data.lists import by_folder, choose_split, part_of, word_of
from detloss.lab.data.problems import Problems


def run(*boxes, size=(50, 100), problems=None):
    found, keep, notes = check_boxes(
        np.array(boxes, float).reshape(-1, 4),
        np.tile(np.array(size, float), (len(boxes), 1)),
        lambda i: ("f.xml", f"object {i + 1}"),
        Problems() if problems is None else problems,
    )
    return found[keep].tolist(), keep.tolist(), notes


def test_boxes_within_the_image_are_untouched():
    assert run([0, 0, 100, 50], [99, 49, 100, 50.5]) == ([[0, 0, 100, 50], [99, 49, 100, 50]], [True, True], [
        "1 box clipped to the image (first: f.xml: object 2)"
    ])  # fmt: skip
    assert run() == ([], [], [])


def test_sticking_out_by_up_to_half_is_clipped_and_counted():
    boxes, keep, notes = run([-10, 5, 10, 15], [90, 10, 110, 20], [-0.001, 0, 9, 9], [80, 40, 101, 51])
    np.testing.assert_allclose(boxes, [[0, 5, 10, 15], [90, 10, 100, 20], [0, 0, 9, 9], [80, 40, 100, 50]])
    assert keep == [True] * 4
    assert notes == [
        "3 boxes clipped to the image (first: f.xml: object 1)"
    ]  # a thousandth of a pixel is rounding


def test_a_box_of_one_pixel_or_none_is_left_out_and_counted():
    boxes, keep, notes = run([4, 4, 5, 5], [7, 7, 7, 20], [3, 3, 4, 4.5], [-1, -1, 0, 0])
    assert keep == [False, False, True, False]
    assert boxes == [[3, 3, 4, 4.5]]
    assert notes == ["3 boxes of at most one pixel left out (first: f.xml: object 1)"]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([-11, 5, 9, 15], "outside the 100×50 image"),
        ([100, 5, 120, 15], "outside"),
        ([200, 5, 200, 15], "outside"),
        ([10, 60, 20, 70], "outside"),
        ([-9, -9, 10, 10], "outside"),  # a little more than half in each direction, a quarter in both
        ([20, 5, 10, 15], "inverted"),
        ([10, 15, 20, 14.5], "inverted"),
        ([0, 0, np.inf, 10], "not finite"),
        ([np.nan, 0, 10, 10], "not finite"),
    ],
)
def test_boxes_that_are_problems(box, message):
    problems = Problems()
    boxes, _, notes = run([0, 0, 10, 10], box, problems=problems)
    (problem,) = problems.listed
    assert re.match(rf"f\.xml: object 2: the box \(x .*, y .* px\) .*{message}", str(problem))
    # An inverted box is repaired where reading is lenient; the others are left out.
    x1, y1, x2, y2 = box
    turned = [[0, 0, 10, 10], [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]]
    assert boxes == (turned if message == "inverted" else [[0, 0, 10, 10]])
    assert notes == []


@pytest.mark.parametrize(
    ("split", "shipped", "wanted"),
    [
        ("train", {"train", "val", "test"}, ("train", None)),
        ("val", {"train", "val"}, ("val", None)),
        ("val", {"train", "valid"}, ("valid", None)),
        ("valid", {"train", "valid"}, ("valid", None)),
        ("train", {"train", "valid"}, ("train", None)),
        ("train", {"train"}, ("train", "train")),
        ("val", {"train", "test"}, ("train", "val")),
        ("test", {"train", "test"}, ("test", None)),
        ("val", {"trainval", "test"}, ("trainval", "val")),
        ("train", {"trainval", "test"}, ("trainval", "train")),
        ("trainval", {"train", "trainval", "val"}, ("trainval", None)),
        ("val", {"all"}, ("all", "val")),
        ("all", {"all"}, ("all", None)),
        ("all", {"default"}, ("default", None)),
        ("train", {"default"}, ("default", "train")),
        ("val", {"labels"}, ("labels", "val")),
        ("train", {"train2017", "val2017"}, ("train2017", None)),
        ("train2014", {"train2014", "train2017", "val"}, ("train2014", None)),
        ("validation", {"train", "val2017"}, ("val2017", None)),
        ("train", {"coco_train", "coco_val"}, ("coco_train", None)),
        ("fold1", {"fold1", "fold2"}, ("fold1", None)),
        ("train", {"train", "val2014", "val2017"}, ("train", None)),
    ],
)
def test_choose_split(split, shipped, wanted):
    *found, notes = choose_split(split, shipped, "here")
    assert tuple(found) == wanted
    assert len(notes) == (wanted[1] is not None)


@pytest.mark.parametrize(
    ("split", "shipped"), [("val", {"test"}), ("train", {"val"}), ("test", {"all"}), ("x", set())]
)
def test_splits_that_cannot_be_made(split, shipped):
    with pytest.raises(ValueError, match=rf"here: no split '{split}'; there are"):
        choose_split(split, shipped, "here")


@pytest.mark.parametrize(
    ("split", "shipped", "named"),
    [
        ("train", {"train0", "train1", "val"}, "train0, train1"),
        ("val", {"train", "val2014", "val2017"}, "val2014, val2017"),
        ("fold", {"fold1", "fold2"}, "fold1, fold2"),
        ("train", {"a/train", "b/train"}, "a/train, b/train"),
    ],
)
def test_several_lists_that_may_be_meant_are_an_error_that_names_them(split, shipped, named):
    with pytest.raises(ValueError, match=f"may be {named}; name one of them"):
        choose_split(split, shipped, "here")


def test_lists_that_mean_nothing_are_an_error_that_names_them():
    with pytest.raises(ValueError, match=r"no split 'train'; there are task1, task2; .*train=PATH"):
        choose_split("train", {"task1", "task2"}, "here")


@pytest.mark.parametrize(
    ("name", "word"),
    [("train", "train"), ("train2017", "train"), ("instances_Validation", "val"), ("valid", "val"),
     ("testing", "test"), ("trainval", None), ("train_val", None), ("strain", None), ("im0", None)],
)  # fmt: skip
def test_what_the_name_of_a_list_means(name, word):
    assert word_of(name) == word


def test_files_by_the_folder_that_is_named_as_a_split():
    assert by_folder(["a.xml", "b/c.xml"]) == {"all": ["a.xml", "b/c.xml"]}
    assert by_folder(["x/train/a.xml", "x/train/s/b.xml", "x/valid/c.xml", "d.xml"]) == {
        "train": ["x/train/a.xml", "x/train/s/b.xml"],
        "valid": ["x/valid/c.xml"],
        "": ["d.xml"],
    }
    assert set(by_folder(["p/train/a.xml", "q/train/b.xml"])) == {"p/train", "q/train"}


def test_the_cut_is_fixed_for_ever():
    # A fifth of all hashes begin below 0x33333333 = 2^32 / 5.
    ids = [str(i) for i in range(200)]
    wanted = [i for i in range(200) if hashlib.sha256(ids[i].encode()).hexdigest() < "33333333"]
    assert part_of(ids, "val", "here") == wanted
    assert part_of(ids, "train", "here") == sorted(set(range(200)) - set(wanted))
    assert part_of(ids, None, "here") == list(range(200))
