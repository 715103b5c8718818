"""A trained detector: its weights in a run folder and out of it, and how good it is on a data set."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

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
from detloss.lab.files import Damaged, replacing
from detloss.lab.records import first_line, load_config
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


def save_weights(detector: nn.Module, names: Sequence[str], folder: Path) -> None:
    """Writes `last.safetensors`, which `load_detector` reads."""
    state = detector.state_dict()
    weights = {name: state[name].contiguous() for name in unique(state)}
    # One entry: several would be written in any order, and equal runs would leave different files.
    softmax = isinstance(detector, DenseDetector) and detector.network.softmax
    made = detector.made if isinstance(detector, OtherDetector) else {}
    about = {"names": list(names), "softmax": softmax, "made": made}
    about["checksum"] = _checksum(about, weights)
    content = to_bytes(weights, {"detloss": json.dumps(about)})
    replacing(folder / "last.safetensors", lambda part: part.write_bytes(content))


def _checksum(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> int:
    """CRC-32 of weights, their names and what is said of them; safetensors itself has none."""
    found = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous().flatten()
        found = zlib.crc32(f"{name} {tuple(weights[name].shape)} {value.dtype}".encode(), found)
        found = zlib.crc32(value.view(torch.uint8).numpy().data, found)
    return found


def load_detector(folder: Path, device: torch.device) -> tuple[nn.Module, TrainConfig, tuple[str, ...]]:
    """The trained detector of a run folder, its configuration and its class names.

    Raises:
        ValueError: the folder holds no finished or interrupted run.
        Damaged: its weights are not as they were written.
    """
    for name in ("config.json", "last.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a run folder of `detloss train`: it has no {name}")
    config = load_config(TrainConfig, folder)
    about, weights = _read_weights(folder / "last.safetensors")
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


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = json.loads((file.metadata() or {}).get("detloss", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, first_line(error)) from None
    if "checksum" not in about:
        raise ValueError(f"{path} is of an older version of detloss; train it again")
    if about.pop("checksum") != _checksum(about, weights):
        raise _damaged(path, "its checksum is wrong")
    return about, weights


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(f"{path} is damaged ({why}); remove {path.parent} and train it again, or use another run")
