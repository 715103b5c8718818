"""Verdicts by hand, against SciPy's own tests, and their error rates by simulation."""

import math

import numpy as np
import pytest
from error_rates import LOOKS, SPREADS, said, simulated, wrong
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detloss.lab import statistics
from detloss.lab.statistics import contrast, verdicts

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


def test_runs_that_failed_do_not_make_another_look():
    """Four of five planned runs are the look at five: Student's t at its level."""
    a, b = [0.5, 0.6, 0.5, 0.6], [0.7, 0.8, 0.7, 0.8]
    (one,) = verdicts({"a": a, "b": b}, looks=(3, 5, 8))
    error = math.sqrt(2 * np.var(a, ddof=1) / 4)
    half = stats.t.isf(statistics._level(5, (3, 5, 8)) / 2, 6) * error
    assert (one.low, one.high) == pytest.approx((-0.2 - half, -0.2 + half), rel=1e-3)


def test_few_runs():
    (none,) = verdicts({"bce": [], "focal": FOCAL})
    assert (none.verdict, none.further) == ("undecided", None)
    assert math.isnan(none.difference)
    (single,) = verdicts({"bce": [0.5], "focal": [0.6]})
    assert single.verdict == "undecided"
    assert single.difference == pytest.approx(-0.1)
    assert math.isnan(single.low)
    by_others = verdicts({"bce": [0.5], "focal": FOCAL, "quality": QUALITY}, looks=(3,))[0]
    # The others say how far runs lie apart, but nothing says that its own would lie as close.
    assert (by_others.verdict, by_others.further) == ("undecided", 1)
    assert by_others.high < 0


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
    assert seeds in (5, 8)  # a look that is planned
    values = np.random.default_rng(0).normal(0.5, 0.02, (200, 2, seeds))
    values[:, 1] += 0.06
    decided = [bool(words - {"undecided"}) for words in said(values, [seeds], (3, 5, 8))]
    assert np.mean(decided) > 0.75
    before = [bool(words - {"undecided"}) for words in said(values[..., :3], [3], (3, 5, 8))]
    assert np.mean(before) < 0.3
    assert verdicts({"a": [0.5, 0.6, 0.7], "b": [0.51, 0.59, 0.71]})[0].further is None  # more than 100


def test_a_contrast_of_two_is_welchs_interval():
    a, b = [0.50, 0.53, 0.55], [0.60, 0.70, 0.95]
    one = contrast({"a": a, "b": b, "steady": [0.1, 0.1, 0.1]}, {"a": 1, "b": -1})
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((welch.low, welch.high))
    assert (one.first, one.second, one.verdict) == ("a", "b", "undecided")


def test_a_contrast_takes_the_pooled_variance_where_it_is_larger_and_variances_look_alike():
    ap = {"a": [0.50, 0.51, 0.52], "b": [0.60, 0.61, 0.62], "c": [0.3, 0.32, 0.34], "d": [0.4, 0.42, 0.44]}
    one = contrast(ap, {"a": 1, "b": -1}, comparisons=3)
    pooled, degrees = (1e-4 + 1e-4 + 4e-4 + 4e-4) / 4, 2 * 10**2 / (1 + 1 + 16 + 16)
    half = stats.t.isf(0.05 / 3 / 2, degrees) * math.sqrt(2 * pooled / 3)
    assert (one.low, one.high) == pytest.approx((-0.1 - half, -0.1 + half))
    unlike = ap | {"d": [0.1, 0.5, 0.9]}  # says nothing of how far runs of a and b lie apart
    alone = contrast({name: ap[name] for name in "ab"}, {"a": 1, "b": -1})
    assert contrast(unlike, {"a": 1, "b": -1}) == alone
    assert alone.verdict == "worse"


def test_a_contrast_of_means_of_several():
    ap = {"a": [0.5, 0.52, 0.51], "b": [0.52, 0.5, 0.54], "c": [0.4, 0.4, 0.43]}
    one = contrast(ap, {"a": 0.5, "b": 0.5, "c": -1})
    assert one.difference == pytest.approx(0.515 - 0.41)
    assert (one.first, one.second, one.verdict) == ("a + b", "c", "better")
    assert contrast(ap | {"c": []}, {"a": 1, "c": -1}).verdict == "undecided"
    single = contrast(ap | {"c": [0.1]}, {"a": 1, "c": -1})
    assert (single.verdict, math.isnan(single.low)) == ("undecided", True)
    level = contrast({"a": [0.5, 0.501], "b": [0.5, 0.501]}, {"a": 1, "b": -1}, rope=0.05)
    assert level.verdict == "equivalent"


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("losses", [4, 10])
def test_the_error_rate_of_a_contrast_holds(losses, spread):
    """Of two of several equal losses, the one of the larger spread among them."""
    values = simulated(losses, spread, 3, 1500, seed=2)
    ends = {0: 1.0, losses - 1: -1.0}
    wrong = [contrast(dict(enumerate(one)), ends).verdict in ("better", "worse") for one in values]
    assert np.mean(wrong) <= 0.06 + 2.5 * math.sqrt(0.06 * 0.94 / 1500)


@pytest.mark.parametrize(
    ("ap", "options", "message"),
    [
        ({"bce": BCE}, {}, "ap has 1 losses"),
        ({"bce": BCE, "focal": [0.5, math.nan]}, {}, "ap of 'focal' is .*leave out"),
        ({"bce": BCE, "focal": FOCAL}, {"rope": 0}, "rope is 0"),
        ({"bce": BCE, "focal": FOCAL}, {"looks": (5, 3)}, r"looks is \(5, 3\)"),
        ({"bce": BCE, "focal": FOCAL}, {"looks": ()}, r"looks is \(\)"),
        ({"bce": BCE, "focal": 3 * FOCAL}, {}, r"looks is \(3, 5, 8\) and there are 9 runs; .* end with 9"),
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


@pytest.mark.parametrize("own", [False, True], ids=["all seeds share the images", "each seed has its own"])
def test_the_second_interval_is_as_wide_as_results_vary(own):
    """Values of images: how hard it is, what the loss makes of it, and the seed; a run is their mean."""
    random, seeds, images = np.random.default_rng(5), 5, 40
    differences, errors, covered = [], [], 0
    for _ in range(600):
        sets = seeds if own else 1
        hard, loss = random.normal(0, 0.06, (1, sets, images)), random.normal(0, 0.04, (2, sets, images))
        seed = random.normal(0, 0.005, (2, seeds, 1)) + random.normal(0, 0.03, (2, seeds, images))
        values = 0.5 + hard + loss + seed
        draws = random.multinomial(images, np.full(images, 1 / images), (sets, 200)) / images
        drawn = np.einsum("lsi,sri->lsr", values, np.broadcast_to(draws, (seeds, 200, images)))
        runs = values.mean(axis=2)
        resampled = {"a": drawn[0], "b": drawn[1]}
        (one,) = verdicts({"a": runs[0], "b": runs[1]}, looks=(seeds,), images=resampled)
        covered += one.images_low <= 0 <= one.images_high
        assert one.images_high >= one.high
        differences.append(one.difference)
        more = statistics._over_images(drawn[0], drawn[1])
        errors.append(runs.var(axis=1, ddof=1).sum() / seeds + more)
    # What is missing in the seeds' spread, and what it has too much, is the images' part.
    assert np.mean(errors) == pytest.approx(np.var(differences), rel=0.12)
    assert 0.93 * 600 <= covered <= 0.999 * 600


def test_a_verdict_that_other_images_may_not_bear():
    drawn = np.random.default_rng(0).normal(0.5, 0.05, 500)
    images = {"a": np.full((3, 500), 0.9), "b": np.tile(drawn, (3, 1))}
    (one,) = verdicts({"a": FOCAL, "b": BCE}, looks=(3,), images=images)
    assert (one.verdict, one.on_other_images) == ("better", False)
    (one,) = verdicts({"a": FOCAL, "b": BCE}, looks=(3,))
    assert one.on_other_images
    assert math.isnan(one.images_low)


def test_one_run_each_is_judged_over_images_alone():
    """Normal draws: the interval is the difference ± Tukey's quantile · SD, and holds for all pairs."""
    random = np.random.default_rng(0)
    ap = {"a": [0.5], "b": [0.45], "c": [0.499]}
    images = {name: values[0] + random.normal(0, 0.01, (1, 4000)) for name, values in ap.items()}
    found = {(one.first, one.second): one for one in verdicts(ap, rope=0.01, images=images)}
    assert [one.verdict for one in found.values()] == ["better", "undecided", "worse"]
    for (first, second), one in found.items():
        half = (
            stats.studentized_range.isf(0.05, 3, np.inf) * (images[first] - images[second]).std() / np.sqrt(2)
        )
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert one.further is None
        assert one.images_high - one.difference == pytest.approx(half, rel=1e-3)
        assert one.difference - one.images_low == pytest.approx(half, rel=1e-3)
    # with two runs of one of them their spread is known, and the verdict is over seeds
    assert not math.isnan(verdicts(ap | {"a": [0.5, 0.51]}, images=images)[0].low)
