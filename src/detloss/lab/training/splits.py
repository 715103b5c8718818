"""The splits of the data that a recipe names, and what the recipe leaves to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from detloss.lab.data import DataError, Dataset, find, scenes
from detloss.lab.data.sample import Detections
from detloss.lab.detector import fit_anchors
from detloss.lab.evaluate.detections import read_coco_results
from detloss.lab.evaluate.interpret import AUTO, OwnIds, interpret
from detloss.lab.training.config import Recipe

R = TypeVar("R", bound=Recipe)


def open_split(
    recipe: Recipe,
    split: str,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Dataset:
    """One split of the recipe's data; `names` gives the classes their order where the data is on disk."""
    if recipe.data == "embedded":
        return scenes(recipe.scenes, split, progress=progress)
    return find(recipe.data, recipe.reading).load(split, names)


def open_data(recipe: Recipe, progress: Callable[[int, int], Any] | None = None) -> tuple[Dataset, Dataset]:
    """The training and the validation split, with the same class names."""
    if recipe.data == "embedded":
        training = open_split(recipe, recipe.train_split, progress=progress)
        return training, open_split(recipe, recipe.val_split, training.names, progress)
    found = find(recipe.data, recipe.reading)
    try:
        training = found.load(recipe.train_split)
    except DataError as error:  # what is wrong with the other is said at the same time
        try:
            found.load(recipe.val_split)
        except DataError as other:
            error.problems.extend(other.problems)
            raise DataError(recipe.data, error.problems) from None
        raise
    return training, found.load(recipe.val_split, training.names)


def settled(recipe: R, training: Dataset) -> R:
    """The recipe with what it leaves to the data: the anchors of YOLOv2, by k-means of the training boxes."""
    return replace(recipe, detector=fit_anchors(recipe.detector, training, recipe.size))


def class_order(recipe: Recipe) -> tuple[str, ...] | None:
    """The classes where they are not in the validation split's own order: VOC has no list of them."""
    if recipe.data == "embedded":
        return None
    found = find(recipe.data, recipe.reading)
    return found.load(recipe.train_split).names if found.format in ("voc", "labelme") else None


def read_results_of(
    file: Path, dataset: Dataset, recipe: Recipe, category_ids: Sequence[str] = AUTO
) -> tuple[list[Detections], str]:
    """COCO results of any detector on the recipe's validation split, which is `dataset`, image by image.

    With them a line that says how their ids were read; `category_ids` as of `interpret`.

    Raises:
        ValueError: no such list, or an image or a class that is not of the data; the file is named.
    """
    results = read_coco_results(file)
    ids = None if recipe.data == "embedded" else find(recipe.data, recipe.reading).own_ids(recipe.val_split)
    own = OwnIds(*ids) if ids else None
    try:
        return interpret(results, dataset, own, category_ids)
    except ValueError as error:
        example = dataset.annotation(0).id if len(dataset) else "none"
        raise ValueError(
            f"{file}: {error}. It was read as results of {recipe.data}, split {recipe.val_split!r}, whose "
            f"file names are such as {example!r}; data and the split say what the results are of"
        ) from None
