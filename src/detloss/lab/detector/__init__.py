"""The dense one-stage detector; RetinaNet, GFL, a VFNet-like one and YOLOv2 are configurations of it."""

from detloss.detector.anchors import fit_anchors, kmeans_anchors
from detloss.detector.coding import (
    decode_cells,
    decode_distances,
    decode_offsets,
    encode_cells,
    encode_distances,
    encode_offsets,
)
from detloss.detector.config import DetectorConfig
from detloss.detector.detector import Detector, Grid, Output

__all__ = [
    "Detector",
    "DetectorConfig",
    "Grid",
    "Output",
    "decode_cells",
    "decode_distances",
    "decode_offsets",
    "encode_cells",
    "encode_distances",
    "encode_offsets",
    "fit_anchors",
    "kmeans_anchors",
]
