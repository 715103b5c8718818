"""Prints the table of docs/linear.md: peak memory of a head and its loss, forward and backward."""

import torch
from torch.nn import functional as F

from detloss.lab.bench.measure import Work, memory
from detloss.linear import linear_loss
from detloss.losses import sigmoid_focal_loss

ROWS, FEATURES = 33_600, 256


def main() -> None:
    """Print a line for every number of classes."""
    torch.set_num_threads(2)  # the size of a block goes by them
    features = torch.randn(ROWS, FEATURES, requires_grad=True)
    print("| classes | logits | `linear_loss` | `sigmoid_focal_loss(F.linear(...))` |\n|---|---|---|---|")
    for classes in (80, 365, 1203, 10_000):
        weight = torch.zeros(classes, FEATURES, requires_grad=True)
        labels = torch.full((ROWS,), classes)
        peaks = []
        for loss in (
            lambda w=weight, t=labels: linear_loss(sigmoid_focal_loss, features, w, t),
            lambda w=weight, t=labels: sigmoid_focal_loss(F.linear(features, w), t, reduction="sum"),
        ):
            work = Work(loss, (features, weight))
            work.run()  # compiles
            peaks.append(memory(work, torch.device("cpu")).peak)
        sizes = (f"{size / 1e6:.0f} MB" for size in (ROWS * classes * 4, *peaks))
        print(f"| {classes} | {' | '.join(sizes)} |")


if __name__ == "__main__":
    main()
