"""What the losses are measured against: other libraries if they are there, torch's own, the usual snippets.

All take logits and targets (or two tensors of boxes) and return a sum. Where a peer wants one number per
logit and the targets are class indices, making that tensor belongs to its work.
"""

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.lab.records import first_line

ALPHA, GAMMA = 0.25, 2.0
VARIFOCAL_ALPHA = 0.75
Peer = Callable[..., Tensor]


class Missing(Exception):
    """A variant that cannot be had here; the message says why."""


def imported(module: str) -> Any:
    """A library that may be absent, or be there and fail to load beside another torch."""
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == top:
            raise Missing(f"{top} is not installed") from None
        raise Missing(f"{top} cannot be imported: {error}") from None
    except (ImportError, RuntimeError, OSError) as error:
        raise Missing(f"{top} cannot be imported: {first_line(error)}") from None


@cache
def torchvision_loss(name: str) -> Peer:
    """A loss of torchvision, its reduction "sum"."""
    function = getattr(imported("torchvision.ops"), name)
    return lambda *arguments: function(*arguments, reduction="sum")


@cache
def compiled(make: Callable[[str], Peer], name: str) -> Peer:
    """`torch.compile` as it comes: the first size is compiled for itself, the second for all that follow."""
    return torch.compile(make(name))


def one_hot(inputs: Tensor, targets: Tensor, quality: Tensor | None = None) -> Tensor:
    """Class indices (C is background) as one number per logit; other targets as they are."""
    if targets.is_floating_point():
        return targets
    classes = inputs.shape[-1]
    hot = F.one_hot(targets, classes + 1)[..., :classes].to(inputs.dtype)
    return hot if quality is None else hot * quality.unsqueeze(-1)


bce: Peer = partial(F.binary_cross_entropy_with_logits, reduction="sum")
cross_entropy: Peer = partial(F.cross_entropy, reduction="sum")


def focal_snippet(inputs: Tensor, targets: Tensor) -> Tensor:
    """Focal loss from exp(-BCE), as blogs have it."""
    ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    pt = torch.exp(-ce)
    alpha = targets * ALPHA + (1 - targets) * (1 - ALPHA)
    return (alpha * (1 - pt) ** GAMMA * ce).sum()


def quality_focal_snippet(inputs: Tensor, targets: Tensor) -> Tensor:
    """Quality focal loss as in YOLO code bases."""
    ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return (ce * (targets - torch.sigmoid(inputs)).abs() ** GAMMA).sum()


def varifocal_snippet(inputs: Tensor, targets: Tensor) -> Tensor:
    """Varifocal loss as in YOLO code bases."""
    p = torch.sigmoid(inputs)
    positive = (targets > 0).to(inputs.dtype)
    weight = VARIFOCAL_ALPHA * p**GAMMA * (1 - positive) + targets * positive
    return (weight * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")).sum()


def softmax_focal_snippet(inputs: Tensor, targets: Tensor) -> Tensor:
    """Focal loss from the probability of the target's class, taken out by a mask, as blogs have it."""
    p = F.softmax(inputs, dim=1)
    mask = torch.zeros_like(p).scatter_(1, targets.view(-1, 1), 1.0)
    p = (p * mask).sum(1)
    return (-((1 - p) ** GAMMA) * p.log()).sum()


def distribution_focal_snippet(inputs: Tensor, targets: Tensor) -> Tensor:
    """Distribution focal loss as two weighted cross entropies, as in mmdet and YOLO code bases."""
    left = targets.long().clamp(max=inputs.shape[-1] - 2)
    above = targets - left
    low, high = (F.cross_entropy(inputs, side, reduction="none") for side in (left, left + 1))
    return (low * (1 - above) + high * above).sum()


@cache
def mmcv_loss(name: str) -> Peer:
    """A CUDA operation of mmcv: class indices, C is background."""
    function = getattr(imported("mmcv.ops"), name)
    return lambda inputs, targets: function(inputs, targets, GAMMA, ALPHA, None, "sum")


@cache
def apex_focal_loss() -> Peer:
    """The CUDA operation of apex: class indices, -1 is background, sum over what counts."""
    function = imported("apex.contrib.focal_loss.focal_loss").focal_loss

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        classes = inputs.shape[-1]
        one = torch.ones(1, device=inputs.device)
        return function(inputs, targets.where(targets < classes, -1), one, classes, ALPHA, GAMMA, 0.0)

    return loss
