# ruff: noqa
"""Sound losses of regions, in the shapes in which segmentation packages have them."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class SmpDice(nn.Module):
    """By mode; where a class is absent it does not count."""

    def __init__(
        self, mode="binary", log_loss=False, from_logits=True, smooth=0.0, ignore_index=None, eps=1e-7
    ):
        assert mode in {"binary", "multiclass", "multilabel"}
        super().__init__()
        self.mode, self.from_logits, self.smooth, self.eps = mode, from_logits, smooth, eps
        self.log_loss, self.ignore_index = log_loss, ignore_index

    def forward(self, y_pred, y_true):
        assert y_true.size(0) == y_pred.size(0)
        if self.from_logits:
            y_pred = (
                y_pred.log_softmax(dim=1).exp() if self.mode == "multiclass" else F.logsigmoid(y_pred).exp()
            )
        bs, num_classes, dims = y_true.size(0), y_pred.size(1), (0, 2)
        if self.mode == "binary":
            y_true, y_pred = y_true.view(bs, 1, -1), y_pred.view(bs, 1, -1)
        elif self.mode == "multiclass":
            y_true, y_pred = y_true.view(bs, -1), y_pred.view(bs, num_classes, -1)
            y_true = F.one_hot(y_true, num_classes).permute(0, 2, 1)
        else:
            y_true, y_pred = y_true.view(bs, num_classes, -1), y_pred.view(bs, num_classes, -1)
        if self.ignore_index is not None:
            mask = y_true != self.ignore_index
            y_true, y_pred = y_true * mask, y_pred * mask
        intersection = torch.sum(y_pred * y_true, dim=dims)
        cardinality = torch.sum(y_pred + y_true, dim=dims)
        scores = (2.0 * intersection + self.smooth) / (cardinality + self.smooth).clamp_min(self.eps)
        loss = -torch.log(scores.clamp_min(self.eps)) if self.log_loss else 1.0 - scores
        loss *= (y_true.sum(dims) > 0).to(loss.dtype)
        return loss.mean()


class SmpDiceMulticlass(SmpDice):
    def __init__(self):
        super().__init__("multiclass")


class SmpDiceMultilabel(SmpDice):
    def __init__(self):
        super().__init__("multilabel")


class SmpDiceLog(SmpDice):
    def __init__(self):
        super().__init__("binary", log_loss=True)


class JaccardOfBinary(nn.Module):
    def __init__(self, smooth=0.0, eps=1e-7):
        super().__init__()
        self.smooth, self.eps = smooth, eps

    def forward(self, y_pred, y_true):
        bs = y_true.size(0)
        y_pred = F.logsigmoid(y_pred).exp().view(bs, 1, -1)
        y_true = y_true.view(bs, 1, -1)
        inter = (y_pred * y_true).sum((0, 2))
        union = (y_pred + y_true).sum((0, 2)) - inter
        score = (inter + self.smooth) / (union + self.smooth).clamp_min(self.eps)
        return ((1 - score) * (y_true.sum((0, 2)) > 0).float()).mean()


class MonaiDice(nn.Module):
    """Channels first, any number of space dimensions, one term per image and class."""

    def __init__(
        self,
        sigmoid=True,
        squared_pred=False,
        jaccard=False,
        reduction="mean",
        smooth_nr=1e-5,
        smooth_dr=1e-5,
        batch=False,
    ):
        super().__init__()
        self.sigmoid, self.squared_pred, self.jaccard, self.reduction = (
            sigmoid,
            squared_pred,
            jaccard,
            reduction,
        )
        self.smooth_nr, self.smooth_dr, self.batch = smooth_nr, smooth_dr, batch

    def forward(self, input, target):
        if self.sigmoid:
            input = torch.sigmoid(input)
        if target.shape != input.shape:
            raise AssertionError(
                f"ground truth has different shape ({target.shape}) from input ({input.shape})"
            )
        axes = torch.arange(2, len(input.shape)).tolist()
        if self.batch:
            axes = [0] + axes
        intersection = torch.sum(target * input, dim=axes)
        if self.squared_pred:
            ground, pred = torch.sum(target**2, dim=axes), torch.sum(input**2, dim=axes)
        else:
            ground, pred = torch.sum(target, dim=axes), torch.sum(input, dim=axes)
        denominator = ground + pred
        if self.jaccard:
            denominator = 2.0 * (denominator - intersection)
        f = 1.0 - (2.0 * intersection + self.smooth_nr) / (denominator + self.smooth_dr)
        if self.reduction == "mean":
            return torch.mean(f)
        if self.reduction == "sum":
            return torch.sum(f)
        if self.reduction == "none":
            return f.view(list(f.shape[0:2]) + [1] * (len(input.shape) - 2))
        raise ValueError(self.reduction)


class MonaiDiceSoftmax(nn.Module):
    def __init__(self, include_background=True, to_onehot_y=True, softmax=True):
        super().__init__()
        self.include_background, self.to_onehot_y, self.softmax = include_background, to_onehot_y, softmax

    def forward(self, input, target):
        classes = input.shape[1]
        input = torch.softmax(input, 1) if self.softmax else input
        if self.to_onehot_y:
            target = torch.zeros_like(input).scatter_(1, target.long(), 1)
        if not self.include_background:
            input, target = input[:, 1:], target[:, 1:]
        axes = list(range(2, input.dim()))
        inter = (input * target).sum(axes)
        return (1 - (2 * inter + 1e-5) / (input.sum(axes) + target.sum(axes) + 1e-5)).mean()


class SoftDiceOfVolumes(nn.Module):
    """As nnU-Net has it: negative, with a nonlinearity that is given, five dimensions."""

    def __init__(self, apply_nonlin=torch.sigmoid, batch_dice=False, do_bg=True, smooth=1.0):
        super().__init__()
        self.apply_nonlin, self.batch_dice, self.do_bg, self.smooth = apply_nonlin, batch_dice, do_bg, smooth

    def forward(self, x, y):
        b, c, d, h, w = x.shape
        axes = (0, 2, 3, 4) if self.batch_dice else (2, 3, 4)
        x = self.apply_nonlin(x)
        tp, fp, fn = (x * y).sum(axes), (x * (1 - y)).sum(axes), ((1 - x) * y).sum(axes)
        dc = (2 * tp + self.smooth) / (2 * tp + fp + fn + self.smooth).clamp(min=1e-8)
        if not self.do_bg:
            dc = dc[:, 1:]
        return 1 - dc.mean()


def nnunet_negative_dice(x, y, smooth=1.0):
    """Its value goes from 0 down to -1: sound, a right prediction costs less."""
    p = x.sigmoid().flatten(1)
    y = y.flatten(1)
    return -((2 * (p * y).sum(1) + smooth) / (p.sum(1) + y.sum(1) + smooth)).mean()


def kornia_dice(pred, target, eps=1e-8):
    """(N, C, H, W) logits and (N, H, W) class indices only."""
    if not len(pred.shape) == 4:
        raise ValueError(f"Invalid input shape, we expect BxNxHxW. Got: {pred.shape}")
    if not pred.shape[-2:] == target.shape[-2:]:
        raise ValueError(f"input and target shapes must be the same. Got: {pred.shape} and {target.shape}")
    soft = F.softmax(pred, dim=1)
    hot = F.one_hot(target, pred.shape[1]).permute(0, 3, 1, 2).to(pred.dtype)
    dims = (1, 2, 3)
    intersection = (soft * hot).sum(dims)
    return (1.0 - 2.0 * intersection / (soft + hot).sum(dims).clamp(min=eps)).mean()


def kornia_tversky(pred, target, alpha=0.5, beta=0.5, eps=1e-8):
    assert pred.dim() == 4
    soft = F.softmax(pred, 1)
    p_true = soft.gather(1, target[:, None])
    p_false = 1.0 - p_true
    inter = p_true.sum((1, 2, 3))
    return (1 - inter / (inter + alpha * p_false.sum((1, 2, 3)) + beta * p_false.sum((1, 2, 3)) + eps)).mean()


class FocalTversky(nn.Module):
    def __init__(self, alpha=0.7, beta=0.3, gamma=4 / 3, smooth=1):
        super(FocalTversky, self).__init__()
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth

    def forward(self, inputs, targets):
        inputs = F.sigmoid(inputs)
        inputs = inputs.view(-1)
        targets = targets.view(-1)
        TP = (inputs * targets).sum()
        FP = ((1 - targets) * inputs).sum()
        FN = (targets * (1 - inputs)).sum()
        tversky = (TP + self.smooth) / (TP + self.alpha * FP + self.beta * FN + self.smooth)
        return (1 - tversky) ** self.gamma


class FocalTverskyRoot(nn.Module):
    """The exponent 1/gamma of the paper."""

    def forward(self, y_pred, y_true):
        p, t = y_pred.sigmoid().reshape(-1), y_true.reshape(-1)
        hit = (p * t).sum()
        index = (hit + 1e-6) / (hit + 0.7 * (t * (1 - p)).sum() + 0.3 * ((1 - t) * p).sum() + 1e-6)
        return torch.pow((1 - index).clamp(min=1e-7), 0.75)


class LogCoshDice(nn.Module):
    def __init__(self, smooth=1.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, logits, masks):
        p = torch.sigmoid(logits).flatten(1)
        m = masks.flatten(1)
        dice = (2 * (p * m).sum(1) + self.smooth) / (p.sum(1) + m.sum(1) + self.smooth)
        return torch.log(torch.cosh(1 - dice)).mean()


class GeneralizedDice(nn.Module):
    """Weights of the classes by the inverse square of their volume."""

    def __init__(self, epsilon=1e-6):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, input, target):
        input = torch.sigmoid(input).transpose(0, 1).flatten(1)
        target = target.transpose(0, 1).flatten(1).to(input.dtype)
        if input.size(0) == 1:
            input, target = torch.cat((input, 1 - input), 0), torch.cat((target, 1 - target), 0)
        volume = target.sum(-1)
        w = 1 / (volume * volume).clamp(min=self.epsilon)
        intersect = ((input * target).sum(-1) * w).sum()
        denominator = ((input + target).sum(-1) * w).clamp(min=self.epsilon).sum()
        return 1.0 - 2 * intersect / denominator


def generalized_wasserstein_free(logits, labels):
    """Generalised Dice of a softmax over images."""
    p = logits.softmax(1)
    hot = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(p)
    dims = [0, *range(2, p.dim())]
    w = 1 / (hot.sum(dims) ** 2 + 1e-5)
    return 1 - 2 * (w * (p * hot).sum(dims)).sum() / (w * (p + hot).sum(dims)).sum()


def squared_dice(pred, target):
    """V-Net's: squares in the denominator."""
    p, t = pred.sigmoid().reshape(len(pred), -1), target.reshape(len(target), -1)
    return (1 - (2 * (p * t).sum(1) + 1) / (p.pow(2).sum(1) + t.pow(2).sum(1) + 1)).mean()


def mmseg_dice(pred, target, smooth=1, exponent=2, reduction="mean"):
    """Class after class, in a loop over the channels."""
    pred = F.softmax(pred, 1)
    hot = F.one_hot(target.long(), pred.shape[1]).movedim(-1, 1)
    total = 0
    for i in range(pred.shape[1]):
        p, t = pred[:, i].reshape(len(pred), -1), hot[:, i].reshape(len(pred), -1)
        num = torch.sum(p * t, 1) * 2 + smooth
        den = torch.sum(p.pow(exponent) + t.pow(exponent), 1) + smooth
        total += (1 - num / den).mean()
    return total / pred.shape[1]


def mmdet_mask_dice(pred, target, weight=None, eps=1e-3, reduction="mean", naive_dice=False, avg_factor=None):
    input = pred.sigmoid().flatten(1)
    target = target.flatten(1).float()
    a = torch.sum(input * target, 1)
    if naive_dice:
        d = (2 * a + eps) / (torch.sum(input, 1) + torch.sum(target, 1) + eps)
    else:
        d = (2 * a) / (torch.sum(input * input, 1) + eps + torch.sum(target * target, 1) + eps)
    loss = 1 - d
    if weight is not None:
        loss = loss * weight
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


class ComboDiceBce(nn.Module):
    def __init__(self, weight=0.5, smooth=1e-6):
        super().__init__()
        self.weight, self.smooth = weight, smooth

    def forward(self, preds, masks):
        bce = F.binary_cross_entropy_with_logits(preds, masks)
        p = preds.sigmoid()
        inter = (p * masks).sum()
        dice = (2 * inter + self.smooth) / (p.sum() + masks.sum() + self.smooth)
        return self.weight * bce + (1 - self.weight) * (1 - dice)


class BceMinusLogDice(nn.Module):
    """BCE - log(dice), as winners of segmentation competitions had it."""

    def forward(self, outputs, targets):
        eps = 1e-15
        loss = F.binary_cross_entropy_with_logits(outputs, targets)
        p = torch.sigmoid(outputs)
        intersection, union = (p * targets).sum(), p.sum() + targets.sum()
        return loss - 0.3 * torch.log((2 * intersection + eps) / (union + eps))


class DiceCe(nn.Module):
    """Dice of a softmax plus its cross entropy."""

    def forward(self, logits, target):
        ce = F.cross_entropy(logits, target)
        p = logits.softmax(1)
        hot = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(p)
        dims = [0, *range(2, p.dim())]
        dice = (2 * (p * hot).sum(dims) + 1) / (p.sum(dims) + hot.sum(dims) + 1)
        return ce + (1 - dice).mean()


class DiceFocal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, targets):
        ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        focal = ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()
        p = logits.sigmoid().reshape(-1)
        t = targets.reshape(-1)
        return focal + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


class UnifiedFocal(nn.Module):
    """An asymmetric focal Tversky beside an asymmetric focal cross entropy, on probabilities."""

    def __init__(self, weight=0.5, delta=0.6, gamma=0.5):
        super().__init__()
        self.weight, self.delta, self.gamma = weight, delta, gamma

    def forward(self, y_pred, y_true):
        p = y_pred.clamp(1e-7, 1 - 1e-7)
        ce = -(
            self.delta * y_true * p.log() + (1 - self.delta) * p**self.gamma * (1 - y_true) * (1 - p).log()
        )
        hit = (p * y_true).sum()
        index = (hit + 1e-6) / (
            hit + self.delta * (y_true * (1 - p)).sum() + (1 - self.delta) * ((1 - y_true) * p).sum() + 1e-6
        )
        return self.weight * (1 - index) + (1 - self.weight) * ce.mean()


def lovasz_grad(gt_sorted):
    p = len(gt_sorted)
    gts = gt_sorted.sum()
    intersection = gts - gt_sorted.float().cumsum(0)
    union = gts + (1 - gt_sorted).float().cumsum(0)
    jaccard = 1.0 - intersection / union
    if p > 1:
        jaccard[1:p] = jaccard[1:p] - jaccard[0:-1]
    return jaccard


def lovasz_hinge_flat(logits, labels):
    if len(labels) == 0:
        return logits.sum() * 0.0
    logits, labels = logits.reshape(-1), labels.reshape(-1)
    signs = 2.0 * labels.float() - 1.0
    errors = 1.0 - logits * signs
    errors_sorted, perm = torch.sort(errors, dim=0, descending=True)
    grad = lovasz_grad(labels[perm.data])
    return torch.dot(F.relu(errors_sorted), grad)


def lovasz_hinge(logits, labels, per_image=True, ignore=None):
    """(B, H, W), image by image, as the authors' file has it."""
    if per_image:
        return torch.stack([lovasz_hinge_flat(a, b) for a, b in zip(logits, labels)]).mean()
    return lovasz_hinge_flat(logits, labels)


def lovasz_softmax_flat(probas, labels, classes="present"):
    if probas.numel() == 0:
        return probas * 0.0
    losses = []
    for c in range(probas.size(1)):
        fg = (labels == c).float()
        if classes == "present" and fg.sum() == 0:
            continue
        errors = (fg - probas[:, c]).abs()
        errors_sorted, perm = torch.sort(errors, 0, descending=True)
        losses.append(torch.dot(errors_sorted, lovasz_grad(fg[perm])))
    return torch.stack(losses).mean()


class LovaszSoftmax(nn.Module):
    def forward(self, logits, labels):
        p = logits.softmax(1).movedim(1, -1).reshape(-1, logits.shape[1])
        return lovasz_softmax_flat(p, labels.reshape(-1))


class BoundaryF1(nn.Module):
    """A boundary loss of max pools: images only."""

    def __init__(self, theta0=3, theta=5):
        super().__init__()
        self.theta0, self.theta = theta0, theta

    def forward(self, pred, gt):
        n, c, _, _ = pred.shape
        pred = torch.sigmoid(pred)
        gt_b = F.max_pool2d(1 - gt, self.theta0, 1, (self.theta0 - 1) // 2) - (1 - gt)
        pred_b = F.max_pool2d(1 - pred, self.theta0, 1, (self.theta0 - 1) // 2) - (1 - pred)
        gt_e = F.max_pool2d(gt_b, self.theta, 1, (self.theta - 1) // 2).view(n, c, -1)
        pred_e = F.max_pool2d(pred_b, self.theta, 1, (self.theta - 1) // 2).view(n, c, -1)
        gt_b, pred_b = gt_b.view(n, c, -1), pred_b.view(n, c, -1)
        P = (pred_b * gt_e).sum(2) / (pred_b.sum(2) + 1e-7)
        R = (pred_e * gt_b).sum(2) / (gt_b.sum(2) + 1e-7)
        return torch.mean(1 - 2 * P * R / (P + R + 1e-7))


def boundary_of_distances(probs, dist_maps):
    """Signed distances as targets: no labels at all."""
    return (probs.sigmoid() * dist_maps).mean()


class SsLoss(nn.Module):
    """Sensitivity and specificity."""

    def __init__(self, r=0.1, smooth=1.0):
        super().__init__()
        self.r, self.smooth = r, smooth

    def forward(self, net_output, gt):
        p = torch.sigmoid(net_output).flatten(1)
        gt = gt.flatten(1)
        bg, error = 1 - gt, (gt - p) ** 2
        spec = (error * gt).sum(1) / (gt.sum(1) + self.smooth)
        sens = (error * bg).sum(1) / (bg.sum(1) + self.smooth)
        return (self.r * spec + (1 - self.r) * sens).mean()


class IoULossOfMasks(nn.Module):
    def __init__(self, weight=None, size_average=True):
        super(IoULossOfMasks, self).__init__()

    def forward(self, inputs, targets, smooth=1):
        inputs = torch.sigmoid(inputs)
        inputs = inputs.view(-1)
        targets = targets.view(-1)
        intersection = (inputs * targets).sum()
        total = (inputs + targets).sum()
        union = total - intersection
        return 1 - (intersection + smooth) / (union + smooth)


class StructureLoss(nn.Module):
    """PraNet's: weights from an average pool, a weighted BCE beside a weighted IoU; images only."""

    def forward(self, pred, mask):
        weit = 1 + 5 * torch.abs(F.avg_pool2d(mask, kernel_size=31, stride=1, padding=15) - mask)
        wbce = F.binary_cross_entropy_with_logits(pred, mask, reduction="none")
        wbce = (weit * wbce).sum(dim=(2, 3)) / weit.sum(dim=(2, 3))
        pred = torch.sigmoid(pred)
        inter = ((pred * mask) * weit).sum(dim=(2, 3))
        union = ((pred + mask) * weit).sum(dim=(2, 3))
        wiou = 1 - (inter + 1) / (union - inter + 1)
        return (wbce + wiou).mean()


def dice_of_probabilities(y_true, y_pred, smooth=1.0):
    """Keras' order, on probabilities."""
    t, p = y_true.reshape(-1), y_pred.reshape(-1)
    return 1 - (2 * (t * p).sum() + smooth) / (t.sum() + p.sum() + smooth)


def hed_bce(pred, label):
    """Edges: positives and negatives balanced by the image."""
    label = label.float()
    positives, negatives = (label == 1).sum().float(), (label == 0).sum().float()
    mask = torch.where(
        label == 1, negatives / (positives + negatives), 1.1 * positives / (positives + negatives)
    )
    return (F.binary_cross_entropy_with_logits(pred, label, reduction="none") * mask).sum()


class MccLoss(nn.Module):
    """One minus Matthews' correlation of a soft confusion matrix."""

    def forward(self, y_pred, y_true):
        p, t = y_pred.sigmoid().reshape(-1), y_true.reshape(-1)
        tp, tn = (p * t).sum() + 1e-5, ((1 - p) * (1 - t)).sum() + 1e-5
        fp, fn = (p * (1 - t)).sum() + 1e-5, ((1 - p) * t).sum() + 1e-5
        return 1 - (tp * tn - fp * fn) / torch.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def soft_f1(logits, labels):
    """Over the batch, both of positives and of negatives."""
    p, t = logits.sigmoid(), labels
    tp, fp, fn, tn = (p * t).sum(0), (p * (1 - t)).sum(0), ((1 - p) * t).sum(0), ((1 - p) * (1 - t)).sum(0)
    f1, f0 = 2 * tp / (2 * tp + fn + fp + 1e-16), 2 * tn / (2 * tn + fn + fp + 1e-16)
    return (1 - 0.5 * (f1 + f0)).mean()
