"""A net that segments a rare class: cross entropy, then softmax focal loss. The call is the same.

python examples/segmentation.py --data BCCD
"""

import torch
from common import Sample, arguments, measure, samples
from torch import nn
from torch.nn import functional as F

from detloss import softmax_focal_loss

IGNORED = -100


def classes(sample: Sample, size: int) -> torch.Tensor:
    """The class of each pixel, (size, size): 1 within platelets; the rim of a box does not count."""
    mask = torch.zeros(size, size, dtype=torch.int64)
    for box, label in zip(sample.boxes.round().long().tolist(), sample.labels.tolist()):
        if label == 2:
            left, top, right, bottom = box
            mask[top:bottom, left:right] = IGNORED
            mask[top + 1 : bottom - 1, left + 1 : right - 1] = 1
    return mask


def main() -> None:
    args = arguments(__doc__)
    batch = samples(args.data, 4, args.size)
    pixels = torch.stack([sample.image for sample in batch])
    targets = torch.stack([classes(sample, args.size) for sample in batch])
    print(f"{(targets == 1).float().mean():.2%} of the pixels are of the rare class")

    alpha = torch.tensor([0.25, 0.75])
    for name, loss in {
        "cross entropy": lambda logits: F.cross_entropy(logits, targets, ignore_index=IGNORED),
        "softmax focal loss, alpha by class": lambda logits: softmax_focal_loss(
            logits, targets, alpha=alpha, gamma=2.0, reduction="mean", ignore_index=IGNORED, impl="eager"
        ),
    }.items():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(32, 2, 3, 1, 1),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        measure(name, lambda model=model, loss=loss: loss(model(pixels)), optimizer, args.steps)


if __name__ == "__main__":
    main()
