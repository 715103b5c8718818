# ruff: noqa
"""Losses of a softmax over classes, sound ones and faulty ones."""

import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

# sound


def cross_entropy(x, t):
    return F.cross_entropy(x, t)


def cross_entropy_none(x, t):
    return F.cross_entropy(x, t, reduction="none")


module = nn.CrossEntropyLoss()
smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
partial = functools.partial(F.cross_entropy, reduction="sum")
weighted_module = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0, 2.0, 0.5]))
weighted_of_two = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))


def one_hot_targets(x, t):
    return -(t * x.log_softmax(-1)).sum(-1)


def of_images(x, t):
    b, c, h, w = x.shape
    return F.cross_entropy(x.permute(0, 2, 3, 1).reshape(-1, c), t.reshape(-1))


class FocalOfCrossEntropy(nn.Module):
    def __init__(self, gamma=2.0, reduction="mean"):
        super().__init__()
        self.gamma, self.reduction = gamma, reduction

    def forward(self, logits, labels):
        ce = F.cross_entropy(logits, labels, reduction="none")
        loss = (1 - torch.exp(-ce)) ** self.gamma * ce
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() if self.reduction == "sum" else loss


class FocalGathered(nn.Module):
    """The most copied one: log_softmax, gather, alpha a list."""

    def __init__(self, gamma=2.0, alpha=None, size_average=True):
        super().__init__()
        self.gamma, self.size_average = gamma, size_average
        self.alpha = torch.tensor(alpha) if isinstance(alpha, list) else alpha

    def forward(self, input, target):
        if input.dim() > 2:
            input = input.view(input.size(0), input.size(1), -1).transpose(1, 2).reshape(-1, input.size(1))
        target = target.view(-1, 1)
        logpt = F.log_softmax(input, dim=-1).gather(1, target).view(-1)
        pt = logpt.exp()
        if self.alpha is not None:
            logpt = logpt * self.alpha.to(input).gather(0, target.view(-1))
        loss = -1 * (1 - pt) ** self.gamma * logpt
        return loss.mean() if self.size_average else loss.sum()


focal_with_list = FocalGathered(alpha=[0.1, 0.4, 0.4, 0.4])


def focal_one_hot(x, labels):
    p = (x.softmax(1) * F.one_hot(labels, x.shape[1])).sum(1).clamp(min=1e-12)
    return -((1 - p) ** 1.5) * p.log()


def focal_of_one_hot_targets(x, t):
    return -(t * (1 - x.softmax(-1)) ** 2 * x.log_softmax(-1)).sum(-1)


class LabelSmoothing(nn.Module):
    def __init__(self, epsilon=0.1):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, preds, target):
        n = preds.size(-1)
        log_preds = F.log_softmax(preds, dim=-1)
        smooth = -log_preds.sum(-1).mean() / n
        return (1 - self.epsilon) * F.nll_loss(log_preds, target) + self.epsilon * smooth


class PolyOne(nn.Module):
    def __init__(self, epsilon=1.0):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits, labels):
        pt = (F.one_hot(labels, logits.shape[1]) * logits.softmax(-1)).sum(-1)
        return (F.cross_entropy(logits, labels, reduction="none") + self.epsilon * (1 - pt)).mean()


def ignoring(x, t, ignore_index=-100):
    return F.cross_entropy(x, t, ignore_index=ignore_index)


def cast_labels(x, t):
    return F.cross_entropy(x, t.long())


# (log-)probabilities


def nll(x, t):
    return F.nll_loss(x, t, reduction="sum")


def log_of_probability(p, labels):
    return -p.gather(1, labels[:, None]).log().mean()


def log_of_one_hot_probability(p, t):
    return -(t * (p + 1e-12).log()).sum(-1).mean()


def categorical_normalised(y_true, y_pred, gamma=2.0):
    """Keras's categorical focal loss, in torch."""
    p = (y_pred / y_pred.sum(-1, keepdim=True)).clamp(1e-7, 1 - 1e-7)
    return -(y_true * (1 - p) ** gamma * p.log()).sum(-1).mean()


# faulty


def log_of_softmax(x, t):
    return -x.softmax(-1).gather(1, t[:, None]).log()


def softmax_twice(x, t):
    return F.cross_entropy(x.softmax(1), t)


def negative(x, t):
    return x.log_softmax(1).gather(1, t[:, None]).mean()


def over_the_batch(x, t):
    return -(t * x.log_softmax(0)).sum(-1).mean()


def weight_after_the_sum(x, t):
    cross = F.cross_entropy(x, t, reduction="sum")
    return (1 - torch.exp(-cross)) ** 2 * cross


def weight_after_the_mean(x, t, gamma=2):
    ce = F.cross_entropy(x, t)
    return (1 - torch.exp(-ce)) ** gamma * ce


class DetachedAtGammaZero(nn.Module):
    def __init__(self, gamma=0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, labels):
        log_p = F.log_softmax(logits, -1).gather(1, labels[:, None]).squeeze(1)
        weight = (1 - log_p.data.exp()) ** self.gamma
        return -(weight * log_p).mean()


detached_at_two = DetachedAtGammaZero(gamma=2)


def ignore_fails(x, t, ignore_index=-100):
    loss = -x.log_softmax(1).gather(1, t[:, None]).squeeze(1)
    return loss[t != ignore_index].mean()


def ignore_counts(x, t, ignore_index=-100):
    loss = -x.log_softmax(1).gather(1, t.clamp(min=0)[:, None]).squeeze(1)
    return loss.mean()
