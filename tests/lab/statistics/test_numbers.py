"""The interval of a mean by hand, and names and numbers as they are shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detloss.lab.statistics import by_loss, mean_interval, points, short_names


def test_mean_interval_by_hand():
    # s = 1, t(2) = 4.302653, √3
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 4.302653 / math.sqrt(3)), abs=1e-6)
    assert mean_interval([0.5]) == pytest.approx((0.5, math.nan), nan_ok=True)
    assert mean_interval([]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_interval([4.0, 4.0]) == (4, 0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-10, 10), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values(values, shift, scale):
    mean, width = mean_interval(values)
    moved = mean_interval([scale * v + shift for v in values])
    assert moved == pytest.approx((scale * mean + shift, scale * width), abs=1e-6)
    assert mean_interval(values, 0.99)[1] >= width


def test_by_loss_has_all_pairs_in_their_order():
    def row(loss, seed, ap):
        return {"classification_loss": loss, "box_loss": "giou", "seed": seed, "ap": ap}

    pairs = [("bce", "giou"), ("focal", "giou"), ("varifocal", "giou")]
    written = [row("varifocal", "1", "0.25"), row("focal", "0", ""), row("varifocal", "0", "0.5")]
    found = by_loss(pairs, written)
    assert list(found) == ["bce", "focal", "varifocal"]
    assert (found["bce"], found["varifocal"]) == ({}, {0: 0.5, 1: 0.25})
    assert math.isnan(found["focal"][0])
    # in memory the numbers are numbers
    assert by_loss(pairs, [row("focal", 2, 0.75)])["focal"] == {2: 0.75}


def test_points():
    assert points(0.8614, 0.003) == "86.1\u00a0±\u00a00.3"  # does not break
    assert points(0.8614) == "86.1"
    assert points(-0.012, sign=True) == "−1.2"
    assert points(0.012, 0.001, sign=True) == "+1.2\u00a0±\u00a00.1"
    assert points(math.nan, 1.0) == "–"


def test_short_names_say_what_differs():
    giou, ciou = ("focal", "giou"), ("focal", "ciou")
    assert short_names([("bce", "giou"), giou]) == {("bce", "giou"): "bce", giou: "focal"}
    assert short_names([giou, ciou]) == {giou: "giou", ciou: "ciou"}
    assert short_names([giou]) == {giou: "focal"}
    assert short_names([giou, ("bce", "ciou")]) == {giou: "focal+giou", ("bce", "ciou"): "bce+ciou"}
