"""What a run is decided by: frozen dataclasses, written to and read from JSON."""

import dataclasses
import difflib
import itertools
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from detloss.lab.data import Augment, SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.postprocess import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """Everything about training that does not depend on the loss: all runs of a comparison share it."""

    data: str = "embedded"
    """A COCO, VOC or YOLO folder, or "embedded": scenes drawn from a seed, no download."""
    train_split: str = "train"
    """Name of the split to train on."""
    val_split: str = "val"
    """Name of the split to evaluate on."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    """The embedded scenes (used when data is "embedded")."""
    size: int = 96
    """Side in pixels of the square that every image is fitted into, aspect kept."""
    augment: Augment = field(default_factory=Augment)
    """Random changes of the training images."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The network."""
    limits: Limits = field(default_factory=lambda: Limits(score=0.001, candidates=200))
    """Which predictions are evaluated. The paper's score limit of .05 would take detections from a loss whose
    scores are low and none from another, and so decide between them."""
    steps: int = 350
    """Optimiser steps."""
    batch: int = 8
    """Images a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw with betas .9 .95, or sgd with Nesterov momentum .9."""
    weight_decay: float = 0.02
    """Of convolution weights; biases and normalisation have none."""
    warmup: float = 0.1
    """Part of the steps over which the rate rises linearly."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up: cosine to zero, or the paper's steps: a tenth from 2/3, a hundredth from 8/9."""
    clip: float = 10.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.98
    """Decay of the moving average of the weights, which is what is evaluated; 0 evaluates the weights."""
    distribution_weight: float = 0.5
    """Of the distribution focal loss (with detector bins)."""
    weigh_boxes: Literal["alike", "score", "iou"] = "alike"
    """What a positive counts for in the box and distribution losses: alike; by its predicted score, as in
    GFL; by the IoU of its predicted box, as in VFNet."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Autocast for the network; the loss is always float32. auto: bf16 where the hardware has it."""
    evaluations: int = 3
    """Times the validation split is evaluated, the last after the last step; each leaves a checkpoint."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", ("adamw", "sgd")),
            ("schedule", ("cosine", "steps")),
            ("weigh_boxes", ("alike", "score", "iou")),
            ("amp", ("auto", "off", "bf16", "fp16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it may be {', '.join(known)}")
        least = {"size": 16, "steps": 1, "batch": 1, "evaluations": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be at least 0 (off) and below 1, such as 0.98")
        for name in ("clip", "weight_decay", "distribution_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or a positive number")
        if self.batch == 1 and self.size <= self.detector.strides[-1]:
            raise ValueError(
                f"size is {self.size} and the largest stride {self.detector.strides[-1]}: one image has one "
                "location there, which cannot be normalised; use a larger --size or --batch"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; it is a part of the steps: at least 0 and below 1")


SharedRecipe = Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    loss: str = "focal"
    """Classification loss:
    bce balanced_bce focal softmax_focal quality_focal varifocal poly_focal asymmetric mal flsd,
    or your own module:function.
    focal,gamma=1.5 sets a hyperparameter; linear:0:2,
    cosine:0:2 or stages:0:1:2 for 1.5 changes it while
    training. bce,mining=hard:3 (random:3, ohem:0.5:128,
    ohem3:0.5:128) counts some locations only."""
    box_loss: str = "giou"
    """Box loss: iou giou diou ciou eiou, or your own module:function."""
    lr: float = 0.01
    """Peak learning rate."""
    box_weight: float = 2.0
    """Weight of the box loss against the classification loss."""
    seed: int = 0
    """Decides initial weights, batches and augmentation."""
    recipe: SharedRecipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for name in ("lr", "box_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")


@dataclass(frozen=True)
class CompareConfig:
    """Which losses are compared, and how each is tuned."""

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
    workers: int = 0
    """Runs at a time; 0: as many as cores (at most 8), or one on a GPU."""
    recipe: SharedRecipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for name in ("losses", "box_losses", "lrs", "box_weights", "rungs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; it must be at least 1 (3 for an interval)")
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


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON types of a configuration."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(kind: type[T], values: dict[str, Any], where: str = "config") -> T:
    """The configuration that `values` describe; what they leave out has its default.

    Raises:
        ValueError: an unknown name (the nearest is suggested) or a value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; it must be an object of names and values")
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it may have {', '.join(hints)}"
            raise ValueError(f"{where} has no {name!r}{hint}")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_dict(kind, value, where)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        raise ValueError(f"{where} is {value!r}; it may be {', '.join(map(str, typing.get_args(kind)))}")
    if origin in (typing.Union, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _value(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        inner = list(typing.get_args(kind))
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = [inner[0]] * len(value)
        if len(inner) == len(value):
            return tuple(_value(k, v, where) for k, v in zip(inner, value))
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {value!r}; it must be {getattr(kind, '__name__', kind)}")


def load_config(kind: type[T], path: Path) -> T:
    """Reads the `config.json` of a run folder, or the folder itself.

    Raises:
        ValueError: no such file, no JSON, or not a configuration of this kind.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"config {path} is no JSON: {error}") from None
    return from_dict(kind, values, str(path))
