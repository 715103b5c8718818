"""What a loss looks like: its value, gradient and minimum against p, and while a box moves.

Tables only, in float64, computed by calling the losses themselves with `impl="eager"`. Losses are named as on
the command line (`focal,gamma=0`, `file.py:function`), see `detloss.names.find_loss`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.calling import Loss
from detloss.lab.records import require_distinct, require_least
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

Panels = tuple["Panel", ...]
PROBABILITY = "predicted probability $p$"
LOGIT = 6.0
"""Curves over logits go from -6 to 6."""
BOUND = 40.0
"""Minima are looked for at logits up to this; p there is 0 or 1 to 4e-18."""
FAR = 3.0
"""The sliding box ends so many widths away from its target."""


@dataclass(frozen=True)
class CurvesConfig:
    """Which losses are drawn, and where."""

    losses: tuple[str, ...] = tuple(f"focal,alpha=none,gamma={gamma}" for gamma in (0, 0.5, 1, 2, 5))
    """Classification losses whose value, gradient and weight are drawn against p_t, the probability given to
    the right answer:
    bce balanced_bce focal softmax_focal quality_focal varifocal poly_focal asymmetric mal flsd
    ia_bce gaussian_focal,
    or your own module:function.
    focal,gamma=1.5 sets a hyperparameter, alpha=none is off; the default is the paper's Figure 1."""
    alpha_losses: tuple[str, ...] = tuple(f"focal,alpha={alpha}" for alpha in ("none", 0.25, 0.5, 0.75))
    """Classification losses drawn for positives and negatives apart; the default shows what alpha does."""
    soft_losses: tuple[str, ...] = ("bce", "focal,alpha=none", "quality_focal", "varifocal")
    """Classification losses drawn on soft targets, with their minima."""
    soft_targets: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8)
    """Soft targets, such as the IoU of a predicted box, in [0, 1]."""
    box_losses: tuple[str, ...] = ("iou", "giou", "diou", "ciou", "eiou")
    """Box losses: iou giou diou ciou eiou l1 smooth_l1, a sum such as giou+0.4*l1, or your own
    module:function."""
    points: int = 240
    """Points of each curve."""

    def __post_init__(self) -> None:
        require_distinct(self, "losses", "alpha_losses", "soft_losses", "soft_targets", "box_losses")
        _check_targets("soft_targets", self.soft_targets)
        require_least(self, points=10)

    def quick(self) -> "CurvesConfig":
        """The same with a quarter of the points."""
        return replace(self, points=max(10, self.points // 4))


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        name: the loss as the command line names it, or what else tells the line from the others.
        x, y: `(points,)` float64.
        lowest: (x, y) of its minimum, where the panel is about that.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    lowest: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """Curves over one axis.

    Attributes:
        title: what is shown.
        x, y: titles of the axes, with units where there are any.
        curves: in the order of the legend.
        log: the axes that are logarithmic: "", "x" (to the base 2) or "y".
        line: x of a place to compare with: the soft target, or where boxes come apart.
    """

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    log: Literal["", "x", "y"] = ""
    line: float | None = None


@dataclass(frozen=True)
class Minimiser:
    """Where a classification loss is smallest on a soft target.

    Attributes:
        loss: its name.
        soft_target: in [0, 1].
        p: the probability at the minimum; 0 or 1 (to 4e-18) where the loss falls all the way to an end.
        value: the loss there.
    """

    loss: str
    soft_target: float
    p: float
    value: float


def figures(config: CurvesConfig) -> dict[str, Panels]:
    """The figures of `detloss curves`: loss, gradient, weight, alpha, soft_targets, minimisers, boxes.

    Raises:
        ValueError: a loss that does not exist, or that cannot be called as in `curves` and `box_gradient`.
    """
    n = config.points
    names = (config.losses, config.alpha_losses, config.soft_losses)
    losses, by_alpha, soft = (_find(some, CLASSIFICATION_LOSSES) for some in names)
    p_t, x_t = "probability of the right answer $p_t$", "its logit $x_t$"
    weights, slope = curves(losses, of="weight", points=n), "d loss / d logit"
    weight = Panel("weight", p_t, "loss / cross entropy", weights)
    return {
        "loss": (
            Panel("loss over probability", p_t, "loss", curves(losses, points=n)),
            Panel("loss over logit", x_t, "loss", curves(losses, over="logit", points=n)),
        ),
        "gradient": (
            Panel("gradient over probability", p_t, slope, curves(losses, of="gradient", points=n)),
            Panel("gradient over logit", x_t, slope, curves(losses, of="gradient", over="logit", points=n)),
        ),
        "weight": (weight, replace(weight, title="weight, logarithmic", log="y")),
        "alpha": label_panels(by_alpha, n),
        "soft_targets": tuple(soft_panel(soft, target, n) for target in config.soft_targets),
        "minimisers": (minimiser_panel(soft, n),),
        "boxes": box_panels(config.box_losses, n),
    }


def curves(
    losses: Sequence[str | Loss],
    target: float = 1.0,
    *,
    of: Literal["loss", "gradient", "weight"] = "loss",
    over: Literal["p", "logit"] = "p",
    points: int | Sequence[float] = 240,
) -> tuple[Curve, ...]:
    """One curve per classification loss, of one logit and its target; p = σ(logit) is p_t for target 1.

    A loss on a softmax is called with one class and the background, whose logit is 0: p is then the same.

    Args:
        losses: names, or losses that were found.
        target: in [0, 1].
        of: "loss"; "gradient", with respect to the logit; or "weight", the loss over the cross entropy of the
            same logit and target, which for focal loss on 0 and 1 is alpha_t (1-p_t)^γ.
        over: "p", or "logit".
        points: how many, evenly spaced, inside of (0, 1) for p, from -6 to 6 for logits; or which.

    Raises:
        ValueError: a target outside [0, 1], p outside (0, 1), no such loss, or one that cannot be called with
            soft targets.
    """
    _check_targets("target", (target,))
    if not isinstance(points, int):
        axis = torch.tensor(points, dtype=torch.double)
    elif over == "p":
        axis = (torch.arange(points, dtype=torch.double) + 0.5) / points
    else:
        axis = torch.linspace(-LOGIT, LOGIT, points, dtype=torch.double)
    if over == "p" and not ((axis > 0) & (axis < 1)).all():
        raise ValueError(f"points are {points}; a probability is above 0 and below 1")
    x = torch.logit(axis) if over == "p" else axis
    targets = torch.full_like(x, target)
    cross_entropy = CLASSIFICATION_LOSSES["bce"](x[:, None], targets[:, None], impl="eager")[:, 0]
    found = []
    for loss in _find(losses, CLASSIFICATION_LOSSES):
        leaf = x.clone().requires_grad_()
        y = _values(loss, leaf, targets)
        if of == "gradient":
            (y,) = torch.autograd.grad(y.sum(), leaf)
        elif of == "weight":
            y = y / cross_entropy
        found.append(Curve(loss.name, axis.numpy(), y.detach().numpy()))
    return tuple(found)


def label_panels(losses: Sequence[str | Loss], points: int = 240) -> Panels:
    """Losses of a positive and of a negative against p. Arguments and errors as in `curves`."""
    return (
        Panel("positives, t = 1", PROBABILITY, "loss", curves(losses, 1.0, points=points)),
        Panel("negatives, t = 0", PROBABILITY, "loss", curves(losses, 0.0, points=points)),
    )


def soft_panel(losses: Sequence[str | Loss], target: float, points: int = 240) -> Panel:
    """Losses on one soft target against p, their minima marked. Arguments and errors as in `curves`."""
    pairs = zip(curves(losses, target, points=points), minimisers(losses, (target,)))
    marked = tuple(replace(curve, lowest=(place.p, place.value)) for curve, place in pairs)
    return Panel(f"soft target {target:g}", PROBABILITY, "loss", marked, line=target)


def minimiser_panel(losses: Sequence[str | Loss], points: int = 240) -> Panel:
    """Where each loss is smallest, against the soft target; on the diagonal the score learns the target."""
    targets = np.linspace(0, 1, points)
    places = minimisers(losses, targets.tolist())
    groups = [places[i : i + points] for i in range(0, len(places), points)]
    drawn = tuple(Curve(group[0].loss, targets, np.array([place.p for place in group])) for group in groups)
    return Panel("what a score learns", "soft target", "$p$ where the loss is smallest", drawn)


def minimisers(losses: Sequence[str | Loss], targets: Sequence[float]) -> list[Minimiser]:
    """Where each classification loss is smallest on each soft target, one loss after the other.

    The lowest of 1601 logits from -40 to 40 gives a bracket, and a golden-section search in it the minimum: p
    is right to about 1e-7, which is what the value of a loss can tell in float64.

    Raises:
        ValueError: as in `curves`; or a loss that is not finite anywhere.
    """
    _check_targets("targets", targets)
    t = torch.tensor(targets, dtype=torch.double)
    scan = torch.linspace(-BOUND, BOUND, 1601, dtype=torch.double)
    found = []
    for loss in _find(losses, CLASSIFICATION_LOSSES):

        def value(x: Tensor, t: Tensor, loss: Loss = loss) -> np.ndarray:
            with torch.no_grad():
                return np.nan_to_num(_values(loss, x, t).numpy(), nan=math.inf)

        grid = value(scan.repeat(len(t)), t.repeat_interleave(len(scan))).reshape(len(t), -1)
        if np.isposinf(grid.min(1)).any():
            raise ValueError(f"loss {loss.name!r} is not finite on soft targets, so it has no minimum")
        lowest = grid.argmin(1)
        low, high = (scan[np.clip(lowest + step, 0, len(scan) - 1)] for step in (-1, 1))
        x = _golden_section(lambda x: value(x, t), low, high)
        p, least = torch.sigmoid(x).tolist(), value(x, t).tolist()
        found += [Minimiser(loss.name, *row) for row in zip(targets, p, least)]
    return found


def _golden_section(value: Callable[[Tensor], np.ndarray], low: Tensor, high: Tensor) -> Tensor:
    """The minimum between each `low` and `high`."""
    part = (math.sqrt(5) - 1) / 2
    while (high - low).max() > 1e-10:
        left, right = high - part * (high - low), low + part * (high - low)
        falling = torch.from_numpy(value(left) > value(right))
        low, high = torch.where(falling, left, low), torch.where(falling, high, right)
    return (low + high) / 2


def box_panels(losses: Sequence[str | Loss], points: int = 240) -> Panels:
    """Box losses and their gradient norms while a box moves in three ways against a unit square.

    Two panels per way. It slides three widths away; it shrinks around the same centre from four times the
    square's sides to an eighth; its ratio changes from 1:8 to 8:1, same centre and area. See `box_gradient`
    for the norm.

    Raises:
        ValueError: no such loss, or one that cannot be called with float64 boxes.
    """
    found = _find(losses, BOX_LOSSES)
    points += points % 2  # so that each lies beside where the boxes coincide or touch, and the gradient jumps
    middle = (torch.arange(points, dtype=torch.double) + 0.5) / points
    shift, side, ratio = FAR * middle, 2 ** (5 * middle - 3), 2 ** (6 * middle - 3)
    zero, one = torch.zeros_like(middle), torch.ones_like(middle)
    ways = (
        ("sliding away", "distance in box widths", shift, (shift, zero, one, one)),
        ("shrinking, same centre", "side of the box / of its target", side, (zero, zero, side, side)),
        ("changing ratio, same area", "width / height", ratio, (zero, zero, ratio**0.5, ratio**-0.5)),
    )
    panels: list[Panel] = []
    for title, x, axis, columns in ways:
        both = [box_gradient(loss, torch.stack(columns, 1)) for loss in found]
        for y, values in zip(("loss", "gradient norm"), zip(*both)):
            lines = tuple(Curve(loss.name, axis.numpy(), value) for loss, value in zip(found, values))
            slides = axis is shift
            panels.append(Panel(title, x, y, lines, "" if slides else "x", 1.0 if slides else None))
    return tuple(panels)


def box_gradient(loss: str | Loss, boxes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Loss of `(N, 4)` boxes (cx, cy, w, h) against the unit square around 0, and the norm of its gradient.

    The gradient is with respect to (cx, cy, w, h) of the predicted box, in sides of the target; where sides
    of the two boxes coincide it is autograd's, the mean of the slopes on either side.

    Returns:
        loss `(N,)` and norm `(N,)`, float64.

    Raises:
        ValueError: no such loss, or one that cannot be called with float64 boxes.
    """
    (found,) = _find((loss,), BOX_LOSSES)
    leaf = boxes.double().detach().requires_grad_()
    target = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=torch.double).expand(len(boxes), 4)
    value = _call(found, box_convert(leaf, "cxcywh", "xyxy"), target)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().double().numpy(), gradient.norm(dim=1).numpy()


def rows(name: str, panels: Panels) -> Iterator[dict[str, Any]]:
    """A figure in long form: a row per point."""
    for panel in panels:
        for curve in panel.curves:
            for x, y in zip(curve.x.tolist(), curve.y.tolist()):
                yield {
                    "figure": name,
                    "panel": panel.title,
                    "x_title": panel.x.replace("$", ""),
                    "y_title": panel.y,
                    "curve": curve.name,
                    "x": f"{x:.9g}",
                    "y": f"{y:.9g}",
                }


def _find(losses: Sequence[str | Loss], known: Mapping[str, Callable[..., Tensor]]) -> list[Loss]:
    return [loss if isinstance(loss, Loss) else find_loss(loss, known) for loss in losses]


def _values(loss: Loss, x: Tensor, targets: Tensor) -> Tensor:
    """The loss of `(N,)` logits on `(N,)` soft targets, float64."""
    if loss.softmax:
        logits = torch.stack((x, torch.zeros_like(x)), 1)
        return _call(loss, logits, torch.stack((targets, 1 - targets), 1))
    if loss.own and loss.takes_quality:  # called with class indices, see `find_loss`
        positive = targets > 0
        return _call(loss, x[:, None], (~positive).long(), quality=torch.where(positive, targets, 1.0))[:, 0]
    return _call(loss, x[:, None], targets[:, None])[:, 0]


def _call(loss: Loss, *inputs: Tensor, **more: Any) -> Tensor:
    try:
        return loss(*inputs, **more).double()
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"loss {loss.name!r} cannot be drawn, called in float64 on soft targets or boxes: {reason}"
        ) from error


def _check_targets(name: str, targets: Sequence[float]) -> None:
    for target in targets:
        if not 0 <= target <= 1:
            raise ValueError(f"{name} has {target:g}; a soft target is in [0, 1], such as 0.3")
