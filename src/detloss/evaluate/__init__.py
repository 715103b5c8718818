"""Evaluation of detections: COCO average precision, calibration, and whether the score means quality.

Arrays in, a dataclass out; no drawing, nothing printed. AP comes from faster-coco-eval and is pycocotools'.
"""

from detloss.evaluate.calibration import Calibration, rank_correlation
from detloss.evaluate.detections import Detections, Truth, from_coco_results, to_coco_results
from detloss.evaluate.evaluation import Evaluation, SizeBin, evaluate

__all__ = [
    "Calibration",
    "Detections",
    "Evaluation",
    "SizeBin",
    "Truth",
    "evaluate",
    "from_coco_results",
    "rank_correlation",
    "to_coco_results",
]
