"""A trained detector on images: its detections, in the images' own pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detloss.lab.data.batches import Letterboxed, collate
from detloss.lab.data.sample import Detections
from detloss.lab.detector import Detector
from detloss.lab.detector.postprocess import Limits, detect


def images_to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """`(B, H, W, 3)` uint8 to `(B, 3, H, W)` float in [0, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def predict(
    detector: Detector,
    data: Letterboxed,
    limits: Limits,
    device: torch.device,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Detections]:
    """Detections of every image of a data set, in the images' own pixels.

    In float32 whatever the training was in: bfloat16 has so few digits that scores tie.
    """
    grid = detector.grid(data.size, data.size, device)
    found = []
    for start in range(0, len(data), 32):
        indices = range(start, min(start + 32, len(data)))
        batch = collate([data[i] for i in indices])
        output = detector(images_to_tensor(batch.images, device))
        size = (data.size, data.size)
        for i, one in zip(indices, detect(detector, grid, output, size, limits)):
            found.append(Detections(data.restore(i, one.boxes), one.scores, one.labels))
        progress(len(found), len(data))
    return found
