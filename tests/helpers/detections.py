"""Truth and detections of images: written as rows, or random."""

from dataclasses import dataclass

import numpy as np

from detloss.lab.evaluate import Detections


@dataclass(frozen=True)
class Annotated:
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    id: str = "image"


def truth(*rows: tuple[float, float, float, float, int], ignored: tuple[int, ...] = ()) -> Annotated:
    """Rows (x1, y1, x2, y2, label)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    mask = np.zeros(len(table), bool)
    mask[list(ignored)] = True
    return Annotated(table[:, :4], table[:, 4].astype(np.int64), mask)


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """Rows (x1, y1, x2, y2, label, score)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 5], table[:, 4].astype(np.int64))


def scene(rng: np.random.Generator, images: int, classes: int, noise: float, step: float = 0.0):
    """Random truths and detections: objects found, moved by noise, or missed, and mistakes beside them.

    A step > 0 rounds boxes to pixels and scores to multiples of it, which makes ties and exact thresholds.
    """
    detections, truths = [], []
    for image in range(images):
        n, extra = rng.integers(0, 7), rng.integers(0, 9)
        corner, size = rng.uniform(0, 150, (n + extra, 2)), np.exp(rng.uniform(1, 5.2, (n + extra, 2)))
        boxes = np.concatenate([corner, corner + size], axis=1)
        labels = rng.integers(0, max(classes - 1, 1), n + extra)  # the last class never has an object
        moved = boxes + rng.normal(0, noise, boxes.shape) * np.tile(size, 2)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        scores = rng.uniform(0, 1, n + extra)
        if step:
            boxes, moved, scores = boxes.round(), moved.round(), (scores / step).round() * step
        kept = rng.uniform(size=n + extra) < 0.8
        detections.append(
            Detections(moved[kept].astype(np.float32), scores[kept].astype(np.float32), labels[kept])
        )
        ignored = rng.uniform(size=n) < 0.2
        truths.append(Annotated(boxes[:n].astype(np.float32), labels[:n], ignored, f"image-{image}"))
    return detections, truths
