"""Tags of an image, most of which are absent: BCE, then asymmetric loss. A Module for a Module.

python examples/multi_label.py --data BCCD
"""

import torch
from common import arguments, measure, samples
from torch import nn

from detloss import AsymmetricLoss

TAGS = 2000


def main() -> None:
    args = arguments(__doc__)
    batch = samples(args.data, 16, args.size)
    pixels = torch.stack([sample.image for sample in batch])
    targets = torch.zeros(len(batch), TAGS)  # three tags are those of the cells, the others are never there
    for row, sample in enumerate(batch):
        targets[row, sample.labels] = 1
    print(f"{targets.mean():.2%} of the tags are there")

    for name, loss in {
        "BCE": nn.BCEWithLogitsLoss(),
        "asymmetric loss": AsymmetricLoss(impl="eager"),  # "auto" pays from some hundred thousand scores on
    }.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * (args.size // 8) ** 2, TAGS))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        measure(name, lambda model=model, loss=loss: loss(model(pixels), targets), optimizer, args.steps)


if __name__ == "__main__":
    main()
