"""A trained detector: its weights in a run folder and out of it, and how good it is on a data set."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from detloss.lab import ranks
from detloss.lab.data import Dataset
from detloss.lab.data.batches import Letterboxed
from detloss.lab.data.sample import Detections
from detloss.lab.detector import DenseDetector
from detloss.lab.detector.build import build_detector
from detloss.lab.detector.inference import predict
from detloss.lab.detector.others import OtherDetector
from detloss.lab.detector.postprocess import Limits
from detloss.lab.evaluate import Evaluation
from detloss.lab.evaluate.evaluation import evaluate_matched
from detloss.lab.evaluate.matches import Matches
from detloss.lab.records import first_line, load_config
from detloss.lab.runs import replacing
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.optimizer import unique


def evaluate_on(
    detector: nn.Module,
    data: Letterboxed,
    limits: Limits,
    device: torch.device,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> tuple[Evaluation, list[Detections], Matches]:
    """The evaluation of a detector on a data set, the detections it rests on, and which of them are right.

    The processes of a training share the images; that of rank 0 evaluates all of them, for all.
    """
    detections = predict(detector, data, limits, device, progress)
    evaluation, matches = ranks.from_first(lambda: evaluate_found(detections, data.dataset))
    return evaluation, detections, matches


def evaluate_found(detections: Sequence[Detections], dataset: Dataset) -> tuple[Evaluation, Matches]:
    """The evaluation of detections, one for each image of the data set, and which of them are right."""
    truths = [dataset.annotation(i) for i in range(len(dataset))]
    sizes = [dataset.size(i) for i in range(len(dataset))]
    return evaluate_matched(detections, truths, dataset.names, sizes=sizes)


def save(path: Path, write: Callable[[Path], Any]) -> None:
    """As `replacing`; a full disk is an OSError, whoever noticed it."""
    try:
        replacing(path, write)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"cannot write {path}, is the disk full? ({first_line(error)})") from error


def save_weights(detector: nn.Module, names: Sequence[str], folder: Path) -> None:
    """Writes `last.safetensors`, which `load_detector` reads."""
    state = detector.state_dict()
    weights = {name: state[name].contiguous() for name in unique(state)}
    # One entry: several would be written in any order, and equal runs would leave different files.
    softmax = isinstance(detector, DenseDetector) and detector.network.softmax
    made = detector.made if isinstance(detector, OtherDetector) else {}
    about = {"detloss": json.dumps({"names": names, "softmax": softmax, "made": made})}
    save(folder / "last.safetensors", lambda part: save_file(weights, part, metadata=about))


def load_detector(folder: Path, device: torch.device) -> tuple[nn.Module, TrainConfig, tuple[str, ...]]:
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
    detector = build_detector(bare, about["names"], config.size, softmax=about["softmax"], made=about["made"])
    if wrong := set(unique(detector.state_dict())) ^ weights.keys():
        raise ValueError(
            f"{folder} is of another detector than {config.detector.kind} builds now: {min(wrong)} is in one "
            "only"
        )
    detector.load_state_dict(weights, strict=False)
    return detector.to(device).eval(), config, tuple(about["names"])
