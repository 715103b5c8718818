"""Signatures of the losses, written by tools/losses_stub.py: do not edit."""

from torch import Tensor, nn

def asymmetric_loss(
    inputs: Tensor,
    targets: Tensor,
    gamma_neg: float | Tensor = 4.0,
    gamma_pos: float | Tensor = 1.0,
    clip: float | Tensor = 0.05,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def binary_cross_entropy_with_logits(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = 'none',
    *,
    alpha: float | Tensor | None = None,
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor: ...

def complete_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor: ...

def distance_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor: ...

def distribution_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor: ...

def distribution_integral(
    inputs: Tensor,
) -> Tensor: ...

def efficient_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor: ...

def generalized_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor: ...

def matchability_aware_loss(
    inputs: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 1.5,
    reduction: str = 'none',
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def poly_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma: float | Tensor = 2.0,
    epsilon: float | Tensor = -1.0,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def quality_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    beta: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    alpha: float | Tensor | None = None,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def sample_dependent_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma_low: float | Tensor = 5.0,
    gamma_high: float | Tensor = 3.0,
    threshold: float | Tensor = 0.2,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.25,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

def softmax_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | None = None,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    impl: str = 'auto',
) -> Tensor: ...

def varifocal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = 0.75,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = 'auto',
) -> Tensor: ...

class AsymmetricLoss(nn.Module):
    def __init__(
        self,
        gamma_neg: float | Tensor = 4.0,
        gamma_pos: float | Tensor = 1.0,
        clip: float | Tensor = 0.05,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class BCEWithLogitsLoss(nn.Module):
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = 'mean',
        pos_weight: Tensor | None = None,
        alpha: float | Tensor | None = None,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class BoxIoULoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        eps: float = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class CompleteBoxIoULoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        eps: float = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class DistanceBoxIoULoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        eps: float = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class DistributionFocalLoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        *,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class EfficientBoxIoULoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        eps: float = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class GeneralizedBoxIoULoss(nn.Module):
    def __init__(
        self,
        reduction: str = 'mean',
        eps: float = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class MatchabilityAwareLoss(nn.Module):
    def __init__(
        self,
        gamma: float | Tensor = 1.5,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class PolyFocalLoss(nn.Module):
    def __init__(
        self,
        alpha: float | Tensor | None = 0.25,
        gamma: float | Tensor = 2.0,
        epsilon: float | Tensor = -1.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class QualityFocalLoss(nn.Module):
    def __init__(
        self,
        beta: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        alpha: float | Tensor | None = None,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class SampleDependentFocalLoss(nn.Module):
    def __init__(
        self,
        alpha: float | Tensor | None = 0.25,
        gamma_low: float | Tensor = 5.0,
        gamma_high: float | Tensor = 3.0,
        threshold: float | Tensor = 0.2,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...

class SigmoidFocalLoss(nn.Module):
    def __init__(
        self,
        alpha: float | Tensor | None = 0.25,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        pos_weight: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    @classmethod
    def from_bce(
        cls,
        bce: nn.BCEWithLogitsLoss | BCEWithLogitsLoss,
        alpha: float | Tensor | None = 0.25,
        gamma: float | Tensor = 2.0,
    ) -> SigmoidFocalLoss: ...

class SoftmaxFocalLoss(nn.Module):
    def __init__(
        self,
        alpha: Tensor | None = None,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
    ) -> Tensor: ...

class VarifocalLoss(nn.Module):
    def __init__(
        self,
        alpha: float | Tensor | None = 0.75,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...

__all__ = ["AsymmetricLoss", "BCEWithLogitsLoss", "BoxIoULoss", "CompleteBoxIoULoss", "DistanceBoxIoULoss", "DistributionFocalLoss", "EfficientBoxIoULoss", "GeneralizedBoxIoULoss", "MatchabilityAwareLoss", "PolyFocalLoss", "QualityFocalLoss", "SampleDependentFocalLoss", "SigmoidFocalLoss", "SoftmaxFocalLoss", "VarifocalLoss", "asymmetric_loss", "binary_cross_entropy_with_logits", "box_iou_loss", "complete_box_iou_loss", "distance_box_iou_loss", "distribution_focal_loss", "distribution_integral", "efficient_box_iou_loss", "generalized_box_iou_loss", "matchability_aware_loss", "poly_focal_loss", "quality_focal_loss", "sample_dependent_focal_loss", "sigmoid_focal_loss", "softmax_focal_loss", "varifocal_loss"]
