"""What a comparison is decided by."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Self

from detloss.lab.statistics import LOOKS, check_looks
from detloss.lab.training.config import Recipe, TrainConfig


@dataclass(frozen=True)
class _Choice:
    """What is not the recipe. A base of its own, so that its fields come before the recipe's."""

    losses: tuple[str, ...] = ("bce", "balanced_bce", "focal", "quality_focal", "focal+ciou")
    """Classification losses, the first is the baseline:
    bce balanced_bce focal softmax_focal quality_focal varifocal poly_focal asymmetric mal flsd,
    or your own module:function.
    focal,gamma=1.5 sets a hyperparameter; linear:0:2,
    cosine:0:2 or stages:0:1:2 for 1.5 changes it while
    training. bce,mining=hard:3 (random:3, ohem:0.5:128,
    ohem3:0.5:128) counts some locations only.
    focal+ciou names one pair, other names go with every box loss."""
    box_losses: tuple[str, ...] = ("giou",)
    """Box losses: iou giou diou ciou eiou, or your own module:function."""
    seeds: int = 3
    """Runs a loss; seed k has the same initial weights and batches for all losses."""
    lr: float | None = None
    """Learning rate of all losses; without it each loss gets its own from the sweep."""
    box_weight: float | None = None
    """Weight of the box loss for all losses; without it each loss gets its own from the sweep."""
    lrs: tuple[float, ...] = (0.003, 0.008)
    """Learning rates that the sweep tries."""
    box_weights: tuple[float, ...] = (2.0, 6.0)
    """Box weights that the sweep tries."""
    rungs: tuple[float, ...] = (1.0,)
    """Parts of the steps that the sweep's candidates are trained for; after each the better half goes on.
    With many candidates 0.25 1 saves time, at the risk of dropping one that learns late."""
    held_out: float = 0.2
    """Part of the training set that the sweep evaluates on (at most 256 images)."""
    rope: float = 1.0
    """The difference that does not matter, in points of AP: losses closer than that are equivalent."""
    looks: tuple[int, ...] = LOOKS
    """The numbers of seeds at which you will look at the results:
    the error rate of 5 % is spent over them, most of it at the last.
    One number, the same as --seeds, is one look with all of it."""
    workers: int = 0
    """Runs at a time; 0: as many as cores (at most 8), or one on a GPU."""


@dataclass(frozen=True)
class CompareConfig(Recipe, _Choice):
    """Which losses are compared, and how each is tuned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("losses", "box_losses", "lrs", "box_weights", "rungs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; it must be at least 1 (3 for an interval)")
        if not 0 < self.rope < 100:
            raise ValueError(f"rope is {self.rope}; it must be a number of AP points above 0, such as 1")
        check_looks(self.looks)
        if self.seeds > self.looks[-1]:
            raise ValueError(
                f"seeds is {self.seeds}, past the last of the planned looks {self.looks}; let looks end with "
                f"{self.seeds}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it is a part of the training set, such as 0.2")
        if any(not 0 < part <= 1 for part in self.rungs):
            raise ValueError(f"rungs is {self.rungs}; they are parts of the steps, above 0 and at most 1")
        for name in ("lrs", "box_weights"):
            values = [f"{value:g}" for value in getattr(self, name)]
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {' '.join(values)}; each value may be there once")
        for rate, weight in self.candidates:
            if not (0 < rate < math.inf and 0 < weight < math.inf):
                raise ValueError(
                    f"lr {rate}, box_weight {weight}: learning rates and box weights must be positive"
                )
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 (as many as cores) or more")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(classification loss, box loss), the baseline first."""
        pairs = []
        for name in self.losses:
            classification, plus, box = name.partition("+")
            pairs += [(classification, b) for b in ([box] if plus else self.box_losses)]
        return list(dict.fromkeys(pairs))

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """(learning rate, box weight) that the sweep tries."""
        rates = self.lrs if self.lr is None else (self.lr,)
        weights = self.box_weights if self.box_weight is None else (self.box_weight,)
        return list(itertools.product(rates, weights))

    def run(
        self, pair: tuple[str, str], tuned: tuple[float, float], seed: int, **changes: Any
    ) -> TrainConfig:
        """The run of a pair with a candidate's learning rate and box weight, with changes of the recipe."""
        return TrainConfig(*pair, *tuned, seed, **{**self.shared(), **changes})

    def quick(self) -> Self:
        """Also fewer seeds and candidates."""
        weights, seeds = self.box_weights[:1], min(self.seeds, 2)
        return replace(super().quick(), seeds=seeds, lrs=self.lrs[:2], box_weights=weights, rungs=(0.5,))
