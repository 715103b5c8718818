"""Which detections are right, image by image: enough for AP over any choice of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

_RECALLS = np.linspace(0.0, 1.0, 101)
_BLOCK = 100  # resamples at a time, for the memory


@dataclass(frozen=True, eq=False)
class Matches:
    """Which of n detections are right at each of COCO's ten IoU thresholds, and how many objects there are.

    Attributes:
        ids: (images,) the names of the images.
        objects: (images, classes) how many there are; ignored ones do not count.
        image: (n,) row of `ids`, rising.
        label: (n,).
        score: (n,), falling within an image and class.
        right: (n, 10) bool.
        counts: (n, 10) bool: False on an ignored object, where a detection is neither right nor a mistake.
    """

    ids: np.ndarray
    objects: np.ndarray
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    right: np.ndarray
    counts: np.ndarray

    def save(self, file: Path) -> None:
        """Write the arrays, compressed, as NumPy's .npz."""
        with file.open("wb") as stream:
            np.savez_compressed(stream, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Matches:
        """Read what `save` wrote.

        Raises:
            ValueError: it is not such a file.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(**arrays)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{file} has no matches of `detloss`: {error}") from None


def average_precision(matches: Matches, times: np.ndarray) -> np.ndarray:
    """COCO's AP over images that count several times or not at all, as a resample draws them.

    Args:
        matches: n detections on `images` images.
        times: (R, images) how many times each image counts in each of R resamples.

    Returns:
        (R,) fractions of 1, as if an image lay there as often (where scores are equal within an image, its
        copies keep together): the mean over the ten IoU thresholds and the classes with objects; nan where no
        image with an object was drawn. With all ones it is the AP of `Evaluation`.
    """
    blocks = [times[start : start + _BLOCK] for start in range(0, len(times), _BLOCK)]
    return np.concatenate([np.zeros(0), *(_average_precision(matches, block) for block in blocks)])


def _average_precision(matches: Matches, times: np.ndarray) -> np.ndarray:
    objects = times @ matches.objects
    there = objects > 0
    ap = np.zeros(objects.shape)
    for label in np.flatnonzero(there.any(axis=0)):
        rows = np.flatnonzero(matches.label == label)
        rows = rows[np.argsort(-matches.score[rows], kind="stable")]
        weight = times[:, matches.image[rows]]
        needed = _needed(objects[:, label])
        all_count = matches.counts[rows].all()
        seen = np.cumsum(weight, axis=1)
        for right, counts in zip(matches.right[rows].T, matches.counts[rows].T):
            if not all_count:
                seen = np.cumsum(weight * counts, axis=1)
            found = np.cumsum(weight[:, right], axis=1)
            ap[:, label] += _interpolated(found, seen[:, right], needed) / matches.right.shape[1]
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(there, ap, 0).sum(axis=1) / there.sum(axis=1)
    return mean


def _needed(objects: np.ndarray) -> np.ndarray:
    """(R, 101) the fewest right detections that reach each recall, in floating point as COCO divides."""
    total = np.maximum(objects, 1)[:, None]
    needed = np.ceil(_RECALLS * total)
    needed -= (needed - 1) / total >= _RECALLS
    needed += needed / total < _RECALLS
    return needed.astype(np.int64)


def _interpolated(found: np.ndarray, seen: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """(R,) mean over the 101 recalls of the best precision at that recall or more.

    `found` and `seen`, (R, m), are how many were right and how many there were up to each right detection.
    """
    resamples, m = found.shape
    if not m:
        return np.zeros(resamples)
    precision = found / np.maximum(seen, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One search for all resamples: each in its own range of whole numbers.
    offset = np.arange(resamples)[:, None] * (int(max(found.max(), needed.max())) + 1)
    place = np.searchsorted((found + offset).ravel(), (needed + offset).ravel(), side="left")
    place = place.reshape(needed.shape) - np.arange(resamples)[:, None] * m
    reached = place < m
    at = np.take_along_axis(best, np.minimum(place, m - 1), axis=1)
    mean: np.ndarray = np.where(reached, at, 0).mean(axis=1)
    return mean


def resample_images(
    runs: Mapping[str, Sequence[Matches]],
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, np.ndarray]:
    """What AP would have been on other images: the bootstrap, with the same draws for runs on the same ones.

    Args:
        runs: name of a loss → its runs. Runs on the same images, by `ids`, share their draws; where each seed
            has images of its own, they are drawn within it, for all losses alike.
        resamples: how many times as many images are drawn with replacement, R.
        seed: of the draws.
        progress: called with how many runs are done, and of how many.

    Returns:
        name → (runs, R) AP as `average_precision` gives it.
    """
    draws: dict[tuple[str, ...], np.ndarray] = {}
    total, done = sum(map(len, runs.values())), 0
    resampled = {}
    for name, own in runs.items():
        rows = []
        for matches in own:
            images = tuple(matches.ids)
            if images not in draws:
                random = np.random.default_rng([seed, len(draws)])
                draws[images] = random.multinomial(
                    len(images), np.full(len(images), 1 / len(images)), resamples
                )
            rows.append(average_precision(matches, draws[images]))
            done += 1
            progress(done, total)
        resampled[name] = np.array(rows).reshape(len(own), resamples)
    return resampled
