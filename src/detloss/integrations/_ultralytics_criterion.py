"""What is put into a criterion of Ultralytics, and which losses its soft labels allow."""

import torch
from torch import Tensor, nn

from detloss.integrations._losses import Called, each_box


class Classes(nn.Module):
    """In place of the criterion's `bce`: one value per score, which class weights may be written into."""

    def __init__(self, loss: Called, written: bool) -> None:
        super().__init__()
        self.loss, self.written = loss, written

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        each = self.loss(scores, labels)
        if each.shape != scores.shape:
            shapes = f"{tuple(each.shape)} for scores {tuple(scores.shape)}"
            raise ValueError(f"loss {self.loss.name} returned {shapes}; it must return one value per score")
        return each.clone() if self.written else each  # autograd may have kept what would be written into

    def extra_repr(self) -> str:
        return f"swapped by detloss: {self.loss.name}"


class Boxes(nn.Module):
    """Around the criterion's `bbox_loss`: its first term is ours, the others are its own."""

    def __init__(self, own: nn.Module, loss: Called) -> None:
        super().__init__()
        self.own, self.loss = own, loss

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        _, predicted, _, true, labels, normaliser, positive = given[:7]
        at = positive.nonzero(as_tuple=True)
        each = each_box(self.loss, predicted[at], true[at]) * labels[at].sum(-1)
        return each.sum() / normaliser, *self.own(*given)[1:]

    def extra_repr(self) -> str:
        return f"swapped by detloss: {self.loss.name}"


def check_soft(loss: Called, classes: int, label: float = 0.3) -> None:
    """ValueError if the loss of a soft label is least at another score; those with a quality are meant so."""
    if loss.wants_quality:
        return
    scores = torch.linspace(0.01, 0.99, 99)
    inputs = torch.logit(scores)[:, None].expand(-1, classes)
    best = float(scores[loss(inputs, torch.full_like(inputs, label)).sum(-1).argmin()])
    if abs(best - label) > 0.05:
        raise ValueError(
            f"classification is {loss.name}; labels are soft here, and for one of {label} it is least at a "
            f"score of {best:.2f}, so that scores do not learn their label; it may be bce, quality_focal or "
            "varifocal; or pass force=True to train so all the same"
        )
