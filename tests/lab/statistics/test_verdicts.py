"""Verdicts by hand, against SciPy's own tests, and their error rates by simulation."""

import math

import numpy as np
import pytest
from error_rates import LOOKS, SPREADS, said, simulated, wrong
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detloss.lab import statistics
from detloss.lab.statistics import verdicts

BCE = [0.770, 0.775, 0.780]
FOCAL = [0.860, 0.862, 0.861]
QUALITY = [0.866, 0.860, 0.865]


def test_three_losses():
    focal, quality, level = verdicts({"bce": BCE, "focal": FOCAL, "quality": QUALITY}, looks=(3,))
    assert (focal.first, focal.second, focal.verdict) == ("bce", "focal", "worse")
    assert focal.difference == pytest.approx(-0.086)
    assert quality.verdict == "worse"
    assert (level.first, level.second, level.verdict) == ("focal", "quality", "undecided")
    assert level.further > 0
    assert verdicts({"focal": FOCAL, "quality": QUALITY}, rope=0.02, looks=(3,))[0].verdict == "equivalent"


def test_turned():
    images = {name: np.random.default_rng(0).normal(0.8, 0.01, (3, 20)) for name in ("focal", "bce")}
    (one,) = verdicts({"bce": BCE, "focal": FOCAL}, looks=(3,), images=images)
    (other,) = verdicts({"focal": FOCAL, "bce": BCE}, looks=(3,), images=images)
    assert (one.verdict, other.verdict) == ("worse", "better")
    assert one.turned == other
    assert one.turned.turned == one


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_two_losses_have_welchs_interval(n):
    a, b = np.random.default_rng(n).normal((0.5, 0.6), (0.01, 0.03), (n, 2)).T
    (one,) = verdicts({"a": a, "b": b}, looks=(n,))
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((welch.low, welch.high), rel=2e-3)


def test_alike_losses_have_tukeys_interval():
    """Where all sample variances are equal, pooled and own are one, with all degrees of freedom."""
    around = np.array([-0.01, 0.0, 0.01])
    ap = {name: mean + around for name, mean in zip("abcde", (0.5, 0.51, 0.52, 0.55, 0.6))}
    tukey = stats.tukey_hsd(*ap.values()).confidence_interval(0.95)
    for one in verdicts(ap, looks=(3,)):
        i, j = "abcde".index(one.first), "abcde".index(one.second)
        assert (one.low, one.high) == pytest.approx((tukey.low[i, j], tukey.high[i, j]), rel=1e-3)


def test_the_spent_error_is_lan_and_demets():
    """2 - 2Φ(1.96 / √t) at a third, two thirds and the whole: cumulative .00069, .0164, .05."""
    first = statistics._level(1, (1, 2, 3))
    assert first == pytest.approx(0.000687, abs=1e-6)
    steps = np.random.default_rng(0).normal(size=(200_000, 3)).cumsum(1) / np.sqrt([1, 2, 3])
    past = np.abs(steps) > stats.norm.isf([statistics._level(n, (1, 2, 3)) / 2 for n in (1, 2, 3)])
    assert past[:, :2].any(1).mean() == pytest.approx(0.0164, abs=0.001)
    assert past.any(1).mean() == pytest.approx(0.05, abs=0.002)
    assert statistics._level(8, (8,)) == pytest.approx(0.05)
    assert statistics._level(4, (3, 5, 8)) < statistics._level(5, (3, 5, 8)) < 0.05


def test_few_runs():
    (none,) = verdicts({"bce": [], "focal": FOCAL})
    assert (none.verdict, none.further) == ("undecided", None)
    assert math.isnan(none.difference)
    (single,) = verdicts({"bce": [0.5], "focal": [0.6]})
    assert single.verdict == "undecided"
    assert single.difference == pytest.approx(-0.1)
    assert math.isnan(single.low)
    by_others = verdicts({"bce": [0.5], "focal": FOCAL, "quality": QUALITY}, looks=(3,))[0]
    assert by_others.verdict == "worse"  # the others say how far runs lie apart


def test_the_same_values_are_equivalent():
    assert verdicts({"bce": BCE, "copy": BCE}, looks=(3,))[0].verdict == "undecided"  # ± 1.1 AP
    assert verdicts({"bce": BCE, "copy": BCE}, rope=0.02, looks=(3,))[0].verdict == "equivalent"
    (exact,) = verdicts({"bce": [0.5] * 3, "copy": [0.5] * 3})
    assert (exact.low, exact.high, exact.verdict) == (0, 0, "equivalent")
    assert verdicts({"bce": [0.5] * 3, "other": [0.6] * 3})[0].verdict == "worse"


def test_further_seeds_do_decide():
    """With as many seeds as it says and the same difference and spread, most comparisons are decided."""
    (one,) = verdicts({"a": [0.50, 0.52, 0.54], "b": [0.56, 0.58, 0.60]}, looks=(3, 5, 8))
    assert one.verdict == "undecided"
    seeds = 3 + one.further
    values = np.random.default_rng(0).normal(0.5, 0.02, (200, 2, seeds))
    values[:, 1] += 0.06
    decided = [bool(words - {"undecided"}) for words in said(values, [seeds], (3, 5, 8))]
    assert 0.6 < np.mean(decided) < 0.98
    assert verdicts({"a": [0.5, 0.6, 0.7], "b": [0.51, 0.59, 0.71]})[0].further is None  # more than 100


@pytest.mark.parametrize(
    ("ap", "options", "message"),
    [
        ({"bce": BCE}, {}, "ap has 1 losses"),
        ({"bce": BCE, "focal": [0.5, math.nan]}, {}, "ap of 'focal' is .*leave out"),
        ({"bce": BCE, "focal": FOCAL}, {"rope": 0}, "rope is 0"),
        ({"bce": BCE, "focal": FOCAL}, {"looks": (5, 3)}, r"looks is \(5, 3\)"),
        ({"bce": BCE, "focal": FOCAL}, {"looks": ()}, r"looks is \(\)"),
        ({"bce": BCE, "focal": FOCAL}, {"images": {"bce": np.ones((3, 9))}}, "images has no 'focal'"),
    ],
)
def test_errors(ap, options, message):
    with pytest.raises(ValueError, match=message):
        verdicts(ap, **options)


values = st.lists(st.floats(0, 1), max_size=5)


@settings(max_examples=25, deadline=None)
@given(ap=st.dictionaries(st.text(max_size=3), values, min_size=2, max_size=4))
def test_any_values(ap):
    found = verdicts(ap)
    assert len(found) == len(ap) * (len(ap) - 1) // 2
    for one in found:
        if one.verdict == "better":
            assert one.low > 0
        if one.verdict == "equivalent":
            assert max(-one.low, one.high) <= 0.01
        assert one.further is None or (one.verdict == "undecided" and one.further > 0)


# Error rates; `error_rates.py` prints them all.


def test_bce_under_another_name_is_not_better():
    assert wrong(2, "equal", [3, 5, 8], 200) <= 0.06
    assert wrong(5, "equal", [3, 5, 8], 200) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("looks", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("losses", [2, 5, 10])
def test_the_error_rate_holds(losses, spread, looks):
    number = 4000 if losses < 10 else 2000
    # within what chance does to a simulated rate of 6 %, 2.5 standard errors
    assert wrong(losses, spread, looks, number, seed=1) <= 0.06 + 2.5 * math.sqrt(0.06 * 0.94 / number)


@pytest.mark.parametrize("seeds", [3, 8])
def test_a_difference_that_matters_is_not_called_equivalent(seeds):
    """Two losses that differ by just the rope, of small spread: a wrong "equivalent" in at most 2.5 %."""
    data = simulated(2, "equal", seeds, 600, shift=0.0)
    data = 0.5 + (data - 0.5) * 0.2  # SD .4 AP
    data[:, 0] += 0.01
    rate = np.mean([words == {"equivalent"} for words in said(data, [seeds])])
    assert rate <= 0.025 + 2.5 * math.sqrt(0.025 * 0.975 / 600)
    near = 0.5 + (simulated(2, "equal", seeds, 100) - 0.5) * 0.05
    assert np.mean([words == {"equivalent"} for words in said(near, [seeds])]) > 0.9


def test_the_second_interval_covers_other_images():
    """Runs that share 60 images: what an image does to a difference is the same for all seeds."""
    random = np.random.default_rng(0)
    covered = {"seeds": 0, "images": 0}
    for _ in range(150):
        difficulty = random.normal(0, 0.1, 60)  # of each image for the second loss; the true difference is 0
        runs = random.normal(0.5, 0.005, (2, 4))
        runs[1] += difficulty.mean()
        times = random.multinomial(60, np.full(60, 1 / 60), 300)
        drawn = times @ difficulty / 60
        images = {"a": np.full((4, 300), 0.5), "b": np.tile(0.5 + drawn, (4, 1))}
        (one,) = verdicts({"a": runs[0], "b": runs[1]}, looks=(4,), images=images)
        covered["seeds"] += one.low <= 0 <= one.high
        covered["images"] += one.images_low <= 0 <= one.images_high
        assert one.turned.images_high == -one.images_low
        assert one.images_high >= one.high
    assert covered["images"] >= 0.92 * 150
    assert covered["seeds"] < 0.7 * 150


def test_a_verdict_that_other_images_may_not_bear():
    drawn = np.random.default_rng(0).normal(0.5, 0.05, 500)
    images = {"a": np.full((3, 500), 0.9), "b": np.tile(drawn, (3, 1))}
    (one,) = verdicts({"a": FOCAL, "b": BCE}, looks=(3,), images=images)
    assert (one.verdict, one.on_other_images) == ("better", False)
    (one,) = verdicts({"a": FOCAL, "b": BCE}, looks=(3,))
    assert one.on_other_images
    assert math.isnan(one.images_low)
