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

import torch
from torch import Tensor

from detloss._core.box import FORMATS, Box, box, box_of, check_boxes, check_eps, check_pair, widened
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
    boxes1: Tensor, boxes2: Tensor, kind: str = "iou", fmt: str = "xyxy", eps: float = 1e-7
) -> Tensor:
    """Similarity of each box in `boxes1` with the box at the same place in `boxes2`.

    With A, B the boxes, C their enclosing box, c its diagonal, ρ the distance of the centres:

    - `iou`:  |A∩B| / |A∪B|
    - `giou`: IoU - (|C| - |A∪B|) / |C|                              in [-1, 1]
    - `diou`: IoU - ρ²/c²                                            in [-1, 1]
    - `ciou`: DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v)
    - `eiou`: DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²  (Efficient IoU; mmdet's `EIoULoss` is Extended IoU)

    Convention: `eps` is added to every denominator, as in torchvision's losses, and √eps is the least height
    in the aspect ratio of CIoU. So two boxes without area have IoU 0, also when identical. α is a
    constant for the gradient, as in the paper, torchvision and ultralytics. Gradients reach both arguments.
    Value and gradient are finite for any boxes up to 1e9 in size while eps > 0, with zero sides and inverted
    corners too. A gradient grows as 1 / size: for boxes smaller than about 1e-4 float16 cannot hold it.

    Args:
        boxes1: `(..., 4)`, in pixels or relative to the image: the result is the same, up to `eps`.
        boxes2: of the same shape and in the same units.
        kind: `iou`, `giou`, `diou`, `ciou` or `eiou`.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size).
        eps: as above; at least 0, in squared units of the boxes.

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
    check_eps(eps)
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


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """DIoU of every box in `boxes1` with every box in `boxes2`; the formula is in `paired_box_iou`.

    Equals `torchvision.ops.distance_box_iou`.

    Args:
        boxes1: `(..., N, 4)` xyxy.
        boxes2: `(..., M, 4)` xyxy.
        eps: added to c², not to the denominator of the IoU; at least 0, in squared units of the boxes.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: shapes that do not end in 4, an eps below 0.
    """
    return _pairwise(boxes1, boxes2, "diou", eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """CIoU of every box in `boxes1` with every box in `boxes2`; the formula is in `paired_box_iou`.

    Equals `torchvision.ops.complete_box_iou`.

    Args:
        boxes1: `(..., N, 4)` xyxy.
        boxes2: `(..., M, 4)` xyxy.
        eps: added to c² and in α, not to the denominator of the IoU; at least 0, in squared units of the
            boxes.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: shapes that do not end in 4, an eps below 0.
    """
    return _pairwise(boxes1, boxes2, "ciou", eps)


def _pairwise(boxes1: Tensor, boxes2: Tensor, kind: str, eps: float = 1e-7, fmt: str = "xyxy") -> Tensor:
    check_boxes("boxes1", boxes1, fmt)
    check_boxes("boxes2", boxes2, fmt)
    check_devices(boxes1=boxes1, boxes2=boxes2)
    check_eps(eps)
    first = box_of(widened(boxes1)[..., :, None, :].unbind(-1), fmt)
    second = box_of(widened(boxes2)[..., None, :, :].unbind(-1), fmt)
    # torchvision has no eps here: the smallest number turns 0/0 into 0 and changes nothing else.
    tiny = torch.finfo(first.left.dtype).tiny
    if kind in ("iou", "giou"):
        return SIMILARITIES[kind](first, second, tiny)
    return SIMILARITIES[kind](first, second, eps, tiny)


Eps = float | Tensor


def area(box: Box) -> Tensor:
    """Width times height."""
    return box.width * box.height


def intersection(first: Box, second: Box) -> Tensor:
    """The area that two boxes share; where they only touch it has no gradient, as in torchvision."""
    w = (torch.minimum(first.right, second.right) - torch.maximum(first.left, second.left)).relu()
    h = (torch.minimum(first.bottom, second.bottom) - torch.maximum(first.top, second.top)).relu()
    return w * h


def enclosing(first: Box, second: Box) -> Box:
    """The smallest box that holds both."""
    return box(
        torch.minimum(first.left, second.left),
        torch.minimum(first.top, second.top),
        torch.maximum(first.right, second.right),
        torch.maximum(first.bottom, second.bottom),
    )


def distance_term(first: Box, second: Box, hull: Box, eps: Eps = 1e-7) -> Tensor:
    """ρ²/c²: the squared distance of the centres, by the squared diagonal of the enclosing box."""
    dx = (first.left + first.right - second.left - second.right) / 2
    dy = (first.top + first.bottom - second.top - second.bottom) / 2
    return (dx.square() + dy.square()) / (hull.width.square() + hull.height.square() + eps)


def iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """|A∩B| / |A∪B|."""
    shared = intersection(first, second)
    return shared / (area(first) + area(second) - shared + eps)


def generalized_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """IoU - (|C| - |A∪B|) / |C|, C the enclosing box."""
    shared = intersection(first, second)
    union = area(first) + area(second) - shared
    overlap, hull = shared / (union + eps), area(enclosing(first, second))
    # without area the enclosing box points nowhere: its slope there would be size / eps
    return overlap - torch.where(hull > 0, (hull - union) / (hull + eps), 0)


def distance_iou(first: Box, second: Box, eps: Eps = 1e-7, area_eps: Eps | None = None) -> Tensor:
    """IoU - ρ²/c², c the diagonal of the enclosing box; `area_eps` is the eps of the IoU where it differs."""
    overlap = iou(first, second, eps if area_eps is None else area_eps)
    return overlap - distance_term(first, second, enclosing(first, second), eps)


def complete_iou(first: Box, second: Box, eps: Eps = 1e-7, area_eps: Eps | None = None) -> Tensor:
    """DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v) without gradient."""
    overlap = iou(first, second, eps if area_eps is None else area_eps)
    distance = distance_term(first, second, enclosing(first, second), eps)
    # atan(w/h) has the gradient 1/h at w = 0: a floor (eps is an area) keeps it small for collapsed boxes
    w1, h1, w2, h2 = first.width, first.height, second.width, second.height
    h1, h2 = h1.clamp(min=eps**0.5), h2.clamp(min=eps**0.5)
    # atan(w1/h1) - atan(w2/h2) as one angle, both being in [0, π/2): no digit is lost in the difference
    angle = torch.atan((w1 * h2 - w2 * h1) / (h1 * h2 + w1 * w2))
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = v / (1 - overlap + v + eps)
    return overlap - distance - alpha * v


def efficient_iou(first: Box, second: Box, eps: Eps = 1e-7) -> Tensor:
    """DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²."""
    overlap, hull = iou(first, second, eps), enclosing(first, second)
    distance = distance_term(first, second, hull, eps)
    width_term = (first.width - second.width).square() / (hull.width.square() + eps)
    height_term = (first.height - second.height).square() / (hull.height.square() + eps)
    return overlap - distance - width_term - height_term


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "iou": iou,
    "giou": generalized_iou,
    "diou": distance_iou,
    "ciou": complete_iou,
    "eiou": efficient_iou,
}
