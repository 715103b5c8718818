"""Box losses of papers that the package does not have, each a formula of `detloss.box_loss`.

Copy the one you want into your project, or name it on the command line::

    detloss compare --losses focal --box-losses giou examples/box_losses.py:siou
    detloss compare --losses focal --box-losses "examples/box_losses.py:mpdiou,width=128,height=128"

docs/box_formulas.md has each formula, its paper, what its authors' code does, and the scale that it assumes.
"""

import math

import torch
from torch import Tensor

from detloss import box_iou_loss
from detloss.formula import Box, area, box_loss, enclosing, intersection, iou


def offset(first: Box, second: Box) -> tuple[Tensor, Tensor]:
    """From the centre of the second box to that of the first, in x and y."""
    dx = (first.left + first.right - second.left - second.right) / 2
    dy = (first.top + first.bottom - second.top - second.bottom) / 2
    return dx, dy


def empty_part(first: Box, second: Box, eps: float) -> Tensor:
    """(|C| - |A∪B|) / |C| of GIoU: the part of the enclosing box C that is in neither box."""
    hull, shared = area(enclosing(first, second)), intersection(first, second)
    union = area(first) + area(second) - shared
    return torch.where(hull > 0, (hull - union) / (hull + eps), 0)


def unlike(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """|a - b| / max(a, b): how different two sides are, from 0 to 1."""
    return (a - b).abs() / (torch.maximum(a, b) + eps)


@box_loss(limits={"theta": (1, math.inf)})
def siou(first: Box, second: Box, theta: float = 4.0, eps: float = 1e-7) -> Tensor:
    """SIoU loss: IoU, the distance of the centres by its angle, and the difference of the sizes.

    L = 1 - IoU + (Δ + Ω)/2,  Δ = Σ_t (1 - exp(-(2 - Λ) ρ_t)),  Λ = sin 2α, α the angle of the centres.

    Source: Gevorgyan, SIoU Loss, arXiv:2205.12740.
    """
    dx, dy = offset(first, second)
    hull = enclosing(first, second)
    angle = 2 * (dx * dy).abs() / (dx.square() + dy.square() + eps)  # sin 2α, without an arcsine
    gamma = 2 - angle
    rho_x = dx.square() / (hull.width.square() + eps)
    rho_y = dy.square() / (hull.height.square() + eps)
    distance = 2 - torch.exp(-gamma * rho_x) - torch.exp(-gamma * rho_y)
    omega_w, omega_h = unlike(first.width, second.width, eps), unlike(first.height, second.height, eps)
    shape = (1 - torch.exp(-omega_w)) ** theta + (1 - torch.exp(-omega_h)) ** theta
    return 1 - iou(first, second, eps) + (distance + shape) / 2


def distance_weight(first: Box, second: Box, eps: float) -> Tensor:
    """exp(ρ²/c²) of WIoU, the diagonal c of the enclosing box without gradient: from 1 to e."""
    dx, dy = offset(first, second)
    hull = enclosing(first, second)
    diagonal = (hull.width.square() + hull.height.square() + eps).detach()
    return torch.exp(((dx.square() + dy.square()) / diagonal).clamp(max=1))  # above 1 for inverted boxes only


@box_loss
def wiou(first: Box, second: Box, eps: float = 1e-7) -> Tensor:
    """WIoU loss, version 1: 1 - IoU, weighed by the distance of the centres.

    L = exp(ρ²/c²) (1 - IoU),  ρ the distance of the centres, c as a constant for the gradient.

    Source: Tong et al., Wise-IoU, arXiv:2301.10051.
    """
    return distance_weight(first, second, eps) * (1 - iou(first, second, eps))


@box_loss(limits={"mean": (1e-6, math.inf), "alpha": (1, math.inf), "delta": (0, math.inf)})
def wiou_v3(
    first: Box,
    second: Box,
    mean: float | Tensor = 1.0,
    alpha: float = 1.9,
    delta: float = 3.0,
    eps: float = 1e-7,
) -> Tensor:
    """WIoU loss, version 3: version 1, where boxes of middling quality weigh most.

    L = r L_v1,  r = β / (δ α^(β - δ)) without gradient,  β = (1 - IoU) / mean.

    `mean` is the running mean of 1 - IoU over the training so far; the caller keeps it, see `running_mean`.

    Source: Tong et al., Wise-IoU, arXiv:2301.10051.
    """
    apart = 1 - iou(first, second, eps)
    beta = apart.detach() / mean
    gain = beta / (delta * alpha ** (beta - delta))
    return gain * distance_weight(first, second, eps) * apart


def running_mean(mean: Tensor, boxes1: Tensor, boxes2: Tensor, momentum: float = 0.01) -> Tensor:
    """The running mean of 1 - IoU, after these pairs of boxes too. It begins with 1.

    The paper's momentum is 1 - 0.05^(1/(t n)), n the batches of an epoch and t the epoch from which on AP
    rises slowly. Nothing is changed in place. Without pairs the mean stays.
    """
    if not len(boxes1):
        return mean
    return torch.lerp(mean, box_iou_loss(boxes1, boxes2, "mean").detach(), momentum)


@box_loss(limits={"width": (1e-6, math.inf), "height": (1e-6, math.inf)})
def mpdiou(
    first: Box, second: Box, width: float | Tensor = 640.0, height: float | Tensor = 640.0, eps: float = 1e-7
) -> Tensor:
    """MPDIoU loss: IoU and the distances of the upper left and of the lower right corners.

    L = 1 - IoU + (d₁² + d₂²) / (W² + H²),  W and H the sides of the image, in the units of the boxes.

    Source: Ma and Xu, MPDIoU, arXiv:2307.07662.
    """
    upper = (first.left - second.left).square() + (first.top - second.top).square()
    lower = (first.right - second.right).square() + (first.bottom - second.bottom).square()
    return 1 - iou(first, second, eps) + (upper + lower) / (width**2 + height**2)


@box_loss(limits={"scale": (0, math.inf), "theta": (1, math.inf)})
def shape_iou(first: Box, second: Box, scale: float = 0.0, theta: float = 4.0, eps: float = 1e-7) -> Tensor:
    """Shape-IoU loss: distance and sizes weighed by the shape of the target.

    L = 1 - IoU + (hh dx² + ww dy²)/c² + Ω/2,  ww = 2 w^s / (w^s + h^s) of the target, hh = 2 - ww.

    Source: Zhang and Zhang, Shape-IoU, arXiv:2312.17663.
    """
    dx, dy = offset(first, second)
    hull = enclosing(first, second)
    wide, high = (second.width + eps) ** scale, (second.height + eps) ** scale
    ww, hh = 2 * wide / (wide + high), 2 * high / (wide + high)
    distance = (hh * dx.square() + ww * dy.square()) / (hull.width.square() + hull.height.square() + eps)
    omega_w = hh * unlike(first.width, second.width, eps)
    omega_h = ww * unlike(first.height, second.height, eps)
    shape = (1 - torch.exp(-omega_w)) ** theta + (1 - torch.exp(-omega_h)) ** theta
    return 1 - iou(first, second, eps) + distance + shape / 2


def scaled(box: Box, ratio: float) -> Box:
    """The box of the same centre, its sides times the ratio."""
    more_w, more_h = (ratio - 1) / 2 * box.width, (ratio - 1) / 2 * box.height
    corners = box.left - more_w, box.top - more_h, box.right + more_w, box.bottom + more_h
    return Box(*corners, ratio * box.width, ratio * box.height)


@box_loss(limits={"ratio": (0.1, 10)})
def inner_giou(first: Box, second: Box, ratio: float = 0.75, eps: float = 1e-7) -> Tensor:
    """Inner-IoU in the place of IoU in GIoU loss: the overlap of both boxes shrunk (or grown) by a ratio.

    L = 1 - IoU(scaled A, scaled B) + (|C| - |A∪B|)/|C|.

    Source: Zhang et al., Inner-IoU, arXiv:2311.02877.
    """
    inner = iou(scaled(first, ratio), scaled(second, ratio), eps)
    return 1 - inner + empty_part(first, second, eps)


@box_loss(limits={"low": (0, 1), "high": (0, 1)})
def focaler_giou(first: Box, second: Box, low: float = 0.0, high: float = 0.95, eps: float = 1e-7) -> Tensor:
    """Focaler-IoU in the place of IoU in GIoU loss: the IoU stretched from an interval to 0 to 1.

    L = 1 - clamp((IoU - low)/(high - low), 0, 1) + (|C| - |A∪B|)/|C|.

    Source: Zhang and Zhang, Focaler-IoU, arXiv:2401.10525.
    """
    stretched = ((iou(first, second, eps) - low) / (high - low)).clamp(0, 1)
    return 1 - stretched + empty_part(first, second, eps)


@box_loss(limits={"constant": (1e-6, math.inf)})
def nwd(first: Box, second: Box, constant: float = 12.8, eps: float = 1e-7) -> Tensor:
    """NWD loss: the Wasserstein distance of two Gaussians that stand for the boxes.

    L = 1 - exp(-√W / C),  W = dx² + dy² + ((w₁-w₂)² + (h₁-h₂)²)/4,  C the mean size of objects in pixels.

    Source: Wang et al., A Normalized Gaussian Wasserstein Distance, arXiv:2110.13389.
    """
    dx, dy = offset(first, second)
    sizes = (first.width - second.width).square() + (first.height - second.height).square()
    return 1 - torch.exp(-(dx.square() + dy.square() + sizes / 4 + eps).sqrt() / constant)
