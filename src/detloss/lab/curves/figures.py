"""Curves of losses → figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detloss.lab.curves.tables import Curve, Panel
from detloss.lab.figures import INK, LINES, PALETTE, drawing, finish, legend_below, one, panels

MARKERS = "o^DsvPX*"
LEGEND: Any = {"handlelength": 2.2, "handletextpad": 0.5}
INSIDE: Any = {
    "frameon": True,
    "edgecolor": "none",
    "framealpha": 0.85,
    "labelspacing": 0.3,
    "borderpad": 0.1,
}


@drawing
def loss_curves(table: Sequence[Panel]) -> Figure:
    """Two panels in a row; one legend below where all have the same lines, else one per row or panel.

    Lines differ in colour and dashes, minimisers in colour and marker. Curves that are equal are one line
    with both names. The y axis ends where a curve runs away, the table has the rest.
    """
    if len(table) == 1:
        figure, *axes = one("", "", "")
    else:
        figure, axes = panels(len(table), 2.6, "", "")
    drawn = [_draw(ax, panel) for ax, panel in zip(axes, table)]
    if drawn and drawn[0] and all(labels == drawn[0] for labels in drawn):
        title, labels = _short(drawn[0])
        legend_below(figure, axes[0].lines[: len(labels)], labels, title=title, columnspacing=1.0, **LEGEND)
    else:
        for i, (ax, labels) in enumerate(zip(axes, drawn)):
            if i % 2 and labels == drawn[i - 1]:
                continue  # the legend to the left says it
            title, short = _short(labels)
            ax.legend(ax.lines[: len(short)], short, title=title, **LEGEND, **INSIDE)
    return figure


def _draw(ax: Axes, panel: Panel) -> list[str]:
    """The names of the lines, in their order."""
    ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    names: list[str] = []
    shown: list[Curve] = []
    for i, curve in enumerate(panel.curves):
        same = [k for k, other in enumerate(shown) if _equal(curve, other)]
        if same:
            names[same[0]] += f", {curve.name}"
            continue
        ax.plot(curve.x, curve.y, color=PALETTE[i % len(PALETTE)], linestyle=LINES[i % len(LINES)])
        names.append(curve.name)
        shown.append(curve)
    for i, curve in enumerate(panel.curves):
        if curve.lowest is not None:
            (dot,) = ax.plot(*curve.lowest, MARKERS[i % len(MARKERS)], color=PALETTE[i % len(PALETTE)])
            dot.set(markersize=8, markeredgecolor="white", markeredgewidth=0.6, zorder=3, clip_on=False)
    if panel.line is not None:
        ax.axvline(panel.line, color=INK, linewidth=0.8, zorder=1)
    _scale(ax, panel)
    finish(ax, "no losses", legend=False)
    return names


def _equal(a: Curve, b: Curve) -> bool:
    return a.x.shape == b.x.shape and bool(np.allclose([a.x, a.y], [b.x, b.y], rtol=1e-6, atol=1e-6))


def _scale(ax: Axes, panel: Panel) -> None:
    if panel.log == "x":
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
        ax.minorticks_off()
    y = np.concatenate([np.zeros(1), *(curve.y[np.isfinite(curve.y)] for curve in panel.curves)])
    if panel.log == "y":
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(y[y > 0].min(initial=1.0), 1e-6 * y.max(initial=1.0)))
        return
    low, high = float(y.min()), float(y.max())
    # a loss without bound would leave the others a flat line at the bottom
    most = float(np.quantile(y, 0.98))
    high = most if high > 1.3 * most > 0 else high
    edge = 0.04 * (high - low) or 0.5
    ax.set_ylim(low - edge, high + edge)


def _short(names: Sequence[str]) -> tuple[str | None, list[str]]:
    """What all names have in common, for the title of the legend, and what is left of each."""
    without_folders = [re.sub(r"[^, ]*/", "", name) for name in names]
    if len(set(without_folders)) == len(names):
        names = without_folders
    parts = [name.split(",") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)] if parts else []
    if len(names) < 2 or parts[0][0] not in shared:
        return None, list(names)
    left = [",".join(part for part in one if part not in shared) for one in parts]
    return ",".join(shared), [text or "as it is" for text in left]
