"""COCO's matching of detections with objects, and what is read off it, by hotcoco."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import Truth, to_coco_results, xywh
from detloss.lab.evaluate.matches import Matches
from detloss.lab.evaluate.operating import Operating, operating

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
        operating: precision and recall against the score.
        confusion: (classes + 1, classes + 1) objects against detections, see `Evaluation`.
    """

    precision: np.ndarray
    recall: np.ndarray
    matches: Matches
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
    results = to_coco_results(detections, range(len(truths)), range(len(names)))
    found = truth_set.load_res(results)
    by_area = _evaluated(truth_set, found, areas)
    overall = _evaluated(truth_set, found, [ALL])
    gains = overall.tide_errors()["delta_ap"]
    rows, matches = _matches(overall.eval_imgs, detections, truths, len(names))
    deployed = operating(matches)
    # Without those on ignored objects, which hotcoco would call mistakes.
    kept = rows[matches.counts[:, 0] & (matches.score >= np.float32(deployed.best_score))]
    confusion = COCOeval(
        truth_set, truth_set.load_res([results[row] for row in kept]), "bbox"
    ).confusion_matrix()
    return Counted(
        precision=np.asarray(by_area.eval["precision"])[..., -1],
        recall=np.asarray(by_area.eval["recall"]),
        matches=matches,
        errors={name: float(gains[short]) for short, name in ERRORS.items()},
        operating=deployed,
        confusion=tuple(map(tuple, confusion["matrix"].tolist())),
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
) -> tuple[np.ndarray, Matches]:
    """The detections that COCO takes, as rows of all of them, and their matches.

    `pairs` is the evaluator's record of each image and class, None where nothing is; its ids are from 1.
    """
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
    return rows, Matches(
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
