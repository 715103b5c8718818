"""Opening the data that a command works on."""

from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import Dataset, summary
from detloss.lab.training.config import Recipe
from detloss.lab.training.splits import open_data


def open_splits(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Both splits, every image decoded once so that a damaged one is an error before anything is written."""
    with counting("drawing scenes") as progress:
        both = open_data(recipe, progress)
    if recipe.data != "embedded":
        for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
            with counting(f"reading {name} images") as progress:
                dataset.check_images(progress)
            for note in dataset.notes:
                say(f"{name}: {note}")
    for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
        if not summary(dataset)["objects"]:
            raise ValueError(f"split {name!r} of {recipe.data} has no objects, so nothing can be measured")
    classes = ", ".join(f"{name} → {label}" for name, label in both[0].class_map.items())
    say(f"{len(both[0])} training and {len(both[1])} validation images; classes: {classes}")
    return both
