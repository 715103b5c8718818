"""The losses of dense object detection: what a training script of your own imports.

Every loss is a function and a Module; the overlaps of boxes are here too. All of it needs torch only. Further
modules: `detloss.formula` (losses of your own), `detloss.mining`, `detloss.schedule`, `detloss.names`.

`detloss.lab` is the laboratory behind the command `detloss`; it needs `pip install "detloss[lab]"`.
"""

from importlib.metadata import version

from detloss.boxes import (
    box_convert,
    box_iou,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    paired_box_iou,
)
from detloss.formula import box_loss, elementwise_loss
from detloss.linear import LinearLoss, linear_loss
from detloss.losses import (
    AsymmetricLoss,
    BCEWithLogitsLoss,
    BoxIoULoss,
    CompleteBoxIoULoss,
    DistanceBoxIoULoss,
    DistributionFocalLoss,
    EfficientBoxIoULoss,
    GeneralizedBoxIoULoss,
    MatchabilityAwareLoss,
    PolyFocalLoss,
    QualityFocalLoss,
    SampleDependentFocalLoss,
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
    VarifocalLoss,
    asymmetric_loss,
    binary_cross_entropy_with_logits,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    distribution_focal_loss,
    distribution_integral,
    efficient_box_iou_loss,
    generalized_box_iou_loss,
    matchability_aware_loss,
    poly_focal_loss,
    quality_focal_loss,
    sample_dependent_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)

__version__ = version("detloss")

__all__ = [
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
    "BoxIoULoss",
    "CompleteBoxIoULoss",
    "DistanceBoxIoULoss",
    "DistributionFocalLoss",
    "EfficientBoxIoULoss",
    "GeneralizedBoxIoULoss",
    "LinearLoss",
    "MatchabilityAwareLoss",
    "PolyFocalLoss",
    "QualityFocalLoss",
    "SampleDependentFocalLoss",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "VarifocalLoss",
    "__version__",
    "asymmetric_loss",
    "binary_cross_entropy_with_logits",
    "box_convert",
    "box_iou",
    "box_iou_loss",
    "box_loss",
    "complete_box_iou",
    "complete_box_iou_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "distribution_focal_loss",
    "distribution_integral",
    "efficient_box_iou_loss",
    "elementwise_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "linear_loss",
    "matchability_aware_loss",
    "paired_box_iou",
    "poly_focal_loss",
    "quality_focal_loss",
    "sample_dependent_focal_loss",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "varifocal_loss",
]
