"""A calibrator finds the distortion that was put in, keeps the order, and is judged on other images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from detloss.lab.evaluate import expected_calibration_error
from detloss.lab.evaluate.calibrator import Calibrator, Calibrators, cross_fitted, fit
from detloss.lab.records import from_dict, to_dict
from detloss.lab.runs import write_json

METHODS = ("temperature", "platt", "isotonic")


def distorted(n: int, scale: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose probability of being right is sigmoid(scale · logit + shift), and whether they are."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.01, 0.99, n)
    return scores, random.uniform(size=n) < expit(scale * logit(scores) + shift)


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.5, 0), (2.5, 0), (1.5, -1), (0.7, 2)])
def test_finds_what_was_put_in(scale, shift):
    found = fit(*distorted(100_000, scale, shift), "platt")
    assert (found.scale, found.shift) == pytest.approx((scale, shift), rel=0.05, abs=0.05)
    if shift == 0:
        found = fit(*distorted(100_000, scale, shift), "temperature")
        assert found.scale == pytest.approx(scale, rel=0.05)
        assert found.shift == 0


def test_platt_is_the_minimum():
    """Where the cross entropy is least, both of its derivatives are 0."""
    scores, right = distorted(500, 0.6, 1)
    positive = int(right.sum())
    targets = np.where(right, (positive + 1) / (positive + 2), 1 / (500 - positive + 2))
    gap = fit(scores, right, "platt")(scores) - targets
    assert abs(gap.mean()) < 1e-5
    assert abs((gap * logit(scores)).mean()) < 1e-5


def test_isotonic_by_hand():
    found = fit(np.array([0.1, 0.2, 0.3, 0.3, 0.8]), np.array([0, 1, 0, 0, 1]), "isotonic")
    np.testing.assert_allclose(
        found(np.array([0.0, 0.1, 0.2, 0.3, 0.55, 0.8, 1.0])), [0, 0, 1 / 3, 1 / 3, 2 / 3, 1, 1]
    )


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=30),
    method=st.sampled_from(METHODS),
)
def test_any_detections_give_a_rising_function_into_0_to_1(rows, method):
    scores = np.array([score for score, _ in rows], np.float32)
    found = fit(scores, np.array([right for _, right in rows]), method)
    grid = np.linspace(0, 1, 50, dtype=np.float32)
    values = found(grid)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values) >= -1e-6).all()
    assert from_dict(Calibrator, to_dict(found)) == found


@pytest.mark.parametrize("method", METHODS)
def test_what_was_distorted_is_calibrated_on_images_not_seen(method):
    scores, right = distorted(6000, 0.5, 0)
    image = np.arange(6000) // 20
    before = expected_calibration_error(scores, right)
    after = expected_calibration_error(cross_fitted(scores, right, image, method), right)
    assert before > 0.08
    assert after < 0.025


def test_noise_is_not_learned_by_heart():
    """Scores without meaning: judged by what it learned from, isotonic regression looks better than it is."""
    random = np.random.default_rng(0)
    scores, right = random.uniform(size=200), random.uniform(size=200) < 0.5
    image = np.arange(200)
    fitted = np.mean((fit(scores, right, "isotonic")(scores) - right) ** 2)
    judged = np.mean((cross_fitted(scores, right, image, "isotonic") - right) ** 2)
    assert fitted < 0.25 < judged


def test_too_few_images_leave_the_scores():
    scores, right = distorted(10, 0.5, 0)
    np.testing.assert_array_equal(cross_fitted(scores, right, np.zeros(10, int)), scores)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="scores is empty"):
        fit(np.zeros(0), np.zeros(0))


def fitted() -> Calibrators:
    scores, right = distorted(500, 0.6, 1)
    each = {method: fit(scores, right, method) for method in METHODS}
    return Calibrators(**each, data="here, val", images=9, detections=500, threshold=0.05)


def test_a_file_of_calibrators_gives_back_the_same_scores(tmp_path):
    before, file = fitted(), tmp_path / "calibrator.json"
    write_json(file, to_dict(before))
    after = Calibrators.load(file)
    assert after == before
    scores = np.random.default_rng(1).uniform(size=1000).astype(np.float32)
    for method in METHODS:
        own, back = getattr(before, method)(scores), getattr(after, method)(scores)
        assert back.dtype == np.float32
        assert (own == back).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [c], "must be an object"),
        (lambda c: {"platt": c["platt"]}, "has no 'temperature'"),
        (lambda c: c | {"platt": c["temperature"]}, "platt has the method 'temperature'"),
        (lambda c: c | {"platt": c["platt"] | {"scale": -1}}, "scale -1.0"),
        (lambda c: c | {"platt": c["platt"] | {"shift": None}}, "shift nan"),
        (lambda c: c | {"isotonic": c["isotonic"] | {"scores": []}}, "0 scores and"),
        (lambda c: c | {"isotonic": c["isotonic"] | {"scores": [0.5], "probabilities": [2]}}, "from 0 to 1"),
    ],
)
def test_what_is_not_a_calibrator(tmp_path, change, message):
    file = tmp_path / "wrong.json"
    write_json(file, change(to_dict(fitted())))
    with pytest.raises(ValueError, match=rf"wrong.json is not a calibrator.*{message}.*--fit"):
        Calibrators.load(file)
