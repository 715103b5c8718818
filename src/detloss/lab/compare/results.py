"""What a comparison left on disk, as plain records; and the few images that are kept for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.sentences import answer, past_the_plan, still_learning, unequal_clipping
from detloss.lab.data import Dataset, Sample
from detloss.lab.evaluate import Evaluation
from detloss.lab.evaluate.matches import Matches, resample_images
from detloss.lab.records import load_config
from detloss.lab.runs import columns, read_columns, read_csv, read_json, write_json
from detloss.lab.statistics import Verdict, decide, short_names

MOST_CURVES = 8
"""Losses that a picture of curves can show so that each is told from the others."""


@dataclass(frozen=True)
class Run:
    """One finished run: its row of results.csv as numbers, and what its folder holds.

    `matches` is None where an older version trained it.
    """

    row: Mapping[str, float]
    evaluation: Evaluation
    log: Mapping[str, np.ndarray]
    evaluations: Mapping[str, np.ndarray]
    detections: list[dict[str, Any]]
    matches: Matches | None


class Rule(Protocol):
    """What decides a verdict; any configuration with these attributes."""

    @property
    def rope(self) -> float:
        """In points of AP."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds."""


@dataclass(frozen=True)
class Results:
    """All that a comparison left; ``runs`` and ``sweep`` by the name of the loss, the baseline first.

    ``runs`` has every loss that was asked for, an empty dict for one without a finished run. Of runs that
    were trained elsewhere, logs, curves, times and settings are not known: ``config`` is no `CompareConfig`.
    """

    config: Rule
    versions: dict[str, Any]
    data: dict[str, Any]
    runs: dict[str, dict[int, Run]]
    sweep: dict[str, dict[str, np.ndarray]]
    diverged: list[str]
    samples: list[Sample]
    images: dict[str, np.ndarray] | None
    """AP of each run on resamples of the images; None where a run has not kept its matches."""

    def column(self, name: str) -> dict[str, dict[int, float]]:
        """{loss: {seed: value}} of a column of results.csv."""
        return {loss: {seed: run.row[name] for seed, run in of.items()} for loss, of in self.runs.items()}

    @property
    def training(self) -> CompareConfig | None:
        """How the runs were trained; None where `detloss compare` did not train them."""
        return self.config if isinstance(self.config, CompareConfig) else None

    @property
    def curves(self) -> dict[str, list[Mapping[str, np.ndarray]]]:
        """{loss: [evaluations.csv of each seed]}; nothing where that is not known."""
        known = self.training and not self.training.trainer
        return self.seeds(lambda run: run.evaluations) if known else {}

    @property
    def answer(self) -> str:
        """The comparison in one sentence."""
        rope, same_seeds = self.config.rope / 100, self.training is not None
        return answer(self.column("ap"), self.verdicts, rope, self.curves, same_seeds)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """On AP, of all pairs of losses."""
        return decide(self.column("ap"), self.config.rope / 100, self.config.looks, self.images)

    @property
    def warnings(self) -> list[str]:
        """What makes the verdicts say less than they seem to."""
        found = [still_learning(self.curves), unequal_clipping(self.clipped)]
        if self.training:
            seeds = max(map(len, self.runs.values()))
            found.append(past_the_plan(self.verdicts, seeds, self.config.looks))
        return [said for said in found if said]

    @property
    def clipped(self) -> dict[str, list[float]]:
        """{loss: [part of the steps whose gradient was clipped, of each seed]}; nothing where not known."""
        known = self.training and not self.training.trainer
        return self.seeds(lambda run: run.row["clipped"]) if known else {}

    @property
    def threshold(self) -> float:
        """The lowest score that counts for calibration."""
        run = next(run for runs in self.runs.values() for run in runs.values())
        return run.evaluation.calibration.threshold

    def seeds(self, get: Callable[[Run], Any]) -> dict[str, list[Any]]:
        """{loss: [what get returns for each seed]}."""
        return {loss: [get(run) for run in runs.values()] for loss, runs in self.runs.items()}

    @property
    def in_curves(self) -> list[str]:
        """The losses that pictures of curves show: the first, and those of the highest mean AP, in order."""
        first, *others = self.runs
        ap = self.column("ap")
        mean = {loss: np.mean(list(ap[loss].values()) or [-1.0]) for loss in others}
        best = sorted(others, key=lambda loss: -mean[loss])[: MOST_CURVES - 1]
        return [loss for loss in self.runs if loss == first or loss in best]


def save_samples(folder: Path, dataset: Dataset, ids: Iterable[str]) -> list[Sample]:
    """Keeps images and their truth in ``folder``/samples, for the side-by-side picture; they are returned."""
    listed: list[dict[str, Any]] = []
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for sample in choose_samples(dataset, ids):
        Image.fromarray(sample.image).save(folder / "samples" / f"{len(listed)}.png")
        truth = {"boxes": sample.boxes, "labels": sample.labels, "ignored": sample.ignored}
        listed.append({"id": sample.id, **{name: array.tolist() for name, array in truth.items()}})
    write_json(folder / "samples" / "samples.json", listed)
    return _read_samples(folder / "samples")


def choose_samples(dataset: Dataset, ids: Iterable[str]) -> list[Sample]:
    """The images of these ids, with their truth."""
    place = {dataset.annotation(i).id: i for i in range(len(dataset))}
    return [dataset[place[id]] for id in ids]


def read_results(folder: Path, progress: Callable[[int, int], object] = lambda done, total: None) -> Results:
    """Reads the folder of a comparison, and resamples its images, with the progress of that.

    Raises:
        ValueError: it has no finished run.
    """
    rows = read_csv(folder / "results.csv")
    diverged = [read_json(path) for path in sorted(folder.glob("runs/*/seed-*/diverged.json"))]
    if not rows:
        why = f"every run diverged, {diverged[0]}" if diverged else "`detloss compare` writes it"
        raise ValueError(f"{folder} has no results.csv with a finished run; {why}")
    config = load_config(CompareConfig, folder)
    sweep_rows = read_csv(folder / "sweep.csv")
    label = short_names(config.pairs)
    folders = {}
    for path in sorted(folder.glob("runs/*/seed-*/metrics.json")):
        run = read_json(path.parent / "config.json")
        folders[run["loss"], run["box_loss"], run["seed"]] = path.parent
    runs: dict[str, dict[int, Run]] = {label[pair]: {} for pair in config.pairs}
    for row in rows:
        pair, seed = (row["classification_loss"], row["box_loss"]), int(row["seed"])
        runs[label[pair]][seed] = _read_run(row, folders[*pair, seed])
    sweep = {
        label[pair]: [r for r in sweep_rows if (r["classification_loss"], r["box_loss"]) == pair]
        for pair in config.pairs
    }
    kept = {name: [run.matches for run in of.values() if run.matches] for name, of in runs.items()}
    incomplete = any(len(kept[name]) < len(of) for name, of in runs.items())
    return Results(
        config=config,
        versions=read_json(folder / "versions.json"),
        data=read_json(folder / "data.json"),
        runs=runs,
        sweep={name: columns(sweep[name]) for name in runs if sweep[name]},
        diverged=diverged,
        samples=_read_samples(folder / "samples"),
        # Where each seed has images of its own, the spread of the seeds is one over images too.
        images=None if incomplete or config.new_scenes else resample_images(kept, progress=progress),
    )


def _read_run(row: Mapping[str, str], folder: Path) -> Run:
    numbers = {name: float(value or "nan") for name, value in row.items() if not name.endswith("_loss")}
    evaluation = Evaluation.from_dict(read_json(folder / "metrics.json"), folder / "metrics.json")
    log, evaluations = (read_columns(folder / name) for name in ("log.csv", "evaluations.csv"))
    file = folder / "matches.npz"
    matches = Matches.load(file) if file.exists() else None
    return Run(numbers, evaluation, log, evaluations, read_json(folder / "detections.json"), matches)


def _read_samples(folder: Path) -> list[Sample]:
    if not (folder / "samples.json").exists():
        return []
    samples = []
    for i, truth in enumerate(read_json(folder / "samples.json")):
        with Image.open(folder / f"{i}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        boxes = np.array(truth["boxes"], np.float32).reshape(-1, 4)
        labels, ignored = np.array(truth["labels"], np.int64), np.array(truth["ignored"], bool)
        samples.append(Sample(pixels, boxes, labels, truth["id"], ignored))
    return samples
