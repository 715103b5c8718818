"""The main job: same data, seeds, batches and initial weights; only the loss differs, each tuned on its own.

Losses differ in the scale of their gradients, so that one shared learning rate decides the verdict before
training starts. Each loss is therefore given its own rate and box weight by a sweep on a part of the
training set held out for it; the validation set is only ever seen by the runs that are compared.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import SWEEP_SEED, Job, Outcome, Pair, finished, folder_name, run_job
from detloss.lab.devices import pick_device
from detloss.lab.engines import Event, JobFailed, run_jobs
from detloss.lab.runs import write_csv

RESULT_COLUMNS = (
    *("classification_loss", "box_loss", "seed", "ap", "ap50", "ap75", "ece", "seconds", "peak_memory_mb"),
    *("ap_small", "ap_medium", "ap_large", "ar100", "voc2007", "voc2010"),
    *("ece_threshold", "ece_recall", "score_iou_correlation", "lr", "box_weight", "steps"),
    *("signed_gap", "dece", "laece", "ece_by_chance"),
)
SWEEP_COLUMNS = (
    *("classification_loss", "box_loss", "rung", "steps", "lr", "box_weight", "ap", "seconds", "chosen"),
)
Candidate = tuple[float, float]
"""Learning rate and box weight."""


@dataclass
class Comparison:
    """A comparison under way: what is chosen and finished so far. The terminal's live table reads it.

    Attributes:
        config: what was asked.
        out: its folder.
        chosen: the learning rate and box weight of each pair, once known.
        results: rows of results.csv.
        sweep: rows of sweep.csv.
        active: for each running job, its latest step.
        latest: the row of the run that finished last.
        steps_done, steps_planned: optimiser steps over all jobs.
        diverged: why runs that count have no result.
    """

    config: CompareConfig
    out: Path
    chosen: dict[Pair, tuple[float, float]] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    active: dict[Path, tuple[Job, int]] = field(default_factory=dict)
    latest: dict[str, Any] | None = None
    steps_done: int = 0
    steps_planned: int = 0
    diverged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        candidates, steps = len(config.candidates), config.steps
        sweep = 0
        if candidates > 1:
            for part in config.rungs:
                sweep += candidates * self.rung_steps(part)
                candidates = keep_count(candidates)
        self.steps_planned = len(config.pairs) * (sweep + config.seeds * steps)

    def rung_steps(self, part: float) -> int:
        """Steps of a rung's candidates."""
        return max(1, round(part * self.config.steps))

    def jobs_of(self, pair: Pair, rung: int, candidates: Sequence[tuple[float, float]]) -> list[Job]:
        """The sweep's runs of one pair."""
        config = self.config
        steps = self.rung_steps(config.rungs[rung])
        jobs = []
        for lr, weight in candidates:
            run = config.run(pair, (lr, weight), SWEEP_SEED, steps=steps, evaluations=1)
            folder = self.out / "sweep" / folder_name(pair) / f"rung-{rung}" / f"lr-{lr:g}-box-{weight:g}"
            jobs.append(Job(run, folder, rung, config.held_out))
        return jobs

    def final_jobs(self) -> list[Job]:
        """The runs that are compared, all losses of a seed before the next seed."""
        jobs = []
        for seed in range(self.config.seeds):
            for pair in self.config.pairs:
                run = self.config.run(pair, self.chosen[pair], seed)
                folder = self.out / "runs" / folder_name(pair) / f"seed-{seed}"
                jobs.append(Job(run, folder, None, self.config.held_out))
        return jobs


def keep_count(candidates: int) -> int:
    """How many of a rung's candidates go on: the better half."""
    return max(1, candidates // 2)


def workers_and_threads(config: CompareConfig) -> tuple[int, int]:
    """Runs at a time and PyTorch threads of each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_gpu = pick_device(config.device).type == "cuda"
    workers = config.workers or (1 if on_gpu else min(cores, 8))
    return workers, max(1, cores // workers)


def compare(state: Comparison) -> Iterator[None]:
    """Runs what is not finished yet; yields whenever the state changed.

    Leaves sweep.csv, results.csv (both after every finished run) and a folder a run.

    Raises:
        JobFailed: a run failed for another reason than a diverging loss; finished runs are kept.
    """
    yield from _sweep(state)
    for job, outcome in _run(state, state.final_jobs()):
        if outcome is not None:
            _add_result(state, job, outcome)
        yield


def _sweep(state: Comparison) -> Iterator[None]:
    config = state.config
    left = {pair: config.candidates for pair in config.pairs}
    if len(config.candidates) > 1:
        for rung in range(len(config.rungs)):
            jobs = [job for pair in config.pairs for job in state.jobs_of(pair, rung, left[pair])]
            ap: dict[Pair, dict[Candidate, float]] = {pair: {} for pair in config.pairs}
            for job, outcome in _run(state, jobs):
                if outcome is not None:
                    key = (job.config.lr, job.config.box_weight)
                    ap[job.pair][key] = outcome.ap
                    _add_candidate(state, job, outcome)
                yield
            last = rung == len(config.rungs) - 1
            for pair, scores in ap.items():
                left[pair] = best(scores, left[pair])[: 1 if last else keep_count(len(scores))]
    state.chosen = {pair: candidates[0] for pair, candidates in left.items()}
    for row in state.sweep:
        pair = (row["classification_loss"], row["box_loss"])
        row["chosen"] = int(state.chosen[pair] == (row["lr"], row["box_weight"]))
    write_csv(state.out / "sweep.csv", SWEEP_COLUMNS, state.sweep)
    yield


def best(ap: Mapping[Candidate, float], candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates by falling AP, those that diverged last; equal ones in the order they were given."""
    return sorted(candidates, key=lambda one: math.inf if math.isnan(ap[one]) else -ap[one])


def _add_candidate(state: Comparison, job: Job, outcome: Outcome) -> None:
    state.latest = {
        "classification_loss": job.pair[0],
        "box_loss": job.pair[1],
        "rung": job.rung,
        "steps": job.config.steps,
        "lr": job.config.lr,
        "box_weight": job.config.box_weight,
        "ap": "" if math.isnan(outcome.ap) else outcome.ap,
        "seconds": round(outcome.metrics["seconds"], 3) if outcome.metrics else "",
    }
    state.sweep.append(state.latest)
    order = {pair: i for i, pair in enumerate(state.config.pairs)}
    state.sweep.sort(
        key=lambda r: (order[r["classification_loss"], r["box_loss"]], r["rung"], r["lr"], r["box_weight"])
    )
    write_csv(state.out / "sweep.csv", SWEEP_COLUMNS, state.sweep)


def _add_result(state: Comparison, job: Job, outcome: Outcome) -> None:
    if outcome.metrics is None:
        state.diverged.append(f"seed {job.config.seed}, {outcome.diverged}")
        return
    metrics = outcome.metrics
    calibration = metrics["calibration"]
    row = {
        "classification_loss": job.pair[0],
        "box_loss": job.pair[1],
        "seed": job.config.seed,
        **{name: metrics[name] for name in RESULT_COLUMNS if name in metrics},
        **{name: calibration[name] for name in ("ece", "ece_by_chance", "signed_gap", "dece", "laece")},
        "ece_threshold": calibration["threshold"],
        "ece_recall": calibration["recall"],
        "lr": job.config.lr,
        "box_weight": job.config.box_weight,
        "steps": job.config.steps,
    }
    state.latest = {name: "" if value is None else value for name, value in row.items()}
    state.results.append(state.latest)
    order = {pair: i for i, pair in enumerate(state.config.pairs)}
    state.results.sort(key=lambda r: (order[r["classification_loss"], r["box_loss"]], r["seed"]))
    write_csv(state.out / "results.csv", RESULT_COLUMNS, state.results)


def _run(state: Comparison, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome | None]]:
    """Each job with its outcome, or with None where it only went a step on."""
    todo = []
    for job in jobs:
        outcome = finished(job)
        if outcome is None:
            todo.append(job)
        else:
            state.steps_done += job.config.steps
            yield job, outcome
    workers, threads = workers_and_threads(state.config)
    # Closed at once when a run fails or the caller stops, so that no other run goes on unseen.
    with closing(run_jobs(run_job, todo, workers, threads)) as events:
        for event in events:
            job = todo[event.job]
            yield job, _take(state, job, event)


def _take(state: Comparison, job: Job, event: Event) -> Outcome | None:
    _, before = state.active.get(job.folder, (job, 0))
    if event.kind == "failed":
        raise JobFailed(f"{'+'.join(job.pair)}, {job.folder}: {event.value}")
    if event.kind == "done":
        state.active.pop(job.folder, None)
        state.steps_done += job.config.steps - before
        return event.value
    if event.kind == "started":
        state.active[job.folder] = (job, 0)
    elif event.value[0] == "step":
        state.active[job.folder] = (job, event.value[1])
        state.steps_done += event.value[1] - before
    return None
