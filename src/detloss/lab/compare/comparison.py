"""The main job: same data, seeds, batches and initial weights; only the loss differs, each tuned on its own.

Losses differ in the scale of their gradients, so that one shared learning rate decides the verdict before
training starts. Each loss is therefore given its own rate and box weight by a sweep on a part of the
training set held out for it; the validation set is only ever seen by the runs that are compared.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.engine import engine
from detloss.lab.compare.jobs import SWEEP_SEED, Job, Outcome, Pair, finished, folder_name, run_job
from detloss.lab.compare.pooling import pooled
from detloss.lab.engines import Event, JobFailed
from detloss.lab.runs import read_json, write_csv
from detloss.lab.training.by_trainer import LOG

RESULT_COLUMNS = (
    *("classification_loss", "box_loss", "seed", "ap", "ap50", "ap75", "ece", "seconds", "peak_memory_mb"),
    *("ap_small", "ap_medium", "ap_large", "ar100", "voc2007", "voc2010"),
    *("ece_threshold", "ece_recall", "score_iou_correlation", "lr", "box_weight", "steps"),
    *("signed_gap", "dece", "laece", "ece_by_chance", "clipped"),
)
SWEEP_COLUMNS = (
    *("classification_loss", "box_loss", "steps", "lr", "box_weight", "ap", "seconds", "chosen"),
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
        steps_done: optimiser steps over all jobs.
        diverged: why runs that count have no result.
        died: which runs have none because their process died more than once, or the user's trainer failed,
            and why.
        untuned: pairs of which a run of the sweep is among these: no rate can be chosen for them.
        notes: what the user should be told now, a line each.
    """

    config: CompareConfig
    out: Path
    chosen: dict[Pair, tuple[float, float]] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    active: dict[Path, tuple[Job, int]] = field(default_factory=dict)
    latest: dict[str, Any] | None = None
    steps_done: int = 0
    diverged: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    untuned: set[Pair] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def steps_planned(self) -> int:
        """Optimiser steps over all jobs."""
        config = self.config
        runs = config.trials + config.seeds * len(config.fold_numbers)
        return len(config.pairs) * runs * config.steps

    def trials_of(self, pair: Pair, candidates: Iterable[Candidate]) -> list[Job]:
        """The sweep's runs of one pair."""
        config, folder = self.config, self.out / "sweep" / folder_name(pair)
        # On the training scenes of seed 0: nobody needs scenes of the sweep's own.
        changes = {"evaluations": 1, "scenes": config.scenes}
        return [
            Job(
                config.run(pair, (lr, weight), SWEEP_SEED, min(config.folds, 1), **changes),
                folder / f"lr-{lr:g}-box-{weight:g}",
                config.held_out,
            )
            for lr, weight in candidates
        ]

    def final_jobs(self) -> list[Job]:
        """The runs that are compared, all losses of a seed and fold before the next."""
        jobs = []
        for seed, fold in itertools.product(range(self.config.seeds), self.config.fold_numbers):
            place = f"seed-{seed}/fold-{fold}" if fold else f"seed-{seed}"
            for pair in self.chosen:
                run = self.config.run(pair, self.chosen[pair], seed, fold)
                folder = self.out / "runs" / folder_name(pair) / place
                jobs.append(Job(run, folder))
        return jobs


def compare(state: Comparison) -> Iterator[None]:
    """Runs what is not finished yet; yields whenever the state changed.

    Leaves sweep.csv, results.csv (both after every finished run) and a folder a run. Where the process of a
    run dies twice, or a user's own trainer fails, the others go on, and `state.died` says which it was.
    Where that is a run of the sweep, its pair of losses has no rate, and the other pairs go on.

    Raises:
        JobFailed: a run failed for another reason than a diverging loss; finished runs are kept.
    """
    yield from _sweep(state)
    told: set[Path] = set()
    for job, outcome in _run(state, state.final_jobs()):
        if outcome is not None and state.config.folds:
            seed = job.folder.parent
            outcome = None if seed in told else pooled(job, state.config.folds)
            told |= {seed} if outcome else set()
        if outcome is not None:
            _add_result(state, job, outcome)
        yield


def _sweep(state: Comparison) -> Iterator[None]:
    """Each rate at the middle box weight, then the other weights at the best rate."""
    rates, weights = state.config.axes
    middle = sorted(weights)[(len(weights) - 1) // 2]
    tried: dict[Pair, dict[Candidate, float]] = {pair: {} for pair in state.config.pairs}
    chosen = dict.fromkeys(tried, (rates[0], middle))
    for axis, several in enumerate((len(rates) > 1, len(weights) > 1)):
        jobs = []
        for pair, (rate, _) in chosen.items() if several else ():
            ends = itertools.product(*((rates, [middle]) if axis == 0 else ([rate], weights)))
            jobs += state.trials_of(pair, [one for one in ends if one not in tried[pair]])
        for job, outcome in _run(state, jobs):
            if outcome is not None:
                tried[job.pair][job.config.lr, job.config.box_weight] = outcome.ap
                _add_candidate(state, job, outcome)
            yield
        tried = {pair: ap for pair, ap in tried.items() if pair not in state.untuned}
        chosen = {pair: best(ap, chosen[pair]) for pair, ap in tried.items()}
    state.chosen = chosen
    for row in state.sweep:
        pair = (row["classification_loss"], row["box_loss"])
        row["chosen"] = int(chosen.get(pair) == (row["lr"], row["box_weight"]))
    write_csv(state.out / "sweep.csv", SWEEP_COLUMNS, state.sweep)
    yield


def fail_if_died(state: Comparison) -> None:
    """JobFailed where a run has no result because its process died or its trainer failed."""
    if state.died:
        one, count = state.died[0], len(state.died)
        which = one if count == 1 else f"{count} runs have no result, the first: {one}"
        raise JobFailed(f"{which}. The others are kept; the same command with --out {state.out} goes on")


def best(ap: Mapping[Candidate, float], otherwise: Candidate) -> Candidate:
    """The candidate of the highest AP, of equal ones the first tried; another where all diverged."""
    return max((one for one in ap if not math.isnan(ap[one])), key=ap.__getitem__, default=otherwise)


def _add_candidate(state: Comparison, job: Job, outcome: Outcome) -> None:
    seconds = round(outcome.metrics["seconds"], 3) if outcome.metrics else None
    row = {"ap": outcome.ap, "seconds": seconds}
    _add(state, job, row, state.sweep, "sweep.csv", SWEEP_COLUMNS)


def _add_result(state: Comparison, job: Job, outcome: Outcome) -> None:
    if outcome.metrics is None:
        state.diverged.append(f"seed {job.config.seed}, {outcome.diverged}")
        return
    calibration = outcome.metrics["calibration"]
    row = {
        **{name: outcome.metrics[name] for name in RESULT_COLUMNS if name in outcome.metrics},
        **{name: calibration[name] for name in ("ece", "ece_by_chance", "signed_gap", "dece", "laece")},
        "seed": job.config.seed,
        "ece_threshold": calibration["threshold"],
        "ece_recall": calibration["recall"],
    }
    _add(state, job, row, state.results, "results.csv", RESULT_COLUMNS)


def _add(
    state: Comparison,
    job: Job,
    row: dict[str, Any],
    rows: list[dict[str, Any]],
    file: str,
    columns: Sequence[str],
) -> None:
    """Puts the row of a run in its place in a table; an unknown number is an empty field."""
    row |= {"classification_loss": job.pair[0], "box_loss": job.pair[1], "steps": job.config.steps}
    row |= {"lr": job.config.lr, "box_weight": job.config.box_weight}
    state.latest = {name: "" if value is None or value != value else value for name, value in row.items()}
    rows.append(state.latest)
    pairs, by = state.config.pairs, [name for name in ("seed", "lr", "box_weight") if name in row]
    rows.sort(key=lambda r: (pairs.index((r["classification_loss"], r["box_loss"])), *(r[b] for b in by)))
    write_csv(state.out / file, columns, rows)


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
    if state.config.engine == "ray" and state.config.data != "embedded":
        known = read_json(state.out / "data.json")["fingerprint"]
        todo = [replace(job, fingerprint=known) for job in todo]
    # Closed at once when a run fails or the caller stops, so that no other run goes on unseen.
    with closing(engine(state.config)(run_job, todo)) as events:
        for event in events:
            job = todo[event.job]
            _follow(state, job, event)
            yield job, event.value if event.kind == "done" and not event.value.failed else None


def _follow(state: Comparison, job: Job, event: Event) -> None:
    """What an event changes in the state."""
    _, before = state.active.get(job.folder, (job, 0))
    said = f"{'+'.join(job.pair)}, {job.folder}: {event.value}"
    match event.kind:
        case "failed":
            raise JobFailed(said)
        case "started":
            state.active[job.folder] = (job, 0)
        case "message" if event.value[0] == "step":
            state.active[job.folder] = (job, event.value[1])
            state.steps_done += event.value[1] - before
        case "message" if event.value[0] == "note":
            state.notes.append(f"{'+'.join(job.pair)}, {job.folder}: {event.value[1]}")
        case "done" | "again" | "died":
            state.active.pop(job.folder, None)
            made = event.kind == "done" and not event.value.failed
            state.steps_done += (job.config.steps if made else 0) - before
    if event.kind == "died" or (event.kind == "done" and event.value.failed):
        state.untuned |= set() if job.held_out is None else {job.pair}
    if event.kind == "done" and event.value.failed:
        log = f"what it printed is in {job.folder / LOG}"
        state.died.append(f"{'+'.join(job.pair)}, {job.folder}: {event.value.failed}; {log}")
        state.notes.append(f"{state.died[-1]}; the others go on")
    elif event.kind == "again":
        state.notes.append(f"{said}; it goes on from its last checkpoint")
    elif event.kind == "died":
        state.died.append(f"{said}, for the second time")
        state.notes.append(f"{state.died[-1]}; the others go on")
