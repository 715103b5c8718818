"""AP from what is kept of a run equals the evaluator's, for its images and for any choice of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.evaluate import evaluate
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.matches import Matches, average_precision, resample_images
from helpers.detections import found, scene, truth

NAMES = ("a", "b", "c")


def matches_of(detections, truths) -> Matches:
    return count(detections, truths, NAMES, [ALL]).matches


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 12),
    noise=st.sampled_from([0.0, 0.1, 0.3]),
    step=st.sampled_from([0.0, 0.25]),
)
def test_equals_the_evaluator(seed, images, noise, step):
    detections, truths = scene(np.random.default_rng(seed), images, len(NAMES), noise, step)
    ap = average_precision(matches_of(detections, truths), np.ones((1, images), np.int64))
    np.testing.assert_allclose(ap, evaluate(detections, truths, NAMES).ap, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 8))
def test_an_image_that_counts_twice_is_an_image_that_is_there_twice(seed, images):
    random = np.random.default_rng(seed)
    detections, truths = scene(random, images, len(NAMES), 0.1)
    times = random.integers(0, 4, (3, images))
    expected = [
        evaluate([detections[i] for i in rows], [truths[i] for i in rows], NAMES).ap
        for rows in (np.repeat(np.arange(images), row) for row in times)
    ]
    got = average_precision(matches_of(detections, truths), times)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_a_file_gives_back_what_was_saved(tmp_path):
    matches = matches_of(*scene(np.random.default_rng(0), 20, len(NAMES), 0.1))
    matches.save(tmp_path / "matches.npz")
    again = Matches.load(tmp_path / "matches.npz")
    for name, array in vars(matches).items():
        np.testing.assert_array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype
    assert (tmp_path / "matches.npz").stat().st_size < 40 * len(matches.score) + 4000


def test_a_file_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    (tmp_path / "text.npz").write_text("no")
    for name in ("other.npz", "text.npz", "absent.npz"):
        with pytest.raises(ValueError, match=rf"{name} has no matches"):
            Matches.load(tmp_path / name)


def test_runs_on_the_same_images_share_their_draws():
    first = matches_of(*scene(np.random.default_rng(0), 30, len(NAMES), 0.1))
    other = matches_of(*scene(np.random.default_rng(1), 31, len(NAMES), 0.1))
    done = []
    ap = resample_images(
        {"one": [first, first], "two": [first, other]}, 50, progress=lambda *of: done.append(of)
    )
    np.testing.assert_array_equal(ap["one"][0], ap["one"][1])
    np.testing.assert_array_equal(ap["one"][0], ap["two"][0])
    assert not np.array_equal(ap["two"][0], ap["two"][1])
    assert ap["one"].shape == (2, 50)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_spread_of_resamples_is_that_of_new_images():
    """Standard error by the bootstrap of one data set, against AP over many data sets of the same kind."""
    sets = [matches_of(*scene(np.random.default_rng([7, i]), 60, 2, 0.12)) for i in range(60)]
    everywhere = np.ones((1, 60), np.int64)
    true = np.std([average_precision(matches, everywhere)[0] for matches in sets], ddof=1)
    random = np.random.default_rng(0)
    times = random.multinomial(60, np.full(60, 1 / 60), 200)
    guessed = np.mean([average_precision(matches, times).std(ddof=1) for matches in sets[:20]])
    assert 0.8 < guessed / true < 1.3


def test_nothing_drawn_is_nan():
    matches = matches_of([found((0, 0, 9, 9, 0, 0.5)), found()], [truth((0, 0, 9, 9, 0)), truth()])
    np.testing.assert_allclose(average_precision(matches, np.array([[1, 0], [0, 1]])), [1, np.nan])
