"""Box losses: 1 - similarity of paired boxes; formulas and degenerate boxes are in `paired_box_iou`.

A predicted box that is inside out (x2 < x1) has no area and, by its similarity alone, no reason to turn: each
loss adds `inside_out`, which is 0 for proper boxes.
"""

from torch import Tensor

from detloss._core.box import Box
from detloss._core.modules import PairedBoxLoss
from detloss.boxes import complete_iou, distance_iou, efficient_iou, generalized_iou, inside_out, iou
from detloss.formula import box_loss


@box_loss(finite=False)  # a test holds it, and `import detloss` need not
def box_iou_loss(first: Box, second: Box, eps: float | Tensor | None = 1e-7) -> Tensor:
    """IoU loss, 1 - IoU of paired boxes: what the boxes do not share.

    In [0, 1]. A proper box that does not touch its target has no gradient. Linear, where mmdet's `IoULoss` is
    -log IoU by default, and PaddleDetection's 1 - IoU².
    """
    return 1 - iou(first, second, eps) + inside_out(first, second)


@box_loss(finite=False)
def generalized_box_iou_loss(first: Box, second: Box, eps: float | Tensor | None = 1e-7) -> Tensor:
    """GIoU loss, 1 - GIoU of paired boxes: also boxes that do not touch are drawn together.

    GIoU = IoU - (|C| - |A∪B|) / |C|,  C the enclosing box of A and B.

    In [0, 2]. Equals `torchvision.ops.generalized_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Source: Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630.
    """
    return 1 - generalized_iou(first, second, eps) + inside_out(first, second)


@box_loss(finite=False)
def distance_box_iou_loss(first: Box, second: Box, eps: float | Tensor | None = 1e-7) -> Tensor:
    """DIoU loss, 1 - DIoU of paired boxes: also the distance of the centres counts.

    DIoU = IoU - ρ²/c²,  ρ the distance of the centres, c the diagonal of the enclosing box.

    In [0, 2]. Equals `torchvision.ops.distance_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """
    return 1 - distance_iou(first, second, eps) + inside_out(first, second)


@box_loss(finite=False)
def complete_box_iou_loss(first: Box, second: Box, eps: float | Tensor | None = 1e-7) -> Tensor:
    """CIoU loss, 1 - CIoU of paired boxes: also the distance of the centres and the aspect ratio count.

    CIoU = DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v).

    In [0, 3). Equals `torchvision.ops.complete_box_iou_loss`. The trade-off α has no gradient (torchvision,
    ultralytics, mmdet ≥ 3). Unlike torchvision's, value and gradient stay finite for boxes without height.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """
    return 1 - complete_iou(first, second, eps) + inside_out(first, second)


@box_loss(finite=False)
def efficient_box_iou_loss(first: Box, second: Box, eps: float | Tensor | None = 1e-7) -> Tensor:
    """EIoU loss, 1 - EIoU of paired boxes: centres, widths and heights count, each on its own.

    EIoU = DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²,  C_w and C_h the sides of the enclosing box.

    Efficient IoU; mmdet's `EIoULoss` is another, Extended IoU.

    Source: Zhang et al., Focal and Efficient IoU Loss, arXiv:2101.08158.
    """
    return 1 - efficient_iou(first, second, eps) + inside_out(first, second)


class BoxIoULoss(PairedBoxLoss, of=box_iou_loss):
    """Module of `box_iou_loss`, with its arguments; the default reduction is "mean"."""


class GeneralizedBoxIoULoss(PairedBoxLoss, of=generalized_box_iou_loss):
    """Module of `generalized_box_iou_loss`, with its arguments; the default reduction is "mean"."""


class DistanceBoxIoULoss(PairedBoxLoss, of=distance_box_iou_loss):
    """Module of `distance_box_iou_loss`, with its arguments; the default reduction is "mean"."""


class CompleteBoxIoULoss(PairedBoxLoss, of=complete_box_iou_loss):
    """Module of `complete_box_iou_loss`, with its arguments; the default reduction is "mean"."""


class EfficientBoxIoULoss(PairedBoxLoss, of=efficient_box_iou_loss):
    """Module of `efficient_box_iou_loss`, with its arguments; the default reduction is "mean"."""
