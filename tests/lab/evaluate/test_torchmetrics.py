"""Calibration errors against torchmetrics'.

Both take bins closed below. torchmetrics gives a score of exactly 1 a bin of its own; here it is in the last.
"""

import numpy as np
import pytest
import torch

from detloss.lab.evaluate import Detections, evaluate, expected_calibration_error, localisation_aware_error
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.reliability import judge

classification = pytest.importorskip("torchmetrics.classification")
pytestmark = pytest.mark.clients


def theirs(scores: np.ndarray, right: np.ndarray, bins: int) -> float:
    metric = classification.BinaryCalibrationError(n_bins=bins, norm="l1")
    return float(metric(torch.from_numpy(scores), torch.from_numpy(right.astype(np.int64))))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("bins", [1, 4, 10, 15])
def test_ece(seed: int, bins: int):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=300) ** rng.uniform(0.3, 3)
    right = (rng.uniform(size=300) < scores ** rng.uniform(0.3, 3)).astype(float)
    assert expected_calibration_error(scores, right, bins) == pytest.approx(
        theirs(scores, right, bins), abs=1e-7
    )


def test_scores_on_the_bounds():
    scores = np.repeat([0.0, 0.25, 0.5, 0.75, 0.875], 3)  # exact in binary, so that both mean the same
    right = np.tile([1.0, 0.0, 0.0], 5)
    assert expected_calibration_error(scores, right, 4) == pytest.approx(theirs(scores, right, 4), abs=1e-7)


def test_a_score_of_one_is_in_the_last_bin_here():
    scores, right = np.array([1.0, 0.8]), np.array([0.0, 1.0])
    assert theirs(scores, right, 2) == pytest.approx((1.0 + 0.2) / 2)
    assert expected_calibration_error(scores, right, 2) == pytest.approx(0.9 - 0.5)


def test_laece_of_exact_boxes_is_their_mean_over_classes():
    rng = np.random.default_rng(3)
    scores, labels = rng.uniform(size=600), rng.integers(0, 3, 600)
    right = (rng.uniform(size=600) < scores).astype(float)
    each = [theirs(scores[labels == label], right[labels == label], 25) for label in range(3)]
    assert localisation_aware_error(scores, right, labels) == pytest.approx(np.mean(each), abs=1e-7)


class Truth:
    """Three objects in a row."""

    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    labels = np.zeros(3, np.int64)
    ignored = np.zeros(3, bool)
    id = "image"


def test_of_an_evaluation():
    rng = np.random.default_rng(5)
    detections = []
    for _ in range(80):
        boxes = np.concatenate([Truth.boxes, Truth.boxes]) + rng.uniform(-3, 3, (6, 1)).astype(np.float32)
        scores = rng.uniform(0.06, 0.99, 6).astype(np.float32)
        detections.append(Detections(boxes, scores, np.zeros(6, np.int64)))
    matches = judge(count(detections, [Truth()] * 80, ["a"], [ALL]), 0.05)
    found = evaluate(detections, [Truth()] * 80, ["a"]).calibration
    assert found.detections == 480
    assert 0 < found.recall < 1
    assert found.ece == pytest.approx(theirs(matches.scores, matches.ious > 0, 10), abs=1e-7)
