"""What was there, beside what a detector found; COCO's results list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detloss.lab.data.sample import Detections

FIELDS: dict[str, Any] = {
    **{"image_id": (int, str), "category_id": (int, str)},
    **{"bbox": list, "score": (int, float)},
}
"""What a row of COCO results has."""


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
    """The rows of a file of COCO results: a list of them, or a whole COCO file whose annotations have scores.

    A row has `image_id` and `category_id` (a number or a name), `bbox` and `score`; `file_name` and
    `category_name` where the file tells them.

    Raises:
        ValueError: it is not such a file, or a result lacks a field or has one of another type.
    """
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    results = read.get("annotations") if isinstance(read, dict) else read
    if not isinstance(results, list):
        raise ValueError(f"{file} is not a list of COCO results, which have {', '.join(FIELDS)}")
    named = _named(read) if isinstance(read, dict) else {}
    rows = []
    for i, result in enumerate(results):
        row = dict(result) if isinstance(result, dict) else {}
        for field in ("image_id", "category_id"):
            value = row.get(field)
            if isinstance(value, float) and value.is_integer():
                row[field] = int(value)
        for field, kinds in FIELDS.items():
            if not isinstance(row.get(field), kinds) or isinstance(row[field], bool):
                raise ValueError(f"{file}: results[{i}] has no {field!r} of COCO's results")
        box = row["bbox"]
        if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
            raise ValueError(f"{file}: results[{i}].bbox is {box}, must be [x, y, width, height]")
        of_image, of_class = ("images", str(row["image_id"])), ("categories", str(row["category_id"]))
        rows.append(named.get(of_image, {}) | named.get(of_class, {}) | row)
    return rows


def _named(table: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, str]]:
    """What a whole COCO file tells of its ids: (images or categories, id) → the field with their name."""
    found = {}
    for kind, field, name in (
        ("images", "file_name", "file_name"),
        ("categories", "category_name", "name"),
    ):
        for row in table.get(kind) or []:
            if isinstance(row, dict) and isinstance(row.get(name), str):
                found[kind, str(row.get("id"))] = {field: row[name]}
    return found


def from_coco_results(
    results: Sequence[Mapping[str, Any]], ids: Sequence[str | int], category_ids: Sequence[int] | None = None
) -> list[Detections]:
    """The inverse of ``to_coco_results``: one ``Detections`` for each id, empty where nothing was found.

    Raises:
        ValueError: a result names an image or a category that is not among those given.
    """
    places = {image_id: i for i, image_id in enumerate(ids)}
    labels = None if category_ids is None else {category: i for i, category in enumerate(category_ids)}
    for i, result in enumerate(results):
        if result["image_id"] not in places:
            raise ValueError(
                f"results[{i}]: image_id {result['image_id']!r} is not among the {len(places)} ids given"
            )
        if labels is not None and result["category_id"] not in labels:
            raise ValueError(
                f"results[{i}]: category_id {result['category_id']!r} is not in {sorted(labels)}"
            )
    found = [result["category_id"] for result in results]
    return read_detections(
        results,
        [places[result["image_id"]] for result in results],
        found if labels is None else [labels[one] for one in found],
        len(ids),
    )


def read_detections(
    results: Sequence[Mapping[str, Any]], images: Sequence[int], labels: Sequence[int], count: int
) -> list[Detections]:
    """The rows of COCO results → detections of `count` images; `images`, `labels`: those of each row."""
    rows: list[list[int]] = [[] for _ in range(count)]
    for row, image in enumerate(images):
        rows[image].append(row)
    boxes = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([result["score"] for result in results], dtype=np.float64)
    of = np.array(labels, dtype=np.int64)
    with np.errstate(over="ignore"):  # what is too large becomes inf, which `check` refuses by name
        return [
            Detections(boxes[own].astype(np.float32), scores[own].astype(np.float32), of[own]) for own in rows
        ]


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
