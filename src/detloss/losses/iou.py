"""Box losses: 1 - similarity of paired boxes; degenerate boxes are spoken of in `paired_box_iou`."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from detloss._core.box import Box
from detloss._core.modules import keep, kept, shown
from detloss.boxes import complete_iou, distance_iou, efficient_iou, generalized_iou, iou
from detloss.formula import box_loss


@box_loss(finite=False)  # a test holds it, and `import detloss` need not
def box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """1 - IoU of paired boxes, in [0, 1]. It cannot move a box that does not touch its target.

    Linear, where mmdet's `IoULoss` defaults to -log IoU and PaddleDetection's to 1 - IoU².
    """
    return 1 - iou(first, second, eps)


@box_loss(finite=False)
def generalized_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """1 - GIoU of paired boxes, in [0, 2]; equals `torchvision.ops.generalized_box_iou_loss`.

    Formula in `paired_box_iou`. Source: arXiv:1902.09630.
    """
    return 1 - generalized_iou(first, second, eps)


@box_loss(finite=False)
def distance_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """1 - DIoU of paired boxes, in [0, 2]; equals `torchvision.ops.distance_box_iou_loss`.

    Formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return 1 - distance_iou(first, second, eps)


@box_loss(finite=False)
def complete_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """1 - CIoU of paired boxes, in [0, 3); equals `torchvision.ops.complete_box_iou_loss`.

    The trade-off α has no gradient (torchvision, ultralytics, mmdet ≥ 3). Unlike torchvision's, value and
    gradient stay finite for boxes without height.

    Formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return 1 - complete_iou(first, second, eps)


@box_loss(finite=False)
def efficient_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """1 - EIoU (Efficient IoU) of paired boxes; not mmdet's `EIoULoss`, which is Extended IoU.

    Formula in `paired_box_iou`. Source: arXiv:2101.08158.
    """
    return 1 - efficient_iou(first, second, eps)


class _PairedBoxLoss(nn.Module):
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, reduction: str = "mean", eps: float = 1e-7, *, fmt: str = "xyxy", impl: str = "auto"
    ) -> None:
        super().__init__()
        keep(self, reduction=reduction, eps=eps, fmt=fmt, impl=impl)

    def forward(self, boxes1: Tensor, boxes2: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""
        return type(self).function(boxes1, boxes2, weight=weight, **kept(self))

    extra_repr = shown


class BoxIoULoss(_PairedBoxLoss):
    """`box_iou_loss` as a Module, reduction "mean"; see there."""

    function = staticmethod(box_iou_loss)


class GeneralizedBoxIoULoss(_PairedBoxLoss):
    """`generalized_box_iou_loss` as a Module, reduction "mean"; see there."""

    function = staticmethod(generalized_box_iou_loss)


class DistanceBoxIoULoss(_PairedBoxLoss):
    """`distance_box_iou_loss` as a Module, reduction "mean"; see there."""

    function = staticmethod(distance_box_iou_loss)


class CompleteBoxIoULoss(_PairedBoxLoss):
    """`complete_box_iou_loss` as a Module, reduction "mean"; see there."""

    function = staticmethod(complete_box_iou_loss)


class EfficientBoxIoULoss(_PairedBoxLoss):
    """`efficient_box_iou_loss` as a Module, reduction "mean"; see there."""

    function = staticmethod(efficient_box_iou_loss)
