# ruff: noqa
"""More sound losses as published code has them: older idioms, flags, einsum, loops, numpy in the targets."""

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd import Variable

ALPHA, BETA, GAMMA = 0.5, 0.5, 1


class BinaryDice(nn.Module):
    def __init__(self, smooth=1, p=2, reduction="mean"):
        super(BinaryDice, self).__init__()
        self.smooth, self.p, self.reduction = smooth, p, reduction

    def forward(self, predict, target):
        assert predict.shape[0] == target.shape[0], "predict & target batch size don't match"
        predict = predict.contiguous().view(predict.shape[0], -1)
        target = target.contiguous().view(target.shape[0], -1)
        num = torch.sum(torch.mul(predict, target), dim=1) + self.smooth
        den = torch.sum(predict.pow(self.p) + target.pow(self.p), dim=1) + self.smooth
        loss = 1 - num / den
        if self.reduction == "mean":
            return loss.mean()
        elif self.reduction == "sum":
            return loss.sum()
        elif self.reduction == "none":
            return loss
        else:
            raise Exception("Unexpected reduction {}".format(self.reduction))


class DiceByClass(nn.Module):
    """A binary one for each channel of a softmax; one-hot targets."""

    def __init__(self, weight=None, ignore_index=None):
        super().__init__()
        self.weight, self.ignore_index = weight, ignore_index

    def forward(self, predict, target):
        assert predict.shape == target.shape, "predict & target shape do not match"
        dice = BinaryDice(p=1)
        total_loss = 0
        predict = F.softmax(predict, dim=1)
        for i in range(target.shape[1]):
            if i != self.ignore_index:
                dice_loss = dice(predict[:, i], target[:, i])
                if self.weight is not None:
                    dice_loss *= self.weights[i]
                total_loss += dice_loss
        return total_loss / target.shape[1]


class GDiceEinsum(nn.Module):
    """Volumes by einsum."""

    def __init__(self, smooth=1e-5):
        super().__init__()
        self.smooth = smooth

    def forward(self, net_output, gt):
        shp_x, shp_y = net_output.shape, gt.shape
        with torch.no_grad():
            if len(shp_x) != len(shp_y):
                gt = gt.view((shp_y[0], 1, *shp_y[1:]))
            if all([i == j for i, j in zip(net_output.shape, gt.shape)]):
                y_onehot = gt
            else:
                gt = gt.long()
                y_onehot = torch.zeros(shp_x, device=net_output.device)
                y_onehot.scatter_(1, gt, 1)
        net_output = F.softmax(net_output, 1)
        w = 1 / (torch.einsum("bcxyz->bc", y_onehot).type(torch.float32) + 1e-10) ** 2
        intersection = w * torch.einsum("bcxyz, bcxyz->bc", net_output, y_onehot)
        union = w * (torch.einsum("bcxyz->bc", net_output) + torch.einsum("bcxyz->bc", y_onehot))
        divided = 1 - 2 * (torch.einsum("bc->b", intersection) + self.smooth) / (
            torch.einsum("bc->b", union) + self.smooth
        )
        return divided.mean()


def get_tp_fp_fn(net_output, gt, axes):
    shp_x = net_output.shape
    with torch.no_grad():
        if len(shp_x) != len(gt.shape):
            gt = gt.view((gt.shape[0], 1, *gt.shape[1:]))
        if net_output.shape == gt.shape:
            y_onehot = gt
        else:
            y_onehot = torch.zeros(shp_x, device=net_output.device)
            y_onehot.scatter_(1, gt.long(), 1)
    return (
        (net_output * y_onehot).sum(axes),
        (net_output * (1 - y_onehot)).sum(axes),
        ((1 - net_output) * y_onehot).sum(axes),
    )


class SoftDiceWithBackground(nn.Module):
    def __init__(self, apply_nonlin=None, batch_dice=True, do_bg=False, smooth=1.0):
        super().__init__()
        self.do_bg, self.batch_dice, self.apply_nonlin, self.smooth = do_bg, batch_dice, apply_nonlin, smooth

    def forward(self, x, y, loss_mask=None):
        axes = [0] + list(range(2, len(x.shape))) if self.batch_dice else list(range(2, len(x.shape)))
        x = torch.softmax(x, 1) if self.apply_nonlin is None else self.apply_nonlin(x)
        tp, fp, fn = get_tp_fp_fn(x, y, axes)
        dc = (2 * tp + self.smooth) / (2 * tp + fp + fn + self.smooth + 1e-8)
        if not self.do_bg:
            dc = dc[1:] if self.batch_dice else dc[:, 1:]
        return -dc.mean()


class GeneralizedDiceInf(nn.Module):
    """The weight of an absent class becomes the largest of the others."""

    def forward(self, input, target):
        input = torch.sigmoid(input)
        axes = list(range(2, len(input.shape)))
        intersection = torch.sum(target * input, axes)
        ground, pred = torch.sum(target, axes), torch.sum(input, axes)
        w = torch.reciprocal(ground.float() * ground.float())
        for b in w:
            infs = torch.isinf(b)
            b[infs] = 0.0
            b[infs] = torch.max(b)
        numer = 2.0 * (intersection * w).sum(1) + 1e-5
        return (1.0 - numer / (((ground + pred) * w).sum(1) + 1e-5)).mean()


class KaggleTversky(nn.Module):
    def __init__(self, weight=None, size_average=True):
        super(KaggleTversky, self).__init__()

    def forward(self, inputs, targets, smooth=1, alpha=ALPHA, beta=BETA):
        inputs = F.sigmoid(inputs)
        inputs = inputs.reshape(-1)
        targets = targets.reshape(-1)
        TP = (inputs * targets).sum()
        FP = ((1 - targets) * inputs).sum()
        FN = (targets * (1 - inputs)).sum()
        return 1 - (TP + smooth) / (TP + alpha * FP + beta * FN + smooth)


class KaggleCombo(nn.Module):
    """A clamped cross entropy, and the Dice coefficient subtracted."""

    def forward(self, inputs, targets, smooth=1, alpha=0.5, ce_ratio=0.5, eps=1e-9):
        inputs = torch.sigmoid(inputs).reshape(-1)
        targets = targets.reshape(-1)
        intersection = (inputs * targets).sum()
        dice = (2.0 * intersection + smooth) / (inputs.sum() + targets.sum() + smooth)
        inputs = torch.clamp(inputs, 1e-6, 1.0 - 1e-6)
        out = -(
            alpha * (targets * torch.log(inputs)) + (1 - alpha) * (1.0 - targets) * torch.log(1.0 - inputs)
        )
        return ce_ratio * out.mean() - (1 - ce_ratio) * dice


class DiceBceKaggle(nn.Module):
    def __init__(self, weight=None, size_average=True):
        super(DiceBceKaggle, self).__init__()

    def forward(self, inputs, targets, smooth=1):
        inputs = torch.sigmoid(inputs)
        inputs = inputs.view(-1)
        targets = targets.view(-1)
        intersection = (inputs * targets).sum()
        dice_loss = 1 - (2.0 * intersection + smooth) / (inputs.sum() + targets.sum() + smooth)
        BCE = F.binary_cross_entropy(inputs, targets, reduction="mean")
        return BCE + dice_loss


class SoftIoUOfImages(nn.Module):
    """mIoU with scatter: (N, C, H, W) and (N, H, W)."""

    def __init__(self, weight=None, n_classes=3):
        super().__init__()
        self.classes = n_classes

    def to_one_hot(self, tensor):
        n, h, w = tensor.size()
        return torch.zeros(n, self.classes, h, w).to(tensor.device).scatter_(1, tensor.view(n, 1, h, w), 1)

    def forward(self, inputs, target):
        N = inputs.size(0)
        inputs = F.softmax(inputs, dim=1)
        hot = self.to_one_hot(target)
        inter = (inputs * hot).view(N, self.classes, -1).sum(2)
        union = (inputs + hot - inputs * hot).view(N, self.classes, -1).sum(2)
        return 1 - (inter / (union + 1e-8)).mean()


class HausdorffLike(nn.Module):
    """Distances of both masks by numpy, without gradient; images."""

    def __init__(self, alpha=2.0):
        super().__init__()
        self.alpha = alpha

    @torch.no_grad()
    def distance_field(self, img):
        field = np.zeros_like(img)
        for batch in range(len(img)):
            for channel in range(img.shape[1]):
                hit = np.argwhere(img[batch, channel] > 0.5)
                if len(hit):
                    grid = np.stack(np.indices(img.shape[2:]), -1)
                    field[batch, channel] = np.abs(grid[..., None, :] - hit).sum(-1).min(-1)
        return field

    def forward(self, pred, target):
        assert pred.dim() == 4 or pred.dim() == 5, "Only 2D and 3D supported"
        pred = torch.sigmoid(pred)
        pred_dt = torch.from_numpy(self.distance_field(pred.detach().cpu().numpy())).to(pred)
        target_dt = torch.from_numpy(self.distance_field(target.cpu().numpy())).to(pred)
        return ((pred - target) ** 2 * (pred_dt**self.alpha + target_dt**self.alpha + 1)).mean()


def flatten_probas(probas, labels, ignore=None):
    if probas.dim() == 3:
        B, H, W = probas.size()
        probas = probas.view(B, 1, H, W)
    B, C, H, W = probas.size()
    probas = probas.permute(0, 2, 3, 1).contiguous().view(-1, C)
    labels = labels.view(-1)
    if ignore is None:
        return probas, labels
    valid = labels != ignore
    return probas[valid.nonzero().squeeze()], labels[valid]


def lovasz_softmax(probas, labels, classes="present", per_image=False, ignore=None):
    probas, labels = flatten_probas(probas, labels, ignore)
    losses = []
    for c in range(probas.size(1)):
        fg = (labels == c).float()
        if classes == "present" and fg.sum() == 0:
            continue
        errors = (Variable(fg) - probas[:, c]).abs()
        errors_sorted, perm = torch.sort(errors, 0, descending=True)
        gts = fg[perm].sum()
        jaccard = 1.0 - (gts - fg[perm].cumsum(0)) / (gts + (1 - fg[perm]).cumsum(0))
        jaccard[1:] = jaccard[1:] - jaccard[:-1].clone()
        losses.append(torch.dot(errors_sorted, Variable(jaccard)))
    return sum(losses) / len(losses)


class FocalOfFlags(nn.Module):
    """alpha a plain scale of 1; logits or probabilities by a flag."""

    def __init__(self, alpha=1, gamma=2, logits=True, reduce=True):
        super(FocalOfFlags, self).__init__()
        self.alpha, self.gamma, self.logits, self.reduce = alpha, gamma, logits, reduce

    def forward(self, inputs, targets):
        if self.logits:
            BCE_loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
        else:
            BCE_loss = F.binary_cross_entropy(inputs, targets, reduction="none")
        pt = torch.exp(-BCE_loss)
        F_loss = self.alpha * (1 - pt) ** self.gamma * BCE_loss
        return torch.mean(F_loss) if self.reduce else F_loss


class FocalOfVariables(nn.Module):
    """class_num required, a mask of ones scattered into Variables."""

    def __init__(self, class_num, alpha=None, gamma=2, size_average=True):
        super(FocalOfVariables, self).__init__()
        if alpha is None:
            self.alpha = Variable(torch.ones(class_num, 1))
        else:
            self.alpha = alpha if isinstance(alpha, Variable) else Variable(alpha)
        self.gamma, self.class_num, self.size_average = gamma, class_num, size_average

    def forward(self, inputs, targets):
        N, C = inputs.size(0), inputs.size(1)
        P = F.softmax(inputs, dim=1)
        class_mask = inputs.data.new(N, C).fill_(0)
        class_mask = Variable(class_mask)
        ids = targets.view(-1, 1)
        class_mask.scatter_(1, ids.data, 1.0)
        if inputs.is_cuda and not self.alpha.is_cuda:
            self.alpha = self.alpha.cuda()
        alpha = self.alpha[ids.data.view(-1)].to(inputs)
        log_p = F.log_softmax(inputs, 1).gather(1, ids)
        probs = (P * class_mask).sum(1).view(-1, 1)
        batch_loss = -alpha * torch.pow(1 - probs, self.gamma) * log_p
        return batch_loss.mean() if self.size_average else batch_loss.sum()


class GHMOfLibuyu(nn.Module):
    """bins and alpha required, a histogram with memory."""

    def __init__(self, bins=10, alpha=0.5):
        super().__init__()
        self._bins, self._alpha, self._last_bin_count = bins, alpha, None

    def forward(self, x, target):
        g = torch.abs(x.sigmoid() - target).detach()
        bin_idx = torch.floor(g * (self._bins - 0.0001)).long()
        bin_count = torch.zeros(self._bins)
        for i in range(self._bins):
            bin_count[i] = (bin_idx == i).sum().item()
        N = x.numel()
        if self._last_bin_count is not None:
            bin_count = self._alpha * self._last_bin_count + (1 - self._alpha) * bin_count
        self._last_bin_count = bin_count
        nonempty = (bin_count > 0).sum().item()
        gd = torch.clamp(bin_count * nonempty, min=0.0001)
        beta = N / gd
        return F.binary_cross_entropy_with_logits(x, target, weight=beta.to(x)[bin_idx])


class GHMR(nn.Module):
    """Boxes: an authentic smooth L1 with weights by density."""

    def __init__(self, mu=0.02, bins=10):
        super().__init__()
        self.mu, self.bins = mu, bins
        edges = torch.arange(bins + 1).float() / bins
        self.register_buffer("edges", edges)
        self.edges[-1] = 1e3

    def forward(self, pred, target, label_weight, avg_factor=None):
        diff = pred - target
        loss = torch.sqrt(diff * diff + self.mu * self.mu) - self.mu
        g = torch.abs(diff / torch.sqrt(self.mu * self.mu + diff * diff)).detach()
        weights = torch.zeros_like(g)
        valid = label_weight > 0
        tot, n = max(label_weight.float().sum().item(), 1.0), 0
        for i in range(self.bins):
            inds = (g >= self.edges[i]) & (g < self.edges[i + 1]) & valid
            if inds.sum().item() > 0:
                n += 1
                weights[inds] = tot / inds.sum().item()
        return (loss * weights / max(n, 1)).sum() / tot


class Poly1Focal(nn.Module):
    def __init__(
        self,
        num_classes,
        epsilon=1.0,
        alpha=0.25,
        gamma=2.0,
        reduction="none",
        weight=None,
        label_is_onehot=False,
    ):
        super().__init__()
        self.num_classes, self.epsilon, self.alpha, self.gamma = num_classes, epsilon, alpha, gamma
        self.reduction, self.weight, self.label_is_onehot = reduction, weight, label_is_onehot

    def forward(self, logits, labels):
        p = torch.sigmoid(logits)
        if not self.label_is_onehot:
            if labels.ndim == 1:
                labels = F.one_hot(labels, num_classes=self.num_classes)
            else:
                labels = F.one_hot(labels.unsqueeze(1), self.num_classes).transpose(1, -1).squeeze_(-1)
        labels = labels.to(device=logits.device, dtype=logits.dtype)
        ce_loss = F.binary_cross_entropy_with_logits(
            input=logits, target=labels, reduction="none", weight=self.weight
        )
        pt = labels * p + (1 - labels) * (1 - p)
        FL = ce_loss * ((1 - pt) ** self.gamma)
        if self.alpha >= 0:
            FL = (self.alpha * labels + (1 - self.alpha) * (1 - labels)) * FL
        poly1 = FL + self.epsilon * torch.pow(1 - pt, self.gamma + 1)
        return poly1.mean() if self.reduction == "mean" else poly1.sum() if self.reduction == "sum" else poly1


def focal_loss_from_logits(preds, targets, gamma=2.0, alpha=0.25):
    preds = preds.sigmoid()
    pt = preds * targets + (1.0 - preds) * (1.0 - targets)
    w = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    loss = -w * torch.pow((1.0 - pt), gamma) * pt.clamp(min=1e-12).log()
    return loss.sum()


class YoloxIoU(nn.Module):
    def __init__(self, reduction="none", loss_type="iou"):
        super(YoloxIoU, self).__init__()
        self.reduction, self.loss_type = reduction, loss_type

    def forward(self, pred, target):
        assert pred.shape[0] == target.shape[0]
        pred, target = pred.view(-1, 4), target.view(-1, 4)
        tl = torch.max((pred[:, :2] - pred[:, 2:] / 2), (target[:, :2] - target[:, 2:] / 2))
        br = torch.min((pred[:, :2] + pred[:, 2:] / 2), (target[:, :2] + target[:, 2:] / 2))
        area_p, area_g = torch.prod(pred[:, 2:], 1), torch.prod(target[:, 2:], 1)
        en = (tl < br).type(tl.type()).prod(dim=1)
        area_i = torch.prod(br - tl, 1) * en
        area_u = area_p + area_g - area_i
        iou = (area_i) / (area_u + 1e-16)
        if self.loss_type == "iou":
            loss = 1 - iou**2
        elif self.loss_type == "giou":
            c_tl = torch.min((pred[:, :2] - pred[:, 2:] / 2), (target[:, :2] - target[:, 2:] / 2))
            c_br = torch.max((pred[:, :2] + pred[:, 2:] / 2), (target[:, :2] + target[:, 2:] / 2))
            area_c = torch.prod(c_br - c_tl, 1)
            giou = iou - (area_c - area_u) / area_c.clamp(1e-16)
            loss = 1 - giou.clamp(min=-1.0, max=1.0)
        if self.reduction == "mean":
            loss = loss.mean()
        elif self.reduction == "sum":
            loss = loss.sum()
        return loss


class EIoUOfKeypoints(nn.Module):
    """Distances by corners in the shape (N, 1, 4)."""

    def forward(self, preds, bbox):
        preds, bbox = preds.unsqueeze(1), bbox.unsqueeze(1)
        ix1, iy1 = torch.max(preds[..., 0], bbox[..., 0]), torch.max(preds[..., 1], bbox[..., 1])
        ix2, iy2 = torch.min(preds[..., 2], bbox[..., 2]), torch.min(preds[..., 3], bbox[..., 3])
        iw, ih = (ix2 - ix1).clamp(min=0.0), (iy2 - iy1).clamp(min=0.0)
        inters = iw * ih
        pw, ph = preds[..., 2] - preds[..., 0], preds[..., 3] - preds[..., 1]
        gw, gh = bbox[..., 2] - bbox[..., 0], bbox[..., 3] - bbox[..., 1]
        iou = inters / (pw * ph + gw * gh - inters + 1e-7)
        cw = torch.max(preds[..., 2], bbox[..., 2]) - torch.min(preds[..., 0], bbox[..., 0])
        ch = torch.max(preds[..., 3], bbox[..., 3]) - torch.min(preds[..., 1], bbox[..., 1])
        rho = (
            (preds[..., 0] + preds[..., 2] - bbox[..., 0] - bbox[..., 2]) ** 2
            + (preds[..., 1] + preds[..., 3] - bbox[..., 1] - bbox[..., 3]) ** 2
        ) / 4
        eiou = (
            iou
            - rho / (cw**2 + ch**2 + 1e-7)
            - (pw - gw) ** 2 / (cw**2 + 1e-7)
            - (ph - gh) ** 2 / (ch**2 + 1e-7)
        )
        return torch.mean(1 - eiou.squeeze(1))


def gaussian_nll_boxes(pred, target, log_var=None):
    """A variance per coordinate, here constant."""
    log_var = torch.zeros_like(pred) if log_var is None else log_var
    return (0.5 * torch.exp(-log_var) * (pred - target) ** 2 + 0.5 * log_var).mean()


class DistributionFocal(nn.Module):
    """mmdet's: weight and avg_factor."""

    def __init__(self, reduction="mean", loss_weight=1.0):
        super().__init__()
        self.reduction, self.loss_weight = reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        dis_left = target.long()
        dis_right = dis_left + 1
        weight_left, weight_right = dis_right.float() - target, target - dis_left.float()
        loss = (
            F.cross_entropy(pred, dis_left, reduction="none") * weight_left
            + F.cross_entropy(pred, dis_right, reduction="none") * weight_right
        )
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * (loss.mean() if avg_factor is None else loss.sum() / avg_factor)


class BootstrappedCE(nn.Module):
    """The K hardest pixels, warming up by an iteration."""

    def __init__(self, start_warm=20000, end_warm=70000, top_p=0.15):
        super().__init__()
        self.start_warm, self.end_warm, self.top_p = start_warm, end_warm, top_p

    def forward(self, input, target, it=100000):
        if it < self.start_warm:
            return F.cross_entropy(input, target)
        raw_loss = F.cross_entropy(input, target, reduction="none").view(-1)
        num_pixels = raw_loss.numel()
        this_p = (
            self.top_p
            if it > self.end_warm
            else self.top_p + (1 - self.top_p) * ((self.end_warm - it) / (self.end_warm - self.start_warm))
        )
        loss, _ = torch.topk(raw_loss, max(1, int(num_pixels * this_p)), sorted=False)
        return loss.mean()


class OhemNumpy(nn.Module):
    """The threshold by numpy's sort, images only."""

    def __init__(self, ignore_index=255, thresh=0.6, min_kept=2):
        super().__init__()
        self.ignore_label, self.thresh, self.min_kept = ignore_index, float(thresh), int(min_kept)
        self.criterion = nn.CrossEntropyLoss(ignore_index=ignore_index)

    def find_threshold(self, np_predict, np_target):
        n, c, h, w = np_predict.shape
        input_label = np_target.ravel().astype(np.int32)
        input_prob = np.rollaxis(np_predict, 1).reshape((c, -1))
        valid = input_label != self.ignore_label
        input_label, input_prob = input_label[valid], input_prob[:, valid]
        if self.min_kept >= len(input_label):
            return 1.0
        pred = input_prob[input_label, np.arange(len(input_label))]
        return max(self.thresh, np.partition(pred, self.min_kept)[self.min_kept])

    def forward(self, predict, target):
        p = F.softmax(predict, 1)
        threshold = self.find_threshold(p.detach().cpu().numpy(), target.detach().cpu().numpy())
        kept = p.gather(1, target.clamp(max=predict.shape[1] - 1)[:, None])[:, 0] <= threshold
        return self.criterion(predict, torch.where(kept, target, torch.full_like(target, self.ignore_label)))


def nll_loss2d(logits, target, weight=None, size_average=True):
    n, c, h, w = logits.size()
    log_p = F.log_softmax(logits, dim=1).transpose(1, 2).transpose(2, 3).contiguous().view(-1, c)
    mask = target >= 0
    loss = F.nll_loss(log_p[mask.view(-1)], target[mask], weight=weight, reduction="sum")
    return loss / mask.sum() if size_average else loss


class KnowledgeDistillation(nn.Module):
    """Targets are logits."""

    def __init__(self, T=4.0):
        super().__init__()
        self.T = T

    def forward(self, y_s, y_t):
        p_s = F.log_softmax(y_s / self.T, dim=1)
        p_t = F.softmax(y_t / self.T, dim=1)
        return F.kl_div(p_s, p_t, reduction="sum") * (self.T**2) / max(1, y_s.shape[0])


class InfluenceBalanced(nn.Module):
    """Weights from the batch, detached."""

    def __init__(self, alpha=1000.0):
        super().__init__()
        self.alpha, self.epsilon = alpha, 0.001

    def forward(self, input, target):
        hot = F.one_hot(target, input.shape[1])
        grads = torch.sum(torch.abs(F.softmax(input, dim=1) - hot), 1).detach()
        ib = self.alpha / (grads + self.epsilon)
        return (F.cross_entropy(input, target, reduction="none") * ib).mean()


class ClassBalancedFocalAsModule(nn.Module):
    def __init__(self, cls_num_list, gamma=2.0, beta=0.9999, reweight=True):
        super().__init__()
        self.gamma = gamma
        effective_num = 1.0 - np.power(beta, cls_num_list)
        per_cls_weights = (1.0 - beta) / np.array(effective_num)
        per_cls_weights = per_cls_weights / np.sum(per_cls_weights) * len(cls_num_list)
        self.weight = torch.FloatTensor(per_cls_weights)

    def forward(self, input, target):
        ce = F.cross_entropy(input, target, reduction="none")
        p = torch.exp(-ce)
        return (self.weight.to(input.device)[target] * (1 - p) ** self.gamma * ce).mean()


def bce_loss_of_yolov3(p, t, obj_mask=None):
    """A mask of cells without objects."""
    loss = F.binary_cross_entropy_with_logits(p, t, reduction="none")
    return (loss if obj_mask is None else loss * obj_mask).sum() / max(1, p.shape[0])


class AsymmetricUnified(nn.Module):
    """An asymmetric focal part of channels: background first, probabilities of a softmax."""

    def __init__(self, delta=0.7, gamma=2.0, epsilon=1e-07):
        super().__init__()
        self.delta, self.gamma, self.epsilon = delta, gamma, epsilon

    def forward(self, y_pred, y_true):
        y_pred = torch.clamp(torch.sigmoid(y_pred), self.epsilon, 1.0 - self.epsilon)
        back = (1 - self.delta) * torch.pow(y_pred, self.gamma) * -(1 - y_true) * torch.log(1 - y_pred)
        fore = self.delta * -y_true * torch.log(y_pred)
        return torch.mean(back + fore)


class MarginRanking(nn.Module):
    """AP-like: pairs of positives and negatives of the batch."""

    def __init__(self, delta=1.0):
        super().__init__()
        self.delta = delta

    def forward(self, logits, targets):
        pos, neg = logits[targets > 0.5], logits[targets <= 0.5]
        if len(pos) == 0 or len(neg) == 0:
            return logits.sum() * 0
        return F.relu(self.delta - (pos[:, None] - neg[None, :])).mean()


def quality_focal_with_mask(pred_sigmoid, teacher_sigmoid, weight=None, beta=2.0):
    """ATSS distillation: both are probabilities."""
    loss = F.binary_cross_entropy(pred_sigmoid, teacher_sigmoid, reduction="none")
    loss = loss * (pred_sigmoid - teacher_sigmoid).abs().pow(beta)
    return loss.mean() if weight is None else (loss * weight).sum() / weight.sum()


def yolo_detection(predictions, targets, model, imgsz=640):
    """A whole head: not to be called."""
    return sum((p - model.assign(t, imgsz)).abs().mean() for p, t in zip(predictions, targets))
