"""Which score to deploy: what is found and what is right among the detections with at least that score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detloss.lab.evaluate.matches import Matches

SCORES = np.arange(101) / 100


@dataclass(frozen=True, eq=False)
class Operating:
    """Precision, recall and F1 = 2PR / (P + R) at IoU 0.5 against the lowest score that counts.

    All classes together: each object weighs the same. Fractions of 1; nan where nothing is to measure.

    Attributes:
        best_score: the score of the highest F1; the highest such score where there are several.
        best_precision, best_recall, best_f1: there.
        scores: (101,) 0, 0.01, … 1.
        precision, recall: (101,) of the detections with at least that score.
    """

    best_score: float
    best_precision: float
    best_recall: float
    best_f1: float
    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """(101,) at each of `scores`; 0 where nothing is found."""
        return _f1(self.precision, self.recall)


def operating(matches: Matches) -> Operating:
    """Precision, recall and F1 at every score, and the best of them."""
    counts = matches.counts[:, 0]
    score, right = matches.score[counts].astype(np.float64), matches.right[counts, 0]
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.concatenate([[0], np.cumsum(right[order])])
    objects = int(matches.objects.sum())

    def at(least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = np.searchsorted(-score, -least, side="right")
        with np.errstate(invalid="ignore"):
            return found[kept] / kept, found[kept] / np.float64(objects or np.nan)

    best = (np.nan,) * 4
    if len(score) and objects:
        precision, recall = at(score)
        f1 = _f1(precision, recall)
        top = int(f1.argmax())
        best = (score[top], precision[top], recall[top], f1[top])
    # Scores are float32, where 0.7 is a little below the float64 of that name.
    precision, recall = at(np.minimum(SCORES, SCORES.astype(np.float32)))
    best_score, best_precision, best_recall, best_f1 = map(float, best)
    return Operating(best_score, best_precision, best_recall, best_f1, SCORES, precision, recall)


def f1_of_images(matches: Matches, least: float) -> np.ndarray:
    """(images,) F1 at IoU 0.5 of each image's detections with at least that score.

    1 where there is nothing to find and nothing was found; 0 where only one of the two is so.
    """
    kept = matches.counts[:, 0] & (matches.score >= np.float32(least))
    images = len(matches.ids)
    found = np.bincount(matches.image[kept], minlength=images)
    right = np.bincount(matches.image[kept & matches.right[:, 0]], minlength=images)
    total = found + matches.objects.sum(axis=1)
    f1: np.ndarray = np.where(total == 0, 1.0, 2 * right / np.maximum(total, 1))
    return f1


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    total = np.nan_to_num(precision) + recall
    f1: np.ndarray = 2 * np.nan_to_num(precision) * recall / np.where(total == 0, 1, total)
    return f1
