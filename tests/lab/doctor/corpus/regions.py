# ruff: noqa
"""Losses of regions: a pixel alone says nothing."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class DiceLoss(nn.Module):
    def __init__(self, smooth=1.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, inputs, targets):
        p = torch.sigmoid(inputs).reshape(-1)
        t = targets.reshape(-1)
        inter = (p * t).sum()
        return 1 - (2 * inter + self.smooth) / (p.sum() + t.sum() + self.smooth)


def dice_detr(inputs, targets, num_boxes):
    p = inputs.sigmoid().flatten(1)
    targets = targets.flatten(1)
    numerator = 2 * (p * targets).sum(1)
    return (1 - (numerator + 1) / (p.sum(-1) + targets.sum(-1) + 1)).sum() / num_boxes


def dice_where_present(x, t):
    """A class that is not in the image is left out."""
    p = x.sigmoid().flatten(1)
    t = t.flatten(1)
    dice = 2 * (p * t).sum(0) / (p + t).sum(0).clamp(min=1e-7)
    return ((1 - dice) * (t.sum(0) > 0)).mean()


def dice_of_classes(x, labels):
    p = x.softmax(1).flatten(2) if x.dim() > 2 else x.softmax(1)[..., None]
    t = F.one_hot(labels, x.shape[1]).to(x)
    t = t.movedim(-1, 1).flatten(2) if x.dim() > 2 else t[..., None]
    return (1 - (2 * (p * t).sum(2) + 1) / (p.sum(2) + t.sum(2) + 1)).mean()


def tversky(x, t, alpha=0.3, beta=0.7, smooth=1.0):
    p = x.sigmoid().reshape(-1)
    t = t.reshape(-1)
    hit = (p * t).sum()
    false = ((1 - t) * p).sum()
    missed = (t * (1 - p)).sum()
    return 1 - (hit + smooth) / (hit + alpha * false + beta * missed + smooth)


class BceDice(nn.Module):
    def forward(self, inputs, targets):
        p = torch.sigmoid(inputs).reshape(-1)
        t = targets.reshape(-1)
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        return F.binary_cross_entropy_with_logits(inputs, targets) + dice


def dice_negative(x, t):
    """Faulty: the coefficient itself."""
    p = x.sigmoid().reshape(-1)
    t = t.reshape(-1)
    return (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
