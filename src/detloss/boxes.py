"""Box formats and overlaps: each similarity in pairs (row by row) and of every combination (N×M).

A box tensor is `(..., 4)`. Formats carry torchvision's names:

- `xyxy`: two corners `(x1, y1, x2, y2)`;
- `xywh`: top left corner and size `(x1, y1, w, h)`;
- `cxcywh`: centre and size `(cx, cy, w, h)` — what many blog snippets call "xywh".

Overlaps of half-precision and integer boxes are computed, and returned, in float32; `box_convert` stays in
the dtype of the boxes, except for halves of integers. Negative widths and heights (inverted corners) count
as zero, so such a box has no area and meets nothing.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detloss._core.box import FORMATS, Box, box_of, check_boxes, check_pair, checked_eps, widened
from detloss._core.dtypes import check_devices


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Convert boxes between the formats `xyxy`, `xywh` and `cxcywh`.

    Equals `torchvision.ops.box_convert` for these three; its rotated formats are left out.

    Args:
        boxes: `(..., 4)`, any dtype.
        in_fmt: the format of `boxes`: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size).
        out_fmt: the format of the result, one of the same.

    Returns:
        A new tensor `(..., 4)`.

    Raises:
        ValueError: an unknown format, or a last dimension other than 4.
    """
    for name, fmt in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if fmt not in FORMATS:
            raise ValueError(f"{name} is {fmt!r}; it may be one of {', '.join(FORMATS)}")
    check_boxes("boxes", boxes)
    if in_fmt == out_fmt:
        return boxes.clone()
    x, y, w, h = boxes.unbind(-1)
    if in_fmt == "xyxy":
        w, h = w - x, h - y
    elif in_fmt == "cxcywh":
        x, y = x - w / 2, y - h / 2
    if out_fmt == "xyxy":
        return torch.stack((x, y, x + w, y + h), -1)
    if out_fmt == "cxcywh":
        return torch.stack((x + w / 2, y + h / 2, w, h), -1)
    return torch.stack((x, y, w, h), -1)


def paired_box_iou(
    boxes1: Tensor, boxes2: Tensor, kind: str = "iou", fmt: str = "xyxy", eps: float | Tensor | None = 1e-7
) -> Tensor:
    """Similarity of each box in `boxes1` with the box at the same place in `boxes2`.

    With A, B the boxes, C their enclosing box, c its diagonal, ρ the distance of the centres:

    - `iou`:  |A∩B| / |A∪B|
    - `giou`: IoU - (|C| - |A∪B|) / |C|                              in [-1, 1]
    - `diou`: IoU - ρ²/c²                                            in [-1, 1]
    - `ciou`: DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v)
    - `eiou`: DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²  (Efficient IoU; mmdet's `EIoULoss` is Extended IoU)

    Convention: no denominator goes below `eps`, lengths being measured in the longer side of the enclosing
    box. So eps does not change the overlap of small boxes, as one that is added would (torchvision), and two
    boxes without area have IoU 0, also when identical. α is a constant for the gradient, as in the
    paper, torchvision and ultralytics. Gradients reach both arguments. Value and gradient are finite for
    boxes of any size up to 1e30, with zero sides and inverted corners too. A gradient grows as 1 / size: for
    boxes smaller than about 1e-4 float16 cannot hold it.

    Args:
        boxes1: `(..., 4)`, in pixels or relative to the image: the result is the same.
        boxes2: of the same shape and in the same units.
        kind: `iou`, `giou`, `diou`, `ciou` or `eiou`.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size).
        eps: as above, at least 0: it bounds the gradient of boxes that are nearly lines. None is 0.

    Returns:
        `(...)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown kind or format, shapes that differ or do not end in 4, an eps below 0.

    Sources: GIoU arXiv:1902.09630; DIoU and CIoU arXiv:1911.08287; EIoU arXiv:2101.08158.
    """
    if kind not in SIMILARITIES:
        raise ValueError(f"kind is {kind!r}; it may be one of {', '.join(SIMILARITIES)}")
    check_pair(boxes1, boxes2, fmt)
    check_devices(boxes1=boxes1, boxes2=boxes2, eps=eps)
    eps = checked_eps(eps)
    first, second = (box_of(widened(boxes).unbind(-1), fmt) for boxes in (boxes1, boxes2))
    return SIMILARITIES[kind](first, second, eps)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """IoU of every box in `boxes1` with every box in `boxes2`, as for assigning anchors to objects.

    Equals `torchvision.ops.box_iou`, except that two boxes without area have IoU 0 instead of NaN.

    Args:
        boxes1: `(..., N, 4)`.
        boxes2: `(..., M, 4)`.
        fmt: `xyxy`, `xywh` or `cxcywh`.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown format, or shapes that do not end in 4.
    """
    return _pairwise(boxes1, boxes2, "iou", fmt=fmt)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """GIoU of every box in `boxes1` with every box in `boxes2`; the formula is in `paired_box_iou`.

    Equals `torchvision.ops.generalized_box_iou`, except that it is 0 instead of NaN where the enclosing box
    is empty.

    Args:
        boxes1: `(..., N, 4)` xyxy.
        boxes2: `(..., M, 4)` xyxy.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: shapes that do not end in 4.
    """
    return _pairwise(boxes1, boxes2, "giou")


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float | Tensor | None = 1e-7) -> Tensor:
    """DIoU of every box in `boxes1` with every box in `boxes2`; the formula is in `paired_box_iou`.

    Equals `torchvision.ops.distance_box_iou`.

    Args:
        boxes1: `(..., N, 4)` xyxy.
        boxes2: `(..., M, 4)` xyxy.
        eps: as in `paired_box_iou`; at least 0, or None.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: shapes that do not end in 4, an eps below 0.
    """
    return _pairwise(boxes1, boxes2, "diou", eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float | Tensor | None = 1e-7) -> Tensor:
    """CIoU of every box in `boxes1` with every box in `boxes2`; the formula is in `paired_box_iou`.

    Equals `torchvision.ops.complete_box_iou`.

    Args:
        boxes1: `(..., N, 4)` xyxy.
        boxes2: `(..., M, 4)` xyxy.
        eps: as in `paired_box_iou`; at least 0, or None.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: shapes that do not end in 4, an eps below 0.
    """
    return _pairwise(boxes1, boxes2, "ciou", eps)


def _pairwise(
    boxes1: Tensor, boxes2: Tensor, kind: str, eps: float | Tensor | None = 1e-7, fmt: str = "xyxy"
) -> Tensor:
    check_boxes("boxes1", boxes1, fmt)
    check_boxes("boxes2", boxes2, fmt)
    check_devices(boxes1=boxes1, boxes2=boxes2)
    eps = checked_eps(eps)
    first = box_of(widened(boxes1)[..., :, None, :].unbind(-1), fmt)
    second = box_of(widened(boxes2)[..., None, :, :].unbind(-1), fmt)
    if kind == "iou":  # N×M numbers: no enclosing boxes only to find a unit
        tiny, most = torch.finfo(first.left.dtype).tiny, torch.finfo(first.left.dtype).max / 4
        shared, *areas = (a.clamp(max=most) for a in (intersection(first, second), area(first), area(second)))
        return shared / (sum(areas) - shared).clamp(min=tiny)
    return SIMILARITIES[kind](first, second, eps)


Eps = float | Tensor | None
LEAST = 1e-18
"""What no denominator goes below, so that 0 / 0 is 0 with any eps; sides shorter than it count as points."""


def area(box: Box) -> Tensor:
    """Width times height."""
    return box.width * box.height


def intersection(first: Box, second: Box) -> Tensor:
    """The area that two boxes share; where they only touch it has no gradient, as in torchvision."""
    w, h = shared_sides(first, second)
    return w * h


def shared_sides(first: Box, second: Box) -> tuple[Tensor, Tensor]:
    """Width and height of what two boxes share, 0 where they do not meet."""
    w = (torch.minimum(first.right, second.right) - torch.maximum(first.left, second.left)).relu()
    h = (torch.minimum(first.bottom, second.bottom) - torch.maximum(first.top, second.top)).relu()
    return w, h


def enclosing(first: Box, second: Box) -> Box:
    """The smallest box that holds both; wide and high enough for the corners of an inverted one too."""
    left, top = torch.minimum(first.left, second.left), torch.minimum(first.top, second.top)
    right, bottom = torch.maximum(first.right, second.right), torch.maximum(first.bottom, second.bottom)
    # constants of the gradient: a wider box would make the distance term smaller, and turn boxes inside out
    x, y = (side.detach() for side in inverted_sides(first, second))
    return Box(left, top, right, bottom, (right - left).clamp(min=0) + x, (bottom - top).clamp(min=0) + y)


def inverted_sides(first: Box, second: Box) -> tuple[Tensor, Tensor]:
    """How far right sides lie left of left ones, in both boxes together, and bottoms above tops; else 0."""
    x = first.width + second.width - ((first.right - first.left) + (second.right - second.left))
    y = first.height + second.height - ((first.bottom - first.top) + (second.bottom - second.top))
    return x, y


def inside_out(first: Box, second: Box) -> Tensor:
    """Σ d / (d + w) over both axes: d by how much a box is inverted, w the width or height of the other.

    In [0, 2], and 0 for proper boxes. An inverted box has no area, so that no similarity says which way it
    has to turn; this has a gradient that does.
    """
    x, y = inverted_sides(first, second)
    return x / (x + first.width + second.width + LEAST) + y / (y + first.height + second.height + LEAST)


class Pair(NamedTuple):
    """The lengths that similarities are made of, in units of the longer side of the enclosing box.

    A similarity is a ratio, the same in any unit. In this one no product of sides overflows or vanishes, and
    an eps means the same for boxes in pixels and for boxes in fractions of the image.
    """

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    shared: tuple[Tensor, Tensor]
    hull: tuple[Tensor, Tensor]
    unit: Tensor  # what a length is multiplied with

    def areas(self) -> tuple[Tensor, Tensor]:
        """|A∩B| and |A∪B|."""
        (w1, h1), (w2, h2), (w, h) = self.first, self.second, self.shared
        return w * h, w1 * h1 + w2 * h2 - w * h


def pair_of(first: Box, second: Box) -> Pair:
    """The lengths of two boxes."""
    hull = enclosing(first, second)
    with torch.no_grad():  # the ratios do not depend on it
        unit = 1 / torch.maximum(hull.width, hull.height).clamp(min=LEAST)
    w, h = shared_sides(first, second)
    lengths = [(side.width * unit, side.height * unit) for side in (first, second, hull)]
    return Pair(lengths[0], lengths[1], (w * unit, h * unit), lengths[2], unit)


def distance_term(first: Box, second: Box, hull: Box, eps: Eps = 1e-7) -> Tensor:
    """ρ²/c²: the squared distance of the centres, by the squared diagonal of the enclosing box."""
    with torch.no_grad():
        unit = 1 / torch.maximum(hull.width, hull.height).clamp(min=LEAST)
    return _distance(first, second, (hull.width * unit, hull.height * unit), unit, eps)


def _distance(first: Box, second: Box, hull: tuple[Tensor, Tensor], unit: Tensor, eps: Eps) -> Tensor:
    dx = (first.left + first.right - second.left - second.right) / 2 * unit
    dy = (first.top + first.bottom - second.top - second.bottom) / 2 * unit
    return (dx.square() + dy.square()) / (hull[0].square() + hull[1].square()).clamp(min=_least(eps))


def iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """|A∩B| / |A∪B|."""
    return _overlap(pair_of(first, second), eps)


def _overlap(pair: Pair, eps: Eps) -> Tensor:
    shared, union = pair.areas()
    return shared / union.clamp(min=_least(eps))


def generalized_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """IoU - (|C| - |A∪B|) / |C|, C the enclosing box."""
    pair = pair_of(first, second)
    shared, union = pair.areas()
    hull = pair.hull[0] * pair.hull[1]
    # without area the enclosing box points nowhere: its slope there would be size / eps
    empty = torch.where(hull > 0, (hull - union) / hull.clamp(min=_least(eps)), 0)
    return shared / union.clamp(min=_least(eps)) - empty


def distance_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """IoU - ρ²/c², c the diagonal of the enclosing box."""
    pair = pair_of(first, second)
    return _overlap(pair, eps) - _distance(first, second, pair.hull, pair.unit, eps)


def complete_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v) without gradient."""
    pair = pair_of(first, second)
    overlap, distance = _overlap(pair, eps), _distance(first, second, pair.hull, pair.unit, eps)
    # atan(w/h) has the gradient 1/h at w = 0: a floor keeps it small for collapsed boxes
    (w1, h1), (w2, h2), floor = pair.first, pair.second, _flattest(eps)
    h1, h2 = h1.clamp(min=floor), h2.clamp(min=floor)
    # atan(w1/h1) - atan(w2/h2) as one angle, both being in [0, π/2): no digit is lost in the difference
    angle = torch.atan((w1 * h2 - w2 * h1) / (h1 * h2 + w1 * w2))
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=_least(eps))
    return overlap - distance - alpha * v


def efficient_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²."""
    pair = pair_of(first, second)
    distance = _distance(first, second, pair.hull, pair.unit, eps)
    width, height = (
        ((a - b) / whole.clamp(min=_least(eps))).square()
        for a, b, whole in zip(pair.first, pair.second, pair.hull)
    )
    return _overlap(pair, eps) - distance - width - height


def _least(eps: Eps) -> Any:
    """What a denominator does not go below: a number, or a tensor of no dimensions."""
    return eps.clamp(min=LEAST) if isinstance(eps, Tensor) else max(eps or 0.0, LEAST)


def _flattest(eps: Eps) -> Any:
    """The least height in an aspect ratio: 1e-4 for the default eps, 1e-8 without one."""
    floor = 1e3 * _least(eps)
    return floor.clamp(1e-8, 1e-3) if isinstance(floor, Tensor) else min(max(floor, 1e-8), 1e-3)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "iou": iou,
    "giou": generalized_iou,
    "diou": distance_iou,
    "ciou": complete_iou,
    "eiou": efficient_iou,
}
