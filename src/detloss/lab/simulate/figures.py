"""The simulation of box regression → error over steps, and final error over anchor positions."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from detloss.lab.figures import FAINT, INK, PALETTE, WIDTH, drawing, finish
from detloss.lab.simulate.simulation import PER_CENTRE, Regression, overlap_share

_LOOKS = {
    "iou": ("#000000", "X"),
    "giou": ("#0072B2", "s"),
    "diou": ("#D55E00", "^"),
    "ciou": ("#009E73", "o"),
    "eiou": ("#CC79A7", "D"),
}
NOT_FINITE = "#D55E00"


@drawing
def error_curves(found: Mapping[str, Regression]) -> Figure:
    """Error of all cases after each update, linear above, logarithmic below; the script's own are dashed."""
    figure = Figure(figsize=(WIDTH, 6.4))
    top, below = figure.subplots(2, 1, sharex=True)
    top.set(title="Regression error, sum of 1,715,000 cases", ylabel="error, millions")
    below.set(title="The same, logarithmic", ylabel="error", xlabel="updates of each box")
    below.set_yscale("log")
    looks = _looks(found)
    for i, (name, regression) in enumerate(found.items()):
        first = regression.first_not_finite
        label = Path(name).name + ("" if first is None else f", not finite from {first} on")
        marks: Any = {"markevery": (3 * (i % 6), 20), "linewidth": 1.5, "label": label}
        for ax in (top, below):
            ax.plot(regression.error, **looks[name], **marks)
    for ax in (top, below):
        for rate_falls in (160, 180):
            ax.axvline(rate_falls, color=FAINT, linestyle=":", linewidth=1, zorder=0)
    top.set_ylim(bottom=0)
    top.yaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
    below.set_xlim(0, 200)
    finish(top, "nothing simulated", legend=False)
    dotted = Line2D([], [], color=FAINT, linestyle=":", linewidth=1, label="rate falls to a tenth")
    keys = [*top.lines[: len(found)], dotted]
    longest = max(len(str(key.get_label())) for key in keys)
    columns = 3 if longest < 20 else 2 if longest < 32 else 1
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, handlelength=3.2)
    return figure


@drawing
def error_surface(found: Mapping[str, Regression]) -> Figure:
    """Final error at each anchor centre, mean over its 343 cases: one logarithmic scale for all panels.

    Lines: outside the dashed one no box touches its target at the start, inside the dotted one all do.
    """
    shown = [one for name, one in found.items() if "_published-" not in name] or list(found.values())
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, (0.6 + 5.2 / columns) * rows + 1.1))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    errors = [regression.errors[-1] / PER_CENTRE for regression in shown]
    norm = _scale(errors)
    for ax, regression, error in zip(axes, shown, errors):
        finite = np.isfinite(error)
        x, y = regression.centres.T
        colors = np.clip(error[finite], norm.vmin, norm.vmax)
        size = np.clip(70000 / len(x), 14, 50)
        dots: Any = {"cmap": "cividis", "linewidths": 0, "rasterized": True, "clip_on": False}
        points = ax.scatter(x[finite], y[finite], size, colors, norm=norm, **dots)
        ax.plot(x[~finite], y[~finite], "x", color=NOT_FINITE, markersize=3)
        title = textwrap.fill(Path(regression.loss).name, 60 // columns)
        ax.set_title(title, fontsize=10 if len(title) < 18 else 8)
        _mark_overlap(ax)
        ax.set(aspect="equal", xlim=(6.9, 13.1), ylim=(6.9, 13.1), xticks=(7, 10, 13), yticks=(7, 10, 13))
        ax.grid(visible=False)
    for ax in axes[len(shown) :]:
        ax.remove()
    for i, ax in enumerate(axes[: len(shown)]):
        ax.set_ylabel("" if i % columns else "anchor centre y")
        below = i + columns >= len(shown)  # none is below it
        ax.set_xlabel("anchor centre x" if below else "")
        ax.tick_params(labelbottom=below)
    bar = figure.colorbar(points, ax=axes[: len(shown)], location="top", shrink=0.7, aspect=40)
    bar.set_label("final error, mean of the 343 cases of a centre")
    keys = [
        Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="outside: no box meets its target"),
        Line2D([], [], color=INK, linestyle=":", linewidth=1.2, label="inside: every box does"),
    ]
    if not np.isfinite(errors).all():
        keys.append(Line2D([], [], color=NOT_FINITE, marker="x", linestyle="none", label="not finite"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), columnspacing=1.2)
    return figure


def _scale(errors: Sequence[np.ndarray]) -> LogNorm:
    """Whole powers of ten round all that is finite and above zero."""
    values = np.concatenate([error[np.isfinite(error) & (error > 0)] for error in errors])
    if not len(values):
        return LogNorm(0.1, 1)
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    return LogNorm(10.0**low, 10.0 ** max(high, low + 1))


def _mark_overlap(ax: Axes) -> None:
    at = np.linspace(7, 13, 241)
    x, y = np.meshgrid(at, at)
    share = overlap_share(np.stack((x.ravel(), y.ravel()), axis=1)).reshape(x.shape)
    for level, line in ((0.5 / PER_CENTRE, "--"), (1 - 0.5 / PER_CENTRE, ":")):
        ax.contour(x, y, share, [level], colors="white", linewidths=2.4)
        ax.contour(x, y, share, [level], colors=INK, linestyles=line, linewidths=1.2)


def _looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each is drawn: one colour per loss, the gradients of the paper's script dashed and hollow."""
    looks = {}
    others, repaired = itertools.cycle(zip(PALETTE[4:], "Phd")), itertools.cycle("vP<>*hp")
    for name in names:
        base, published, slip = re.fullmatch(r"(.*?)(_published)?(-\w+)?", name).groups()  # type: ignore[union-attr]
        known = base in _LOOKS
        color, marker = _LOOKS[base] if known else next(others)
        line, fill = "-", color
        if known and slip:
            marker, line, fill = next(repaired), ":", "white"
        elif known and published:
            line, fill = "--", "white"
        looks[name] = {"color": color, "marker": marker, "linestyle": line, "markerfacecolor": fill}
    return looks
