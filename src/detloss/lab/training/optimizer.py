"""How weights move: the optimiser, its learning rate over the steps, and the average of the weights."""

import copy
import math

import torch
from torch import nn

from detloss.lab.detector import Detector
from detloss.lab.training.config import Recipe


def learning_rate(step: int, recipe: Recipe, peak: float) -> float:
    """The rate of step `step` (from 0): linear warm-up to `peak`, then the schedule."""
    warm = round(recipe.warmup * recipe.steps)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    if recipe.schedule == "steps":
        return peak * (0.01 if step >= recipe.steps * 8 / 9 else 0.1 if step >= recipe.steps * 2 / 3 else 1.0)
    progress = (step - warm) / max(1, recipe.steps - warm)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """The optimiser of the recipe; only weights of convolutions decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    # beta2 .999 remembers the first steps' gradients, of another scale, for a whole short run.
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


class Average:
    """Exponential moving average of a model's weights and buffers, with a short memory at first.

    It holds the model's tensors: make it after `model.to(device)`; `load_state_dict` copies, and is fine.
    """

    def __init__(self, model: Detector, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Collected once: doing it again took an eighth of a small detector's step.
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._real = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the model's weights after step `step` (from 0)."""
        keep = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        mine, new = map(list, zip(*self._real))
        torch._foreach_lerp_(mine, new, 1 - keep)
        for counted, now in self._counts:
            counted.copy_(now)
