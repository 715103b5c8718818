"""The losses: a function and a Module for each."""

from detloss.losses.asymmetric import AsymmetricLoss, asymmetric_loss
from detloss.losses.bce import BCEWithLogitsLoss, binary_cross_entropy_with_logits
from detloss.losses.dfl import (
    DistributionFocalLoss,
    distribution_focal_loss,
    distribution_integral,
)
from detloss.losses.flsd import SampleDependentFocalLoss, sample_dependent_focal_loss
from detloss.losses.focal import SigmoidFocalLoss, sigmoid_focal_loss
from detloss.losses.gaussian_focal import GaussianFocalLoss, gaussian_focal_loss
from detloss.losses.ia_bce import IoUAwareBCELoss, iou_aware_bce_loss
from detloss.losses.iou import (
    BoxIoULoss,
    CompleteBoxIoULoss,
    DistanceBoxIoULoss,
    EfficientBoxIoULoss,
    GeneralizedBoxIoULoss,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    efficient_box_iou_loss,
    generalized_box_iou_loss,
)
from detloss.losses.l1 import L1BoxLoss, SmoothL1BoxLoss, l1_box_loss, smooth_l1_box_loss
from detloss.losses.mal import MatchabilityAwareLoss, matchability_aware_loss
from detloss.losses.poly_focal import PolyFocalLoss, poly_focal_loss
from detloss.losses.quality_focal import QualityFocalLoss, quality_focal_loss
from detloss.losses.softmax_focal import SoftmaxFocalLoss, softmax_focal_loss
from detloss.losses.varifocal import VarifocalLoss, varifocal_loss

__all__ = [
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
    "BoxIoULoss",
    "CompleteBoxIoULoss",
    "DistanceBoxIoULoss",
    "DistributionFocalLoss",
    "EfficientBoxIoULoss",
    "GaussianFocalLoss",
    "GeneralizedBoxIoULoss",
    "IoUAwareBCELoss",
    "L1BoxLoss",
    "MatchabilityAwareLoss",
    "PolyFocalLoss",
    "QualityFocalLoss",
    "SampleDependentFocalLoss",
    "SigmoidFocalLoss",
    "SmoothL1BoxLoss",
    "SoftmaxFocalLoss",
    "VarifocalLoss",
    "asymmetric_loss",
    "binary_cross_entropy_with_logits",
    "box_iou_loss",
    "complete_box_iou_loss",
    "distance_box_iou_loss",
    "distribution_focal_loss",
    "distribution_integral",
    "efficient_box_iou_loss",
    "gaussian_focal_loss",
    "generalized_box_iou_loss",
    "iou_aware_bce_loss",
    "l1_box_loss",
    "matchability_aware_loss",
    "poly_focal_loss",
    "quality_focal_loss",
    "sample_dependent_focal_loss",
    "sigmoid_focal_loss",
    "smooth_l1_box_loss",
    "softmax_focal_loss",
    "varifocal_loss",
]
