"""Heads, targets and the yardstick of the tests of `linear_loss`: the same without fusing."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from detloss.linear import linear_loss
from detloss.losses import (
    binary_cross_entropy_with_logits,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)

LOSSES = {
    "bce": binary_cross_entropy_with_logits,
    "focal": sigmoid_focal_loss,
    "quality_focal": quality_focal_loss,
    "varifocal": varifocal_loss,
    "softmax_focal": softmax_focal_loss,
}
ELEMENTWISE = [loss for loss in LOSSES.values() if loss is not softmax_focal_loss]
EPS = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
N, K, C = 40, 6, 5


def head(dtype=torch.float32, shape=(N,), classes=C, seed=0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (*shape, K), (classes, K), (classes,)
    return [torch.randn(size, generator=generator).to(dtype) for size in shapes]


def labels(form="index", shape=(N,), classes=C, seed=1) -> Tensor:
    """Class indices, every third row left out (the first block's all), or soft labels."""
    generator = torch.Generator().manual_seed(seed)
    if form == "soft":
        return torch.rand((*shape, classes), generator=generator)
    index = torch.randint(0, classes, shape, generator=generator)
    index[::3] = -100
    index[:7] = -100
    return index


def unfused(loss, input, linear_weight, targets, *, linear_bias=None, **arguments):
    return loss(F.linear(input, linear_weight, linear_bias), targets, **{"reduction": "sum"} | arguments)


def run(function, loss, parts, targets, needed=(True, True, True), factor=None, **arguments):
    """Value and gradients, from fresh leaves; None where no gradient arrived."""
    leaves = [part.detach().clone().requires_grad_(need) for part, need in zip(parts, needed)]
    value = function(loss, leaves[0], leaves[1], targets, linear_bias=leaves[2], **arguments)
    value.backward(torch.ones_like(value) if factor is None else factor)
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def check_equal(loss, parts, targets, *, rtol=None, **arguments):
    """The same as without fusing: value, gradients, dtypes, shapes; errors relative to the largest number."""
    eps = EPS[parts[0].dtype] if rtol is None else rtol
    mine, theirs = (run(function, loss, parts, targets, **arguments) for function in (linear_loss, unfused))
    for ours, expected in zip(mine, theirs):
        scale = expected.abs().max().item() if expected.numel() else 0.0
        assert_close(ours, expected, rtol=0, atol=eps * scale + 1e-30)


class Watch(TorchDispatchMode):
    """The largest tensor made, and the operations run with the number of elements of their results."""

    def __init__(self):
        super().__init__()
        self.largest, self.operations = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.operations.append((function.overloadpacket.__name__, tensor.numel()))
                self.largest = max(self.largest, tensor.numel())
        return result
