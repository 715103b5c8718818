"""Which locations must find an object, which must find nothing, and which objects no location must find."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detloss.boxes import box_iou
from detloss.lab.data.batches import Letterboxed, collate
from detloss.lab.detector import Detector, DetectorConfig, fit_anchors
from detloss.lab.detector.assign import IGNORED

_AT_ONCE = 2**24
"""Overlaps of objects with locations held at a time."""


@dataclass(frozen=True)
class LevelCounts:
    """The locations of one level of the pyramid.

    Attributes:
        stride: pixels a cell.
        locations: of one image.
        positives, negatives, ignored: over all images looked at.
    """

    stride: int
    locations: int
    positives: int
    negatives: int
    ignored: int


@dataclass(frozen=True, eq=False)
class LocationCounts:
    """Positives and negatives of a data set, over the images looked at.

    Attributes:
        images: how many were looked at.
        classes: logits of a location that must all say no where there is nothing: the number of classes, or
            1 (yolov2's objectness, a softmax's background).
        levels: the finest first.
        sizes: `(N,)` √area of each object that counts, in pixels of the square.
        object_positives: `(N,)` locations that must find it; 0: the images as stored teach nothing of it.
        object_rescued: `(N,)` bool: only anchors that overlap it by less than .5 must find it, which max-IoU
            assignment gives it because they overlap it most (retinanet; see `max_iou`).
    """

    images: int
    classes: int
    levels: tuple[LevelCounts, ...]
    sizes: np.ndarray
    object_positives: np.ndarray
    object_rescued: np.ndarray

    @property
    def locations(self) -> int:
        """Of one image."""
        return sum(level.locations for level in self.levels)

    @property
    def positives(self) -> int:
        """Locations that must find an object, over all images."""
        return sum(level.positives for level in self.levels)

    @property
    def negatives(self) -> int:
        """Locations that must find nothing, over all images."""
        return sum(level.negatives for level in self.levels)

    @property
    def ignored(self) -> int:
        """Locations that do not count, over all images."""
        return sum(level.ignored for level in self.levels)

    @property
    def objects(self) -> int:
        """Those that count, over all images."""
        return len(self.sizes)

    @property
    def objects_without_positive(self) -> int:
        """Objects that no location must find."""
        return int((self.object_positives == 0).sum())

    @property
    def logits(self) -> int:
        """Logits that count, over all images."""
        return (self.positives + self.negatives) * self.classes

    @property
    def negatives_per_positive(self) -> float:
        """By location; of no positive at all, the number of negatives."""
        return self.negatives / max(1, self.positives)

    @property
    def negatives_per_positive_logits(self) -> float:
        """By logit: the other classes of a positive location are negatives too."""
        return (self.logits - self.positives) / max(1, self.positives)


def count_locations(
    config: DetectorConfig,
    data: Letterboxed,
    images: int = 512,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> LocationCounts:
    """Assigns the locations of at most `images` images, drawn with a fixed seed, to their objects.

    Args:
        config: strides, anchors and the kind of assignment.
        data: images fitted into the square that the detector sees.
        images: most images looked at.
        progress: called with (images done, all).
    """
    config = fit_anchors(config, data.dataset, data.size)
    classes = len(data.dataset.names)
    detector = Detector(config, classes)
    grid = detector.grid(data.size, data.size)
    levels = len(grid.level_sizes)
    level = torch.repeat_interleave(torch.arange(levels), torch.tensor(grid.level_sizes))
    chosen = np.random.default_rng(0).permutation(len(data))[:images]
    most = max((len(data.dataset.annotation(int(i)).boxes) for i in chosen), default=0)
    at_once = max(1, min(32, _AT_ONCE // (len(grid.anchors) * max(1, most))))
    counts = torch.zeros(3, levels, dtype=torch.int64)
    sizes, found, rescued = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for start in range(0, len(chosen), at_once):
        batch = collate([data[int(i)] for i in chosen[start : start + at_once]])
        boxes, labels = torch.from_numpy(batch.boxes), torch.from_numpy(batch.labels)
        assignment = detector.assign(grid, boxes, labels)
        kinds = (assignment.positives, assignment.labels == classes, assignment.labels == IGNORED)
        for kind, where in enumerate(kinds):
            counts[kind] += torch.bincount(level.expand_as(where)[where], minlength=levels)
        for i in range(len(labels)):
            mine = labels[i] >= 0
            taken = assignment.positives[i]
            same = (assignment.boxes[i][taken][:, None] == boxes[i][mine]).all(-1)
            same &= assignment.labels[i][taken][:, None] == labels[i][mine]
            found.append(same.sum(0).numpy())
            overlapped = (box_iou(grid.anchors[taken], boxes[i][mine]) >= 0.5) & same
            by_rescue = same.any(0) & ~overlapped.any(0) & (config.kind == "retinanet")
            rescued.append(by_rescue.numpy())
            sizes.append((boxes[i][mine][:, 2:] - boxes[i][mine][:, :2]).double().prod(1).sqrt().numpy())
        progress(min(start + at_once, len(chosen)), len(chosen))
    rows = zip(config.strides, grid.level_sizes, *counts.tolist())
    per_level = tuple(LevelCounts(*row) for row in rows)
    logits = 1 if config.kind == "yolov2" else classes
    per_object = (np.concatenate(values) for values in (sizes, found, rescued))
    return LocationCounts(len(chosen), logits, per_level, *per_object)
