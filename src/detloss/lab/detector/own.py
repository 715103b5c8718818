"""A user's own detector: `FILE.py:build`."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.others import OtherDetector, to_call
from detloss.lab.detector.settings import parse_settings
from detloss.lab.records import first_line
from detloss.names import module_from_file


def own_detector(config: DetectorConfig, names: Sequence[str], objective: Objective | None) -> OtherDetector:
    """What the user's function builds, called as `build(names, classification_loss, box_loss, **settings)`.

    Losses are functions called as this package's are, or None: the detector's own.

    Raises:
        ValueError: no such file or function, it fails, or it returns no Module.
    """
    place, _, name = config.kind.rpartition(":")
    try:
        build = getattr(module_from_file(Path(place)), name)
    except Exception as error:
        raise ValueError(
            f"kind {config.kind} cannot be imported ({type(error).__name__}: {first_line(error)})"
        ) from error
    detector = OtherDetector(nn.Identity(), objective)
    goal = objective or Objective(None, None)
    losses = [to_call(loss, detector.scheduled) for loss in (goal.classification, goal.box)]
    try:
        model = build(tuple(names), *losses, **parse_settings(config.settings))
    except Exception as error:
        raise ValueError(
            f"kind {config.kind} failed ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"kind {config.kind} returned {type(model).__name__}; it must return a torch.nn.Module"
        )
    detector.model = model
    return detector
