"""Results → figures on disk and one self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.disagreements import disagreement
from detloss.lab.compare.figures import ap_over_steps, ap_per_seed, cost, loss_share, sweep
from detloss.lab.compare.results import Results, read_results
from detloss.lab.compare.tables import tables
from detloss.lab.evaluate import from_coco_results
from detloss.lab.evaluate.figures import (
    MOST_CLASSES,
    confusion,
    errors,
    f1_against_score,
    precision_by_class,
    precision_recall,
    reliability,
    sample_detections,
    score_against_iou,
)
from detloss.lab.figures import save
from detloss.lab.runs import write_text


def write_report(
    folder: Path,
    results: Results | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Writes figures/ and report.html into the folder of a comparison; the page is returned.

    Args:
        folder: of the comparison.
        results: what it holds; read where it is not given.
        progress: called with (done, total) after each figure.

    Raises:
        ValueError: there are no results.
    """
    results = results or read_results(folder)
    figures = {}
    drawn = draw(results)
    for done, (stem, figure) in enumerate(drawn.items(), start=1):
        # Photographs are large as SVG.
        suffixes = ("png",) if stem == "samples" else ("png", "svg")
        save(figure, folder / "figures" / stem, suffixes)
        figures[stem] = _data_uri(folder / "figures" / f"{stem}.{suffixes[-1]}")
        progress(done, len(drawn))
    environment = Environment(
        loader=PackageLoader("detloss.lab.compare", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        losses=list(results.runs),
        in_curves=results.in_curves,
        question=_question(results),
        tuning=_tuning(results.training) if results.training else "",
        training=results.training,
        answer=results.answer,
        with_images=results.images is not None,
        warnings=results.warnings,
        tables=tables(results),
        threshold=results.threshold,
        apart=disagreement(results),
        figures=figures,
        data=results.data,
        diverged=results.diverged,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def draw(results: Results) -> dict[str, Any]:
    """The figures by the stem of their file; those of the samples and the sweep where there are any."""
    names, few = results.data["names"], results.in_curves
    evaluations = {loss: [run.evaluation for run in results.runs[loss].values()] for loss in few}
    drawn = {
        "ap_per_seed": ap_per_seed(results.column("ap")),
        "precision_recall": precision_recall(evaluations),
        "errors": errors(evaluations),
        "f1": f1_against_score(evaluations),
        "reliability": reliability(evaluations),
        "score_iou": score_against_iou(evaluations),
    }
    if results.training:
        costs = {
            name: {
                what: np.array([run.row[what] for run in runs.values()])
                for what in ("seconds", "peak_memory_mb")
            }
            for name, runs in results.runs.items()
        }
        drawn["ap_over_steps"] = ap_over_steps({name: results.curves.get(name, []) for name in few})
        if results.training.dense:
            drawn["loss_share"] = loss_share(
                {loss: [run.log for run in results.runs[loss].values()] for loss in few}
            )
        drawn["cost"] = cost(costs)
    if len(names) <= MOST_CLASSES:
        drawn["precision_by_class"] = precision_by_class(evaluations, names)
        drawn["confusion"] = confusion(evaluations, names)
    if (apart := disagreement(results)) and results.samples:
        ids, found = [sample.id for sample in results.samples], {}
        for name, least in zip(apart.losses, apart.scores):
            detections = results.runs[name][apart.seed].detections
            kept = [d for d in detections if d["image_id"] in ids and d["score"] >= least]
            found[name] = from_coco_results(kept, ids)
        f1 = {name: [apart.f1[id][k] for id in ids] for k, name in enumerate(apart.losses)}
        drawn["samples"] = sample_detections(results.samples, found, names, f1)
    if results.sweep:
        drawn["sweep"] = sweep(results.sweep)
    return drawn


def _question(results: Results) -> str:
    config, data, names = results.training, results.data, list(results.runs)
    if config is None:
        return (
            f"Which of {', '.join(names)} has the highest AP? {data['val']['images']:,} images "
            f"({data['source']}), {len(data['names'])} classes. The detections were made elsewhere: where "
            "anything but the loss differed in training (data, steps, size, tuning), the difference is not "
            "the loss's alone."
        )
    images = f"{data['train']['images']:,} training and {data['val']['images']:,} validation images"
    if config.folds:
        images = f"{data['val']['images']:,} images, each validated once in {config.folds} folds"
    if config.new_scenes:
        images += " for each seed"
    same = "Data, seeds, initial weights, batches and schedule are the same for all"
    if config.trainer:
        same = (
            f"{config.trainer} made the trainings. It was given the same data, seeds and settings for all, "
            "and what it found is measured here"
        )
    return (
        f"Which of {', '.join(names)} gives the highest AP? {images} ({data['source']}), "
        f"{len(data['names'])} classes, "
        f"{config.steps:,} steps of {config.batch} images at {config.size} px. {same}; only the loss "
        f"differs, with {_tuning(config)}."
    )


def _tuning(config: CompareConfig) -> str:
    """What each loss got of its own, and what all share."""
    rates, weights = config.axes
    if not config.trials:
        return f"the same learning rate ({rates[0]:g}) and box weight ({weights[0]:g}) for all"
    said = [
        f"a {words} of its own (of {', '.join(f'{v:g}' for v in values)})"
        if len(values) > 1
        else f"{words} {values[0]:g} for all"
        for words, values in (("learning rate", rates), ("box weight", weights))
    ]
    if len(rates) == 1:
        said.reverse()
    return " and ".join(said)


def _data_uri(path: Path) -> str:
    content, kind = path.read_bytes(), "svg+xml"
    if path.suffix == ".png":
        buffer, kind = io.BytesIO(), "jpeg"
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=88)
        content = buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
