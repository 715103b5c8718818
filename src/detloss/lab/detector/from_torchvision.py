"""torchvision's RetinaNet, FCOS, SSD and SSDlite, with labels 0..C-1 and losses swapped."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detloss.integrations.torchvision import swap_losses
from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.others import OtherDetector, to_swap
from detloss.lab.detector.postprocess import Limits
from detloss.lab.detector.settings import parse_settings
from detloss.lab.detector.weights import put, read_weights
from detloss.lab.records import first_line

FAMILIES = ("retinanet", "fcos", "ssd", "ssdlite")


class TorchvisionDetector(nn.Module):
    """A detector of torchvision, whose labels begin at 1 behind the background.

    Its least score and most detections are those of `limits`; suppression and all else are its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.limits = Limits()

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """As torchvision's; ignored regions are background to it."""
        if self.training and targets is not None:
            return self.model(
                list(images), [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
            )
        setting: Any = self.model
        setting.score_thresh, setting.detections_per_img = self.limits.score, self.limits.detections
        found = self.model(list(images))
        # RetinaNet and FCOS have a score for class 0, too, which no object has.
        real = [one["labels"] > 0 for one in found]
        return [
            {
                "boxes": one["boxes"][kept],
                "scores": one["scores"][kept],
                "labels": one["labels"][kept] - 1,
            }
            for one, kept in zip(found, real)
        ]


def torchvision_detector(
    config: DetectorConfig, names: Sequence[str], size: int, objective: Objective | None
) -> OtherDetector:
    """The detector of a builder of `torchvision.models.detection`.

    Images are taken at `size`, unless the settings have `min_size` or `max_size` (SSD: 300 and 320 pixels).

    Raises:
        ValueError: no torchvision, no such builder, settings that it does not take, weights that cannot be
            had, or a loss that does not fit.
    """
    name = config.kind.partition(":")[2]
    try:
        from torchvision.models import detection, get_model_weights
    except Exception as error:  # of another build than torch it fails with a RuntimeError
        raise ValueError(
            f"kind {config.kind} needs torchvision, which cannot be imported here ({first_line(error)}); "
            "pip install detloss[vision]"
        ) from error
    known = [one for one in dir(detection) if one.startswith(FAMILIES) and "_" in one]
    if name not in known:
        raise ValueError(f"kind is {config.kind}; of torchvision it may be {', '.join(known)}")
    settings = parse_settings(config.settings)
    given = {"num_classes", "weights", "weights_backbone"} & settings.keys()
    if given:
        raise ValueError(
            f"settings has {min(given)}; classes are the data's, and weights are given by --detector.weights"
        )
    if not name.startswith("ssd") and not {"min_size", "max_size"} & settings.keys():
        settings |= {"min_size": size, "max_size": size}
    try:
        build = getattr(detection, name)
        model = build(weights=None, weights_backbone=None, num_classes=len(names) + 1, **settings)
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"kind {config.kind} cannot be built with these settings ({what})") from error
    # FCOS takes any argument, and leaves out what it does not know.
    takes = {*inspect.signature(build).parameters, *inspect.signature(type(model)).parameters}
    if unknown := settings.keys() - takes:
        raise ValueError(f"settings has {min(unknown)}, which {config.kind} does not take")
    detector = OtherDetector(TorchvisionDetector(model), objective)
    if config.start:
        detector.notes = _start(model, config, get_model_weights(name).DEFAULT)
    if objective is not None and (objective.classification or objective.box):
        losses = [to_swap(loss, detector.scheduled) for loss in (objective.classification, objective.box)]
        swap_losses(model, *losses)
    return detector


def _start(model: nn.Module, config: DetectorConfig, published: Any) -> list[str]:
    """Weights of a whole detector, or of its ResNet by itself, as torchvision publishes it."""
    if config.weights == "pretrained":
        try:
            weights = published.get_state_dict(progress=False, check_hash=True)
        except Exception as error:
            raise ValueError(
                f"weights 'pretrained' of {config.kind} cannot be downloaded ({first_line(error)}); fetch "
                f"{published.url} elsewhere and give the file"
            ) from error
    else:
        weights = read_weights(config.weights)
    body = getattr(getattr(model, "backbone", None), "body", None)
    if body is not None and len(weights.keys() & body.state_dict().keys()) > 1:
        return [f"weights {config.weights}: of the backbone", *put(body, weights, config.weights)]
    return put(model, weights, config.weights)
