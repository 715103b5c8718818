"""The splits of the data that a recipe names, and what the recipe leaves to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from detloss.lab.data import Dataset, load, scenes
from detloss.lab.detector import fit_anchors
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
