"""Calibration against the threshold of score, beside what a higher threshold costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from detloss.lab.evaluate import Evaluation
from detloss.lab.figures import band, drawing, finish, legend_below, panels, styles


@drawing
def calibration_against_threshold(at: Mapping[str, Sequence[Sequence[Evaluation]]]) -> Figure:
    """ECE and LaECE against the lowest score that counts, with recall and AP of what is left below.

    Mean over seeds, band from lowest to highest seed. A threshold that leaves no detection has no error.

    Args:
        at: for each loss, for each seed, the evaluations that ``evaluate_at`` returned.
    """
    figure, axes = panels(4, 2.3, "lowest score that counts", "%")
    shown = {
        "ECE": lambda e: e.calibration.ece,
        "LaECE": lambda e: e.calibration.laece,
        "Recall at IoU 0.5": lambda e: e.calibration.recall,
        "AP of what is left": lambda e: e.ap,
    }
    for ax, (title, get) in zip(axes, shown.items()):
        ax.set_title(title)
        for name, style in styles(at).items():
            seeds = []
            for evaluations in at[name]:
                x = np.array([e.calibration.threshold for e in evaluations])
                y = 100 * np.array([get(e) for e in evaluations])
                if not np.isnan(y).all():
                    seeds.append((x[~np.isnan(y)], y[~np.isnan(y)]))
            band(ax, seeds, name, style, marked=True)
        ax.set_ylim(bottom=0)
        finish(ax, "nothing measured", legend=False)
    legend_below(figure, *axes[2].get_legend_handles_labels())
    return figure
