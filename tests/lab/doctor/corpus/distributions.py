# ruff: noqa
"""Losses of distances as distributions over bins."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def dfl(pred_dist, target):
    """Clamped so that the last bin is never passed."""
    y = target.clamp(0, pred_dist.shape[-1] - 1.01)
    left = y.long()
    weight = left + 1 - y
    return F.cross_entropy(pred_dist, left, reduction="none") * weight + F.cross_entropy(
        pred_dist, left + 1, reduction="none"
    ) * (1 - weight)


class DFLoss(nn.Module):
    """As ultralytics has it: (4 N, n + 1) logits, (N, 4) distances."""

    def __init__(self, reg_max=16):
        super().__init__()
        self.reg_max = reg_max

    def __call__(self, pred_dist, target):
        target = target.clamp(0, self.reg_max - 1 - 0.01)
        tl = target.long()
        tr = tl + 1
        wl = tr - target
        wr = 1 - wl
        return (
            F.cross_entropy(pred_dist, tl.view(-1), reduction="none").view(tl.shape) * wl
            + F.cross_entropy(pred_dist, tr.view(-1), reduction="none").view(tl.shape) * wr
        ).mean(-1, keepdim=True)


def dfl_of_sides(pred_dist, target):
    """(N, 4 (n + 1)) logits."""
    return dfl(pred_dist.reshape(len(target) * 4, -1), target.reshape(-1)).sum()


def dfl_of_each_side(pred_dist, target):
    """(N, 4, n + 1) logits."""
    assert pred_dist.shape[1] == 4
    return dfl(pred_dist.reshape(-1, pred_dist.shape[-1]), target.reshape(-1)).view(target.shape)


# faulty


def dfl_last_bin(pred_dist, target):
    left = target.long()
    weight = left + 1 - target
    return F.cross_entropy(pred_dist, left, reduction="none") * weight + F.cross_entropy(
        pred_dist, left + 1, reduction="none"
    ) * (1 - weight)


def dfl_clamps_in_place(pred_dist, target):
    return dfl(pred_dist, target.clamp_(0, pred_dist.shape[-1] - 1.01))


def dfl_weights_swapped(pred_dist, target):
    y = target.clamp(0, pred_dist.shape[-1] - 1.01)
    left = y.long()
    weight = left + 1 - y
    return (
        F.cross_entropy(pred_dist, left, reduction="none") * (1 - weight)
        + F.cross_entropy(pred_dist, left + 1, reduction="none") * weight
    )


def dfl_negative(pred_dist, target):
    return -dfl(pred_dist, target)
