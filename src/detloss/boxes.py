"""Box formats and overlaps: every similarity written once, used pairwise (N×M) and paired (row by row).

A box tensor is `(..., 4)`. Formats carry torchvision's names:

- `xyxy`: two corners `(x1, y1, x2, y2)`;
- `xywh`: top left corner and size `(x1, y1, w, h)`;
- `cxcywh`: centre and size `(cx, cy, w, h)` — what many blog snippets call "xywh".

Overlaps of half-precision and integer boxes are computed, and returned, in float32; `box_convert` stays in
the dtype of the boxes, but for the halves of integers. Negative widths and heights (inverted corners) count
as zero, so such a box has no area and meets nothing.
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from detloss._core.dtypes import arithmetic_dtype, check_devices

FORMATS = ("xyxy", "xywh", "cxcywh")
KINDS = ("iou", "giou", "diou", "ciou", "eiou")


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Convert boxes between the formats `xyxy`, `xywh` and `cxcywh`.

    Equals `torchvision.ops.box_convert` for these three (its rotated formats are not here).

    Args:
        boxes: `(..., 4)`, any dtype.
        in_fmt, out_fmt: one of `xyxy`, `xywh` (corner and size), `cxcywh` (centre and size).

    Returns:
        A new tensor `(..., 4)`.

    Raises:
        ValueError: unknown format, or a last dimension other than 4.
    """
    for name, fmt in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if fmt not in FORMATS:
            raise ValueError(f"{name} is {fmt!r}; it may be one of {', '.join(FORMATS)}")
    _check_boxes("boxes", boxes)
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
    in the aspect ratio of CIoU; two boxes without area therefore have IoU 0, also when identical. α is a
    constant for the gradient, as in the paper, torchvision and ultralytics. Gradients reach both arguments.
    Value and gradient are finite for any boxes up to 1e9 in size while eps > 0, with zero sides and inverted
    corners too. A gradient grows as 1 / size: of boxes smaller than about 1e-4 float16 cannot hold it.

    Args:
        boxes1, boxes2: `(..., 4)` of equal shape; in pixels or relative to the image, the ratio is the same.
        kind: `iou`, `giou`, `diou`, `ciou` or `eiou`.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size).
        eps: see above; in squared units of the boxes.

    Returns:
        `(...)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: unknown kind or format; shapes that differ or do not end in 4.

    Sources: GIoU arXiv:1902.09630; DIoU and CIoU arXiv:1911.08287; EIoU arXiv:2101.08158.
    """
    check_pair(boxes1, boxes2, kind, fmt, eps)
    return similarity(widened(boxes1).unbind(-1), widened(boxes2).unbind(-1), kind, fmt, eps, eps)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """IoU of every box in `boxes1` with every box in `boxes2`.

    Equals `torchvision.ops.box_iou`, except that two boxes without area have IoU 0 instead of NaN.

    Args:
        boxes1: `(..., N, 4)`.
        boxes2: `(..., M, 4)`.
        fmt: `xyxy`, `xywh` or `cxcywh`.

    Returns:
        `(..., N, M)`, float64 for float64 boxes, else float32.

    Raises:
        ValueError: unknown format, or shapes that do not end in 4.
    """
    return _pairwise(boxes1, boxes2, "iou", fmt=fmt)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """GIoU of `(..., N, 4)` with `(..., M, 4)` corner boxes: `(..., N, M)`, as torchvision's.

    Formula and errors as in `paired_box_iou`; 0 where the enclosing box is empty, not NaN.
    """
    return _pairwise(boxes1, boxes2, "giou")


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """DIoU of `(..., N, 4)` with `(..., M, 4)` corner boxes: `(..., N, M)`, as torchvision's.

    Formula and errors as in `paired_box_iou`; as there, `eps` is in c² only and not in the IoU.
    """
    return _pairwise(boxes1, boxes2, "diou", eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """CIoU of `(..., N, 4)` with `(..., M, 4)` corner boxes: `(..., N, M)`, as torchvision's.

    Formula and errors as in `paired_box_iou`; as there, `eps` is in c² and α only and not in the IoU.
    """
    return _pairwise(boxes1, boxes2, "ciou", eps)


def _pairwise(boxes1: Tensor, boxes2: Tensor, kind: str, eps: float = 1e-7, fmt: str = "xyxy") -> Tensor:
    _check_boxes("boxes1", boxes1, fmt)
    _check_boxes("boxes2", boxes2, fmt)
    check_devices(boxes1=boxes1, boxes2=boxes2)
    _check_eps(eps)
    columns1 = widened(boxes1)[..., :, None, :].unbind(-1)
    columns2 = widened(boxes2)[..., None, :, :].unbind(-1)
    # torchvision has no eps here: the smallest number turns 0/0 into 0 and changes nothing else.
    tiny = torch.finfo(columns1[0].dtype).tiny
    return similarity(columns1, columns2, kind, fmt, eps, tiny)


def similarity(
    columns1: Sequence[Tensor],
    columns2: Sequence[Tensor],
    kind: str,
    fmt: str,
    eps: float | Tensor,
    area_eps: float | Tensor,
) -> Tensor:
    """The formulas of `paired_box_iou` for the four coordinates of either box, each a tensor of its own."""
    left1, top1, right1, bottom1 = _corners(columns1, fmt)
    left2, top2, right2, bottom2 = _corners(columns2, fmt)
    w1, h1 = (right1 - left1).clamp(min=0), (bottom1 - top1).clamp(min=0)
    w2, h2 = (right2 - left2).clamp(min=0), (bottom2 - top2).clamp(min=0)
    # relu and not clamp: boxes that only touch get no gradient from their intersection, as in torchvision
    inter_w = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).relu()
    inter_h = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).relu()
    inter = inter_w * inter_h
    union = w1 * h1 + w2 * h2 - inter
    iou = inter / (union + area_eps)
    if kind == "iou":
        return iou
    hull_w = (torch.maximum(right1, right2) - torch.minimum(left1, left2)).clamp(min=0)
    hull_h = (torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)).clamp(min=0)
    if kind == "giou":
        hull = hull_w * hull_h
        # without area the enclosing box points nowhere: its slope there would be size / eps
        return iou - torch.where(hull > 0, (hull - union) / (hull + area_eps), 0)
    dx, dy = (left1 + right1 - left2 - right2) / 2, (top1 + bottom1 - top2 - bottom2) / 2
    diou = iou - (dx.square() + dy.square()) / (hull_w.square() + hull_h.square() + eps)
    if kind == "diou":
        return diou
    if kind == "eiou":
        width_term = (w1 - w2).square() / (hull_w.square() + eps)
        return diou - width_term - (h1 - h2).square() / (hull_h.square() + eps)
    # atan(w/h) has the gradient 1/h at w = 0: a floor (eps is an area) keeps it small for collapsed boxes
    h1, h2 = h1.clamp(min=eps**0.5), h2.clamp(min=eps**0.5)
    # atan(w1/h1) - atan(w2/h2) as one angle, both being in [0, π/2): no digit is lost in the difference
    angle = torch.atan((w1 * h2 - w2 * h1) / (h1 * h2 + w1 * w2))
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return diou - alpha * v


def _corners(columns: Sequence[Tensor], fmt: str) -> Sequence[Tensor]:
    if fmt == "xyxy":
        return columns
    x, y, w, h = columns
    if fmt == "cxcywh":
        x, y = x - w / 2, y - h / 2
    return x, y, x + w, y + h


def widened(boxes: Tensor) -> Tensor:
    """The boxes in the dtype of the arithmetic, float32 or float64."""
    return boxes.to(arithmetic_dtype(boxes.dtype))


def check_pair(boxes1: Tensor, boxes2: Tensor, kind: str, fmt: str, eps: float | Tensor) -> None:
    """ValueError unless kind and format are known, the boxes of equal shape ending in 4, and eps a number."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it may be one of {', '.join(KINDS)}")
    _check_boxes("boxes1", boxes1, fmt)
    _check_boxes("boxes2", boxes2, fmt)
    if boxes1.shape != boxes2.shape:
        raise ValueError(
            f"boxes1 {tuple(boxes1.shape)} and boxes2 {tuple(boxes2.shape)} differ in shape; paired "
            "boxes go row by row, for every combination use box_iou"
        )
    check_devices(boxes1=boxes1, boxes2=boxes2, eps=eps)
    _check_eps(eps)


def _check_eps(eps: float | Tensor) -> None:
    """ValueError unless eps is a number of at least 0; a tensor of no dimensions counts as one."""
    if isinstance(eps, Tensor) and eps.ndim:
        raise ValueError(f"eps has shape {tuple(eps.shape)}; it may be a number or a 0-dim tensor")
    if not isinstance(eps, (Tensor, numbers.Real)):
        raise ValueError(f"eps is {eps!r}; it may be a number or a 0-dim tensor")
    if not isinstance(eps, Tensor) and not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps}; it must be at least 0 and finite")


def _check_boxes(name: str, boxes: Tensor, fmt: str = "xyxy") -> None:
    if not isinstance(boxes, Tensor):
        raise ValueError(f"{name} is a {type(boxes).__name__}; it must be a tensor")
    if boxes.shape[-1:] != (4,):
        raise ValueError(f"{name} has shape {tuple(boxes.shape)}; a box tensor is (..., 4)")
    if fmt not in FORMATS:
        raise ValueError(f"fmt is {fmt!r}; it may be one of {', '.join(FORMATS)}")
