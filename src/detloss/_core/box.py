"""Boxes as a tensor for each side, and what is refused of box arguments."""

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from detloss._core.dtypes import arithmetic_dtype

FORMATS = ("xyxy", "xywh", "cxcywh")


class Box(NamedTuple):
    """Boxes by their sides, as a formula of `box_loss` gets them: a tensor each, all of one shape.

    Width and height are 0 where corners are inverted: such a box has no area and meets nothing.

    Attributes:
        left: x of the left side.
        top: y of the upper side.
        right: x of the right side.
        bottom: y of the lower side.
        width: right - left, at least 0.
        height: bottom - top, at least 0.
    """

    left: Tensor
    top: Tensor
    right: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor


def box(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Box:
    """The boxes of these corners."""
    return Box(left, top, right, bottom, (right - left).clamp(min=0), (bottom - top).clamp(min=0))


def box_of(columns: Sequence[Tensor], fmt: str = "xyxy") -> Box:
    """The boxes whose four coordinates, in the format `fmt`, are given one by one."""
    if fmt == "xyxy":
        return box(*columns)
    x, y, w, h = columns
    if fmt == "cxcywh":
        x, y = x - w / 2, y - h / 2
    return box(x, y, x + w, y + h)


def widened(boxes: Tensor) -> Tensor:
    """The boxes in the dtype of the arithmetic, float32 or float64."""
    return boxes.to(arithmetic_dtype(boxes.dtype))


def check_pair(boxes1: Tensor, boxes2: Tensor, fmt: str) -> None:
    """ValueError unless the format is known, and the boxes are of equal shape and end in 4."""
    check_boxes("boxes1", boxes1, fmt)
    check_boxes("boxes2", boxes2, fmt)
    if boxes1.shape != boxes2.shape:
        raise ValueError(
            f"boxes1 has shape {tuple(boxes1.shape)}, boxes2 {tuple(boxes2.shape)}; they must be equal: "
            "boxes are compared row by row (for every combination use box_iou)"
        )


def checked_eps(eps: float | Tensor | None) -> float | Tensor:
    """The eps, None being 0; ValueError unless it is a number of at least 0, or a tensor of no dimensions."""
    if eps is None:
        return 0.0
    if isinstance(eps, Tensor) and eps.ndim:
        raise ValueError(f"eps has shape {tuple(eps.shape)}; it must be a number or a 0-dim tensor")
    if not isinstance(eps, (Tensor, numbers.Real)):
        raise ValueError(f"eps is {eps!r}; it must be a number, a 0-dim tensor or None")
    if not isinstance(eps, Tensor) and not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps}; it must be at least 0 and finite")
    return eps


def check_boxes(name: str, boxes: Tensor, fmt: str = "xyxy") -> None:
    """ValueError unless the boxes are a tensor (..., 4) and the format is known."""
    if not isinstance(boxes, Tensor):
        raise ValueError(f"{name} is a {type(boxes).__name__}; it must be a tensor")
    if boxes.shape[-1:] != (4,):
        raise ValueError(f"{name} has shape {tuple(boxes.shape)}; it must be (..., 4)")
    if fmt not in FORMATS:
        raise ValueError(f"fmt is {fmt!r}; it may be one of {', '.join(FORMATS)}")
