"""Box losses: 1 - similarity of paired boxes; formulas and degenerate boxes are in `paired_box_iou`."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from detloss._core.box import Box
from detloss._core.modules import keep, kept, shown
from detloss.boxes import complete_iou, distance_iou, efficient_iou, generalized_iou, iou
from detloss.formula import box_loss


@box_loss(finite=False)  # a test holds it, and `import detloss` need not
def box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """IoU loss, 1 - IoU of paired boxes: what the boxes do not share.

    In [0, 1]. A box that does not touch its target has no gradient. Linear, where mmdet's `IoULoss` is
    -log IoU by default, and PaddleDetection's 1 - IoU².
    """
    return 1 - iou(first, second, eps)


@box_loss(finite=False)
def generalized_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """GIoU loss, 1 - GIoU of paired boxes: also boxes that do not touch are drawn together.

    GIoU = IoU - (|C| - |A∪B|) / |C|,  C the enclosing box of A and B.

    In [0, 2]. Equals `torchvision.ops.generalized_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Source: Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630.
    """
    return 1 - generalized_iou(first, second, eps)


@box_loss(finite=False)
def distance_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """DIoU loss, 1 - DIoU of paired boxes: also the distance of the centres counts.

    DIoU = IoU - ρ²/c²,  ρ the distance of the centres, c the diagonal of the enclosing box.

    In [0, 2]. Equals `torchvision.ops.distance_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """
    return 1 - distance_iou(first, second, eps)


@box_loss(finite=False)
def complete_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """CIoU loss, 1 - CIoU of paired boxes: also the distance of the centres and the aspect ratio count.

    CIoU = DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v).

    In [0, 3). Equals `torchvision.ops.complete_box_iou_loss`. The trade-off α has no gradient (torchvision,
    ultralytics, mmdet ≥ 3). Unlike torchvision's, value and gradient stay finite for boxes without height.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """
    return 1 - complete_iou(first, second, eps)


@box_loss(finite=False)
def efficient_box_iou_loss(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """EIoU loss, 1 - EIoU of paired boxes: centres, widths and heights count, each on its own.

    EIoU = DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²,  C_w and C_h the sides of the enclosing box.

    Efficient IoU; mmdet's `EIoULoss` is another, Extended IoU.

    Source: Zhang et al., Focal and Efficient IoU Loss, arXiv:2101.08158.
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
    """Module of `box_iou_loss`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(box_iou_loss)


class GeneralizedBoxIoULoss(_PairedBoxLoss):
    """Module of `generalized_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(generalized_box_iou_loss)


class DistanceBoxIoULoss(_PairedBoxLoss):
    """Module of `distance_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(distance_box_iou_loss)


class CompleteBoxIoULoss(_PairedBoxLoss):
    """Module of `complete_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(complete_box_iou_loss)


class EfficientBoxIoULoss(_PairedBoxLoss):
    """Module of `efficient_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    function = staticmethod(efficient_box_iou_loss)
