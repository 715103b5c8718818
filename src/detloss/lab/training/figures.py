"""One run's losses over its steps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from detloss.lab.figures import INK, LOSS_STYLES, WIDTH, Table, finish, thinned


def training_curves(log: Table) -> Figure:
    """One run's losses and learning rate (columns step, lr, loss, classification_loss, box_loss)."""
    figure = Figure(figsize=(WIDTH, 4.6))
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    top.set(title="Loss", ylabel="loss (log scale)")
    terms = ("loss", "classification_loss", "objectness_loss", "box_loss", "distribution_loss")
    parts = [name for name in terms if name in log]
    for name, style in zip(parts, LOSS_STYLES.values()):
        if np.any(log[name] > 0):
            top.plot(log["step"], log[name], color=style.color, linewidth=0.7, alpha=0.35)
            top.plot(
                *thinned(log["step"], log[name], 40),
                color=style.color,
                linestyle=style.line,
                label=name.replace("_", " ") if name != "loss" else "total",
            )
    if top.lines:
        top.set_yscale("log")
    finish(top, "no log")
    below.set(title="Learning rate", xlabel="training step", ylabel="learning rate")
    if len(log["step"]):
        below.plot(log["step"], log["lr"], color=INK)
        below.set_ylim(bottom=0)
    return figure
