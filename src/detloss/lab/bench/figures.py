"""Rows of the benchmark → time against size, a panel a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detloss.lab.bench.table import grouped
from detloss.lab.figures import FAINT, INK, WIDTH, Style, drawing, finish

VARIANT_STYLES = {
    "auto": Style("#D55E00", "o", "-"),
    "compile": Style("#E69F00", "v", "--"),
    "eager": Style("#009E73", "s", "-"),
    "unfused": Style("#009E73", "D", "--"),
    "torchvision": Style("#0072B2", "^", "-"),
    "torchvision_compiled": Style("#56B4E9", "<", "--"),
    "torch": Style("#8C5A2B", "h", "-."),
    "snippet": Style("#CC79A7", "P", "-"),
    "mmcv": Style("#000000", "X", "-"),
    "apex": Style("#000000", "*", "-."),
    "gemm": Style("#7F7F7F", "p", "-"),
    "clone": Style("#7F7F7F", "d", (0, (1, 1))),
}
LIMIT = Style(INK, "", (0, (5, 3)))
APART = 0.075  # least distance of two labels, in heights of the panel


@drawing
def bench_times(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Median seconds of forward and backward against elements, both logarithmic; the limit is dashed.

    Columns loss, targets, dtype, variant, size, median_s, limit_s; an empty field is no point.
    """
    groups = grouped(rows)
    count = math.ceil(len(groups) / 2) or 1
    figure = Figure(figsize=(2 * WIDTH, 3.1 * count))
    axes = list(figure.subplots(count, 2, squeeze=False).flat)
    for ax in axes[max(1, len(groups)) :]:
        ax.remove()
    axes[0].set_title("" if groups else "Time against size")
    for ax, (title, found) in zip(axes, groups.items()):
        ax.set(title=title, xlabel="elements", ylabel="forward and backward, s")
        _panel(ax, found)
    for ax in axes[: max(1, len(groups))]:
        finish(ax, "nothing measured", legend=False)
    return figure


def _panel(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    ends: list[tuple[float, float, str, str]] = []
    curves = [(name, style, "median_s") for name, style in VARIANT_STYLES.items()]
    for name, style, column in [*curves, ("limit", LIMIT, "limit_s")]:
        mine = [row for row in rows if row[column] != "" and name in (row["variant"], "limit")]
        points = sorted({(float(row["size"]), float(row[column])) for row in mine})
        if points:
            x, y = zip(*points)
            ax.plot(x, y, color=style.color, marker=style.marker, linestyle=style.line, label=name)
            ends.append((x[-1], y[-1], name, style.color))
    if not ends:
        return
    ax.set(xscale="log", yscale="log")
    _label(ax, ends)


def _label(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names to the right of the panel at the height of their lines' ends, pushed apart where they meet."""
    low, high = (math.log(bound) for bound in ax.get_ylim())
    ends = sorted(ends, key=lambda end: end[1])
    heights = [(math.log(y) - low) / (high - low) for _, y, _, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + APART)
    over = max(0.0, heights[-1] - 1)
    for i in reversed(range(len(heights))):  # what was pushed over the top comes down again
        heights[i] = min(heights[i] - over if i == len(heights) - 1 else heights[i], 1.0)
        if i + 1 < len(heights):
            heights[i] = min(heights[i], heights[i + 1] - APART)
    for (x, y, name, color), height in zip(ends, heights):
        to_the_end = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
        looks: dict[str, Any] = {"color": color, "fontsize": 8, "va": "center", "arrowprops": to_the_end}
        ax.annotate(name, (x, y), (1.04, height), textcoords="axes fraction", **looks)
