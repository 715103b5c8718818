"""Is a score of 0.8 right eight times in ten, and does a higher score mean a better box?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from detloss.lab.evaluate.calibrator import cross_fitted
from detloss.lab.evaluate.coco import Counted

BINS = 10
LAECE_BINS = 25
DECE_BINS = (5, 5, 5, 5, 5)
DECE_LEAST = 8


@dataclass(frozen=True)
class ClassCalibration:
    """The numbers of ``Calibration`` over the detections and objects of one class.

    ``laece`` is the class's term of the mean, nan without detections; ``score_iou_correlation`` is as in
    ``Evaluation``.
    """

    name: str
    objects: int
    detections: int
    recall: float
    ap: float
    ece: float
    signed_gap: float
    laece: float
    score_iou_correlation: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far scores are from being probabilities.

    A detection is right when it is matched to an object of its class at IoU ≥ 0.5, one to one, higher scores
    first. Those with a score ≥ ``threshold`` count, except where they fall on an ignored object. Few
    detections can look calibrated, hence the recall and the AP beside the errors; and few detections look
    uncalibrated by chance alone, hence the errors by chance. All are fractions of 1, nan without detections.

    Attributes:
        ece: expected calibration error, ``expected_calibration_error``.
        ece_by_chance: about what ``ece`` would be on as many detections if every score were right.
        signed_gap: mean score - share of right detections; above 0 over-confident, below under-confident.
        dece: detection-ECE, ``detection_calibration_error``; nan also without the sizes of the images.
        dece_by_chance: as ``ece_by_chance``.
        dece_detections: how many detections are in the cells that ``dece`` is over.
        dece_all, dece_all_by_chance: the same over all cells, however few detections are in them.
        ece_platt: ``ece`` of the scores after Platt scaling, each half of the images by a fit to the other
            half, ``detloss.lab.evaluate.calibrator``: what is left where two parameters repair the scores.
        laece: localisation-aware ECE, ``localisation_aware_error``.
        laece0, laace0: the same for detections that are right from any overlap on, over bins and detection by
            detection, |score - IoU|; LaECE₀ and LaACE₀ of Kuzucu et al., ECCV 2024 (2405.20459).
        threshold: the lowest score that counts.
        detections: how many detections count.
        recall: objects found by those detections / objects; nan without objects.
        ap: the AP of the same evaluation, of all detections.
        edges: (11,) bounds of the bins of score, [low, high), the last one closed.
        confidence: (10,) mean score in each bin, nan where it is empty.
        accuracy: (10,) share of right detections in each bin, nan where it is empty.
        precision_iou: (10,) that share × the mean IoU of the right ones, nan where the bin is empty.
        count: (10,) detections in each bin.
        per_class: the same class by class.
    """

    ece: float
    ece_by_chance: float
    ece_platt: float
    signed_gap: float
    dece: float
    dece_by_chance: float
    dece_detections: int
    dece_all: float
    dece_all_by_chance: float
    laece: float
    laece0: float
    laace0: float
    threshold: float
    detections: int
    recall: float
    ap: float
    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    precision_iou: np.ndarray
    count: np.ndarray
    per_class: tuple[ClassCalibration, ...]


class Judged(NamedTuple):
    """The n detections that count, image after image, higher scores first.

    Attributes:
        scores: (n,).
        ious: (n,) with the object that a detection is matched to; 0 is a mistake.
        labels: (n,).
        images: (n,) which image.
        places: (n, 4) centre x, centre y, width, height as fractions of the image; nan without its size.
    """

    scores: np.ndarray
    ious: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    places: np.ndarray


def judge(
    counted: Counted,
    threshold: float,
    sizes: Sequence[tuple[int, int]] | None = None,
    loosely: bool = False,
) -> Judged:
    """The detections with a score of at least ``threshold``; ``sizes``: (height, width) of each image.

    ``loosely``: right from any overlap on. What is unmatched and lies on an ignored object from IoU 0.5 on
    does not count there either.
    """
    matches, ious = counted.matches, counted.ious[:, int(loosely)]
    kept = np.flatnonzero((matches.score >= threshold) & (matches.counts[:, 0] | (ious > 0)))
    kept = kept[np.lexsort((-matches.score[kept], matches.image[kept]))]
    image, boxes = matches.image[kept], counted.boxes[kept]
    shape = np.full((len(kept), 2), np.nan) if sizes is None else np.reshape(sizes, (-1, 2))[image, ::-1]
    places = np.hstack([(boxes[:, :2] + boxes[:, 2:] / 2) / shape, boxes[:, 2:] / shape])
    return Judged(matches.score[kept].astype(np.float64), ious[kept], matches.label[kept], image, places)


def calibrate(
    judged: Judged,
    loosely: Judged,
    objects: np.ndarray,
    names: Sequence[str],
    ap: float,
    class_ap: Sequence[float],
    threshold: float,
) -> Calibration:
    """The calibration of what ``judge`` returned, and of what it returned from any overlap on.

    ``objects``: (C,) how many there are of each class.
    """
    scores, ious, gaps = judged.scores, judged.ious, np.abs(loosely.scores - loosely.ious)
    right = (ious > 0).astype(np.float64)
    bins = equal_bins(scores, BINS)
    count = np.bincount(bins, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    confidence, accuracy, precision_iou = (
        np.bincount(bins, weights=values, minlength=BINS) / filled for values in (scores, right, ious)
    )
    dece, dece_by_chance, dece_detections = detection_calibration_error(scores, right, judged.places)
    dece_all, dece_all_by_chance, _ = detection_calibration_error(scores, right, judged.places, least=1)
    return Calibration(
        **_common(scores, ious, int(objects.sum()), ap),
        ece_by_chance=_cells_error(scores, right, bins)[1],
        ece_platt=expected_calibration_error(cross_fitted(scores, right, judged.images), right),
        dece=dece,
        dece_by_chance=dece_by_chance,
        dece_detections=dece_detections,
        dece_all=dece_all,
        dece_all_by_chance=dece_all_by_chance,
        laece=localisation_aware_error(scores, ious, judged.labels),
        laece0=localisation_aware_error(loosely.scores, loosely.ious, loosely.labels),
        laace0=_average(np.array([_average(gaps[own]) for own in _by_class(loosely.labels)])),
        threshold=threshold,
        edges=np.arange(BINS + 1) / BINS,
        confidence=confidence,
        accuracy=accuracy,
        precision_iou=precision_iou,
        count=count,
        per_class=tuple(
            ClassCalibration(
                name=name,
                objects=int(objects[label]),
                **_common(scores[own], ious[own], int(objects[label]), class_ap[label]),
                laece=expected_calibration_error(scores[own], ious[own], LAECE_BINS),
                score_iou_correlation=rank_correlation(scores[own & (ious > 0)], ious[own & (ious > 0)]),
            )
            for label, name in enumerate(names)
            for own in [judged.labels == label]
        ),
    )


def _common(scores: np.ndarray, ious: np.ndarray, objects: int, ap: float) -> dict[str, Any]:
    """The numbers that all detections have and those of a class."""
    right = ious > 0
    return {
        "detections": len(scores),
        "recall": float(right.sum()) / objects if objects else math.nan,
        "ap": ap,
        "ece": expected_calibration_error(scores, right),
        "signed_gap": _average(scores - right),
    }


def expected_calibration_error(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """ECE = Σ_b n_b / n · |share right in b - mean score in b| over bins of score of equal width.

    Guo et al. 2017 (1706.04599), equation 3. The bins are [low, high), the last one closed.

    Args:
        scores: (n,) in [0, 1].
        right: (n,) 1 for a right detection, 0 for a mistake.
        bins: how many.

    Returns:
        A fraction of 1; nan for n = 0.
    """
    return _cells_error(scores, right, equal_bins(scores, bins))[0]


def detection_calibration_error(
    scores: np.ndarray,
    right: np.ndarray,
    places: np.ndarray,
    bins: Sequence[int] = DECE_BINS,
    least: int = DECE_LEAST,
) -> tuple[float, float, int]:
    """D-ECE: as ECE, over the cells of a grid of score, place and size of the box in place of bins of score.

    ``Σ_k n_k / n · |share right in cell k - mean score in cell k|``, so that scores too high at the border
    and too low in the middle, or so for small and large boxes, do not cancel. Küppers et al. 2020
    (2004.13546).
    A cell with fewer than ``least`` detections is left out, of n also; it would add chance more than error.
    With ``least=1`` all cells count, each with its n_k. (The authors' package, net:cal, leaves a small cell
    in n with an error of 0.) One bin for each of the four, with ``least=1``, is plain ECE.

    Args:
        scores: (n,) in [0, 1].
        right: (n,) 1 for a right detection, 0 for a mistake.
        places: (n, 4) centre x, centre y, width, height as fractions of the image, clipped to [0, 1] here.
        bins: of equal width, for the score and for each of the four.
        least: the fewest detections that a cell needs.

    Returns:
        D-ECE, about what it would be by chance if every score were right, and how many detections are in the
        cells that count; nan, nan, 0 where there are none or ``places`` is not known.
    """
    if np.isnan(places).any():
        return math.nan, math.nan, 0
    grid = [equal_bins(values, n) for values, n in zip((scores, *np.clip(places, 0, 1).T), bins, strict=True)]
    return _cells_error(scores, right, np.ravel_multi_index(grid, tuple(bins)), least)


def localisation_aware_error(
    scores: np.ndarray, ious: np.ndarray, labels: np.ndarray, bins: int = LAECE_BINS
) -> float:
    """LaECE: the score should be the IoU that a detection reaches, 0 for a mistake.

    For each class ``Σ_b n_b / n · |mean score in b - precision in b · mean IoU of the right ones in b|``,
    then the mean over the classes with detections. Oksuz et al., CVPR 2023 (2307.00934), whose
    detections are right from IoU 0.1 on; here it is 0.5 as everywhere.

    Args:
        scores: (n,) in [0, 1].
        ious: (n,) IoU of a right detection with its object, 0 for a mistake.
        labels: (n,) class of each.
        bins: of score, of equal width.

    Returns:
        A fraction of 1; nan for n = 0.
    """
    # precision · mean IoU of the right ones is the sum of their IoUs over all in the bin
    each = [expected_calibration_error(scores[own], ious[own], bins) for own in _by_class(labels)]
    return _average(np.array(each))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays: Pearson's over ranks, equal values sharing their mean.

    nan for fewer than two pairs, or where all values of one are equal.
    """
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def equal_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Index of each value of [0, 1] among bins of equal width, [low, high), the last one closed."""
    # k / bins is the nearest number to the bound; linspace is one step above at 0.3 and 0.6. Scores are
    # float32, where 0.7 and 0.9 are a little below the float64 of that name.
    bounds = np.arange(1, bins) / bins
    return np.searchsorted(np.minimum(bounds, bounds.astype(np.float32)), values, side="right")


def _cells_error(
    scores: np.ndarray, outcome: np.ndarray, cells: np.ndarray, least: int = 1
) -> tuple[float, float, int]:
    """Σ_k |Σ_i∈k (score_i - outcome_i)| / n over the cells of at least ``least``; by chance; n."""
    _, cells, count = np.unique(cells, return_inverse=True, return_counts=True)
    kept = count >= least
    n = int(count[kept].sum())
    if not n:
        return math.nan, math.nan, 0
    gap = np.bincount(cells, weights=scores - outcome)[kept]
    # Were every score right, a cell's sum would be about normal with this variance: E|x| = σ √(2/π).
    variance = np.bincount(cells, weights=scores * (1 - scores))[kept]
    chance = math.sqrt(2 / math.pi) * float(np.sqrt(variance).sum())
    return float(np.abs(gap).sum()) / n, chance / n, n


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == label for label in np.unique(labels)]


def _average(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = np.cumsum(count) - (count - 1) / 2
    return ranks[inverse]
