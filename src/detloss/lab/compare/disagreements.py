"""The images on which the two leading losses disagree most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detloss.lab.compare.results import Results
from detloss.lab.evaluate.operating import f1_of_images
from detloss.lab.statistics import mean_interval, measured

SHOWN = 4


class Disagreement(NamedTuple):
    """Two losses, the one of higher mean AP first, and images by falling difference of their F1.

    Attributes:
        losses: their names.
        seed: of their runs.
        scores: the score of each run's best F1, from which on its detections count.
        f1: id of an image → F1 of each loss there.
    """

    losses: tuple[str, str]
    seed: int
    scores: tuple[float, float]
    f1: dict[str, tuple[float, float]]


def disagreement(results: Results) -> Disagreement | None:
    """At most four images, of the first seed that both losses finished; None where there is no such seed."""
    ap = {name: mean_interval(of.values())[0] for name, of in measured(results.column("ap")).items() if of}
    losses = sorted(ap, key=lambda name: -ap[name])[:2]
    runs = [results.runs[name] for name in losses]
    if len(runs) < 2 or not (shared := [seed for seed in runs[0] if seed in runs[1]]):
        return None
    pair = [of[shared[0]] for of in runs]
    if pair[0].matches is None or pair[1].matches is None:
        return None
    scores = [run.evaluation.operating.best_score for run in pair]
    f1 = np.array([f1_of_images(run.matches, score) for run, score in zip(pair, scores) if run.matches])
    gap = abs(f1[0] - f1[1])
    # Of equal ones those with most objects, which say more.
    order = np.lexsort((-pair[0].matches.objects.sum(axis=1), -gap))
    ids = pair[0].matches.ids
    chosen = {str(ids[i]): (float(f1[0, i]), float(f1[1, i])) for i in order[:SHOWN] if gap[i] > 0}
    return Disagreement((losses[0], losses[1]), shared[0], (scores[0], scores[1]), chosen)
