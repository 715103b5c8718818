"""What a comparison is decided by."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from detloss.lab.data.folds import EVERYTHING, fold_names
from detloss.lab.records import require
from detloss.lab.statistics import LOOKS, check_looks
from detloss.lab.training.config import Recipe, TrainConfig

BOX_WEIGHTS = (2.0, 6.0, 15.0)


@dataclass(frozen=True)
class _Choice:
    """What is not the recipe. A base of its own, so that its fields come before the recipe's."""

    losses: tuple[str, ...] = ("bce", "balanced_bce", "focal", "quality_focal", "focal+ciou")
    """Classification losses, the first is the baseline:
    bce balanced_bce focal softmax_focal quality_focal varifocal poly_focal asymmetric mal flsd
    ia_bce gaussian_focal,
    or your own module:function; default: what a detector of
    others comes with.
    focal,gamma=1.5 sets a hyperparameter; linear:0:2,
    cosine:0:2 or stages:0:1:2 for 1.5 changes it while
    training. bce,mining=hard:3 (random:3, ohem:0.5:128,
    ohem3:0.5:128) counts some locations only.
    focal,class_weight=effective:0.999 (inverse:0.5, each
    with a cap: inverse:0.5:10) weighs rare classes more.
    focal+ciou names one pair (focal+giou+0.4*l1 too: its box loss is giou+0.4*l1), other names go with every
    box loss."""
    box_losses: tuple[str, ...] = ("giou",)
    """Box losses: iou giou diou ciou eiou l1 smooth_l1, or your own module:function; giou+0.4*l1 is a
    weighted sum. l1 and smooth_l1 are relative to the size of the true box. default: what a detector of
    others comes with."""
    seeds: int = 3
    """Runs a loss; seed k has the same initial weights and batches for all losses."""
    folds: int = 0
    """Of data on disk: all its images (train, val and test together) in so many parts, the objects of each
    class spread evenly; each part is validated once, by a detector trained on the others. Each seed trains
    all folds, so that runs are losses x seeds x folds, and its AP is one over all images.
    0: the data's own splits."""
    lr: float | None = None
    """Learning rate of all losses; without it each loss gets its own from the sweep."""
    box_weight: float | None = None
    """Weight of the box loss for all losses; without it each loss gets its own from the sweep, or with
    balance guided 1."""
    lrs: tuple[float, ...] = (0.001, 0.003, 0.008)
    """Learning rates that the sweep tries, at the middle box weight."""
    box_weights: tuple[float, ...] = BOX_WEIGHTS
    """Box weights that the sweep tries, at the best rate; none with balance guided."""
    held_out: float = 0.2
    """Part of the training set that the sweep evaluates on (at most 256 images)."""
    rope: float = 1.0
    """The difference that does not matter, in points of AP: losses closer than that are equivalent."""
    looks: tuple[int, ...] = LOOKS
    """The numbers of seeds at which you will look at the results; --seeds is one of them, named or not.
    The error rate of 5 % is spent over them, most of it at the last.
    One number, the same as --seeds, is one look with all of it."""
    workers: int = 0
    """Runs at a time; 0: as many as cores (at most 8), or one on a GPU; with Ray as many as there is room
    for."""
    devices: tuple[str, ...] = ()
    """cuda:0 cuda:1 ...: one run at a time on each."""
    threads: int = 0
    """PyTorch threads of a run, and CPUs of its Ray task; 0: the cores shared out, with Ray 1."""
    engine: Literal["local", "ray"] = "local"
    """Where the runs are made: processes of this machine, or tasks of a Ray cluster (an extra,
    detloss[ray])."""
    address: str = ""
    """Of the Ray cluster, such as 10.0.0.1:6379; without it one that Ray finds, or else this machine."""


@dataclass(frozen=True)
class CompareConfig(Recipe, _Choice):
    """Which losses are compared, and how each is tuned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("losses", "box_losses", "lrs", "box_weights"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one")
        require(self, "seeds", self.seeds >= 1, "it must be at least 1 (3 for an interval)")
        several = self.folds == 0 or self.folds >= 2
        require(self, "folds", several, "it must be at least 2, or 0 for the data's own splits")
        if self.folds and self.data == "embedded":
            raise ValueError(
                f"folds is {self.folds} and data 'embedded'; folds are of images on disk: name their folder "
                "as data, or leave out folds (each seed has scenes of its own)"
            )
        require(self, "rope", 0 < self.rope < 100, "it must be a number of AP points above 0, such as 1")
        check_looks(self.looks, 1)
        if self.seeds > 1:
            object.__setattr__(self, "looks", tuple(sorted({*self.looks, self.seeds})))
        require(self, "held_out", 0 < self.held_out < 1, "it is a part of the training set, such as 0.2")
        if self.balance == "guided" and not set(self.box_weights) <= set(BOX_WEIGHTS):
            raise ValueError(
                f"box_weights is {self.box_weights} and balance 'guided', which has no weight to try; leave "
                "box_weights out, or name one ratio as box_weight"
            )
        for name in ("lrs", "box_weights"):
            values = [f"{value:g}" for value in getattr(self, name)]
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {' '.join(values)}; each value may be there once")
        for rate, weight in itertools.product(*self.axes):
            if not (0 < rate < math.inf and 0 < weight < math.inf):
                raise ValueError(
                    f"lr {rate}, box_weight {weight}: learning rates and box weights must be positive"
                )
        require(self, "workers", self.workers >= 0, "it must be 0 (as many as cores) or more")
        require(self, "threads", self.threads >= 0, "it must be 0 (the cores shared out) or more")
        self._check_engine()

    def _check_engine(self) -> None:
        """ValueError where what says where runs are made does not go together."""
        ray, kinds = self.engine == "ray", {name.partition(":")[0] for name in self.devices}
        if self.address and not ray:
            raise ValueError(f"address is {self.address!r}, which is a Ray cluster's; choose engine ray")
        if ray and (self.devices or ":" in self.device):
            given = f"devices is {self.devices}" if self.devices else f"device is {self.device!r}"
            raise ValueError(
                f"{given} with engine ray, which gives each run its GPU; name device cuda or cpu"
            )
        if not self.devices:
            return
        if len(kinds) > 1 or not kinds <= {"cpu", "cuda"}:
            raise ValueError(f"devices is {self.devices}; they may be cuda:0 cuda:1 ..., or all cpu")
        require(
            self,
            "workers",
            self.workers in (0, len(self.devices)),
            f"leave it out: each of the {len(self.devices)} devices has one run at a time",
        )
        kind = kinds.pop()
        if self.device not in ("auto", kind):
            raise ValueError(f"device is {self.device!r} and devices {self.devices}; leave out device")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(classification loss, box loss), the baseline first."""
        pairs = []
        for name in self.losses:
            classification, plus, box = name.partition("+")
            pairs += [(classification, b) for b in ([box] if plus else self.box_losses)]
        return list(dict.fromkeys(pairs))

    @property
    def axes(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Learning rates and box weights that are tried; one value where nothing is."""
        rates = self.lrs if self.lr is None else (self.lr,)
        tried = self.box_weights if self.balance == "fixed" else (1.0,)
        weights = tried if self.box_weight is None else (self.box_weight,)
        return rates, weights

    @property
    def trials(self) -> int:
        """Runs of a pair's sweep: each rate at one box weight, the other weights at the best rate."""
        rates, weights = map(len, self.axes)
        return rates + weights - 1 if rates * weights > 1 else 0

    def run(
        self, pair: tuple[str, str], tuned: tuple[float, float], seed: int, fold: int = 0, **changes: Any
    ) -> TrainConfig:
        """The run of a pair with a learning rate and a box weight, with changes of the recipe.

        `fold` is from 1; 0 is without folds.
        """
        if fold:
            changes["train_split"], changes["val_split"] = fold_names(fold, self.folds)
        return TrainConfig(*pair, *tuned, seed, **{**self.of_seed(seed).shared(), **changes})

    @property
    def fold_numbers(self) -> Sequence[int]:
        """From 1; only 0 without folds."""
        return range(1, self.folds + 1) or (0,)

    def of_seed(self, seed: int) -> Self:
        """The recipe on the data of a seed: scenes of its own, unless all have the same."""
        scenes = self.scenes
        return self if scenes.same else replace(self, scenes=replace(scenes, seed=scenes.seed + seed))

    @property
    def first_data(self) -> Self:
        """The recipe on the data that is described: with folds the training images of the first, and all."""
        if not self.folds:
            return self
        return replace(self, train_split=fold_names(1, self.folds)[0], val_split=EVERYTHING)

    @property
    def new_scenes(self) -> bool:
        """Whether the images of each seed are its own."""
        return self.data == "embedded" and not self.scenes.same

    def quick(self) -> Self:
        """Also fewer seeds and trials."""
        few: Any = {"lrs": self.lrs[:2], "box_weights": self.box_weights[:1]}
        return replace(super().quick(), seeds=min(self.seeds, 2), **few)
