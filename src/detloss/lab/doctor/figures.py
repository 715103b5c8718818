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
DASHES: tuple[Any, ...] = ((0, (4, 3)), (0, (1, 2)))


@drawing
def loss_beside_known(curve: Mapping[str, Any], name: str = "yours") -> Figure:
    """Value and gradient over a logit, or along a slide, of a loss and of the nearest known one.

    Args:
        curve: as `detloss.lab.doctor.curve` makes it.
        name: of the loss; shortened to what stands after the last colon.
    """
    own = name.rpartition(":")[2]
    known = f"known {curve['nearest']}" if any(line["known_value"] for line in curve["lines"]) else ""
    off = {quantity: _differences(curve, quantity) if known else [] for quantity in ("value", "gradient")}
    apart = [column for column, lines in enumerate(off.values()) if any(_apart(line) for line in lines)]
    figure = Figure(figsize=(1.5 * WIDTH, 6.2 if apart else 4.3))
    beside = f" beside {known}" if apart else f", equal to {known}"
    figure.suptitle(own + (beside if known else ""), fontsize=11, fontweight="bold")
    axes = figure.subplots(2 if apart else 1, 2, squeeze=False, height_ratios=(3, 2) if apart else (1,))
    for column, quantity in enumerate(off):
        ax = axes[0, column]
        ax.set(title=quantity.capitalize(), ylabel=_unit(curve["kind"], quantity))
        _draw(ax, curve, quantity, own, known)
        finish(ax, "nothing finite", legend=False)
        if column in apart:
            below = axes[1, column]
            below.set(title=f"{quantity.capitalize()}, less that of {known}", ylabel="difference")
            for line, color, style in zip(off[quantity], PALETTE, ("-", "--")):
                below.plot(curve["x"], line, color=color, linestyle=style)
            below.axhline(0, color=INK, linewidth=0.6)
        elif apart:
            axes[1, column].remove()
        axes[1 if column in apart else 0, column].set_xlabel(X_LABELS[curve["kind"]])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if len(labels) > 1:  # below: curves of a loss leave no corner free
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _differences(curve: Mapping[str, Any], quantity: str) -> list[np.ndarray]:
    pairs = [(_numbers(line[quantity]), _numbers(line[f"known_{quantity}"])) for line in curve["lines"]]
    return [own - known for own, known in pairs]


def _apart(difference: np.ndarray) -> bool:
    """More than an eps of the user's, or rounding, explains."""
    finite = difference[np.isfinite(difference)]
    return bool(len(finite) and np.abs(finite).max() > 1e-4)


def _unit(kind: str, quantity: str) -> str:
    if quantity == "value":
        return "loss"
    return (
        "loss per side" if kind == "box" else "loss per bin" if kind == "distribution" else "loss per logit"
    )


def _draw(ax: Axes, curve: Mapping[str, Any], quantity: str, own: str, known: str) -> None:
    for line, color, dashes in zip(curve["lines"], PALETTE, DASHES):
        where = f", {line['label']}" if line["label"] else ""
        ax.plot(curve["x"], _numbers(line[quantity]), color=color, linewidth=3, label=f"{own}{where}")
        if known:
            ax.plot(
                curve["x"],
                _numbers(line[f"known_{quantity}"]),
                color=INK,
                linestyle=dashes,
                linewidth=1.4,
                label=f"{known}{where}",
            )


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
