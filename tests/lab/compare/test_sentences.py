"""What is said of a comparison, case by case."""

import math
from dataclasses import replace

import numpy as np
import pytest

from detloss.lab.compare.sentences import (
    answer,
    course,
    gaps,
    past_the_plan,
    still_learning,
    unequal_clipping,
)
from detloss.lab.statistics import decide

BCE = {0: 0.770, 1: 0.775, 2: 0.780}
FOCAL = {0: 0.860, 1: 0.862, 2: 0.861}
QUALITY = {0: 0.866, 1: 0.860, 2: 0.865}
HIGHEST = "quality_focal has the highest mean AP, 86.4 ± 0.8"


def said(results, images=None, **more):
    return answer(results, decide(results, looks=[3], images=images), **more).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"bce": BCE, "focal": FOCAL, "quality_focal": QUALITY},
            f"Over 3 seeds: {HIGHEST}; it is better than bce (+8.9 ± 1.3); undecided is which is better, it "
            "or focal (+0.3 ± 1.1; 3 more seeds would probably decide).",
        ),
        (
            {"focal": FOCAL, "bce": BCE},
            "Over 3 seeds: focal has the highest mean AP, 86.1 ± 0.2; it is better than bce (+8.6 ± 1.2).",
        ),
        (
            {"bce": {0: 0.5, 1: 0.5}, "copy": {0: 0.5, 1: 0.5}},
            "Over 2 seeds: bce has the highest mean AP, 50.0 ± 0.0; it is equivalent, within 1 AP, to copy "
            "(+0.0 ± 0.0).",
        ),
        ({"bce": {0: 0.77}, "focal": {0: 0.86}}, "No verdict from one seed: focal has AP 86.0, bce 77.0."),
        ({"bce": {}, "focal": {0: 0.86}}, "No verdict from one seed: focal has AP 86.0; bce has no result."),
        ({"bce": BCE}, "bce reaches AP 77.5 ± 1.2 (3 seeds); it stands alone."),
        ({"bce": {0: 0.5}}, "bce reaches AP 50.0 (1 seed); it stands alone."),
        ({"bce": {0: math.nan}}, "No run has an AP."),
    ],
)
def test_answer(results, expected):
    assert said(results) == expected


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"bce": {}, "focal": FOCAL, "quality_focal": {0: 0.966, 1: 0.960, 2: 0.965}},
            "Over 3 seeds: quality_focal has the highest mean AP of the losses with a result on every seed, "
            "96.4 ± 0.8; it is better than focal (+10.3 ± 1.0); bce has no result.",
        ),
        (  # the seed that focal survived may be the easy one
            {"bce": {0: 0.5, 1: 0.6, 2: 0.7}, "focal": {2: 0.65}},
            "Over 3 seeds: bce alone has a result on every seed, AP 60.0 ± 24.8; undecided is which is "
            "better, it or focal (−5.0 ± 49.7; 62 more seeds would probably decide); focal has no result on "
            "2 of 3 seeds.",
        ),
        (
            {"bce": {0: 0.5, 1: 0.6}, "focal": {1: 0.7, 2: 0.8}},
            "No verdict: no loss has a result on all 3 seeds (bce on 2, focal on 2).",
        ),
    ],
)
def test_seeds_that_diverged_do_not_decide(results, expected):
    assert said(results) == expected


def test_nothing_found_has_no_winner():
    text = "No loss found anything (AP 0.0): train longer or on larger images; this comparison says nothing."
    assert said({"bce": {0: 0.0, 1: 0.0}, "focal": {0: 0.0002, 1: 0.0003}}) == text
    assert said({"bce": {0: 0.0}, "focal": {}}) == text
    assert said({"bce": {0: 0.0, 1: 0.0}, "focal": {0: 0.02, 1: 0.03}}) != text


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


def test_more_seeds_than_planned_are_another_plan():
    ap = {"bce": {0: 0.50, 1: 0.60, 2: 0.58}, "focal": {0: 0.60, 1: 0.62, 2: 0.56}}
    [one] = decide(ap, looks=(3, 5, 8))
    assert one.further is not None
    needed = 3 + one.further
    assert needed > 8
    assert f"--looks 3 5 8 {needed} --seeds {needed}" in str(past_the_plan([one], 3, (3, 5, 8)))
    assert past_the_plan([one], 3, (3, 5, 8, 100)) is None
    assert past_the_plan([replace(one, further=None)], 3, (3, 5, 8)) is None


def test_unequal_clipping_is_said():
    text = unequal_clipping({"bce": [0.7, 0.8], "focal": [0.1, 0.0], "mal": []})
    assert text is not None
    assert text.startswith("Clipped unequally: gradients were clipped on 75 % (bce) and 5 % (focal) of the")
    assert unequal_clipping({"bce": [0.12, 0.1], "focal": [0.1, 0.0]}) is None
    assert unequal_clipping({"bce": [0.9]}) is None
    assert unequal_clipping({"bce": []}) is None


def test_other_images_are_told():
    images = {"focal": np.full((3, 50), 0.861), "bce": np.tile(np.linspace(0.75, 0.80, 50), (3, 1))}
    text = said({"bce": BCE, "focal": FOCAL}, images)
    assert text.endswith("it is better than bce (+8.6 ± 1.2, ± 2.9 over images too).")
    wide = images | {"bce": np.tile(np.linspace(0.5, 1.0, 50), (3, 1))}
    text = said({"bce": BCE, "focal": FOCAL}, wide)
    assert text.endswith("over images too: not certain of other images).")


def test_the_gap_over_the_budget():
    curves_ = {
        "a": curves([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.6]),
        "b": curves([0.2, 0.25, 0.3, 0.3]),
        "c": [],
    }
    assert gaps(curves_, "a", "b") == pytest.approx([-0.1, -0.05, 0.2])
    assert gaps(curves_, "b", "a") == pytest.approx([0.1, 0.05, -0.2])
    assert all(math.isnan(gap) for gap in gaps(curves_, "a", "c"))
    odd = [{"step": [88, 175, 262, 350], "ap": ap} for ap in ([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0])]
    assert gaps({"a": odd[:1], "b": odd[1:]}, "a", "b") == pytest.approx(
        [0.1, 0.2, 0.4]
    )  # evaluated at 350 / 4
    late = gaps({"a": curves([0.2, 0.4]), "b": curves([0.1, 0.1])}, "a", "b")  # first evaluation at half
    assert late[1:] == pytest.approx([0.1, 0.3])
    assert math.isnan(late[0])


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ([0.1, 0.05, 0.02], "shrinking"),
        ([0.01, 0.02, 0.1], "growing"),
        ([-0.02, 0.01, 0.03], "reversed"),
        ([0.02, -0.01, 0.03], "reversed"),
        ([-0.1, -0.05, -0.02], "shrinking"),
        ([0.02, 0.02, 0.02], "steady"),
        ([math.nan, 0.02, 0.02], "steady"),
        ([math.nan, math.nan, 0.02], ""),
        ([0.1, 0.1, 0.0], ""),
    ],
)
def test_the_course_of_a_gap(gap, expected):
    assert course(gap) == expected


def test_the_sentence_carries_the_course():
    rising = {"bce": curves([0.5, 0.6, 0.7, 0.775]), "focal": curves([0.5, 0.61, 0.75, 0.861])}
    text = said({"bce": BCE, "focal": FOCAL}, curves=rising)
    assert "bce (+8.6 ± 1.2, growing)" in text
