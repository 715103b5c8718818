"""The runs of a comparison one by one: what each trains, and what it came to."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detloss.lab.data import Dataset, fingerprint
from detloss.lab.data.batches import Letterboxed
from detloss.lab.engines import ENDING
from detloss.lab.evaluate import Evaluation
from detloss.lab.files import CHECKPOINT
from detloss.lab.lock import locked
from detloss.lab.runs import read_json, write_json
from detloss.lab.training.by_trainer import TrainerFailed, train_by
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.splits import open_data
from detloss.lab.training.state import NonFiniteLoss
from detloss.lab.training.train import read_metrics, train

SWEEP_SEED = 1000
"""Not among the seeds that are compared."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Job:
    """One training run of the comparison.

    Attributes:
        config: its configuration.
        folder: where it leaves its results.
        held_out: of a trial of the sweep, the part of the training set that it is evaluated on.
        fingerprint: what its data must have where the run is made; "" is not looked at.
    """

    config: TrainConfig
    folder: Path
    held_out: float | None = None
    fingerprint: str = ""

    @property
    def pair(self) -> Pair:
        """Its losses."""
        return self.config.loss, self.config.box_loss

    @property
    def data(self) -> str:
        """The path of its data; "" where it is drawn."""
        return "" if self.config.data == "embedded" else self.config.data


@dataclass(frozen=True)
class Outcome:
    """What a job came to: its metrics, or why there are none (the loss diverged, a user's trainer failed)."""

    metrics: dict[str, Any] | None
    diverged: str | None = None
    failed: str | None = None

    @property
    def ap(self) -> float:
        """AP, nan where training diverged or there was no object to find."""
        value = self.metrics["ap"] if self.metrics else None
        return math.nan if value is None else float(value)


def hold_out(dataset: Dataset, part: float) -> tuple[Dataset, Dataset]:
    """The training set of the sweep, and the part of it that the sweep evaluates on."""
    order = np.random.default_rng(SWEEP_SEED).permutation(len(dataset))
    count = min(max(1, round(part * len(dataset))), 256)
    if count >= len(dataset):
        raise ValueError(
            f"the training split has {len(dataset)} images; a sweep needs 2: fix lr and box_weight"
        )
    return dataset.select(sorted(order[count:])), dataset.select(sorted(order[:count]))


def run_job(job: Job, send: Callable[[Any], None]) -> Outcome:
    """Trains one job in this process; sends ("step", n), ("ap", value) and ("note", text) on the way.

    Raises:
        ValueError: the data is not what its fingerprint says.
    """
    training, validation = open_data(job.config)
    if job.fingerprint and fingerprint(training, validation) != job.fingerprint:
        raise ValueError(
            f"the data {job.data} is not what it is where the command runs: other images or other objects; "
            "copy it anew"
        )
    if job.held_out is not None:
        training, validation = hold_out(training, job.held_out)
    # Of a command that was killed, a process may still be writing its last checkpoint.
    with locked(job.folder, patience=ENDING):
        return _train(job, training, validation, send)


def _train(job: Job, training: Dataset, validation: Dataset, send: Callable[[Any], None]) -> Outcome:
    size = job.config.size

    def on_step(row: dict[str, float]) -> None:
        if row["step"] % 5 == 0:
            send(("step", int(row["step"])))

    def on_evaluation(step: int, evaluation: Evaluation) -> None:
        send(("step", step))
        send(("ap", evaluation.ap))

    def tell(line: str) -> None:
        send(("note", line))

    try:
        if job.config.trainer:
            train_by(job.config, training, validation, job.folder, lambda step: send(("step", step)))
        else:
            fitted = (Letterboxed(training, size), Letterboxed(validation, size))
            train(job.config, *fitted, job.folder, on_step, on_evaluation, tell)
    except TrainerFailed as error:
        return Outcome(None, failed=error.why)
    except NonFiniteLoss as error:
        write_json(job.folder / "diverged.json", str(error))
        return Outcome(None, str(error))
    if job.held_out is not None:
        # Nobody looks at the weights of a trial.
        for name in (CHECKPOINT, "last.safetensors", "detections.json"):
            (job.folder / name).unlink(missing_ok=True)
    return Outcome(read_json(job.folder / "metrics.json"))


def finished(job: Job) -> Outcome | None:
    """The outcome of a job that an earlier call has finished.

    Raises:
        Damaged: it left something else than an outcome.
    """
    if (job.folder / "metrics.json").exists():
        return Outcome(read_metrics(job.folder))
    if (job.folder / "diverged.json").exists():
        return Outcome(None, read_json(job.folder / "diverged.json"))
    return None


def folder_name(pair: Pair) -> str:
    """`classification+box`, safe as a file name."""
    return re.sub(r"[^\w.+=,-]", "_", "+".join(pair))
