# ruff: noqa
"""Losses of boxes, sound ones and faulty ones."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def areas(b):
    return (b[:, 2:] - b[:, :2]).clamp(min=0).prod(1)


def overlap(a, b):
    lt, rb = torch.max(a[:, :2], b[:, :2]), torch.min(a[:, 2:], b[:, 2:])
    return (rb - lt).clamp(min=0).prod(1)


def iou(a, b, eps=1e-7):
    inter = overlap(a, b)
    return inter / (areas(a) + areas(b) - inter + eps)


def hull_sides(a, b):
    return torch.max(a[:, 2:], b[:, 2:]) - torch.min(a[:, :2], b[:, :2])


def centre_distance(a, b):
    return ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) ** 2).sum(1) / 4


# sound


def iou_loss(pred, target):
    return 1 - iou(pred, target)


def iou_loss_mean(pred, target):
    return (1 - iou(pred, target)).mean()


def scaled(pred, target):
    return 5 * (1 - iou(pred, target))


def giou_loss(pred, target, eps=1e-7):
    inter = overlap(pred, target)
    union = areas(pred) + areas(target) - inter + eps
    hull = hull_sides(pred, target).prod(1) + eps
    return 1 - (inter / union - (hull - union) / hull)


def diou_loss(pred, target, eps=1e-7):
    diagonal = (hull_sides(pred, target) ** 2).sum(1) + eps
    return 1 - iou(pred, target) + centre_distance(pred, target) / diagonal


def ciou_loss(pred, target, eps=1e-7):
    w1, h1 = (pred[:, 2:] - pred[:, :2]).unbind(1)
    w2, h2 = (target[:, 2:] - target[:, :2]).unbind(1)
    v = 4 / math.pi**2 * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    overlap_ = iou(pred, target)
    with torch.no_grad():
        alpha = v / (v - overlap_ + 1 + eps)
    diagonal = (hull_sides(pred, target) ** 2).sum(1) + eps
    return 1 - overlap_ + centre_distance(pred, target) / diagonal + alpha * v


def ciou_full_gradient(pred, target, eps=1e-7):
    w1, h1 = (pred[:, 2:] - pred[:, :2]).unbind(1)
    w2, h2 = (target[:, 2:] - target[:, :2]).unbind(1)
    v = 4 / math.pi**2 * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    overlap_ = iou(pred, target)
    alpha = v / (v - overlap_ + 1 + eps)
    diagonal = (hull_sides(pred, target) ** 2).sum(1) + eps
    return 1 - overlap_ + centre_distance(pred, target) / diagonal + alpha * v


def eiou_loss(pred, target, eps=1e-7):
    hull = hull_sides(pred, target)
    sides = (pred[:, 2:] - pred[:, :2] - target[:, 2:] + target[:, :2]) ** 2
    far = centre_distance(pred, target) / ((hull**2).sum(1) + eps)
    return 1 - iou(pred, target) + far + (sides / (hull**2 + eps)).sum(1)


def log_iou(pred, target, eps=1e-6):
    """mmdet's default."""
    return -iou(pred, target).clamp(min=eps).log()


def squared_iou(pred, target):
    return 1 - iou(pred, target) ** 2


def iou_of_centres(pred, target):
    a = torch.cat((pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2), 1)
    b = torch.cat((target[:, :2] - target[:, 2:] / 2, target[:, :2] + target[:, 2:] / 2), 1)
    return 1 - iou(a, b)


def iou_of_xywh(pred, target):
    a, b = (torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1) for boxes in (pred, target))
    return 1 - iou(a, b)


def siou_loss(pred, target, eps=1e-7, theta=4):
    """SIoU as YOLOv6 has it."""
    c1, c2 = (pred[:, :2] + pred[:, 2:]) / 2, (target[:, :2] + target[:, 2:]) / 2
    w1, h1 = (pred[:, 2:] - pred[:, :2]).unbind(1)
    w2, h2 = (target[:, 2:] - target[:, :2]).unbind(1)
    off = c2 - c1
    sigma = torch.sqrt((off**2).sum(1) + eps)
    sin = off.abs() / sigma[:, None]
    threshold = math.sqrt(2) / 2
    sin_alpha = torch.where(sin[:, 0] > threshold, sin[:, 1], sin[:, 0]).clamp(max=1 - eps)
    angle = torch.cos(torch.arcsin(sin_alpha) * 2 - math.pi / 2)
    rho = (off / (hull_sides(pred, target) + eps)) ** 2
    gamma = 2 - angle
    distance = (1 - torch.exp(-gamma[:, None] * rho)).sum(1)
    omega_w = (w1 - w2).abs() / torch.max(w1, w2).clamp(min=eps)
    omega_h = (h1 - h2).abs() / torch.max(h1, h2).clamp(min=eps)
    shape = (1 - torch.exp(-omega_w)) ** theta + (1 - torch.exp(-omega_h)) ** theta
    return 1 - iou(pred, target) + 0.5 * (distance + shape)


class WIoU:
    """WIoU version 1: a distance weight whose denominator is detached."""

    def __call__(self, pred, target):
        hull = (hull_sides(pred, target) ** 2).sum(1).detach() + 1e-7
        return (1 - iou(pred, target)) * torch.exp(centre_distance(pred, target) / hull)


def l1(pred, target):
    return F.l1_loss(pred, target, reduction="none").sum(-1)


def smooth_l1(pred, target):
    return F.smooth_l1_loss(pred, target, reduction="none", beta=1.0)


def ciou_and_squares(pred, target):
    return ciou_loss(pred, target) + (pred - target).square().mean(-1)


class GIoUMmdet(nn.Module):
    def __init__(self, eps=1e-6, reduction="mean", loss_weight=1.0):
        super().__init__()
        self.eps, self.reduction, self.loss_weight = eps, reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None):
        loss = giou_loss(pred, target, self.eps)
        if weight is not None:
            loss = loss * weight
        if avg_factor is not None:
            return self.loss_weight * loss.sum() / avg_factor
        if self.reduction == "mean":
            loss = loss.mean()
        elif self.reduction == "sum":
            loss = loss.sum()
        return self.loss_weight * loss


def by_form(pred, target, form="centre"):
    """Each form that there is, and one of them by default."""
    if form == "xyxy":
        a, b = pred, target
    elif form == "centre":
        a = torch.cat([pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2], 1)
        b = torch.cat([target[:, :2] - target[:, 2:] / 2, target[:, :2] + target[:, 2:] / 2], 1)
    inter = (torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    return 1 - inter / (union + 1e-7)


def one_against_many(box1, box2, eps=1e-7):
    """As YOLOv5 had it: one box against n, box2 transposed."""
    box2 = box2.T
    b1_x1, b1_y1, b1_x2, b1_y2 = box1[0], box1[1], box1[2], box1[3]
    b2_x1, b2_y1, b2_x2, b2_y2 = box2[0], box2[1], box2[2], box2[3]
    inter = (torch.min(b1_x2, b2_x2) - torch.max(b1_x1, b2_x1)).clamp(0) * (
        torch.min(b1_y2, b2_y2) - torch.max(b1_y1, b2_y1)
    ).clamp(0)
    union = (b1_x2 - b1_x1) * (b1_y2 - b1_y1) + (b2_x2 - b2_x1) * (b2_y2 - b2_y1) - inter + eps
    return 1 - inter / union


def letters(p, t):
    """Boxes, though nothing says so."""
    low, high = torch.max(p[..., :2], t[..., :2]), torch.min(p[..., 2:4], t[..., 2:4])
    inter = (high - low).clamp(0).prod(-1)
    area = sum((one[..., 2:4] - one[..., :2]).prod(-1) for one in (p, t))
    return 1 - inter / (area - inter + 1e-7)


# faulty


def similarity(a, b):
    return iou(a, b)


def no_eps(pred, target):
    return 1 - iou(pred, target, 0.0)


def log_without_eps(pred, target):
    return -iou(pred, target).log()


def diou_without_eps(pred, target):
    """The diagonal of two equal points is 0."""
    return 1 - iou(pred, target) + centre_distance(pred, target) / (hull_sides(pred, target) ** 2).sum(1)


def aspect_without_eps(pred, target):
    angle = [torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (pred, target)]
    return 1 - iou(pred, target) + (angle[0] - angle[1]) ** 2


def overlap_not_clamped(pred, target):
    inter = (torch.min(pred[:, 2:], target[:, 2:]) - torch.max(pred[:, :2], target[:, :2])).prod(1)
    return 1 - inter / (areas(pred) + areas(target) - inter + 1e-7)


def one_area_twice(pred, target):
    inter = overlap(pred, target)
    hull = hull_sides(pred, target).prod(1)
    union = 2 * areas(pred) - inter
    return 1 - inter / (union + 1e-7) + (hull - union) / (hull + 1e-7)


def formats_mixed(pred, target):
    corners = torch.cat((pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2), 1)
    return 1 - iou(corners, target)


def diou_sign(pred, target, eps=1e-7):
    """The distance is subtracted: farther costs less."""
    diagonal = (hull_sides(pred, target) ** 2).sum(1) + eps
    return 1 - iou(pred, target) - centre_distance(pred, target) / diagonal


def siou_falls_with_distance(pred, target, eps=1e-7):
    """As mmdet has it by default: the exponents of the distance have lost their minus."""
    w1, h1 = pred[:, 2] - pred[:, 0], pred[:, 3] - pred[:, 1] + eps
    w2, h2 = target[:, 2] - target[:, 0], target[:, 3] - target[:, 1] + eps
    off = (target[:, :2] + target[:, 2:] - pred[:, :2] - pred[:, 2:]) / 2 + eps
    sin = off.abs() / (off**2).sum(1, keepdim=True).sqrt()
    sin_alpha = torch.where(sin[:, 0] > 2**0.5 / 2, sin[:, 1], sin[:, 0])
    gamma = 2 - torch.cos(torch.asin(sin_alpha) * 2 - math.pi / 2)
    distance = (1 - torch.exp(gamma[:, None] * (off / hull_sides(pred, target)) ** 2)).sum(1)
    omega = torch.stack(((w1 - w2).abs() / torch.max(w1, w2), (h1 - h2).abs() / torch.max(h1, h2)))
    shape = ((1 - torch.exp(-omega)) ** 4).sum(0)
    return 1 - (iou(pred, target) - 0.5 * (distance + shape)).clamp(-1, 1)


def all_pairs_mean(boxes1, boxes2):
    lt = torch.max(boxes1[:, None, :2], boxes2[None, :, :2])
    rb = torch.min(boxes1[:, None, 2:], boxes2[None, :, 2:])
    inter = (rb - lt).clamp(min=0).prod(2)
    return (1 - inter / (areas(boxes1)[:, None] + areas(boxes2)[None] - inter + 1e-7)).mean()


def half_the_gradient(a, b):
    return giou_loss(a.detach() + (a - a.detach()) / 2, b)


def loop_over_pairs(a, b):
    return torch.cat([1 - iou(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])


def column(box1, box2):
    return (1 - iou(box1, box2))[:, None]


class Mean:
    value = 1.0


def focusing(pred, target):
    """WIoU version 3 in short: a slow running mean, momentum 6e-5."""
    loss = 1 - iou(pred, target)
    Mean.value = 0.99994 * Mean.value + 0.00006 * loss.detach().mean().item()
    return loss * (loss.detach() / Mean.value)
