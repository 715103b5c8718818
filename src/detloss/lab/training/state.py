"""The state of a training run: made, stepped, saved, restored."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detloss.lab.data.batches import Batch, Letterboxed, training_batch
from detloss.lab.detector import Detector
from detloss.lab.detector.criterion import Criterion, Terms
from detloss.lab.detector.inference import images_to_tensor
from detloss.lab.devices import pick_device
from detloss.lab.engines import JobFailed
from detloss.lab.records import first_line
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.optimizer import Average, learning_rate, make_optimizer
from detloss.lab.training.trained import save, save_weights
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

LOG_COLUMNS = (
    *("step", "lr", "loss", "classification_loss", "box_loss", "distribution_loss", "objectness_loss"),
    *("positives", "normalizer", "positive_loss_share", "gradient_norm", "seconds"),
)


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
    enabled = has_bf16(device) if recipe.amp == "auto" else recipe.amp != "off"
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 itself; emulated, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


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
        # What a checkpoint holds, beside the two counts.
        self._parts: dict[str, Any] = {
            "detector": self.detector,
            "average": self.average.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }

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
                "Try a lower lr or clip; what was saved before is kept",
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
        state = {"step": self.step_count, "seconds": self.seconds}
        state |= {name: part.state_dict() for name, part in self._parts.items()}
        save(folder / "last.pt", lambda part: torch.save(state, part))
        save_weights(self.average.model, self.data.dataset.names, folder)

    def restore(self, folder: Path) -> None:
        """Continues from `last.pt`, exactly as if never interrupted."""
        try:
            state = torch.load(folder / "last.pt", map_location=self.device, weights_only=True)
        except Exception as error:
            damaged = f"{folder / 'last.pt'} is damaged ({first_line(error)})"
            raise ValueError(f"{damaged}; remove it to train anew") from error
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step_count, self.seconds = state["step"], state["seconds"]
