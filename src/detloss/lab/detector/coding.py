"""Between boxes and what the network regresses."""

import math

import torch
from torch import Tensor

from detloss.boxes import box_convert

LARGEST_LOG = math.log(1000 / 16)
"""No side grows by more than this in one step of decoding: early in training exp would overflow."""


def encode_offsets(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(dx, dy, log dw, log dh) of `boxes` against `anchors`, both xyxy (Fast R-CNN, 1311.2524 appendix C)."""
    x, y, w, h = box_convert(boxes, "xyxy", "cxcywh").unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    return torch.stack([(x - ax) / aw, (y - ay) / ah, (w / aw).log(), (h / ah).log()], dim=-1)


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_offsets`, with log dw and log dh limited to log(1000 / 16)."""
    dx, dy, dw, dh = offsets.unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    w, h = dw.clamp(max=LARGEST_LOG).exp() * aw, dh.clamp(max=LARGEST_LOG).exp() * ah
    return box_convert(torch.stack([ax + dx * aw, ay + dy * ah, w, h], dim=-1), "cxcywh", "xyxy")


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
    x, y, w, h = box_convert(boxes, "xyxy", "cxcywh").unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    place = torch.stack([(x - ax) / strides, (y - ay) / strides], dim=-1) + 0.5
    return torch.cat([place, torch.stack([(w / aw).log(), (h / ah).log()], dim=-1)], dim=-1)


def decode_cells(regression: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Boxes from raw (tx, ty, tw, th): the inverse of `encode_cells` after a sigmoid of tx and ty."""
    tx, ty, tw, th = regression.unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    x, y = ax + (tx.sigmoid() - 0.5) * strides, ay + (ty.sigmoid() - 0.5) * strides
    w, h = tw.clamp(max=LARGEST_LOG).exp() * aw, th.clamp(max=LARGEST_LOG).exp() * ah
    return box_convert(torch.stack([x, y, w, h], dim=-1), "cxcywh", "xyxy")
