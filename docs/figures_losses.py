"""Draws the curves of docs/losses.md from the losses themselves: `python docs/figures_losses.py`."""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from detloss.boxes import KINDS, paired_box_iou
from detloss.losses import (
    binary_cross_entropy_with_logits,
    distribution_focal_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)
from detloss.plots.style import FAINT, INK, LOSS_STYLES, PALETTE, drawing, panels, save

LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
P = torch.linspace(0.001, 0.999, 999, dtype=torch.double)
X = torch.linspace(-6, 6, 601, dtype=torch.double)


def pair(x: str, y: str, titles: tuple[str, str]) -> tuple[Figure, Axes, Axes]:
    """Two panels side by side with their titles."""
    figure, (left, right) = panels(2, 3.0, x, y)
    left.set_title(titles[0])
    right.set_title(titles[1])
    return figure, left, right


def lines(ax: Axes, x: Tensor, curves: dict[str, Tensor]) -> None:
    """One line a curve, told apart by colour and by dashes, with a legend."""
    for (name, y), color, dashes in zip(curves.items(), PALETTE, LINES, strict=False):
        ax.plot(x, y, color=color, linestyle=dashes, label=name)
    legend(ax)


def legend(ax: Axes, place: str = "best") -> None:
    """A legend that lines may pass behind."""
    ax.legend(loc=place, frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)


def slope(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise loss."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf).sum(), leaf)[0]


@drawing
def bce() -> Figure:
    """Cross entropy of a positive and a negative, and what alpha and pos_weight do to it."""
    figure, left, right = pair("predicted probability p", "loss", ("positive, t = 1", "negative, t = 0"))
    for ax, target in ((left, 1.0), (right, 0.0)):
        t, x = torch.full_like(P, target), torch.logit(P)
        curves = {
            "BCE": binary_cross_entropy_with_logits(x, t),
            "alpha = 0.25": binary_cross_entropy_with_logits(x, t, alpha=0.25),
            "pos_weight = 2": binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(2.0)),
        }
        lines(ax, P, curves)
        ax.set_ylim(0, 5)
    return figure


@drawing
def focal() -> Figure:
    """Focal loss and its gradient for the gammas of the paper."""
    figure, (left, right) = panels(2, 3.2, "", "")
    gammas = (0.0, 0.5, 1.0, 2.0, 5.0)
    one, x = torch.ones_like(P), torch.logit(P)
    lines(left, P, {f"γ = {gamma:g}": sigmoid_focal_loss(x, one, None, gamma) for gamma in gammas})
    left.set(title="loss", xlabel="$p_t$, probability of the true answer", ylim=(0, 5))
    left.axvspan(0.6, 1, color=FAINT, alpha=0.15, linewidth=0)
    left.text(0.61, 1.2, "well classified", color=INK, fontsize=8)
    slopes = {
        f"γ = {gamma:g}": slope(lambda x, g=gamma: sigmoid_focal_loss(x, torch.ones_like(x), None, g), X)
        for gamma in gammas
    }
    lines(right, X, slopes)
    right.set(title="gradient", xlabel="logit of the true answer")
    return figure


@drawing
def focal_alpha() -> Figure:
    """Alpha shifts weight between positives and negatives; gamma between hard and easy."""
    figure, left, right = pair(
        "predicted probability p", "loss, γ = 2", ("positive, t = 1", "negative, t = 0")
    )
    for ax, target in ((left, 1.0), (right, 0.0)):
        t, x = torch.full_like(P, target), torch.logit(P)
        named = {"alpha off": None, "alpha = 0.25": 0.25, "alpha = 0.5": 0.5, "alpha = 0.75": 0.75}
        lines(ax, P, {name: sigmoid_focal_loss(x, t, alpha) for name, alpha in named.items()})
        ax.set_ylim(0, 3)
    return figure


@drawing
def soft_labels() -> Figure:
    """Where the losses have their minimum on a soft label."""
    figure, left, right = pair("predicted probability p", "loss", ("soft label 0.3", "soft label 0.8"))
    losses = {
        "bce": binary_cross_entropy_with_logits,
        "focal": lambda x, y: sigmoid_focal_loss(x, y, None),
        "quality_focal": quality_focal_loss,
        "varifocal": varifocal_loss,
    }
    for ax, label in ((left, 0.3), (right, 0.8)):
        for name, loss in losses.items():
            value = loss(torch.logit(P), torch.full_like(P, label))
            style, lowest = LOSS_STYLES[name], value.argmin()
            ax.plot(P, value, color=style.color, linestyle=style.line, label=name)
            ax.plot(P[lowest], value[lowest], color=style.color, marker=style.marker, zorder=3)
        ax.axvline(label, color=INK, linewidth=0.8)
        ax.set_ylim(-0.05, 2.2)
    legend(left, "upper center")
    return figure


@drawing
def softmax_focal() -> Figure:
    """Softmax focal loss of the true class against its lead over two equal rivals."""
    figure, left, right = pair("lead of the true class's logit", "", ("loss", "gradient on that logit"))
    target = torch.zeros(len(X), dtype=torch.long)

    def loss(x: Tensor, gamma: float) -> Tensor:
        logits = torch.stack((x, torch.zeros_like(x), torch.zeros_like(x)), 1)
        return softmax_focal_loss(logits, target, None, gamma)

    for ax, curve in ((left, loss), (right, lambda x, gamma: slope(lambda y: loss(y, gamma), x))):
        lines(ax, X, {f"γ = {gamma:g}": curve(X, gamma) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)})
    left.set_ylim(0, 5)
    return figure


@drawing
def quality_focal() -> Figure:
    """Quality focal loss for several betas."""
    figure, left, right = pair("predicted probability p", "loss", ("soft label 0.5", "soft label 0.9"))
    for ax, label in ((left, 0.5), (right, 0.9)):
        y, x = torch.full_like(P, label), torch.logit(P)
        lines(ax, P, {f"β = {beta:g}": quality_focal_loss(x, y, beta) for beta in (0.0, 0.5, 1.0, 2.0, 4.0)})
        ax.axvline(label, color=INK, linewidth=0.8)
        ax.set_ylim(0, 2)
    return figure


@drawing
def varifocal() -> Figure:
    """Varifocal loss of positives by quality, and of negatives by gamma."""
    figure, left, right = pair("predicted probability p", "loss", ("positives by quality", "negatives"))
    x = torch.logit(P)
    qualities = (0.2, 0.5, 0.8, 1.0)
    lines(left, P, {f"q = {q:g}": varifocal_loss(x, torch.full_like(P, q)) for q in qualities})
    zero = torch.zeros_like(P)
    curves = {"BCE": binary_cross_entropy_with_logits(x, zero)}
    curves |= {f"alpha .75, γ = {gamma:g}": varifocal_loss(x, zero, 0.75, gamma) for gamma in (1.0, 2.0, 3.0)}
    lines(right, P, curves)
    for ax in (left, right):
        ax.set_ylim(0, 4)
    return figure


@drawing
def distribution_focal() -> Figure:
    """The shares a distance asks of its bins, and the loss of a distribution that has them."""
    figure, (left, right) = panels(2, 3.0, "", "")
    bins = torch.arange(8)
    distance = torch.tensor(3.3, dtype=torch.double)
    shares = (1 - (distance - bins).abs()).clamp(min=0)
    left.bar(bins.numpy(), shares.numpy(), color=PALETTE[0])
    left.axvline(distance.item(), color=INK, linewidth=0.8)
    left.set(title="shares of a side 3.3 bins long", xlabel="bin", ylabel="probability asked for")
    distances = torch.linspace(-0.5, 7.5, 801, dtype=torch.double)
    curves = {}
    for name, sharpness in (("flat", 0.0), ("broad around 3.3", 0.5), ("narrow around 3.3", 3.0)):
        logits = (-sharpness * (bins - distance).square()).expand(len(distances), -1)
        curves[name] = distribution_focal_loss(logits, distances)
    lines(right, distances, curves)
    right.set(
        title="loss of three predictions", xlabel="target distance in bins", ylabel="loss", ylim=(0, 12)
    )
    return figure


@drawing
def iou() -> Figure:
    """The five box losses while a box moves away from its target, and while it changes shape."""
    figure, (left, right) = panels(2, 3.2, "", "")
    shift = torch.linspace(0, 3, 301, dtype=torch.double)
    target = torch.tensor([0.0, 0, 1, 1], dtype=torch.double)
    moved = target + shift[:, None] * torch.tensor([1.0, 0, 1, 0])
    ratio = torch.logspace(-3, 3, 301, base=2, dtype=torch.double)
    wide, zero = ratio.sqrt(), torch.zeros_like(ratio)
    shaped = torch.stack((zero, zero, wide, 1 / wide), 1)
    centred = torch.tensor([0.0, 0, 1, 1], dtype=torch.double)
    names = {"iou": "iou", "giou": "giou", "diou": "diou, ciou and eiou"}  # the shape stays the same
    lines(
        left,
        shift,
        {name: 1 - paired_box_iou(moved, target.expand_as(moved), kind) for kind, name in names.items()},
    )
    legend(left, "center right")
    lines(
        right,
        ratio,
        {kind: 1 - paired_box_iou(shaped, centred.expand_as(shaped), kind, "cxcywh") for kind in KINDS},
    )
    left.axvline(1, color=INK, linewidth=0.8)
    left.text(1.06, 0.02, "apart from here on", color=INK, fontsize=8)
    left.set(title="a unit box moves sideways", xlabel="shift in box widths", ylabel="loss")
    right.set(title="same centre and area", xlabel="width / height")
    right.set_xscale("log", base=2)
    return figure


FIGURES = (
    bce,
    focal,
    focal_alpha,
    soft_labels,
    softmax_focal,
    quality_focal,
    varifocal,
    distribution_focal,
    iou,
)

if __name__ == "__main__":
    for draw in FIGURES:
        save(draw(), Path(__file__).parent / "figures" / f"loss_{draw.__name__}", ["png"])
