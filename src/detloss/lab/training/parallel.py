"""One training over several processes: which images each takes, and how they hold their networks alike."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

from torch import device, nn
from torch.nn.parallel import DistributedDataParallel

from detloss.lab import ranks
from detloss.lab.data import Dataset
from detloss.lab.detector import DenseDetector
from detloss.lab.records import to_dict
from detloss.lab.training.config import Recipe, TrainConfig


def parts(recipe: Recipe) -> list[range]:
    """The images of a batch, counted from 0, that this process takes: `recipe.accumulate` parts.

    Raises:
        ValueError: the batch has too few images.
    """
    count, processes = recipe.accumulate, ranks.world()
    if recipe.batch < count * processes:
        raise ValueError(
            f"batch is {recipe.batch}; with accumulate {count} and {processes} processes it must be at least "
            f"{count * processes}, an image for each part"
        )
    return _cut(_cut(range(recipe.batch), processes)[ranks.rank()], count)


def _cut(images: range, count: int) -> list[range]:
    """As even as it goes."""
    ends = [i * len(images) // count for i in range(count + 1)]
    return [images[a:b] for a, b in pairwise(ends)]


def check_alike(config: TrainConfig, *splits: Dataset) -> None:
    """ValueError where the processes were started with different settings or find different data."""
    about = {"settings": to_dict(config)}
    for name, split in zip((config.train_split, config.val_split), splits):
        ids = [split.annotation(i).id for i in range(len(split))]
        about[f"images of split {name}"] = {"classes": split.names, "ids": ids}
    first, *others = ranks.gathered(about)
    for number, other in enumerate(others, 1):
        for what in first:
            if other[what] != first[what]:
                raise ValueError(
                    f"the {what} of rank {number} are not those of rank 0; they must be the same"
                )


def in_parallel(model: nn.Module, where: device) -> nn.Module:
    """The model as all processes train it: each gets the mean of their gradients."""
    if ranks.world() == 1:
        return model
    # Gradients of 1x1 convolutions may name the same order in memory by other strides.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return DistributedDataParallel(
        model,
        device_ids=[where] if where.type == "cuda" else None,
        # Another detector may leave parameters out, such as where there is nothing to find.
        find_unused_parameters=not isinstance(model, DenseDetector),
    )


def gradients_later(model: nn.Module, later: bool) -> AbstractContextManager[None]:
    """Whether the processes take the mean of their gradients with a later backward pass."""
    return model.no_sync() if later and isinstance(model, DistributedDataParallel) else nullcontext()
