"""Single images with every location's share of the loss: where on the image the loss comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detloss.calling import Loss
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector
from detloss.lab.inspect.logits import labelled_logits
from detloss.lab.inspect.quadrants import value_and_gradient


@dataclass(frozen=True, eq=False)
class Example:
    """One image, its positive locations and its hardest negatives.

    Attributes:
        id: of the image.
        image: `(S, S, 3)` uint8, as the detector sees it.
        boxes: `(M, 4)` its objects, xyxy in pixels.
        positives: `(N, 4)` anchors of the positive locations; an anchor-free detector's are squares round the
            location's point.
        positive_shares: loss name → `(N,)` share of the image's loss, from the logit of the location's class.
        negatives: `(K, 4)` anchors of the negative logits of highest p, the highest first.
        classes: `(K,)` the class each is taken for.
        scores: `(K,)` p of each.
        negative_shares: loss name → `(K,)` share of the image's loss.
        rest: loss name → share of all other negatives.
        others: how many these are.
    """

    id: str
    image: np.ndarray
    boxes: np.ndarray
    positives: np.ndarray
    positive_shares: dict[str, np.ndarray]
    negatives: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    negative_shares: dict[str, np.ndarray]
    rest: dict[str, float]
    others: int


def example(
    detector: Detector,
    data: Letterboxed,
    index: int,
    losses: Sequence[Loss],
    device: torch.device,
    hardest: int = 50,
) -> Example:
    """The shares of the loss of image `index`, its `hardest` negative logits one by one.

    Arguments as in `labelled_logits`, losses from `elementwise_losses`.
    """
    sample = data[index]
    grid = detector.grid(data.size, data.size, device)
    pieces = list(labelled_logits(detector, data, [index], 1, device))
    where = torch.cat([piece.rows for piece in pieces])
    logits = torch.cat([piece.logits for piece in pieces])
    positive = torch.cat([piece.positive for piece in pieces])
    classes = logits.shape[1]
    negative = torch.where(positive, -torch.inf, logits).flatten()
    kept = negative.topk(min(hardest, int((~positive).sum()))).indices
    anchors = grid.anchors[where].cpu()
    row, _ = positive.nonzero(as_tuple=True)
    positive_shares, negative_shares, rest = {}, {}, {}
    for loss in losses:
        value = torch.cat([value_and_gradient(loss, piece)[0] for piece in pieces]).double()
        value = value / value.sum().clamp(min=torch.finfo(torch.float64).tiny)
        positive_shares[loss.name] = value[positive].cpu().numpy()
        negative_shares[loss.name] = value.flatten()[kept].cpu().numpy()
        rest[loss.name] = float(value[~positive].sum() - value.flatten()[kept].sum())
    kept_rows = torch.div(kept, classes, rounding_mode="floor").cpu()
    return Example(
        sample.id,
        sample.image,
        sample.boxes[~sample.ignored],
        anchors[row.cpu()].numpy(),
        positive_shares,
        anchors[kept_rows].numpy(),
        (kept % classes).cpu().numpy(),
        logits.flatten()[kept].sigmoid().cpu().numpy(),
        negative_shares,
        rest,
        int((~positive).sum()) - len(kept),
    )
