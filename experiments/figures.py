"""What experiments found: differences, a metric against a knob, several metrics side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from detloss.lab.figures import INK, LOSS_STYLES, WIDTH, drawing, finish, panels, styles
from detloss.lab.statistics import mean_interval

_VERDICTS = {
    "better": ("#009E73", "^"),
    "worse": ("#D55E00", "v"),
    "equivalent": ("#0072B2", "s"),
    "undecided": ("#5a5a5a", "o"),
}


class Difference(NamedTuple):
    """A difference of means, in the units to be drawn.

    Attributes:
        label: what is compared.
        mean, low, high: with its simultaneous interval; nan where there is none.
        verdict: better, worse, equivalent, undecided.
        planned: filled, and not hollow.
        unit: differences of one unit share an axis.
    """

    label: str
    mean: float
    low: float
    high: float
    verdict: str
    planned: bool = True
    unit: str = "AP points"


MOST_TICKS = 12  # more values of a knob, each with its number, run into one another


class Against(NamedTuple):
    """A metric against a knob, for one panel.

    Attributes:
        title, x, y: words.
        series: name → knob → one value a seed. A knob that is text stands in the order of its first mention.
        scale: of the knob's axis: linear, log or logit.
        zero: whether a line marks the value 0.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Mapping[float | str, Sequence[float]]]
    scale: str = "linear"
    zero: bool = False


@drawing
def differences(shown: Sequence[Difference]) -> Figure:
    """A row each: the mean and its interval; planned ones are filled, exploratory ones hollow."""
    units = list(dict.fromkeys(one.unit for one in shown)) or ["AP points"]
    groups = [[one for one in shown if one.unit == unit] for unit in units]
    labels = [[textwrap.fill(one.label, 34) for one in group] for group in groups]
    heights = [0.5 + sum(0.26 + 0.16 * text.count("\n") for text in group) for group in labels]
    figure = Figure(figsize=(WIDTH, 0.9 + sum(heights)))
    axes = figure.subplots(len(units), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes[0].set_title("Differences and their intervals")
    for ax, unit, group, texts in zip(axes, units, groups, labels):
        for row, one in enumerate(group):
            color, marker = _VERDICTS[one.verdict]
            width = None if math.isnan(one.low) else one.high - one.mean
            face = color if one.planned else "white"
            ax.errorbar(
                one.mean, row, xerr=width, color=color, marker=marker, markerfacecolor=face, capsize=4
            )
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        ax.set_yticks(range(len(group)), texts, fontsize=9)
        ax.set_ylim(max(1, len(group)) - 0.4, -0.6)
        ax.set_xlabel(unit)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.grid(axis="y", visible=False)
        finish(ax, "no results", legend=False)
    keys = [Line2D([], [], color=c, marker=m, label=word) for word, (c, m) in _VERDICTS.items()]
    keys += [
        Line2D([], [], color=INK, marker="o", linestyle="none", label="planned"),
        Line2D([], [], color=INK, marker="o", linestyle="none", markerfacecolor="white", label="exploratory"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


@drawing
def against(shown: Sequence[Against]) -> Figure:
    """One panel below the other: means over seeds with Student's 95 % interval, seeds as dots."""
    figure = Figure(figsize=(WIDTH, 0.4 + 2.9 * max(1, len(shown))))
    axes = figure.subplots(max(1, len(shown)), 1, squeeze=False)[:, 0]
    # One legend below all panels, where it hides nothing, if it is the same for all.
    shared = len({tuple(panel.series) for panel in shown}) == 1
    handles, names = [], []
    for ax, panel in zip(axes, shown):
        ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        knobs = list(dict.fromkeys(knob for points in panel.series.values() for knob in points))
        named = any(isinstance(knob, str) for knob in knobs)
        ax.set_xscale(panel.scale)
        if panel.zero:
            ax.axhline(0, color=INK, linewidth=1, zorder=1)
        for i, (name, style) in enumerate(styles(panel.series).items()):
            points = panel.series[name]
            gap = min(0.16, 0.7 / len(panel.series))
            shift = (i - (len(panel.series) - 1) / 2) * gap
            # A knob that others have and this one has not breaks its line: nothing was measured there. Where
            # the knob was measured too, each has its own.
            of = points if len(knobs) > MOST_TICKS else knobs
            at = list(knobs) if named else sorted(float(knob) for knob in of)
            x = np.arange(len(at)) + shift if named else np.array(at, dtype=float)
            found = [mean_interval(points.get(knob, ())) for knob in at]
            mean, width = np.array(found).reshape(-1, 2).T
            beside = ax.transData + ScaledTranslation(4 / 72, 0, figure.dpi_scale_trans)
            for place, knob in zip(x, at):
                values = points.get(knob, ())
                places = np.full(len(values), place)
                ax.plot(places, values, ".", color=style.color, alpha=0.45, markersize=5, transform=beside)
            ax.errorbar(
                x,
                mean,
                yerr=np.nan_to_num(width),
                color=style.color,
                marker=style.marker,
                linestyle="none" if named else style.line,
                elinewidth=1.2,
                capsize=3,
                label=name,
            )
        if named:
            ax.set_xticks(range(len(knobs)), [str(knob) for knob in knobs])
            ax.grid(axis="x", visible=False)
        elif panel.scale != "linear" and len(knobs) <= MOST_TICKS:
            ax.set_xticks(knobs, [_short(knob) for knob in knobs])
            ax.minorticks_off()
        finish(ax, "no results", legend=False)
        handles, names = ax.get_legend_handles_labels()
        if len(names) > 1 and not shared:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 3}
            ax.legend([handle[0] for handle in handles], names, **below)
    if shared and len(names) > 1:
        figure.legend([handle[0] for handle in handles], names, loc="outside lower center", ncols=4)
    return figure


def _short(knob: float | str) -> str:
    """A number in three digits, at least the whole ones."""
    return f"{knob:.0f}" if float(knob) >= 100 else f"{float(knob):.3g}"


@drawing
def metrics_by_loss(shown: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Several metrics, two in a row, a line a loss: seeds as dots, mean with Student's 95 % interval.

    Args:
        shown: metric with its unit → loss → one value a seed.
    """
    names = list(dict.fromkeys(name for losses in shown.values() for name in losses))
    figure, axes = panels(len(shown), 0.7 + 0.24 * len(names), "", "")
    looks = styles(names)
    for i, (ax, (title, losses)) in enumerate(zip(axes, shown.items())):
        ax.set_title(title)
        for row, name in enumerate(names):
            values = list(losses.get(name, ()))
            if not values:
                continue
            mean, width = mean_interval(values)
            style = looks.get(name, LOSS_STYLES["bce"])
            ax.plot(values, np.full(len(values), row + 0.3), ".", color=style.color, alpha=0.45, markersize=5)
            xerr = None if math.isnan(width) else width
            ax.errorbar(
                mean, row, xerr=xerr, color=style.color, marker=style.marker, elinewidth=1.2, capsize=3
            )
        if ax.dataLim.x0 < 0 < ax.dataLim.x1:
            ax.axvline(0, color=INK, linewidth=1, zorder=1)
        ax.set_yticks(range(len(names)), names if i % 2 == 0 else [""] * len(names), fontsize=9)
        ax.set_ylim(max(1, len(names)) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        finish(ax, "no results", legend=False)
    return figure
