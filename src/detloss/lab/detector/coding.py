"""Between boxes and what the network regresses."""

import math

import torch
from torch import Tensor

from detloss.boxes import box_convert

LARGEST_LOG = math.log(1000 / 16)
"""No side grows by more than this in one step of decoding: early in training exp would overflow."""


def encode_offsets(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(dx, dy, log dw, log dh) of `boxes` against `anchors`, both xyxy (Fast R-CNN, 1311.2524 appendix C)."""
    (centre, side), (at, base) = (box_convert(b, "xyxy", "cxcywh").split(2, dim=-1) for b in (boxes, anchors))
    return torch.cat([(centre - at) / base, (side / base).log()], dim=-1)


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_offsets`, with log dw and log dh limited to log(1000 / 16)."""
    centre, side = box_convert(anchors, "xyxy", "cxcywh").split(2, dim=-1)
    return _boxes(centre + offsets[..., :2] * side, offsets[..., 2:], side)


def encode_distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(left, top, right, bottom) pixels from the anchors' centres to the sides of `boxes` (FCOS)."""
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    return torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], dim=-1)


def decode_distances(distances: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_distances`."""
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)


def encode_cells(boxes: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """(x, y, log w, log h) of `boxes` in their cells (YOLOv2, 1612.08242, section 2).

    x and y run from 0 to 1 over the cell that `anchors` are centred in, w and h are relative to the anchor.
    """
    (centre, side), (at, base) = (box_convert(b, "xyxy", "cxcywh").split(2, dim=-1) for b in (boxes, anchors))
    return torch.cat([(centre - at) / strides[..., None] + 0.5, (side / base).log()], dim=-1)


def decode_cells(regression: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Boxes from raw (tx, ty, tw, th): the inverse of `encode_cells` after a sigmoid of tx and ty."""
    centre, side = box_convert(anchors, "xyxy", "cxcywh").split(2, dim=-1)
    return _boxes(
        centre + (regression[..., :2].sigmoid() - 0.5) * strides[..., None], regression[..., 2:], side
    )


def _boxes(centres: Tensor, growth: Tensor, sides: Tensor) -> Tensor:
    """Boxes round `centres` whose sides are exp(growth) of `sides`, all `(..., 2)`."""
    grown = growth.clamp(max=LARGEST_LOG).exp() * sides
    return box_convert(torch.cat([centres, grown], dim=-1), "cxcywh", "xyxy")
