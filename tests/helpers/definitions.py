"""The losses as their papers print them, naively, in float64: the yardstick of the tests beside this file.

They share nothing with the package. Valid for logits up to about ±15, where the plain logarithms still hold.
"""

import torch


def ce(x, t):
    p = 1 / (1 + torch.exp(-x))
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p))


def focal(x, t, gamma):
    p = 1 / (1 + torch.exp(-x))
    p_t = p * t + (1 - p) * (1 - t)
    return (1 - p_t) ** gamma * ce(x, t)


def quality_focal(x, y, beta):
    p = 1 / (1 + torch.exp(-x))
    return (y - p).abs() ** beta * ce(x, y)


def varifocal(x, y, alpha, gamma):
    p = 1 / (1 + torch.exp(-x))
    positive = -y * (y * torch.log(p) + (1 - y) * torch.log(1 - p))
    negative = -alpha * p**gamma * torch.log(1 - p)
    return torch.where(y > 0, positive, negative)


def poly_focal(x, t, gamma, epsilon):
    p = 1 / (1 + torch.exp(-x))
    p_t = p * t + (1 - p) * (1 - t)
    return focal(x, t, gamma) + epsilon * (1 - p_t) ** (gamma + 1)


def asymmetric(x, t, gamma_neg, gamma_pos, m):
    p = 1 / (1 + torch.exp(-x))
    p_m = torch.where(p > m, p - m, 0.0)
    positive = (1 - p) ** gamma_pos * torch.log(p)
    negative = p_m**gamma_neg * torch.log(1 - p_m)
    return -t * positive - (1 - t) * negative


def matchability_aware(x, q, gamma, positive):
    p = 1 / (1 + torch.exp(-x))
    at_positives = -(q**gamma) * torch.log(p) - (1 - q**gamma) * torch.log(1 - p)
    at_negatives = -(p.detach() ** gamma) * torch.log(1 - p)
    return torch.where(positive, at_positives, at_negatives)


def iou_aware_bce(x, u, alpha, gamma, positive):
    p = 1 / (1 + torch.exp(-x))
    t = (p**alpha * u ** (1 - alpha)).clamp(min=0.01).detach()
    at_positives = -t * torch.log(p) - (1 - t) * torch.log(1 - p)
    return torch.where(positive, at_positives, -(p**gamma) * torch.log(1 - p))


def gaussian_focal(x, y, alpha, gamma):
    p = 1 / (1 + torch.exp(-x))
    at_negatives = -((1 - y) ** gamma) * p**alpha * torch.log(1 - p)
    return torch.where(y == 1, -((1 - p) ** alpha) * torch.log(p), at_negatives)


def softmax_focal(x, t, gamma, dim=1):
    """t: probabilities of the shape of x."""
    p = torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)
    return -(t * (1 - p) ** gamma * torch.log(p)).sum(dim)


def alpha_t(t, alpha):
    return alpha * t + (1 - alpha) * (1 - t)


def value_and_gradient(function, inputs, *args, **kwargs):
    """The elementwise loss and the gradient of its sum, from fresh leaves."""
    leaf = inputs.detach().clone().requires_grad_()
    loss = function(leaf, *args, **kwargs)
    loss.sum().backward()
    return loss.detach(), leaf.grad


TOLERANCE = {  # of the result against float64 on the same, already rounded, inputs
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
    torch.float32: {"rtol": 2e-6, "atol": 1e-7},
    torch.float16: {"rtol": 1e-3, "atol": 1e-7},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-7},
}


def logits_and_targets(dtype, shape=(64, 5), scale=4.0, seed=0):
    """Random logits of a dtype with hard and soft targets, exactly representable in it."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * scale).to(dtype)
    t = torch.rand(shape, generator=generator).to(dtype)
    t[::4], t[1::4] = 0, 1
    return x, t
