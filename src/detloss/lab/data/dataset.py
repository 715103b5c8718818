"""A data set: a sequence of samples, annotations in memory, images decoded on access."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detloss.lab.data.images import ImageFiles
from detloss.lab.data.problems import DataError, Problems
from detloss.lab.data.sample import Annotation, Sample


class Dataset:
    """A sequence of `Sample`s with class names: label i is `names[i]`.

    names: class names, all different.
    annotations: one per image, ids all different, labels within names.
    images: as many images, `(H, W, 3)` uint8, indexed from 0: a list, or something that reads on access.
    notes: what a user should be told (boxes clipped, a split made), a line each; the caller prints them.
    """

    def __init__(
        self,
        names: Sequence[str],
        annotations: Sequence[Annotation],
        images: Sequence[np.ndarray],
        notes: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.notes = tuple(notes)
        self._annotations = list(annotations)
        self._images = images
        self._index: Sequence[int] = range(len(self._annotations))
        if len(images) != len(self._annotations):
            raise ValueError(f"images: {len(images)} for {len(self._annotations)} annotations")
        for kind, values in (("class name", self.names), ("id", [a.id for a in self._annotations])):
            if len(set(values)) != len(values):
                double = Counter(values).most_common(1)[0][0]
                raise ValueError(f"{kind} {double!r} occurs more than once; each must be unique")
        for annotation in self._annotations:
            wrong = annotation.labels[(annotation.labels < 0) | (annotation.labels >= len(self.names))]
            if wrong.size:
                known = f"0..{len(self.names) - 1}"
                raise ValueError(f"sample {annotation.id}: label {wrong[0]} is not in {known}")

    @property
    def class_map(self) -> dict[str, int]:
        """Class name → label."""
        return {name: label for label, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, i: int) -> Sample:
        boxes, labels, ignored, id = self.annotation(i)
        return Sample(self._images[self._index[i]], boxes, labels, id, ignored)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def annotation(self, i: int) -> Annotation:
        """(boxes, labels, ignored, id) of image i, without decoding it."""
        return self._annotations[i]

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of image i in pixels, without decoding it where it is a file."""
        if isinstance(self._images, ImageFiles):
            return self._images.sizes[self._index[i]]
        height, width = self._images[self._index[i]].shape[:2]
        return height, width

    def file(self, i: int) -> Path | None:
        """The file of image i; None where there is none (drawn scenes)."""
        return self._images.paths[self._index[i]] if isinstance(self._images, ImageFiles) else None

    def select(self, indices: Sequence[int] | np.ndarray) -> "Dataset":
        """The images of these indices, in this order, as a data set of the same names."""
        chosen = Dataset.__new__(Dataset)
        chosen.names, chosen.notes, chosen._images = self.names, self.notes, self._images
        chosen._annotations = [self._annotations[i] for i in indices]
        chosen._index = [self._index[i] for i in indices]
        return chosen

    def without_ignored(self) -> "Dataset":
        """The same images with the ignored objects left out."""
        kept = self.select(range(len(self)))
        kept._annotations = [
            Annotation(a.boxes[~a.ignored], a.labels[~a.ignored], a.ignored[~a.ignored], a.id)
            for a in kept._annotations
        ]
        return kept

    def check_images(self, progress: Callable[[int, int], Any] | None = None) -> None:
        """Decode every image once; raises `DataError` naming those that are damaged or of another size.

        progress: called with (done, total) after each image.
        """
        if len(problems := self.image_problems(progress)):
            raise DataError("images", problems)

    def image_problems(
        self, progress: Callable[[int, int], Any] | None = None, strict: bool = False
    ) -> Problems:
        """The same, as a list; with `strict` also those of which lenient reading takes what there is."""
        problems = Problems()
        for i in range(len(self)):
            try:
                if strict and isinstance(self._images, ImageFiles):
                    self._images.checked(self._index[i])
                else:
                    self[i]
            except ValueError as error:
                file = str(self.file(i))
                what = str(error).removeprefix(f"{file}: ")
                other = " but annotated as " in what
                problems.add("image of another size" if other else "image that cannot be decoded", file, what)
            if progress is not None:
                progress(i + 1, len(self))
        return problems


def summary(dataset: Dataset) -> dict[str, Any]:
    """Counts as plain values: images, empty, objects, ignored, per_class {name: objects}.

    empty: images without an object. Ignored objects are counted apart, not among objects.
    """
    annotations = [dataset.annotation(i) for i in range(len(dataset))]
    counts = np.zeros(len(dataset.names), np.int64)
    for a in annotations:
        counts += np.bincount(a.labels[~a.ignored], minlength=len(counts))
    return {
        "images": len(dataset),
        "empty": sum(bool(a.ignored.all()) for a in annotations),
        "objects": int(counts.sum()),
        "ignored": sum(int(a.ignored.sum()) for a in annotations),
        "per_class": {name: int(n) for name, n in zip(dataset.names, counts)},
    }


def shared_images(training: Dataset, validation: Dataset) -> str | None:
    """A note where images of the validation are also trained on, the same file or a copy; else None."""
    learned: dict[int, list[Path]] = {}
    for file in filter(None, map(training.file, range(len(training)))):
        learned.setdefault(file.stat().st_size, []).append(file)
    digests: dict[Path, bytes] = {}

    def content(file: Path) -> bytes:
        if file not in digests:
            digests[file] = hashlib.sha256(file.read_bytes()).digest()
        return digests[file]

    shared = []
    for file in filter(None, map(validation.file, range(len(validation)))):
        alike = learned.get(file.stat().st_size, [])
        if file in alike or any(content(file) == content(one) for one in alike):
            shared.append(file)
    if not shared:
        return None
    count = f"all {len(shared)}" if len(shared) == len(validation) else f"{len(shared)} of {len(validation)}"
    return (
        f"{count} validation images are training images, too (the same files or copies; first: {shared[0]}): "
        "AP is higher than it will be on new images"
    )


def fingerprint(*datasets: Dataset) -> str:
    """What tells whether the images of data sets, all together, are the same on another machine.

    Objects, class names, ids and the size in bytes of every image file count; so do the bytes of one file in
    256, since to read all of a large data set takes minutes. The order and the split of the images do not.
    """
    total = 0
    for dataset in datasets:
        for i in range(len(dataset)):
            boxes, labels, ignored, id = dataset.annotation(i)
            image, names = dataset.file(i), [dataset.names[label] for label in labels]
            about = (id, names, boxes.tolist(), ignored.tolist(), image and image.stat().st_size)
            digest = hashlib.sha256(repr(about).encode())
            if image and digest.digest()[0] == 0:
                digest.update(image.read_bytes())
            total += int.from_bytes(digest.digest())
    return f"{total % 2**256:064x}"
