"""Easy and hard, positive and negative: how many logits are which, and where loss and gradient come from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.calling import Loss, classify
from detloss.lab.inspect.logits import Labelled

QUADRANTS = (("negative", "easy"), ("negative", "hard"), ("positive", "hard"), ("positive", "easy"))
"""In the order in which their counts are said to fall."""


@dataclass(frozen=True)
class Quadrant:
    """One loss over one quarter of the logits.

    Attributes:
        loss: its name.
        label: "positive" or "negative".
        hardness: "easy" where p_t reaches the threshold, else "hard".
        count: logits.
        count_share: of all logits that count.
        loss_sum: over these logits.
        loss_share: of the whole loss.
        gradient_sum: Σ |∂L/∂x| over these logits.
        gradient_share: of that sum over all logits.
    """

    loss: str
    label: str
    hardness: str
    count: int
    count_share: float
    loss_sum: float
    loss_share: float
    gradient_sum: float
    gradient_share: float


class QuadrantSums:
    """Sums of loss and gradient norm by quadrant, built up piece by piece in float64.

    Args:
        losses: classification losses from `find_loss`, none a softmax.
        easy: p_t from which a logit is easy, in (0, 1).
    """

    def __init__(self, losses: Sequence[Loss], easy: float = 0.5) -> None:
        self.losses = tuple(losses)
        self.margin = math.log(easy / (1 - easy))
        self.counts = torch.zeros(4, dtype=torch.int64)
        self.sums = torch.zeros(len(self.losses), 2, 4, dtype=torch.float64)

    def add(self, piece: Labelled) -> None:
        """Counts one piece of logits."""
        hard = piece.margin < self.margin
        # 0..3 in the order of QUADRANTS.
        which = torch.where(piece.positive, 3 - hard.long(), hard.long()).flatten()
        self.counts += torch.bincount(which, minlength=4).cpu()
        for i, loss in enumerate(self.losses):
            value, gradient = value_and_gradient(loss, piece)
            for j, what in enumerate((value, gradient.abs())):
                self.sums[i, j] += torch.bincount(which, what.flatten().double(), minlength=4).cpu()

    def table(self) -> list[Quadrant]:
        """Four rows per loss, in the order of `QUADRANTS`; shares of nothing are 0."""
        counts = self.counts.tolist()
        rows = []
        for loss, sums in zip(self.losses, self.sums.tolist()):
            totals = [sum(counts) or 1, *(sum(one) or 1.0 for one in sums)]
            for i, (label, hardness) in enumerate(QUADRANTS):
                values = (counts[i], sums[0][i], sums[1][i])
                pairs = [x for value, total in zip(values, totals) for x in (value, value / total)]
                rows.append(Quadrant(loss.name, label, hardness, *pairs))
        return rows


def value_and_gradient(loss: Loss, piece: Labelled) -> tuple[Tensor, Tensor]:
    """A loss of each logit and its derivative by it, both `(N, C)`; nothing is divided by positives.

    Raises:
        ValueError: a loss or derivative that is NaN or infinite, of which nothing has a share.
    """
    logits = piece.logits.detach().requires_grad_()
    quality = piece.quality[None] if loss.takes_quality else None
    value = classify(loss, logits[None], piece.labels[None], quality)[0]
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    if not (value.isfinite().all() and gradient.isfinite().all()):
        low, high = logits.aminmax()
        raise ValueError(
            f"loss {loss.name!r} or its gradient is not finite somewhere from logit {low:.3g} to {high:.3g}"
        )
    return value.detach(), gradient


def percent(share: float) -> str:
    """A share in words, with two digits that count however small it is; of nothing (nan) a dash."""
    value = 100 * share
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0 %"
    if value >= 99.95:
        return "100 %" if value >= 100 else f"{value:.3f} %" if value < 99.9995 else "> 99.999 %"
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


@dataclass(frozen=True)
class Claim:
    """A claim about imbalance, whether the numbers here agree with it, and these numbers in words."""

    text: str
    holds: bool
    evidence: str


def check_claims(table: Sequence[Quadrant]) -> list[Claim]:
    """The usual claims about imbalance, against the quadrants of the first loss of a table.

    "Easy negatives ≫ hard negatives ≈ hard positives > easy positives" by count (≫: at least ten times, ≈:
    within a factor of two), and that most of loss and gradient comes from easy negatives.
    """
    first = table[0]  # easy negatives
    a, b, d, c = (row.count for row in table[:4])
    fewer, more = sorted((b, d))
    return [
        Claim("easy negatives ≫ hard negatives", a >= 10 * b and a > 0, f"{a} and {b}"),
        Claim("hard negatives ≈ hard positives", 0 < more <= 2 * fewer, f"{b} and {d}"),
        Claim("hard positives > easy positives", d > c, f"{d} and {c}"),
        Claim("there are more hard negatives than positives", b > c + d, f"{b} and {c + d}"),
        *(
            Claim(f"most of {what} comes from easy negatives", share > 0.5, f"{percent(share)} of it")
            for what, share in (
                (first.loss, first.loss_share),
                (f"the gradient of {first.loss}", first.gradient_share),
            )
        ),
    ]
