"""Tables → figures. Only this folder imports matplotlib: no global state, no windows, no numbers made here.

Each loss has the same colour, marker and line in every figure (Okabe and Ito's palette, safe for colour-blind
readers). Where there is nothing to draw, the figure says so.
"""

from detloss.plots.bench import bench_times
from detloss.plots.calibration import calibration_against_threshold
from detloss.plots.curves import ap_over_steps, ap_per_seed, cost, loss_share, sweep, training_curves
from detloss.plots.detections import precision_recall, reliability, sample_detections, score_against_iou
from detloss.plots.experiments import Against, Difference, against, metrics_by_loss, paired_differences
from detloss.plots.imbalance import (
    cumulative_loss,
    level_counts,
    loss_on_images,
    object_counts,
    quadrant_shares,
)
from detloss.plots.losses import loss_curves
from detloss.plots.simulation import error_curves, error_surface
from detloss.plots.style import save, styles

__all__ = [
    "Against",
    "Difference",
    "against",
    "ap_over_steps",
    "ap_per_seed",
    "bench_times",
    "calibration_against_threshold",
    "cost",
    "cumulative_loss",
    "error_curves",
    "error_surface",
    "level_counts",
    "loss_curves",
    "loss_on_images",
    "loss_share",
    "metrics_by_loss",
    "object_counts",
    "paired_differences",
    "precision_recall",
    "quadrant_shares",
    "reliability",
    "sample_detections",
    "save",
    "score_against_iou",
    "styles",
    "sweep",
    "training_curves",
]
