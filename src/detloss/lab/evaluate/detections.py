"""What was there, beside what a detector found; COCO's results list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detloss.lab.data.sample import Detections


class Truth(Protocol):
    """The annotation of one image: any object with these attributes, such as a `detloss.lab.data.Sample`."""

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4), xyxy in pixels."""

    @property
    def labels(self) -> np.ndarray:
        """(N,), 0..C-1."""

    @property
    def ignored(self) -> np.ndarray:
        """(N,) bool: neither to be found nor a mistake when found."""

    @property
    def id(self) -> str:
        """The name of the image in messages."""


def xywh(boxes: np.ndarray) -> np.ndarray:
    """Boxes xyxy → COCO's (x, y, width, height), float64 so that float32 boxes survive the way back."""
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1)


def to_coco_results(
    detections: Sequence[Detections], ids: Sequence[str | int], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """COCO's results list: one dict a detection, bbox as (x, y, width, height).

    Args:
        detections: one per image.
        ids: the image ids, in the same order.
        category_ids: the category id of each label; without it, the label itself.
    """
    return [
        {
            "image_id": image_id,
            "category_id": label if category_ids is None else category_ids[label],
            "bbox": box,
            "score": score,
        }
        for found, image_id in zip(detections, ids, strict=True)
        for box, score, label in zip(xywh(found.boxes).tolist(), found.scores.tolist(), found.labels.tolist())
    ]


def read_coco_results(file: Path) -> list[dict[str, Any]]:
    """The list of a file of COCO results.

    Raises:
        ValueError: it is not such a list, or a result lacks a field or has one of another type.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    kinds: dict[str, Any] = {"image_id": (int, str), "category_id": int, "bbox": list, "score": (int, float)}
    if not isinstance(results, list):
        raise ValueError(f"{file} is not a list of COCO results, which have {', '.join(kinds)}")
    for i, result in enumerate(results):
        for name, kind in kinds.items():
            if not isinstance(result, dict) or not isinstance(result.get(name), kind):
                raise ValueError(f"{file}: results[{i}] has no {name!r} of COCO's results")
        box = result["bbox"]
        if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
            raise ValueError(f"{file}: results[{i}].bbox is {box}, must be [x, y, width, height]")
    return results


def from_coco_results(
    results: Sequence[Mapping[str, Any]], ids: Sequence[str | int], category_ids: Sequence[int] | None = None
) -> list[Detections]:
    """The inverse of ``to_coco_results``: one ``Detections`` for each id, empty where nothing was found.

    Raises:
        ValueError: a result names an image or a category that is not among those given.
    """
    labels = None if category_ids is None else {category: i for i, category in enumerate(category_ids)}
    rows: dict[str | int, list[Mapping[str, Any]]] = {image_id: [] for image_id in ids}
    for i, result in enumerate(results):
        if result["image_id"] not in rows:
            raise ValueError(
                f"results[{i}]: image_id {result['image_id']!r} is not among the {len(rows)} ids given"
            )
        if labels is not None and result["category_id"] not in labels:
            raise ValueError(
                f"results[{i}]: category_id {result['category_id']!r} is not in {sorted(labels)}"
            )
        rows[result["image_id"]].append(result)
    return [_read(group, labels) for group in rows.values()]


def _read(results: Sequence[Mapping[str, Any]], labels: Mapping[int, int] | None) -> Detections:
    boxes = np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        boxes.astype(np.float32),
        np.array([r["score"] for r in results], dtype=np.float32),
        np.array([labels[c] if labels else c for c in (r["category_id"] for r in results)], dtype=np.int64),
    )


def check(detections: Sequence[Detections], truths: Sequence[Truth], classes: int) -> None:
    """Raise a ValueError that names the argument, the row and the image where an array cannot be right."""
    if len(detections) != len(truths):
        raise ValueError(
            f"detections: {len(detections)} images, but truths has {len(truths)}; give one for each"
        )
    for found, truth in zip(detections, truths):
        n, m, image = len(found.scores), len(truth.labels), f"(image {truth.id!r})"
        for what, array, shape in (
            ("detections.boxes", found.boxes, (n, 4)),
            ("detections.scores", found.scores, (n,)),
            ("detections.labels", found.labels, (n,)),
            ("truths.boxes", truth.boxes, (m, 4)),
            ("truths.labels", truth.labels, (m,)),
            ("truths.ignored", truth.ignored, (m,)),
        ):
            if array.shape != shape:
                raise ValueError(f"{what}: expected shape {shape}, got {array.shape} {image}")
        for side, boxes, labels in (
            ("detections", found.boxes, found.labels),
            ("truths", truth.boxes, truth.labels),
        ):
            good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
            _require(good, f"{side}.boxes", boxes, "finite x1 ≤ x2, y1 ≤ y2", image)
            known = (labels >= 0) & (labels < classes)
            _require(known, f"{side}.labels", labels, f"0..{classes - 1}", image)
        scores = found.scores
        _require((scores >= 0) & (scores <= 1), "detections.scores", scores, "0..1", image)


def _require(good: np.ndarray, what: str, values: np.ndarray, expected: str, image: str) -> None:
    if not good.all():
        row = int(good.argmin())
        raise ValueError(f"{what}[{row}]: expected {expected}, got {values[row].tolist()} {image}")
