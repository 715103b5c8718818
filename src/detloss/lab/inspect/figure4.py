"""Figure 4 of the focal loss paper: from which part of the logits which part of the loss comes.

Its protocol (1708.02002, section 5.1): one converged model, p of many positives and negatives over random
images; the focal loss of these same p for several gamma, each set's losses normalised to sum 1, sorted and
cumulated. Nothing is trained again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detloss.lab.inspect.logits import Labelled
from detloss.losses import sigmoid_focal_loss

GAMMAS = (0.0, 0.5, 1.0, 2.0)
HARDEST = (0.01, 0.05, 0.1, 0.2)
"""Parts of the logits whose share of the loss is printed."""
_LIMIT, _PER_LOGIT = 64, 32
"""Bins of p_t's logit: 1/32 wide, and all beyond ±64 in the outermost."""


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The cumulated focal loss of the positives or the negatives, the hardest first.

    Attributes:
        label: "positive" or "negative".
        gamma: of the focal loss; alpha is off, since a constant factor does not change a share.
        part: `(K + 1,)` part of the logits so far, from 0 to 1.
        share: `(K + 1,)` their share of the loss, from 0 to 1; both empty where there are no logits.
        logits: how many there are.
        total: the loss of all of them.
    """

    label: str
    gamma: float
    part: np.ndarray
    share: np.ndarray
    logits: int
    total: float

    def hardest(self, part: float) -> float:
        """The share of the loss that comes from the hardest `part` of the logits; nan without logits."""
        return float(np.interp(part, self.part, self.share)) if len(self.part) else float("nan")


class LossBins:
    """Counts and focal losses of all logits by p_t, in memory that does not grow with their number.

    The loss falls as p_t rises, so that a sort by loss is a sort by the logit of p_t, and bins of it are
    cumulated in place of single logits. A curve is exact at every edge of a bin. A logit's loss differs from
    that at the edge of its bin by at most a factor exp((1 + gamma) / 32), so little is lost in between.

    Args:
        gammas: of the focal loss.
    """

    def __init__(self, gammas: Sequence[float] = GAMMAS) -> None:
        self.gammas = tuple(gammas)
        bins = 2 * _LIMIT * _PER_LOGIT
        self.counts = torch.zeros(2, bins, dtype=torch.int64)
        self.sums = torch.zeros(len(self.gammas), 2, bins, dtype=torch.float64)

    def add(self, piece: Labelled) -> None:
        """Counts one piece of logits."""
        bins = self.counts.shape[1]
        # Clamped before it is an integer: what no integer holds would be taken for the least of them.
        bin = ((piece.margin + _LIMIT) * _PER_LOGIT).clamp(0, bins - 1).long()
        which = torch.where(piece.positive, bin, bin + bins).flatten()
        self.counts += torch.bincount(which, minlength=2 * bins).view(2, bins).cpu()
        margins = piece.margin.double()
        ones = torch.ones_like(margins)
        for i, gamma in enumerate(self.gammas):
            loss = sigmoid_focal_loss(margins, ones, None, gamma, impl="eager").flatten()
            self.sums[i] += torch.bincount(which, loss, minlength=2 * bins).view(2, bins).cpu()

    def curves(self) -> list[LossCurve]:
        """One curve per label and gamma."""
        curves = []
        for i, label in enumerate(("positive", "negative")):
            filled = self.counts[i].numpy() > 0
            counts = self.counts[i].numpy()[filled]
            for gamma, sums in zip(self.gammas, self.sums[:, i].numpy()):
                losses = sums[filled].cumsum()
                total = float(losses[-1]) if len(losses) else 0.0
                part, share = np.zeros(0), np.zeros(0)
                if total > 0:
                    part = np.concatenate([[0.0], counts.cumsum() / counts.sum()])
                    share = np.concatenate([[0.0], losses / total])
                curves.append(LossCurve(label, gamma, part, share, int(counts.sum()), total))
        return curves

    def doubt(self) -> str:
        """What speaks against calling the model converged, in words; empty where nothing does."""
        middle = self.counts.shape[1] // 2
        hard, easy = self.counts[:, :middle].sum(1).tolist(), self.counts[:, middle:].sum(1).tolist()
        if hard[0] > 99 * easy[0]:
            return (
                f"{easy[0]} of {hard[0] + easy[0]} positives reach p = .5, fewer than one in a hundred: "
                "the model is hardly trained"
            )
        if hard[1] > easy[1]:
            return f"{hard[1]} of {hard[1] + easy[1]} negatives lie above p = .5, the model is not trained"
        return ""
