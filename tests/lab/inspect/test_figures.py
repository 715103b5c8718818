"""Figures of the imbalance: the numbers in them are the tables', and odd tables can be drawn."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from detloss.lab.detector.locations import LevelCounts, LocationCounts
from detloss.lab.figures import save
from detloss.lab.inspect.examples import Example
from detloss.lab.inspect.figure4 import LossCurve
from detloss.lab.inspect.figures import (
    _short,
    cumulative_loss,
    level_counts,
    loss_on_images,
    object_counts,
    quadrant_shares,
)
from detloss.lab.inspect.inspection import DataTables
from detloss.lab.inspect.objects import ObjectCounts, count_sizes
from detloss.lab.inspect.quadrants import QUADRANTS, Quadrant, percent


def data_tables(sizes: list[float], positives: list[int], classes: int = 3, levels: int = 3) -> DataTables:
    per_class = {f"class {k}": classes - k for k in range(classes)}
    objects = ObjectCounts(
        5, 1, len(sizes), 0, per_class, np.array([1, *[0] * 300, 4]), *2 * [np.array(sizes)]
    )
    rows = tuple(
        LevelCounts(4 * 2**k, 64, sum(positives) if k == 0 else 0, 300, 7 * k) for k in range(levels)
    )
    rescued = np.zeros(len(sizes), bool)
    locations = LocationCounts(5, classes, rows, np.array(sizes), np.array(positives), rescued)
    return DataTables(objects, locations, count_sizes(*3 * [locations.sizes], positives))


def widths(ax) -> list[float]:
    return [patch.get_width() for patch in ax.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize(
    "tables",
    [
        data_tables([3.0, 20.0, 2000.0], [0, 2, 3], classes=40),
        data_tables([20.0], [1], classes=1, levels=1),
        data_tables([], []),
    ],
)
def test_data_tables_can_be_drawn(tables, tmp_path):
    save(object_counts(tables), tmp_path / "objects", ["png"])
    save(level_counts(tables), tmp_path / "levels", ["png"])


def test_many_classes_are_gathered_and_none_is_lost():
    figure = object_counts(data_tables([20.0], [1], classes=40))
    ax = figure.axes[2]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == 12
    assert names[-1] == "29 more"
    assert sum(widths(ax)) == sum(range(1, 41))


def test_heights_of_the_size_histogram():
    ax = object_counts(data_tables([5.0, 5.5, 20.0], [0, 2, 3])).axes[0]
    heights = [patch.get_height() for patch in ax.patches]
    assert heights == [
        1,
        0,
        0,
        0,
        1,
        1,
    ]  # five ranges with a positive, then the one range that loses an object
    assert [text.get_text() for text in ax.texts] == ["1"]


def test_sizes_in_own_pixels_alone_have_no_bar():
    tables = data_tables([5.0, 20.0], [1, 2])
    far = count_sizes(np.array([5.0, 20.0]), np.array([500.0]), tables.locations.sizes, [1, 2])
    assert len(far) > len(tables.sizes)
    ax = object_counts(DataTables(tables.objects, tables.locations, far)).axes[0]
    assert len(ax.patches) == len(tables.sizes)


def test_shares_of_quadrants_are_the_widths_of_bars():
    shares = (0.9, 0.09, 0.0099, 0.0001)
    table = [
        Quadrant(loss, *quadrant, 10**k, share, 1.0, share, 1.0, share)
        for loss in ("bce", "focal")
        for k, (quadrant, share) in enumerate(zip(QUADRANTS, shares))
    ]
    figure = quadrant_shares(table)
    assert widths(figure.axes[1]) == pytest.approx(list(shares) * 4)
    written = [text.get_text() for text in figure.axes[1].texts]
    assert written[3] == "easy pos. 0.01 %"


def test_figure_4_is_drawn_from_low_loss_to_high(tmp_path):
    curve = LossCurve("negative", 2.0, np.array([0, 0.1, 1]), np.array([0, 0.8, 1]), 10, 3.0)
    none = LossCurve("positive", 2.0, np.zeros(0), np.zeros(0), 0, 0.0)
    figure = cumulative_loss([none, curve])
    positive, negative = figure.axes
    assert "no positive logits" in [text.get_text() for text in positive.texts]
    x, y = negative.lines[-1].get_data()
    np.testing.assert_allclose(x, [1, 0.9, 0])
    np.testing.assert_allclose(y, [1, 0.2, 0])
    save(figure, tmp_path / "figure4", ["png"])


def test_loss_on_images(tmp_path):
    none = np.zeros((0, 4), np.float32)
    square = np.array([[0, 0, 8, 8]], np.float32)
    image = np.zeros((32, 32, 3), np.uint8)
    found = Example(
        "a", image, square, square, {"bce": np.array([0.5])}, square, np.array([1]), np.array([0.5]),
        {"bce": np.array([0.3])}, {"bce": 0.2}, 99,
    )  # fmt: skip
    nothing = Example(
        "b", image, none, none, {"bce": np.zeros(0)}, none, np.zeros(0, int), np.zeros(0),
        {"bce": np.zeros(0)}, {"bce": 0.0}, 0,
    )  # fmt: skip
    figure = loss_on_images([found, nothing], ["bce"], ["cat", "dog"])
    assert "dog 30.0 %" in [text.get_text() for text in figure.axes[0].texts]
    assert "99 other negatives 20.0 %" in figure.axes[0].get_title(loc="left")
    save(figure, tmp_path / "images", ["png"])
    save(loss_on_images([], ["bce", "focal"], ["cat"]), tmp_path / "none", ["png"])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.99999, "99.999 %"),
        (1 - 1e-9, "> 99.999 %"),
        (float("nan"), "–"),
        (0.5, "50.0 %"),
        (1e-4, "0.01 %"),
        (3.21e-7, "3.2e-05 %"),
    ],
)
def test_shares_in_words(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (2_345_678, "2.35M"), (1.2e9, "1.2G")]
)
def test_counts_in_words(value, text):
    assert _short(value) == text
