"""Tables of numbers → curves and bars: AP, cost, shares of the loss, the sweep, one run's losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from detloss.lab.figures import (
    INK,
    PALETTE,
    Runs,
    Table,
    band,
    broken,
    drawing,
    finish,
    one,
    panels,
    styles,
    thinned,
)
from detloss.lab.statistics import mean_interval


@drawing
def ap_over_steps(evaluations: Runs) -> Figure:
    """AP against training steps (columns step, ap): mean over seeds, band from lowest to highest seed."""
    figure, ax = one("AP during training", "training step", "AP (IoU .50:.95), %")
    for name, style in styles(evaluations).items():
        band(ax, [(run["step"], 100 * run["ap"]) for run in evaluations[name]], name, style, marked=True)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(ax, "not measured during training")
    return figure


@drawing
def ap_per_seed(ap: Mapping[str, Mapping[int, float]]) -> Figure:
    """AP of each seed as a dot, its mean and 95 % interval (Student's t) as a bar; one row a loss."""
    figure, ax = one(
        "AP of each seed, mean and 95 % interval", "AP (IoU .50:.95), %", "", 0.8 + 0.42 * len(ap)
    )
    for row, (name, style) in enumerate(styles(ap).items()):
        values = 100 * np.array(list(ap[name].values()))
        if not len(values):
            continue
        mean, width = mean_interval(values)
        spread = 0.22 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.errorbar(
            mean, row, xerr=None if math.isnan(width) else width, color=style.color, capsize=4, zorder=2
        )
        ax.plot([mean, mean], [row - 0.28, row + 0.28], color=style.color, linewidth=2.4)
        ax.plot(values, row + spread[: len(values)], style.marker, color=style.color, markeredgecolor="white")
    ax.set_yticks(range(len(ap)), map(broken, ap))
    ax.set_ylim(len(ap) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    finish(ax, "no results", legend=False)
    return figure


@drawing
def loss_share(logs: Runs) -> Figure:
    """The positives' share of the classification loss over training, the negatives' on the right-hand scale.

    Columns step, positive_loss_share; averaged over 40 stretches of training, band over seeds.
    """
    figure, ax = one("Where the classification loss comes from", "training step", "positives' share")
    for name, style in styles(logs).items():
        seeds = [thinned(run["step"], run["positive_loss_share"], 40) for run in logs[name]]
        band(ax, [(x, y) for x, y in seeds if len(x)], name, style)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    finish(ax, "no log")
    right = ax.secondary_yaxis("right", functions=(_complement, _complement))
    right.set_ylabel("negatives' share")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@drawing
def cost(results: Mapping[str, Table]) -> Figure:
    """Training time and peak memory (columns seconds, peak_memory_mb): bars are means, points are seeds."""
    figure, axes = panels(2, 0.9 + 0.4 * len(results), "", "")
    for ax, column, title in zip(
        axes, ("seconds", "peak_memory_mb"), ("Training time, s", "Peak memory, MB")
    ):
        ax.set_title(title)
        for row, (name, style) in enumerate(styles(results).items()):
            values = results[name][column]
            values = values[~np.isnan(values)]
            if len(values):
                ax.barh(row, values.mean(), 0.62, color=style.color, alpha=0.8)
                ax.plot(values, np.full(len(values), row), "o", color=INK, markersize=3.5, alpha=0.8)
        ax.set_yticks(range(len(results)), map(broken, results))
        ax.set_ylim(len(results) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        finish(ax, "not measured", legend=False)
    axes[1].tick_params(labelleft=False)
    return figure


@drawing
def sweep(tables: Mapping[str, Table]) -> Figure:
    """AP on the held-out part of the training set against the learning rate: a panel a loss, a line a weight.

    Columns lr, box_weight, ap, chosen.
    """
    figure, axes = panels(len(tables), 2.5, "learning rate", "held-out AP, %")
    weights = sorted({float(w) for table in tables.values() for w in table["box_weight"]})
    look: Any = {w: {"color": PALETTE[i % 8], "marker": "osD^vPX*"[i % 8]} for i, w in enumerate(weights)}
    ring: Any = {"color": INK, "marker": "o", "markerfacecolor": "none", "linestyle": "none"}
    for ax, (name, table) in zip(axes, tables.items()):
        ax.set_title(name)
        ax.set_xscale("log")
        lr, ap = table["lr"], 100 * table["ap"]
        for weight in weights:
            rows = np.flatnonzero(table["box_weight"] == weight)
            rows = rows[np.argsort(lr[rows])]
            ax.plot(lr[rows], ap[rows], **look[weight], markersize=6.5, linewidth=1.8)
        picked = np.flatnonzero(table["chosen"] == 1)
        ax.plot(lr[picked], ap[picked], **ring, markersize=14, markeredgewidth=1.4)
        rates = sorted({float(rate) for rate in lr})
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
        ax.margins(x=0.12)
        ax.set_ylim(0, 1.15 * max(1.0, np.nan_to_num(ap).max(initial=0)))  # the ring fits, too
        finish(ax, "no sweep", legend=False)
    keys = [Line2D([], [], **look[w], label=f"box weight {w:g}") for w in weights]
    keys.append(Line2D([], [], **ring, markersize=10, label="chosen"))
    figure.legend(handles=keys, loc="outside lower center", ncols=min(4, len(keys)))
    return figure


@drawing
def _complement(share: Any) -> Any:
    return 1 - share
