"""Hugging Face's RT-DETR, small and from random weights, with its losses swapped: one line.

python examples/transformers_rt_detr.py --data BCCD
"""

import torch
from common import NAMES, arguments, measure, samples
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from detloss import box_convert
from detloss.integrations.transformers import swap_losses


def main() -> None:
    args = arguments(__doc__)
    batch = samples(args.data, 2, args.size)
    pixels = torch.stack([sample.image for sample in batch])
    labels = [
        {
            "class_labels": sample.labels,
            "boxes": box_convert(sample.boxes, "xyxy", "cxcywh") / args.size,  # parts of the image
        }
        for sample in batch
    ]

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic"
    )
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[32, 64, 128],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=128,
        d_model=64,
        decoder_layers=3,
        num_queries=50,
        num_denoising=20,
        num_labels=len(NAMES),
    )
    model = RTDetrForObjectDetection(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        return model(pixel_values=pixels, labels=labels).loss

    measure("RT-DETR: varifocal loss, L1 and GIoU", step, optimizer, args.steps)
    with swap_losses(model, classification="mal", box="ciou") as swap:
        measure(f"RT-DETR: {swap}", step, optimizer, args.steps)


if __name__ == "__main__":
    main()
