"""A detector's logits beside what they should say, a piece at a time: there may be 10^8 and more."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detloss.lab.data.batches import Letterboxed, collate
from detloss.lab.detector import Detector
from detloss.lab.detector.assign import IGNORED
from detloss.lab.detector.criterion import Positives
from detloss.lab.detector.inference import images_to_tensor

_AT_ONCE = 2**22
"""Logits of a piece."""


class Labelled(NamedTuple):
    """Locations that count: their logits and labels.

    Attributes:
        logits: `(N, C)` float32.
        labels: `(N,)` int64: a class, C for background.
        quality: `(N,)` IoU of a positive's predicted box with its object, 1 elsewhere.
        rows: `(N,)` int64: the index of each location in its image.
    """

    logits: Tensor
    labels: Tensor
    quality: Tensor
    rows: Tensor

    @property
    def positive(self) -> Tensor:
        """`(N, C)` bool: the logits whose label is 1."""
        return self.labels[:, None] == torch.arange(self.logits.shape[1], device=self.labels.device)

    @property
    def margin(self) -> Tensor:
        """`(N, C)` the logit of p_t: σ(margin) is the probability given to what is true."""
        return torch.where(self.positive, self.logits, -self.logits)


def softmax_margins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A softmax as one sigmoid a location: `(N, 1)` logits and labels 0 (object) or 1 (background).

    A softmax gives the true class t the probability σ(m), m = x_t - log Σ_{j≠t} exp x_j. Every loss of that
    probability is the binary loss of m, and Σ_j |∂L/∂x_j| = 2 |∂L/∂m|: shares of loss and gradient are the
    same. A positive location has the logit m, a background location -m.

    Args:
        logits: `(N, C + 1)`, the background last.
        labels: `(N,)` 0..C.
    """
    logits = logits.double()
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1, keepdim=True)
    background = labels == logits.shape[1] - 1
    margin = true - others
    return torch.where(background[:, None], -margin, margin).float(), background.long()


def labelled_logits(
    detector: Detector,
    data: Letterboxed,
    images: Sequence[int] | np.ndarray,
    batch: int,
    device: torch.device,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> Iterator[Labelled]:
    """The logits of `images`, as stored: no augmentation, float32, normalisation as in evaluation.

    Of a detector with a softmax, `softmax_margins`; of yolov2 the objectness, which alone tells objects from
    background. Both have one logit a location, and label 0 for an object, 1 for background.

    Args:
        detector: in evaluation mode, on `device`.
        data: images fitted into the square it sees.
        images: indices.
        batch: images at a time.
        device: where to compute.
        progress: called with (images done, all).

    Raises:
        ValueError: a logit that is NaN or infinite.
    """
    grid = detector.grid(data.size, data.size, device)
    for start in range(0, len(images), batch):
        samples = collate([data[int(i)] for i in images[start : start + batch]])
        boxes = torch.from_numpy(samples.boxes).to(device)
        assignment = detector.assign(grid, boxes, torch.from_numpy(samples.labels).to(device))
        with torch.no_grad():
            output = detector(images_to_tensor(samples.images, device))
            quality = Positives(detector, grid, output, assignment).quality
        counted = assignment.labels != IGNORED
        logits, labels, quality = output.logits[counted].float(), assignment.labels[counted], quality[counted]
        rows = counted.nonzero(as_tuple=True)[1]
        if output.objectness is not None:
            logits = output.objectness[counted][:, None].float()
            labels = (labels == detector.num_classes).long()
        elif detector.softmax:
            logits, labels = softmax_margins(logits, labels)
        if not logits.isfinite().all():
            raise ValueError(
                f"the detector's logits are not finite on images {', '.join(samples.ids)}: its training "
                "diverged; train it again, with a lower lr"
            )
        size = max(1, _AT_ONCE // logits.shape[1])
        for piece in zip(*(whole.split(size) for whole in (logits, labels, quality, rows))):
            yield Labelled(*piece)
        progress(min(start + batch, len(images)), len(images))
