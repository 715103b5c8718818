"""A trained detector: its weights in a run folder and out of it, and how good it is on a data set."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from detloss.lab.data.batches import Letterboxed
from detloss.lab.data.sample import Detections
from detloss.lab.detector import Detector
from detloss.lab.detector.inference import predict
from detloss.lab.detector.postprocess import Limits
from detloss.lab.evaluate import Evaluation, evaluate
from detloss.lab.records import first_line, load_config
from detloss.lab.runs import replacing
from detloss.lab.training.config import TrainConfig


def evaluate_on(
    detector: Detector,
    data: Letterboxed,
    limits: Limits,
    device: torch.device,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> tuple[Evaluation, list[Detections]]:
    """The evaluation of a detector on a data set, and the detections it rests on."""
    detections = predict(detector, data, limits, device, progress)
    truths = [data.dataset.annotation(i) for i in range(len(data))]
    sizes = [data.dataset.size(i) for i in range(len(data))]
    return evaluate(detections, truths, data.dataset.names, sizes=sizes), detections


def save(path: Path, write: Callable[[Path], Any]) -> None:
    """As `replacing`; a full disk is an OSError, whoever noticed it."""
    try:
        replacing(path, write)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"cannot write {path}, is the disk full? ({first_line(error)})") from error


def save_weights(detector: Detector, names: Sequence[str], folder: Path) -> None:
    """Writes `last.safetensors`, which `load_detector` reads."""
    weights = {name: value.contiguous() for name, value in detector.state_dict().items()}
    # One entry: several would be written in any order, and equal runs would leave different files.
    about = {"detloss": json.dumps({"names": names, "softmax": detector.softmax})}
    save(folder / "last.safetensors", lambda part: save_file(weights, part, metadata=about))


def load_detector(folder: Path, device: torch.device) -> tuple[Detector, TrainConfig, tuple[str, ...]]:
    """The trained detector of a run folder, its configuration and its class names.

    Raises:
        ValueError: the folder holds no finished or interrupted run.
    """
    for name in ("config.json", "last.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a run folder of `detloss train`: it has no {name}")
    config = load_config(TrainConfig, folder)
    with safe_open(folder / "last.safetensors", framework="pt", device=str(device)) as file:
        metadata = file.metadata() or {}
        if "detloss" not in metadata:
            raise ValueError(f"{folder} was trained by an older version of detloss; train it again")
        about = json.loads(metadata["detloss"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    # Not from the loss, whose file may be gone by now where it is a user's own.
    bare = replace(config.detector, weights="")  # a file that may be gone, too
    detector = Detector(bare, len(about["names"]), about["softmax"])
    detector.load_state_dict(weights)
    return detector.to(device).eval(), config, tuple(about["names"])
