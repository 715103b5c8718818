"""A trained detector on images: its detections, in the images' own pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detloss.lab import ranks
from detloss.lab.data.batches import Batch, Letterboxed, collate
from detloss.lab.data.sample import Detections
from detloss.lab.detector.assign import IGNORED
from detloss.lab.detector.postprocess import Limits

_BLOCK = 32
"""Images at a time."""


def images_to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """`(B, H, W, 3)` uint8 to `(B, 3, H, W)` float in [0, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255


def to_torchvision(batch: Batch, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A batch as torchvision's detection API takes it: images, and the boxes and labels of each.

    Ignored regions are no objects and stand apart, under `ignored`.
    """

    def of_each(values: np.ndarray, chosen: np.ndarray) -> tuple[Tensor, ...]:
        # One transfer for all images.
        return torch.from_numpy(values[chosen]).to(device).split(chosen.sum(1).tolist())

    real, ignored = batch.labels >= 0, batch.labels == IGNORED
    parts = zip(of_each(batch.boxes, real), of_each(batch.labels, real))
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in parts]
    if ignored.any():
        for target, boxes in zip(targets, of_each(batch.boxes, ignored)):
            target["ignored"] = boxes
    return list(images_to_tensor(batch.images, device)), targets


@torch.inference_mode()
def predict(
    detector: nn.Module,
    data: Letterboxed,
    limits: Limits,
    device: torch.device,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Detections]:
    """Detections of every image of a data set, in the images' own pixels.

    In float32 whatever the training was in: bfloat16 has so few digits that scores tie. The processes of a
    training share the images, and each gets all detections.

    Args:
        detector: in evaluation mode, on `device`. Its attribute `limits` is set; what another detector than
            the laboratory's own finds beyond them is left out.
    """
    setting: Any = detector
    setting.limits = limits
    # Whole blocks to each process: what is computed of an image may depend on which others are beside it.
    starts = range(0, len(data), _BLOCK)[ranks.rank() :: ranks.world()]
    own = sum(min(_BLOCK, len(data) - start) for start in starts)
    found: dict[int, Detections] = {}
    for start in starts:
        indices = range(start, min(start + _BLOCK, len(data)))
        batch = collate([data[i] for i in indices])
        for i, one in zip(indices, detector(list(images_to_tensor(batch.images, device)))):
            boxes, scores, labels = (one[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
            order = np.argsort(-scores, kind="stable")[: limits.detections]
            order = order[scores[order] >= limits.score]
            boxes = data.restore(i, boxes[order].astype(np.float32))
            found[i] = Detections(boxes, scores[order].astype(np.float32), labels[order].astype(np.int64))
        progress(len(found), own)
    everywhere = {i: one for part in ranks.gathered(found) for i, one in part.items()}
    return [everywhere[i] for i in range(len(data))]
