"""torchvision's RetinaNet with its losses swapped: one line.

python examples/torchvision_retinanet.py --data BCCD
"""

import torch
from common import NAMES, arguments, measure, samples
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detloss.integrations.torchvision import swap_losses


def main() -> None:
    args = arguments(__doc__)
    batch = samples(args.data, 2, args.size)
    images = [sample.image for sample in batch]
    targets = [{"boxes": sample.boxes, "labels": sample.labels + 1} for sample in batch]  # 0 is background

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, len(NAMES) + 1, min_size=args.size, max_size=args.size).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)

    def step() -> torch.Tensor:
        return sum(model(images, targets).values())

    measure("RetinaNet: focal loss and L1", step, optimizer, args.steps)
    swap = swap_losses(model, classification="quality_focal", box="giou")
    measure(f"RetinaNet: {swap}", step, optimizer, args.steps)
    swap.restore()  # or `with swap_losses(...):`


if __name__ == "__main__":
    main()
