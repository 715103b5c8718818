"""Which locations must find which object: max-IoU (RetinaNet), ATSS and centre-cell (YOLOv2) assignment.

All take a whole batch at once. The anchors of its images are `(P, 4)` xyxy in pixels. The objects of an image
are padded to the largest count in the batch: `boxes` is `(B, M, 4)` in pixels, `labels` is `(B, M)` with a
class index, `NO_OBJECT` for padding, or `IGNORED` for a region that is neither to be found nor a mistake when
found (VOC "difficult", COCO crowd). `num_classes` means background in the result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.boxes import box_iou, paired_box_iou
from detloss.calling import IGNORED

NO_OBJECT = -1
AT_ONCE = 2**24
"""Pairs of an object and an anchor that are looked at together: memory grows with neither number."""


@dataclass(frozen=True)
class Assignment:
    """For each location of each image: its class, its box, and whether it counts.

    Attributes:
        labels: `(B, P)` int64: the class of a positive, `num_classes` for background, `IGNORED`.
        boxes: `(B, P, 4)` xyxy in pixels: the object of a positive, zeros elsewhere.
        positives: `(B, P)` bool.
    """

    labels: Tensor
    boxes: Tensor
    positives: Tensor


def max_iou(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    num_classes: int,
    positive: float = 0.5,
    negative: float = 0.4,
    rescue: bool = True,
) -> Assignment:
    """Assigns each anchor to the object it overlaps most (RetinaNet, 1708.02002, section 4).

    An anchor is positive from IoU `positive`, background below `negative`, ignored in between.

    Args:
        positive: IoU from which an anchor is positive.
        negative: IoU below which an anchor is background.
        rescue: give an object that no anchor overlaps by `positive` the anchors that overlap it most, as
            Faster R-CNN does; without it small objects have no positives at all. Where two objects want the
            same anchor, the larger IoU has it; an anchor that is positive already is not taken away.
    """
    boxes, labels = _at_least_one(boxes, labels)
    overlap = rescued = _Best.of(boxes, anchors)
    for part in _parts(boxes, anchors):
        iou = _iou(boxes[:, part], labels[:, part], anchors)
        overlap = overlap.or_of(iou, part)
        if rescue:
            of_object = iou.amax(dim=2, keepdim=True)
            wanted = (iou == of_object) & (of_object > 0)
            rescued = rescued.or_of(torch.where(wanted, iou, -1.0), part)
    taken = overlap.value >= positive
    match = torch.where((rescued.value > 0) & ~taken, rescued.match, overlap.match)
    taken = taken | (rescued.value > 0)
    unclear = (overlap.value >= negative) & ~taken
    return _assignment(match, taken, unclear, anchors, boxes, labels, num_classes)


def atss(
    anchors: Tensor,
    level_sizes: Sequence[int],
    boxes: Tensor,
    labels: Tensor,
    num_classes: int,
    candidates: int = 9,
) -> Assignment:
    """Adaptive training sample selection (ATSS, 1912.02424, algorithm 1).

    For each object the `candidates` anchors of each level whose centres lie nearest to its own are compared
    with it; positive are those whose IoU reaches the mean plus the standard deviation of the candidates' IoUs
    and whose centre lies inside the object. An anchor wanted by several objects goes to the one it overlaps
    most.

    Args:
        anchors: one square anchor per location, level after level.
        level_sizes: number of anchors of each level, in that order.
        candidates: k of the paper.
    """
    boxes, labels = _at_least_one(boxes, labels)
    centres = _centres(anchors)
    wanted_by = _Best.of(boxes, anchors)
    for part in _parts(boxes, anchors):
        some = boxes[:, part]
        distance = (_centres(some)[:, :, None] - centres).square_().sum(-1)
        nearest, start = [], 0
        for level in distance.split(list(level_sizes), dim=-1):
            size = level.shape[-1]
            nearest.append(level.topk(min(candidates, size), dim=-1, largest=False).indices + start)
            start += size
        candidate = torch.cat(nearest, dim=-1)
        near = anchors[candidate]
        iou = paired_box_iou(some[:, :, None].expand_as(near), near, eps=None)
        spread = iou.std(dim=-1, keepdim=True) if candidate.shape[-1] > 1 else 0.0
        reached = iou >= iou.mean(dim=-1, keepdim=True) + spread
        x, y = centres[candidate].unbind(-1)
        left, top, right, bottom = some[:, :, None].unbind(-1)
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        chosen = reached & inside & (labels[:, part, None] >= 0)
        wanted = torch.full_like(distance, -1.0)
        wanted_by = wanted_by.or_of(wanted.scatter_(2, candidate, torch.where(chosen, iou, -1.0)), part)
    taken = wanted_by.value > 0
    unclear = torch.zeros_like(taken)
    return _assignment(wanted_by.match, taken, unclear, anchors, boxes, labels, num_classes)


def centre_cell(
    anchors: Tensor, strides: Tensor, boxes: Tensor, labels: Tensor, num_classes: int, ignore: float = 0.6
) -> Assignment:
    """YOLOv2's assignment (1612.08242, section 2): the best shape in the cell that holds the centre.

    Shapes are compared by IoU as if anchor and object shared a centre. Where two objects want one anchor, the
    better shape has it. Other anchors that overlap an object by more than `ignore` are neither positive nor
    background; darknet asks that of the predicted box, this of the anchor, which does not move in training.

    Args:
        anchors: centred in their cells.
        strides: `(P,)` side of the cells.
        ignore: IoU above which an anchor that is not positive is ignored.
    """
    boxes, labels = _at_least_one(boxes, labels)
    low, high = -strides / 2, strides / 2
    anchor = anchors[:, 2:] - anchors[:, :2]
    wanted_by = overlap = _Best.of(boxes, anchors)
    for part in _parts(boxes, anchors):
        some = boxes[:, part]
        offset = _centres(some)[..., None, :] - _centres(anchors)
        inside = ((offset >= low[:, None]) & (offset < high[:, None])).all(-1)
        inside &= (labels[:, part] >= 0)[..., None]
        size = some[..., None, 2:] - some[..., None, :2]
        shared = torch.minimum(size, anchor).prod(-1)
        shape = torch.where(inside, shared / (size.prod(-1) + anchor.prod(-1) - shared), -1.0)
        wanted = torch.zeros_like(inside).scatter_(2, shape.argmax(dim=2, keepdim=True), True) & inside
        wanted_by = wanted_by.or_of(torch.where(wanted, shape, -1.0), part)
        overlap = overlap.or_of(_iou(some, labels[:, part], anchors), part)
    taken = wanted_by.value > 0
    unclear = (overlap.value > ignore) & ~taken
    return _assignment(wanted_by.match, taken, unclear, anchors, boxes, labels, num_classes)


class _Best(NamedTuple):
    """For each anchor the largest value that an object has with it so far, and which object that is."""

    value: Tensor
    match: Tensor

    @classmethod
    def of(cls, boxes: Tensor, anchors: Tensor) -> "_Best":
        """Below every value."""
        value = boxes.new_full((len(boxes), len(anchors)), -1.0)
        return cls(value, torch.zeros_like(value, dtype=torch.int64))

    def or_of(self, values: Tensor, part: slice) -> "_Best":
        """With `(B, m, P)` values of some more objects; of equal values the first object's stays."""
        value, which = values.max(dim=1)
        more = value > self.value
        match = torch.where(more, which + part.start, self.match)
        return _Best(torch.where(more, value, self.value), match)


def _parts(boxes: Tensor, anchors: Tensor) -> Iterator[slice]:
    """The objects, as many at a time as memory should hold with all anchors."""
    size = max(1, AT_ONCE // max(1, len(boxes) * len(anchors)))
    for start in range(0, boxes.shape[1], size):
        yield slice(start, start + size)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _at_least_one(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch without objects is given padding, so that it needs no code of its own."""
    if labels.shape[1]:
        return boxes, labels
    return boxes.new_zeros(len(labels), 1, 4), labels.new_full((len(labels), 1), NO_OBJECT)


def _iou(boxes: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """IoU of every object with every anchor `(B, M, P)`, -1 where there is no object to find."""
    batch, count, _ = boxes.shape
    iou = box_iou(boxes.reshape(-1, 4), anchors).reshape(batch, count, -1)
    return iou.masked_fill((labels < 0)[..., None], -1.0)


def _assignment(
    match: Tensor,
    taken: Tensor,
    unclear: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    background: int,
) -> Assignment:
    unclear = unclear | (_covered(boxes, labels, anchors) & ~taken)
    target = labels.gather(1, match)
    target = target.masked_fill(~taken, background).masked_fill(unclear, IGNORED)
    box = boxes.gather(1, match[..., None].expand(-1, -1, 4)) * taken[..., None]
    return Assignment(target, box, taken)


def _covered(boxes: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """`(B, P)`: whether an ignored region holds the anchor's centre."""
    x, y = _centres(anchors).unbind(-1)
    covered = torch.zeros(len(boxes), len(anchors), dtype=torch.bool, device=boxes.device)
    for part in _parts(boxes, anchors):
        left, top, right, bottom = boxes[:, part, None, :].unbind(-1)
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        covered |= (inside & (labels[:, part] == IGNORED)[..., None]).any(dim=1)
    return covered
