# ruff: noqa
"""What cannot be called, or fails when it is."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def needs_more(x, t, priors):
    return (F.binary_cross_entropy_with_logits(x, t, reduction="none") * priors).mean()


def volumes(x, t):
    b, c, d, h, w = x.shape
    return ((x.sigmoid() - t) ** 2).sum((2, 3, 4)).mean() / (d * h * w)


def always_raises(x, t):
    raise RuntimeError("never")


def wrong_shape(x, t):
    return x.reshape(-1, 11) - t


def prints_only(x, t):
    print(x)


def calls_a_lost_function(x, t):
    return lost(x)


def leaves(x, t):
    raise SystemExit(3)


def calls_itself(x, t):
    return calls_itself(x, t)


def makes_a_loss(gamma=2.0, alpha=0.25):
    def inner(x, t):
        return x

    return inner


WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


def weights_of_dense_classes(logits, targets):
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * WEIGHTS.to(logits)).mean()


def large_logits_refused(x, t):
    assert (x.abs() < 5).all(), "logits are too large"
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def nan_everywhere(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * float("nan")


def yolo_layout(predictions, targets, anchors, strides):
    return sum((p - t).square().mean() for p, t in zip(predictions, targets)) * len(anchors) / len(strides)
