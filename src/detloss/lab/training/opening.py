"""Opening the data that a command works on."""

from collections.abc import Sequence

from detloss.lab import ranks
from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import DataError, Dataset, shared_images, summary
from detloss.lab.data.folds import is_fold
from detloss.lab.data.problems import Problems
from detloss.lab.detector.build import build_detector
from detloss.lab.detector.criterion import check_classes
from detloss.lab.detector.objective import Objective, find_detector_loss
from detloss.lab.training.config import Recipe
from detloss.lab.training.splits import open_data
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES


def open_splits(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Both splits, every image decoded once so that a damaged one is an error before anything is written.

    The processes of a training share the images that are decoded.
    """
    with counting("drawing scenes") as progress:
        both = ranks.first_before_others(lambda: open_data(recipe, progress))
    if recipe.data != "embedded":
        problems = Problems()
        for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
            with counting(f"reading {name} images") as progress:
                own = dataset.select(range(ranks.rank(), len(dataset), ranks.world()))
                problems.extend(own.image_problems(progress))
        if len(problems):
            raise DataError(recipe.data, problems)
        if not is_fold(recipe.val_split) and (shared := shared_images(*both)):
            both[1].notes += (shared,)
        for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
            for note in dataset.notes:
                say(f"{name}: {note}")
    for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
        if not summary(dataset)["objects"]:
            raise ValueError(f"split {name!r} of {recipe.data} has no objects, so nothing can be measured")
    classes = ", ".join(f"{name} → {label}" for name, label in both[0].class_map.items())
    say(f"{len(both[0])} training and {len(both[1])} validation images; classes: {classes}")
    return both


def check_detector(recipe: Recipe, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
    """Builds the detector for each pair of losses; what a user should know of it is said.

    So what cannot be built is an error before anything is written.
    """
    detector, told = recipe.detector, list[str]()
    for pair in pairs:
        loss = find_detector_loss(pair[0], CLASSIFICATION_LOSSES, detector)
        box_loss = find_detector_loss(pair[1], BOX_LOSSES, detector)
        if loss is not None:
            check_classes(loss, detector.kind, len(names))
        if not detector.dense:
            told += build_detector(detector, names, recipe.size, Objective(loss, box_loss)).notes
    if detector.dense and detector.start:
        told += build_detector(detector, names, recipe.size).notes
    for note in dict.fromkeys(told):
        say(note)
