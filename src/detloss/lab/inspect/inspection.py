"""Everything that `detloss inspect` measures: the tables of a data set, and those of a model on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from detloss.calling import Loss
from detloss.lab.cli.arguments import MostImages
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector
from detloss.lab.detector.locations import LocationCounts, count_locations
from detloss.lab.inspect.examples import Example, example
from detloss.lab.inspect.figure4 import LossBins, LossCurve
from detloss.lab.inspect.logits import labelled_logits
from detloss.lab.inspect.objects import ObjectCounts, SizeCount, count_objects, count_sizes
from detloss.lab.inspect.quadrants import Claim, Quadrant, QuadrantSums, check_claims
from detloss.lab.records import require, require_distinct, require_least
from detloss.lab.training.config import Recipe
from detloss.names import CLASSIFICATION_LOSSES, find_loss

Progress = Callable[[int, int], Any]
"""Called with (images done, all)."""


@dataclass(frozen=True)
class _Inspected:
    """What is not the recipe. A base of its own, so that its fields come before the recipe's."""

    checkpoint: str | None = None
    """Run folder of `detloss train`, or a run of a comparison; its settings become the defaults. Without it a
    detector is trained with the settings below and focal loss, alpha .25 and gamma 2."""
    losses: tuple[str, ...] = ("bce", "balanced_bce", "focal")
    """Classification losses whose shares are measured; the claims are checked on the first:
    bce balanced_bce focal quality_focal varifocal poly_focal asymmetric mal flsd ia_bce
    gaussian_focal, or your own module:function.
    focal,gamma=1.5 sets a hyperparameter."""
    easy: float = 0.5
    """A logit is easy if its p_t, the probability it gives to what is true, is at least this."""
    gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """gamma of the focal losses of Figure 4."""
    images: MostImages = 512
    """At most this many images of each split are used, drawn with a fixed seed."""
    examples: int = 3
    """Images in the picture of where on an image the loss comes from."""


@dataclass(frozen=True)
class InspectConfig(Recipe, _Inspected):
    """What is inspected, and with which losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_distinct(self, "losses", "gammas")
        for gamma in self.gammas:
            if not 0 <= gamma < math.inf:
                raise ValueError(f"gammas has {gamma}; each must be 0 or a positive number, such as 2")
        require(self, "easy", 0 < self.easy < 1, "it is a probability above 0 and below 1, such as 0.5")
        require_least(self, images=1, examples=0)
        require(self, "trainer", not self.trainer, "it is for train and compare; leave it out")


@dataclass(frozen=True)
class DataTables:
    """What a data set asks of a detector, whatever it is trained with.

    Attributes:
        objects: of the whole split.
        locations: of the images that were used.
        sizes: objects by size, and which get no positive.
    """

    objects: ObjectCounts
    locations: LocationCounts
    sizes: list[SizeCount]


@dataclass(frozen=True)
class ModelTables:
    """Where the losses of one trained detector's logits come from.

    Attributes:
        images: how many it was applied to.
        logits: that count, over these images.
        quadrants: four rows per loss.
        claims: the usual claims about imbalance, checked.
        curves: of Figure 4.
        doubt: why the model is not converged, as that of Figure 4 was; empty where nothing says so.
        examples: single images.
    """

    images: int
    logits: int
    quadrants: list[Quadrant]
    claims: list[Claim]
    curves: list[LossCurve]
    doubt: str
    examples: list[Example]


def elementwise_losses(names: Sequence[str]) -> list[Loss]:
    """The losses of these names.

    Raises:
        ValueError: no such loss, or one that is not a sum over sigmoid logits.
    """
    losses = [find_loss(name, CLASSIFICATION_LOSSES) for name in names]
    for loss in losses:
        if loss.softmax:
            raise ValueError(
                f"loss {loss.name!r} has no loss of a single logit; name bce or focal,alpha=none: of a "
                "checkpoint trained with a softmax they are the cross entropy and the focal loss of it"
            )
    return losses


def measure_data(
    config: InspectConfig, data: Letterboxed, progress: Progress, softmax: bool = False
) -> DataTables:
    """The tables of the training split, which need no model.

    With `softmax`, a location has one softmax over classes and background, which is one logit.
    """
    objects = count_objects(data.dataset, data.size)
    locations = count_locations(config.detector, data, config.images, progress=progress)
    if softmax:
        locations = replace(locations, classes=1)
    sizes = count_sizes(objects.sizes, objects.own_sizes, locations.sizes, locations.object_positives)
    return DataTables(objects, locations, sizes)


def image_choice(config: InspectConfig, data: Letterboxed) -> np.ndarray:
    """Indices of the images of a split that the model is applied to."""
    return np.random.default_rng(0).permutation(len(data))[: config.images]


def measure_model(
    config: InspectConfig,
    losses: Sequence[Loss],
    detector: Detector,
    data: Letterboxed,
    device: torch.device,
    progress: Progress,
) -> ModelTables:
    """The tables of a trained detector on the validation split, for losses from `elementwise_losses`."""
    chosen = image_choice(config, data)
    quadrants, bins = QuadrantSums(losses, config.easy), LossBins(config.gammas)
    for piece in labelled_logits(detector, data, chosen, config.batch, device, progress):
        quadrants.add(piece)
        bins.add(piece)
    table = quadrants.table()
    with_objects = [i for i in chosen if not data.dataset.annotation(int(i)).ignored.all()]
    examples = [example(detector, data, int(i), losses, device) for i in with_objects[: config.examples]]
    measured = table, check_claims(table), bins.curves(), bins.doubt()
    return ModelTables(len(chosen), int(quadrants.counts.sum()), *measured, examples)
