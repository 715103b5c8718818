"""Evaluations and detections → figures: precision, calibration, score against IoU, boxes on images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from detloss.lab.evaluate import Detections, Evaluation, Truth
from detloss.lab.figures import (
    FAINT,
    INK,
    PALETTE,
    WIDTH,
    band,
    broken,
    drawing,
    finish,
    legend_below,
    one,
    panels,
    say,
    styles,
)
from detloss.lab.statistics import mean_interval

MOST_CLASSES = 12  # a confusion matrix, or axes for each class, of more cannot be read
Evaluations = Mapping[str, Sequence[Evaluation]]
"""For each loss, one evaluation a seed."""


@drawing
def precision_recall(evaluations: Evaluations) -> Figure:
    """Precision against recall at IoU 0.5, mean over classes: mean over seeds and band."""
    figure, ax = one("Precision and recall at IoU 0.5", "recall", "precision, mean over classes", 3.5)
    for name, style in styles(evaluations).items():
        band(ax, [(e.recall_grid, e.mean_precision) for e in evaluations[name] if e.precision], name, style)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    finish(ax, "no objects, so no precision")
    return figure


@drawing
def precision_by_class(evaluations: Evaluations, names: Sequence[str]) -> Figure:
    """Precision against recall at IoU 0.5, axes for each class: mean over seeds and band."""
    figure, axes = panels(len(names), 2.3, "recall", "precision")
    for ax, of_class in zip(axes, names):
        for name, style in styles(evaluations).items():
            seen = [e for e in evaluations[name] if of_class in e.precision]
            band(ax, [(e.recall_grid, e.precision[of_class]) for e in seen], name, style)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), title=_title(of_class))
        finish(ax, "no objects", legend=False)
    lines = next((list(ax.lines) for ax in axes if ax.lines), list[Line2D]())
    legend_below(figure, lines, [broken(str(line.get_label())) for line in lines])
    return figure


@drawing
def errors(evaluations: Evaluations) -> Figure:
    """What each kind of error costs in AP50, by TIDE: a bar per loss with the 95 % interval over seeds."""
    figure, ax = one("What each kind of error costs", "", "AP50 that mending it would add, points", 3.5)
    listed = {name: seeds for name, seeds in evaluations.items() if seeds}
    kinds = list(dict.fromkeys(kind for seeds in listed.values() for e in seeds for kind in e.errors))
    width = 0.8 / max(len(listed), 1)
    for i, (name, style) in enumerate(styles(listed).items()):
        means, halves = zip(*(mean_interval([100 * e.errors[kind] for e in listed[name]]) for kind in kinds))
        x = np.arange(len(kinds)) + (i - (len(listed) - 1) / 2) * width
        spread = None if np.isnan(halves).any() else np.array([np.minimum(halves, means), halves])
        ax.bar(x, means, width, yerr=spread, color=style.color, ecolor=INK, capsize=2, label=broken(name))
    ax.set_xticks(range(len(kinds)), kinds, fontsize=8.5)
    ax.grid(axis="x", visible=False)
    finish(ax, "no runs")
    return figure


@drawing
def f1_against_score(evaluations: Evaluations) -> Figure:
    """F1 at IoU 0.5 of the detections with at least a score, mean over seeds and band; a mark at the best."""
    figure, ax = one("Which score to deploy", "lowest score that counts", "F1 at IoU 0.5", 3.5)
    for name, style in styles(evaluations).items():
        points = [e.operating for e in evaluations[name] if not math.isnan(e.operating.best_score)]
        if not points:
            continue
        band(ax, [(p.scores, p.f1) for p in points], name, style)
        best = _mean([p.best_score for p in points]), _mean([p.best_f1 for p in points])
        ax.plot(*best, style.marker, color=style.color, markeredgecolor="white", markersize=8)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    finish(ax, "no objects, or nothing found")
    return figure


@drawing
def confusion(evaluations: Evaluations, names: Sequence[str]) -> Figure:
    """Which class objects are found as, each loss at the score of its best F1: parts of the objects of a row.

    All seeds together. The last column are objects that were not found; the last row counts detections
    where no object is, as a part of all detections.
    """
    listed = {name: seeds for name, seeds in evaluations.items() if seeds}
    figure, axes = panels(len(listed), 0.9 + 0.36 * (len(names) + 1), "found as", "object")
    for ax, (name, seeds) in zip(axes, listed.items()):
        counts = np.sum([np.array(e.confusion, float) for e in seeds], axis=0)
        totals = counts.sum(axis=1)
        totals[-1] = counts[:, :-1].sum()
        parts = counts / np.maximum(totals, 1)[:, None]
        ax.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), part in np.ndenumerate(parts):
            if (row, column) != (len(names), len(names)):
                text = f"{100 * part:.0f}"
                ax.text(column, row, text, ha="center", va="center", color="white" if part > 0.5 else INK)
        ax.set_xticks(range(len(names) + 1), [*names, "nothing"], rotation=30, ha="right")
        ax.set_yticks(range(len(names) + 1), [*names, "nothing"])
        ax.grid(visible=False)
        ax.set_title(_title(name))
    return figure


@drawing
def reliability(evaluations: Evaluations, localised: bool = False) -> Figure:
    """For each loss, the share of right detections in each bin of score, all seeds together; counts below.

    ``localised``: that share × the mean IoU of the right ones, which is what LaECE holds the score against
    (there class by class and in finer bins).
    """
    field, label = ("precision_iou", "share right × IoU") if localised else ("accuracy", "share right")
    rows = math.ceil(len(evaluations) / 2) or 1
    figure = Figure(figsize=(WIDTH, 2.9 * rows))
    grid = figure.add_gridspec(2 * rows, 2, height_ratios=[3.2, 1] * rows)
    for i, (name, style) in enumerate(styles(evaluations).items()):
        top = figure.add_subplot(grid[2 * (i // 2), i % 2])
        below = figure.add_subplot(grid[2 * (i // 2) + 1, i % 2], sharex=top)
        calibrations = [e.calibration for e in evaluations[name]]
        count = np.sum([c.count for c in calibrations], axis=0, dtype=float)
        top.set(xlim=(0, 1), ylim=(0, 1.05), ylabel=label)
        top.tick_params(labelbottom=False)
        below.set(xlabel="score", ylabel="count")
        if not count.sum():
            lowest = f"no detections with score ≥ {calibrations[0].threshold:g}" if calibrations else ""
            say(top, lowest or "no runs")
            top.set_title(_title(name))
            continue
        top.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2)
        edges, filled = calibrations[0].edges, count > 0
        right, score = (
            np.sum([np.nan_to_num(getattr(c, what)) * c.count for c in calibrations], axis=0)[filled]
            / count[filled]
            for what in (field, "confidence")
        )
        left, width = edges[:-1], np.diff(edges)
        bars: Any = {"align": "edge", "color": style.color, "alpha": 0.75, "edgecolor": "white"}
        top.bar(left[filled], right, width[filled], **bars)
        top.plot(score, right, style.marker, color=INK, markersize=4)
        top.vlines(score, np.minimum(score, right), np.maximum(score, right), color=INK, linewidth=1.2)
        error = _mean([c.laece if localised else c.ece for c in calibrations])
        top.set_title(_title(name, f"{'LaECE' if localised else 'ECE'} {100 * error:.1f} %"))
        below.bar(left, np.maximum(count, 0.5), width, **bars)
        below.set_yscale("log")
        below.set_ylim(0.8, max(count.max() * 2, 10))
    return figure


@drawing
def score_against_iou(evaluations: Evaluations) -> Figure:
    """Each right detection by score and IoU; line: median of each tenth of them, bars: middle half."""
    figure, axes = panels(len(evaluations), 2.5, "score", "IoU with its object")
    for ax, (name, style) in zip(axes, styles(evaluations).items()):
        seeds = evaluations[name]
        scores = np.concatenate([np.zeros(0), *(e.scores for e in seeds)])
        ious = np.concatenate([np.zeros(0), *(e.ious for e in seeds)])
        ax.set(xlim=(0, 1), ylim=(0.48, 1.01))
        if not len(scores):
            ax.set_title(_title(name))
            say(ax, "no detections matched to an object" if seeds else "no runs")
            continue
        alpha = float(np.clip(10 / math.sqrt(len(scores)), 0.1, 0.6))
        dots: Any = {"markersize": 2.5, "markeredgewidth": 0, "rasterized": True}
        ax.plot(scores, ious, "o", color=style.color, alpha=alpha, **dots)
        tenths = np.array_split(np.argsort(scores, kind="stable"), min(10, len(scores)))
        x = [float(np.median(scores[tenth])) for tenth in tenths]
        low, middle, high = np.array([np.quantile(ious[tenth], (0.25, 0.5, 0.75)) for tenth in tenths]).T
        bars: Any = {"marker": style.marker, "markersize": 4, "linewidth": 1.3, "elinewidth": 1, "capsize": 2}
        ax.errorbar(x, middle, [middle - low, high - middle], color=INK, **bars)
        rho = _mean([e.score_iou_correlation for e in seeds])
        known = "undefined" if math.isnan(rho) else f"= {rho:.2f}".replace("-", "−")
        ax.set_title(_title(name, f"ρ {known}"))
    return figure


def _mean(values: Sequence[float]) -> float:
    """Over the seeds with a value, as in the tables."""
    return mean_interval([value for value in values if not math.isnan(value)])[0]


def _title(name: str, number: str = "") -> str:
    """No wider than a panel."""
    whole = f"{name}: {number}" if number else name
    return whole if len(whole) <= 28 else f"{textwrap.fill(name, 28)}\n{number}".rstrip()


class Picture(Truth, Protocol):
    """An annotated image: any object with these attributes, a ``detloss.lab.data.Sample`` for one."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""


@drawing
def sample_detections(
    samples: Sequence[Picture],
    detections: Mapping[str, Sequence[Detections]],
    names: Sequence[str],
    f1: Mapping[str, Sequence[float]],
) -> Figure:
    """The truth and what each loss found, side by side: a row an image, a colour a class.

    Args:
        samples: the images.
        detections: for each loss, one entry an image.
        names: class names; label i is names[i].
        f1: for each loss, the F1 of each image.
    """
    columns = ["truth", *detections]
    heights = [sample.image.shape[0] / sample.image.shape[1] for sample in samples] or [1.0]
    figure = Figure(figsize=(1.9 * len(columns) + 0.1, sum(1.9 * h + 0.3 for h in heights) + 0.4))
    axes = figure.subplots(len(heights), len(columns), squeeze=False, height_ratios=heights)
    for row, sample in enumerate(samples):
        _draw_boxes(axes[row, 0], sample.image, sample.boxes, sample.labels, names, ignored=sample.ignored)
        axes[row, 0].set_title("truth", fontsize=9.5, loc="center")
        for ax, (name, of) in zip(axes[row, 1:], detections.items()):
            _draw_boxes(ax, sample.image, of[row].boxes, of[row].labels, names, of[row].scores)
            ax.set_title(f"{broken(name)}: F1 {f1[name][row]:.2f}", fontsize=9.5, loc="center")
    for ax in axes.flat:
        ax.set_axis_off()
    if not samples:
        say(axes[0, 0], "no sample images")
    keys = [
        # A legend leaves out what begins with an underscore.
        Line2D([], [], color=PALETTE[i % 8], linewidth=3, label=f" {name}" if name[:1] == "_" else name)
        for i, name in enumerate(names[:16])
    ]
    figure.legend(
        handles=keys, loc="outside lower center", ncols=min(len(keys), 2 * len(columns)), fontsize=8
    )
    return figure


def _draw_boxes(
    ax: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
) -> None:
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    for i, ((x1, y1, x2, y2), label) in enumerate(zip(boxes.tolist(), labels.tolist())):
        color = PALETTE[label % len(PALETTE)]
        line = "--" if ignored is not None and ignored[i] else "-"
        ax.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.1, linestyle=line)
        )
        if len(boxes) <= 12:  # more would hide each other: the colours are explained below
            text = names[label] if scores is None else f"{names[label]} {scores[i]:.2f}"
            ax.text(
                x1,
                y1,
                text,
                fontsize=5.5,
                color="white",
                va="bottom" if y1 > height / 12 else "top",  # inside the picture
                clip_on=True,
                bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
            )
    ax.set(xlim=(0, width), ylim=(height, 0))
