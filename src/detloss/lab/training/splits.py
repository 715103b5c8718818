"""The splits of the data that a recipe names, and what the recipe leaves to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from detloss.lab.data import Dataset, find_format, load, scenes
from detloss.lab.data.coco import own_results
from detloss.lab.data.sample import Detections
from detloss.lab.detector import fit_anchors
from detloss.lab.evaluate.detections import from_coco_results, read_coco_results
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
    return load(recipe.data, split, names=names)


def open_data(recipe: Recipe, progress: Callable[[int, int], Any] | None = None) -> tuple[Dataset, Dataset]:
    """The training and the validation split, with the same class names."""
    training = open_split(recipe, recipe.train_split, progress=progress)
    return training, open_split(recipe, recipe.val_split, training.names, progress)


def settled(recipe: R, training: Dataset) -> R:
    """The recipe with what it leaves to the data: the anchors of YOLOv2, by k-means of the training boxes."""
    return replace(recipe, detector=fit_anchors(recipe.detector, training, recipe.size))


def class_order(recipe: Recipe) -> tuple[str, ...] | None:
    """The classes where they are not in the validation split's own order: VOC has no list of them."""
    if recipe.data != "embedded" and find_format(Path(recipe.data)) == "voc":
        return open_split(recipe, recipe.train_split).names
    return None


def read_results_of(file: Path, dataset: Dataset, recipe: Recipe) -> list[Detections]:
    """COCO results of any detector on the recipe's validation split, which is `dataset`, image by image.

    Their ids are those of the data set's own annotations, or else, as `detloss` writes them, file names
    without suffix and labels 0..C-1.

    Raises:
        ValueError: no such list, or an image or a class that is not of the data; the file is named.
    """
    results = read_coco_results(file)
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    strange = {result["image_id"] for result in results} - set(ids)
    try:
        if recipe.data != "embedded" and find_format(Path(recipe.data)) == "coco":
            split = recipe.val_split
            results = own_results(results, recipe.data, split, dataset.names, whole=not strange)
        elif strange:
            raise ValueError(f"image_id {min(strange, key=str)!r} is not an image")
        return from_coco_results(results, ids, range(len(dataset.names)))
    except ValueError as error:
        where = f"of {recipe.data}, split {recipe.val_split!r}"
        hint = f"file names are such as {ids[0]!r}; data and the split say what the results are of"
        raise ValueError(f"{file}: {error} {where}; {hint}") from None
