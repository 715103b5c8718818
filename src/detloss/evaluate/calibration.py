"""Is a score of 0.8 right eight times in ten, and does a higher score mean a better box?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from detloss.evaluate.detections import Detections, Truth, xywh

BINS = 10
MATCH_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far scores are from being probabilities.

    A detection is right when it is matched to an object of its class at IoU ≥ 0.5, one to one, higher scores
    first. Those with a score ≥ ``threshold`` count, except where they fall on an ignored object.
    ``ece = Σ_b count_b / detections · |accuracy_b - confidence_b|`` over ten bins of score of equal width
    (Guo et al. 2017, eq. 3). Few detections can look calibrated, hence the recall and the AP beside it.

    Attributes:
        ece: expected calibration error, a fraction of 1; nan without detections.
        threshold: the lowest score that counts.
        detections: how many detections count.
        recall: objects found by those detections / objects; nan without objects.
        ap: the AP of the same evaluation, of all detections.
        edges: (11,) bounds of the bins of score, [low, high), the last one closed.
        confidence: (10,) mean score in each bin, nan where it is empty.
        accuracy: (10,) share of right detections in each bin, nan where it is empty.
        count: (10,) detections in each bin.
    """

    ece: float
    threshold: float
    detections: int
    recall: float
    ap: float
    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def match(
    detections: Sequence[Detections], truths: Sequence[Truth], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Score (n,) and IoU (n,) of each detection that counts; IoU 0 is a mistake, else ≥ 0.5."""
    pairs = [_match_image(found, truth, threshold) for found, truth in zip(detections, truths)]
    scores, ious = np.concatenate([np.zeros((2, 0)), *pairs], axis=1)
    return scores, ious


def calibrate(scores: np.ndarray, ious: np.ndarray, objects: int, ap: float, threshold: float) -> Calibration:
    """The calibration of what ``match`` returned."""
    right = ious > 0
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.searchsorted(edges[1:-1], scores, side="right")
    count = np.bincount(bins, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    confidence = np.bincount(bins, weights=scores, minlength=BINS) / filled
    accuracy = np.bincount(bins, weights=right, minlength=BINS) / filled
    gap = float(np.nansum(count * np.abs(accuracy - confidence)))
    return Calibration(
        ece=gap / len(scores) if len(scores) else math.nan,
        threshold=threshold,
        detections=len(scores),
        recall=float(right.sum()) / objects if objects else math.nan,
        ap=ap,
        edges=edges,
        confidence=confidence,
        accuracy=accuracy,
        count=count,
    )


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays: Pearson's over ranks, equal values sharing their mean.

    nan for fewer than two pairs, or where all values of one are equal.
    """
    if len(a) < 2:
        return math.nan
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = np.cumsum(count) - (count - 1) / 2
    return ranks[inverse]


def _match_image(found: Detections, truth: Truth, threshold: float) -> np.ndarray:
    """(2, n), score and IoU. COCO's matching: by falling score, each to the free object of most overlap."""
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] >= threshold]
    scores, ious = found.scores[order].astype(np.float64), np.zeros(len(order))
    if not len(order) or not len(truth.labels):
        return np.stack([scores, ious])
    overlap = coco_mask.iou(xywh(found.boxes[order]), xywh(truth.boxes), truth.ignored.astype(int).tolist())
    overlap[found.labels[order, None] != truth.labels] = 0.0
    on_ignored = (overlap[:, truth.ignored] >= MATCH_IOU).any(axis=1)
    overlap = overlap[:, ~truth.ignored]
    for row in range(len(order) if overlap.shape[1] else 0):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= MATCH_IOU:
            ious[row] = overlap[row, best]
            overlap[:, best] = 0.0
    return np.stack([scores, ious])[:, (ious > 0) | ~on_ignored]
