"""The tables of `inspect` → sizes, levels, quadrants, Figure 4, and where on an image loss is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from detloss.lab.data import Dataset
from detloss.lab.figures import INK, LINES, PALETTE, WIDTH, drawing, one, say
from detloss.lab.inspect.examples import Example
from detloss.lab.inspect.figure4 import LossCurve
from detloss.lab.inspect.inspection import DataTables
from detloss.lab.inspect.quadrants import QUADRANTS, Quadrant, percent
from detloss.lab.inspect.suspects import Suspect

BLUE, SKY, RED, ORANGE, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73"
QUADRANT_STYLES: Any = {
    ("negative", "easy"): {"facecolor": SKY, "hatch": "", "edgecolor": "white"},
    ("negative", "hard"): {"facecolor": BLUE, "hatch": "////", "edgecolor": "white"},
    ("positive", "hard"): {"facecolor": RED, "hatch": "\\\\\\\\", "edgecolor": "white"},
    ("positive", "easy"): {"facecolor": ORANGE, "hatch": "", "edgecolor": "white"},
}
_CLASSES, _BARS = 12, 16  # more would not be legible


@drawing
def object_counts(tables: DataTables) -> Figure:
    """Objects by size, by image and by class; those that get no positive are marked."""
    figure = Figure(figsize=(WIDTH, 5.4))
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.05])
    sizes, images, classes = (figure.add_subplot(part) for part in (grid[0, :], grid[1, 0], grid[1, 1]))
    _sizes(sizes, tables)
    _per_image(images, tables.objects.per_image)
    _per_class(classes, tables.objects.per_class)
    return figure


def _sizes(ax: Axes, tables: DataTables) -> None:
    """Of the images whose locations were assigned: only there is it known which objects lack a positive."""
    ax.set(
        title="Objects by size",
        xlabel="√area in the detector's square, px "
        f"({tables.locations.images} of {tables.objects.images} images)",
        ylabel="objects",
    )
    filled = [i for i, row in enumerate(tables.sizes) if row.measured]
    rows = tables.sizes[filled[0] : filled[-1] + 1] if filled else []
    x = np.arange(len(rows))
    found = np.array([row.measured - row.without_positive for row in rows])
    lost = np.array([row.without_positive for row in rows])
    ax.bar(x, found, 0.92, color=BLUE, label="with a positive location")
    here = lost > 0
    if here.any():
        style: Any = {"color": ORANGE, "hatch": "////", "edgecolor": INK, "linewidth": 0.5}
        bars = ax.bar(x[here], lost[here], 0.92, bottom=found[here], label="without: number above", **style)
        ax.bar_label(bars, [str(count) for count in lost[here]], padding=2, fontsize=8)
    ranges = [f"{row.low:g}+" if math.isinf(row.high) else f"{row.low:g}–{row.high:g}" for row in rows]
    ax.set_xticks(x, ranges, fontsize=8)
    if len(rows) > 9:
        ax.tick_params(axis="x", labelrotation=30)
    ax.margins(y=0.14)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


def _per_image(ax: Axes, per_image: np.ndarray) -> None:
    ax.set(title="Objects per image", xlabel="objects", ylabel="images")
    width = math.ceil(len(per_image) / _BARS)
    count = np.add.reduceat(per_image, np.arange(0, len(per_image), width))
    ax.bar(np.arange(len(count)) * width + (width - 1) / 2, count, 0.92 * width, color=BLUE)
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="x", visible=False)


def _per_class(ax: Axes, per_class: dict[str, int]) -> None:
    ax.set(title="Objects per class", xlabel="objects")
    listed = sorted(per_class.items(), key=lambda item: -item[1])
    if len(listed) > _CLASSES:
        rest = listed[_CLASSES - 1 :]
        listed = [*listed[: _CLASSES - 1], (f"{len(rest)} more", sum(count for _, count in rest))]
    names = [name if len(name) <= 14 else f"{name[:13]}…" for name, _ in listed]
    counts = [count for _, count in listed]
    ax.bar_label(ax.barh(range(len(listed)), counts, 0.8, color=BLUE), padding=3, fontsize=8)
    ax.set_yticks(range(len(listed)), names, fontsize=8)
    ax.set_ylim(len(listed) - 0.5, -0.5)
    ax.margins(x=0.2)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.grid(axis="y", visible=False)


@drawing
def level_counts(tables: DataTables) -> Figure:
    """Positive, ignored and negative locations of each level of the pyramid, on a logarithmic scale."""
    counts = tables.locations
    title = f"Locations per level, {counts.images} images"
    figure, ax = one(title, "level, and its positives : negatives", "locations (logarithmic)", 3.4)
    kinds = [("positives", RED, ""), ("ignored", "#BBBBBB", "...."), ("negatives", BLUE, "////")]
    kinds = [kind for kind in kinds if kind[0] != "ignored" or counts.ignored]
    width = 0.84 / len(kinds)
    x = np.arange(len(counts.levels))
    for i, (kind, color, hatch) in enumerate(kinds):
        values = [getattr(level, kind) for level in counts.levels]
        style: Any = {"color": color, "hatch": hatch, "edgecolor": "white", "label": kind}
        place = x + (i - (len(kinds) - 1) / 2) * width
        bars = ax.bar(place, np.maximum(values, 0.5), width * 0.94, **style)
        ax.bar_label(bars, [_short(value) for value in values], padding=2, fontsize=8)
    ax.set_yscale("log")
    ax.set_ylim(0.5, 12 * max(1, counts.negatives))
    ratios = [
        f"1 : {_short(level.negatives / level.positives)}" if level.positives else "no positive"
        for level in counts.levels
    ]
    ax.set_xticks(x, [f"stride {level.stride}\n{ratio}" for level, ratio in zip(counts.levels, ratios)])
    ax.grid(axis="x", visible=False)
    ax.legend(ncols=3, loc="upper right")
    return figure


def _short(value: float) -> str:
    """At most four characters of a count."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


@drawing
def quadrant_shares(table: Sequence[Quadrant]) -> Figure:
    """Logits of each quadrant, logarithmic; below, where each loss and its gradient norm come from.

    Every share stands as a number beside its bar: one of 1e-4 cannot be seen in it.
    """
    losses = list(dict.fromkeys(row.loss for row in table))
    figure = Figure(figsize=(WIDTH, 2.5 + 0.95 * len(losses)))
    top, below = figure.subplots(2, 1, height_ratios=[1.5, 0.95 * len(losses)])
    names = [f"{hardness} {label}s" for label, hardness in QUADRANTS]
    top.set(title="How many logits", xlabel="logits (logarithmic)")
    for i, row in enumerate(table[:4]):
        bar = top.barh(i, max(row.count, 0.5), 0.78, **QUADRANT_STYLES[row.label, row.hardness])
        top.bar_label(bar, [f"{row.count:,}  ({percent(row.count_share)})"], padding=4, fontsize=8)
    top.set_xscale("log")
    top.set_xlim(0.5, 150 * max(1, *(row.count for row in table[:4])))
    top.set_yticks(range(4), names)
    top.set_ylim(3.5, -0.5)
    top.grid(axis="y", visible=False)
    below.set(title="Where the loss and the norm of its gradient come from", xlabel="share")
    ticks = []
    for k, loss in enumerate(losses):
        rows = {(row.label, row.hardness): row for row in table if row.loss == loss}
        for j, kind in enumerate(("loss", "gradient")):
            y = 2.5 * k + 1.05 * j
            ticks.append((y, f"{loss}\n{kind}"))
            left = 0.0
            for i, (quadrant, name) in enumerate(zip(QUADRANTS, names)):
                share = getattr(rows[quadrant], f"{kind}_share")
                below.barh(y, share, 0.5, left=left, linewidth=0.4, **QUADRANT_STYLES[quadrant])
                below.text(0.25 * i, y + 0.47, f"{name[:8]}. {percent(share)}", fontsize=7.5, va="center")
                left += share
    below.set_yticks([y for y, _ in ticks], [text for _, text in ticks], fontsize=8)
    below.set_xlim(0, 1)
    below.set_ylim(2.5 * len(losses) - 0.6, -0.5)
    below.xaxis.set_major_formatter(PercentFormatter(1))
    below.grid(visible=False)
    keys = [Patch(label=name, **QUADRANT_STYLES[quadrant]) for quadrant, name in zip(QUADRANTS, names)]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, fontsize=8)
    return figure


@drawing
def cumulative_loss(curves: Sequence[LossCurve]) -> Figure:
    """Figure 4 of the focal loss paper: cumulated share of the loss, logits sorted from low loss to high."""
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.subplots(1, 2, sharey=True)
    figure.set_layout_engine("constrained", wspace=0.08)  # the ends of both scales side by side
    for ax, label in zip(axes, ("positive", "negative")):
        mine = [curve for curve in curves if curve.label == label]
        logits = mine[0].logits if mine else 0
        ax.set(title=f"{_short(logits)} {label} logits", xlabel="part of the logits, low loss first")
        ax.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
        for i, curve in enumerate(mine):
            if len(curve.part):
                color, line = PALETTE[i % len(PALETTE)], LINES[i % len(LINES)]
                key = f"gamma {curve.gamma:g}"
                ax.plot(1 - curve.part, 1 - curve.share, color=color, linestyle=line, label=key)
        ax.set(xlim=(0, 1), ylim=(0, 1.01))
        if any(len(curve.part) for curve in mine):
            ax.legend(loc="upper left")
        else:
            say(ax, f"no {label} logits")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
    axes[0].set_ylabel("cumulated share of their loss")
    return figure


@drawing
def loss_on_images(examples: Sequence[Example], losses: Sequence[str], names: Sequence[str]) -> Figure:
    """Where on an image the loss comes from: a row per image, a column per loss.

    A circle is a positive location, a square a negative logit; its area is in proportion to its share of the
    image's loss, on one scale for the whole figure. The three negatives with the largest shares are named,
    their anchors dashed.

    Args:
        examples: the images.
        losses: names of two losses, side by side.
        names: class names.
    """
    rows = max(1, len(examples))
    figure = Figure(figsize=(WIDTH, 3.5 * rows + 0.4))
    figure.set_layout_engine("compressed")  # images keep their aspect
    axes = figure.subplots(rows, len(losses), squeeze=False)
    both = [shares for example in examples for shares in (example.positive_shares, example.negative_shares)]
    area = _LARGEST / max(
        np.concatenate([np.full(1, 1e-12), *(shares[loss] for shares in both for loss in losses)])
    )
    for row, example in zip(axes, examples):
        for ax, loss in zip(row, losses):
            _loss_on_image(ax, example, loss, names, area)
    for ax in axes.flat:
        ax.set_axis_off()
    if not examples:
        say(axes[0, 0], "no image with objects")
    mark: Any = {"color": "white", "markeredgecolor": INK}
    handles = [
        Line2D([], [], marker="o", markerfacecolor=SKY, label="positive", **mark),
        Line2D([], [], marker="s", markerfacecolor=RED, label="negative", **mark),
        Line2D([], [], color=GREEN, label="object"),
        Line2D([], [], color=RED, linestyle="--", label="anchor of a named negative"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


_LARGEST = 180  # square points of the largest share
_NAMED = 3


def _loss_on_image(ax: Axes, one: Example, loss: str, names: Sequence[str], area: float) -> None:
    side = one.image.shape[0]
    ax.imshow(one.image, extent=(0, side, side, 0), interpolation="nearest", alpha=0.75)
    for box in one.boxes:
        _outline(ax, box, edgecolor=GREEN, linewidth=1.3)
    positive, negative = one.positive_shares[loss], one.negative_shares[loss]
    style: Any = {"alpha": 0.55, "edgecolors": INK, "linewidths": 0.4}
    for anchors, shares, marker, color in (
        (one.positives, positive, "o", SKY),
        (one.negatives, negative, "s", RED),
    ):
        x, y = _centres(anchors).T
        ax.scatter(x, y, area * shares, color, marker=marker, **style)
    taken: list[tuple[float, float]] = []
    for k in np.argsort(-negative, kind="stable"):
        x, y = _centres(one.negatives[k : k + 1])[0]
        if len(taken) == _NAMED or negative[k] <= 0:
            break
        to_the_right = x < side / 2
        middle = x + (0.15 if to_the_right else -0.15) * side  # of its label
        if any(abs(middle - a) < 0.32 * side and abs(y - b) < 0.08 * side for a, b in taken):
            continue
        taken.append((middle, y))
        _outline(ax, one.negatives[k], edgecolor=RED, linewidth=0.9, linestyle="--")
        ax.annotate(
            f"{names[one.classes[k]]} {percent(negative[k])}", (x, y), (0, 5), textcoords="offset points",
            ha="left" if to_the_right else "right", fontsize=7, color="white",
            bbox={"facecolor": INK, "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
        )  # fmt: skip
    ax.set(xlim=(0, side), ylim=(side, 0))
    ax.set_title(
        f"{loss}: positives {percent(float(positive.sum()))},\n"
        f"{len(negative)} hardest negatives {percent(float(negative.sum()))},\n"
        f"{_short(one.others)} other negatives {percent(one.rest[loss])}",
        fontsize=8.5,
    )


def _outline(ax: Axes, box: np.ndarray, **style: Any) -> None:
    x1, y1, x2, y2 = box.tolist()
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def _centres(anchors: np.ndarray) -> np.ndarray:
    return (anchors[:, :2] + anchors[:, 2:]) / 2


@drawing
def suspect_crops(suspects: Sequence[Suspect], dataset: Dataset) -> Figure:
    """Each suspected label error with what is around it: objects as labelled green, detections dashed red."""
    place = {dataset.annotation(i).id: i for i in range(len(dataset))}
    columns = 4
    rows = max(1, math.ceil(len(suspects) / columns))
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.1))
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, suspect in zip(axes.flat, suspects):
        image = dataset[place[suspect.image]].image
        height, width = image.shape[:2]
        x, y = (suspect.x1 + suspect.x2) / 2, (suspect.y1 + suspect.y2) / 2
        half = max(suspect.x2 - suspect.x1, suspect.y2 - suspect.y1, 8)
        ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
        color, line = (GREEN, "-") if suspect.labelled else (RED, "--")
        corner, sides = (suspect.x1, suspect.y1), (suspect.x2 - suspect.x1, suspect.y2 - suspect.y1)
        ax.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=color, linestyle=line, linewidth=1.3))
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half), facecolor="#DDDDDD")
        found = f"{suspect.found} {suspect.score:.2f}" if suspect.found else "nothing"
        ax.set_title(f"{suspect.labelled or 'no object'}?\nfound: {found}", fontsize=7)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    for ax in axes.flat[len(suspects) :]:
        ax.set_axis_off()
    if not suspects:
        say(axes[0, 0], "no object, and nothing found")
    return figure
