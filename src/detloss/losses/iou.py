"""Box losses: 1 - similarity of paired boxes; formulas and degenerate boxes are in `paired_box_iou`."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from detloss._core.checks import broadcastable, check_reduction
from detloss._core.dtypes import check_devices
from detloss._core.fused import Operand, fusable, fused, scalar
from detloss._core.modules import keep, kept, shown
from detloss._core.reductions import mean_scale, reduce
from detloss.boxes import check_pair, similarity, widened


def box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
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
        impl: "auto", "eager" or "compile", see `detloss._core.fused`.

    Returns:
        `(...)` for "none", else a number; float64 for float64 boxes, else float32, as in torchvision.

    Raises:
        ValueError: unknown reduction or format, shapes that do not fit.
    """
    return _box_loss("iou", boxes1, boxes2, reduction, eps, weight, fmt, impl)


def generalized_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
) -> Tensor:
    """1 - GIoU of paired boxes, in [0, 2]; equals `torchvision.ops.generalized_box_iou_loss`.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1902.09630.
    """
    return _box_loss("giou", boxes1, boxes2, reduction, eps, weight, fmt, impl)


def distance_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
) -> Tensor:
    """1 - DIoU of paired boxes, in [0, 2]; equals `torchvision.ops.distance_box_iou_loss`.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return _box_loss("diou", boxes1, boxes2, reduction, eps, weight, fmt, impl)


def complete_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
) -> Tensor:
    """1 - CIoU of paired boxes, in [0, 3); equals `torchvision.ops.complete_box_iou_loss`.

    The trade-off α has no gradient (torchvision, ultralytics, mmdet ≥ 3). Unlike torchvision's, value and
    gradient stay finite for boxes without height.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:1911.08287.
    """
    return _box_loss("ciou", boxes1, boxes2, reduction, eps, weight, fmt, impl)


def efficient_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = "none",
    eps: float = 1e-7,
    *,
    weight: Tensor | None = None,
    fmt: str = "xyxy",
    impl: str = "auto",
) -> Tensor:
    """1 - EIoU (Efficient IoU) of paired boxes; not mmdet's `EIoULoss`, which is Extended IoU.

    Arguments, result and errors as in `box_iou_loss`; formula in `paired_box_iou`. Source: arXiv:2101.08158.
    """
    return _box_loss("eiou", boxes1, boxes2, reduction, eps, weight, fmt, impl)


def _box_loss(
    kind: str,
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str,
    eps: float,
    weight: Tensor | None,
    fmt: str,
    impl: str,
) -> Tensor:
    check_reduction(reduction)
    check_pair(boxes1, boxes2, kind, fmt, eps)
    check_devices(boxes1=boxes1, weight=weight)
    shape = boxes1.shape[:-1]
    if weight is not None:
        broadcastable("weight", weight, shape)

    def eagerly(columns: Sequence[Tensor]) -> Tensor:
        loss = _pair_loss(*columns, kind=kind, fmt=fmt, eps=eps, weight=weight)
        return reduce(loss, reduction, loss.numel(), loss)

    name = f"1 - {kind}"
    if boxes1.dtype == boxes2.dtype and fusable(impl, name, (boxes1, boxes2), {"weight": weight, "eps": eps}):
        # a loop over boxes of four coordinates would not be vectorised, one over their columns is
        flat = [boxes.reshape(-1, 4) for boxes in (boxes1, boxes2)]
        columns = tuple(column.contiguous() for boxes in flat for column in boxes.unbind(-1))
        dtype = widened(boxes1).dtype
        constants = {"eps": scalar(eps, dtype, boxes1.device)}
        if weight is not None:
            constants["weight"] = Operand(weight.expand(shape).reshape(-1).contiguous(), "N")
        value = fused(
            name,
            _pair_loss,
            [Operand(column, "N") for column in columns],
            constants,
            fixed={"kind": kind, "fmt": fmt},
            again=lambda: eagerly([widened(column).view(shape) for column in columns]),
            arguments=columns,
            others=(weight, eps),
            shape=shape,
            dtype=dtype,
            scale=mean_scale(reduction, shape.numel(), boxes1),
            impl=impl,
        )
        if value is not None:
            return value
    return eagerly([*widened(boxes1).unbind(-1), *widened(boxes2).unbind(-1)])


def _pair_loss(
    *columns: Tensor, kind: str, fmt: str, eps: float | Tensor, weight: Tensor | None = None
) -> Tensor:
    """1 - similarity of boxes, given as eight columns, times a weight."""
    loss = 1 - similarity(columns[:4], columns[4:], kind, fmt, eps, eps)
    return loss if weight is None else loss * weight.to(loss.dtype)


class _PairedBoxLoss(nn.Module):
    kind: ClassVar[str]

    def __init__(
        self, reduction: str = "mean", eps: float = 1e-7, *, fmt: str = "xyxy", impl: str = "auto"
    ) -> None:
        super().__init__()
        keep(self, reduction=reduction, eps=eps, fmt=fmt, impl=impl)

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
