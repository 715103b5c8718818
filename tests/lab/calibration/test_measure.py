"""Calibration errors against cases worked out by hand, and what must hold for any detections."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.evaluate import (
    Detections,
    Evaluation,
    detection_calibration_error,
    evaluate,
    evaluate_at,
    expected_calibration_error,
    localisation_aware_error,
)
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.reliability import equal_bins, judge
from helpers.detections import Annotated, found, truth

MIDDLE = (0.5, 0.5, 0.3, 0.3)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@st.composite
def detections(draw, most: int = 60):
    """Scores (some on the bounds of bins), IoUs of which 0 is a mistake, labels and places."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, most))
    scores = rng.uniform(size=n)
    on_bound = rng.uniform(size=n) < 0.3
    scores[on_bound] = rng.integers(0, 11, on_bound.sum()) / 10
    ious = np.where(rng.uniform(size=n) < rng.uniform(), rng.uniform(0.5, 1, n), 0.0)
    return scores, ious, rng.integers(0, draw(st.integers(1, 3)), n), rng.uniform(size=(n, 4))


# The three errors by hand


def test_ece_by_hand():
    scores, right = floats(0.91, 0.95, 0.99, 0.32, 0.38), floats(1, 1, 0, 0, 1)
    # bin .9 to 1: mean score .95, 2 of 3 right; bin .3 to .4: mean score .35, 1 of 2 right
    by_hand = 3 / 5 * (0.95 - 2 / 3) + 2 / 5 * (0.5 - 0.35)
    assert expected_calibration_error(scores, right) == pytest.approx(by_hand)
    # one bin: mean score .71, 3 of 5 right
    assert expected_calibration_error(scores, right, bins=1) == pytest.approx(0.71 - 0.6)


def test_bins_are_closed_below_and_the_last_on_both_sides():
    # [0, .5) has .499 (right), [.5, 1] has .5 and 1 (mistakes)
    error = expected_calibration_error(floats(0.499, 0.5, 1), floats(1, 0, 0), bins=2)
    assert error == pytest.approx((0.501 + 1.5) / 3)
    assert expected_calibration_error(floats(0, 1), floats(0, 1)) == 0
    # .3, .6 and .7 are where np.linspace is above the nearest number
    error = expected_calibration_error(floats(*(k / 10 for k in range(10))), np.arange(10) % 2)
    assert error == pytest.approx(sum(abs(k / 10 - k % 2) for k in range(10)) / 10)


def test_dece_by_hand():
    left, right = (0.2, 0.5, 0.3, 0.3), (0.7, 0.5, 0.3, 0.3)
    places = np.array([left, left, right, right, right])
    scores, hits = floats(0.6, 0.8, 0.6, 0.7, 0.8), floats(1, 1, 0, 0, 1)
    bins = (1, 2, 1, 1, 1)
    # left of the middle: mean score .7, both right; right of it: mean score .7, 1 of 3
    error, chance, counted = detection_calibration_error(scores, hits, places, bins, least=1)
    assert error == pytest.approx((2 * 0.3 + 3 * (0.7 - 1 / 3)) / 5)
    # Σ s(1-s): .24 + .16 on the left, .24 + .21 + .16 on the right
    assert chance == pytest.approx(math.sqrt(2 / math.pi) * (math.sqrt(0.4) + math.sqrt(0.61)) / 5)
    assert counted == 5
    # a cell needs 3: the left one is left out, of the 5 also
    error, _, counted = detection_calibration_error(scores, hits, places, bins, least=3)
    assert (error, counted) == (pytest.approx(0.7 - 1 / 3), 3)
    assert detection_calibration_error(scores, hits, places, bins, least=4)[2] == 0
    assert math.isnan(detection_calibration_error(scores, hits, places, bins, least=4)[0])


@pytest.mark.parametrize("axis", range(4))
def test_dece_sees_what_cancels_in_ece(axis):
    """Half of the detections is always right, the other never, and the place or size tells which."""
    places = np.tile(MIDDLE, (40, 1))
    places[20:, axis] = 0.9
    scores, right = np.full(40, 0.5), np.repeat([1.0, 0.0], 20)
    assert expected_calibration_error(scores, right) == 0
    assert detection_calibration_error(scores, right, places)[0] == 0.5


def test_dece_without_places_or_detections_is_nan():
    unknown = np.full((2, 4), np.nan)
    for arguments in ((floats(0.5, 0.6), floats(0, 1), unknown), (floats(), floats(), np.zeros((0, 4)))):
        error, chance, counted = detection_calibration_error(*arguments)
        assert math.isnan(error)
        assert math.isnan(chance)
        assert counted == 0


def test_dece_clips_boxes_that_reach_out_of_the_image():
    inside, outside = np.tile((1.0, 0.0, 1.0, 1.0), (8, 1)), np.tile((1.2, -0.1, 1.5, 1.3), (8, 1))
    scores, right = np.full(8, 0.75), np.ones(8)
    assert detection_calibration_error(scores, right, outside) == detection_calibration_error(
        scores, right, inside
    )
    assert detection_calibration_error(scores, right, inside)[0] == 0.25


def test_laece_by_hand():
    scores = floats(0.81, 0.83, 0.30, 0.5, 0.9)
    ious = floats(0.9, 0.0, 0.6, 0.7, 0.0)
    labels = np.array([0, 0, 0, 2, 2])
    # class 0: .81 and .83 lie in [.80, .84): mean score .82, precision 1/2, mean IoU .9: .82 - .45
    #          .30: precision 1, mean IoU .6: .6 - .3
    # class 2: .5 against .7, .9 against 0; class 1 has no detections and no part in the mean
    first = 2 / 3 * (0.82 - 0.45) + 1 / 3 * (0.6 - 0.3)
    second = 1 / 2 * 0.2 + 1 / 2 * 0.9
    assert localisation_aware_error(scores, ious, labels) == pytest.approx((first + second) / 2)
    assert math.isnan(localisation_aware_error(floats(), floats(), np.zeros(0, np.int64)))


# What must hold for any detections


@settings(max_examples=150)
@given(detections(), st.randoms())
def test_errors_are_fractions_and_blind_to_order(some, random):
    scores, ious, labels, places = some
    right = (ious > 0).astype(float)

    def errors(order):
        return (
            expected_calibration_error(scores[order], right[order]),
            detection_calibration_error(scores[order], right[order], places[order], least=1)[0],
            localisation_aware_error(scores[order], ious[order], labels[order]),
        )

    order = list(range(len(scores)))
    before = errors(order)
    assert all(0 <= error <= 1 for error in before)
    assert before[0] >= abs(np.mean(scores - right)) - 1e-12  # gaps of bins can cancel in the whole
    random.shuffle(order)
    np.testing.assert_allclose(errors(order), before, rtol=0, atol=1e-12)


@settings(max_examples=100)
@given(detections())
def test_dece_of_one_place_is_ece_and_finer_cells_never_lower_it(some):
    scores, ious, _, places = some
    right = (ious > 0).astype(float)
    ece = expected_calibration_error(scores, right)
    one_place, _, counted = detection_calibration_error(scores, right, places, (10, 1, 1, 1, 1), least=1)
    assert (one_place, counted) == (pytest.approx(ece, abs=1e-12), len(scores))
    finer, _, _ = detection_calibration_error(scores, right, places, (10, 3, 2, 3, 2), least=1)
    assert finer >= ece - 1e-12


@settings(max_examples=100)
@given(detections())
def test_dece_is_the_sum_over_cells(some):
    """Against loops over every cell."""
    scores, ious, _, places = some
    right, bins, least = ious > 0, (5, 3, 2, 4, 2), 2
    features = np.column_stack([scores, places])
    index = np.minimum(np.floor(features * bins + 1e-12), np.array(bins) - 1)
    total, counted = 0.0, 0
    for cell in np.ndindex(bins):
        own = (index == cell).all(axis=1)
        if own.sum() >= least:
            counted += own.sum()
            total += own.sum() * abs(right[own].mean() - scores[own].mean())
    error, _, n = detection_calibration_error(scores, right.astype(float), places, bins, least)
    assert n == counted
    assert error == pytest.approx(total / counted if counted else math.nan, abs=1e-9, nan_ok=True)


@settings(max_examples=50)
@given(detections())
def test_laece_of_one_class_and_exact_boxes_is_ece_in_its_bins(some):
    scores, ious, labels, _ = some
    right = (ious > 0).astype(float)
    ece = expected_calibration_error(scores, right, bins=25)
    assert localisation_aware_error(scores, right, np.zeros_like(labels)) == pytest.approx(ece, abs=1e-12)


def test_calibrated_scores_have_the_error_of_chance():
    rng = np.random.default_rng(0)
    n = 3000
    scores, places = rng.uniform(size=n), rng.uniform(size=(n, 4))
    bins = (5, 2, 2, 2, 2)
    ece, dece = [], []
    for _ in range(40):
        right = (rng.uniform(size=n) < scores).astype(float)
        ece.append(expected_calibration_error(scores, right))
        error, chance, counted = detection_calibration_error(scores, right, places, bins)
        dece.append(error)
    assert counted == n
    assert np.mean(dece) == pytest.approx(chance, rel=0.05)
    ece_chance = detection_calibration_error(scores, right, places, (10, 1, 1, 1, 1))[1]
    assert np.mean(ece) == pytest.approx(ece_chance, rel=0.15)
    assert ece_chance < 0.02


@pytest.mark.parametrize("shift", [0.1, 0.25])
def test_a_constant_shift_is_the_error(shift):
    """Scores that are the share right in each of their bins + s."""
    shares = np.arange(10) / 20  # 0, .05, … .45
    right = np.concatenate([np.repeat([1.0, 0.0], [k, 20 - k]) for k in range(10)])
    scores = np.repeat(shares, 20) + shift
    assert expected_calibration_error(np.repeat(shares, 20), right) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(scores, right) == pytest.approx(shift)
    assert expected_calibration_error(scores, right, bins=7) == pytest.approx(shift)


# In `evaluate`


def ten_alike() -> tuple[list[Detections], list[Annotated], list[tuple[int, int]]]:
    """Ten images with one detection each at the same place, of which seven are right, IoU .8.

    Three more in the first image: one of class 1 with IoU .6, one on an ignored object, one mistake.
    """
    box, near = (20, 20, 40, 40), (20, 20, 40, 36)
    truths = [truth((*box, 0)) if i < 7 else truth((50, 70, 60, 80, 0)) for i in range(10)]
    truths[0] = truth((*box, 0), (60, 0, 70, 10, 1), (60, 40, 90, 70, 1), ignored=(2,))
    results = [found((*near, 0, 0.65)) for _ in range(10)]
    results[0] = found(
        (*near, 0, 0.65), (60, 0, 70, 6, 1, 0.5), (65, 45, 75, 55, 1, 0.9), (0, 60, 9, 69, 1, 0.25)
    )
    return results, truths, [(100, 100)] * 10


def test_evaluate_by_hand():
    results, truths, sizes = ten_alike()
    c = evaluate(results, truths, ["a", "b", "c"], sizes=sizes).calibration
    # the detection on the ignored object does not count: 10 + 2, of which 7 + 1 are right
    assert (c.detections, c.recall) == (12, 8 / 11)
    assert c.signed_gap == pytest.approx((10 * 0.65 + 0.5 + 0.25) / 12 - 8 / 12)
    assert c.ece == pytest.approx((10 * 0.05 + 1 * 0.5 + 1 * 0.25) / 12)
    variance = (10 * 0.65 * 0.35, 0.5 * 0.5, 0.25 * 0.75)
    assert c.ece_by_chance == pytest.approx(math.sqrt(2 / math.pi) * np.sqrt(variance).sum() / 12, rel=1e-6)
    # only the ten of one cell are the eight that a cell needs
    assert (c.dece, c.dece_detections) == (pytest.approx(0.05), 10)
    # class a: .65 against 7/10 · .8; class b: .5 against .6, .25 against 0; class c has nothing
    assert c.laece == pytest.approx((0.65 - 0.56 + (0.1 + 0.25) / 2) / 2)
    np.testing.assert_allclose(c.precision_iou[[2, 5, 6]], [0, 0.6, 0.56], rtol=1e-6)
    assert np.isnan(c.precision_iou[[0, 1, 3, 4, 7, 8, 9]]).all()


def test_classes_by_hand():
    results, truths, sizes = ten_alike()
    result = evaluate(results, truths, ["a", "b", "c"], sizes=sizes)
    a, b, c = result.calibration.per_class
    assert [(one.name, one.objects, one.detections) for one in (a, b, c)] == [
        ("a", 10, 10),
        ("b", 1, 2),
        ("c", 0, 0),
    ]
    assert (a.recall, b.recall) == (0.7, 1)
    assert (a.ap, b.ap) == (result.per_class["a"], result.per_class["b"])
    assert a.ece == pytest.approx(0.05)
    assert a.signed_gap == pytest.approx(-0.05)
    assert b.ece == pytest.approx((0.5 + 0.25) / 2)
    assert b.signed_gap == pytest.approx((0.5 + 0.25 - 1) / 2)
    assert (a.laece, b.laece) == (pytest.approx(0.65 - 0.56), pytest.approx((0.1 + 0.25) / 2))
    assert math.isnan(a.score_iou_correlation)  # all scores are equal
    for value in (c.recall, c.ap, c.ece, c.signed_gap, c.laece, c.score_iou_correlation):
        assert math.isnan(value)


def test_score_iou_correlation_of_a_class():
    objects = [truth((0, 0, 10, 10, 0)) for _ in range(3)]
    results = [found((0, 0, 10, y, 0, s)) for y, s in ((6, 0.3), (8, 0.6), (10, 0.9))]
    one, none = evaluate(results, objects, ["a", "b"]).calibration.per_class
    assert one.score_iou_correlation == pytest.approx(1)
    assert none.detections == 0


def test_a_class_without_objects_is_all_mistakes():
    result = evaluate([found((0, 0, 9, 9, 1, 0.7))], [truth((0, 0, 9, 9, 0))], ["a", "b"])
    of_b = result.calibration.per_class[1]
    assert (of_b.objects, of_b.ece, of_b.laece) == (0, pytest.approx(0.7), pytest.approx(0.7))
    assert math.isnan(of_b.recall)
    assert result.calibration.laece == pytest.approx(0.7)


def test_nothing_found_and_nothing_there():
    for result in (
        evaluate([found()], [truth((0, 0, 9, 9, 0))], ["a"], sizes=[(10, 10)]),
        evaluate([], [], ["a"], sizes=[]),
    ):
        c = result.calibration
        for value in (c.ece, c.ece_by_chance, c.signed_gap, c.dece, c.dece_by_chance, c.laece):
            assert math.isnan(value)
        assert (c.detections, c.dece_detections) == (0, 0)


def test_one_class_is_the_whole():
    results, truths, sizes = ten_alike()
    alone = [Detections(d.boxes, d.scores, np.zeros_like(d.labels)) for d in results]
    objects = [Annotated(t.boxes, np.zeros_like(t.labels), t.ignored) for t in truths]
    c = evaluate(alone, objects, ["a"], sizes=sizes).calibration
    (one,) = c.per_class
    for name in ("detections", "recall", "ap", "ece", "signed_gap", "laece"):
        assert getattr(one, name) == getattr(c, name), name


def test_places_are_fractions_of_their_own_image():
    results, truths, _ = ten_alike()
    # the cell (20..40, 20..36) of 100 × 100 pixels: centre (.3, .28), size (.2, .16). In an image of
    # 50 × 200 the same box has its centre at (.15, .56): another cell, in which it is alone
    sizes = [(100, 100)] * 9 + [(50, 200)]
    c = evaluate(results, truths, ["a", "b"], sizes=sizes).calibration
    assert (c.dece, c.dece_detections) == (pytest.approx(7 / 9 - 0.65), 9)


def test_places_by_hand():
    # 200 px wide, 50 px high: centre (40, 15), size 40 × 10
    counted = count([found((20, 10, 60, 20, 0, 0.9))], [truth()], ["a"], [ALL])
    np.testing.assert_allclose(judge(counted, 0.05, [(50, 200)]).places, [[0.2, 0.3, 0.2, 0.2]])


def test_without_sizes_only_dece_is_missing():
    results, truths, sizes = ten_alike()
    with_sizes = evaluate(results, truths, ["a", "b"], sizes=sizes).to_dict()
    without = evaluate(results, truths, ["a", "b"]).to_dict()
    assert (without["calibration"]["dece"], without["calibration"]["dece_by_chance"]) == (None, None)
    for name in ("dece", "dece_by_chance", "dece_detections", "dece_all", "dece_all_by_chance"):
        del with_sizes["calibration"][name], without["calibration"][name]
    assert with_sizes == without


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(10, 10)], "sizes: 1 images, but truths has 2"),
        ([(10, 10), (0, 10)], r"sizes: expected \(height, width\) above 0, got \(0, 10\) \(image 'image'\)"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        evaluate([found(), found()], [truth(), truth()], ["a"], sizes=sizes)


def test_thresholds_show_what_few_detections_hide():
    results, truths, sizes = ten_alike()
    low, middle, high = evaluate_at(results, truths, ["a", "b"], [0.05, 0.6, 0.95], sizes=sizes)
    whole = evaluate(results, truths, ["a", "b"], score_threshold=0.6, sizes=sizes)
    assert low.to_dict() == evaluate(results, truths, ["a", "b"], sizes=sizes).to_dict()
    # without the two low scores the ECE falls to a ninth, and so does the recall
    assert (middle.calibration.detections, middle.calibration.recall) == (10, 7 / 11)
    assert (low.calibration.ece, middle.calibration.ece) == (pytest.approx(1.25 / 12), pytest.approx(0.05))
    assert middle.calibration.ece == whole.calibration.ece
    assert (middle.per_class["b"], whole.per_class["b"]) == (0, low.per_class["b"])  # AP of what is left
    assert (high.calibration.detections, high.calibration.recall, high.ap) == (0, 0, 0)


def test_json_round_trip_and_an_older_record():
    results, truths, sizes = ten_alike()
    result = evaluate(results, truths, ["a", "b", "c"], sizes=sizes)
    back = Evaluation.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert back.to_dict() == result.to_dict()
    assert back.calibration.per_class[0] == result.calibration.per_class[0]
    assert math.isnan(back.calibration.per_class[2].ece)
    older = result.to_dict()
    del older["calibration"]["dece"], older["calibration"]["per_class"]
    with pytest.raises(ValueError, match="calibration has no 'dece', 'per_class'; if an older version"):
        Evaluation.from_dict(older)


def test_scores_on_a_bound_in_float32_are_in_the_upper_bin():
    for bins in (5, 10, 25):
        for k in range(1, bins):
            on_bound = np.array([np.float32(k / bins), k / bins, k / bins - 1e-6])
            assert equal_bins(on_bound, bins).tolist() == [k, k, k - 1]


def test_both_rules_for_small_cells_of_dece():
    """Three boxes in the middle, one at the border: that cell has one detection."""
    scores, right = floats(0.9, 0.9, 0.9, 0.9), floats(1, 1, 0, 0)
    places = np.array([MIDDLE] * 3 + [(0.9, 0.9, 0.1, 0.1)])
    middle, border = abs(2.7 - 2), 0.9
    left_out = detection_calibration_error(scores, right, places, least=2)
    assert left_out[0] == pytest.approx(middle / 3)
    assert left_out[2] == 3
    every = detection_calibration_error(scores, right, places, least=1)
    assert every[0] == pytest.approx((middle + border) / 4)
    assert every[2] == 4
