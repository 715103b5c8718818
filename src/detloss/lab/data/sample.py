"""What a data set holds: one image with its boxes. Every reader yields it, every writer takes it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Annotation(NamedTuple):
    """The objects of one image, without the image.

    boxes: `(N, 4)` float32, xyxy in pixels; labels: `(N,)` int64, 0..C-1; ignored: `(N,)` bool;
    id: unique in its data set.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    id: str


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its objects.

    Pixel (row, column) covers the square [column, column + 1] × [row, row + 1], so the whole image is the box
    (0, 0, width, height) and the width of a box is x2 - x1.

    image: `(H, W, 3)` uint8 RGB.
    boxes: `(N, 4)` float32, xyxy in pixels.
    labels: `(N,)` int64, 0..C-1.
    id: unique in its data set (the stem of the image's file name).
    ignored: `(N,)` bool: VOC "difficult", COCO "iscrowd": neither to be found nor a mistake when found.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    id: str
    ignored: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"sample {self.id}: image must be (H, W, 3) uint8, is {self.image.shape} {self.image.dtype}"
            )
        if self.boxes.shape != (n, 4) or self.labels.shape != (n,) or self.ignored.shape != (n,):
            raise ValueError(
                f"sample {self.id}: boxes (N, 4), labels (N,), ignored (N,) do not fit: "
                f"{self.boxes.shape}, {self.labels.shape}, {self.ignored.shape}"
            )

    @property
    def annotation(self) -> Annotation:
        """The same without the image."""
        return Annotation(self.boxes, self.labels, self.ignored, self.id)


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, 0..C-1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
