"""Between boxes and what the network regresses."""

import math

import torch
from torch import Tensor

from detloss.boxes import box_convert

LARGEST_LOG = math.log(1000 / 16)
"""No side grows by more than this in one step of decoding: early in training exp would overflow."""


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes from (dx, dy, log dw, log dh) against `anchors`, xyxy (Fast R-CNN, 1311.2524 appendix C).

    dx and dy are in sides of the anchor; log dw and log dh are limited to log(1000 / 16).
    """
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


def decode_cells(regression: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Boxes from raw (tx, ty, tw, th) in their cells (YOLOv2, 1612.08242, section 2).

    The sigmoids of tx and ty run from 0 to 1 over the cell that `anchors` are centred in; exp tw and exp th
    are relative to the anchor.
    """
    centre, side = box_convert(anchors, "xyxy", "cxcywh").split(2, dim=-1)
    return _boxes(
        centre + (regression[..., :2].sigmoid() - 0.5) * strides[..., None], regression[..., 2:], side
    )


def _boxes(centres: Tensor, growth: Tensor, sides: Tensor) -> Tensor:
    """Boxes round `centres` whose sides are exp(growth) of `sides`, all `(..., 2)`."""
    grown = growth.clamp(max=LARGEST_LOG).exp() * sides
    return box_convert(torch.cat([centres, grown], dim=-1), "cxcywh", "xyxy")
