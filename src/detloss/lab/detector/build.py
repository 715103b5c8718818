"""From a configuration to the detector that it describes."""

from collections.abc import Mapping, Sequence
from typing import Any

from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.dense import DenseDetector
from detloss.lab.detector.detector import Detector
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.others import OtherDetector
from detloss.lab.detector.own import own_detector
from detloss.lab.detector.weights import freeze, start


def build_detector(
    config: DetectorConfig,
    names: Sequence[str],
    size: int,
    objective: Objective | None = None,
    softmax: bool = False,
    made: Mapping[str, Any] | None = None,
) -> DenseDetector | OtherDetector:
    """A detector with torchvision's detection API: losses in training, detections in evaluation.

    Args:
        config: what it is made of.
        names: of the classes, in the order of the labels.
        size: side of the square images that it is given.
        objective: what it is trained for; None where it is only applied.
        softmax: without objective, whether it was trained with a softmax (dense detector).
        made: of a detector that is made again, `OtherDetector.made`.

    Raises:
        ValueError: what is to be imported, built or read cannot be, or a loss does not fit.
    """
    if config.dense:
        if objective is not None and objective.classification is not None:
            softmax = objective.classification.softmax
        dense = DenseDetector(Detector(config, len(names), softmax), objective)
        dense.frozen = freeze(dense, config)
        return dense.train()
    if config.kind.startswith("torchvision:"):
        from detloss.lab.detector.from_torchvision import torchvision_detector

        other = torchvision_detector(config, names, size, objective)
    elif config.kind.startswith("transformers:"):
        from detloss.lab.detector.from_transformers import transformers_detector

        other = transformers_detector(config, names, objective, made)
    else:
        other = own_detector(config, names, objective)
        if config.start:
            other.notes += start(other.model, config)
    other.frozen = freeze(other, config)
    other.train()
    return other
