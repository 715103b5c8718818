# ruff: noqa
import torch
import torch.nn.functional as F

SCALE = torch.ones(1, device="cuda").cuda()


def loss(x, t):
    return SCALE.to(x) * F.binary_cross_entropy_with_logits(x, t, reduction="none")
