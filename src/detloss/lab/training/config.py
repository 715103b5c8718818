"""What a training run is decided by: the recipe that all runs of a comparison share, and what differs."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from detloss.lab.data import Augment, SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.postprocess import Limits
from detloss.lab.records import check_choices, require, require_least


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
    """Weight decay of convolution weights; biases and normalisation have none."""
    warmup: float = 0.1
    """Part of the steps over which the rate rises linearly."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up: cosine to zero, or the paper's steps: a tenth from 2/3, a hundredth from 8/9."""
    clip: float = 10.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.98
    """Decay of the moving average of the weights, which is what is evaluated; 0 evaluates the weights."""
    distribution_weight: float = 0.5
    """Weight of the distribution focal loss (with detector bins)."""
    weigh_boxes: Literal["alike", "score", "iou"] = "alike"
    """What a positive counts for in the box and distribution losses: alike; by its predicted score, as in
    GFL; by the IoU of its predicted box, as in VFNet."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Autocast for the network; the loss is always float32. auto: bf16 where the hardware has it."""
    evaluations: int = 4
    """Times the validation split is evaluated, the last after the last step; each leaves a checkpoint."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""

    def __post_init__(self) -> None:
        check_choices(self)
        require_least(self, size=16, steps=1, batch=1, evaluations=1)
        require(self, "ema", 0 <= self.ema < 1, "it must be at least 0 (off) and below 1, such as 0.98")
        for name in ("clip", "weight_decay", "distribution_weight"):
            finite = 0 <= getattr(self, name) < math.inf
            require(self, name, finite, "it must be 0 (off) or a positive number")
        if self.batch == 1 and self.size <= self.detector.strides[-1]:
            raise ValueError(
                f"size is {self.size} and the largest stride {self.detector.strides[-1]}: one image has one "
                "location there, which cannot be normalised; use a larger size or batch"
            )
        below_all = 0 <= self.warmup < 1
        require(self, "warmup", below_all, "it is a part of the steps: at least 0 and below 1")

    def shared(self) -> dict[str, Any]:
        """The recipe's part of a configuration, as arguments of another one."""
        return {f.name: getattr(self, f.name) for f in fields(Recipe)}

    def quick(self) -> Self:
        """The same with few images and few steps, for a first look."""
        few = replace(self.scenes, train=min(self.scenes.train, 256), val=min(self.scenes.val, 48))
        return replace(self, steps=min(self.steps, 40), batch=min(self.batch, 8), evaluations=2, scenes=few)


@dataclass(frozen=True)
class _Run:
    """What is not the recipe. A base of its own, so that its fields come before the recipe's."""

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


@dataclass(frozen=True)
class TrainConfig(Recipe, _Run):
    """One training run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lr", "box_weight"):
            require(self, name, 0 < getattr(self, name) < math.inf, "it must be a positive number")
        require_least(self, seed=0)
