"""Anchors that fit a data set: k-means of its boxes, with 1 - IoU as the distance."""

from dataclasses import replace

import numpy as np

from detloss.lab.data import Dataset
from detloss.lab.detector.config import DetectorConfig


def fit_anchors(config: DetectorConfig, data: Dataset, size: int) -> DetectorConfig:
    """The configuration with anchors of `data` letterboxed to `size` pixels, where it has none.

    Raises:
        ValueError: the objects have fewer different sizes than `config.anchor_count`.
    """
    if config.kind != "yolov2" or config.anchors:
        return config
    sizes = [np.zeros((0, 2))]
    for i in range(len(data)):
        annotation = data.annotation(i)
        boxes = annotation.boxes[~annotation.ignored].astype(np.float64)
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * size / max(data.size(i)))
    found = np.concatenate(sizes)
    return replace(config, anchors=kmeans_anchors(found[(found > 0).all(axis=1)], config.anchor_count))


def kmeans_anchors(sizes: np.ndarray, count: int, seed: int = 0) -> tuple[tuple[float, float], ...]:
    """Anchors for boxes of `sizes` `(N, 2)`, width and height in pixels (YOLOv2, 1612.08242, section 2).

    Boxes are compared as if they shared a centre, by 1 - IoU. A cluster's new anchor is the median of its
    boxes; begun ten times from boxes drawn far from one another (k-means++), the best by mean IoU is kept.
    Sorted by area.

    Raises:
        ValueError: fewer different sizes than anchors, or a size that is not positive.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
        raise ValueError(f"sizes: expected (N, 2) positive numbers, got shape {sizes.shape}")
    different = len(np.unique(sizes, axis=0))
    if different < count:
        raise ValueError(f"anchor_count is {count}, but there are boxes of {different} sizes; ask for fewer")
    rng = np.random.default_rng(seed)
    tries = [_kmeans(sizes, count, rng) for _ in range(10)]
    anchors = max(tries, key=lambda found: float(_iou(sizes, found).max(axis=1).mean()))
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    return tuple((round(float(w), 2), round(float(h), 2)) for w, h in anchors)


def _kmeans(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    anchors = sizes[rng.integers(len(sizes), size=1)]
    while len(anchors) < count:
        far = 1 - _iou(sizes, anchors).max(axis=1)
        anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), 1, p=far / far.sum())]])
    for _ in range(300):
        nearest = _iou(sizes, anchors).argmax(axis=1)
        clusters = [sizes[nearest == k] for k in range(count)]
        moved = np.array([np.median(c, axis=0) if len(c) else a for c, a in zip(clusters, anchors)])
        if np.array_equal(moved, anchors):
            break
        anchors = moved
    return anchors


def _iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """`(N, K)`: of boxes and anchors that share their centre."""
    shared = np.minimum(sizes[:, None], anchors).prod(axis=2)
    union: np.ndarray = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1) - shared
    return shared / union
