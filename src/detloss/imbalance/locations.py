"""What imbalance is in a data set: how many locations must find nothing for one that must find an object."""

from dataclasses import dataclass

import numpy as np
import torch

from detloss.assign import IGNORED
from detloss.data.batches import Letterboxed, collate
from detloss.detector import Detector, DetectorConfig


@dataclass(frozen=True)
class LocationCounts:
    """Positives and negatives of a data set, summed over the images looked at.

    Attributes:
        images: how many were looked at.
        classes: logits of a location.
        locations: of one image.
        positives, negatives, ignored: locations over all images.
        objects: over all images.
        objects_without_positive: those that no location is asked to find.
    """

    images: int
    classes: int
    locations: int
    positives: int
    negatives: int
    ignored: int
    objects: int
    objects_without_positive: int

    @property
    def negatives_per_positive(self) -> float:
        """By location; of no positive at all, the number of negatives."""
        return self.negatives / max(1, self.positives)

    @property
    def negatives_per_positive_logits(self) -> float:
        """By sigmoid logit: the other classes of a positive location are negatives too."""
        logits = (self.positives + self.negatives) * self.classes
        return (logits - self.positives) / max(1, self.positives)


def count_locations(config: DetectorConfig, data: Letterboxed, images: int = 512) -> LocationCounts:
    """Assigns the locations of at most `images` images, drawn with a fixed seed, to their objects."""
    classes = len(data.dataset.names)
    detector = Detector(config, classes)
    grid = detector.grid(data.size, data.size)
    chosen = np.random.default_rng(0).permutation(len(data))[:images]
    positives = negatives = ignored = objects = lost = 0
    for start in range(0, len(chosen), 32):
        batch = collate([data[int(i)] for i in chosen[start : start + 32]])
        boxes, labels = torch.from_numpy(batch.boxes), torch.from_numpy(batch.labels)
        assignment = detector.assign(grid, boxes, labels)
        positives += int(assignment.positives.sum())
        ignored += int((assignment.labels == IGNORED).sum())
        negatives += int((assignment.labels == classes).sum())
        for i in range(len(labels)):
            found = assignment.boxes[i][assignment.positives[i]]
            mine = boxes[i][labels[i] >= 0]
            objects += len(mine)
            lost += sum(not (found == box).all(-1).any() for box in mine)
    return LocationCounts(
        len(chosen), classes, len(grid.anchors), positives, negatives, ignored, objects, lost
    )
