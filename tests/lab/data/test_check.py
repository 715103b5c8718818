import hashlib

import numpy as np
import pytest

from detloss.lab.data.check import BoxCheck, choose_split, part_of


def run(*boxes, size=(50, 100)):
    check = BoxCheck()
    found, keep = check(np.array(boxes, float), size, lambda i: f"f.xml: object {i + 1}")
    return found[keep].tolist(), keep.tolist(), check.notes()


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
def test_errors(box, message):
    with pytest.raises(
        ValueError, match=rf"^f\.xml: object 2: the box \(x .*, y .* px\) .*{message}"
    ) as caught:
        run([0, 0, 10, 10], box)
    assert "\n" not in str(caught.value)


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


def test_the_cut_is_fixed_for_ever():
    # A fifth of all hashes begin below 0x33333333 = 2^32 / 5.
    ids = [str(i) for i in range(200)]
    wanted = [i for i in range(200) if hashlib.sha256(ids[i].encode()).hexdigest() < "33333333"]
    assert part_of(ids, "val", "here") == wanted
    assert part_of(ids, "train", "here") == sorted(set(range(200)) - set(wanted))
    assert part_of(ids, None, "here") == list(range(200))
