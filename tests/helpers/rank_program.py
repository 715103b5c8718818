"""One process of a training: trains configurations for some steps, and writes down what came of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detloss.lab import ranks
from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.postprocess import Limits
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.state import Training
from detloss.lab.training.trained import evaluate_on

SCENES = SceneConfig(
    size=48, train=12, val=70, classes=3, objects=(1, 2), object_size=(12.0, 24.0), contrast=(0.3, 0.5),
    clutter=(0, 1), noise=0.02, empty=0.5,
)  # fmt: skip
DETECTOR = DetectorConfig(width=8, channels=8, strides=(4, 8))
YOLO = replace(DETECTOR, kind="yolov2", strides=(8,), anchors=((12.0, 12.0), (20.0, 20.0)))
BINS = replace(DETECTOR, bins=8)
# Batches of 5: 2 and 3 images on two processes; 1, 1, 1 and 2 on four.
RECIPE = Recipe(
    scenes=SCENES, size=48, detector=DETECTOR, limits=Limits(0.001, 50, 0.5, 20), steps=20, batch=5,
    evaluations=1, amp="off", device="cpu", optimizer="sgd",
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "focal": {},
    "quality_focal": {"loss": "quality_focal", "detector": BINS},
    "varifocal, guided": {"loss": "varifocal", "balance": "guided", "detector": BINS},
    "random mining": {"loss": "bce,mining=random:3"},
    "class weights": {
        "loss": "softmax_focal,class_weight=inverse:0.5",
        "detector": replace(DETECTOR, kind="retinanet"),
    },
    "yolov2": {"loss": "bce,mining=hard:3", "balance": "guided", "detector": YOLO},
    "own": {"detector": DetectorConfig(kind="own.py:build")},  # of the working folder
    "group norm": {"detector": replace(DETECTOR, norm="group")},
    "group norm, random mining": {"detector": replace(DETECTOR, norm="group"), "loss": "bce,mining=random:3"},
    "group norm, score, guided": {
        "detector": replace(BINS, norm="group"),
        "loss": "quality_focal",
        "balance": "guided",
    },
}


def case(name: str, **changes: Any) -> TrainConfig:
    return replace(TrainConfig(lr=0.005, **RECIPE.shared()), **CASES[name], **changes)


def data(split: str = "train") -> Letterboxed:
    return Letterboxed(scenes(SCENES, split), 48)


@contextmanager
def in_float64() -> Iterator[None]:
    """Everything in float64: at the kink of a ReLU or a box, a rounding of float32 grows with each step."""
    single, from_numpy = torch.Tensor.float, torch.from_numpy
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    torch.from_numpy = lambda x: from_numpy(x.astype(np.float64) if x.dtype == np.float32 else x)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float, torch.from_numpy = single, from_numpy


def train_for(config: TrainConfig, steps: int, resumed: str = "") -> dict[str, Any]:
    """The log, all gradients of each step, and weights at the end, the averaged ones too."""
    state = Training(config, data())
    if resumed:
        assert state.restore(Path(resumed))
    rows, gradients = [], []
    for _ in range(steps):
        rows.append({k: v for k, v in state.step().items() if k != "seconds"})
        gradients.append(torch.cat([p.grad.flatten() for p in state.detector.parameters()]))
    kept = {"weights": state.detector.state_dict(), "average": state.average.model.state_dict()}
    return {"rows": rows, "gradients": gradients, **kept}


def evaluate() -> dict[str, Any]:
    """The evaluation of a detector that nobody has trained, over blocks of images that are not full."""
    torch.manual_seed(3)
    state = Training(case("focal"), data())
    evaluation, detections, _ = evaluate_on(
        state.average.model, data("val"), RECIPE.limits, torch.device("cpu")
    )
    arrays = [[one.boxes, one.scores, one.labels] for one in detections]
    flat = [np.concatenate([one[i] for one in arrays]) for i in range(3)]
    return {"evaluation": evaluation.to_dict(), "detections": flat}


def main(out: str, steps: str, accumulate: str, resumed: str, *names: str) -> None:
    torch.set_num_threads(1)
    with in_float64():
        cases = {name: case(name, accumulate=int(accumulate)) for name in names}
        results = {name: train_for(config, int(steps), resumed) for name, config in cases.items()}
    results["evaluation"] = evaluate()
    torch.save(results, Path(out) / f"{ranks.rank()}.pt")


if __name__ == "__main__":
    with ranks.joined():
        main(*sys.argv[1:])
