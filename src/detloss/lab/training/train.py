"""One training run: the loop, its checkpoints and its evaluation."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detloss.lab import ranks, signals
from detloss.lab.data.batches import Letterboxed
from detloss.lab.evaluate import Evaluation, to_coco_results
from detloss.lab.files import CHECKPOINT, Damaged, before, replacing
from detloss.lab.records import difference, load_config, to_dict
from detloss.lab.runs import WrongFolder, read_json, versions, write_csv, write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.origin import claim_origin
from detloss.lab.training.state import EVALUATION_COLUMNS, LOG_COLUMNS, NonFiniteLoss, Training
from detloss.lab.training.trained import evaluate_found, evaluate_on

COST = ("seconds", "peak_memory_mb", "clipped")
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
    tell: Callable[[str], None] = lambda line: None,
    origin: Mapping[str, str] | None = None,
) -> TrainResult:
    """Trains one detector, or continues where an earlier call in the same folder was interrupted.

    The processes of a training all call it, and get the same result; that of rank 0 alone touches `out`.

    Leaves in `out`: config.json, versions.json, log.csv (a row a step), evaluations.csv (the curve of AP
    over the steps, on at most `CURVE_IMAGES` images), metrics.json (of all images), detections.json (COCO
    results), matches.npz (which of them are right, see `detloss.lab.evaluate.matches`), last.safetensors
    (averaged weights), last.pt (to resume).

    Args:
        config: of the run.
        training, validation: the images.
        out: its folder.
        on_step: called with each row of the log.
        on_evaluation: called with each point of the curve.
        tell: called with what the user should know, a line each.
        origin: of `origin_of`; where it is given, `out` is only continued where it has not changed.

    Raises:
        ValueError: a loss that does not exist, or a checkpoint that is damaged or of another run.
        WrongFolder: `out` holds a run with another configuration or origin.
        NonFiniteLoss: the loss or its gradient was NaN or infinite.
        Stopped: a signal asked to end (where they are `signals.caught`); a checkpoint is left.
    """
    ranks.check_joined()
    state = Training(config, training)
    if finished := ranks.from_first(lambda: claim(out, config, state.device, origin)):
        return finished
    state.restore(out, tell)
    watched = np.linspace(0, len(validation) - 1, min(len(validation), CURVE_IMAGES)).round().astype(int)
    for_curve = Letterboxed(validation.dataset.select(watched), validation.size)
    with _saved_when_stopped(state, out):
        _steps(state, for_curve, out, on_step, on_evaluation)
        return _finish(state, validation, for_curve, watched, out, on_evaluation)


def _finish(
    state: Training,
    validation: Letterboxed,
    for_curve: Letterboxed,
    watched: np.ndarray,
    out: Path,
    on_evaluation: Callable[[int, Evaluation], None],
) -> TrainResult:
    """The evaluation after the last step, and all that a finished run leaves."""
    evaluation, detections, matches = evaluate_on(
        state.average.model, validation, state.config.limits, state.device
    )
    memory = max(ranks.gathered(peak_memory_mb(state.device)))

    def write() -> TrainResult:
        ids = [validation.dataset.annotation(i).id for i in range(len(validation))]
        write_json(out / "detections.json", to_coco_results(detections, ids))
        replacing(out / "matches.npz", matches.save)
        last = evaluation
        if len(watched) < len(validation):
            last, _ = evaluate_found([detections[i] for i in watched], for_curve.dataset)
        _record(out, state, last)
        before(out / CHECKPOINT).unlink(missing_ok=True)
        clipped = sum(int(row["clipped"]) for row in state.log) / len(state.log)
        result = TrainResult(evaluation, state.seconds, memory, clipped)
        # Last: a folder with metrics.json is a finished run.
        spent = {name: getattr(result, name) for name in COST}
        write_json(out / "metrics.json", spent | evaluation.to_dict())
        return result

    result = ranks.from_first(write)
    on_evaluation(state.step_count, evaluation)
    return result


def _steps(
    state: Training,
    for_curve: Letterboxed,
    out: Path,
    on_step: Callable[[dict[str, float]], None],
    on_evaluation: Callable[[int, Evaluation], None],
) -> None:
    """What is left of the steps, with the points of the curve on the way and checkpoints."""
    config = state.config
    marks = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    saved = time.monotonic()
    while True:
        step = state.step_count
        if step in marks and step < config.steps and _evaluated(state) < step:
            evaluation, *_ = evaluate_on(state.average.model, for_curve, config.limits, state.device)
            _record(out, state, evaluation)
            saved = time.monotonic()
            on_evaluation(step, evaluation)
        elif config.checkpoint_minutes and time.monotonic() - saved >= 60 * config.checkpoint_minutes:
            _save(out, state)
            saved = time.monotonic()
        if step == config.steps:
            return
        with signals.held():
            try:
                row: dict[str, Any] = state.step()
            except NonFiniteLoss as error:
                if ranks.rank() == 0:  # its last rows show how it came
                    write_csv(out / "log.csv", LOG_COLUMNS, [*state.log, error.row])
                raise
            state.log.append(row)
            on_step(row)


@contextmanager
def _saved_when_stopped(state: Training, out: Path) -> Iterator[None]:
    """Leaves a checkpoint where a signal asks to end; between the steps, since a step is `held`."""
    if ranks.rank():
        # Rank 0 obeys, and the others end with it: a step is made by all.
        with signals.caught(ignored=signals.KINDS):
            yield
        return
    try:
        yield
    except signals.Stopped as error:
        _save(out, state)
        raise signals.and_then(error, f", saved at step {state.step_count}") from None


def claim(
    out: Path, config: TrainConfig, device: torch.device, origin: Mapping[str, str] | None
) -> TrainResult | None:
    """Makes the folder this run's own; the result, where the run is finished."""
    begun = (out / "config.json").exists()
    if begun and (other := load_config(TrainConfig, out)) != config:
        raise WrongFolder(f"{out} holds a run with another configuration: {difference(other, config)}")
    if origin is not None:
        claim_origin(out, origin)
    if not begun:
        write_json(out / "versions.json", versions(str(device)) | {"processes": ranks.world()})
        write_json(out / "config.json", to_dict(config))
    if not (out / "metrics.json").exists():
        return None
    metrics = read_metrics(out)
    evaluation = Evaluation.from_dict(metrics, out / "metrics.json")
    return TrainResult(evaluation, *(metrics[name] for name in COST))


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run.

    Raises:
        Damaged: it is none.
    """
    file = folder / "metrics.json"
    metrics = read_json(file)
    if not isinstance(metrics, dict) or not {"ap", "calibration", *COST} <= metrics.keys():
        raise Damaged(f"{file} holds no metrics of a run; remove it, and the same command makes it anew")
    return metrics


def _evaluated(state: Training) -> int:
    """The step of the last point of the curve."""
    return int(state.evaluations[-1]["step"]) if state.evaluations else 0


def _record(out: Path, state: Training, evaluation: Evaluation) -> None:
    """A point of the curve, and a checkpoint."""
    if _evaluated(state) < state.step_count:
        values = (evaluation.ap, evaluation.ap50, evaluation.ap75, evaluation.calibration.ece)
        state.evaluations.append(dict(zip(EVALUATION_COLUMNS, (state.step_count, *values))))
    _save(out, state)


def _save(out: Path, state: Training) -> None:
    """A checkpoint, from rank 0."""
    if ranks.rank() == 0:
        with signals.held():
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
