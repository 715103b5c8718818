"""All that `detloss inspect` measures: the tables of a data set, and those of a model on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from detloss.calling import Loss
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector
from detloss.lab.detector.locations import LocationCounts, count_locations
from detloss.lab.inspect.examples import Example, example
from detloss.lab.inspect.figure4 import LossBins, LossCurve
from detloss.lab.inspect.logits import labelled_logits
from detloss.lab.inspect.objects import ObjectCounts, SizeCount, count_objects, count_sizes
from detloss.lab.inspect.quadrants import Claim, Quadrant, QuadrantSums, check_claims
from detloss.lab.training.config import Recipe
from detloss.names import CLASSIFICATION_LOSSES, find_loss

Progress = Callable[[int, int], Any]
"""Called with (done, total)."""


@dataclass(frozen=True)
class _Looked:
    """What is not the recipe. A base of its own, so that its fields come before the recipe's."""

    checkpoint: str | None = None
    """Run folder of `detloss train`, or a run of a comparison; without it a detector is trained, focal loss
    with alpha .25 and gamma 2, with the settings below. Its own settings become the defaults."""
    losses: tuple[str, ...] = ("bce", "balanced_bce", "focal")
    """Classification losses whose shares are measured, the first without weights to compare with:
    bce balanced_bce focal quality_focal varifocal poly_focal asymmetric mal flsd, or your own
    module:function.
    focal,gamma=1.5 sets a hyperparameter."""
    easy: float = 0.5
    """p_t from which a logit is easy."""
    gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """gamma of the focal losses of Figure 4."""
    images: int = 512
    """Most images of a split that are looked at, drawn with a fixed seed."""
    examples: int = 3
    """Images drawn with the share of the loss that each location makes."""


@dataclass(frozen=True)
class InspectConfig(Recipe, _Looked):
    """What is looked at, and by which losses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("losses", "gammas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(
                    f"{name} is {' '.join(map(str, getattr(self, name)))}; each may be there once"
                )
        for gamma in self.gammas:
            if not 0 <= gamma < math.inf:
                raise ValueError(f"gammas has {gamma}; each must be 0 or a positive number, such as 2")
        if not 0 < self.easy < 1:
            raise ValueError(f"easy is {self.easy}; it is a probability above 0 and below 1, such as 0.5")
        if self.images < 1:
            raise ValueError(f"images is {self.images}; it must be at least 1")
        if self.examples < 0:
            raise ValueError(f"examples is {self.examples}; it must be 0 (none) or more")


@dataclass(frozen=True)
class DataTables:
    """What a data set asks of a detector, whatever it is trained with.

    Attributes:
        objects: of the whole split.
        locations: of the images looked at.
        sizes: objects by size, and which get no positive.
    """

    objects: ObjectCounts
    locations: LocationCounts
    sizes: list[SizeCount]


@dataclass(frozen=True)
class ModelTables:
    """What losses make of one trained detector's logits.

    Attributes:
        images: how many it was applied to.
        logits: that count, over these images.
        quadrants: four rows a loss.
        claims: what is usually said of imbalance, checked.
        curves: of Figure 4.
        doubt: what speaks against calling the model converged, as Figure 4's was; empty where nothing does.
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
    """The tables that need no model.

    Args:
        config: the detector and how many images to look at.
        data: the training split.
        progress: called with (images done, all).
        softmax: whether a location has one softmax over classes and background, which is one logit.
    """
    objects = count_objects(data.dataset, data.size)
    locations = count_locations(config.detector, data, config.images, progress=progress)
    if softmax:
        locations = replace(locations, classes=1)
    sizes = count_sizes(objects.sizes, objects.own_sizes, locations.sizes, locations.object_positives)
    return DataTables(objects, locations, sizes)


def measure_model(
    config: InspectConfig,
    losses: Sequence[Loss],
    detector: Detector,
    data: Letterboxed,
    device: torch.device,
    progress: Progress,
) -> ModelTables:
    """The tables of a trained detector's logits on images that it was not trained on.

    Args:
        config: thresholds, gammas, and how many images.
        losses: from `elementwise_losses`.
        detector: in evaluation mode, on `device`.
        data: the validation split, fitted into the square the detector sees.
        device: where to compute.
        progress: called with (images done, all).
    """
    chosen = np.random.default_rng(0).permutation(len(data))[: config.images]
    quadrants, bins = QuadrantSums(losses, config.easy), LossBins(config.gammas)
    for piece in labelled_logits(detector, data, chosen, config.batch, device, progress):
        quadrants.add(piece)
        bins.add(piece)
    table = quadrants.table()
    with_objects = [i for i in chosen if not data.dataset.annotation(int(i)).ignored.all()]
    examples = [example(detector, data, int(i), losses, device) for i in with_objects[: config.examples]]
    return ModelTables(
        len(chosen),
        int(quadrants.counts.sum()),
        table,
        check_claims(table),
        bins.curves(),
        bins.doubt(),
        examples,
    )
