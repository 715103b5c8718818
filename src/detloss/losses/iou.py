"""Box losses: 1 - similarity of paired boxes; formulas and degenerate boxes are in `paired_box_iou`."""

from typing import ClassVar

from torch import Tensor, nn

from detloss.boxes import paired_box_iou
from detloss.losses.checks import broadcastable, check_reduction
from detloss.losses.elementwise import reduce
from detloss.losses.module import keep, kept, shown


def box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
) -> Tensor:
    """1 - IoU of paired boxes, in [0, 1]. It cannot move a box that does not touch its target.

    Linear, where mmdet's `IoULoss` defaults to -log IoU and PaddleDetection's to 1 - IoU².

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: target boxes, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a gradient).
        eps: added to every denominator, as in torchvision; see `paired_box_iou`.
        weight: factor on the loss, broadcastable to `(...)`.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size: the "xywh" of many blog snippets).

    Returns:
        `(...)` for "none", else a number; float64 for float64 boxes, else float32, as in torchvision.

    Raises:
        ValueError: unknown reduction or format, shapes that do not fit.
    """
    return _box_loss("iou", boxes1, boxes2, reduction, eps, weight, fmt)


def generalized_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
) -> Tensor:
    """1 - GIoU of paired boxes, in [0, 2]; equals `torchvision.ops.generalized_box_iou_loss`.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1902.09630.
    """
    return _box_loss("giou", boxes1, boxes2, reduction, eps, weight, fmt)


def distance_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
) -> Tensor:
    """1 - DIoU of paired boxes, in [0, 2]; equals `torchvision.ops.distance_box_iou_loss`.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return _box_loss("diou", boxes1, boxes2, reduction, eps, weight, fmt)


def complete_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
) -> Tensor:
    """1 - CIoU of paired boxes, in [0, 3); equals `torchvision.ops.complete_box_iou_loss`.

    The trade-off α has no gradient (torchvision, ultralytics, mmdet ≥ 3). Unlike torchvision's, value and
    gradient stay finite for boxes without height.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return _box_loss("ciou", boxes1, boxes2, reduction, eps, weight, fmt)


def efficient_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
) -> Tensor:
    """1 - EIoU (Efficient IoU) of paired boxes; not mmdet's `EIoULoss`, which is Extended IoU.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:2101.08158.
    """
    return _box_loss("eiou", boxes1, boxes2, reduction, eps, weight, fmt)


def _box_loss(
    kind: str,
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str,
    eps: float,
    weight: Tensor | None,
    fmt: str,
) -> Tensor:
    check_reduction(reduction)
    loss = 1 - paired_box_iou(boxes1, boxes2, kind, fmt, eps)
    if weight is not None:
        loss = loss * broadcastable("weight", weight, loss).to(loss.dtype)
    return reduce(loss, reduction, loss.numel(), loss)


class _PairedBoxLoss(nn.Module):
    kind: ClassVar[str]

    def __init__(self, reduction: str = "mean", eps: float = 1e-7, *, fmt: str = "xyxy") -> None:
        super().__init__()
        keep(self, reduction=reduction, eps=eps, fmt=fmt)

    def forward(self, boxes1: Tensor, boxes2: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""
        return _box_loss(self.kind, boxes1, boxes2, weight=weight, **kept(self))

    extra_repr = shown


class BoxIoULoss(_PairedBoxLoss):
    """`box_iou_loss` as a Module, reduction "mean"; see there."""

    kind = "iou"


class GeneralizedBoxIoULoss(_PairedBoxLoss):
    """`generalized_box_iou_loss` as a Module, reduction "mean"; see there."""

    kind = "giou"


class DistanceBoxIoULoss(_PairedBoxLoss):
    """`distance_box_iou_loss` as a Module, reduction "mean"; see there."""

    kind = "diou"


class CompleteBoxIoULoss(_PairedBoxLoss):
    """`complete_box_iou_loss` as a Module, reduction "mean"; see there."""

    kind = "ciou"


class EfficientBoxIoULoss(_PairedBoxLoss):
    """`efficient_box_iou_loss` as a Module, reduction "mean"; see there."""

    kind = "eiou"
