"""The state of a training run: made, stepped, saved, restored."""

import math
import sys
import time
from collections.abc import Callable
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detloss.lab import ranks
from detloss.lab.data import summary
from detloss.lab.data.batches import Batch, Letterboxed, training_batch
from detloss.lab.detector import DenseDetector
from detloss.lab.detector.build import build_detector
from detloss.lab.detector.criterion import Sums
from detloss.lab.detector.inference import to_torchvision
from detloss.lab.detector.norms import over_all_ranks, replace_norms
from detloss.lab.detector.objective import Objective, find_detector_loss
from detloss.lab.devices import pick_device
from detloss.lab.engines import JobFailed
from detloss.lab.files import CHECKPOINT, Damaged, read_checkpoint, save_checkpoint
from detloss.lab.records import difference, first_line, from_dict, to_dict
from detloss.lab.runs import table_rows, table_text, write_csv
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.optimizer import Average, Clipping, learning_rate, make_optimizer
from detloss.lab.training.parallel import gradients_later, in_parallel, parts
from detloss.lab.training.trained import save_weights
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES

LOG_COLUMNS = (
    *("step", "lr", "loss", "classification_loss", "box_loss", "distribution_loss", "objectness_loss"),
    *("positives", "normalizer", "positive_loss_share", "gradient_norm", "clipped", "seconds"),
)
EVALUATION_COLUMNS = ("step", "ap", "ap50", "ap75", "ece")


class NonFiniteLoss(JobFailed):
    """Training stopped because the loss or its gradient was NaN or infinite.

    Attributes:
        row: of the log, for the step that failed.
    """

    def __init__(self, message: str, row: dict[str, float]) -> None:
        super().__init__(message)
        self.row = row


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The precision of the network's forward pass."""
    dtype = torch.float16 if recipe.amp == "fp16" else torch.bfloat16
    # On a CPU torch's bfloat16 gradient of a strided convolution is at times infinite where the map is 1x1,
    # as in the pyramids of large detectors at small sizes.
    usual = has_bf16(device) and (recipe.detector.dense or device.type != "cpu")
    enabled = usual if recipe.amp == "auto" else recipe.amp != "off"
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 itself; emulated, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


class Training:
    """The state of a run: made, restored, stepped, saved. `train` drives it.

    Attributes:
        log: rows of log.csv.
        evaluations: rows of evaluations.csv.
    """

    def __init__(self, config: TrainConfig, data: Letterboxed) -> None:
        self.config, self.data = config, data
        self.device = pick_device(config.device)
        loss = find_detector_loss(config.loss, CLASSIFICATION_LOSSES, config.detector)
        box_loss = find_detector_loss(config.box_loss, BOX_LOSSES, config.detector)
        torch.manual_seed(config.seed)
        names = data.dataset.names
        weights = None
        if loss is not None and loss.class_weight is not None:
            objects = summary(data.dataset)["per_class"].values()
            weights = loss.class_weight.of(list(objects)).to(self.device)
        self.objective = Objective(
            loss,
            box_loss,
            config.box_weight,
            config.distribution_weight,
            config.balance,
            config.box_weighting,
            config.steps,
            config.seed,
            weights,
        )
        self.detector = build_detector(config.detector, names, config.size, self.objective).to(self.device)
        if ranks.world() > 1:
            replace_norms(self.detector, over_all_ranks)
        self.parts = parts(config)
        self.optimizer = make_optimizer(self.detector, config, config.lr)
        self.clipping = Clipping(config.clip_quantile, config.clip).to(self.device)
        self.average = Average(self.detector, config.ema)
        self.parallel = in_parallel(self.detector, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.step_count = 0
        self.seconds = 0.0
        self.log: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        # What a checkpoint holds, beside the two counts.
        self._parts: dict[str, Any] = {
            "detector": self.detector,
            "average": self.average.model,
            "optimizer": self.optimizer,
            "clipping": self.clipping,
            "scaler": self.scaler,
        }

    def step(self) -> dict[str, float]:
        """One optimiser step; its row of the log.

        Raises:
            NonFiniteLoss: naming the step and the batch's image ids.
        """
        began = time.perf_counter()
        config, step = self.config, self.step_count
        how = (config.batch, config.seed, config.augment)
        batches = [training_batch(self.data, step, *how, part) for part in self.parts]
        rate = learning_rate(step, config, config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        told = self._backward(batches)
        self.scaler.unscale_(self.optimizer)
        norm, clipped = self.clipping(self.detector.parameters(), step)
        row = self._row(step + 1, rate, told, norm, clipped)
        overflow_is_usual = self.scaler.is_enabled()
        if not (math.isfinite(row["loss"]) and (overflow_is_usual or math.isfinite(row["gradient_norm"]))):
            what = "gradient" if math.isfinite(row["loss"]) else "loss"
            ids = [name for some in ranks.gathered([batch.ids for batch in batches]) for name in chain(*some)]
            raise NonFiniteLoss(
                f"{config.loss} + {config.box_loss}: the {what} is not finite at step {step + 1} "
                f"(lr {rate:.3g}); images of the batch: {', '.join(ids)}. "
                "Try a lower lr or clip_quantile; what was saved before is kept",
                row,
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(step)
        self.step_count += 1
        self.seconds += time.perf_counter() - began
        row["seconds"] = round(self.seconds, 4)
        return row

    def _backward(self, batches: list[Batch]) -> dict[str, Tensor]:
        """Adds up the gradients of the batch's parts; what the whole batch costs, by name."""
        detector: Any = self.detector
        self.objective.step = self.step_count
        dense = isinstance(detector, DenseDetector)
        self.objective.whole = self._whole(detector, batches) if dense and len(batches) > 1 else None
        told: list[Tensor] = []
        for batch, part in zip(batches, self.parts):
            self.objective.first = part.start
            # What another detector divides by is its own affair: its losses count by their images.
            share = 1.0 if dense else len(part) / sum(map(len, self.parts))
            with gradients_later(self.parallel, part is not self.parts[-1]):
                total = reduce(torch.add, self._forward(batch).values())
                self.scaler.scale(total * share).backward()
            found = {"loss": total, **detector.terms}
            told.append(torch.stack([term.detach().float() * share for term in found.values()]))
        return dict(zip(found, ranks.averaged(torch.stack(told).sum(0))))

    def _whole(self, detector: DenseDetector, batches: list[Batch]) -> Sums:
        """What the batch comes to, as far as the losses of its parts depend on one another."""
        sums: list[Sums] = []
        for batch, part in zip(batches, self.parts):
            self.objective.first = part.start
            with autocast(self.config, self.device):
                sums.append(detector.sums(*to_torchvision(batch, self.device)))
        return Sums(*(torch.stack(values).sum(0) for values in zip(*sums))).averaged()

    def _forward(self, batch: Batch) -> dict[str, Tensor]:
        """What is added up and minimised, by the names that the detector has for it."""
        # Some detectors draw random numbers: as much a function of seed and step as the batch. Not by
        # torch.manual_seed, which without a GPU remembers every call.
        number = (self.config.seed, self.step_count, 3, self.objective.first)
        drawn = int(np.random.default_rng(number).integers(2**63))
        torch.default_generator.manual_seed(drawn)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(drawn)
        images, targets = to_torchvision(batch, self.device)
        with autocast(self.config, self.device):
            losses: dict[str, Tensor] = self.parallel(images, targets)
        return losses

    def _row(
        self, step: int, rate: float, told: dict[str, Tensor], norm: Tensor, clipped: Tensor
    ) -> dict[str, float]:
        # One transfer for all numbers: each would wait for the GPU on its own.
        found = {**told, "gradient_norm": norm, "clipped": clipped}
        values = dict(zip(found, torch.stack([t.float() for t in found.values()]).tolist()))
        if "located_loss" in values:
            share = values.pop("positive_loss") / max(values.pop("located_loss"), sys.float_info.min)
            values |= {"positive_loss_share": share, "normalizer": max(1, values["positives"])}
        row = dict.fromkeys(LOG_COLUMNS, math.nan) | values | {"step": step, "lr": rate}
        whole = [name for name in ("positives", "normalizer", "clipped") if math.isfinite(row[name])]
        return row | {name: round(row[name]) for name in whole}

    def save(self, folder: Path) -> None:
        """Writes a checkpoint: `last.pt` has all that resuming needs; the one before it is kept.

        Also log.csv, evaluations.csv and `last.safetensors` (the averaged weights), to look at.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"log": (LOG_COLUMNS, self.log), "evaluations": (EVALUATION_COLUMNS, self.evaluations)}
        for name, table in tables.items():
            write_csv(folder / f"{name}.csv", *table)
        state = {"config": to_dict(self.config), "step": self.step_count, "seconds": self.seconds}
        state |= {name: table_text(*table) for name, table in tables.items()}
        state |= {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(folder / CHECKPOINT, state)
        save_weights(self.average.model, self.data.dataset.names, folder)

    def restore(self, folder: Path, tell: Callable[[str], None] = lambda line: None) -> bool:
        """Continues from `last.pt`, exactly as if never interrupted; False where there is none.

        Args:
            folder: of the run.
            tell: called with a line where the last checkpoint is damaged and the one before it is taken.

        Raises:
            Damaged: no checkpoint is whole and of this run.
        """
        state = ranks.from_first(lambda: read_checkpoint(folder / CHECKPOINT, self._check, tell))
        if state is None:
            return False
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise Damaged(
                f"{folder / CHECKPOINT} does not fit the detector that is built now ({first_line(error)}); "
                "give another folder, or remove it to train anew"
            ) from error
        self.step_count, self.seconds = state["step"], state["seconds"]
        self.log, self.evaluations = table_rows(state["log"]), table_rows(state["evaluations"])
        return True

    def _check(self, state: dict[str, Any]) -> None:
        """ValueError where a state is not one of this run."""
        needed = {"config", "step", "seconds", "log", "evaluations", *self._parts}
        if missing := needed - state.keys():
            raise ValueError(f"is no checkpoint of this version of detloss: it has no {min(missing)}")
        config = from_dict(TrainConfig, state["config"])
        if config != self.config:
            raise ValueError(f"is of another run: {difference(config, self.config)}")
