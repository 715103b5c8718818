"""One training run: the loop, its checkpoints and its evaluation."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detloss.lab import ranks
from detloss.lab.data.batches import Letterboxed
from detloss.lab.evaluate import Evaluation, to_coco_results
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import WrongFolder, read_csv, read_json, replacing, versions, write_csv, write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.state import LOG_COLUMNS, NonFiniteLoss, Training
from detloss.lab.training.trained import evaluate_found, evaluate_on

Rows = list[dict[str, Any]]
COST = ("seconds", "peak_memory_mb", "clipped")
EVALUATION_COLUMNS = ("step", "ap", "ap50", "ap75", "ece")
CURVE_IMAGES = 256
"""At most so many images for each point of the curve of AP over the steps, the same for all points."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        evaluation: of the validation split after the last step.
        seconds: spent in optimiser steps (data, forward, backward), evaluation not counted.
        peak_memory_mb: on a GPU the most memory allocated, on a CPU the process's largest resident size.
        clipped: part of the steps whose gradient was clipped; None where that is not known.
    """

    evaluation: Evaluation
    seconds: float
    peak_memory_mb: float
    clipped: float | None


def train(
    config: TrainConfig,
    training: Letterboxed,
    validation: Letterboxed,
    out: Path,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
    on_evaluation: Callable[[int, Evaluation], None] = lambda step, evaluation: None,
) -> TrainResult:
    """Trains one detector, or continues where an earlier call in the same folder was interrupted.

    The processes of a training all call it, and get the same result; that of rank 0 alone touches `out`.

    Leaves in `out`: config.json, versions.json, log.csv (a row a step), evaluations.csv (the curve of AP
    over the steps, on at most `CURVE_IMAGES` images), metrics.json (of all images), detections.json (COCO
    results), matches.npz (which of them are right, see `detloss.lab.evaluate.matches`), last.safetensors
    (averaged weights), last.pt (to resume).

    Raises:
        ValueError: a loss that does not exist.
        WrongFolder: `out` holds a run with another configuration.
        NonFiniteLoss: the loss or its gradient was NaN or infinite.
    """
    state = Training(config, training)
    if finished := ranks.from_first(lambda: claim(out, config, state.device)):
        return finished
    log: Rows = []
    evaluations: Rows = []
    if state.restore(out) and ranks.rank() == 0:
        log = [row for row in read_csv(out / "log.csv") if int(row["step"]) <= state.step_count]
        evaluations = [r for r in read_csv(out / "evaluations.csv") if int(r["step"]) <= state.step_count]
    watched = np.linspace(0, len(validation) - 1, min(len(validation), CURVE_IMAGES)).round().astype(int)
    for_curve = Letterboxed(validation.dataset.select(watched), validation.size)
    marks = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    while state.step_count < config.steps:
        try:
            row: dict[str, Any] = state.step()
        except NonFiniteLoss as error:
            if ranks.rank() == 0:  # its last rows show how it came
                write_csv(out / "log.csv", LOG_COLUMNS, [*log, error.row])
            raise
        log.append(row)
        on_step(row)
        if state.step_count in marks and state.step_count < config.steps:
            evaluation, *_ = evaluate_on(state.average.model, for_curve, config.limits, state.device)
            _record(out, state, log, evaluations, evaluation)
            on_evaluation(state.step_count, evaluation)
    evaluation, detections, matches = evaluate_on(
        state.average.model, validation, config.limits, state.device
    )
    memory = max(ranks.gathered(peak_memory_mb(state.device)))

    def finish() -> TrainResult:
        ids = [validation.dataset.annotation(i).id for i in range(len(validation))]
        write_json(out / "detections.json", to_coco_results(detections, ids))
        replacing(out / "matches.npz", matches.save)
        last = evaluation
        if len(watched) < len(validation):
            last, _ = evaluate_found([detections[i] for i in watched], for_curve.dataset)
        _record(out, state, log, evaluations, last)
        clipped = sum(int(row["clipped"]) for row in log) / len(log)
        result = TrainResult(evaluation, state.seconds, memory, clipped)
        # Last: a folder with metrics.json is a finished run.
        spent = {name: getattr(result, name) for name in COST}
        write_json(out / "metrics.json", spent | evaluation.to_dict())
        return result

    result = ranks.from_first(finish)
    on_evaluation(state.step_count, evaluation)
    return result


def claim(out: Path, config: TrainConfig, device: torch.device) -> TrainResult | None:
    """Makes the folder this run's own; the result, where the run is finished."""
    if not (out / "config.json").exists():
        write_json(out / "versions.json", versions(str(device)) | {"processes": ranks.world()})
        write_json(out / "config.json", to_dict(config))
    elif load_config(TrainConfig, out) != config:
        raise WrongFolder(f"{out} holds a run with another configuration")
    if not (out / "metrics.json").exists():
        return None
    metrics = read_json(out / "metrics.json")
    evaluation = Evaluation.from_dict(metrics, out / "metrics.json")
    return TrainResult(evaluation, *(metrics[name] for name in COST))


def _record(out: Path, state: Training, log: Rows, evaluations: Rows, evaluation: Evaluation) -> None:
    """A checkpoint and the tables that go with it, from rank 0."""
    if ranks.rank():
        return
    if not evaluations or int(evaluations[-1]["step"]) < state.step_count:
        values = (evaluation.ap, evaluation.ap50, evaluation.ap75, evaluation.calibration.ece)
        evaluations.append(dict(zip(EVALUATION_COLUMNS, (state.step_count, *values))))
    write_csv(out / "log.csv", LOG_COLUMNS, log)
    write_csv(out / "evaluations.csv", EVALUATION_COLUMNS, evaluations)
    state.save(out)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far: allocated on a GPU, else the process's resident size; nan where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has none
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
