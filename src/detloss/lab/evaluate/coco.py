"""COCO's matching of detections with objects, and what is read off it, by hotcoco."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import Truth, xywh
from detloss.lab.evaluate.matches import Matches
from detloss.lab.evaluate.operating import Operating, operating

ALL = (0.0, 1e10)
ANY_OVERLAP = 1e-9
ERRORS = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


class Counted(NamedTuple):
    """What COCO counts on one data set.

    Attributes:
        precision: (10 IoUs, 101 recalls, classes, areas) at 100 detections per image; -1 where no object is.
        recall: (10 IoUs, classes, areas, 3) at 1, 10 and 100 detections.
        matches: which of n detections are right, over all areas.
        boxes: (n, 4) of the detections, as COCO's x, y, width, height.
        ious: (n, 2) with the object that a detection is matched to where IoU 0.5 is needed, and where any
            overlap will do; 0 is unmatched.
        errors: kind of error → AP50 that mending it would add, see `Evaluation`.
        operating: precision and recall against the score.
        confusion: (classes + 1, classes + 1) objects against detections, see `Evaluation`.
    """

    precision: np.ndarray
    recall: np.ndarray
    matches: Matches
    boxes: np.ndarray
    ious: np.ndarray
    errors: dict[str, float]
    operating: Operating
    confusion: tuple[tuple[int, ...], ...]


def count(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    areas: Sequence[tuple[float, float]],
) -> Counted:
    """Count as COCO does, for each of the `areas` of objects in pixels²; arguments as of `evaluate`."""
    objects = _table([(xywh(truth.boxes), truth.ignored, truth.labels) for truth in truths])
    truth_set = COCO(
        {
            "images": [{"id": i} for i in range(len(truths))],
            # ids from 1: the evaluator takes 0 for "unmatched"
            "annotations": [
                {
                    **{"id": i, "image_id": int(image), "category_id": int(label)},
                    **{"bbox": box, "area": box[2] * box[3], "iscrowd": int(ignored)},
                }
                for i, (image, *box, ignored, label) in enumerate(objects.tolist(), start=1)
            ],
            "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
        }
    )
    found = _table([(xywh(found.boxes), found.scores, found.labels) for found in detections])
    by_area = _evaluated(truth_set, found, areas)
    overall = _evaluated(truth_set, found, [ALL], [ANY_OVERLAP])
    gains = overall.tide_errors()["delta_ap"]
    # The evaluator's record of each image and class; it takes the best 100 detections, whose ids are from 1.
    pairs = [pair for pair in overall.eval_imgs if pair is not None and pair["dtIds"]]
    found = found[np.concatenate([np.zeros(0, np.int64), *(np.array(pair["dtIds"]) - 1 for pair in pairs)])]
    partner, ignored = (
        np.concatenate([np.zeros((11, 0), kind), *(np.array(pair[of], kind) for pair in pairs)], axis=1).T
        for of, kind in (("dtMatches", np.int64), ("dtIgnore", bool))
    )
    right = (partner > 0) & ~ignored
    there = objects[objects[:, 5] == 0]
    matches = Matches(
        ids=np.array([str(truth.id) for truth in truths], dtype=str),
        objects=np.zeros((len(truths), len(names)), np.int32),
        image=found[:, 0].astype(np.int32),
        label=found[:, 6].astype(np.int16),
        score=found[:, 5].astype(np.float32),
        right=right[:, 1:],
        counts=~ignored[:, 1:],
    )
    np.add.at(matches.objects, (there[:, 0].astype(int), there[:, 6].astype(int)), 1)
    deployed = operating(matches)
    # Without those on ignored objects, which hotcoco would call mistakes.
    kept = found[matches.counts[:, 0] & (matches.score >= np.float32(deployed.best_score))]
    confusion = COCOeval(truth_set, truth_set.load_res(kept), "bbox").confusion_matrix()
    ious = np.zeros((len(found), 2))
    for column, needed in enumerate((1, 0)):
        own = right[:, needed]
        ious[own, column] = _paired_iou(found[own, 1:5], objects[partner[own, needed] - 1, 1:5])
    return Counted(
        precision=np.asarray(by_area.eval["precision"])[..., -1],
        recall=np.asarray(by_area.eval["recall"]),
        matches=matches,
        boxes=found[:, 1:5],
        ious=ious,
        errors={name: float(gains[short]) for short, name in ERRORS.items()},
        operating=deployed,
        confusion=tuple(map(tuple, confusion["matrix"].tolist())),
    )


def _table(images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """COCO's rows image, x, y, width, height, score, class, of boxes, scores and classes image by image."""
    rows = [np.column_stack([np.full(len(one[1]), i), *one]) for i, one in enumerate(images)]
    return np.concatenate([np.zeros((0, 7)), *rows])


def _evaluated(
    truth: COCO, found: np.ndarray, areas: Sequence[tuple[float, float]], more_ious: Sequence[float] = ()
) -> Any:
    evaluator = COCOeval(truth, truth.load_res(found), "bbox")
    params = evaluator.params
    params.areaRng = [list(area) for area in areas]
    params.areaRngLbl = [str(area) for area in areas]
    params.iouThrs = [*more_ious, *params.iouThrs]
    evaluator.params = params
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) IoU of (n, 4) boxes x, y, width, height with as many others, which they overlap."""
    ends = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    inside = (ends - np.maximum(a[:, :2], b[:, :2])).prod(axis=1)
    iou: np.ndarray = inside / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - inside)
    return iou
