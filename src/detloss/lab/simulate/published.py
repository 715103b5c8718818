"""The gradients that the DIoU paper's own script steps along, and where they differ from the loss's gradient.

Written from what the authors' MATLAB computes (`simulation experiment/` in Zzh-tju/DIoU), as expressions over
whole columns. A slip that is left out is repaired; with none left the gradient is that of the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

SLIPS = {
    "size": "width and height get twice their gradient: a side moves by half of a change in size",
    "overlap": "GIoU multiplies overlaps below zero too, so boxes that are apart have an intersection",
    "sign": "the diagonal's gradient by the centre has the wrong sign, which adds to the pull of the target",
    "nested": "the diagonal's gradient by a side longer than its target's on both ends has the wrong sign",
    "sides": "the enclosing box's width and height are both given the gradient of their sum",
    "aspect": "CIoU's aspect term is not divided by w² + h²; the paper says so and does it on purpose",
}
"""What the script's gradients have, other than the losses' own."""

PUBLISHED = {
    "iou": ("size",),
    "giou": ("size", "overlap"),
    "diou": ("size", "sign", "nested", "sides"),
    "ciou": ("size", "sign", "nested", "sides", "aspect"),
}
"""The losses that the script simulates, each with the slips in its gradient."""


@dataclass(frozen=True)
class Published:
    """The gradient of a loss with respect to `(cx, cy, w, h)`, as the script has it.

    Attributes:
        kind: `iou`, `giou`, `diou` or `ciou`.
        slips: those of `PUBLISHED[kind]` that are in it; without any it is the exact gradient.
    """

    kind: str
    slips: frozenset[str]

    def __call__(self, predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Sequence[Tensor]:
        """Four columns each of predicted and true boxes, centre and size, to four columns of gradient."""
        pair = _Pair(predicted, targets)
        x, y, w, h = self._overlap(pair)
        if self.kind in ("diou", "ciou"):
            along = self._distance(pair)
            if self.kind == "ciou":
                along = (*along[:2], *(a + b for a, b in zip(along[2:], self._aspect(pair))))
            x, y, w, h = (a + b for a, b in zip((x, y, w, h), along))
        return -x, -y, -w, -h  # the script goes up the similarity

    def _overlap(self, pair: "_Pair") -> tuple[Tensor, ...]:
        """Of IoU, and of |A∪B| / |C| for GIoU: first by the four sides."""
        area = pair.sides(-pair.h, -pair.w, pair.h, pair.w)
        width, height = pair.inter_w, pair.inter_h
        if "overlap" not in self.slips:
            width, height = width.where(pair.meet, 0), height.where(pair.meet, 0)
        inter = width * height
        inter_by = pair.sides(
            -height * (pair.left > pair.left2),
            -width * (pair.top > pair.top2),
            height * (pair.right < pair.right2),
            width * (pair.bottom < pair.bottom2),
        )
        union, union_by = pair.area_sum - inter, area - inter_by
        along = ((union * inter_by - inter * union_by) / union.square()).where(pair.meet, 0)
        if self.kind == "giou":
            hull = pair.hull_w * pair.hull_h
            hull_by = pair.sides(
                -pair.hull_h * pair.out_left,
                -pair.hull_w * pair.out_top,
                pair.hull_h * pair.out_right,
                pair.hull_w * pair.out_bottom,
            )
            along = along + (hull * union_by - union * hull_by) / hull.square()
        left, top, right, bottom = along
        share = 1.0 if "size" in self.slips else 0.5
        return left + right, top + bottom, share * (right - left), share * (bottom - top)

    def _distance(self, pair: "_Pair") -> tuple[Tensor, ...]:
        """Of -ρ²/c²."""
        x = pair.out_right - pair.out_left
        y = pair.out_bottom - pair.out_top
        w, h = (pair.out_right + pair.out_left) / 2, (pair.out_bottom + pair.out_top) / 2
        over_w, over_h = w, h
        if "nested" in self.slips:
            over_w, over_h = torch.where(w == 1, -1, w), torch.where(h == 1, -1, h)
        hull_w, hull_h = 2 * pair.hull_w, 2 * pair.hull_h
        by = [hull_w * x, hull_h * y, hull_w * over_w, hull_h * over_h]
        if "sides" in self.slips:
            by = [a + b for a, b in zip(by, (hull_h * x, hull_w * y, hull_h * w, hull_w * h))]
        sign = -1 if "sign" in self.slips else 1
        square = pair.diagonal.square()
        return (
            (sign * by[0] * pair.distance - 2 * pair.dx * pair.diagonal) / square,
            (sign * by[1] * pair.distance - 2 * pair.dy * pair.diagonal) / square,
            by[2] * pair.distance / square,
            by[3] * pair.distance / square,
        )

    def _aspect(self, pair: "_Pair") -> tuple[Tensor, Tensor]:
        """Of -αv, by width and height."""
        inter = (pair.inter_w * pair.inter_h).where(pair.meet, 0)
        iou = inter / (pair.area_sum - inter)
        angle = torch.atan(pair.w2 / pair.h2) - torch.atan(pair.w / pair.h)
        v = 4 / pi**2 * angle.square()
        force = v / (1 - iou + v + 1e-7) * 8 / pi**2 * angle
        if "aspect" not in self.slips:
            force = force / (pair.w.square() + pair.h.square())
        return force * pair.h, -force * pair.w


class _Pair:
    """Sides, overlaps and enclosing box of predicted and true boxes."""

    def __init__(self, predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        x, y, self.w, self.h = predicted
        x2, y2, self.w2, self.h2 = targets
        self.left, self.right = x - self.w / 2, x + self.w / 2
        self.top, self.bottom = y - self.h / 2, y + self.h / 2
        self.left2, self.right2 = x2 - self.w2 / 2, x2 + self.w2 / 2
        self.top2, self.bottom2 = y2 - self.h2 / 2, y2 + self.h2 / 2
        self.dx, self.dy = x - x2, y - y2
        self.distance = self.dx.square() + self.dy.square()
        self.area_sum = self.w * self.h + self.w2 * self.h2
        self.inter_w = torch.minimum(self.right, self.right2) - torch.maximum(self.left, self.left2)
        self.inter_h = torch.minimum(self.bottom, self.bottom2) - torch.maximum(self.top, self.top2)
        self.meet = (self.inter_w > 0) & (self.inter_h > 0)
        self.hull_w = torch.maximum(self.right, self.right2) - torch.minimum(self.left, self.left2)
        self.hull_h = torch.maximum(self.bottom, self.bottom2) - torch.minimum(self.top, self.top2)
        self.diagonal = self.hull_w.square() + self.hull_h.square()
        # where the predicted side is the enclosing box's: 1, else 0
        self.out_left = (self.left < self.left2).to(x.dtype)
        self.out_right = (self.right > self.right2).to(x.dtype)
        self.out_top = (self.top < self.top2).to(x.dtype)
        self.out_bottom = (self.bottom > self.bottom2).to(x.dtype)

    @staticmethod
    def sides(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
        """One tensor of four rows."""
        return torch.stack((left, top, right, bottom))
