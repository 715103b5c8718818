"""Losses of the four numbers of a box: L1 and smooth L1, plain or relative to the size of the target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss._core.box import Box
from detloss._core.modules import PairedBoxLoss
from detloss.formula import box_loss


@box_loss(finite=False)  # a test holds it, and `import detloss` need not
def l1_box_loss(first: Box, second: Box, *, relative: bool = False, fmt: str) -> Tensor:
    """L1 loss of paired boxes: the sum of the differences of their four numbers.

    L1 = Σ |aᵢ - bᵢ|,  a and b in the format `fmt`.

    One value per box, as the IoU losses have it: the sum over the four numbers, where
    `torch.nn.functional.l1_loss` has one value per number. Unlike for the IoU losses `fmt` changes the value:
    DETR and its kin take `cxcywh` divided by the size of the image, and weigh this loss 5 to GIoU's 2.

    Args:
        relative: divide each difference by the width or the height of the target, at least 1: boxes in
            pixels then cost the same at any size. On the command line `l1` is so.
    """
    return sum(_differences(first, second, fmt, relative), torch.zeros_like(first.left))


@box_loss(finite=False, limits={"beta": (0, float("inf"))})
def smooth_l1_box_loss(
    first: Box, second: Box, *, beta: float | Tensor = 1.0, relative: bool = False, fmt: str
) -> Tensor:
    """Smooth L1 loss of paired boxes: L1 loss with a gradient that fades where a box is nearly right.

    SL1 = Σ s(aᵢ - bᵢ),  s(d) = d²/2β for |d| < β, |d| - β/2 beyond;  a and b in the format `fmt`.

    One value per box, the sum over the four numbers; `fmt` changes the value, as in `l1_box_loss`.

    Args:
        beta: β ≥ 0, in units of the boxes (with `relative` in parts of the target's size), 0 is L1 loss: a
            number or a tensor that broadcasts to `(...)`. torch's default is 1; for offsets relative to an
            anchor 1/9 is usual (Faster R-CNN, RetinaNet), and on the command line `smooth_l1` has that.
        relative: as in `l1_box_loss`.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, eq. 3; β as in Detectron.
    """
    beta = beta.clamp(min=_TINY) if isinstance(beta, Tensor) else max(beta, _TINY)

    def smooth(difference: Tensor) -> Tensor:
        bent = difference.clamp(max=beta)  # |d| below β, β beyond: one formula for both
        return bent * (difference - bent / 2) / beta

    each = (smooth(one) for one in _differences(first, second, fmt, relative))
    return sum(each, torch.zeros_like(first.left))


_TINY = 1e-12


def _differences(first: Box, second: Box, fmt: str, relative: bool) -> Sequence[Tensor]:
    """|aᵢ - bᵢ| of the four numbers of a format; relative to the second box's width or height."""
    found = [(a - b).abs() for a, b in zip(_numbers(first, fmt), _numbers(second, fmt))]
    if not relative:
        return found
    width, height = second.width.clamp(min=1), second.height.clamp(min=1)
    return [one / size for one, size in zip(found, (width, height, width, height))]


def _numbers(box: Box, fmt: str) -> tuple[Tensor, ...]:
    """The four numbers that a box is written with in a format; sizes of inverted boxes are negative."""
    if fmt == "xyxy":
        return box.left, box.top, box.right, box.bottom
    size = box.right - box.left, box.bottom - box.top
    if fmt == "xywh":
        return box.left, box.top, *size
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2, *size


class L1BoxLoss(PairedBoxLoss, of=l1_box_loss):
    """Module of `l1_box_loss`, with its arguments; the default reduction is "mean"."""


class SmoothL1BoxLoss(PairedBoxLoss, of=smooth_l1_box_loss):
    """Module of `smooth_l1_box_loss`, with its arguments; the default reduction is "mean"."""
