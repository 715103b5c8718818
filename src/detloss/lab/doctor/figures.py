"""Anybody's loss beside the nearest known one: value, gradient and their differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detloss.lab.figures import INK, PALETTE, WIDTH, drawing, finish

X_LABELS = {
    "classification": "logit",
    "softmax": "logit",
    "box": "slide, in sides of the target",
    "distribution": "place of the distribution, bins",
}
PER = {"box": "side", "distribution": "bin"}
DASHES: tuple[Any, ...] = ((0, (4, 3)), (0, (1, 2)))


@drawing
def loss_beside_known(curve: Mapping[str, Any], name: str = "yours") -> Figure:
    """Value and gradient over a logit, or along a slide, of a loss and of the nearest known one.

    Args:
        curve: as `detloss.lab.doctor.curve` makes it.
        name: of the loss; shortened to what stands after the last colon.
    """
    own, kind = name.rpartition(":")[2], curve["kind"]
    known = f"known {curve['nearest']}" if any(line["known_value"] for line in curve["lines"]) else ""
    units = {"value": "loss", "gradient": f"loss per {PER.get(kind, 'logit')}"}
    off = {quantity: _differences(curve, quantity) if known else [] for quantity in units}
    # more than an eps of the user's, or rounding, explains
    apart = [quantity for quantity in units if np.nanmax(np.abs([0.0, *np.ravel(off[quantity])])) > 1e-4]
    figure = Figure(figsize=(1.5 * WIDTH, 6.2 if apart else 4.3))
    beside = f" beside {known}" if apart else f", equal to {known}"
    figure.suptitle(own + (beside if known else ""), fontsize=11, fontweight="bold")
    axes = figure.subplots(2 if apart else 1, 2, squeeze=False, height_ratios=(3, 2) if apart else (1,))
    for (ax, *below), (quantity, unit) in zip(axes.T, units.items()):
        ax.set(title=quantity.capitalize(), ylabel=unit)
        _draw(ax, curve, quantity, own, known)
        finish(ax, "nothing finite", legend=False)
        if quantity in apart:
            (ax,) = below
            ax.set(title=f"{quantity.capitalize()}, less that of {known}", ylabel="difference")
            for line, color, style in zip(off[quantity], PALETTE, ("-", "--")):
                ax.plot(curve["x"], line, color=color, linestyle=style)
            ax.axhline(0, color=INK, linewidth=0.6)
        elif apart:
            below[0].remove()
        ax.set_xlabel(X_LABELS[kind])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if len(labels) > 1:  # below: curves of a loss leave no corner free
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _differences(curve: Mapping[str, Any], quantity: str) -> list[np.ndarray]:
    """Of each line from the known one; NaN where either is not finite."""
    pairs = [(_numbers(line[quantity]), _numbers(line[f"known_{quantity}"])) for line in curve["lines"]]
    return [own - known for own, known in pairs]


def _draw(ax: Axes, curve: Mapping[str, Any], quantity: str, own: str, known: str) -> None:
    x = curve["x"]
    for line, color, dashes in zip(curve["lines"], PALETTE, DASHES):
        where = f", {line['label']}" if line["label"] else ""
        ax.plot(x, _numbers(line[quantity]), color=color, linewidth=3, label=f"{own}{where}")
        if known:
            values = _numbers(line[f"known_{quantity}"])
            ax.plot(x, values, color=INK, linestyle=dashes, linewidth=1.4, label=f"{known}{where}")


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
