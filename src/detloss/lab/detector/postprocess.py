"""From the detector's output to detections: score and top-k limits, non-maximum suppression per class."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detloss.lab.data.sample import Detections
from detloss.lab.detector.detector import Detector, Grid, Output
from detloss.lab.records import require, require_least


@dataclass(frozen=True)
class Limits:
    """Which predictions become detections; the defaults are RetinaNet's (1708.02002, section 4)."""

    score: float = 0.05
    """Least score."""
    candidates: int = 1000
    """Most (location, class) pairs a pyramid level, by score, before suppression."""
    nms: float = 0.5
    """IoU above which the lower-scored of two detections of one class is dropped."""
    detections: int = 100
    """Most detections an image."""

    def __post_init__(self) -> None:
        for name in ("score", "nms"):
            require(self, name, 0 <= getattr(self, name) <= 1, "it must be from 0 to 1")
        require_least(self, candidates=1, detections=1)


@torch.no_grad()
def detect(
    detector: Detector, grid: Grid, output: Output, size: tuple[int, int], limits: Limits
) -> list[Detections]:
    """Detections of each image of a batch, best score first; boxes are clipped to `size` (height, width)."""
    scores = detector.scores(output)
    batch, _, classes = scores.shape
    results = []
    for i in range(batch):
        kept, start = [], 0
        for level in scores[i].split(grid.level_sizes):
            flat = level.reshape(-1)
            index = (flat >= limits.score).nonzero()[:, 0]
            if len(index) > limits.candidates:
                index = index[flat[index].topk(limits.candidates).indices]
            kept.append(index + start)
            start += len(flat)
        index = torch.cat(kept)
        location, label = index // classes, index % classes
        there = (output.regression[i, location], grid.anchors[location], grid.strides[location])
        boxes = detector.decode(*there)
        limit = boxes.new_tensor([size[1], size[0], size[1], size[0]])
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        results.append(suppress(boxes, scores[i].reshape(-1)[index], label, limits))
    return results


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, limits: Limits) -> Detections:
    """Greedy non-maximum suppression per class: the `limits.detections` best that survive, best first."""
    order = scores.argsort(descending=True, stable=True)
    # numpy: each greedy step is one short vector operation, where torch's cost of a call is ten times larger.
    box, score, label = (x[order].cpu().numpy() for x in (boxes, scores, labels))
    left, top, right, bottom = (np.ascontiguousarray(side) for side in box.T)
    area = (right - left) * (bottom - top)
    alive = np.ones(len(box), dtype=bool)
    keep: list[int] = []
    for i in range(len(box)):
        if not alive[i]:
            continue
        keep.append(i)
        if len(keep) == limits.detections:
            break
        width = np.minimum(right[i:], right[i]) - np.maximum(left[i:], left[i])
        height = np.minimum(bottom[i:], bottom[i]) - np.maximum(top[i:], top[i])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[i:] + area[i] - shared
        alive[i:] &= (shared <= limits.nms * union) | (label[i:] != label[i])
    return Detections(
        box[keep].astype(np.float32), score[keep].astype(np.float32), label[keep].astype(np.int64)
    )
