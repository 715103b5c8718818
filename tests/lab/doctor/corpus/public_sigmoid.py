# ruff: noqa
"""Sound losses of a sigmoid per class, in the shapes in which published code has them."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class RetinaFocal(nn.Module):
    """The cross entropy is a sum over classes and positives here: sigmoid of dense rows, clamped."""

    def __init__(self, alpha=0.25, gamma=2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, classification, targets):
        classification = torch.clamp(classification, 1e-4, 1.0 - 1e-4)
        alpha_factor = torch.ones_like(targets) * self.alpha
        alpha_factor = torch.where(torch.eq(targets, 1.0), alpha_factor, 1.0 - alpha_factor)
        focal_weight = torch.where(torch.eq(targets, 1.0), 1.0 - classification, classification)
        focal_weight = alpha_factor * torch.pow(focal_weight, self.gamma)
        bce = -(targets * torch.log(classification) + (1.0 - targets) * torch.log(1.0 - classification))
        return (focal_weight * bce).sum() / torch.clamp(torch.eq(targets, 1.0).sum().float(), min=1.0)


class YoloFocal(nn.Module):
    def __init__(self, loss_fcn=nn.BCEWithLogitsLoss(), gamma=1.5, alpha=0.25):
        super().__init__()
        self.loss_fcn = loss_fcn
        self.gamma, self.alpha = gamma, alpha
        self.reduction = "mean"

    def forward(self, pred, true):
        loss = F.binary_cross_entropy_with_logits(pred, true, reduction="none")
        pred_prob = torch.sigmoid(pred)
        p_t = true * pred_prob + (1 - true) * (1 - pred_prob)
        alpha_factor = true * self.alpha + (1 - true) * (1 - self.alpha)
        loss *= alpha_factor * (1.0 - p_t) ** self.gamma
        return loss.mean()


class YoloQFocal(nn.Module):
    def __init__(self, gamma=1.5, alpha=0.25):
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred, true):
        loss = F.binary_cross_entropy_with_logits(pred, true, reduction="none")
        alpha_factor = true * self.alpha + (1 - true) * (1 - self.alpha)
        return (loss * alpha_factor * torch.abs(true - torch.sigmoid(pred)) ** self.gamma).mean()


class BCEBlur(nn.Module):
    """With reduced effects of missing labels."""

    def __init__(self, alpha=0.05):
        super().__init__()
        self.loss_fcn = nn.BCEWithLogitsLoss(reduction="none")
        self.alpha = alpha

    def forward(self, pred, true):
        loss = self.loss_fcn(pred, true)
        pred = torch.sigmoid(pred)
        dx = pred - true
        alpha_factor = 1 - torch.exp((dx - 1) / (self.alpha + 1e-4))
        loss *= alpha_factor
        return loss.mean()


def py_sigmoid_focal_loss(
    pred, target, weight=None, gamma=2.0, alpha=0.25, reduction="mean", avg_factor=None
):
    pred_sigmoid = pred.sigmoid()
    target = target.type_as(pred)
    pt = (1 - pred_sigmoid) * target + pred_sigmoid * (1 - target)
    focal_weight = (alpha * target + (1 - alpha) * (1 - target)) * pt.pow(gamma)
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * focal_weight
    if weight is not None:
        if weight.shape != loss.shape:
            weight = weight.view(-1, 1) if weight.size(0) == loss.size(0) else weight.view(loss.size(0), -1)
        loss = loss * weight
    if avg_factor is None:
        return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
    return loss.sum() / avg_factor if reduction == "mean" else loss


def py_focal_loss_with_prob(
    pred, target, weight=None, gamma=2.0, alpha=0.25, reduction="mean", avg_factor=None
):
    if pred.dim() != target.dim():
        num_classes = pred.size(1)
        target = F.one_hot(target, num_classes=num_classes + 1)
        target = target[:, :num_classes]
    target = target.type_as(pred)
    pt = (1 - pred) * target + pred * (1 - target)
    focal_weight = (alpha * target + (1 - alpha) * (1 - target)) * pt.pow(gamma)
    loss = F.binary_cross_entropy(pred, target, reduction="none") * focal_weight
    return loss.mean()


def detr_sigmoid_focal(inputs, targets, num_boxes, alpha: float = 0.25, gamma: float = 2):
    prob = inputs.sigmoid()
    ce_loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = prob * targets + (1 - prob) * (1 - targets)
    loss = ce_loss * ((1 - p_t) ** gamma)
    if alpha >= 0:
        alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
        loss = alpha_t * loss
    return loss.mean(1).sum() / num_boxes


def mmdet_varifocal(
    pred, target, weight=None, alpha=0.75, gamma=2.0, iou_weighted=True, reduction="mean", avg_factor=None
):
    assert pred.size() == target.size()
    pred_sigmoid = pred.sigmoid()
    target = target.type_as(pred)
    if iou_weighted:
        focal_weight = (
            target * (target > 0.0).float()
            + alpha * (pred_sigmoid - target).abs().pow(gamma) * (target <= 0.0).float()
        )
    else:
        focal_weight = (target > 0.0).float() + alpha * (pred_sigmoid - target).abs().pow(gamma) * (
            target <= 0.0
        ).float()
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * focal_weight
    return loss.mean()


class UltralyticsVarifocal(nn.Module):
    """Its third argument is the label."""

    def __init__(self, gamma=2.0, alpha=0.75):
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred_score, gt_score, label):
        weight = self.alpha * pred_score.sigmoid().pow(self.gamma) * (1 - label) + gt_score * label
        with torch.autocast(device_type="cpu", enabled=False):
            return (
                (
                    F.binary_cross_entropy_with_logits(pred_score.float(), gt_score.float(), reduction="none")
                    * weight
                )
                .mean(1)
                .sum()
            )


def gfl_quality(pred, target, beta=2.0):
    """A pair of labels and scores, in place on its own tensor."""
    assert len(target) == 2, "target for QFL must be a tuple of two elements"
    label, score = target
    pred_sigmoid = pred.sigmoid()
    scale_factor = pred_sigmoid
    zerolabel = scale_factor.new_zeros(pred.shape)
    loss = F.binary_cross_entropy_with_logits(pred, zerolabel, reduction="none") * scale_factor.pow(beta)
    bg_class_ind = pred.size(1)
    pos = ((label >= 0) & (label < bg_class_ind)).nonzero().squeeze(1)
    pos_label = label[pos].long()
    scale_factor = score[pos] - pred_sigmoid[pos, pos_label]
    loss[pos, pos_label] = F.binary_cross_entropy_with_logits(
        pred[pos, pos_label], score[pos], reduction="none"
    ) * scale_factor.abs().pow(beta)
    return loss.sum(dim=1, keepdim=False)


def corner_heatmap(pred, gt):
    """CornerNet's and CenterNet's, on maps of probabilities."""
    pos_inds = gt.eq(1).float()
    neg_inds = gt.lt(1).float()
    neg_weights = torch.pow(1 - gt, 4)
    loss = 0
    pos_loss = torch.log(pred) * torch.pow(1 - pred, 2) * pos_inds
    neg_loss = torch.log(1 - pred) * torch.pow(pred, 2) * neg_weights * neg_inds
    num_pos = pos_inds.float().sum()
    pos_loss, neg_loss = pos_loss.sum(), neg_loss.sum()
    if num_pos == 0:
        loss = loss - neg_loss
    else:
        loss = loss - (pos_loss + neg_loss) / num_pos
    return loss


def center_heatmap_clamped(out, target):
    """The same from logits, with their own clamped sigmoid."""
    pred = torch.clamp(torch.sigmoid(out), min=1e-4, max=1 - 1e-4)
    pos, neg = target.eq(1).float(), target.lt(1).float()
    pos_loss = (torch.log(pred) * torch.pow(1 - pred, 2) * pos).sum()
    neg_loss = (torch.log(1 - pred) * torch.pow(pred, 2) * torch.pow(1 - target, 4) * neg).sum()
    return -(pos_loss + neg_loss) / pos.sum().clamp(min=1)


class AsymmetricLoss(nn.Module):
    def __init__(self, gamma_neg=4, gamma_pos=1, clip=0.05, eps=1e-8, disable_torch_grad_focal_loss=True):
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.clip, self.eps = gamma_neg, gamma_pos, clip, eps
        self.disable_torch_grad_focal_loss = disable_torch_grad_focal_loss

    def forward(self, x, y):
        x_sigmoid = torch.sigmoid(x)
        xs_pos, xs_neg = x_sigmoid, 1 - x_sigmoid
        if self.clip is not None and self.clip > 0:
            xs_neg = (xs_neg + self.clip).clamp(max=1)
        loss = y * torch.log(xs_pos.clamp(min=self.eps)) + (1 - y) * torch.log(xs_neg.clamp(min=self.eps))
        if self.gamma_neg > 0 or self.gamma_pos > 0:
            with torch.set_grad_enabled(not self.disable_torch_grad_focal_loss and torch.is_grad_enabled()):
                pt = xs_pos * y + xs_neg * (1 - y)
                gamma = self.gamma_pos * y + self.gamma_neg * (1 - y)
                weight = torch.pow(1 - pt, gamma)
            loss = loss * weight
        return -loss.sum()


class AsymmetricLossOptimized(nn.Module):
    """Attributes in place of local tensors, operations in place."""

    def __init__(self, gamma_neg=4, gamma_pos=1, clip=0.05, eps=1e-8):
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.clip, self.eps = gamma_neg, gamma_pos, clip, eps
        self.targets = self.anti_targets = self.xs_pos = self.xs_neg = self.asymmetric_w = self.loss = None

    def forward(self, x, y):
        self.targets = y
        self.anti_targets = 1 - y
        self.xs_pos = torch.sigmoid(x)
        self.xs_neg = 1.0 - self.xs_pos
        if self.clip is not None and self.clip > 0:
            self.xs_neg = (self.xs_neg + self.clip).clamp_(max=1)
        self.loss = self.targets * torch.log(self.xs_pos.clamp(min=self.eps))
        self.loss.add_(self.anti_targets * torch.log(self.xs_neg.clamp(min=self.eps)))
        with torch.no_grad():
            xs_pos, xs_neg = self.xs_pos * self.targets, self.xs_neg * self.anti_targets
            self.asymmetric_w = torch.pow(
                1 - xs_pos - xs_neg, self.gamma_pos * self.targets + self.gamma_neg * self.anti_targets
            )
        self.loss = self.loss * self.asymmetric_w
        return -self.loss.sum()


class GHMC(nn.Module):
    """Weights by the density of gradients; the third argument masks rows."""

    def __init__(self, bins=10, momentum=0, use_sigmoid=True, loss_weight=1.0, reduction="mean"):
        super().__init__()
        self.bins, self.momentum = bins, momentum
        edges = torch.arange(bins + 1).float() / bins
        self.register_buffer("edges", edges)
        self.edges[-1] += 1e-6
        if momentum > 0:
            self.register_buffer("acc_sum", torch.zeros(bins))
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, label_weight, reduction_override=None, **kwargs):
        if pred.dim() != target.dim():
            target = F.one_hot(target, pred.shape[-1])
        target, label_weight = target.float(), label_weight.float()
        edges, mmt = self.edges, self.momentum
        weights = torch.zeros_like(pred)
        g = torch.abs(pred.sigmoid().detach() - target)
        valid = label_weight > 0
        tot = max(valid.float().sum().item(), 1.0)
        n = 0
        for i in range(self.bins):
            inds = (g >= edges[i]) & (g < edges[i + 1]) & valid
            num_in_bin = inds.sum().item()
            if num_in_bin > 0:
                if mmt > 0:
                    self.acc_sum[i] = mmt * self.acc_sum[i] + (1 - mmt) * num_in_bin
                    weights[inds] = tot / self.acc_sum[i]
                else:
                    weights[inds] = tot / num_in_bin
                n += 1
        if n > 0:
            weights = weights / n
        loss = F.binary_cross_entropy_with_logits(pred, target, weights, reduction="none")
        return loss.sum() / tot * self.loss_weight


class ClassBalancedSigmoid(nn.Module):
    """Weights by the effective number of samples; one-hot rows from indices."""

    def __init__(self, samples_per_cls, no_of_classes, beta=0.9999, gamma=2.0):
        super().__init__()
        self.samples_per_cls, self.no_of_classes, self.beta, self.gamma = (
            samples_per_cls,
            no_of_classes,
            beta,
            gamma,
        )

    def forward(self, logits, labels):
        effective = 1.0 - torch.pow(self.beta, torch.as_tensor(self.samples_per_cls, dtype=torch.float32))
        weights = (1.0 - self.beta) / effective
        weights = weights / weights.sum() * self.no_of_classes
        hot = F.one_hot(labels, self.no_of_classes).float()
        weights = (weights.to(hot) * hot).sum(1, keepdim=True).repeat(1, self.no_of_classes)
        return F.binary_cross_entropy_with_logits(logits, hot, weight=weights)


def CB_loss(labels, logits, samples_per_cls, no_of_classes, loss_type, beta, gamma):
    effective_num = 1.0 - torch.pow(beta, torch.tensor(samples_per_cls).float())
    weights = (1.0 - beta) / effective_num
    weights = weights / torch.sum(weights) * no_of_classes
    hot = F.one_hot(labels, no_of_classes).float()
    weights = (
        (weights.unsqueeze(0).repeat(hot.shape[0], 1) * hot).sum(1).unsqueeze(1).repeat(1, no_of_classes)
    )
    if loss_type == "sigmoid":
        return F.binary_cross_entropy_with_logits(input=logits, target=hot, weight=weights)
    return F.binary_cross_entropy(input=logits.softmax(dim=1), target=hot, weight=weights)


def ohem_bce(logits, targets, ratio=0.7):
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").reshape(-1)
    keep = max(1, int(ratio * loss.numel()))
    return loss.topk(keep).values.mean()


class OhnmOfSsd(nn.Module):
    """Three negatives per positive."""

    def __init__(self, neg_pos_ratio=3):
        super().__init__()
        self.neg_pos_ratio = neg_pos_ratio

    def forward(self, pred, target):
        loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
        positive = target > 0.5
        count = int(positive.sum())
        negatives = loss[~positive]
        hard = negatives.topk(min(len(negatives), max(1, self.neg_pos_ratio * count))).values
        return (loss[positive].sum() + hard.sum()) / max(1, count)


class EqualizedFocalLite(nn.Module):
    """Each class has its own gamma, from a buffer of gradients."""

    def __init__(self, num_classes=3, gamma_b=2.0, scale_factor=8.0):
        super().__init__()
        self.gamma_b, self.s = gamma_b, scale_factor
        self.register_buffer("pos_neg", torch.ones(num_classes) * 0.7)

    def forward(self, input, target):
        p = torch.sigmoid(input)
        pt = p * target + (1 - p) * (1 - target)
        gamma = self.gamma_b + self.s * (1 - self.pos_neg)
        weight = gamma / self.gamma_b
        ce = F.binary_cross_entropy_with_logits(input, target, reduction="none")
        return (weight * torch.pow(1 - pt, gamma) * ce).sum() / max(1, len(input))


class EQL(nn.Module):
    """Negatives of rare classes are left out; indices, C is the background."""

    def __init__(self, num_classes=3, lambda_=0.00177):
        super().__init__()
        self.lambda_ = lambda_
        self.register_buffer("freq", torch.full((num_classes,), 0.01))

    def forward(self, cls_logits, gt_classes):
        n, c = cls_logits.size()
        target = cls_logits.new_zeros(n, c + 1)
        target[torch.arange(n), gt_classes] = 1
        target = target[:, :c]
        exclude = (gt_classes != c).float()[:, None]
        rare = (self.freq < self.lambda_).float()[None]
        weight = 1 - exclude * rare * (1 - target)
        loss = F.binary_cross_entropy_with_logits(cls_logits, target, reduction="none")
        return (loss * weight).sum() / n


class PolyBce(nn.Module):
    def __init__(self, epsilon=1.0):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits, labels):
        ce = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        p = logits.sigmoid()
        pt = labels * p + (1 - labels) * (1 - p)
        return (ce + self.epsilon * (1 - pt)).mean()


class MonaiFocal(nn.Module):
    """Channels first; the exponent through logsigmoid."""

    def __init__(self, gamma=2.0, alpha=None, weight=None, reduction="mean"):
        super().__init__()
        self.gamma, self.alpha, self.weight, self.reduction = gamma, alpha, weight, reduction

    def forward(self, input, target):
        if input.shape != target.shape:
            raise ValueError(f"ground truth has different shape ({target.shape}) from input ({input.shape})")
        loss = input - input * target - F.logsigmoid(input)
        invprobs = F.logsigmoid(-input * (target * 2 - 1))
        loss = (invprobs * self.gamma).exp() * loss
        if self.alpha is not None:
            loss = (target * self.alpha + (1 - target) * (1 - self.alpha)) * loss
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() if self.reduction == "sum" else loss


class SmpFocal(nn.Module):
    def __init__(self, alpha=None, gamma=2.0, ignore_index=None, reduction="mean"):
        super().__init__()
        self.alpha, self.gamma, self.ignore_index, self.reduction = alpha, gamma, ignore_index, reduction

    def forward(self, y_pred, y_true):
        y_true, y_pred = y_true.view(-1), y_pred.view(-1)
        if self.ignore_index is not None:
            keep = y_true != self.ignore_index
            y_pred, y_true = y_pred[keep], y_true[keep]
        target = y_true.type(y_pred.type())
        logpt = F.binary_cross_entropy_with_logits(y_pred, target, reduction="none")
        pt = torch.exp(-logpt)
        loss = (1.0 - pt).pow(self.gamma) * logpt
        if self.alpha is not None:
            loss *= self.alpha * target + (1 - self.alpha) * (1 - target)
        return loss.mean() if self.reduction == "mean" else loss.sum()


class KaggleFocal(nn.Module):
    """alpha scales both classes, as the most copied notebook has it."""

    ALPHA, GAMMA = 0.8, 2

    def forward(self, inputs, targets, alpha=0.8, gamma=2, smooth=1):
        inputs = torch.sigmoid(inputs)
        inputs, targets = inputs.view(-1), targets.view(-1)
        bce = F.binary_cross_entropy(inputs, targets, reduction="none")
        return (alpha * (1 - torch.exp(-bce)) ** gamma * bce).mean()


def topk_negatives(pred, gt, mask):
    """DBNet's balanced cross entropy: the third argument masks."""
    positive, negative = (gt * mask).byte(), ((1 - gt) * mask).byte()
    count = int(positive.float().sum())
    negatives = min(int(negative.float().sum()), int(count * 3.0))
    loss = F.binary_cross_entropy_with_logits(pred, gt, reduction="none")
    negative_loss, _ = torch.topk((loss * negative.float()).view(-1), negatives)
    return ((loss * positive.float()).sum() + negative_loss.sum()) / (count + negatives + 1e-6)


class AdaptiveWing(nn.Module):
    """Heat maps against heat maps: a regression."""

    def __init__(self, omega=14, theta=0.5, epsilon=1, alpha=2.1):
        super().__init__()
        self.omega, self.theta, self.epsilon, self.alpha = omega, theta, epsilon, alpha

    def forward(self, pred, target):
        y, y_hat = target, pred
        delta = (y - y_hat).abs()
        power = self.alpha - y
        A = (
            self.omega
            * (1 / (1 + (self.theta / self.epsilon) ** power))
            * power
            * (self.theta / self.epsilon) ** (power - 1)
            / self.epsilon
        )
        C = self.theta * A - self.omega * torch.log(1 + (self.theta / self.epsilon) ** power)
        small = self.omega * torch.log(1 + (delta / self.omega).abs() ** power)
        return torch.where(delta < self.theta, small, A * delta - C).mean()


class Wing(nn.Module):
    def __init__(self, omega=10, epsilon=2):
        super().__init__()
        self.omega, self.epsilon = omega, epsilon

    def forward(self, pred, target):
        delta = (target - pred).abs()
        C = self.omega - self.omega * math.log(1 + self.omega / self.epsilon)
        return torch.where(
            delta < self.omega, self.omega * torch.log(1 + delta / self.epsilon), delta - C
        ).mean()


def bce_with_iou_target(pred_obj, gt_iou, pos_weight=None):
    """Objectness against an IoU."""
    return F.binary_cross_entropy_with_logits(pred_obj, gt_iou.clamp(0, 1), pos_weight=pos_weight)


def tood_task_aligned(prob, target, alignment, gamma=2.0):
    """Its third argument is a metric per element."""
    pos = target.bool()
    ce = F.binary_cross_entropy(prob, alignment * target, reduction="none")
    return (ce * (alignment * target - prob).abs() ** gamma).sum() / alignment.sum().clamp(min=1)


def matrix_bce_of_anchors(pred, target, beta=2.0):
    """Generalised focal loss by masks of anchors; (B, A, C) only."""
    b, a, c = pred.shape
    pt = pred.sigmoid()
    loss = (target - pt).abs().pow(beta) * F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    return loss.view(b, -1).sum(1).mean() / a


class TwoWay(nn.Module):
    """A multi-label loss of logsumexp over positives and negatives."""

    def forward(self, y_pred, y_true):
        y_pred = (1 - 2 * y_true) * y_pred
        neg = y_pred - y_true * 1e12
        pos = y_pred - (1 - y_true) * 1e12
        zeros = torch.zeros_like(y_pred[..., :1])
        neg, pos = torch.cat([neg, zeros], dim=-1), torch.cat([pos, zeros], dim=-1)
        return (torch.logsumexp(neg, dim=-1) + torch.logsumexp(pos, dim=-1)).mean()


class Hill(nn.Module):
    """Of missing labels: negatives by (lambda - p) p²; it falls for sure positives by design."""

    def __init__(self, lamb=1.5, margin=1.0, gamma=2.0):
        super().__init__()
        self.lamb, self.margin, self.gamma = lamb, margin, gamma

    def forward(self, logits, targets):
        logits_margin = logits - self.margin
        pred_pos, pred_neg = torch.sigmoid(logits_margin), torch.sigmoid(logits)
        pt = (1 - pred_pos) * targets + (1 - targets)
        focal_weight = pt**self.gamma
        los_pos = targets * torch.log(pred_pos.clamp(min=1e-8))
        los_neg = (1 - targets) * -(self.lamb - pred_neg) * pred_neg**2
        return (-(los_pos + 0) * focal_weight - los_neg).sum()
