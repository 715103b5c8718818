"""What the detector's convolutions are normalised by."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn


def replace_norms(model: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    """Puts another module in the place of each batch norm."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, make(child))


def group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """Group norm (1803.08494) in at most 8 groups: what it makes of an image depends on no other."""
    return nn.GroupNorm(math.gcd(8, norm.num_features), norm.num_features)


def over_all_ranks(norm: nn.BatchNorm2d) -> nn.Module:
    """Batch norm by the statistics of the images of all processes; one that is frozen stays as it is."""
    if not norm.training:
        return norm
    if norm.weight.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    synchronised = _SyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    synchronised.load_state_dict(norm.state_dict())
    return synchronised.requires_grad_(norm.weight.requires_grad)


@contextmanager
def norms_unmoved(model: nn.Module) -> Iterator[None]:
    """Lets batch norms use the statistics of what they see and not remember them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class _Sum(torch.autograd.Function):
    """The sum over all processes; torch's own is deprecated."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


class _SyncBatchNorm(nn.BatchNorm2d):
    """As `nn.SyncBatchNorm`, which has no CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide, dims = x.float(), (0, 2, 3)
        count = wide.new_full((1,), x.numel() / x.shape[1])
        *_, total = summed = _Sum.apply(torch.cat((wide.sum(dims), count)))
        mean = summed[:-1] / total
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dims)) / total
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * total / (total - 1))
        scaled = centred * ((variance + self.eps).rsqrt() * self.weight)[:, None, None]
        return (scaled + self.bias[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        mine: Any = self
        mine.num_batches_tracked += 1
        mine.running_mean.lerp_(mean, self.momentum)
        mine.running_var.lerp_(variance, self.momentum)
