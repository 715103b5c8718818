"""From the detector's output and the assignment to the number that is minimised, with any pair of losses."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detloss import losses
from detloss.balance import guided_scale
from detloss.boxes import paired_box_iou
from detloss.calling import IGNORED, Loss, classify, impl_for, regress
from detloss.lab import ranks
from detloss.lab.detector.assign import Assignment
from detloss.lab.detector.coding import encode_distances
from detloss.lab.detector.detector import Detector, Grid, Output


class Sums(NamedTuple):
    """What a batch comes to before anything is divided, each a 0-dim tensor; sums of its parts add up to it.

    Attributes:
        classification, objectness: over counted locations (where there is mining, over those it keeps).
        box, distribution: over positives, weighted.
        positives: how many.
        weights: of the positives in the box terms.
        of_positives: what comes from the positives' own class.
    """

    classification: Tensor
    objectness: Tensor
    box: Tensor
    distribution: Tensor
    positives: Tensor
    weights: Tensor
    of_positives: Tensor

    def averaged(self) -> "Sums":
        """The mean over the processes of a training, without gradient: `global_normalizer` of all at once."""
        if ranks.world() == 1:
            return Sums(*(one.detach() for one in self))
        return Sums(*ranks.averaged(torch.stack([one.detach() for one in self])).unbind())


class Terms(NamedTuple):
    """What a batch costs, each a 0-dim tensor.

    Of a batch in parts, those of its parts add up to it. Of a batch over several processes, the mean over
    these is it, as DistributedDataParallel takes the mean of their gradients.

    Attributes:
        total: what is minimised: classification + objectness + weighted_box + weighted_distribution.
        classification: sum over counted locations (where there is mining, over those it keeps) ÷ normalizer.
        box: sum over positives ÷ normalizer; weighted, the weighted sum ÷ the sum of the weights, at least 1.
        distribution: distribution focal loss, mean of the four sides, summed as `box`.
        objectness: cross entropy of the objectness (yolov2), sum over counted locations ÷ normalizer; its
            target is the IoU of a positive's predicted box with its object, and 0 elsewhere.
        positives: number of positive locations.
        located: classification (yolov2: objectness), without gradient.
        of_positives: what of it comes from the positives' own class.
        weighted_box, weighted_distribution: times box_weight and distribution_weight; with guided balance
            both also times what makes `box` as large as classification + objectness.
    """

    total: Tensor
    classification: Tensor
    box: Tensor
    distribution: Tensor
    objectness: Tensor
    positives: Tensor
    located: Tensor
    of_positives: Tensor
    weighted_box: Tensor
    weighted_distribution: Tensor

    @property
    def normalizer(self) -> Tensor:
        """What sums are divided by, of a whole batch: positives, at least 1."""
        return self.positives.clamp(min=1)

    @property
    def positive_share(self) -> Tensor:
        """Part of the classification loss (yolov2: of the objectness) that is of the positives' own class."""
        return self.of_positives / self.located.clamp(min=torch.finfo(self.located.dtype).tiny)


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

    With class weights the loss of a positive, over all its logits, is multiplied with the weight of its class
    (1901.05555); the background weighs 1.

    Of YOLOv2 only positives have a class (1612.08242): imbalanced there, and mined, is the objectness.

    Attributes:
        detector: gives the decoding.
        grid: locations of this image size.
        classification, box: from `find_loss`.
        box_weight: of the box term.
        distribution_weight: of the distribution focal loss term.
        balance: "guided": the box terms are first scaled to the class term, see `detloss.balance`.
        weigh_boxes: what a positive weighs in the box and distribution terms, without gradient: "alike" 1;
            "score" its highest predicted score (GFL, 2006.04388); "iou" the IoU of its predicted box
            (VFNet, 2008.13367). As in their code, sums are divided by the sum of the weights.
        steps: of the training; they decide what is scheduled.
        seed: with the step, it decides which negatives random mining draws.
        class_weights: what `classification.class_weight` gives for the training data, `(C,)`; or None.
    """

    detector: Detector
    grid: Grid
    classification: Loss
    box: Loss
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    balance: Literal["fixed", "guided"] = "fixed"
    weigh_boxes: Literal["alike", "score", "iou"] = "alike"
    steps: int = 1
    seed: int = 0
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        chosen = self.classification.class_weight
        if (chosen is None) != (self.class_weights is None):
            raise ValueError(
                f"class_weights is {self.class_weights} for loss {self.classification.name!r}; it must be "
                f"{'None' if chosen is None else 'what its class_weight gives for the training data'}"
            )

    def __call__(
        self, output: Output, assignment: Assignment, step: int = 0, first: int = 0, whole: Sums | None = None
    ) -> Terms:
        """The loss of what the detector says of a batch, at a step (from 0) of the training.

        Of several processes, each calls it with its part of the batch.

        Args:
            output, assignment: of the batch, or of a part of it.
            step: of the training.
            first: the place in the batch of the first image here.
            whole: of a batch in parts, the mean over the processes of what all parts come to; positives and
                weights at least, with guided balance all.
        """
        sums = self.sums(output, assignment, step, first)
        return self.terms(sums, sums.averaged() if whole is None else whole)

    def sums(self, output: Output, assignment: Assignment, step: int = 0, first: int = 0) -> Sums:
        """What a batch, or a part of it, comes to before anything is divided; arguments as above."""
        device = output.logits.device
        classification = self.classification.at(step, self.steps, device)
        positives = Positives(self.detector, self.grid, output, assignment)
        where, labels = positives.where, assignment.labels

        logits, quality = output.logits.float(), positives.quality if classification.takes_quality else None
        none = logits.new_zeros(())
        if output.objectness is None:
            each = classify(classification, logits, labels, quality)
            located = self._by_class(self._mined(each, output, assignment, step, first), labels)
            class_sum, objectness_sum = located.sum(), none
        else:
            each = _objectness_loss(output.objectness, positives, labels)
            located = self._mined(each, output, assignment, step, first)
            quality = None if quality is None else quality[where][None]
            of_object = classify(classification, logits[where][None], labels[where][None], quality)
            of_object = self._by_class(of_object, labels[where][None])
            class_sum, objectness_sum = of_object.sum(), located.sum()
        of_positives = located[where]
        if located.ndim == 3:
            of_positives = of_positives.gather(1, labels[where][:, None])

        weight = self._weight(output, positives)
        each = regress(self.box.at(step, self.steps, device), positives.predicted, positives.true)
        box_sum, distribution_sum = (each * weight).sum(), none
        if self.detector.config.bins:
            sides = encode_distances(positives.true, positives.anchors) / positives.strides[:, None]
            each = losses.distribution_focal_loss(positives.regression, sides, impl=impl_for(sides)).mean(-1)
            distribution_sum = (each * weight).sum()
        terms = (class_sum, objectness_sum, box_sum, distribution_sum)
        return Sums(*terms, where.sum().float(), weight.sum(), of_positives.sum())

    def terms(self, sums: Sums, whole: Sums) -> Terms:
        """The loss of a part of a batch, given the mean over the processes of what the batch comes to."""
        processes = ranks.world()
        normalizer = whole.positives.clamp(min=1 / processes)
        weights = whole.weights.clamp(min=1 / processes)
        class_term, objectness_term = sums.classification / normalizer, sums.objectness / normalizer
        box_term, distribution_term = sums.box / weights, sums.distribution / weights
        weighted = (self.box_weight * box_term, self.distribution_weight * distribution_term)
        if self.balance == "guided":
            of_classes = (whole.classification + whole.objectness) / normalizer
            scale = guided_scale(of_classes, whole.box / weights)
            weighted = (scale * weighted[0], scale * weighted[1])
        total = class_term + objectness_term + (weighted[0] + weighted[1])
        terms = (class_term, box_term, distribution_term, objectness_term)
        located = objectness_term if self.detector.config.kind == "yolov2" else class_term
        of_positives = sums.of_positives / normalizer
        count = sums.positives * processes
        return Terms(total, *terms, count, located.detach(), of_positives.detach(), *weighted)

    def ahead(self, assignment: Assignment) -> Sums | None:
        """What a part of a batch comes to, as far as the others' loss depends on it, if no output decides."""
        if self.balance == "guided" or self.weigh_boxes != "alike":
            return None
        count = assignment.positives.sum().float()
        none = count.new_zeros(())
        return Sums(none, none, none, none, count, count, none)

    def _mined(self, each: Tensor, output: Output, assignment: Assignment, step: int, first: int) -> Tensor:
        """The loss `(B, P)` or `(B, P, C)` of each location, 0 where mining leaves it out."""
        mining = self.classification.mining
        if mining is None:
            return each
        boxes = None
        if mining.by_boxes:
            boxes = self.detector.decode(output.regression.detach(), self.grid.anchors, self.grid.strides)
        draw = torch.Generator().manual_seed(int(np.random.default_rng((self.seed, step, 2)).integers(2**63)))
        if mining.kind == "random" and first:
            torch.rand((first, each.shape[1]), generator=draw)  # what the images before these draw
        kept = mining.mask(each, boxes, assignment.positives, assignment.labels == IGNORED, draw)
        return each * kept.view(*kept.shape, *[1] * (each.ndim - 2))

    def _by_class(self, each: Tensor, labels: Tensor) -> Tensor:
        """The loss `(B, P)` or `(B, P, C)` of each location times the weight of its class."""
        if self.class_weights is None:
            return each
        background = len(self.class_weights)
        weights = torch.cat((self.class_weights, torch.ones_like(self.class_weights[:1])))
        weight = weights[torch.where(labels == IGNORED, background, labels)]
        return each * weight.view(*weight.shape, *[1] * (each.ndim - 2))

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
