"""What a training run is decided by: the recipe that all runs of a comparison share, and what differs."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from detloss.lab.cli.arguments import DataReading
from detloss.lab.data import Augment, Reading, SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.postprocess import Limits
from detloss.lab.records import check_choices, require, require_least


@dataclass(frozen=True)
class Recipe:
    """Everything about training that does not depend on the loss: all runs of a comparison share it."""

    data: str = "embedded"
    """The folder of a data set (COCO, VOC, YOLO or labelme), or the file that describes it, or "embedded":
    scenes drawn from a seed, no download."""
    train_split: str = "train"
    """Name of the split to train on."""
    val_split: str = "val"
    """Name of the split to evaluate on."""
    reading: DataReading = field(default_factory=Reading)
    """How data on disk are found and read."""
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
    """Images a step; of several processes, all together."""
    accumulate: int = 1
    """Parts that a batch is taken in, one after the other, for the memory of one. The step is that of the
    whole batch where an image does not depend on its neighbours (detector norm group)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw with betas .9 .95, or sgd with Nesterov momentum .9."""
    backbone_lr: float = 1.0
    """Factor of the learning rate of the backbone's weights, such as 0.1 for one that was trained before."""
    weight_decay: float = 0.02
    """Weight decay of convolution weights; biases and normalisation have none."""
    warmup: float = 0.1
    """Part of the steps over which the rate rises linearly."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up: cosine to zero, or the paper's steps: a tenth from 2/3, a hundredth from 8/9."""
    clip_quantile: float = 0.9
    """A step's gradient is clipped at this quantile of the norms of the run's last 100 steps
    (AutoClip, 2007.14469); 1 does not clip."""
    clip: float = 0.0
    """Largest gradient norm, the same for all losses; 0: none. Losses differ in the scale of their
    gradients: one number may clip one loss on most of its steps and another on none."""
    ema: float = 0.98
    """Decay of the moving average of the weights, which is what is evaluated; 0 evaluates the weights."""
    balance: Literal["fixed", "guided"] = "fixed"
    """Of the class and the box term. fixed: the box term is multiplied by the box weight. guided: it is
    first scaled to the class term of the same step (Chen et al., 1909.04868), then by the box weight."""
    distribution_weight: float = 0.25
    """Weight of the distribution focal loss (with detector bins); .25 is that of its paper, GFL."""
    weigh_boxes: Literal["paper", "alike", "score", "iou"] = "paper"
    """What a positive counts for in the box and distribution losses. alike: 1. score: its predicted score,
    as GFL has it. iou: the IoU of its predicted box, as VFNet has it. paper: as the classification loss's
    own paper has it: score for quality_focal, iou for varifocal, alike for all others."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Autocast for the network; the loss is always float32. auto: bf16 where the hardware has it
    (for detectors of others on a GPU only)."""
    evaluations: int = 4
    """Points of the curve of AP over the steps, the last after the last step; each leaves a checkpoint. The
    curve is measured on at most 256 images of the validation split, the result after the last step on all."""
    checkpoint_minutes: float = field(default=10.0, compare=False)
    """A checkpoint at least so often, so that a run that is killed loses no more than that; 0: only those of
    the evaluations. Changes no result."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    trainer: str = ""
    """A training of your own, FILE.py:function, in place of the one here. It is called once a run with what
    docs/trainers.md tells (losses, lr, box weight, seed, steps, batch, size, images, folder, device) and
    returns COCO results, which are evaluated here. Of the other options those of the data and the sweep are
    used; detector, augment and all that says how to train are handed over as `recipe`, for it to follow."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.data == "embedded" and (place := self.reading.annotations or self.reading.images):
            object.__setattr__(self, "data", place)  # they say where the data are
        require_least(self, size=16, steps=1, batch=1, accumulate=1, evaluations=1)
        require(self, "ema", 0 <= self.ema < 1, "it must be at least 0 (off) and below 1, such as 0.98")
        factor = 0 < self.backbone_lr < math.inf
        require(
            self, "backbone_lr", factor, "it must be above 0; --detector.freeze keeps weights as they are"
        )
        file, _, function = self.trainer.rpartition(":")
        named = not self.trainer or (file.endswith(".py") and function.isidentifier())
        require(self, "trainer", named, "it must be FILE.py:function, such as mine.py:train")
        self._check_dense_only()
        for name in ("clip", "weight_decay", "distribution_weight", "checkpoint_minutes"):
            finite = 0 <= getattr(self, name) < math.inf
            require(self, name, finite, "it must be 0 (off) or a positive number")
        alone = self.batch < 2 * self.accumulate and self.detector.norm == "batch"
        if self.dense and alone and self.size <= self.detector.strides[-1]:
            raise ValueError(
                f"size is {self.size} and the largest stride {self.detector.strides[-1]}: one image has one "
                "location there, which cannot be normalised; use a larger size or batch"
            )
        part = 0 < self.clip_quantile <= 1
        require(self, "clip_quantile", part, "it must be above 0 and at most 1 (off), such as 0.9")
        below_all = 0 <= self.warmup < 1
        require(self, "warmup", below_all, "it is a part of the steps: at least 0 and below 1")

    def _check_dense_only(self) -> None:
        """ValueError where something is asked that only the dense detector can do."""
        if self.detector.dense:
            return
        for name, usual in (("balance", "fixed"), ("weigh_boxes", "paper"), ("distribution_weight", 0.25)):
            is_usual = getattr(self, name) == usual
            words = f"it is for the dense detector, and kind is {self.detector.kind}; leave it out"
            require(self, name, is_usual, words)

    @property
    def dense(self) -> bool:
        """Whether what trains is the dense detector, of whose locations everything is known."""
        return self.detector.dense and not self.trainer

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
    bce balanced_bce focal softmax_focal quality_focal varifocal poly_focal asymmetric mal flsd
    ia_bce gaussian_focal,
    or your own module:function; default: what a detector of
    others comes with.
    focal,gamma=1.5 sets a hyperparameter; linear:0:2,
    cosine:0:2 or stages:0:1:2 for 1.5 changes it while
    training. bce,mining=hard:3 (random:3, ohem:0.5:128,
    ohem3:0.5:128) counts some locations only.
    focal,class_weight=effective:0.999 (inverse:0.5, each
    with a cap: inverse:0.5:10) weighs rare classes more."""
    box_loss: str = "giou"
    """Box loss: iou giou diou ciou eiou l1 smooth_l1, or your own module:function; giou+0.4*l1 is a
    weighted sum. l1 and smooth_l1 are relative to the size of the true box. default: what a detector of
    others comes with."""
    lr: float = 0.01
    """Peak learning rate."""
    box_weight: float = 2.0
    """Weight of the box loss against the classification loss; with balance guided, box term over class
    term. The box terms of a detector of others are multiplied with it: 1 leaves them as its makers have
    them."""
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

    @property
    def box_weighting(self) -> Literal["alike", "score", "iou"]:
        """`weigh_boxes`, where it is "paper" what that means for this classification loss."""
        return papers_weighting(self.loss) if self.weigh_boxes == "paper" else self.weigh_boxes


def papers_weighting(loss: str) -> Literal["alike", "score", "iou"]:
    """What a positive weighs in the box terms by the paper of this classification loss."""
    ways: dict[str, Literal["score", "iou"]] = {"quality_focal": "score", "varifocal": "iou"}
    return ways.get(loss.partition(",")[0], "alike")
