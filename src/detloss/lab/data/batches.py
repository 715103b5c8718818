"""Training batches as a pure function of (seed, step): what comes next never depends on what came before."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from detloss.lab.data.augment import Augment, augment, letterbox, unletterbox
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.sample import Sample

_MEMORY = 4 * 2**30
"""Bytes of decoded images kept; a larger data set is decoded anew on each access."""


class Letterboxed:
    """A data set with every image fitted into one square, decoded once where memory allows.

    Attributes:
        dataset: as it was, in its own pixels.
        size: side of the square.
    """

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset = dataset
        self.size = size
        self._keep = len(dataset) * size * size * 3 <= _MEMORY
        self._known: dict[int, tuple[Sample, float, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        return self._fitted(i)[0]

    def restore(self, i: int, boxes: np.ndarray) -> np.ndarray:
        """Boxes found in the square, in the pixels of image `i` itself and clipped to it."""
        _, scale, offset = self._fitted(i)
        return unletterbox(boxes, scale, offset, self.dataset.size(i))

    def _fitted(self, i: int) -> tuple[Sample, float, tuple[int, int]]:
        if i in self._known:
            return self._known[i]
        fitted = letterbox(self.dataset[i], self.size)
        if self._keep:
            self._known[i] = fitted
        return fitted


@dataclass(frozen=True)
class Batch:
    """Images of one size and their objects, padded to the largest count.

    Attributes:
        images: `(B, S, S, 3)` uint8.
        boxes: `(B, M, 4)` float32 xyxy pixels.
        labels: `(B, M)` int64: a class, -1 for padding, -100 for an ignored region.
        ids: of the images.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]


def collate(samples: list[Sample]) -> Batch:
    """One batch of samples of one size."""
    most = max((len(s.boxes) for s in samples), default=0)
    boxes = np.zeros((len(samples), most, 4), np.float32)
    labels = np.full((len(samples), most), -1, np.int64)
    for i, sample in enumerate(samples):
        boxes[i, : len(sample.boxes)] = sample.boxes
        labels[i, : len(sample.boxes)] = np.where(sample.ignored, -100, sample.labels)
    return Batch(np.stack([s.image for s in samples]), boxes, labels, tuple(s.id for s in samples))


def training_batch(
    data: Letterboxed, step: int, batch: int, seed: int, config: Augment, part: range | None = None
) -> Batch:
    """The batch of step `step` (from 0): each epoch is a new order of all images, each newly changed.

    With `part` only those of its `batch` images, counted from 0.
    """
    samples = []
    for i in range(batch) if part is None else part:
        position = step * batch + i
        epoch, place = divmod(position, len(data))
        index = int(_order(len(data), seed, epoch)[place])
        samples.append(augment(data[index], np.random.default_rng((seed, position)), config))
    return collate(samples)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 1)).permutation(count)
