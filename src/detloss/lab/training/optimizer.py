"""How weights move: the optimiser, its rate over the steps, clipping, and the average of the weights."""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detloss.lab.detector.weights import of_backbone
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
    """The optimiser of the recipe; only weights of convolutions and linear layers decay.

    Each group's `factor` is that of its learning rate. What is frozen is left out.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    slow = {name for name in trained if recipe.backbone_lr != 1 and of_backbone(name)}
    if recipe.backbone_lr != 1 and not slow:
        raise ValueError(
            f"backbone_lr is {recipe.backbone_lr:g}; the detector has no trained parameter with the name "
            "`backbone`"
        )
    groups = [
        {
            "params": [
                p for name, p in trained.items() if (p.ndim > 1) == decays and (name in slow) == is_slow
            ],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "factor": recipe.backbone_lr if is_slow else 1.0,
        }
        for is_slow in ([False, True] if slow else [False])
        for decays in (True, False)
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    # beta2 .999 remembers the first steps' gradients, of another scale, for a whole short run.
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


class Clipping(nn.Module):
    """Scales a gradient down to a quantile of the norms that the run's own last steps had.

    AutoClip (Seetharaman et al. 2020, 2007.14469), whose history is cut to the last `WINDOW` steps: norms
    fall during training. Each loss is clipped on about as many steps as any other, whatever its scale.

    Args:
        quantile: of the norms; 1 does not clip.
        most: largest norm whatever the history says; 0: none.
    """

    WINDOW = 100

    def __init__(self, quantile: float, most: float = 0.0) -> None:
        super().__init__()
        self.quantile, self.most = quantile, most or math.inf
        self.norms: Tensor
        self.register_buffer("norms", torch.full((self.WINDOW,), math.nan))

    @torch.no_grad()
    def forward(self, parameters: Iterable[nn.Parameter], step: int) -> tuple[Tensor, Tensor]:
        """Clips the gradients of step `step` (from 0); their norm before, and whether they were clipped."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # An overflow of float16 is no norm to go by.
        self.norms[step % self.WINDOW] = torch.where(norm.isfinite(), norm, math.nan)
        limit = norm.new_full((), self.most)
        if self.quantile < 1:
            limit = torch.fmin(torch.nanquantile(self.norms, self.quantile), limit)
        clipped = norm > limit
        torch._foreach_mul_(gradients, torch.where(clipped, limit / norm, 1.0))
        return norm, clipped


def unique(state: Mapping[str, Tensor]) -> list[str]:
    """The names of a state dict's tensors, of those that are one and the same only the first."""
    first: dict[Any, str] = {}
    for name, value in state.items():
        first.setdefault((value.data_ptr(), value.shape) if value.numel() else name, name)
    return list(first.values())


class Average:
    """Exponential moving average of a model's weights and buffers, with a short memory at first.

    It holds the model's tensors: make it after `model.to(device)`; `load_state_dict` copies, and is fine.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Collected once: doing it again took an eighth of a small detector's step. Tensors that have several
        # names, as heads that layers share, must move once only.
        names = unique(model.state_dict())
        mine, new = self.model.state_dict(), model.state_dict()
        pairs = [(mine[name], new[name]) for name in names]
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
