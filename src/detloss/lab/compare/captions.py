"""The figures of a comparison, each with a title and a line on how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from detloss.lab.compare.figures import ap_over_steps, ap_per_seed, cost, loss_share, sweep
from detloss.lab.compare.results import Results
from detloss.lab.evaluate import from_coco_results
from detloss.lab.evaluate.figures import (
    confusion,
    errors,
    f1_against_score,
    precision_recall,
    reliability,
    sample_detections,
    score_against_iou,
)

MOST_CLASSES = 12  # a confusion matrix of more cannot be read


class Drawn(NamedTuple):
    """A figure with its file stem, its title, and how to read it."""

    stem: str
    title: str
    caption: str
    figure: Any


def draw(results: Results) -> Iterator[Drawn]:
    """All figures; those of the samples and the sweep where there are any."""
    counted = f"detections with a score of at least {results.threshold:g}"
    evaluations = results.seeds(lambda run: run.evaluation)
    costs = {
        name: {
            what: np.array([run.row[what] for run in runs.values()]) for what in ("seconds", "peak_memory_mb")
        }
        for name, runs in results.runs.items()
    }
    yield Drawn(
        "ap_per_seed",
        "AP of each seed",
        "Dots are seeds, the bar their mean, the line the 95 % interval of that mean by itself. Whether "
        "losses differ is in the table of differences, not in lines that overlap.",
        ap_per_seed(results.column("ap")),
    )
    yield Drawn(
        "ap_over_steps",
        "AP during training",
        "Mean over seeds on the validation images; the band reaches from the lowest to the highest seed.",
        ap_over_steps(results.curves),
    )
    yield Drawn(
        "precision_recall",
        "Precision and recall",
        "A curve further to the upper right finds more at the same share of mistakes. "
        "A box is right from IoU 0.5 on.",
        precision_recall(evaluations),
    )
    yield Drawn(
        "errors",
        "Which errors",
        "What AP at IoU 0.5 would gain if all errors of one kind were mended (TIDE). Classification: on an "
        "object of another class. Localisation: on an object, IoU below 0.5. Both: both. Duplicate: a second "
        "box on an object. Background: on nothing. Missed: an object that nothing found.",
        errors(evaluations),
    )
    yield Drawn(
        "f1",
        "Which score to deploy",
        "F1 is high where most of what is found is right and most objects are found. The mark is the best "
        "score of each loss: losses differ in how high their scores are; one threshold does not suit all.",
        f1_against_score(evaluations),
    )
    if len(results.data["names"]) <= MOST_CLASSES:
        yield Drawn(
            "confusion",
            "What objects are taken for",
            "Percent of the objects of a row, each loss at the score of its best F1. Right column: not "
            "found. Last row: detections where no object is, percent of all detections.",
            confusion(evaluations, results.data["names"]),
        )
    yield Drawn(
        "reliability",
        "Reliability",
        "Bars on the diagonal: a score of 0.8 is right 8 times in 10. Above it scores are too modest, below "
        f"it too proud. The counts say how much each bar rests on (log scale). Only {counted}.",
        reliability(evaluations),
    )
    yield Drawn(
        "score_iou",
        "Score against IoU",
        f"Each dot is a right detection, of the {counted}. A rising line: the score knows which boxes fit; "
        "ρ is Spearman's rank correlation (mean over seeds).",
        score_against_iou(evaluations),
    )
    yield Drawn(
        "loss_share",
        "Where the loss comes from",
        "The part of the classification loss that comes from the few positive locations; the rest comes from "
        "the many negatives.",
        loss_share(results.seeds(lambda run: run.log)),
    )
    yield Drawn(
        "cost",
        "Time and memory",
        "Optimiser steps without evaluation; points are seeds. Runs that share a machine disturb each other.",
        cost(costs),
    )
    if results.samples:
        ids = [sample.id for sample in results.samples]
        found = {}
        for name, runs in results.runs.items():
            if runs:
                kept = [d for d in next(iter(runs.values())).detections if d["image_id"] in ids]
                found[name] = from_coco_results(kept, ids)
        yield Drawn(
            "samples",
            "Sample detections",
            "The first seed of each loss beside the truth: its best detections, as many as the image has "
            "objects, since a score does not mean the same for each loss. Dashed boxes are ignored objects.",
            sample_detections(results.samples, found, results.data["names"]),
        )
    if results.sweep:
        trials = "Each candidate was tried once."
        if len(results.config.rungs) > 1:
            trials = "Thin lines: short trials of every candidate; strong: longer trials of the better half."
        yield Drawn(
            "sweep",
            "The sweep",
            f"AP on training images held out for it. {trials}",
            sweep(results.sweep),
        )
