"""Intervals against published quantiles and by hand; verdicts by case."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from detloss.lab.statistics import (
    BETTER,
    NO_DIFFERENCE,
    NO_SEED,
    NO_VERDICT,
    WORSE,
    by_loss,
    mean_interval,
    paired_difference,
    points,
    short_names,
    standings,
    student_t,
    verdict,
)


@pytest.mark.parametrize(
    ("degrees", "confidence", "expected"),
    [  # printed tables of Student's t, two-sided
        (1, 0.95, 12.706205),
        (2, 0.95, 4.302653),
        (3, 0.95, 3.182446),
        (4, 0.95, 2.776445),
        (9, 0.95, 2.262157),
        (30, 0.95, 2.042272),
        (1, 0.99, 63.656741),
        (2, 0.99, 9.924843),
        (5, 0.90, 2.015048),
        (1000, 0.95, 1.962339),
    ],
)
def test_student_t_is_the_printed_table(degrees, confidence, expected):
    assert student_t(degrees, confidence) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("degrees", "confidence"), [(0, 0.95), (3, 0), (3, 1)])
def test_student_t_refuses(degrees, confidence):
    with pytest.raises(ValueError, match=f"got {degrees} and {confidence}"):
        student_t(degrees, confidence)


def test_mean_interval_by_hand():
    # s = 1, t(2) = 4.302653, √3
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 4.302653 / math.sqrt(3)), abs=1e-6)
    assert mean_interval([0.5]) == pytest.approx((0.5, math.nan), nan_ok=True)
    assert mean_interval([]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_interval([4.0, 4.0]) == (4, 0)


def test_pairing_removes_what_the_seed_does():
    baseline = {0: 0.1, 1: 0.5, 2: 0.9}
    values = {2: 0.93, 0: 0.12, 1: 0.51, 7: 0.0}  # any order, a seed the baseline lacks
    difference, width = paired_difference(values, baseline)
    assert difference == pytest.approx(0.02)
    assert width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), abs=1e-6)
    assert mean_interval(baseline.values())[1] > 0.9


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-10, 10), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values(values, shift, scale):
    mean, width = mean_interval(values)
    moved = mean_interval([scale * v + shift for v in values])
    assert moved == pytest.approx((scale * mean + shift, scale * width), abs=1e-6)
    assert mean_interval(values, 0.99)[1] >= width


@given(st.dictionaries(st.integers(0, 9), st.floats(0, 1), min_size=2), st.data())
def test_verdict_turns_with_the_sides(a, data):
    b = {seed: data.draw(st.floats(0, 1)) for seed in a}
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assume(abs(abs(forth[0]) - forth[1]) > 1e-9)
    opposite = {BETTER: WORSE, WORSE: BETTER, NO_DIFFERENCE: NO_DIFFERENCE}
    assert verdict(*back) == opposite[verdict(*forth)]
    assert verdict(*paired_difference(a, a)) == NO_DIFFERENCE


def test_verdict():
    assert verdict(0.02, 0.01) == BETTER
    assert verdict(-0.02, 0.01) == WORSE
    assert verdict(0.02, 0.02) == NO_DIFFERENCE  # the interval ends at zero and so holds it
    assert verdict(0.3, math.nan) == NO_VERDICT
    assert verdict(math.nan, math.nan) == NO_SEED
    assert verdict(1e-17, 0.0) == NO_DIFFERENCE  # 0.1 + 0.2 - 0.3


BCE = {0: 0.770, 1: 0.775, 2: 0.780}
FOCAL = {0: 0.860, 1: 0.862, 2: 0.861}


def test_standings():
    bce, focal = standings({"bce": BCE, "focal": FOCAL})
    assert (bce.name, bce.seeds, bce.difference, bce.verdict) == ("bce", 3, None, None)
    assert bce.mean == pytest.approx(0.775)
    assert focal.difference == pytest.approx(0.086)
    assert (focal.difference, focal.difference_half_width) == paired_difference(FOCAL, BCE)
    assert focal.verdict == BETTER


def test_the_first_loss_stays_the_baseline_without_a_result():
    bce, focal = standings({"bce": {0: math.nan}, "focal": FOCAL})
    assert (bce.seeds, bce.verdict) == (0, None)
    assert math.isnan(bce.mean)
    assert (focal.seeds, focal.verdict) == (3, NO_SEED)
    _, focal = standings({"bce": {3: 0.5}, "focal": FOCAL})
    assert focal.verdict == NO_SEED


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
