"""What detectors that match queries to objects share: the terms of one layer's queries, with losses given."""

from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.boxes import paired_box_iou
from detloss.integrations._losses import Called, each_box, each_row, sum_classes

FORMAT = "cxcywh"
"""Of the boxes, as parts of the image."""


@dataclass(frozen=True)
class Losses:
    """The losses that were given; None: the criterion's own.

    Attributes:
        classification: of the logits of all queries.
        box: in place of GIoU, on matched boxes.
        l1: in place of the L1 distance of (cx, cy, w, h), on matched boxes.
    """

    classification: Called | None
    box: Called | None
    l1: Called | None

    def names(self) -> dict[str, str]:
        """What was given, for `repr`."""
        return {term: loss.name for term, loss in vars(self).items() if loss is not None}


@dataclass(frozen=True)
class Matched:
    """Queries with the objects that the matcher gave them.

    Attributes:
        at: image and query of each pair.
        classes: of the objects, `(pairs,)`.
        predicted: boxes of the queries, `(pairs, 4)`.
        true: boxes of the objects.
        real: 1 for pairs that count, or None: all do.
    """

    at: tuple[Tensor, Tensor]
    classes: Tensor
    predicted: Tensor
    true: Tensor
    real: Tensor | None = None

    def labels(self, logits: Tensor, background: int) -> Tensor:
        """The class index of each query, `logits.shape[:-1]`."""
        classes = self.classes
        if self.real is not None:
            classes = torch.where(self.real.bool(), classes, background)
        labels = torch.full(logits.shape[:-1], background, dtype=torch.int64, device=logits.device)
        labels[self.at] = classes.long()
        return labels


def class_term(loss: Called, logits: Tensor, matched: Matched, boxes: float | Tensor) -> Tensor:
    """Sigmoid logits `(B, Q, C)`: the sum over all of them, by the number of boxes."""
    quality = None
    if loss.wants_quality:
        iou = paired_box_iou(matched.predicted.detach(), matched.true, fmt=FORMAT)
        quality = iou.new_zeros(logits.shape[:-1])
        quality[matched.at] = iou
    return sum_classes(loss, logits, matched.labels(logits, logits.shape[-1]), quality) / boxes


def softmax_term(loss: Called, logits: Tensor, matched: Matched, weight: Tensor) -> Tensor:
    """Softmax logits, the last for no object: the mean over queries, weighted by their classes.

    So DETR's cross entropy does. The loss itself gets no weights: they are applied here.
    """
    labels = matched.labels(logits, logits.shape[-1] - 1).flatten()
    each, weights = loss(logits.flatten(0, 1), labels), weight.to(logits.dtype)[labels]
    return (each * weights).sum() / weights.sum()


def box_terms(losses: Losses, matched: Matched, boxes: float | Tensor) -> dict[str, Tensor]:
    """The terms that were given, under the names that the criterion weighs them by."""
    terms = {}
    if losses.l1 is not None:
        terms["loss_bbox"] = each_row(losses.l1, matched.predicted, matched.true, FORMAT)
    if losses.box is not None:
        terms["loss_giou"] = each_box(losses.box, matched.predicted, matched.true, FORMAT)
    real = 1 if matched.real is None else matched.real
    return {name: (each * real).sum() / boxes for name, each in terms.items()}
