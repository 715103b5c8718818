"""A training of the user's own, `FILE.py:function`: what it is given, and what it returns."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detloss.calling import Loss
from detloss.lab.data import Dataset, coco, load
from detloss.lab.detector.objective import DEFAULT, only_here
from detloss.lab.detector.others import to_call
from detloss.lab.records import first_line
from detloss.lab.training.config import TrainConfig
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss, module_from_file

DATA = "data"
"""Where in its folder a run has its images, as long as it is trained."""


@dataclass(frozen=True)
class Run:
    """One training that a user's own function is asked for: `train(run)`.

    It returns COCO results on the validation images, as a list of dicts or the path of a JSON file with them:
    `image_id` and `category_id` as in `validation_json`, `bbox` as (x, y, width, height) in pixels of the
    image, `score` in [0, 1]. A loss that became NaN is told by a FloatingPointError: the run counts as
    diverged. Whatever else is raised is a failure of the trainer.

    Attributes:
        loss, box_loss: the names of the losses, as on the command line; "default" is the trainer's own.
        classification, box: the same as functions, called as this package's are:
            `f(inputs, targets, reduction="none", ...)`. None where the name is "default".
        lr: the peak learning rate of this run.
        box_weight: of the box loss against the classification loss.
        seed: decides all that is drawn. The same seed is the same start for every loss.
        steps, batch, size: optimiser steps, images a step, side of the images in pixels.
        names: the classes, in the order of the labels.
        training, validation: the images and their objects, see `detloss.lab.data`; boxes as x1, y1, x2, y2 in
            pixels, labels from 0.
        training_json, validation_json: the same as COCO files, whose `file_name` are absolute paths. The id
            of an image is 1 + its index, that of a category 1 + the label.
        folder: of this run, to write in. After an interruption it has what was left there.
        device: "cpu", "cuda:0", ...
        recipe: all options of the command line, also those that have no meaning for this trainer; data,
            train_split and val_split are where the images come from.
        progress: `progress(step)` shows on the terminal how far the training is; call it as often as you
            like.
    """

    loss: str
    box_loss: str
    classification: Callable[..., Tensor] | None
    box: Callable[..., Tensor] | None
    lr: float
    box_weight: float
    seed: int
    steps: int
    batch: int
    size: int
    names: tuple[str, ...]
    training: Dataset
    validation: Dataset
    training_json: Path
    validation_json: Path
    folder: Path
    device: str
    recipe: TrainConfig
    progress: Callable[[int], None]

    @property
    def losses(self) -> dict[str, str]:
        """What `swap_losses(model, **run.losses)` of `detloss.integrations` takes; {} is nothing to swap."""
        named = {"classification": self.loss, "box": self.box_loss}
        return {what: name for what, name in named.items() if name != DEFAULT}


def find_trainer(text: str) -> Callable[[Run], Any]:
    """The function that FILE.py:function names. Modules beside the file can be imported, as by a script.

    Raises:
        ValueError: no such file or function, or the file cannot be imported.
    """
    place, _, name = text.rpartition(":")
    folder = str(Path(place).absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        # A trainer may pickle what is its own to other processes.
        function = getattr(module_from_file(Path(place), findable=True), name)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"trainer {text} cannot be imported ({reason})") from error
    if not callable(function):
        raise ValueError(f"trainer {text} is {type(function).__name__}, not a function")
    return function


def check_trainer(text: str, pairs: Sequence[tuple[str, str]]) -> None:
    """ValueError where a trainer, or a loss for it, cannot be found."""
    find_trainer(text)
    classification, boxes = (dict.fromkeys(names) for names in zip(*pairs))
    for names, known in ((classification, CLASSIFICATION_LOSSES), (boxes, BOX_LOSSES)):
        for name in names:
            find_trainer_loss(name, known)


def find_trainer_loss(name: str, known: Mapping[str, Callable[..., Tensor]]) -> Loss | None:
    """The loss of a name for a user's own training; None for "default".

    Raises:
        ValueError: no such loss, or it has what only the training here can do.
    """
    if name == DEFAULT:
        return None
    loss = find_loss(name, known, training=True)
    if found := only_here(loss, "a schedule"):
        raise ValueError(f"loss {name!r}: {found} is not for a trainer of your own; leave it out")
    return loss


def make_run(config: TrainConfig, folder: Path, device: str, progress: Callable[[int], None]) -> Run:
    """What a trainer is called with; the images are read from the files that `write_images` left."""
    listed = [folder / DATA / f"{split}.json" for split in ("training", "validation")]
    training, validation = (
        load(file, "all", lenient=config.reading.lenient, allow_outside=True) for file in listed
    )
    loss = find_trainer_loss(config.loss, CLASSIFICATION_LOSSES)
    box_loss = find_trainer_loss(config.box_loss, BOX_LOSSES)
    return Run(
        loss=config.loss,
        box_loss=config.box_loss,
        classification=to_call(loss, []),
        box=to_call(box_loss, []),
        lr=config.lr,
        box_weight=config.box_weight,
        seed=config.seed,
        steps=config.steps,
        batch=config.batch,
        size=config.size,
        names=training.names,
        training=training,
        validation=validation,
        training_json=listed[0],
        validation_json=listed[1],
        folder=folder,
        device=device,
        recipe=config,
        progress=progress,
    )


def write_images(training: Dataset, validation: Dataset, folder: Path) -> None:
    """Writes the images of a run as COCO files into its folder."""
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    coco.list_images(training, folder / DATA / "training.json")
    coco.list_images(validation, folder / DATA / "validation.json")
