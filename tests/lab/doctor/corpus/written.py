# ruff: noqa
"""What the text of a loss shows: dead lines, paths, names, devices, loops."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def ce(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


# sound


def helper(x):
    return x.clamp(min=1e-7)


class Clean(nn.Module):
    """A docstring is not a lost value."""

    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, inputs, targets, reduction="mean"):
        """Nor is this one."""
        loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
        scale = torch.ones(3, device=inputs.device)
        loss = loss * scale.mean().to(loss)
        rows = [level for level in (0, 1)]
        for level in rows:
            loss = loss + 0 * level
        if reduction == "mean":
            return loss.mean()
        if reduction == "sum":
            return loss.sum()
        return loss


def branches_by_one_flag(x, t, flag=True):
    if flag:
        weight = helper(x.sigmoid() * 0 + 1)
    loss = ce(x, t)
    if flag:
        loss = loss * weight
    return loss


def loop_that_ends(x, t):
    for scale in (1, 2):
        last = scale
    return ce(x, t) * last


def conversion_kept_on_device(x, t):
    scale = torch.arange(3)
    scale = scale.to(x.device)
    return ce(x, t) + 0 * scale.sum()


def blocks(x, t):
    parts = [ce(x[start : start + 512], t[start : start + 512]) for start in range(0, max(len(x), 1), 512)]
    return torch.cat(parts)


def match_with_default(x, t, kind="none"):
    match kind:
        case "none":
            return ce(x, t)
        case _:
            return ce(x, t).mean()


def raises_for_others(x, t, reduction="none"):
    if reduction == "none":
        return ce(x, t)
    if reduction == "mean":
        return ce(x, t).mean()
    if reduction == "sum":
        return ce(x, t).sum()
    raise ValueError(f"unknown reduction {reduction}")


def checks(x, t):
    assert x.shape == t.shape
    print  # a name alone is a slip, and harmless
    return ce(x, t)


def calls_for_their_effect(x, t):
    seen = set()
    seen.add(1)
    torch.manual_seed(0)
    F.relu(x.detach().clone(), inplace=True)
    if x.requires_grad:
        x.register_hook(lambda g: g)
    return ce(x, t)


# faulty


def never_defined(x, t):
    return ce(x, t) * scale_of_loss


def undefined_eps(x, t):
    return ce(x, t) + 0 * (x + eps)


class WrongSuper(nn.Module):
    def __init__(self):
        super(WrongSuprr, self).__init__()

    def forward(self, x, t):
        return ce(x, t)


def bound_if_flag(x, t, flag=True):
    if flag:
        weight = x.sigmoid() * 0 + 1
    return ce(x, t) * weight


def bound_unless_flag(x, t, flag=False):
    if flag:
        weight = x.sigmoid() * 0 + 1
    return ce(x, t) * weight


def thrown_away(x, t):
    loss = ce(x, t)
    loss - loss.mean()
    return loss


def clamp_thrown_away(x, t):
    x.clamp(-10, 10)
    return ce(x, t)


def exp_thrown_away(x, t):
    torch.exp(x)
    return ce(x, t)


def comparison_thrown_away(x, t):
    loss = ce(x, t)
    loss == t
    return loss


def never_read(x, t):
    weight = x.sigmoid() * 2
    return ce(x, t)


def returns_nothing(x, t):
    loss = ce(x, t)


def returns_on_some_paths(x, t, kind="mean"):
    loss = ce(x, t)
    if kind == "mean":
        return loss.mean()
    elif kind == "sum":
        return loss.sum()


def scale_without_return(x):
    x * 2


def helper_without_return(x, t):
    return ce(x, t) + (scale_without_return(x) or 0)


def to_cuda_text(x, t):
    return ce(x.to("cuda:0"), t.to("cuda:0"))


def zeros_on_cuda(x, t):
    return ce(x, t) + torch.zeros(1, device="cuda")


def default_device(x, t, device="cuda"):
    return ce(x.to(device), t.to(device))


def cuda_where_there_is_one(x, t):
    if x.is_cuda:
        t = t.cuda()
    return ce(x, t)


def arange_on_cpu(x, t):
    scale = torch.arange(1, x.shape[-1] + 1)
    return ce(x, t) * (scale / scale)


def labels_cut(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * (1 + t.long())


def halved(x, t):
    return F.binary_cross_entropy_with_logits(x.half(), t.half(), reduction="none").to(x.dtype)


def loop_by_len(x, t):
    loss = ce(x, t)
    out = torch.zeros_like(loss)
    for i in range(len(t)):
        out[i] = loss[i] * 2
    return out


def loop_by_zip(x, t):
    return torch.stack([ce(a, b).sum() for a, b in zip(x, t)]).sum()


def loop_by_while(x, t):
    loss, i = ce(x, t), 0
    total = loss.sum() * 0
    while i < len(x):
        total = total + loss[i].sum()
        i += 1
    return total


# in a module whose file asks for a GPU when it is imported
