"""The dense one-stage detector; RetinaNet, GFL, a VFNet-like one and YOLOv2 are configurations of it."""

from detloss.lab.detector.anchors import fit_anchors, kmeans_anchors
from detloss.lab.detector.coding import decode_cells, decode_distances, decode_offsets, encode_distances
from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.dense import DenseDetector
from detloss.lab.detector.detector import Detector, Grid, Output

__all__ = [
    "DenseDetector",
    "Detector",
    "DetectorConfig",
    "Grid",
    "Output",
    "decode_cells",
    "decode_distances",
    "decode_offsets",
    "encode_distances",
    "fit_anchors",
    "kmeans_anchors",
]
