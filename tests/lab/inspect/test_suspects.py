"""Suspected label errors: made ones are found first, and a good detector suspects nothing."""

import numpy as np
import pytest

from detloss.lab.data import Annotation, Dataset
from detloss.lab.inspect.figures import suspect_crops
from detloss.lab.inspect.suspects import suspects
from helpers.detections import found

NAMES = ("cat", "dog")
BOXES = np.array([[0, 0, 20, 20], [40, 40, 60, 60]], np.float32)
GOOD = ((0, 0, 20, 20, 0, 0.9), (40, 40, 60, 60, 1, 0.8))


def data(*labels: tuple[int, int], ignored: tuple[bool, bool] = (False, False)) -> Dataset:
    listed = [
        Annotation(BOXES, np.array(pair), np.array(ignored), f"image-{i}") for i, pair in enumerate(labels)
    ]
    return Dataset(NAMES, listed, [np.full((80, 64, 3), 90, np.uint8)] * len(listed))


def test_loss_by_hand():
    detections = [found((0, 0, 20, 20, 0, 0.3), (1, 0, 20, 20, 1, 0.6), (0, 0, 20, 20, 1, 0.5))]
    cat, dog = sorted(suspects(detections, data((0, 1))), key=lambda one: one.x1)
    assert cat.loss == pytest.approx(-np.log(0.3) - np.log(1 - 0.6), rel=1e-6)
    assert (cat.image, cat.labelled, cat.found) == ("image-0", "cat", "dog")
    assert cat.score == pytest.approx(0.6)
    assert dog.loss == pytest.approx(-np.log(1e-4))
    assert (dog.labelled, dog.found, dog.score) == ("dog", "", 0.0)


def test_a_swapped_label_and_a_missing_one_come_first():
    detections = [found(*GOOD), found(*GOOD), found(*GOOD, (10, 60, 30, 80, 1, 0.95))]
    first, second, *others = suspects(detections, data((0, 1), (1, 1), (0, 1)))
    assert (first.image, first.labelled, first.found) == ("image-1", "dog", "cat")
    assert (second.image, second.labelled, second.found) == ("image-2", "", "dog")
    assert second.loss == pytest.approx(-np.log(1 - 0.95), rel=1e-5)
    assert [second.x1, second.y1, second.x2, second.y2] == [10, 60, 30, 80]
    assert max(one.loss for one in others) == pytest.approx(-np.log(0.8), rel=1e-5)
    assert len(suspects(detections, data((0, 1), (1, 1), (0, 1)), most=1)) == 1


def test_what_is_ignored_is_no_suspect_and_explains_a_detection():
    listed = suspects([found((0, 0, 20, 20, 1, 0.9))], data((0, 1), ignored=(True, False)))
    assert [one.labelled for one in listed] == ["dog"]


def test_a_box_that_fits_badly_is_neither():
    """IoU .29: too little to find the object, too much to say that nothing is there."""
    listed = suspects([found((0, 0, 20, 20, 0, 0.9), (48, 48, 68, 60, 1, 0.9))], data((0, 1)))
    assert [one.labelled for one in listed] == ["dog", "cat"]


def test_crops():
    dataset = data((0, 1), (1, 1))
    listed = suspects([found(*GOOD), found(*GOOD, (10, 60, 30, 80, 1, 0.95))], dataset)
    figure = suspect_crops(listed, dataset)
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == [
        "dog?\nfound: cat 0.90",
        "no object?\nfound: dog 0.95",
    ]
    for ax, one in zip(figure.axes, listed):
        (frame,) = ax.patches
        np.testing.assert_allclose(frame.get_bbox().extents, [one.x1, one.y1, one.x2, one.y2])
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert left < one.x1 < one.x2 < right
        assert top < one.y1 < one.y2 < bottom
    assert "no object, and nothing found" in [t.get_text() for t in suspect_crops([], dataset).axes[0].texts]
