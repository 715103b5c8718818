"""Precision, recall and F1 against the score, and the confusion matrix at the best: by hand, and counted."""

import math

import numpy as np
import pytest

from detloss.lab.evaluate import evaluate
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.operating import f1_of_images
from helpers.detections import found, scene, truth

A, B, C = (0, 0, 10, 10), (50, 0, 60, 10), (0, 50, 10, 60)


def test_by_hand():
    """Two of three objects found, one of them as another class; a mistake above and one below them."""
    rows = [(*C, 0, 0.9), (*A, 0, 0.7), (*B, 1, 0.5), (90, 90, 99, 99, 0, 0.2)]
    objects = truth((*A, 0), (*B, 1), (*C, 1))
    result = evaluate([found(*rows)], [objects], ["a", "b"])
    point = result.operating
    assert (point.best_score, point.best_precision, point.best_recall) == pytest.approx((0.5, 2 / 3, 2 / 3))
    assert point.best_f1 == pytest.approx(2 / 3)
    np.testing.assert_allclose(point.precision[[0, 20, 50, 70, 90]], [1 / 2, 1 / 2, 2 / 3, 1 / 2, 0])
    assert math.isnan(point.precision[100])
    np.testing.assert_allclose(point.recall[[0, 50, 70, 90, 100]], [2 / 3, 2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(point.f1[[50, 100]], [2 / 3, 0])
    # rows: a, b, nothing; columns: found as a, as b, not found
    assert result.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 0))


def test_an_ignored_object_counts_neither_way():
    objects = truth((*A, 0), (*B, 0), ignored=(1,))
    result = evaluate([found((*A, 0, 0.6), (*B, 0, 0.9))], [objects], ["a"])
    assert result.operating.best_f1 == pytest.approx(1)
    assert result.confusion == ((1, 0), (0, 0))


@pytest.mark.parametrize("objects", [truth(), truth((*A, 0))])
def test_nothing_to_measure(objects):
    result = evaluate([found()], [objects], ["a"])
    assert math.isnan(result.operating.best_score)
    assert result.confusion == ((0, len(objects.labels)), (0, 0))


def test_the_best_is_the_best_of_all_thresholds():
    detections, truths = scene(np.random.default_rng(3), 40, 3, 0.1)
    matches = count(detections, truths, "abc", [ALL]).matches
    point = evaluate(detections, truths, "abc").operating
    objects = matches.objects.sum()
    brute = []
    for least in matches.score:
        kept = matches.counts[:, 0] & (matches.score >= least)
        brute.append(2 * matches.right[kept, 0].sum() / (kept.sum() + objects))
    assert point.best_f1 == pytest.approx(max(brute))
    assert point.best_score == pytest.approx(float(matches.score[int(np.argmax(brute))]))
    assert point.f1.max() <= point.best_f1 + 1e-12


def test_the_confusion_matrix_holds_every_object_once():
    detections, truths = scene(np.random.default_rng(4), 40, 3, 0.1)
    for annotation in truths:
        annotation.ignored[:] = False
    confusion = np.array(evaluate(detections, truths, "abc").confusion)
    labels = np.concatenate([annotation.labels for annotation in truths])
    np.testing.assert_array_equal(confusion[:3].sum(axis=1), np.bincount(labels, minlength=3))


def test_f1_of_images():
    truths = [truth((0, 0, 9, 9, 0), (20, 20, 30, 30, 1)), truth(), truth(), truth((0, 0, 9, 9, 0))]
    detections = [
        found((0, 0, 9, 9, 0, 0.9), (20, 20, 30, 30, 0, 0.8), (20, 20, 30, 30, 1, 0.3)),
        found((0, 0, 9, 9, 0, 0.6)),
        found((0, 0, 9, 9, 0, 0.4)),
        found(),
    ]
    matches = count(detections, truths, ("a", "b"), [ALL]).matches
    np.testing.assert_allclose(f1_of_images(matches, 0.5), [2 / 4, 0, 1, 0])
    np.testing.assert_allclose(f1_of_images(matches, 0.3), [4 / 5, 0, 0, 0])
