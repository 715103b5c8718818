"""All images of a data set on disk, and their folds: parts that are each validated once.

A fold is a split by its name, so that a run folder says what it was trained and evaluated on:
`fold-2-of-5`, `not-fold-2-of-5` (all other images), and `all-splits`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from detloss.lab.data.dataset import Dataset
from detloss.lab.data.images import ImageFiles
from detloss.lab.data.problems import DataError, NoImages

EVERYTHING = "all-splits"
_NAME = re.compile(r"(not-)?fold-(\d+)-of-(\d+)")


def fold_names(fold: int, folds: int) -> tuple[str, str]:
    """The training and the validation split of a fold, from 1."""
    name = f"fold-{fold}-of-{folds}"
    return f"not-{name}", name


def is_fold(split: str) -> bool:
    """Whether the name is one of this file, not of the data set."""
    return split == EVERYTHING or _NAME.fullmatch(split) is not None


def part(whole: Dataset, split: str) -> Dataset:
    """The images of a split, by its name here.

    Raises:
        ValueError: fewer than 2 folds, more than images, or a fold that is not among them.
    """
    named = _NAME.fullmatch(split)
    if named is None:
        return whole
    rest, fold, folds = named[1], int(named[2]), int(named[3])
    if not 2 <= folds <= len(whole):
        raise ValueError(f"folds is {folds}; it must be from 2 to the number of images, {len(whole)}")
    if not 1 <= fold <= folds:
        raise ValueError(f"split {split!r}: folds are 1 to {folds}")
    there = folds_of(whole, folds) == fold - 1
    return whole.select(np.flatnonzero(~there if rest else there))


def folds_of(dataset: Dataset, folds: int) -> np.ndarray:
    """(images,) the fold of each image, from 0: about as many objects of each class, and images, in all.

    Images that hold most of a class come first; each goes where there is least of what it holds. The result
    depends on ids and objects alone, not on the order of the images.
    """
    annotations = [dataset.annotation(i) for i in range(len(dataset))]
    held = np.ones((len(dataset), len(dataset.names) + 1))  # the last column counts images
    for row, one in zip(held, annotations):
        row[:-1] = np.bincount(one.labels[~one.ignored], minlength=len(dataset.names))
    share = held / np.maximum(held.sum(axis=0), 1)
    filled = np.zeros((folds, share.shape[1]))
    found = np.zeros(len(dataset), np.int64)
    for i in sorted(range(len(dataset)), key=lambda i: (-share[i].max(), annotations[i].id)):
        found[i] = fold = int(np.argmin(filled @ share[i]))
        filled[fold] += share[i]
    return found


def join(
    read: Callable[[str], Dataset], splits: Iterable[str], names: Sequence[str] | None = None
) -> Dataset:
    """The images of several splits, each once; classes by name, in the order they are met without `names`.

    An image in two lists, as VOC's trainval has those of train, is one. Others of one id get the name of
    their split before it. A split without any object is left out, for nobody has looked for objects there; a
    note says so.
    """
    notes: list[str] = []
    read_splits: list[tuple[str, Dataset]] = []
    for name in splits:
        try:
            read_splits.append((name, read(name)))
        except DataError as error:
            if set(error.problems.counts) != {"no labels"}:
                raise
            notes.append(f"split {name!r} has no labels and is left out")
        except NoImages:
            notes.append(f"split {name!r} has no images and is left out")
    # The largest first: a list that is part of another adds nothing, and its notes are the other's.
    parts = dict(sorted(read_splits, key=lambda part: -len(part[1])))
    known = tuple(names or dict.fromkeys(name for dataset in parts.values() for name in dataset.names))
    number = {name: label for label, name in enumerate(known)}
    annotations, sizes, places, ids = [], [], dict[Any, None](), set[str]()
    for split, dataset in parts.items():
        if not any(len(dataset.annotation(i).labels) for i in range(len(dataset))):
            notes.append(f"split {split!r} has no objects and is left out")
            continue
        label = np.array([number[name] for name in dataset.names], np.int64)
        new = [i for i in range(len(dataset)) if dataset.file(i) not in places]
        notes += dataset.notes if new else ()
        for i in new:
            one = dataset.annotation(i)
            id = f"{split}-{one.id}" if one.id in ids else one.id
            ids.add(id)
            places[dataset.file(i)] = None
            annotations.append(one._replace(labels=label[one.labels], id=id))
            sizes.append(dataset.size(i))
    if not annotations:
        raise NoImages("; ".join(["no split has images with objects", *notes[:1]]))
    return Dataset(known, annotations, ImageFiles(list(places), sizes), notes)
