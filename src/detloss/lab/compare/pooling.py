"""The folds of a seed as one run: what each found on its images, together on all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from detloss.lab.compare.jobs import Job, Outcome, finished
from detloss.lab.data.folds import EVERYTHING
from detloss.lab.evaluate import from_coco_results
from detloss.lab.files import replacing
from detloss.lab.records import to_dict
from detloss.lab.runs import read_columns, read_json, write_csv, write_json
from detloss.lab.training.splits import open_split
from detloss.lab.training.trained import evaluate_found


def pooled(job: Job, folds: int) -> Outcome | None:
    """The outcome of a seed, of which a fold has just come to an end; None as long as others have not.

    Leaves in the seed's folder what a run leaves there, but no weights: one evaluation of the detections of
    all folds, and the means of their tables. Seconds are of all folds, memory is that of the largest.
    """
    out = job.folder.parent
    parts = [out / f"fold-{fold}" for fold in range(1, folds + 1)]
    outcomes = [finished(replace(job, folder=folder)) for folder in parts]
    if None in outcomes:
        return None
    for number, outcome in enumerate(outcomes, 1):
        if outcome and outcome.diverged:
            why = f"fold {number}: {outcome.diverged}"
            write_json(out / "diverged.json", why)
            return Outcome(None, why)
    metrics = [outcome.metrics for outcome in outcomes if outcome and outcome.metrics]
    made = out / "metrics.json"
    if made.exists() and all(made.stat().st_mtime_ns > _finished_at(folder) for folder in parts):
        return Outcome(read_json(made))
    names = tuple(metrics[0]["per_class"])
    data = open_split(job.config, EVERYTHING, names)
    results = [one for folder in parts for one in read_json(folder / "detections.json")]
    found = from_coco_results(results, [data.annotation(i).id for i in range(len(data))])
    evaluation, matches = evaluate_found(found, data)
    config = replace(job.config, train_split=EVERYTHING, val_split=EVERYTHING)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "detections.json", results)
    replacing(out / "matches.npz", matches.save)
    for name in ("log.csv", "evaluations.csv"):
        tables = [read_columns(folder / name) for folder in parts]
        if not all(tables):
            continue  # a trainer of the user's leaves none
        mean = {column: np.mean([table[column] for table in tables], axis=0) for column in tables[0]}
        rows = [dict(zip(mean, row)) for row in np.column_stack(list(mean.values())).tolist()]
        write_csv(out / name, list(mean), rows)
    clipped = [one["clipped"] for one in metrics]
    cost = {
        "seconds": sum(one["seconds"] for one in metrics),
        "peak_memory_mb": max(one["peak_memory_mb"] for one in metrics),
        "clipped": None if None in clipped else float(np.mean(clipped)),
    }
    write_json(made, cost | evaluation.to_dict())
    return Outcome(read_json(made))


def _finished_at(folder: Path) -> int:
    return (folder / "metrics.json").stat().st_mtime_ns
