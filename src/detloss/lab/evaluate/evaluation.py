"""COCO's AP and AR, and all that is measured on one data set in one record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.detections import Truth, check, xywh
from detloss.lab.evaluate.matches import Matches
from detloss.lab.evaluate.operating import Operating
from detloss.lab.evaluate.reliability import Calibration, calibrate, judge, rank_correlation
from detloss.lab.evaluate.voc import voc_map
from detloss.lab.records import from_dict, to_dict

SIZE_EDGES = (0.0, 16.0, 32.0, 64.0, 96.0, math.inf)
_COCO_AREAS = (ALL, (0, 32**2), (32**2, 96**2), (96**2, 1e10))
_DRAWN_PAIRS = 2000


@dataclass(frozen=True)
class SizeBin:
    """AP over the objects with ``low ≤ √area < high``, in pixels; ``high`` may be infinite, null in JSON."""

    low: float
    high: float
    objects: int
    ap: float

    def __post_init__(self) -> None:
        if math.isnan(self.high):
            object.__setattr__(self, "high", math.inf)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that is measured on one data set; AP and AR are fractions of 1, nan where nothing is to measure.

    Attributes:
        images, objects, detections: how many; ignored objects do not count.
        ap, ap50, ap75, ap_small, ap_medium, ap_large: COCO's average precision.
        ar1, ar10, ar100, ar_small, ar_medium, ar_large: COCO's average recall.
        voc2007, voc2010: mAP at IoU 0.5 by VOC's rules, see ``voc_ap``.
        per_class: class name → AP, nan for a class without objects.
        errors: kind of error → AP50 that mending all of that kind would add, by TIDE (Bolya et al. 2020,
            2008.08115): "classification", "localisation", "both", "duplicate", "background", "missed".
        operating: precision, recall and F1 against the score, and the score of the best F1.
        confusion: (classes + 1, classes + 1) at that score and IoU 0.5: how many objects of class i (row)
            were found as class j (column). The last column: objects that were not found. The last row:
            detections where no object is.
        size_bins: AP by size of object; bins without objects are left out.
        calibration: scores as probabilities.
        score_iou_correlation: Spearman's rank correlation between score and IoU over the right detections of
            ``calibration``; nan for fewer than two, or where all scores or all IoUs are equal.
        recall_grid: (101,) recall 0, 0.01, … 1.
        precision: class name → (101,) interpolated precision at IoU 0.5; classes with objects only.
        scores, ious: up to 2000 of the pairs behind ``score_iou_correlation``, evenly spaced, to draw.
    """

    images: int
    objects: int
    detections: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    voc2007: float
    voc2010: float
    per_class: dict[str, float]
    errors: dict[str, float]
    operating: Operating
    confusion: tuple[tuple[int, ...], ...]
    size_bins: tuple[SizeBin, ...]
    calibration: Calibration
    score_iou_correlation: float
    recall_grid: np.ndarray
    precision: dict[str, np.ndarray]
    scores: np.ndarray
    ious: np.ndarray

    @property
    def mean_precision(self) -> np.ndarray:
        """(101,) precision at IoU 0.5, mean over the classes with objects; nan where there is none."""
        curves = list(self.precision.values())
        mean: np.ndarray = np.mean(curves, axis=0) if curves else np.full(101, np.nan)
        return mean

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan and infinity become None."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: object = "evaluation") -> Evaluation:
        """The inverse of ``to_dict``; keys that are not of an ``Evaluation`` are left out.

        Raises:
            ValueError: a key is missing or of another form, as where an older version wrote it; it begins
                with ``where``, the name of the file.
        """
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        return from_dict(cls, known, str(where))


def evaluate(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    *,
    score_threshold: float = 0.05,
    size_edges: Sequence[float] = SIZE_EDGES,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Evaluation:
    """Compare detections with the truth, image by image.

    AP and AR follow COCO: at most 100 detections per image and class; an object's area is that of its box.
    An ignored object (VOC "difficult", COCO "iscrowd") is COCO's crowd: it need not be found, and detections
    of its class count neither for nor against where their overlap with it, intersection over *their own*
    area, reaches the IoU threshold. VOC's rule takes IoU there, and forgives fewer small boxes inside it.

    Args:
        detections: one per image, in the order of ``truths``.
        truths: one per image: ``boxes`` (N, 4) xyxy in pixels, ``labels`` (N,), ``ignored`` (N,), ``id``.
        names: class names; label i is names[i].
        score_threshold: the lowest score that counts for the calibration and the score-IoU correlation. AP
            takes every detection.
        size_edges: increasing bounds of the own size bins, in pixels of √area.
        sizes: (height, width) of each image in pixels, for the detection-ECE; without them it is nan.

    Raises:
        ValueError: lengths, shapes, labels, scores or boxes that cannot be; the image is named.
    """
    return evaluate_matched(detections, truths, names, score_threshold, size_edges, sizes)[0]


def evaluate_matched(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    score_threshold: float = 0.05,
    size_edges: Sequence[float] = SIZE_EDGES,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[Evaluation, Matches]:
    """As ``evaluate``; with it, which of the detections are right."""
    check(detections, truths, len(names))
    if len(size_edges) < 2 or size_edges[0] < 0 or any(low >= high for low, high in pairwise(size_edges)):
        raise ValueError(f"size_edges: expected two or more increasing numbers ≥ 0, got {tuple(size_edges)}")
    if sizes is not None and len(sizes) != len(truths):
        raise ValueError(f"sizes: {len(sizes)} images, but truths has {len(truths)}; give one for each")
    for size, truth in zip(sizes or (), truths):
        if min(size) <= 0:
            raise ValueError(
                f"sizes: expected (height, width) above 0, got {tuple(size)} (image {truth.id!r})"
            )
    boxes = np.concatenate([np.zeros((0, 4)), *(xywh(truth.boxes[~truth.ignored]) for truth in truths)])
    area = boxes[:, 2] * boxes[:, 3]
    # COCO's areas include both ends; ours leave out the upper one, so that each object is in one bin only.
    bounds = [(low**2, float(np.nextafter(min(high**2, 1e10), 0))) for low, high in pairwise(size_edges)]
    in_bin = [int(np.count_nonzero((area >= low) & (area <= high))) for low, high in bounds]
    counted = count(detections, truths, names, [*_COCO_AREAS, *bounds])
    precision, recall = counted.precision, counted.recall
    by_area = [_mean(precision[..., i]) for i in range(precision.shape[-1])]
    at50 = precision[0, :, :, 0]
    per_class = [_mean(precision[:, :, i, 0]) for i in range(len(names))]
    voc2007, voc2010 = voc_map(detections, truths, names)
    judged = judge(counted, score_threshold, sizes)
    loosely = judge(counted, score_threshold, loosely=True)
    scores, ious = judged.scores, judged.ious
    right = np.flatnonzero(ious)
    objects = counted.matches.objects.sum(axis=0)
    drawn = right[np.linspace(0, max(len(right) - 1, 0), min(len(right), _DRAWN_PAIRS)).astype(np.int64)]
    evaluation = Evaluation(
        images=len(truths),
        objects=int(objects.sum()),
        detections=sum(len(found.scores) for found in detections),
        ap=by_area[0],
        ap50=_mean(at50),
        ap75=_mean(precision[5, :, :, 0]),
        ap_small=by_area[1],
        ap_medium=by_area[2],
        ap_large=by_area[3],
        ar1=_mean(recall[:, :, 0, 0]),
        ar10=_mean(recall[:, :, 0, 1]),
        ar100=_mean(recall[:, :, 0, 2]),
        ar_small=_mean(recall[:, :, 1, 2]),
        ar_medium=_mean(recall[:, :, 2, 2]),
        ar_large=_mean(recall[:, :, 3, 2]),
        voc2007=voc2007,
        voc2010=voc2010,
        per_class=dict(zip(names, per_class)),
        errors=counted.errors,
        operating=counted.operating,
        confusion=counted.confusion,
        size_bins=tuple(
            SizeBin(float(low), float(high), count, ap)
            for (low, high), count, ap in zip(pairwise(size_edges), in_bin, by_area[len(_COCO_AREAS) :])
            if count
        ),
        calibration=calibrate(judged, loosely, objects, names, by_area[0], per_class, score_threshold),
        score_iou_correlation=rank_correlation(scores[right], ious[right]),
        recall_grid=np.linspace(0.0, 1.0, 101),
        precision={name: at50[:, i] for i, name in enumerate(names) if at50[0, i] >= 0},
        scores=scores[drawn],
        ious=ious[drawn],
    )
    return evaluation, counted.matches


def evaluate_at(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    thresholds: Sequence[float],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Evaluation]:
    """For each threshold the evaluation of the detections with a score of at least that, AP too.

    It shows what a low calibration error costs: few detections can look calibrated. Arguments and errors are
    those of ``evaluate``.
    """
    evaluations = []
    for least in thresholds:
        kept = [
            Detections(*(array[found.scores >= least] for array in (found.boxes, found.scores, found.labels)))
            for found in detections
        ]
        evaluations.append(evaluate(kept, truths, names, score_threshold=least, sizes=sizes))
    return evaluations


def _mean(values: np.ndarray) -> float:
    """Mean over what was measured (COCO marks the rest -1), nan where nothing was."""
    measured = values[values >= 0]
    return float(measured.mean()) if measured.size else math.nan
