"""Losses of one's own: a formula of logits, a formula of boxes, and the last layer with its loss in one.

python examples/own_formula.py --data BCCD
"""

import torch
from common import NAMES, arguments, measure, samples
from torch import Tensor, nn
from torch.nn import functional as F

from detloss import box_loss, elementwise_loss, linear_loss
from detloss.formula import Box, alpha_t, cross_entropy, enclosing, iou, one_minus_p_t


@elementwise_loss(limits={"floor": (0, 1)})
def floored_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, *, floor: float = 0.1) -> Tensor:
    """Focal loss whose weight never falls below a floor: α_t max(floor, (1-p_t)²) CE."""
    weight = one_minus_p_t(logits, targets).square().clamp(min=floor)
    return alpha_t(alpha, targets) * weight * cross_entropy(logits, targets)


@box_loss
def corner_iou(first: Box, second: Box, share: float = 0.5) -> Tensor:
    """1 - IoU, and the distance of corners by the size of the enclosing box."""
    hull = enclosing(first, second)
    corners = sum((a - b).abs() for a, b in zip(first[:4], second[:4]))
    return 1 - iou(first, second) + share * corners / (hull.width + hull.height + 1e-7)


def main() -> None:
    args = arguments(__doc__)
    batch = samples(args.data, 2, args.size)
    pixels = torch.stack([sample.image for sample in batch])
    boxes = torch.stack([sample.boxes[0] for sample in batch])
    cells = args.size // 8
    labels = torch.full((len(batch), cells, cells), len(NAMES))  # of each cell of 8 pixels; 3: background
    for index, sample in enumerate(batch):
        x, y = ((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 16).long().clamp(max=cells - 1).unbind(1)
        labels[index, y, x] = sample.labels

    for name in ("torch: BCE and L1", "own formulas", "own formulas, linear_loss"):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 64, 8, 8), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
        parts = nn.ModuleList([body, nn.Linear(64, len(NAMES)), nn.Linear(64, 4)])
        optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3)

        def step(name=name, parts=parts) -> Tensor:
            body, head, coordinates = parts
            features = body(pixels).permute(0, 2, 3, 1)  # the classes of a location are last
            predicted = coordinates(features.mean((1, 2))).sigmoid() * args.size
            found = (labels < len(NAMES)).sum()
            if name == "torch: BCE and L1":
                targets = F.one_hot(labels, len(NAMES) + 1)[..., :-1].float()
                classes = F.binary_cross_entropy_with_logits(head(features), targets, reduction="sum")
                return classes / found + F.l1_loss(predicted, boxes) / args.size
            if name == "own formulas":
                classes = floored_focal(head(features), labels, floor=0.2, reduction="sum", impl="eager")
            else:  # the logits are there a block of rows at a time
                classes = linear_loss(
                    floored_focal,
                    features.flatten(0, 2),
                    head.weight,
                    labels.flatten(),
                    linear_bias=head.bias,
                    floor=0.2,
                    impl="eager",
                )
            return classes / found + corner_iou(predicted, boxes, reduction="mean", impl="eager")

        measure(name, step, optimizer, args.steps)


if __name__ == "__main__":
    main()
