"""Objects and detections that speak against the labels: the ones of highest loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from detloss.boxes import box_iou
from detloss.lab.data import Dataset
from detloss.lab.data.sample import Detections

FOUND, APART = 0.5, 0.1
"""IoU from which a detection speaks of an object, and below which it speaks of none (TIDE's)."""
DRAWN = 16
_LEAST = 1e-4  # of a probability: one box must not weigh without end


@dataclass(frozen=True)
class Suspect:
    """An object whose label the detector contradicts, or a detection where no object is labelled.

    Attributes:
        image: its id.
        labelled: class of the object; "" where none is.
        found: class of highest score there; "" where nothing is found.
        score: of that class.
        loss: cross entropy of the label over all classes, each with its highest score there.
        x1, y1, x2, y2: box of the object, or of the detection, in pixels of the image.
    """

    image: str
    labelled: str
    found: str
    score: float
    loss: float
    x1: float
    y1: float
    x2: float
    y2: float


SUSPECT_COLUMNS = tuple(column.name for column in fields(Suspect))


def suspects(detections: Sequence[Detections], dataset: Dataset, most: int = 100) -> list[Suspect]:
    """The likely label errors, the highest loss first.

    Args:
        detections: of each image.
        dataset: with the labels.
        most: how many are kept.
    """
    listed = [one for i, found in enumerate(detections) for one in _of_image(found, dataset, i)]
    return sorted(listed, key=lambda one: -one.loss)[:most]


def _of_image(found: Detections, dataset: Dataset, i: int) -> list[Suspect]:
    truth = dataset.annotation(i)
    boxes = torch.from_numpy(np.concatenate([truth.boxes, found.boxes]))
    overlap = box_iou(boxes[: len(truth.boxes)], boxes[len(truth.boxes) :]).numpy()
    listed = []
    for row in np.flatnonzero(~truth.ignored):
        scores = np.zeros(len(dataset.names))
        near = overlap[row] >= FOUND
        np.maximum.at(scores, found.labels[near], found.scores[near])
        right = np.arange(len(scores)) == truth.labels[row]
        loss = -np.log(np.clip(np.where(right, scores, 1 - scores), _LEAST, 1)).sum()
        best = int(scores.argmax())
        said = dataset.names[best] if scores[best] else ""
        name = dataset.names[truth.labels[row]]
        box = map(float, truth.boxes[row])
        listed.append(Suspect(truth.id, name, said, float(scores[best]), float(loss), *box))
    alone = (overlap < APART).all(axis=0)
    for k in np.flatnonzero(alone):
        score = float(found.scores[k])
        loss = -float(np.log(max(1 - score, _LEAST)))
        box = map(float, found.boxes[k])
        listed.append(Suspect(truth.id, "", dataset.names[found.labels[k]], score, loss, *box))
    return listed
