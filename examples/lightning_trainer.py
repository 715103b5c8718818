"""`detloss compare` with torchvision's RetinaNet in a Lightning module.

pip install lightning torchvision
detloss compare --trainer examples/lightning_trainer.py:train --data BCCD --losses focal quality_focal
"""

import lightning
import torch
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detloss.integrations.torchvision import swap_losses
from detloss.lab.training.trainer import Run


class Images(torch.utils.data.Dataset):
    """Samples as torchvision's detectors take them; label 0 is theirs for background."""

    def __init__(self, samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        sample = self.samples[index]
        image = torch.from_numpy(sample.image).permute(2, 0, 1) / 255
        seen = ~sample.ignored
        boxes, labels = torch.from_numpy(sample.boxes[seen]), torch.from_numpy(sample.labels[seen])
        return image, {"boxes": boxes, "labels": labels + 1}


class Detector(lightning.LightningModule):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        sides = {"min_size": run.size, "max_size": run.size}
        self.model = RetinaNet(
            backbone, len(run.names) + 1, score_thresh=0.001, detections_per_img=100, **sides
        )
        if run.losses:  # else its own
            print(swap_losses(self.model, **run.losses))

    def training_step(self, batch, index):
        terms = self.model(*zip(*batch))
        return terms["classification"] + self.run.box_weight * terms["bbox_regression"]

    def on_train_batch_end(self, outputs, batch, index):
        if not outputs["loss"].isfinite():
            raise FloatingPointError(f"the loss is not finite at step {self.global_step}")
        self.run.progress(self.global_step)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.run.lr)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.run.lr, self.run.steps)
        return [optimizer], [{"scheduler": rate, "interval": "step"}]


def train(run: Run) -> list[dict]:
    """One training of run.steps steps, then what is found on the validation images."""
    lightning.seed_everything(run.seed)
    detector = Detector(run)
    kind, _, index = run.device.partition(":")
    trainer = lightning.Trainer(
        max_steps=run.steps,
        accelerator="gpu" if kind == "cuda" else "cpu",
        devices=[int(index)] if index else 1,
        default_root_dir=run.folder,
        logger=False,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
    )
    images = DataLoader(Images(run.training), run.batch, shuffle=True, drop_last=True, collate_fn=list)
    trainer.fit(detector, images)

    model = detector.model.to(run.device).eval()
    results = []
    for image_id, (image, _) in enumerate(Images(run.validation), start=1):
        with torch.no_grad():
            found = model([image.to(run.device)])[0]
        boxes, scores, labels = (found[name].tolist() for name in ("boxes", "scores", "labels"))
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels):
            # Labels from 1, as categories are.
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image_id, "category_id": label, "bbox": box, "score": score})
    return results
