"""Average precision by the rules of PASCAL VOC, at IoU 0.5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from hotcoco import mask as coco_mask

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import Truth, check, xywh

MATCH_IOU = 0.5


def voc_ap(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    rule: Literal["2007", "2010"] = "2010",
) -> dict[str, float]:
    """AP of each class, a fraction of 1; nan for a class without objects. Their mean is VOC's mAP.

    The detections of a class, over all images by falling score, each belong to the object of that class and
    image that they overlap most. From IoU 0.5 on the first is right and each further one is a mistake (COCO
    would give it to another object); on a difficult object it is neither. IoU is of continuous coordinates,
    where VOC's development kit counts pixels, both ends included.

    Args:
        detections: one per image, in the order of ``truths``.
        truths: one per image; ``ignored`` are VOC's difficult objects.
        names: class names; label i is names[i].
        rule: "2007": the mean of the best precision at recall ≥ 0, .1, … 1 (Everingham et al. 2010, eq. 1);
            "2010": the area under the precision made monotone, as VOC does from 2010 on.

    Raises:
        ValueError: an unknown rule; lengths, shapes, labels, scores or boxes that cannot be.
    """
    if rule not in ("2007", "2010"):
        raise ValueError(f"rule is {rule!r}; it may be '2007' or '2010'")
    check(detections, truths, len(names))
    area = _AREAS[rule]
    curves = (_curve(detections, truths, label) for label in range(len(names)))
    return {name: area(*curve) if curve else math.nan for name, curve in zip(names, curves)}


def voc_map(detections: Sequence[Detections], truths: Sequence[Truth], names: Sequence[str]) -> list[float]:
    """VOC's mAP by the rule of 2007 and by that of 2010: the mean of ``voc_ap`` over classes with objects.

    Arguments and errors are those of ``voc_ap``; nan without any object.
    """
    check(detections, truths, len(names))
    curves = [_curve(detections, truths, label) for label in range(len(names))]
    there = [curve for curve in curves if curve]
    return [
        float(np.mean([area(*curve) for curve in there])) if there else math.nan for area in _AREAS.values()
    ]


def _curve(
    detections: Sequence[Detections], truths: Sequence[Truth], label: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall and precision of a class after each of its detections; None without objects."""
    objects = sum(int(((t.labels == label) & ~t.ignored).sum()) for t in truths)
    if not objects:
        return None
    pairs = [_judge(found, truth, label) for found, truth in zip(detections, truths)]
    scores, right = np.concatenate(pairs, axis=1)
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    return hits / objects, hits / np.arange(1, len(hits) + 1)


def _judge(found: Detections, truth: Truth, label: int) -> np.ndarray:
    """(2, n): score, and 1 or 0 for right or not, of the detections that count."""
    mine, objects = found.labels == label, truth.labels == label
    scores, boxes = found.scores[mine].astype(np.float64), found.boxes[mine]
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    if not len(scores) or not objects.any():
        return np.stack([scores, np.zeros(len(scores))])
    difficult = truth.ignored[objects]
    iou = coco_mask.iou(xywh(boxes[order]), xywh(truth.boxes[objects]), [0] * int(objects.sum()))
    best, reached = iou.argmax(axis=1), iou.max(axis=1) >= MATCH_IOU
    first = np.zeros(len(scores), dtype=bool)
    first[np.unique(np.where(reached, best, -1), return_index=True)[1]] = True
    counts = ~(reached & difficult[best])
    return np.stack([scores, reached & first])[:, counts]


def _area_2007(recall: np.ndarray, precision: np.ndarray) -> float:
    # Recall is a ratio of counts: .3 of 10 objects must count as reaching the recall .3.
    return float(np.mean([precision[recall >= r - 1e-9].max(initial=0.0) for r in np.linspace(0.0, 1.0, 11)]))


def _area_2010(recall: np.ndarray, precision: np.ndarray) -> float:
    steps = np.diff(recall, prepend=0.0)
    return float(steps @ np.maximum.accumulate(precision[::-1])[::-1])


_AREAS = {"2007": _area_2007, "2010": _area_2010}
