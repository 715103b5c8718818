"""COCO's matching of detections with objects, and what is read off it, by hotcoco."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import Truth, to_coco_results, xywh
from detloss.lab.evaluate.matches import Matches

ALL = (0.0, 1e10)
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
        matches: which detections are right, over all areas.
        errors: kind of error → AP50 that mending it would add, see `Evaluation`.
    """

    precision: np.ndarray
    recall: np.ndarray
    matches: Matches
    errors: dict[str, float]


def count(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    names: Sequence[str],
    areas: Sequence[tuple[float, float]],
) -> Counted:
    """Count as COCO does, for each of the `areas` of objects in pixels²; arguments as of `evaluate`."""
    objects = [
        {"image_id": i, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": int(ignored)}
        for i, truth in enumerate(truths)
        for box, label, ignored in zip(
            xywh(truth.boxes).tolist(), truth.labels.tolist(), truth.ignored.tolist()
        )
    ]
    truth_set = COCO(
        {
            "images": [{"id": i} for i in range(len(truths))],
            # ids from 1: the evaluator takes 0 for "unmatched"
            "annotations": [{"id": i, **each} for i, each in enumerate(objects, start=1)],
            "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
        }
    )
    found = truth_set.load_res(to_coco_results(detections, range(len(truths)), range(len(names))))
    by_area = _evaluated(truth_set, found, areas)
    overall = _evaluated(truth_set, found, [ALL])
    gains = overall.tide_errors()["delta_ap"]
    return Counted(
        precision=np.asarray(by_area.eval["precision"])[..., -1],
        recall=np.asarray(by_area.eval["recall"]),
        matches=_matches(overall.eval_imgs, detections, truths, len(names)),
        errors={name: float(gains[short]) for short, name in ERRORS.items()},
    )


def _evaluated(truth: COCO, found: COCO, areas: Sequence[tuple[float, float]]) -> Any:
    evaluator = COCOeval(truth, found, "bbox")
    params = evaluator.params
    params.areaRng = [list(area) for area in areas]
    params.areaRngLbl = [str(area) for area in areas]
    evaluator.params = params
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _matches(
    pairs: Sequence[Any],
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    classes: int,
) -> Matches:
    """From the evaluator's record of each pair of image and class (None: nothing there); ids are from 1."""
    kept = [pair for pair in pairs if pair is not None and pair["dtIds"]]
    rows = np.concatenate([np.zeros(0, np.int64), *(np.array(pair["dtIds"]) - 1 for pair in kept)])
    right, ignored = (
        np.concatenate([np.zeros((10, 0), bool), *(np.array(pair[of]) for pair in kept)], axis=1).T
        for of in ("dtMatched", "dtIgnore")
    )
    image = np.repeat(np.arange(len(detections)), [len(found.scores) for found in detections])
    objects = np.zeros((len(truths), classes), np.int32)
    for i, truth in enumerate(truths):
        np.add.at(objects[i], truth.labels[~truth.ignored], 1)
    return Matches(
        ids=np.array([str(truth.id) for truth in truths], dtype=str),
        objects=objects,
        image=image[rows].astype(np.int32),
        label=_joined(detections, "labels", np.int16)[rows],
        score=_joined(detections, "scores", np.float32)[rows],
        right=right & ~ignored,
        counts=~ignored,
    )


def _joined(detections: Sequence[Detections], name: str, dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(getattr(found, name) for found in detections)]).astype(dtype)
