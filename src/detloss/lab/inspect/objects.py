"""Counts of what lies in a data set: objects by image, class and size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detloss.lab.data import Dataset, summary

SIZE_EDGES = (0, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """Objects of a data set; ignored ones are counted apart.

    Attributes:
        images: all of them.
        empty: images without an object.
        objects: to be found.
        ignored: VOC "difficult", COCO "iscrowd".
        per_class: class name → objects.
        per_image: `(most + 1,)` entry k: images with k objects.
        sizes: `(objects,)` √area in pixels of the square that the images are fitted into.
        own_sizes: `(objects,)` the same in pixels of the object's own image.
    """

    images: int
    empty: int
    objects: int
    ignored: int
    per_class: dict[str, int]
    per_image: np.ndarray
    sizes: np.ndarray
    own_sizes: np.ndarray


def count_objects(dataset: Dataset, size: int) -> ObjectCounts:
    """The objects of every image, none of which is decoded.

    Args:
        dataset: in its own pixels.
        size: side of the square that the detector sees.
    """
    per_image, sizes, own_sizes = [0] * len(dataset), [np.zeros(0)], [np.zeros(0)]
    for i in range(len(dataset)):
        boxes, _, ignored, _ = dataset.annotation(i)
        sides = (boxes[~ignored, 2:] - boxes[~ignored, :2]).astype(np.float64)
        own_sizes.append(np.sqrt(sides.prod(1)))
        sizes.append(own_sizes[-1] * size / max(dataset.size(i)))
        per_image[i] = len(sides)
    return ObjectCounts(
        **summary(dataset),
        per_image=np.bincount(per_image, minlength=1),
        sizes=np.concatenate(sizes),
        own_sizes=np.concatenate(own_sizes),
    )


@dataclass(frozen=True)
class SizeCount:
    """Objects of one range of sizes.

    Attributes:
        low, high: √area in pixels, low included, high not.
        objects: of the whole split.
        own: objects of the split that have this size in pixels of their own image.
        measured: those in the images whose locations were assigned.
        without_positive: of these, objects that no location must find.
        positives: locations that must find one of these objects.
    """

    low: float
    high: float
    objects: int
    own: int
    measured: int
    without_positive: int
    positives: int


def count_sizes(
    sizes: np.ndarray, own: np.ndarray, measured: np.ndarray, positives: Sequence[int] | np.ndarray
) -> list[SizeCount]:
    """Objects by size, from the smallest range that has one to the largest.

    Args:
        sizes: √area of each object of the split, in pixels of the square.
        own: the same in pixels of its own image.
        measured: √area of each object whose locations were assigned.
        positives: as many, the locations that must find it.
    """
    positives = np.asarray(positives, np.int64)
    columns = (sizes, own, measured, measured[positives == 0], np.repeat(measured, positives))
    edges = [float(edge) for edge in (*SIZE_EDGES, np.inf)]
    counts = np.array([np.bincount(np.digitize(each, SIZE_EDGES), minlength=len(edges)) for each in columns])
    filled = np.flatnonzero(counts.any(axis=0))
    if not len(filled):
        return []
    kept = range(filled[0], filled[-1] + 1)
    return [SizeCount(edges[k - 1], edges[k], *counts[:, k].tolist()) for k in kept]
