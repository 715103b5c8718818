"""RT-DETR (1 and 2) and D-FINE of Hugging Face transformers, behind torchvision's detection API."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detloss.boxes import box_convert
from detloss.integrations.transformers import swap_losses
from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.others import OtherDetector, to_swap
from detloss.lab.detector.postprocess import Limits
from detloss.lab.detector.settings import parse_settings
from detloss.lab.records import first_line

PUBLISHED = {
    "rt_detr": ("RTDetr", "PekingU/rtdetr_r50vd"),
    "rt_detr_v2": ("RTDetrV2", "PekingU/rtdetr_v2_r50vd"),
    "d_fine": ("DFine", "ustc-community/dfine-large-coco"),
}
"""Of each kind the stem of its classes, and the name of published weights."""


class TransformersDetector(nn.Module):
    """A detector of transformers, whose boxes are parts of the image.

    Images are taken at their size with values in [0, 1], as the processors of these detectors make them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.limits = Limits()

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """The terms of the loss as the model weighs them; ignored regions are background to it."""
        batch = torch.stack(list(images))
        height, width = batch.shape[-2:]
        sides = batch.new_tensor([width, height, width, height])
        if self.training and targets is not None:
            labels = [
                {
                    "class_labels": target["labels"],
                    "boxes": box_convert(target["boxes"], "xyxy", "cxcywh") / sides,
                }
                for target in targets
            ]
            losses: dict[str, Tensor] = self.model(pixel_values=batch, labels=labels).loss_dict
            return losses
        found = self.model(pixel_values=batch)
        boxes = box_convert(found.pred_boxes.float(), "cxcywh", "xyxy") * sides
        return [self._best(*one) for one in zip(found.logits.float().sigmoid(), boxes)]

    def _best(self, scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """As their processors: the highest scores of all queries and classes, without suppression."""
        best = scores.flatten().topk(min(len(boxes), self.limits.detections))
        classes = scores.shape[-1]
        return {
            "boxes": boxes[torch.div(best.indices, classes, rounding_mode="floor")],
            "scores": best.values,
            "labels": best.indices % classes,
        }


def transformers_detector(
    config: DetectorConfig,
    names: Sequence[str],
    objective: Objective | None,
    made: Mapping[str, Any] | None = None,
) -> OtherDetector:
    """A detector of transformers: random, made with the settings, or from a folder or published weights.

    Raises:
        ValueError: no transformers, another kind, settings that it does not know, weights that cannot be
            had, or a loss that does not fit.
    """
    name = config.kind.partition(":")[2]
    if name not in PUBLISHED:
        raise ValueError(f"kind is {config.kind}; of transformers it may be {', '.join(PUBLISHED)}")
    try:
        import transformers
    except Exception as error:
        raise ValueError(
            f"kind {config.kind} needs transformers, which cannot be imported here ({first_line(error)}); "
            "pip install transformers"
        ) from error
    stem, published = PUBLISHED[name]
    settings = parse_settings(config.settings)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    kind = getattr(transformers, f"{stem}ForObjectDetection")
    notes: list[str] = []
    try:
        if config.start:
            place = published if config.weights == "pretrained" else config.weights
            if place != published and not (Path(place) / "config.json").is_file():
                raise ValueError("it is no folder with a config.json, as save_pretrained leaves it")
            model, told = kind.from_pretrained(
                place, **labels, **settings, ignore_mismatched_sizes=True, output_loading_info=True
            )
            if new := sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}):
                notes.append(
                    f"weights {place}: made anew, as they are of other classes: {', '.join(new[:4])}"
                )
        else:
            of_kind = getattr(transformers, f"{stem}Config")
            model = kind(of_kind.from_dict(dict(made)) if made else _configured(of_kind, settings, labels))
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        start = f" from weights {config.weights}" if config.start else ""
        raise ValueError(f"kind {config.kind} cannot be built{start} ({what})") from error
    detector = OtherDetector(TransformersDetector(model), objective)
    detector.notes, detector.made = notes, model.config.to_dict()
    if objective is not None and (objective.classification or objective.box):
        losses = [to_swap(loss, detector.scheduled) for loss in (objective.classification, objective.box)]
        swap_losses(model, *losses)
    return detector


def _configured(kind: Any, settings: Mapping[str, Any], labels: Mapping[str, Any]) -> Any:
    """A configuration; `backbone_config.depths` is an argument of the backbone's.

    The backbone's normalisation is trained, since its statistics are those of no data.
    """
    top = {key: value for key, value in settings.items() if "." not in key}
    default = kind()
    backbone = {
        key.partition(".")[2]: value for key, value in settings.items() if key.startswith("backbone_config.")
    }
    known = {*default.to_dict(), "num_labels"}
    unknown = [key for key in top if key not in known] + [
        f"backbone_config.{key}" for key in backbone if key not in default.backbone_config.to_dict()
    ]
    unknown += [key for key in settings if "." in key and not key.startswith("backbone_config.")]
    if unknown:
        raise ValueError(f"it has no setting {unknown[0]}")
    if backbone:
        of_backbone = default.backbone_config
        whole = {**of_backbone.to_dict(), **backbone}
        whole = {key: value for key, value in whole.items() if key not in ("stage_names", "out_indices")}
        top["backbone_config"] = type(of_backbone)(**whole)
    return kind(**{"freeze_backbone_batch_norms": False, **top}, **labels)
