# ruff: noqa
"""Losses of a sigmoid per class, sound ones and faulty ones, as people write them."""

import functools

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

bce = F.binary_cross_entropy_with_logits

# sound


def bce_none(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def bce_mean(x, t):
    return F.binary_cross_entropy_with_logits(x, t)


def bce_sum(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="sum")


def bce_sum_rows(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").mean(1).sum()


def bce_by_class(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").sum(1)


def bce_dict(x, t):
    return {"loss": F.binary_cross_entropy_with_logits(x, t)}


def bce_tuple(x, t):
    return F.binary_cross_entropy_with_logits(x, t), 0.5


built = nn.BCEWithLogitsLoss()
partial = functools.partial(F.binary_cross_entropy_with_logits, reduction="mean")
short = lambda x, t: F.binary_cross_entropy_with_logits(x, t)


class Holder:
    loss = staticmethod(F.binary_cross_entropy_with_logits)


class Own:
    def loss(self, x, t):
        return bce(x, t)


class Callable:
    def __call__(self, x, t):
        return bce(x, t)


def weight_required(x, t, weight):
    return bce(x, t, weight)


def targets_first(y_true, y_pred):
    return F.binary_cross_entropy_with_logits(y_pred, y_true)


def one_hot_inside(x, labels, num_classes=80):
    t = F.one_hot(labels, num_classes + 1)[:, :-1].to(x.dtype)
    return F.binary_cross_entropy_with_logits(x, t)


def background_zero(x, labels):
    t = F.one_hot(labels, x.shape[1] + 1)[:, 1:].to(x.dtype)
    return F.binary_cross_entropy_with_logits(x, t, reduction="sum")


def label_and_score(pred, target, beta=2.0):
    """Quality focal loss as mmdet has it."""
    label, score = target
    scale = pred.sigmoid()
    zero = scale.new_zeros(pred.shape)
    loss = F.binary_cross_entropy_with_logits(pred, zero, reduction="none") * scale.pow(beta)
    pos = ((label >= 0) & (label < pred.size(1))).nonzero().squeeze(1)
    pos_label = label[pos].long()
    off = score[pos].to(pred.dtype) - scale[pos, pos_label]
    loss[pos, pos_label] = F.binary_cross_entropy_with_logits(
        pred[pos, pos_label], score[pos].to(pred.dtype), reduction="none"
    ) * off.abs().pow(beta)
    return loss.sum(dim=1, keepdim=False)


def focal_torchvision(inputs, targets, alpha=0.25, gamma=2, reduction="none"):
    p = torch.sigmoid(inputs)
    ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = ce * ((1 - p_t) ** gamma)
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss


def focal_logsigmoid(x, t, alpha=0.25, gamma=2.0):
    p = x.sigmoid()
    positive = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    return torch.where(t == 1, positive, negative)


class FocalMmdet(nn.Module):
    def __init__(self, gamma=2.0, alpha=0.25, reduction="mean", loss_weight=1.0):
        super().__init__()
        self.gamma, self.alpha, self.reduction, self.loss_weight = gamma, alpha, reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        reduction = reduction_override if reduction_override else self.reduction
        p = pred.sigmoid()
        target = target.type_as(pred)
        pt = (1 - p) * target + p * (1 - target)
        focal = (self.alpha * target + (1 - self.alpha) * (1 - target)) * pt.pow(self.gamma)
        loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * focal
        if weight is not None:
            loss = loss * weight
        if avg_factor is not None:
            return self.loss_weight * loss.sum() / avg_factor
        if reduction == "mean":
            return self.loss_weight * loss.mean()
        if reduction == "sum":
            return self.loss_weight * loss.sum()
        return self.loss_weight * loss


class FocalDetr(nn.Module):
    def forward(self, inputs, targets, num_boxes):
        p = inputs.sigmoid()
        ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
        p_t = p * targets + (1 - p) * (1 - targets)
        return (ce * (1 - p_t) ** 2).mean(1).sum() / num_boxes


def focal_of_positives(logits, targets, alpha=0.25, gamma=2.0):
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = (alpha * targets + (1 - alpha) * (1 - targets)) * (1 - p_t) ** gamma * ce
    return loss.sum() / (targets > 0).sum().clamp(min=1)


def focal_autocast(x, t):
    with torch.autocast("cuda", enabled=False):
        x, t = x.float(), t.float()
        p = x.sigmoid()
        p_t = p * t + (1 - p) * (1 - t)
        return (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def quality(x, t, beta=2.0):
    return (t - x.sigmoid()).abs() ** beta * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def varifocal(x, gt_score, alpha=0.75, gamma=2.0):
    weight = torch.where(gt_score > 0, gt_score, alpha * x.sigmoid().pow(gamma))
    return (F.binary_cross_entropy_with_logits(x, gt_score, reduction="none") * weight).mean(1).sum()


def varifocal_detached(x, t):
    """As the DETR family has it: the weight carries no gradient."""
    weight = torch.where(t > 0, t, 0.75 * x.sigmoid().detach() ** 2)
    return weight * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def ia_bce_of_probabilities(x, u, alpha=0.25, gamma=2.0):
    """As the DETR family has it: logarithms of a probability and of 1 minus it."""
    p = x.sigmoid()
    t = (p**alpha * u ** (1 - alpha)).clamp(0.01).detach()
    positive, negative = torch.where(u > 0, t, torch.zeros_like(p)), torch.where(u > 0, 1 - t, p**gamma)
    return -positive * p.log() - negative * (1 - p).log()


def ia_bce_through_the_label(x, u):
    """IoU-aware BCE whose label carries gradient."""
    t = (x.sigmoid() ** 0.25 * u**0.75).clamp(0.01)
    t = torch.where(u > 0, t, torch.zeros_like(x))
    weight = torch.where(u > 0, torch.ones_like(x), x.sigmoid() ** 2)
    return weight * (F.softplus(x) - t * x)


class GaussianFocal(nn.Module):
    """Of heat maps, on probabilities, as mmdet has it."""

    def __init__(self, alpha=2.0, gamma=4.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, pred, heat_map):
        eps = 1e-12
        at_centres = -(pred + eps).log() * (1 - pred) ** self.alpha * heat_map.eq(1)
        around = -(1 - pred + eps).log() * pred**self.alpha * (1 - heat_map) ** self.gamma
        return at_centres + around


def poly_focal(x, t, epsilon=1.0, gamma=2.0, alpha=0.25):
    p = x.sigmoid()
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = t * p + (1 - t) * (1 - p)
    loss = ce * (1 - p_t) ** gamma
    loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    return loss + epsilon * torch.pow(1 - p_t, gamma + 1)


class Asymmetric(nn.Module):
    """As its authors have it: the clip, clamps, and the weight under no_grad."""

    def __init__(self, gamma_neg=4, gamma_pos=1, clip=0.05, eps=1e-8, disable_torch_grad_focal_loss=True):
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.clip, self.eps = gamma_neg, gamma_pos, clip, eps
        self.disable = disable_torch_grad_focal_loss

    def forward(self, x, y):
        right = torch.sigmoid(x)
        wrong = 1 - right
        if self.clip is not None and self.clip > 0:
            wrong = (wrong + self.clip).clamp(max=1)
        loss = y * torch.log(right.clamp(min=self.eps)) + (1 - y) * torch.log(wrong.clamp(min=self.eps))
        with torch.set_grad_enabled(not self.disable):
            pt = right * y + wrong * (1 - y)
            weight = torch.pow(1 - pt, self.gamma_pos * y + self.gamma_neg * (1 - y))
        return -(loss * weight).sum()


def smoothed(x, t, smoothing=0.1):
    return F.binary_cross_entropy_with_logits(x, t * (1 - smoothing) + smoothing / 2)


def smoothed_to_one_side(x, t):
    return F.binary_cross_entropy_with_logits(x, 0.9 * t)


def pos_weighted(x, t):
    return F.binary_cross_entropy_with_logits(x, t, pos_weight=x.new_full((1,), 3.0))


def flat_weight(x, t, alpha=0.25):
    return alpha * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def alpha_on_positives_only(x, t, alpha=0.25):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * (alpha * t + 1 - t)


def alpha_off(x, t, alpha=None):
    weight = 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * weight


class WeightsInABuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([0.75, 0.25]))

    def forward(self, x, t):
        return self.weights[t.long()] * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def steeper(x, t):
    return F.softplus(3 * x * (1 - 2 * t))


def hinge(x, t):
    return torch.relu(1 + x * (1 - 2 * t))


def per_class(x, t):
    return torch.stack([bce(x[:, c], t[:, c], reduction="none") for c in range(x.shape[1])], 1)


def whole_numbers_stay(logits, targets, alpha=3, bins=10):
    return alpha * bins * F.binary_cross_entropy_with_logits(logits, targets)


def on_its_device(x, t):
    least = torch.tensor([1e-6], device=x.device)
    return torch.max(F.binary_cross_entropy_with_logits(x, t, reduction="none"), least)


def new_tensor(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * x.new_tensor([2.0])


def mask_on_its_device(x, t):
    mask = torch.zeros(x.shape, device=x.device, dtype=x.dtype)
    mask[t > 0] = 1
    chosen = torch.where(t > 0)
    return (
        bce(x, t, reduction="none") * (1 + mask) * torch.tensor(0.5)
        + 0 * len(chosen[0]) * x[torch.arange(len(x))]
    )


class ClassBalanced(nn.Module):
    """Weights from the effective number of samples, normalised over the batch."""

    def __init__(self, samples_per_class=(100, 20, 5), beta=0.999):
        super().__init__()
        effective = 1.0 - torch.tensor(beta) ** torch.tensor(samples_per_class, dtype=torch.float32)
        weights = (1.0 - beta) / effective
        self.register_buffer("weights", weights / weights.sum() * len(samples_per_class))

    def forward(self, logits, labels):
        hot = F.one_hot(labels, len(self.weights)).to(logits.dtype)
        weights = (self.weights.to(logits) * hot).sum(1, keepdim=True)
        return F.binary_cross_entropy_with_logits(logits, hot, weight=weights.expand_as(logits))


class GHM(nn.Module):
    """Gradient harmonised: weights from the density of gradients in the batch."""

    def __init__(self, bins=10):
        super().__init__()
        self.bins = bins

    def forward(self, pred, target):
        g = (pred.sigmoid().detach() - target).abs()
        place = (g * self.bins).long().clamp(max=self.bins - 1)
        count = torch.bincount(place.reshape(-1), minlength=self.bins).to(pred)
        weight = pred.numel() / count.clamp(min=1)[place] / (count > 0).sum().clamp(min=1)
        return F.binary_cross_entropy_with_logits(pred, target, weight, reduction="sum") / max(
            pred.numel(), 1
        )


def of_the_hardest(x, t):
    each = F.binary_cross_entropy_with_logits(x, t, reduction="none").reshape(-1)
    return each.topk(min(4, each.numel())).values.sum()


def float_inside(x, t):
    return F.binary_cross_entropy_with_logits(x.float(), t.float(), reduction="none").to(x.dtype)


# probabilities


def bce_of_probabilities(x, t):
    return F.binary_cross_entropy(x, t, reduction="none")


bce_module_of_probabilities = nn.BCELoss()


def clamped_probabilities(p, t):
    p = p.clamp(1e-12, 1 - 1e-12)
    return F.binary_cross_entropy(p, t, reduction="none")


def focal_of_probabilities(p, t, alpha=0.25, gamma=2.0):
    eps = 1e-8
    positive = -alpha * (1 - p) ** gamma * t * torch.log(p + eps)
    return positive - (1 - alpha) * p**gamma * (1 - t) * torch.log(1 - p + eps)


def focal_of_clamped_probabilities(pred, target, gamma=2.0):
    pred = pred.clamp(1e-6, 1 - 1e-6)
    p_t = pred * target + (1 - pred) * (1 - target)
    return (-((1 - p_t) ** gamma) * torch.log(p_t)).mean()


def focal_clamped_in_the_logarithm(pred, target, alpha=0.25, gamma=2.0):
    loss_1 = -alpha * (1 - pred) ** gamma * target * torch.log(pred.clamp(min=1e-6))
    loss_0 = -(1 - alpha) * pred**gamma * (1 - target) * torch.log((1 - pred).clamp(min=1e-6))
    return (loss_1 + loss_0).mean()


def heatmap(pred, gt):
    """CenterNet's, of probabilities."""
    pos = gt.eq(1).float()
    neg = gt.lt(1).float()
    pos_loss = torch.log(pred + 1e-12) * torch.pow(1 - pred, 2) * pos
    neg_loss = torch.log(1 - pred + 1e-12) * torch.pow(pred, 2) * torch.pow(1 - gt, 4) * neg
    num = pos.sum()
    if num == 0:
        return -neg_loss.sum()
    return -(pos_loss.sum() + neg_loss.sum()) / num


def log_of_probability_without_eps(p, t):
    return -(t * p.log() + (1 - t) * (1 - p).log())


# faulty


def alpha_on_negatives(logits, targets, alpha=0.25, gamma=2.0):
    ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    alpha_t = alpha * (1 - targets) + (1 - alpha) * targets
    return (alpha_t * (1 - torch.exp(-ce)) ** gamma * ce).mean()


def alpha_gathered(x, t, alpha=0.25):
    weights = x.new_tensor([alpha, 1 - alpha])
    return weights[t.long()] * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def alpha_unnamed(x, t):
    return x.new_tensor([0.25, 0.75])[t.long()] * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def gathered_for_one_column(x, t):
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    weight = x.new_tensor([0.75, 0.25]).gather(0, t.long().view(-1))
    return (weight * ce).mean()


def changes_targets(x, t):
    return F.binary_cross_entropy_with_logits(x, t.clamp_(0.01, 0.99), reduction="none")


def changes_predictions(x, t):
    return F.binary_cross_entropy_with_logits(x.mul_(2), t, reduction="none")


def sigmoid_in_place(x, t):
    p = x.sigmoid_()
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def weight_after_the_mean(x, t, alpha=0.8, gamma=2):
    cross = F.binary_cross_entropy_with_logits(x, t)
    return alpha * (1 - torch.exp(-cross)) ** gamma * cross


def weight_that_falls(x, t):
    return (1 - x.sigmoid()) ** 2 * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def pt_to_the_gamma(x, t):
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return torch.exp(-2 * ce) * ce


def only_positives(x, t):
    return t * F.binary_cross_entropy_with_logits(x, t, reduction="none") + 0.1 * (1 - t)


def sigmoid_twice(logits, targets):
    ce = F.binary_cross_entropy_with_logits(logits.sigmoid(), targets, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


def clamped_far(logits, targets, gamma=2.0):
    p = torch.sigmoid(logits).clamp(0.02, 0.98)
    p_t = p * targets + (1 - p) * (1 - targets)
    return -((1 - p_t) ** gamma) * p_t.log()


def clamped_a_little(logits, targets, gamma=2.0):
    p = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
    p_t = p * targets + (1 - p) * (1 - targets)
    return -((1 - p_t) ** gamma) * p_t.log()


def squares(x, t):
    return (x.sigmoid() - t) ** 2


def negative(x, t):
    return -F.binary_cross_entropy_with_logits(x, t, reduction="none")


def log_of_sigmoid(x, t):
    p = x.sigmoid()
    return -(t * p.log() + (1 - t) * (1 - p).log())


def numpy_inside(logits, targets):
    return torch.from_numpy(np.log1p(np.exp(-logits.numpy())) * targets.numpy())


def item(x, t):
    return F.binary_cross_entropy_with_logits(x, t).item()


def detached(x, t):
    return F.binary_cross_entropy_with_logits(x.detach(), t)


def hard_decision(x, t):
    return ((x > 0).to(x.dtype) - t).abs()


def made_a_leaf(x, t):
    return F.binary_cross_entropy_with_logits(x, t).detach().requires_grad_()


def weight_detached(x, t):
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return ce * (1 - torch.exp(-ce)).detach() ** 2


def detached_on_purpose(logits, targets):
    weight = (logits.sigmoid() - targets).abs().detach() + logits.square().detach()
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, t):
        ctx.save_for_backward(x, t)
        return F.binary_cross_entropy_with_logits(x, t, reduction="none")

    @staticmethod
    def backward(ctx, outer):
        x, t = ctx.saved_tensors
        return outer * (t - x.sigmoid()), None


def square_root(x, t):
    p_t = x.sigmoid() * t + (1 - x.sigmoid()) * (1 - t)
    return (1 - p_t) ** 0.5 * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def hard_labels(x, t):
    return F.binary_cross_entropy_with_logits(x, t.long().to(x.dtype), reduction="none")


def reduction_ignored(x, t, reduction="mean"):
    return F.binary_cross_entropy_with_logits(x, t)


def per_positive(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").sum() / t.sum()


def odd_divisor(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").sum() / 7.3


def largest_subtracted(x, t):
    return F.binary_cross_entropy_with_logits(x - x.max(), t, reduction="none")


def nothing_for_no_rows(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="sum") if len(x) else torch.tensor(0.0)


def squeezed(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").squeeze().sum(1)


def viewed(x, t):
    return F.binary_cross_entropy_with_logits(x.view(-1), t.view(-1), reduction="none")


def every_with_every(x, t):
    x, t = torch.broadcast_tensors(x.view(-1), t.view(-1, 1))
    return F.binary_cross_entropy_with_logits(x, t)


def loop_over_positives(x, t):
    weight = 0.75 * x.sigmoid() ** 2
    rows, columns = torch.where(t > 0)
    for i in range(len(rows)):
        weight[rows[i], columns[i]] = t[rows[i], columns[i]]
    return weight * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def loop_over_rows(x, t):
    return torch.stack([F.binary_cross_entropy_with_logits(a, b, reduction="sum") for a, b in zip(x, t)])


def wasteful(x, t):
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    for scale in range(20):
        loss = loss + 0 * (x * scale).tanh()
    return loss


def no_background(x, labels):
    return F.binary_cross_entropy_with_logits(x, F.one_hot(labels, x.shape[1]).to(x.dtype))


class OnGpu(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.tensor(2.0).cuda()

    def forward(self, x, t):
        return self.scale * F.binary_cross_entropy_with_logits(x, t)


def gpu_tensor_type(logits, targets):
    weight = torch.cuda.FloatTensor(logits.shape).fill_(2)
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class WeightsOnCpu(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.tensor([0.75, 0.25])

    def forward(self, x, t):
        return self.weights[t.long()] * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def mask_on_cpu(x, t):
    mask = torch.zeros(x.shape)
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * (1 + mask)


def float32_out(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none").to(torch.float32)


def eye_of_float32(x, t):
    return (x @ torch.eye(x.shape[-1], device=x.device)).sigmoid().sub(t).abs() + bce(x, t, reduction="none")


def switches_gradients_on(x, t):
    torch.set_grad_enabled(False)
    weight = (x.sigmoid() - t).abs()
    torch.set_grad_enabled(True)
    return weight * F.binary_cross_entropy_with_logits(x, t, reduction="none")


def random_noise(x, t):
    return F.binary_cross_entropy_with_logits(x, t - 0.1 * torch.rand_like(t), reduction="none")


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, t):
        self.calls += 1
        return F.binary_cross_entropy_with_logits(x, t, reduction="none") * self.calls


def changes_default_dtype(x, t):
    torch.set_default_dtype(torch.float64)
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def half_inside(x, t):
    p = x.half().sigmoid()
    return -(t * p.log() + (1 - t) * (1 - p).log())


def balanced_by_the_batch(x, t):
    share = t.mean()
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return (ce * (t * (1 - share) + (1 - t) * share)).mean()


class ChangesCriterion(nn.Module):
    def __init__(self, loss_fcn):
        super().__init__()
        self.loss_fcn = loss_fcn
        self.loss_fcn.reduction = "none"

    def forward(self, pred, target):
        return self.loss_fcn(pred, target).mean()


class Guessed(nn.Module):
    def __init__(self, class_num, criterion, alpha, gamma=2.0):
        super().__init__()
        self.register_buffer("weight", torch.ones(class_num))
        self.criterion, self.alpha, self.gamma = criterion, alpha, gamma

    def forward(self, pred, target):
        ce = self.criterion(pred, target) * self.weight[: pred.shape[1]].mean()
        return self.alpha * self.gamma * ce


def mean_of_probabilities_twice(x, t):
    """A model that ends in a sigmoid, and a loss that takes logits."""
    return F.binary_cross_entropy_with_logits(torch.sigmoid(x), t)
