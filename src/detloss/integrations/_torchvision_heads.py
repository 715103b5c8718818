"""What the heads of torchvision's RetinaNet, FCOS and SSD compute, with losses that are given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.boxes import paired_box_iou
from detloss.calling import IGNORED
from detloss.integrations._losses import each_box, each_row, sum_classes


@dataclass
class Head:
    """A head with its losses; None: the head's own. It is copied and pickled along with its part."""

    part: Any
    classification: Any
    box: Any
    decoded: bool
    mining: bool


def compute(terms: Any, head: Head, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: Any) -> Any:
    """`compute_loss`: the anchors of all images, then the terms of this kind of head."""
    of_image = zip(targets, head_outputs["bbox_regression"], anchors, matched_idxs)
    return terms(head, [_Image(*each) for each in of_image], targets, head_outputs, anchors, matched_idxs)


class _Image:
    """The anchors of an image: `at` says which are positive, `raw` is what the head says there."""

    def __init__(self, target: dict[str, Tensor], raw: Tensor, anchors: Tensor, matched: Tensor) -> None:
        self.at = torch.where(matched >= 0)[0]
        self.matched, self.of_positive = matched, target["labels"][matched[self.at]]
        self.true, self.raw, self.anchors = target["boxes"][matched[self.at]], raw[self.at], anchors[self.at]

    def labels(self, background: int) -> Tensor:
        labels = torch.full_like(self.matched, background).masked_fill(self.matched < -1, IGNORED)
        return labels.index_put((self.at,), self.of_positive)

    def quality(self, coder: Any) -> Tensor:
        iou = paired_box_iou(_decode(coder, self.raw.detach(), self.anchors), self.true)
        return iou.new_zeros(self.matched.shape).index_put((self.at,), iou)

    def boxes(self, head: Head, coder: Any) -> Tensor:
        if head.decoded:
            return each_box(head.box, _decode(coder, self.raw, self.anchors), self.true).sum()
        return each_row(head.box, self.raw, _encode(coder, self.true, self.anchors)).sum()

    def classes(self, head: Head, logits: Tensor, coder: Any) -> Tensor:
        quality = self.quality(coder) if head.classification.wants_quality else None
        return sum_classes(head.classification, logits, self.labels(logits.shape[-1]), quality)


def _decode(coder: Any, raw: Tensor, anchors: Tensor) -> Tensor:
    return (coder.decode_single if hasattr(coder, "decode_single") else coder.decode)(raw, anchors)


def _encode(coder: Any, boxes: Tensor, anchors: Tensor) -> Tensor:
    return (
        coder.encode_single(boxes, anchors)
        if hasattr(coder, "encode_single")
        else coder.encode(anchors, boxes)
    )


def retinanet(
    head: Head, images: list[_Image], targets: Any, outputs: Any, anchors: Any, matched: Any
) -> Any:
    """Each image by its own positives, then the mean over images."""
    classes, boxes = head.part.classification_head, head.part.regression_head

    def mean(terms: list[Tensor]) -> Tensor:
        return torch.stack([term / max(1, len(image.at)) for term, image in zip(terms, images)]).mean()

    each = zip(images, outputs["cls_logits"])
    return {
        "classification": classes.compute_loss(targets, outputs, matched)
        if head.classification is None
        else mean([image.classes(head, logits, boxes.box_coder) for image, logits in each]),
        "bbox_regression": boxes.compute_loss(targets, outputs, anchors, matched)
        if head.box is None
        else mean([image.boxes(head, boxes.box_coder) for image in images]),
    }


def fcos(head: Head, images: list[_Image], targets: Any, outputs: Any, anchors: Any, matched: Any) -> Any:
    """All by the positives of the batch; centre-ness is √(min l,r / max l,r · min t,b / max t,b)."""
    coder, count = head.part.box_coder, max(1, sum(len(image.at) for image in images))
    each = list(zip(images, outputs["cls_logits"], outputs["bbox_ctrness"]))
    centred = torch.cat([score[image.at, 0] for image, _, score in each])
    sides = torch.cat([coder.encode(image.anchors, image.true) for image in images])
    low, high = (
        torch.stack([side(sides[:, 0::2], 1), side(sides[:, 1::2], 1)]) for side in (torch.amin, torch.amax)
    )
    centre = F.binary_cross_entropy_with_logits(centred, (low / high).prod(0).sqrt(), reduction="sum")
    return {
        "classification": sum(image.classes(head, logits, coder) for image, logits, _ in each) / count,
        "bbox_regression": sum(image.boxes(head, coder) for image in images) / count,
        "bbox_ctrness": centre / count,
    }


def ssd(head: Head, images: list[_Image], targets: Any, outputs: Any, anchors: Any, matched: Any) -> Any:
    """All terms by the positives of the batch; of the negatives, 3 per positive of their image: the worst."""
    model, count = head.part, max(1, sum(len(image.at) for image in images))
    labels = torch.stack([image.labels(0) for image in images])
    each = head.classification(outputs["cls_logits"].flatten(0, 1), labels.flatten()).view_as(labels)
    positive = labels > 0
    counts = torch.ones_like(positive)
    if head.mining:
        worst = each.detach().masked_fill(positive, -torch.inf).sort(1, descending=True)[1].sort(1)[1]
        counts = positive | (worst < model.neg_to_pos_ratio * positive.sum(1, keepdim=True))
    return {
        "bbox_regression": sum(image.boxes(head, model.box_coder) for image in images) / count,
        "classification": torch.where(counts, each, 0).sum() / count,
    }


DEFAULTS: dict[Callable[..., Any], dict[str, Any]] = {
    fcos: {"classification": "focal", "box": "giou"},
    ssd: {"classification": F.cross_entropy, "box": F.smooth_l1_loss},
}
"""What a head trains with where all its terms are in one function; RetinaNet's can be called one by one."""
