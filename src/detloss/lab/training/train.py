"""One training run: the loop, its checkpoints and its evaluation."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from detloss.lab.data.batches import Batch, Letterboxed, collate, training_batch
from detloss.lab.detector import Detector
from detloss.lab.detector.criterion import Criterion, Terms
from detloss.lab.detector.postprocess import detect
from detloss.lab.evaluate import Detections, Evaluation, evaluate, to_coco_results
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import read_csv, read_json, versions, write_csv, write_json
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.optimizer import Average, learning_rate, make_optimizer
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

LOG_COLUMNS = (
    "step",
    "lr",
    "loss",
    "classification_loss",
    "box_loss",
    "distribution_loss",
    "objectness_loss",
    "positives",
    "normalizer",
    "positive_loss_share",
    "gradient_norm",
    "seconds",
)
Progress = Callable[[int, int], Any]
"""Called with (done, total)."""
EVALUATION_COLUMNS = ("step", "ap", "ap50", "ap75", "ece")


class NonFiniteLoss(RuntimeError):
    """Training stopped because the loss or its gradient was NaN or infinite.

    Attributes:
        row: of the log, for the step that failed.
    """

    def __init__(self, message: str, row: dict[str, float]) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        evaluation: of the validation split after the last step.
        seconds: spent in optimiser steps (data, forward, backward), evaluation not counted.
        peak_memory_mb: on a GPU the most memory allocated, on a CPU the process's largest resident size.
    """

    evaluation: Evaluation
    seconds: float
    peak_memory_mb: float


def pick_device(name: str) -> torch.device:
    """The device that `name` means; `auto` is the GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}; it may be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but PyTorch sees no GPU here; use cpu or auto")
    return device


def images_to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """`(B, H, W, 3)` uint8 to `(B, 3, H, W)` float in [0, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The precision of the network's forward pass."""
    dtype = torch.float16 if recipe.amp == "fp16" else torch.bfloat16
    enabled = has_bf16(device) if recipe.amp == "auto" else recipe.amp != "off"
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 itself; emulated, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


@torch.inference_mode()
def predict(
    detector: Detector,
    data: Letterboxed,
    recipe: Recipe,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> list[Detections]:
    """Detections of every image of a data set, in the images' own pixels.

    In float32 whatever the recipe trains in: bfloat16 has so few digits that scores tie.
    """
    grid = detector.grid(data.size, data.size, device)
    found = []
    for start in range(0, len(data), 32):
        indices = range(start, min(start + 32, len(data)))
        batch = collate([data[i] for i in indices])
        output = detector(images_to_tensor(batch.images, device))
        size = (data.size, data.size)
        for i, one in zip(indices, detect(detector, grid, output, size, recipe.limits)):
            found.append(Detections(data.restore(i, one.boxes), one.scores, one.labels))
        progress(len(found), len(data))
    return found


def evaluate_on(
    detector: Detector,
    data: Letterboxed,
    recipe: Recipe,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> tuple[Evaluation, list[Detections]]:
    """The evaluation of a detector on a data set, and the detections it rests on."""
    detections = predict(detector, data, recipe, device, progress)
    truths = [data.dataset.annotation(i) for i in range(len(data))]
    sizes = [data.dataset.size(i) for i in range(len(data))]
    return evaluate(detections, truths, data.dataset.names, sizes=sizes), detections


class Training:
    """The state of a run: made, restored, stepped, saved. `train` drives it."""

    def __init__(self, config: TrainConfig, data: Letterboxed) -> None:
        self.config, self.data = config, data
        self.device = pick_device(config.device)
        loss = find_loss(config.loss, CLASSIFICATION_LOSSES, training=True)
        box_loss = find_loss(config.box_loss, BOX_LOSSES, training=True)
        torch.manual_seed(config.seed)
        names = data.dataset.names
        self.detector = Detector(config.detector, len(names), softmax=loss.softmax).to(self.device)
        self.grid = self.detector.grid(data.size, data.size, self.device)
        self.criterion = Criterion(
            self.detector,
            self.grid,
            loss,
            box_loss,
            config.box_weight,
            config.distribution_weight,
            config.weigh_boxes,
            config.steps,
            config.seed,
        )
        self.optimizer = make_optimizer(self.detector, config, config.lr)
        self.average = Average(self.detector, config.ema)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.step_count = 0
        self.seconds = 0.0

    def step(self) -> dict[str, float]:
        """One optimiser step; its row of the log.

        Raises:
            NonFiniteLoss: naming the step and the batch's image ids.
        """
        began = time.perf_counter()
        config, step = self.config, self.step_count
        batch = training_batch(self.data, step, config.batch, config.seed, config.augment)
        rate = learning_rate(step, config, config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = self._forward(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.detector.parameters(), config.clip or math.inf)
        row = self._row(step + 1, rate, terms, norm)
        overflow_is_usual = self.scaler.is_enabled()
        if not (math.isfinite(row["loss"]) and (overflow_is_usual or math.isfinite(row["gradient_norm"]))):
            what = "gradient" if math.isfinite(row["loss"]) else "loss"
            raise NonFiniteLoss(
                f"{config.loss} + {config.box_loss}: the {what} is not finite at step {step + 1} "
                f"(lr {rate:.3g}); images of the batch: {', '.join(batch.ids)}. "
                "Try a lower --lr or --clip; what was saved before is kept",
                row,
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(step)
        self.step_count += 1
        self.seconds += time.perf_counter() - began
        row["seconds"] = round(self.seconds, 4)
        return row

    def _forward(self, batch: Batch) -> Terms:
        images = images_to_tensor(batch.images, self.device)
        with autocast(self.config, self.device):
            output = self.detector(images)
        boxes = torch.from_numpy(batch.boxes).to(self.device)
        labels = torch.from_numpy(batch.labels).to(self.device)
        assignment = self.detector.assign(self.grid, boxes, labels)
        return self.criterion(output, assignment, self.step_count)

    @staticmethod
    def _row(step: int, rate: float, terms: Terms, norm: Tensor) -> dict[str, float]:
        # One transfer for all numbers: each would wait for the GPU on its own.
        values = torch.stack([t.detach().float() for t in (*terms, norm)]).tolist()
        row = dict(zip(LOG_COLUMNS[2:-1], values))
        row["positives"], row["normalizer"] = int(row["positives"]), int(row["normalizer"])
        return {"step": step, "lr": rate, **row}

    def save(self, folder: Path) -> None:
        """Writes `last.pt` (all that resuming needs) and `last.safetensors` (the averaged weights)."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step_count,
            "seconds": self.seconds,
            "detector": self.detector.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        _replace(folder / "last.pt", lambda part: torch.save(state, part))
        weights = {name: value.contiguous() for name, value in self.average.model.state_dict().items()}
        # One entry: several would be written in any order, and equal runs would leave different files.
        about = json.dumps({"names": self.data.dataset.names, "softmax": self.detector.softmax})
        metadata = {"detloss": about}
        _replace(folder / "last.safetensors", lambda part: save_file(weights, part, metadata=metadata))

    def restore(self, folder: Path) -> None:
        """Continues from `last.pt`, exactly as if never interrupted."""
        try:
            state = torch.load(folder / "last.pt", map_location=self.device, weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{folder / 'last.pt'} is damaged ({reason}); remove it to train anew"
            ) from error
        self.detector.load_state_dict(state["detector"])
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step_count, self.seconds = state["step"], state["seconds"]


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file that is either whole or not there; a full disk is an OSError, whoever noticed it."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except Exception as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"cannot write {path}, is the disk full? ({str(error).splitlines()[0]})") from error


def train(
    config: TrainConfig,
    training: Letterboxed,
    validation: Letterboxed,
    out: Path,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
    on_evaluation: Callable[[int, Evaluation], None] = lambda step, evaluation: None,
) -> TrainResult:
    """Trains one detector, or continues where an earlier call in the same folder was interrupted.

    Leaves in `out`: config.json, versions.json, log.csv (a row a step), evaluations.csv, metrics.json (of
    the last evaluation), detections.json (COCO results), last.safetensors (averaged weights), last.pt (to
    resume).

    Raises:
        ValueError: `out` holds a run with another configuration, or a loss that does not exist.
        NonFiniteLoss: the loss or its gradient was NaN or infinite.
    """
    state = Training(config, training)
    _claim(out, config, state.device)
    if (out / "metrics.json").exists():
        metrics = read_json(out / "metrics.json")
        return TrainResult(Evaluation.from_dict(metrics), metrics["seconds"], metrics["peak_memory_mb"])
    log: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    if (out / "last.pt").exists():
        state.restore(out)
        log = [row for row in read_csv(out / "log.csv") if int(row["step"]) <= state.step_count]
        evaluations = [r for r in read_csv(out / "evaluations.csv") if int(r["step"]) <= state.step_count]
    marks = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    while state.step_count < config.steps:
        try:
            row: dict[str, Any] = state.step()
        except NonFiniteLoss as error:
            # Its last rows show how it came.
            write_csv(out / "log.csv", LOG_COLUMNS, [*log, error.row])
            raise
        log.append(row)
        on_step(row)
        if state.step_count in marks and state.step_count < config.steps:
            evaluation, _ = evaluate_on(state.average.model, validation, config, state.device)
            _record(out, state, log, evaluations, evaluation)
            on_evaluation(state.step_count, evaluation)
    evaluation, detections = evaluate_on(state.average.model, validation, config, state.device)
    ids = [validation.dataset.annotation(i).id for i in range(len(validation))]
    write_json(out / "detections.json", to_coco_results(detections, ids))
    _record(out, state, log, evaluations, evaluation)
    result = TrainResult(evaluation, state.seconds, peak_memory_mb(state.device))
    # Last: a folder with metrics.json is a finished run.
    write_json(
        out / "metrics.json",
        {"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb, **evaluation.to_dict()},
    )
    on_evaluation(state.step_count, evaluation)
    return result


def _claim(out: Path, config: TrainConfig, device: torch.device) -> None:
    if not (out / "config.json").exists():
        write_json(out / "versions.json", versions(str(device)))
        write_json(out / "config.json", to_dict(config))
    elif load_config(TrainConfig, out) != config:
        raise ValueError(f"{out} holds a run with another configuration; give another --out or remove it")


def _record(
    out: Path,
    state: Training,
    log: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    evaluation: Evaluation,
) -> None:
    """A checkpoint and the tables that go with it."""
    if not evaluations or int(evaluations[-1]["step"]) < state.step_count:
        evaluations.append(
            {
                "step": state.step_count,
                "ap": evaluation.ap,
                "ap50": evaluation.ap50,
                "ap75": evaluation.ap75,
                "ece": evaluation.calibration.ece,
            }
        )
    write_csv(out / "log.csv", LOG_COLUMNS, log)
    write_csv(out / "evaluations.csv", EVALUATION_COLUMNS, evaluations)
    state.save(out)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far: allocated on a GPU, the process's resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def load_detector(folder: Path, device: torch.device) -> tuple[Detector, TrainConfig, tuple[str, ...]]:
    """The trained detector of a run folder, its configuration and its class names.

    Raises:
        ValueError: the folder holds no finished or interrupted run.
    """
    for name in ("config.json", "last.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is no run folder of `detloss train`: it has no {name}")
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
