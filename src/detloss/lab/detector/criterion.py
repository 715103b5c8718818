"""From the detector's output and the assignment to the number that is minimised, with any pair of losses."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detloss import losses
from detloss.boxes import paired_box_iou
from detloss.lab.detector import Detector, Grid, Output, encode_distances
from detloss.lab.detector.assign import IGNORED, Assignment
from detloss.names import Loss, classify, impl_for, regress


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


def detection_loss(
    detector: Detector,
    grid: Grid,
    output: Output,
    assignment: Assignment,
    classification: Loss,
    box: Loss,
    box_weight: float = 2.0,
    distribution_weight: float = 0.5,
    step: int = 0,
    steps: int = 1,
    seed: int = 0,
    weigh_boxes: Literal["alike", "score", "iou"] = "alike",
) -> Terms:
    """The loss of a batch, in float32.

    Sums are divided by the number of positives (1708.02002, section 4.1), those of a mined loss too, whatever
    it keeps; boxes are not mined. A classification loss with a `quality` argument is given the IoU of each
    positive's predicted box with its object, without gradient (2006.04388).

    Of YOLOv2 only positives have a class (1612.08242): imbalanced there, and mined, is the objectness.

    Args:
        detector: gives the decoding.
        grid: locations of this image size.
        output: of the detector.
        assignment: of the same locations.
        classification: from `find_loss`.
        box: from `find_loss`.
        box_weight: of the box term.
        distribution_weight: of the distribution focal loss term.
        step, steps: of the training, from 0; they decide what is scheduled.
        seed: with `step`, it decides which negatives random mining draws.
        weigh_boxes: what a positive weighs in the box and distribution terms, without gradient: "alike" 1;
            "score" its highest predicted score (GFL, 2006.04388); "iou" the IoU of its predicted box
            (VFNet, 2008.13367). As in their code, sums are divided by the sum of the weights.
    """
    classification = classification.at(step, steps, output.logits.device)
    box = box.at(step, steps, output.logits.device)
    positives = assignment.positives
    count = positives.sum()
    normalizer = count.clamp(min=1).float()
    where = positives.nonzero(as_tuple=True)[1]
    regression = output.regression[positives].float()
    anchors, strides = grid.anchors[where], grid.strides[where]
    predicted = detector.decode(regression, anchors, strides)
    true = assignment.boxes[positives]

    labels = assignment.labels
    quality = torch.ones_like(labels, dtype=torch.float32)
    if classification.takes_quality or output.objectness is not None or weigh_boxes == "iou":
        quality[positives] = paired_box_iou(predicted.detach(), true).clamp(0, 1)
    given = quality if classification.takes_quality else None
    if output.objectness is None:
        loss = imbalanced = classify(classification, output.logits.float(), labels, given)
    else:
        given = None if given is None else given[positives][None]
        loss = classify(
            classification, output.logits[positives][None].float(), labels[positives][None], given
        )
        imbalanced = _objectness_loss(output.objectness.float(), assignment, quality)
    if classification.mining is not None:
        boxes = None
        if classification.mining.by_boxes:
            boxes = detector.decode(output.regression.detach(), grid.anchors, grid.strides)
        draw = int(np.random.default_rng((seed, step, 2)).integers(2**63))
        kept = classification.mining.mask(
            imbalanced, boxes, positives, labels == IGNORED, torch.Generator().manual_seed(draw)
        )
        imbalanced = imbalanced * kept.view(*kept.shape, *[1] * (imbalanced.ndim - 2))
    from_positives = imbalanced[positives]
    if imbalanced.ndim == 3:
        from_positives = from_positives.gather(1, labels[positives][:, None])
    whole = imbalanced.sum()
    share = (from_positives.sum() / whole.clamp(min=torch.finfo(whole.dtype).tiny)).detach()

    none = whole.new_zeros(())
    class_term, objectness_term = whole / normalizer, none
    if output.objectness is not None:
        class_term, objectness_term = loss.sum() / normalizer, whole / normalizer
    if weigh_boxes == "score":
        weight = detector.scores(output).detach()[positives].amax(-1)
    else:
        weight = quality[positives] if weigh_boxes == "iou" else torch.ones_like(true[:, 0])
    weights = weight.sum().clamp(min=1)
    box_term = (regress(box, predicted, true) * weight).sum() / weights
    distribution_term = none
    if detector.config.bins:
        sides = encode_distances(true, anchors) / strides[:, None]
        sides_loss = losses.distribution_focal_loss(regression, sides, impl=impl_for(sides))
        distribution_term = (sides_loss.mean(-1) * weight).sum() / weights
    total = class_term + box_weight * box_term + distribution_weight * distribution_term + objectness_term
    return Terms(total, class_term, box_term, distribution_term, objectness_term, count, normalizer, share)


def _objectness_loss(logits: Tensor, assignment: Assignment, quality: Tensor) -> Tensor:
    """Cross entropy `(B, P)` of `(B, P)` logits with the IoU of a positive's box, 0 of the background."""
    targets = quality * assignment.positives
    loss = losses.binary_cross_entropy_with_logits(logits, targets, impl=impl_for(logits))
    return loss.masked_fill(assignment.labels == IGNORED, 0)
