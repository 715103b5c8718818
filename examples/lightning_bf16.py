"""A Lightning module under bfloat16 that trains torchvision's FCOS, with its losses swapped.

    python examples/lightning_bf16.py --data BCCD

Lightning needs nothing special: losses are swapped where the model is made.
"""

import logging
import time
import warnings

import lightning
import torch
from common import NAMES, arguments, report, reset_peak, samples
from torch.utils.data import DataLoader
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detloss.integrations.torchvision import swap_losses


class Detector(lightning.LightningModule):
    """FCOS on a small backbone with a single level of stride 16."""

    def __init__(self, size: int, **losses: str) -> None:
        super().__init__()
        channels, layers = 64, []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, channels)):
            layers += [torch.nn.Conv2d(inputs, outputs, 3, 2, 1), torch.nn.ReLU()]
        backbone = torch.nn.Sequential(*layers)
        backbone.out_channels = channels
        anchors = AnchorGenerator(((16,),), ((1.0,),))
        self.model = FCOS(backbone, len(NAMES) + 1, min_size=size, max_size=size, anchor_generator=anchors)
        if losses:
            swap_losses(self.model, **losses)
        self.times, self.losses = [], []

    def training_step(self, batch, index):
        """The sum of the head's terms; in float32, whatever the autocast of the rest."""
        images, targets = zip(*batch)
        terms = self.model(list(images), [dict(target) for target in targets])
        return sum(terms.values())

    def on_train_batch_start(self, batch, index):
        self.began = time.perf_counter()

    def on_train_batch_end(self, outputs, batch, index):
        self.times.append(time.perf_counter() - self.began)
        self.losses.append(float(outputs["loss"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)


def main() -> None:
    args = arguments(__doc__)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # about a few workers and steps
    data = [
        (sample.image, {"boxes": sample.boxes, "labels": sample.labels + 1})
        for sample in samples(args.data, 2 * args.steps, args.size)
    ]
    for name, losses in {
        "FCOS: focal loss and GIoU": {},
        "FCOS: quality focal loss and CIoU": {"classification": "quality_focal", "box": "ciou"},
    }.items():
        torch.manual_seed(0)
        detector = Detector(args.size, **losses)
        trainer = lightning.Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        reset_peak()
        trainer.fit(detector, DataLoader(data, batch_size=2, collate_fn=list))
        report(name, detector.times, detector.losses)


if __name__ == "__main__":
    main()
