# ruff: noqa
"""What much copied losses get wrong, one fault each."""

import torch
import torch.nn as nn
import torch.nn.functional as F

# alpha, weights


def alpha_on_both(inputs, targets, alpha=0.25, gamma=2.0):
    bce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return (alpha * (1 - torch.exp(-bce)) ** gamma * bce).mean()


class AlphaOnBoth(nn.Module):
    def __init__(self, alpha=0.8, gamma=2, reduction="mean"):
        super().__init__()
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

    def forward(self, inputs, targets):
        ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
        p_t = inputs.sigmoid() * targets + (1 - inputs.sigmoid()) * (1 - targets)
        return (self.alpha * ce * (1 - p_t) ** self.gamma).mean()


class WeightsInsideExp(nn.Module):
    """Sound without weights, its default."""

    def __init__(self, weight=None, gamma=2.0, reduction="mean"):
        super().__init__()
        self.weight, self.gamma, self.reduction = weight, gamma, reduction

    def forward(self, inputs, targets):
        ce = F.cross_entropy(inputs, targets, weight=self.weight, reduction="none")
        pt = torch.exp(-ce)
        return ((1 - pt) ** self.gamma * ce).mean()


weights_inside_given = WeightsInsideExp(torch.tensor([1.0, 3.0, 0.5, 2.0]))


class AlphaInsideExp(nn.Module):
    def __init__(self, alpha=None, gamma=2):
        super().__init__()
        self.gamma = gamma
        self.nll_loss = nn.NLLLoss(weight=alpha, reduction="none")

    def forward(self, x, y):
        ce = self.nll_loss(F.log_softmax(x, dim=-1), y)
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()


def class_weights_inside(inputs, targets, class_weights=None, gamma=2):
    log_pt = -F.cross_entropy(inputs, targets, weight=class_weights, reduction="none")
    return -((1 - log_pt.exp()) ** gamma * log_pt).mean()


def pos_weight_inside(inputs, targets, pos_weight=None, gamma=2.0):
    bce = F.binary_cross_entropy_with_logits(inputs, targets, pos_weight=pos_weight, reduction="none")
    return ((1 - torch.exp(-bce)) ** gamma * bce).mean()


class PosWeightInside(nn.Module):
    def __init__(self, pos_weight=3.0, gamma=2.0):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("pos_weight", torch.tensor(pos_weight))

    def forward(self, inputs, targets):
        bce = F.binary_cross_entropy_with_logits(
            inputs, targets, pos_weight=self.pos_weight, reduction="none"
        )
        return (1 - torch.exp(-bce)) ** self.gamma * bce


def cb_focal(labels, logits, alpha, gamma):
    """exp overflows at -89; without positives it divides by 0."""
    bce = F.binary_cross_entropy_with_logits(input=logits, target=labels, reduction="none")
    modulator = (
        1.0
        if gamma == 0.0
        else torch.exp(-gamma * labels * logits - gamma * torch.log(1 + torch.exp(-1.0 * logits)))
    )
    weighted_loss = alpha * modulator * bce
    return weighted_loss.sum() / torch.sum(labels)


# labels


def labels_equal_one(inputs, labels, alpha=0.25, gamma=2.0):
    p = inputs.sigmoid()
    p_t = torch.where(labels == 1, p, 1 - p)
    alpha_t = torch.where(labels == 1, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * torch.log(p_t.clamp(min=1e-8))


def weight_where_label_is_one(inputs, labels, pos=2.0):
    weight = torch.where(labels == 1.0, torch.full_like(labels, pos), torch.ones_like(labels))
    return F.binary_cross_entropy_with_logits(inputs, labels, weight=weight)


class MaskWhereLabelIsOne(nn.Module):
    def forward(self, logits, targets):
        positive, negative = (targets == 1).float(), (targets == 0).float()
        return -(
            positive * F.logsigmoid(logits) + negative * F.logsigmoid(-logits)
        ).sum() / positive.sum().clamp(min=1)


# gamma 0 by default


class DetachedWeightAtZero(nn.Module):
    def __init__(self, gamma=0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, targets):
        bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return ((1 - torch.exp(-bce.detach())) ** self.gamma * bce).mean()


def easy_ones_weigh_more_at_two(logits, labels, gamma=0):
    log_p = F.log_softmax(logits, -1).gather(1, labels[:, None]).squeeze(1)
    return -(log_p.exp() ** gamma * log_p).mean()


class FocusingAtZero(nn.Module):
    """The exponent under another name."""

    def __init__(self, focusing=0.0):
        super().__init__()
        self.focusing = focusing

    def forward(self, logits, targets):
        bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        with torch.no_grad():
            weight = (1 - torch.exp(-bce)) ** self.focusing
        return weight * bce


class MeanFirstAtZero(nn.Module):
    def __init__(self, gamma=0, weight=None):
        super().__init__()
        self.gamma = gamma
        self.ce = nn.CrossEntropyLoss(weight=weight)

    def forward(self, input, target):
        logp = self.ce(input, target)
        return ((1 - torch.exp(-logp)) ** self.gamma * logp).mean()


# regions


def dice_without_eps(logits, masks):
    p = logits.sigmoid().flatten(1)
    m = masks.flatten(1)
    return (1 - 2 * (p * m).sum(1) / ((p.round() * 0 + m).sum(1) + (m * 0).sum(1))).mean()


def dice_of_decisions(logits, masks):
    p = (logits.sigmoid() > 0.5).float().flatten()
    m = masks.flatten()
    return 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)


def dice_coefficient(logits, masks):
    p, m = logits.sigmoid().reshape(-1), masks.reshape(-1)
    return (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)


def tversky_of_detached(logits, masks):
    p, m = logits.sigmoid().detach().reshape(-1), masks.reshape(-1)
    hit = (p * m).sum()
    return 1 - (hit + 1) / (hit + 0.3 * ((1 - m) * p).sum() + 0.7 * (m * (1 - p)).sum() + 1)


class DiceOnGpu(nn.Module):
    def forward(self, logits, masks):
        p = logits.sigmoid().reshape(-1)
        m = masks.reshape(-1)
        one = torch.ones(1).cuda()
        return one - (2 * (p * m).sum() + one) / (p.sum() + m.sum() + one)


def dice_changes_its_target(logits, masks):
    p = logits.sigmoid()
    masks[masks < 0.5] = 0.05
    return 1 - (2 * (p * masks).sum() + 1) / (p.sum() + masks.sum() + 1)


def dice_backwards(logits, masks):
    """The background is rewarded for the foreground."""
    p, m = 1 - logits.sigmoid().reshape(-1), masks.reshape(-1)
    return 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)


# devices, states, branches


def own_table_on_cpu(x, t):
    table = torch.tensor([1.0, 2.0])
    return (
        F.binary_cross_entropy_with_logits(x, t, reduction="none")
        * table[t.long().cpu()].view(t.shape)
        * torch.linspace(1, 1, x.shape[-1])
    )


class Momentum(nn.Module):
    """A running mean in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(1.0))

    def forward(self, x, t):
        loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
        self.mean = 0.999 * self.mean + 0.001 * loss.detach().mean()
        return loss / self.mean


def branch_without_value(x, t, mode="plain"):
    if mode == "plain":
        loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    elif mode == "focal":
        ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
        weighted = (1 - torch.exp(-ce)) ** 2 * ce
    return loss


def focus_falls_far_out(pred, target, lambd=1.3, eps=1e-7):
    """Powerful IoU, version 2: its focus is not detached, and far from the target the loss falls."""
    lt, rb = torch.max(pred[:, :2], target[:, :2]), torch.min(pred[:, 2:], target[:, 2:])
    inter = (rb - lt).clamp(min=0).prod(1)
    area = (pred[:, 2:] - pred[:, :2]).prod(1) + (target[:, 2:] - target[:, :2]).prod(1)
    iou = inter / (area - inter + eps)
    wh = target[:, 2:] - target[:, :2]
    d = ((pred - target).abs() / (torch.cat((wh, wh), 1) + eps)).mean(1)
    x = torch.exp(-d) * lambd
    return 3 * x * torch.exp(-(x**2)) * (2 - iou - torch.exp(-(d**2)))
