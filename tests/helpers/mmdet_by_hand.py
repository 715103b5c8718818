"""What mmdetection's losses compute, written down from their formulas: mmdet has no wheel for this torch.

Classes as there: hyperparameters first, then prediction and target; the mean unless `avg_factor` is given.
"""

import math

import torch
from torch.nn import functional as F


def reduced(loss, avg_factor):
    return loss.mean() if avg_factor is None else loss.sum() / avg_factor


def one_hot(label, classes):
    return F.one_hot(label, classes + 1)[:, :classes]


class Loss:
    def __init__(self, **hyper):
        self.hyper = hyper

    def __call__(self, prediction, target, avg_factor=None):
        return reduced(self.each(prediction, target, **self.hyper), avg_factor)


class FocalLoss(Loss):
    def each(self, x, label, use_sigmoid=True, gamma=2.0, alpha=0.25):
        p, y = x.sigmoid(), one_hot(label, x.shape[1]).to(x.dtype)
        wrong = p * (1 - y) + (1 - p) * y
        balance = torch.where(y > 0, alpha, 1 - alpha)
        return balance * wrong**gamma * F.binary_cross_entropy_with_logits(x, y, reduction="none")


class QualityFocalLoss(Loss):
    def each(self, x, target, use_sigmoid=True, beta=2.0):
        label, score = target
        y = one_hot(label, x.shape[1]) * score[:, None]
        loss = (y - x.sigmoid()).abs() ** beta * F.binary_cross_entropy_with_logits(x, y, reduction="none")
        return loss.sum(1)


class VarifocalLoss(Loss):
    def each(self, x, y, use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True):
        positive = y if iou_weighted else torch.ones_like(y)
        weight = torch.where(y > 0, positive, alpha * x.sigmoid() ** gamma)
        return weight * F.binary_cross_entropy_with_logits(x, y, reduction="none")


class CrossEntropyLoss(Loss):
    def each(self, x, label, use_sigmoid=True):
        y = one_hot(label, x.shape[1]).to(x.dtype)
        return F.binary_cross_entropy_with_logits(x, y, reduction="none")


class GaussianFocalLoss(Loss):
    def each(self, p, y, alpha=2.0, gamma=4.0):
        centre = (p + 1e-12).log() * (1 - p) ** alpha * (y == 1)
        around = (1 - p + 1e-12).log() * p**alpha * (1 - y) ** gamma
        return -centre - around


class DistributionFocalLoss(Loss):
    def each(self, logits, distance):
        left = distance.long()
        right = left + 1
        return (right - distance) * F.cross_entropy(logits, left, reduction="none") + (
            distance - left
        ) * F.cross_entropy(logits, right, reduction="none")


def area(box):
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def overlap(a, b):
    corner, end = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    return (end - corner).clamp(min=0).prod(1)


def enclosing(a, b):
    return (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0)


class IoULoss(Loss):
    def each(self, a, b, mode="log", eps=1e-6):
        shared = overlap(a, b)
        iou = (shared / (area(a) + area(b) - shared).clamp(min=1e-6)).clamp(min=eps)
        return {"log": -iou.log(), "linear": 1 - iou, "square": 1 - iou**2}[mode]


class GIoULoss(Loss):
    def each(self, a, b, eps=1e-6):
        shared = overlap(a, b)
        union = (area(a) + area(b) - shared).clamp(min=eps)
        hull = enclosing(a, b).prod(1).clamp(min=eps)
        return 1 - (shared / union - (hull - union) / hull)


def distance_parts(a, b, eps):
    """IoU and the distance term, eps added to both denominators."""
    shared = overlap(a, b)
    apart = (b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]).square().sum(1) / 4
    diagonal = enclosing(a, b).square().sum(1)
    return shared / (area(a) + area(b) - shared + eps), apart / (diagonal + eps)


class DIoULoss(Loss):
    def each(self, a, b, eps=1e-6):
        iou, distance = distance_parts(a, b, eps)
        return 1 - (iou - distance)


class CIoULoss(Loss):
    def each(self, a, b, eps=1e-6):
        iou, distance = distance_parts(a, b, eps)
        angles = [((c[:, 2] - c[:, 0]) / (c[:, 3] - c[:, 1] + eps)).atan() for c in (a, b)]
        v = 4 / math.pi**2 * (angles[1] - angles[0]) ** 2
        alpha = ((iou > 0.5) * v / (1 - iou + v)).detach()
        return 1 - (iou - distance - alpha * v).clamp(-1, 1)
