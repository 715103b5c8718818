"""Intervals against published quantiles and by hand; verdicts and sentences by case."""

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
    answer,
    by_loss,
    caution,
    mean_interval,
    paired_difference,
    points,
    short_names,
    standings,
    still_learning,
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
QUALITY = {0: 0.866, 1: 0.860, 2: 0.865}


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


HIGHEST = "quality_focal has the highest mean AP, 86.4 ± 0.8"


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"bce": BCE, "focal": FOCAL, "quality_focal": QUALITY},
            "Over 3 seeds, with 95 % intervals: "
            f"{HIGHEST}; it is better than bce (+8.9 ± 1.6); "
            "no difference is seen between it and focal (+0.3 ± 1.0).",
        ),
        (
            {"focal": FOCAL, "quality_focal": QUALITY},
            f"Over 3 seeds, with 95 % intervals: {HIGHEST}; "
            "no difference is seen between it and focal (+0.3 ± 1.0).",
        ),
        (
            {"focal": FOCAL, "bce": BCE},
            "Over 3 seeds, with 95 % intervals: "
            "focal has the highest mean AP, 86.1 ± 0.2; it is better than bce (+8.6 ± 1.1).",
        ),
        (
            {"bce": BCE, "copy": BCE},
            "Over 3 seeds, with 95 % intervals: bce has the highest mean AP, 77.5 ± 1.2; "
            "no difference is seen between it and copy (+0.0 ± 0.0).",
        ),
        ({"bce": {0: 0.77}, "focal": {0: 0.86}}, "No verdict from one seed: focal has AP 86.0, bce 77.0."),
        ({"bce": {}, "focal": {0: 0.86}}, "No verdict from one seed: focal has AP 86.0; bce has no result."),
        ({"bce": BCE}, "bce reaches AP 77.5 ± 1.2 (3 seeds); it stands alone."),
        ({"bce": {0: 0.5}}, "bce reaches AP 50.0 (1 seed); it stands alone."),
        ({"bce": {0: math.nan}}, "No run has an AP."),
    ],
)
def test_answer(results, expected):
    assert answer(results).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"bce": {}, "focal": FOCAL, "quality_focal": QUALITY},
            "Over 3 seeds, with 95 % intervals: quality_focal has the highest mean AP of the losses with a "
            "result on every seed, 86.4 ± 0.8; no difference is seen between it and focal (+0.3 ± 1.0); "
            "bce has no result.",
        ),
        (  # focal survived the seed that is easy for both, and is worse there
            {"bce": {0: 0.5, 1: 0.6, 2: 0.7}, "focal": {2: 0.65}},
            "Over 3 seeds, with 95 % intervals: bce alone has a result on every seed, AP 60.0 ± 24.8; "
            "one seed in common is no verdict on focal (+5.0); focal has no result on 2 of 3 seeds.",
        ),
        (
            {"bce": {0: 0.3, 1: 0.6, 2: 0.7}, "focal": {1: 0.59, 2: 0.69}},
            "Over 3 seeds, with 95 % intervals: bce alone has a result on every seed, AP 53.3 ± 51.7; "
            "it is better than focal (+1.0 ± 0.0); focal has no result on 1 of 3 seeds.",
        ),
        (  # the lucky seed of bce is the one that focal lacks
            {"bce": {0: 0.9, 1: 0.5, 2: 0.5}, "focal": {1: 0.6, 2: 0.6}},
            "Over 3 seeds, with 95 % intervals: bce alone has a result on every seed, AP 63.3 ± 57.4; "
            "on the seeds in common it is worse than focal (−10.0 ± 0.0); "
            "focal has no result on 1 of 3 seeds.",
        ),
        (
            {"bce": {0: 0.5, 1: 0.6}, "focal": {1: 0.7, 2: 0.8}},
            "No verdict: no loss has a result on all 3 seeds (bce on 2, focal on 2).",
        ),
    ],
)
def test_seeds_that_diverged_do_not_decide(results, expected):
    assert answer(results).replace("\u00a0", " ") == expected


def test_nothing_found_has_no_winner():
    said = "No loss found anything (AP 0.0): train longer or on larger images; this comparison says nothing."
    assert answer({"bce": {0: 0.0, 1: 0.0}, "focal": {0: 0.0002, 1: 0.0003}}) == said
    assert answer({"bce": {0: 0.0}, "focal": {}}) == said
    assert answer({"bce": {0: 0.0, 1: 0.0}, "focal": {0: 0.02, 1: 0.03}}) != said


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


def test_caution_about_several_comparisons():
    assert caution({"bce": BCE, "focal": FOCAL}) is None
    assert caution({"bce": {0: 0.1}, "focal": {0: 0.2}, "varifocal": {0: 0.3}}) is None
    # differences .19, .29, .39 points: t = 5.02, between 4.30 (95 %) and 6.21 (97.5 %)
    barely = {0: BCE[0] + 0.0019, 1: BCE[1] + 0.0029, 2: BCE[2] + 0.0039}
    results = {"bce": BCE, "focal": FOCAL, "barely": barely}
    assert [row.verdict for row in standings(results)] == [None, BETTER, BETTER]
    text = caution(results)
    assert text is not None
    assert "2 losses are compared with bce" in text
    assert "up to 10 %" in text
    assert text.endswith("At 97.5 % each (Bonferroni) focal still differs from bce.")
    text = caution({"bce": BCE, "barely": barely, "again": barely})
    assert text is not None
    assert text.endswith("none still differs from bce.")


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


def curves(*ap: list[float]) -> list[dict[str, list[float]]]:
    return [{"step": [100 * (i + 1) for i in range(len(one))], "ap": one} for one in ap]


def test_losses_that_still_learn_are_told():
    text = still_learning(
        {"bce": curves([0.1, 0.3, 0.4], [0.1, 0.3, 0.36]), "focal": curves([0.2, 0.5, 0.51])}
    )
    assert text is not None
    assert text.startswith("Still learning: in the last 33 % of the steps AP rose by 8.0 (bce) points.")
    both = still_learning({"bce": curves([0.2, 0.3]), "focal": curves([0.2, 0.25])})
    assert "in the last 50 % of the steps AP rose by 10.0 (bce) and 5.0 (focal) points" in str(both)


@pytest.mark.parametrize(
    "ap", [[], [0.5], [0.5, 0.515], [0.5, 0.3], [math.nan, 0.5], [0.2, 0.5, 0.51]], ids=str
)
def test_losses_that_have_learned_or_tell_nothing(ap):
    assert still_learning({"bce": curves(ap), "focal": []}) is None
