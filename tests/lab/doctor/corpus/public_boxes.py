# ruff: noqa
"""Sound losses of boxes, in the shapes in which published code has them."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def _similarity_of_pairs(box1, box2, xywh=True, GIoU=False, DIoU=False, CIoU=False, eps=1e-7):
    """YOLOv5's: a similarity of pairs, columns (N, 1)."""
    if xywh:
        (x1, y1, w1, h1), (x2, y2, w2, h2) = box1.chunk(4, -1), box2.chunk(4, -1)
        b1_x1, b1_x2, b1_y1, b1_y2 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
        b2_x1, b2_x2, b2_y1, b2_y2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
    else:
        b1_x1, b1_y1, b1_x2, b1_y2 = box1.chunk(4, -1)
        b2_x1, b2_y1, b2_x2, b2_y2 = box2.chunk(4, -1)
        w1, h1, w2, h2 = b1_x2 - b1_x1, b1_y2 - b1_y1, b2_x2 - b2_x1, b2_y2 - b2_y1
    inter = (b1_x2.minimum(b2_x2) - b1_x1.maximum(b2_x1)).clamp(0) * (
        b1_y2.minimum(b2_y2) - b1_y1.maximum(b2_y1)
    ).clamp(0)
    union = w1 * h1 + w2 * h2 - inter + eps
    iou = inter / union
    if CIoU or DIoU or GIoU:
        cw = b1_x2.maximum(b2_x2) - b1_x1.minimum(b2_x1)
        ch = b1_y2.maximum(b2_y2) - b1_y1.minimum(b2_y1)
        if CIoU or DIoU:
            c2 = cw.pow(2) + ch.pow(2) + eps
            rho2 = ((b2_x1 + b2_x2 - b1_x1 - b1_x2).pow(2) + (b2_y1 + b2_y2 - b1_y1 - b1_y2).pow(2)) / 4
            if CIoU:
                v = (4 / math.pi**2) * ((w2 / (h2 + eps)).atan() - (w1 / (h1 + eps)).atan()).pow(2)
                with torch.no_grad():
                    alpha = v / (v - iou + (1 + eps))
                return iou - (rho2 / c2 + v * alpha)
            return iou - rho2 / c2
        c_area = cw * ch + eps
        return iou - (c_area - union) / c_area
    return iou


class YoloBoxLoss(nn.Module):
    def forward(self, pbox, tbox):
        iou = _similarity_of_pairs(pbox, tbox, CIoU=True).squeeze()
        return (1.0 - iou).mean()


def yolo_giou_xyxy(pred_bboxes, target_bboxes):
    return 1 - _similarity_of_pairs(pred_bboxes, target_bboxes, xywh=False, GIoU=True)


def _parts(pred, target, eps=1e-7):
    lt, rb = torch.max(pred[:, :2], target[:, :2]), torch.min(pred[:, 2:], target[:, 2:])
    wh = (rb - lt).clamp(min=0)
    overlap = wh[:, 0] * wh[:, 1]
    ap = (pred[:, 2] - pred[:, 0]) * (pred[:, 3] - pred[:, 1])
    ag = (target[:, 2] - target[:, 0]) * (target[:, 3] - target[:, 1])
    iou = overlap / (ap + ag - overlap + eps)
    enclose = torch.max(pred[:, 2:], target[:, 2:]) - torch.min(pred[:, :2], target[:, :2])
    return iou, enclose.clamp(min=0)


def siou_loss(pred, target, eps=1e-7, neg_gamma=False):
    """mmyolo's."""
    iou, enclose = _parts(pred, target, eps)
    s_cw = (target[:, 0] + target[:, 2] - pred[:, 0] - pred[:, 2]) * 0.5 + eps
    s_ch = (target[:, 1] + target[:, 3] - pred[:, 1] - pred[:, 3]) * 0.5 + eps
    sigma = torch.pow(s_cw**2 + s_ch**2, 0.5)
    sin_alpha, sin_beta = torch.abs(s_ch) / sigma, torch.abs(s_cw) / sigma
    sin_alpha = torch.where(sin_alpha <= math.sin(math.pi / 4), sin_alpha, sin_beta)
    angle_cost = torch.cos(torch.asin(sin_alpha) * 2 - math.pi / 2)
    rho_x, rho_y = (s_cw / (enclose[:, 0] + eps)) ** 2, (s_ch / (enclose[:, 1] + eps)) ** 2
    gamma = 2 - angle_cost
    distance_cost = (1 - torch.exp(-gamma * rho_x)) + (1 - torch.exp(-gamma * rho_y))
    w1, h1, w2, h2 = (
        pred[:, 2] - pred[:, 0],
        pred[:, 3] - pred[:, 1],
        target[:, 2] - target[:, 0],
        target[:, 3] - target[:, 1],
    )
    omiga_w = torch.abs(w1 - w2) / torch.max(w1, w2).clamp(min=eps)
    omiga_h = torch.abs(h1 - h2) / torch.max(h1, h2).clamp(min=eps)
    shape_cost = torch.pow(1 - torch.exp(-1 * omiga_w), 4) + torch.pow(1 - torch.exp(-1 * omiga_h), 4)
    return 1 - (iou - (distance_cost + shape_cost) * 0.5)


class WIoUv1(nn.Module):
    def forward(self, pred, target):
        iou, enclose = _parts(pred, target)
        d = ((pred[:, :2] + pred[:, 2:]) / 2 - (target[:, :2] + target[:, 2:]) / 2).pow(2).sum(1)
        return torch.exp(d / (enclose.pow(2).sum(1).detach() + 1e-7)) * (1 - iou)


class WIoUv3(nn.Module):
    """A running mean in a buffer, and a weight without gradient."""

    momentum = 1e-2

    def __init__(self, alpha=1.7, delta=2.7):
        super().__init__()
        self.alpha, self.delta = alpha, delta
        self.register_buffer("iou_mean", torch.tensor(1.0))

    def forward(self, pred, target):
        iou, enclose = _parts(pred, target)
        loss = 1 - iou
        if self.training:
            self.iou_mean.mul_(1 - self.momentum).add_(self.momentum * loss.detach().mean())
        d = ((pred[:, :2] + pred[:, 2:]) / 2 - (target[:, :2] + target[:, 2:]) / 2).pow(2).sum(1)
        loss = loss * torch.exp(d / (enclose.pow(2).sum(1).detach() + 1e-7))
        beta = (1 - iou).detach() / self.iou_mean
        return loss * beta / (self.delta * torch.pow(self.alpha, beta - self.delta))


def mpdiou(pred, target, img_w=640, img_h=640, eps=1e-7):
    iou, _ = _parts(pred, target, eps)
    d1 = (pred[:, 0] - target[:, 0]) ** 2 + (pred[:, 1] - target[:, 1]) ** 2
    d2 = (pred[:, 2] - target[:, 2]) ** 2 + (pred[:, 3] - target[:, 3]) ** 2
    diagonal = img_w**2 + img_h**2
    return 1 - (iou - d1 / diagonal - d2 / diagonal)


def alpha_iou(pred, target, alpha=3.0, eps=1e-7):
    iou, _ = _parts(pred, target, eps)
    return 1 - torch.pow(iou + eps, alpha)


def alpha_ciou(pred, target, alpha=3, eps=1e-7):
    iou, enclose = _parts(pred, target, eps)
    d = ((pred[:, :2] + pred[:, 2:]) / 2 - (target[:, :2] + target[:, 2:]) / 2).pow(2).sum(1)
    c2 = enclose.pow(2).sum(1) + eps
    w1, h1, w2, h2 = (
        pred[:, 2] - pred[:, 0],
        pred[:, 3] - pred[:, 1] + eps,
        target[:, 2] - target[:, 0],
        target[:, 3] - target[:, 1] + eps,
    )
    v = (4 / math.pi**2) * torch.pow(torch.atan(w2 / h2) - torch.atan(w1 / h1), 2)
    with torch.no_grad():
        beta = v / ((1 + eps) - iou + v)
    return 1 - iou.add(eps).pow(alpha) + (d / c2).pow(alpha) + (v * beta + eps).pow(alpha)


class FocalEIoU(nn.Module):
    def __init__(self, gamma=0.5, eps=1e-7):
        super().__init__()
        self.gamma, self.eps = gamma, eps

    def forward(self, pred, target):
        iou, enclose = _parts(pred, target, self.eps)
        d = ((pred[:, :2] + pred[:, 2:]) / 2 - (target[:, :2] + target[:, 2:]) / 2).pow(2).sum(1)
        dw = ((pred[:, 2] - pred[:, 0]) - (target[:, 2] - target[:, 0])) ** 2
        dh = ((pred[:, 3] - pred[:, 1]) - (target[:, 3] - target[:, 1])) ** 2
        cw2, ch2 = enclose[:, 0] ** 2 + self.eps, enclose[:, 1] ** 2 + self.eps
        eiou = 1 - iou + d / (cw2 + ch2) + dw / cw2 + dh / ch2
        return iou.detach().clamp(min=self.eps) ** self.gamma * eiou


def nwd_loss(pred, target, constant=12.8, eps=1e-7):
    """Boxes as Gaussians, for tiny objects."""
    centre1, centre2 = (pred[:, :2] + pred[:, 2:]) / 2, (target[:, :2] + target[:, 2:]) / 2
    distance = (centre1 - centre2).pow(2).sum(1) + eps
    wh1, wh2 = pred[:, 2:] - pred[:, :2] + eps, target[:, 2:] - target[:, :2] + eps
    wasserstein = torch.sqrt(distance + (wh1 - wh2).pow(2).sum(1) / 4)
    return 1 - torch.exp(-wasserstein / constant)


def nwd_of_centres(box1, box2, constant=12.8):
    """cx, cy, w, h."""
    d = (box1[..., :2] - box2[..., :2]).pow(2).sum(-1) + (box1[..., 2:] - box2[..., 2:]).pow(2).sum(-1) / 4
    return 1 - torch.exp(-torch.sqrt(d + 1e-7) / constant)


def kld_loss(pred, target, fun="log1p", tau=1.0):
    """Rotated boxes (N, 5): centre, size, angle."""

    def gaussian(box):
        xy, wh, r = box[..., :2], box[..., 2:4].clamp(min=1e-7, max=1e7), box[..., 4]
        cos, sin = torch.cos(r), torch.sin(r)
        R = torch.stack((cos, -sin, sin, cos), -1).reshape(-1, 2, 2)
        S = 0.5 * torch.diag_embed(wh)
        return xy, R.bmm(S.square()).bmm(R.permute(0, 2, 1))

    (xy_p, s_p), (xy_t, s_t) = gaussian(pred), gaussian(target)
    inverse = torch.linalg.inv(s_p)
    dxy = (xy_p - xy_t).unsqueeze(-1)
    distance = 0.5 * dxy.permute(0, 2, 1).bmm(inverse).bmm(dxy).view(-1)
    distance = (
        distance
        + 0.5 * (inverse.bmm(s_t).diagonal(dim1=1, dim2=2).sum(1) + s_p.det().log() - s_t.det().log())
        - 1
    )
    return 1 - 1 / (tau + torch.log1p(distance.clamp(min=0)))


def gwd_loss(pred, target, tau=1.0):
    """Rotated boxes (N, 5) by the Wasserstein distance."""

    def gaussian(box):
        xy, wh, r = box[..., :2], box[..., 2:4].clamp(min=1e-7, max=1e7), box[..., 4]
        cos, sin = torch.cos(r), torch.sin(r)
        R = torch.stack((cos, -sin, sin, cos), -1).reshape(-1, 2, 2)
        S = 0.5 * torch.diag_embed(wh)
        return xy, R.bmm(S.square()).bmm(R.permute(0, 2, 1))

    (xy_p, s_p), (xy_t, s_t) = gaussian(pred), gaussian(target)
    whr = s_p.diagonal(dim1=1, dim2=2).sum(1) + s_t.diagonal(dim1=1, dim2=2).sum(1)
    trace = s_p.bmm(s_t).diagonal(dim1=1, dim2=2).sum(1)
    root = (s_p.det() * s_t.det()).clamp(min=1e-7).sqrt()
    whr = whr - 2 * (trace + 2 * root).clamp(min=1e-7).sqrt()
    distance = ((xy_p - xy_t).square().sum(1) + whr).clamp(min=1e-7).sqrt()
    return 1 - 1 / (tau + torch.log1p(distance))


def unitbox_ltrb(pred, target, eps=1e-6):
    """FCOS: distances to four sides, -log IoU."""
    pl, pt, pr, pb = pred.unbind(1)
    tl, tt, tr, tb = target.unbind(1)
    ta, pa = (tl + tr) * (tt + tb), (pl + pr) * (pt + pb)
    inter = (torch.min(pl, tl) + torch.min(pr, tr)) * (torch.min(pb, tb) + torch.min(pt, tt))
    return -torch.log((inter + eps) / (ta + pa - inter + eps)).mean()


def detr_boxes(src_boxes, target_boxes, num_boxes):
    """L1 and the diagonal of a pairwise GIoU, of centres and sizes."""

    def corners(x):
        cx, cy, w, h = x.unbind(-1)
        return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h], -1)

    a, b = corners(src_boxes), corners(target_boxes)
    lt, rb = torch.max(a[:, None, :2], b[None, :, :2]), torch.min(a[:, None, 2:], b[None, :, 2:])
    inter = (rb - lt).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None] - inter
    hull = (
        (torch.max(a[:, None, 2:], b[None, :, 2:]) - torch.min(a[:, None, :2], b[None, :, :2]))
        .clamp(min=0)
        .prod(-1)
    )
    giou = inter / (union + 1e-7) - (hull - union) / (hull + 1e-7)
    l1 = F.l1_loss(src_boxes, target_boxes, reduction="none").sum() / num_boxes
    return 5 * l1 + 2 * (1 - torch.diag(giou)).sum() / num_boxes


def bounded_iou(pred, target, beta=0.2, eps=1e-3):
    pc, pwh = (pred[:, :2] + pred[:, 2:]) * 0.5, pred[:, 2:] - pred[:, :2]
    with torch.no_grad():
        tc, twh = (target[:, :2] + target[:, 2:]) * 0.5, target[:, 2:] - target[:, :2]
    d = tc - pc
    loss_d = 1 - torch.max((twh - 2 * d.abs()) / (twh + 2 * d.abs() + eps), torch.zeros_like(d))
    loss_wh = 1 - torch.min(twh / (pwh + eps), pwh / (twh + eps))
    comb = torch.cat([loss_d, loss_wh], 1)
    return torch.where(comb < beta, 0.5 * comb * comb / beta, comb - 0.5 * beta)


def balanced_l1(pred, target, beta=1.0, alpha=0.5, gamma=1.5, reduction="mean"):
    diff = torch.abs(pred - target)
    b = math.e ** (gamma / alpha) - 1
    loss = torch.where(
        diff < beta,
        alpha / b * (b * diff + 1) * torch.log(b * diff / beta + 1) - alpha * diff,
        gamma * diff + gamma / b - alpha * beta,
    )
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


class SmoothL1OfDeltas(nn.Module):
    """Regression of offsets, with weights of the rows."""

    def __init__(self, beta=1.0 / 9.0):
        super().__init__()
        self.beta = beta

    def forward(self, bbox_pred, bbox_targets, bbox_weights=None):
        n = torch.abs(bbox_pred - bbox_targets)
        loss = torch.where(n < self.beta, 0.5 * n**2 / self.beta, n - 0.5 * self.beta)
        return (loss if bbox_weights is None else loss * bbox_weights).sum() / max(1, len(bbox_pred))


def inner_iou(pred, target, ratio=0.7, eps=1e-7):
    def scaled(box):
        centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2 * ratio
        return torch.cat([centre - half, centre + half], 1)

    giou_part, enclose = _parts(pred, target, eps)
    inner, _ = _parts(scaled(pred), scaled(target), eps)
    area = enclose.prod(1)
    return 1 - inner + giou_part * 0


def shape_iou(pred, target, scale=0.0, eps=1e-7):
    iou, enclose = _parts(pred, target, eps)
    w1, h1, w2, h2 = (
        pred[:, 2] - pred[:, 0],
        pred[:, 3] - pred[:, 1],
        target[:, 2] - target[:, 0],
        target[:, 3] - target[:, 1],
    )
    ww = 2 * w2**scale / (w2**scale + h2**scale)
    hh = 2 * h2**scale / (w2**scale + h2**scale)
    c2 = enclose.pow(2).sum(1) + eps
    dx = (target[:, 0] + target[:, 2] - pred[:, 0] - pred[:, 2]) ** 2 / 4
    dy = (target[:, 1] + target[:, 3] - pred[:, 1] - pred[:, 3]) ** 2 / 4
    distance = hh * dx / c2 + ww * dy / c2
    omiga_w = hh * (w1 - w2).abs() / torch.max(w1, w2).clamp(min=eps)
    omiga_h = ww * (h1 - h2).abs() / torch.max(h1, h2).clamp(min=eps)
    shape = (1 - torch.exp(-omiga_w)) ** 4 + (1 - torch.exp(-omiga_h)) ** 4
    return 1 - iou + distance + 0.5 * shape


def iou_of_flags(pred, target, weight=None, loss_type="giou", eps=1e-7):
    """A method chosen by if and elif."""
    iou, enclose = _parts(pred, target, eps)
    if loss_type == "iou":
        loss = 1 - iou
    elif loss_type == "linear_iou":
        loss = -torch.log(iou.clamp(min=eps))
    elif loss_type == "giou":
        areas = (pred[:, 2:] - pred[:, :2]).prod(1) + (target[:, 2:] - target[:, :2]).prod(1)
        union = areas * 1 / (1 + iou)
        area = enclose.prod(1) + eps
        loss = 1 - iou + (area - union) / area
    else:
        raise NotImplementedError
    return loss.mean() if weight is None else (loss * weight).sum() / weight.sum().clamp(min=eps)


class MmdetIoU(nn.Module):
    """weight, avg_factor, reduction_override; a sum times zero where no weight is positive."""

    def __init__(self, linear=False, eps=1e-6, reduction="mean", loss_weight=1.0, mode="log"):
        super().__init__()
        self.eps, self.reduction, self.loss_weight, self.mode = eps, reduction, loss_weight, mode

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None, **kwargs):
        assert reduction_override in (None, "none", "mean", "sum")
        reduction = reduction_override if reduction_override else self.reduction
        if weight is not None and not torch.any(weight > 0) and reduction != "none":
            return (pred * weight).sum()
        ious = _parts(pred, target)[0].clamp(min=self.eps)
        loss = {"linear": 1 - ious, "square": 1 - ious**2, "log": -ious.log()}[self.mode]
        loss = loss if weight is None else loss * weight
        if avg_factor is not None:
            return self.loss_weight * loss.sum() / avg_factor
        return self.loss_weight * (
            loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
        )
