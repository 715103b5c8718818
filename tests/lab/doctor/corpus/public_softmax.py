# ruff: noqa
"""Sound losses of a softmax over classes, in the shapes in which published code has them."""

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class LDAM(nn.Module):
    """Margins by the fourth root of the counts."""

    def __init__(self, cls_num_list, max_m=0.5, weight=None, s=30):
        super().__init__()
        m_list = 1.0 / np.sqrt(np.sqrt(cls_num_list))
        m_list = m_list * (max_m / np.max(m_list))
        self.m_list = torch.tensor(m_list, dtype=torch.float32)
        self.s, self.weight = s, weight

    def forward(self, x, target):
        index = torch.zeros_like(x, dtype=torch.bool)
        index.scatter_(1, target.data.view(-1, 1), 1)
        index_float = index.float()
        batch_m = torch.matmul(self.m_list.to(x.device)[None, :], index_float.transpose(0, 1)).view((-1, 1))
        output = torch.where(index, x - batch_m, x)
        return F.cross_entropy(self.s * output, target, weight=self.weight)


class BalancedSoftmax(nn.Module):
    def __init__(self, freq=(100, 50, 10, 5)):
        super().__init__()
        self.register_buffer("sample_per_class", torch.tensor(freq))

    def forward(self, logits, labels, reduction="mean"):
        spc = self.sample_per_class.type_as(logits)
        spc = spc.unsqueeze(0).expand(logits.shape[0], -1)
        return F.cross_entropy(input=logits + spc.log(), target=labels, reduction=reduction)


class LogitAdjusted(nn.Module):
    def __init__(self, cls_num_list, tau=1.0):
        super().__init__()
        p = torch.tensor(cls_num_list, dtype=torch.float32)
        self.m = tau * torch.log(p / p.sum())

    def forward(self, x, target):
        return F.cross_entropy(x + self.m.to(x.device), target)


class Seesaw(nn.Module):
    """Counts that grow with the batches; mitigation and compensation."""

    def __init__(self, p=0.8, q=2.0, num_classes=4, eps=1e-2):
        super().__init__()
        self.p, self.q, self.num_classes, self.eps = p, q, num_classes, eps
        self.register_buffer("cum_samples", torch.zeros(num_classes))

    def forward(self, cls_score, labels):
        for u_l in labels.unique():
            self.cum_samples[u_l] += (labels == u_l).sum()
        onehot = F.one_hot(labels, self.num_classes)
        ratio = self.cum_samples[None, :].clamp(min=1) / self.cum_samples[:, None].clamp(min=1)
        index = (ratio < 1.0).float()
        sample_weights = ratio.pow(self.p) * index + (1 - index)
        seesaw = sample_weights[labels.long(), :]
        scores = F.softmax(cls_score.detach(), dim=1)
        self_scores = scores[torch.arange(len(scores)), labels.long()]
        score_matrix = scores / self_scores[:, None].clamp(min=self.eps)
        index = (score_matrix > 1.0).float()
        seesaw = seesaw * (score_matrix.pow(self.q) * index + (1 - index))
        return F.cross_entropy(cls_score + seesaw.log() * (1 - onehot), labels)


class PolyLoss(nn.Module):
    def __init__(self, epsilon=1.0, reduction="mean", weight=None, softmax=True):
        super().__init__()
        self.epsilon, self.reduction = epsilon, reduction
        self.cross_entropy = nn.CrossEntropyLoss(weight=weight, reduction="none")

    def forward(self, input, target):
        ce = self.cross_entropy(input, target)
        pt = (F.one_hot(target, input.shape[1]).movedim(-1, 1) * F.softmax(input, 1)).sum(1)
        loss = ce + self.epsilon * (1 - pt)
        return loss.mean() if self.reduction == "mean" else loss


class PolyFocalSoftmax(nn.Module):
    def __init__(self, epsilon=1.0, gamma=2.0):
        super().__init__()
        self.epsilon, self.gamma = epsilon, gamma

    def forward(self, logits, labels):
        ce = F.cross_entropy(logits, labels, reduction="none")
        pt = torch.exp(-ce)
        focal = (1 - pt) ** self.gamma * ce
        return (focal + self.epsilon * (1 - pt) ** (self.gamma + 1)).mean()


class LabelSmoothingCE(nn.Module):
    """timm's: mean of all log probabilities beside the true class's."""

    def __init__(self, smoothing=0.1):
        super().__init__()
        self.confidence, self.smoothing = 1.0 - smoothing, smoothing

    def forward(self, x, target):
        logprobs = F.log_softmax(x, dim=-1)
        nll_loss = -logprobs.gather(dim=-1, index=target.unsqueeze(1)).squeeze(1)
        smooth_loss = -logprobs.mean(dim=-1)
        return (self.confidence * nll_loss + self.smoothing * smooth_loss).mean()


class LabelSmoothingKl(nn.Module):
    """Smoothing over the other C - 1 classes, as a divergence."""

    def __init__(self, smoothing=0.1):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, x, target):
        n = x.size(-1)
        with torch.no_grad():
            true = torch.full_like(x, self.smoothing / (n - 1))
            true.scatter_(1, target.unsqueeze(1), 1 - self.smoothing)
        return torch.mean(torch.sum(-true * F.log_softmax(x, -1), -1))


class SoftTargetCE(nn.Module):
    def forward(self, x, target):
        return torch.sum(-target * F.log_softmax(x, dim=-1), dim=-1).mean()


class SymmetricCE(nn.Module):
    def __init__(self, alpha=0.1, beta=1.0, num_classes=4):
        super().__init__()
        self.alpha, self.beta, self.num_classes = alpha, beta, num_classes

    def forward(self, pred, labels):
        ce = F.cross_entropy(pred, labels)
        pred = torch.clamp(F.softmax(pred, dim=1), min=1e-7, max=1.0)
        hot = torch.clamp(F.one_hot(labels, self.num_classes).float(), min=1e-4, max=1.0)
        rce = -1 * torch.sum(pred * torch.log(hot), dim=1)
        return self.alpha * ce + self.beta * rce.mean()


class GCE(nn.Module):
    """(1 - p^q) / q: hopeless predictions learn slowly by design."""

    def __init__(self, num_classes=4, q=0.7):
        super().__init__()
        self.num_classes, self.q = num_classes, q

    def forward(self, pred, labels):
        pred = torch.clamp(F.softmax(pred, dim=1), min=1e-7, max=1.0)
        hot = F.one_hot(labels, self.num_classes).float()
        return ((1.0 - torch.pow(torch.sum(hot * pred, dim=1), self.q)) / self.q).mean()


def log_t(u, t):
    return u.log() if t == 1.0 else (u.pow(1.0 - t) - 1.0) / (1.0 - t)


def exp_t(u, t):
    return u.exp() if t == 1 else (1.0 + (1.0 - t) * u).relu().pow(1.0 / (1.0 - t))


def bi_tempered(activations, labels, t1=0.8, t2=1.2, label_smoothing=0.0, num_iters=5):
    """The normaliser by fixed-point iteration."""
    hot = F.one_hot(labels, activations.shape[-1]).to(activations)
    mu, _ = torch.max(activations, -1, keepdim=True)
    normalized = activations - mu
    a = normalized
    for _ in range(num_iters):
        z = exp_t(a, t2).sum(-1, keepdim=True)
        a = normalized * z.pow(1.0 - t2)
    z = exp_t(a, t2).sum(-1, keepdim=True)
    p = exp_t(activations - (-log_t(1.0 / z, t2) + mu), t2)
    values = (
        hot * log_t(hot + 1e-10, t1)
        - hot * log_t(p, t1)
        - hot.pow(2.0 - t1) / (2.0 - t1)
        + p.pow(2.0 - t1) / (2.0 - t1)
    )
    return values.sum(-1).mean()


class TaylorCE(nn.Module):
    def __init__(self, n=2):
        super().__init__()
        self.n = n

    def forward(self, logits, labels):
        fn, denor = torch.ones_like(logits), 1.0
        for i in range(1, self.n + 1):
            denor *= i
            fn = fn + logits.pow(i) / denor
        return F.nll_loss((fn / fn.sum(1, keepdim=True)).log(), labels)


class FocalWithIgnore(nn.Module):
    """Adeel's much copied one: class weights through nll_loss, ignore index, any space dimensions."""

    def __init__(self, alpha=None, gamma=2.0, reduction="mean", ignore_index=-100):
        super().__init__()
        self.gamma, self.ignore_index, self.reduction = gamma, ignore_index, reduction
        self.nll_loss = nn.NLLLoss(weight=alpha, reduction="none", ignore_index=ignore_index)

    def forward(self, x, y):
        if x.ndim > 2:
            c = x.shape[1]
            x = x.permute(0, *range(2, x.ndim), 1).reshape(-1, c)
            y = y.view(-1)
        keep = y != self.ignore_index
        y = y[keep]
        if len(y) == 0:
            return torch.tensor(0.0)
        x = x[keep]
        log_p = F.log_softmax(x, dim=-1)
        ce = self.nll_loss(log_p, y)
        log_pt = log_p[torch.arange(len(x)), y]
        loss = (1 - log_pt.exp()) ** self.gamma * ce
        return loss.mean() if self.reduction == "mean" else loss.sum()


class FocalWithWeights(nn.Module):
    """Class weights outside of exp(-CE)."""

    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", torch.tensor([1.0, 2.0, 0.5, 1.5]))

    def forward(self, logits, target):
        ce = F.cross_entropy(logits, target, reduction="none")
        pt = torch.exp(-ce)
        return (self.weight[target] * (1 - pt) ** self.gamma * ce).mean()


class FocalClcarwin(nn.Module):
    """gamma 0 by default, alpha as a number or list, the old view dance."""

    def __init__(self, gamma=0, alpha=None, size_average=True):
        super(FocalClcarwin, self).__init__()
        self.gamma = gamma
        self.alpha = alpha
        if isinstance(alpha, (float, int)):
            self.alpha = torch.Tensor([alpha, 1 - alpha])
        if isinstance(alpha, list):
            self.alpha = torch.Tensor(alpha)
        self.size_average = size_average

    def forward(self, input, target):
        if input.dim() > 2:
            input = input.view(input.size(0), input.size(1), -1)
            input = input.transpose(1, 2)
            input = input.contiguous().view(-1, input.size(2))
        target = target.view(-1, 1)
        logpt = F.log_softmax(input, dim=1)
        logpt = logpt.gather(1, target)
        logpt = logpt.view(-1)
        pt = logpt.exp()
        if self.alpha is not None:
            if self.alpha.type() != input.data.type():
                self.alpha = self.alpha.type_as(input.data)
            at = self.alpha.gather(0, target.data.view(-1))
            logpt = logpt * at
        loss = -1 * (1 - pt) ** self.gamma * logpt
        return loss.mean() if self.size_average else loss.sum()


class FocalOneHotBatch(nn.Module):
    """kornia's: one-hot of (N, *) with an eps."""

    def __init__(self, alpha=0.25, gamma=2.0, reduction="mean"):
        super().__init__()
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

    def forward(self, pred, target):
        num_of_classes = pred.shape[1]
        log_soft = F.log_softmax(pred, 1)
        one_hot = F.one_hot(target, num_of_classes).movedim(-1, 1)
        weight = torch.pow(1.0 - log_soft.exp(), self.gamma)
        loss_tmp = (-(weight * log_soft) * one_hot).sum(1)
        loss_tmp = self.alpha * loss_tmp
        return loss_tmp.mean() if self.reduction == "mean" else loss_tmp


class OhemCE(nn.Module):
    """The pixels below a threshold of probability, at least so many."""

    def __init__(self, ignore_label=255, thresh=0.7, min_kept=4, weight=None):
        super().__init__()
        self.thresh, self.min_kept, self.ignore_label = thresh, min_kept, ignore_label
        self.criterion = nn.CrossEntropyLoss(weight=weight, ignore_index=ignore_label, reduction="none")

    def forward(self, score, target):
        pred = F.softmax(score, dim=1)
        pixel_losses = self.criterion(score, target).contiguous().view(-1)
        mask = target.contiguous().view(-1) != self.ignore_label
        tmp = target.clone()
        tmp[tmp == self.ignore_label] = 0
        pred = pred.gather(1, tmp.unsqueeze(1))
        pred, ind = pred.contiguous().view(-1)[mask].contiguous().sort()
        min_value = pred[min(self.min_kept, pred.numel() - 1)]
        threshold = max(min_value, self.thresh)
        pixel_losses = pixel_losses[mask][ind]
        pixel_losses = pixel_losses[pred < threshold]
        return pixel_losses.mean()


class OhemOfImages(nn.Module):
    """BiSeNet's: (N, C, H, W) by a loss threshold."""

    def __init__(self, thresh=0.7, ignore_lb=255):
        super().__init__()
        self.thresh = -math.log(thresh)
        self.criteria = nn.CrossEntropyLoss(ignore_index=ignore_lb, reduction="none")

    def forward(self, logits, labels):
        n_min = max(1, labels[labels != 255].numel() // 16)
        loss = self.criteria(logits, labels).view(-1)
        loss_hard = loss[loss > self.thresh]
        if loss_hard.numel() < n_min:
            loss_hard, _ = loss.topk(n_min)
        return torch.mean(loss_hard)


class TopK(nn.Module):
    def __init__(self, k=50):
        super().__init__()
        self.k = k

    def forward(self, inp, target):
        res = F.cross_entropy(inp, target, reduction="none")
        num = max(1, int(res.numel() * self.k / 100))
        return torch.topk(res.view(-1), num, sorted=False)[0].mean()


class FocalDiceless(nn.Module):
    """mmdet's softmax cross entropy with weight and avg_factor."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred, label, weight=None, reduction="mean", avg_factor=None, ignore_index=-100):
        loss = F.cross_entropy(pred, label, reduction="none", ignore_index=ignore_index)
        if weight is not None:
            loss = loss * weight.float()
        loss = loss.sum() / avg_factor if avg_factor is not None else loss.mean()
        return self.loss_weight * loss


class NormalizedCE(nn.Module):
    """Of noisy labels: bounded, the cross entropy over the sum of those to all classes."""

    def forward(self, pred, labels):
        pred = F.log_softmax(pred, dim=1)
        hot = F.one_hot(labels, pred.shape[1]).float()
        return (-(hot * pred).sum(1) / -pred.sum(1)).mean()


def mae_of_classes(pred, labels):
    """Of noisy labels: bounded."""
    p = F.softmax(pred, dim=1)
    hot = F.one_hot(labels, pred.shape[1]).float()
    return (1 - (hot * p).sum(1)).mean() * 2


class MultiMargin(nn.Module):
    def forward(self, x, y):
        return F.multi_margin_loss(x, y)


def arcface_like(cosine, label, s=30.0, m=0.5):
    """Logits that are cosines."""
    cosine = cosine.tanh()
    theta = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))
    hot = F.one_hot(label, cosine.shape[1])
    return F.cross_entropy(s * torch.where(hot.bool(), torch.cos(theta + m), cosine), label)


def temperature_ce(logits, target, T=2.0):
    return F.cross_entropy(logits / T, target)


def keras_categorical_focal(y_true, y_pred, gamma=2.0, alpha=0.25):
    y_pred = y_pred / y_pred.sum(-1, keepdim=True)
    y_pred = y_pred.clamp(1e-7, 1 - 1e-7)
    cross_entropy = -y_true * torch.log(y_pred)
    loss = alpha * torch.pow(1 - y_pred, gamma) * cross_entropy
    return loss.sum(-1).mean()


class CrossEntropyOfVolumes(nn.Module):
    """nnU-Net's robust one: targets (N, 1, D, H, W) lose their channel."""

    def forward(self, input, target):
        if target.ndim == input.ndim:
            assert target.shape[1] == 1
            target = target[:, 0]
        b, c, d, h, w = input.shape
        return F.cross_entropy(input, target.long())


class EqlSoftmax(nn.Module):
    """Classes drawn by chance are left out of the softmax's sum."""

    def __init__(self, num_classes=4, gamma=0.9):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("rare", torch.tensor([0.0, 0.0, 1.0, 1.0]))

    def forward(self, logits, target):
        hot = F.one_hot(target, logits.shape[1]).float()
        beta = (torch.rand_like(logits) < self.gamma).float()
        weight = 1 - beta * self.rare * (1 - hot)
        shifted = logits - logits.max(1, keepdim=True).values.detach()
        return -(shifted.gather(1, target[:, None])[:, 0] - (weight * shifted.exp()).sum(1).log()).mean()


def classes_with_background_first(cls_score, label):
    """torchvision's Fast R-CNN: sums over rows."""
    return F.cross_entropy(cls_score, label, reduction="sum") / max(1, cls_score.shape[0])


def dual_focal(logits, labels, gamma=5.0):
    """Also the runner-up counts."""
    logp = F.log_softmax(logits, 1)
    logp_k = logp.gather(1, labels[:, None])[:, 0]
    p = logp.exp()
    p_k = p.gather(1, labels[:, None])
    lower = p * (p < p_k)
    p_j = lower.sort(1, descending=True).values[:, 0]
    return (-1 * (1 - p_k[:, 0] + p_j) ** gamma * logp_k).mean()


def nll_of_floats(output, target):
    """Targets (N, 1) as a data loader gives them."""
    return F.nll_loss(F.log_softmax(output, 1), target.view(-1).long())


class ASLSingleLabel(nn.Module):
    """Asymmetric loss of a softmax, its labels smoothed: no cross entropy."""

    def __init__(self, gamma_pos=0, gamma_neg=4, eps=0.1, reduction="mean"):
        super().__init__()
        self.eps, self.gamma_pos, self.gamma_neg, self.reduction = eps, gamma_pos, gamma_neg, reduction

    def forward(self, inputs, target):
        num_classes = inputs.size()[-1]
        log_preds = F.log_softmax(inputs, dim=-1)
        self.targets_classes = torch.zeros_like(inputs).scatter_(1, target.long().unsqueeze(1), 1)
        targets = self.targets_classes
        anti_targets = 1 - targets
        xs_pos = torch.exp(log_preds)
        xs_neg = 1 - xs_pos
        xs_pos, xs_neg = xs_pos * targets, xs_neg * anti_targets
        weight = torch.pow(1 - xs_pos - xs_neg, self.gamma_pos * targets + self.gamma_neg * anti_targets)
        log_preds = log_preds * weight
        if self.eps > 0:
            self.targets_classes = self.targets_classes * (1 - self.eps) + self.eps / num_classes
        loss = -self.targets_classes * log_preds
        loss = loss.sum(dim=-1)
        return loss.mean() if self.reduction == "mean" else loss


class FocalSmoothed(nn.Module):
    """Focal weights on a smoothed cross entropy."""

    def __init__(self, gamma=2.0, smoothing=0.1):
        super().__init__()
        self.gamma, self.smoothing = gamma, smoothing

    def forward(self, logits, labels):
        ce = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        pt = F.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
        return ((1 - pt) ** self.gamma * ce).mean()
