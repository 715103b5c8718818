"""Evaluation of detections: COCO average precision, calibration, and whether the score means quality.

Arrays in, a dataclass out; no drawing, nothing printed. AP comes from hotcoco and is pycocotools'.
"""

from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import Truth, from_coco_results, to_coco_results
from detloss.lab.evaluate.evaluation import Evaluation, SizeBin, evaluate, evaluate_at
from detloss.lab.evaluate.reliability import (
    Calibration,
    ClassCalibration,
    detection_calibration_error,
    expected_calibration_error,
    localisation_aware_error,
    rank_correlation,
)
from detloss.lab.evaluate.voc import voc_ap, voc_map

__all__ = [
    "Calibration",
    "ClassCalibration",
    "Detections",
    "Evaluation",
    "SizeBin",
    "Truth",
    "detection_calibration_error",
    "evaluate",
    "evaluate_at",
    "expected_calibration_error",
    "from_coco_results",
    "localisation_aware_error",
    "rank_correlation",
    "to_coco_results",
    "voc_ap",
    "voc_map",
]
