"""Saved tensors, counted by hand."""

import torch

from detloss.lab.memory import kept_by_hooks


def test_what_autograd_saves():
    x = torch.randn(1000, requires_grad=True)

    def twice():
        y = x.exp()
        return (y * y * x).sum()

    assert kept_by_hooks(lambda: (x * x).sum(), [x]) == 0  # the argument itself
    assert kept_by_hooks(lambda: (x * x).sum(), []) == x.nbytes
    assert kept_by_hooks(twice, [x]) == 2 * x.nbytes  # y, by exp and by y * y, and y * y
