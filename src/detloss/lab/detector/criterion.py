"""From the detector's output and the assignment to the number that is minimised, with any pair of losses."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detloss import losses
from detloss.boxes import paired_box_iou
from detloss.calling import IGNORED, Loss, classify, impl_for, regress
from detloss.lab.detector import Detector, Grid, Output, encode_distances
from detloss.lab.detector.assign import Assignment


class Terms(NamedTuple):
    """What one batch costs, each a 0-dim tensor.

    Attributes:
        total: what is minimised: classification + box_weight · box + distribution_weight · distribution +
            objectness.
        classification: sum over counted locations (where there is mining, over those it keeps) ÷ normalizer.
        box: sum over positives ÷ normalizer; weighted, the weighted sum ÷ the sum of the weights, at least 1.
        distribution: distribution focal loss, mean of the four sides, summed as `box`.
        objectness: cross entropy of the objectness (yolov2), sum over counted locations ÷ normalizer; its
            target is the IoU of a positive's predicted box with its object, and 0 elsewhere.
        positives: number of positive locations.
        normalizer: what sums are divided by: positives, at least 1.
        positive_share: part of the classification loss (yolov2: of the objectness loss) that comes from the
            positives' own class.
    """

    total: Tensor
    classification: Tensor
    box: Tensor
    distribution: Tensor
    objectness: Tensor
    positives: Tensor
    normalizer: Tensor
    positive_share: Tensor


class Positives:
    """What the detector says at the locations that must find an object, and what it should say.

    Attributes:
        where: `(B, P)` bool.
        regression: of these N locations, float32, as `Output.regression`.
        anchors, strides: `(N, 4)` and `(N,)`.
        predicted, true: `(N, 4)` boxes in pixels.
    """

    def __init__(self, detector: Detector, grid: Grid, output: Output, assignment: Assignment) -> None:
        self.where = assignment.positives
        location = self.where.nonzero(as_tuple=True)[1]
        self.regression = output.regression[self.where].float()
        self.anchors, self.strides = grid.anchors[location], grid.strides[location]
        self.predicted = detector.decode(self.regression, self.anchors, self.strides)
        self.true = assignment.boxes[self.where]

    @cached_property
    def quality(self) -> Tensor:
        """`(B, P)` float32: IoU of a positive's predicted box with its object, without gradient; else 1."""
        quality = torch.ones(self.where.shape, device=self.where.device)
        quality[self.where] = paired_box_iou(self.predicted.detach(), self.true).clamp(0, 1)
        return quality


@dataclass(frozen=True, eq=False)
class Criterion:
    """From a batch to its loss, in float32.

    Sums are divided by the number of positives (1708.02002, section 4.1), those of a mined loss too, whatever
    it keeps; boxes are not mined. A classification loss with a `quality` argument is given the IoU of each
    positive's predicted box with its object, without gradient (2006.04388).

    Of YOLOv2 only positives have a class (1612.08242): imbalanced there, and mined, is the objectness.

    Attributes:
        detector: gives the decoding.
        grid: locations of this image size.
        classification, box: from `find_loss`.
        box_weight: of the box term.
        distribution_weight: of the distribution focal loss term.
        weigh_boxes: what a positive weighs in the box and distribution terms, without gradient: "alike" 1;
            "score" its highest predicted score (GFL, 2006.04388); "iou" the IoU of its predicted box
            (VFNet, 2008.13367). As in their code, sums are divided by the sum of the weights.
        steps: of the training; they decide what is scheduled.
        seed: with the step, it decides which negatives random mining draws.
    """

    detector: Detector
    grid: Grid
    classification: Loss
    box: Loss
    box_weight: float = 2.0
    distribution_weight: float = 0.5
    weigh_boxes: Literal["alike", "score", "iou"] = "alike"
    steps: int = 1
    seed: int = 0

    def __call__(self, output: Output, assignment: Assignment, step: int = 0) -> Terms:
        """The loss of what the detector says of a batch, at a step (from 0) of the training."""
        device = output.logits.device
        classification = self.classification.at(step, self.steps, device)
        positives = Positives(self.detector, self.grid, output, assignment)
        where, labels = positives.where, assignment.labels
        count = where.sum()
        normalizer = count.clamp(min=1).float()

        logits, quality = output.logits.float(), positives.quality if classification.takes_quality else None
        none = normalizer.new_zeros(())
        if output.objectness is None:
            located = self._mined(classify(classification, logits, labels, quality), output, assignment, step)
            class_term, objectness_term = located.sum() / normalizer, none
        else:
            each = _objectness_loss(output.objectness, positives, labels)
            located = self._mined(each, output, assignment, step)
            quality = None if quality is None else quality[where][None]
            of_object = classify(classification, logits[where][None], labels[where][None], quality)
            class_term, objectness_term = of_object.sum() / normalizer, located.sum() / normalizer
        from_positives = located[where]
        if located.ndim == 3:
            from_positives = from_positives.gather(1, labels[where][:, None])
        whole = located.sum().clamp(min=torch.finfo(located.dtype).tiny)
        share = (from_positives.sum() / whole).detach()

        weight = self._weight(output, positives)
        weights = weight.sum().clamp(min=1)
        each = regress(self.box.at(step, self.steps, device), positives.predicted, positives.true)
        box_term = (each * weight).sum() / weights
        distribution_term = none
        if self.detector.config.bins:
            sides = encode_distances(positives.true, positives.anchors) / positives.strides[:, None]
            each = losses.distribution_focal_loss(positives.regression, sides, impl=impl_for(sides)).mean(-1)
            distribution_term = (each * weight).sum() / weights
        total = class_term + self.box_weight * box_term + self.distribution_weight * distribution_term
        terms = (class_term, box_term, distribution_term, objectness_term)
        return Terms(total + objectness_term, *terms, count, normalizer, share)

    def _mined(self, each: Tensor, output: Output, assignment: Assignment, step: int) -> Tensor:
        """The loss `(B, P)` or `(B, P, C)` of each location, 0 where mining leaves it out."""
        mining = self.classification.mining
        if mining is None:
            return each
        boxes = None
        if mining.by_boxes:
            boxes = self.detector.decode(output.regression.detach(), self.grid.anchors, self.grid.strides)
        draw = torch.Generator().manual_seed(int(np.random.default_rng((self.seed, step, 2)).integers(2**63)))
        kept = mining.mask(each, boxes, assignment.positives, assignment.labels == IGNORED, draw)
        return each * kept.view(*kept.shape, *[1] * (each.ndim - 2))

    def _weight(self, output: Output, positives: Positives) -> Tensor:
        """What each positive weighs in the box terms."""
        if self.weigh_boxes == "score":
            return self.detector.scores(output).detach()[positives.where].amax(-1)
        if self.weigh_boxes == "iou":
            return positives.quality[positives.where]
        return torch.ones_like(positives.true[:, 0])


def _objectness_loss(logits: Tensor, positives: Positives, labels: Tensor) -> Tensor:
    """Cross entropy `(B, P)` of `(B, P)` logits with the IoU of a positive's box, 0 of the background."""
    targets = positives.quality * positives.where
    loss = losses.binary_cross_entropy_with_logits(logits.float(), targets, impl=impl_for(logits))
    return loss.masked_fill(labels == IGNORED, 0)


def check_classes(loss: Loss, kind: str, classes: int) -> None:
    """ValueError where a classification loss has nothing to learn from so few classes."""
    if loss.softmax and kind == "yolov2" and classes < 2:
        raise ValueError(
            f"loss {loss.name!r}: YOLOv2's softmax is over the classes, and of one its loss is always 0; "
            "take a sigmoid loss, such as bce (what is found is learned by the objectness)"
        )
