"""The tables of a comparison, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detloss.lab.compare.results import Results, Run
from detloss.lab.compare.sentences import ONE_RUN, course, gaps
from detloss.lab.evaluate import Evaluation
from detloss.lab.evaluate.reliability import DECE_LEAST
from detloss.lab.records import to_dict
from detloss.lab.statistics import mean_interval, measured, points
from detloss.lab.training.config import papers_weighting

NONE = "–"
SCENES = "Each seed has scenes of its own, so that the interval over seeds is one over images too."


@dataclass(frozen=True)
class Table:
    """Header and rows; the first cell of a row is its name. Notes stand below."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def tables(results: Results) -> dict[str, Table]:
    """All tables of the page, by name."""
    return {
        "main": _main(results),
        "differences": _differences(results),
        "calibration": _calibration(results),
        "errors": _errors(results),
        "sizes": _by_size(results),
        "classes": _by(results, "class", lambda e: e.per_class),
        "sweep": _sweep(results),
        "data": _data(results),
        "config": _flat("setting", to_dict(results.config)),
        "versions": _flat("what", results.versions),
    }


def _main(results: Results) -> Table:
    trained = (("peak_memory_mb", ",.0f"), ("lr", "g"), ("box_weight", "g")) if results.training else ()
    rows = []
    for name, runs in results.runs.items():
        rows.append(
            [
                name,
                points(*_over_seeds(runs, "ap")),
                " ".join(points(run.row["ap"]) for run in runs.values()) or NONE,
                *(points(*_over_seeds(runs, column)) for column in ("ap50", "ap75", "ece", "ece_recall")),
                _plus_minus(*_over_seeds(runs, "score_iou_correlation"), ".2f"),
                *([_plus_minus(*_over_seeds(runs, "seconds"), ".1f")] if trained else []),
                *(_plus_minus(_over_seeds(runs, column)[0], math.nan, form) for column, form in trained),
            ]
        )
    seeds = {name: len(runs) for name, runs in results.runs.items()}
    few, many = min(seeds.values()), max(seeds.values())
    listed = ", ".join(f"{name} {n}" for name, n in seeds.items())
    count = f"{many} seed{'s' if many > 1 else ''}" if few == many else f"the finished seeds ({listed})"
    return Table(
        [
            *("loss", "AP", "of each seed", "AP50", "AP75", "ECE", "recall", "score–IoU ρ"),
            *(("time, s", "memory, MB", "learning rate", "box weight") if trained else ()),
        ],
        rows,
        [
            f"Mean over {count} ± half of the 95 % interval (Student's t). AP, ECE and "
            "recall in points of 100.",
            f"ECE: expected calibration error of detections with a score of at least {results.threshold:g}, "
            "lower is better; recall: objects found by those detections (few can look calibrated).",
            "Score–IoU ρ: does a higher score mean a better box? 1 always, 0 not at all.",
            f"Time: {_timed(results)}. Memory: on a GPU the most allocated, on a CPU the largest size of the "
            "process.",
            *_fairness(results),
        ][: None if trained else 3],
    )


def _timed(results: Results) -> str:
    """What the seconds of a run are of."""
    own = results.training and results.training.trainer
    return "all that the trainer does" if own else "optimiser steps without evaluation"


def _fairness(results: Results) -> Iterable[str]:
    """What is not the same for all losses although nothing was tuned: how boxes count, what was clipped."""
    config = results.training
    if config and config.weigh_boxes == "paper" and not config.trainer:
        ways = {loss: papers_weighting(loss) for loss, _ in config.pairs}
        for way, what in (("score", "its predicted score"), ("iou", "the IoU of its predicted box")):
            if names := [loss for loss, own in ways.items() if own == way]:
                yield (
                    f"{', '.join(names)}: a positive counts by {what} in the box loss, as in the paper; "
                    "--weigh-boxes alike makes all count 1."
                )
    shares = [part for parts in results.clipped.values() for part in parts]
    if shares:
        low, high = 100 * min(shares), 100 * max(shares)
        yield f"Gradients were clipped on {low:.0f} to {high:.0f} % of a run's steps."


def _over_seeds(runs: Mapping[int, Run], column: str) -> tuple[float, float]:
    return mean_interval([run.row[column] for run in runs.values()])


def _differences(results: Results) -> Table:
    """All pairs, the higher mean first, so that the words are of it."""
    ece = {name: mean_interval(of.values())[0] for name, of in measured(results.column("ece")).items()}
    seeds_known = not all(math.isnan(one.low) for one in results.verdicts)
    over = ["over seeds"] * seeds_known
    if results.images:
        over.append("over seeds and images" if seeds_known else "over images")
    rows = []
    for one in (found.turned if found.difference < 0 else found for found in results.verdicts):
        before = [_course(gaps(results.curves, one.first, one.second))] if results.curves else []
        before = before or ["not measured"] * bool(results.training)
        intervals = [_range(one.low, one.high)] * seeds_known
        intervals += [_range(one.images_low, one.images_high)] * bool(results.images)
        rows.append(
            [
                f"{one.first} − {one.second}",
                one.verdict,
                points(one.difference, sign=True),
                *before,
                *intervals,
                NONE if one.further is None else str(one.further),
                points(ece[one.first] - ece[one.second], sign=True),
            ]
        )
    looks = " ".join(map(str, results.config.looks))
    planned = f" and all planned looks (at {looks} seeds)" if seeds_known else ""
    said = (
        "The verdict is by the interval over seeds; that over images too says what to expect on other images "
        "of this kind. "
        if seeds_known
        else f"{ONE_RUN} "
    )
    new_scenes = f"{SCENES} " if results.training and results.training.new_scenes else ""
    return Table(
        [
            *("pair", "verdict on AP", "ΔAP"),
            *(["at ¼ and ½ of the steps"] if results.training else []),
            *over,
            *("further seeds", "ΔECE"),
        ],
        rows,
        [
            "In points of 100; the verdict is on the first of the pair. In 95 % of comparisons all intervals "
            f"hold together, for all pairs{planned}.",
            f"Equivalent: the whole interval lies within ± {results.config.rope:g} AP. Undecided: neither "
            "that nor on one side of 0; so many further seeds would probably decide (–: none in reach).",
            f"{said if results.images else new_scenes}A lower ECE is better.",
        ],
    )


def _course(gap: list[float]) -> str:
    if math.isnan(gap[0]) and math.isnan(gap[1]):
        return NONE
    return f"{points(gap[0], sign=True)}, {points(gap[1], sign=True)}: {course(gap)}".rstrip(": ")


def _range(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{points(low, sign=True)} to {points(high, sign=True)}"


def _calibration(results: Results) -> Table:
    """What the score means: errors over all classes, with how many detections and objects they rest on."""
    heads = {"recall": "recall", "ece": "ECE", "ece_by_chance": "by chance", "ece_platt": "after Platt"}
    heads |= {"signed_gap": "gap", "laece": "LaECE", "dece": "D-ECE", "dece_by_chance": "by chance"}
    heads |= {"dece_all": "D-ECE, all cells", "dece_all_by_chance": "by chance"}
    rows = []
    for name, evaluations in results.seeds(lambda run: run.evaluation).items():
        found = [e.calibration for e in evaluations]
        errors = {what: mean_interval([getattr(c, what) for c in found]) for what in heads}
        said = [points(*error, sign=what == "signed_gap") for what, error in errors.items()]
        count = mean_interval([c.detections for c in found])[0]
        rows.append([name, _plus_minus(count, math.nan, ",.0f"), *said])
    return Table(
        ["loss", "detections", *heads.values()],
        rows,
        [
            f"Detections with a score of at least {results.threshold:g}, in points of 100, mean over seeds ± "
            "half of the 95 % interval. By chance: the error if every score were right. After Platt: ECE "
            "where two numbers, fitted on the other half of the images, have repaired the scores.",
            "Gap: mean score − share of right detections; above 0 the scores are too proud. LaECE: against "
            "the IoU reached, class by class. D-ECE: also by place and size of the box, over the cells with "
            f"at least {DECE_LEAST} detections, or over all cells, which chance makes larger.",
        ],
    )


def _errors(results: Results) -> Table:
    """What each kind of error costs, and the best F1: of each loss, then less those of the first."""
    found = results.seeds(lambda run: run.evaluation)
    kinds = list(dict.fromkeys(kind for seeds in found.values() for e in seeds for kind in e.errors))

    def of(name: str) -> list[tuple[float, float]]:
        seeds = found[name]
        deployed = [[e.operating.best_f1 for e in seeds], [e.operating.best_score for e in seeds]]
        return [mean_interval(v) for v in (*([e.errors[kind] for e in seeds] for kind in kinds), *deployed)]

    first = next(iter(found))
    rows = [[name, *(points(*value) for value in of(name))] for name in found]
    rows += [
        [f"{name} − {first}", *(points(a - b, sign=True) for (a, _), (b, _) in zip(of(name), of(first)))]
        for name in found
        if name != first
    ]
    return Table(
        ["loss", *kinds, "best F1", "at score"],
        rows,
        [
            "Points of AP50 that mending all errors of a kind would add (TIDE); the best F1 at IoU 0.5 and "
            "the lowest score that counts. Points of 100, mean over seeds ± half of the 95 % interval.",
        ],
    )


def _by(results: Results, what: str, get: Any, label: Any = str) -> Table:
    """AP by the keys of what ``get`` returns of an evaluation: mean over the seeds that have an AP there."""
    per_loss = results.seeds(lambda run: get(run.evaluation))
    keys = list(dict.fromkeys(key for seeds in per_loss.values() for found in seeds for key in found))
    rows = []
    for key in keys:
        values = [[found.get(key, math.nan) for found in seeds] for seeds in per_loss.values()]
        known = [[value for value in of if not math.isnan(value)] for of in values]
        rows.append([label(key), *(points(*mean_interval(over_seeds)) for over_seeds in known)])
    return Table(
        [what, *per_loss], rows, ["AP in points of 100, mean over seeds ± half of the 95 % interval."]
    )


def _by_size(results: Results) -> Table:
    """AP by the size of objects, of which each seed has a number of its own where its images are its own."""
    evaluations = [e for seeds in results.seeds(lambda run: run.evaluation).values() for e in seeds]
    objects: dict[tuple[float, float], list[int]] = {}
    for bin in sorted((bin for e in evaluations for bin in e.size_bins), key=lambda bin: bin.low):
        objects.setdefault((bin.low, bin.high), []).append(bin.objects)

    def label(key: tuple[float, float]) -> str:
        (low, high), few, many = key, min(objects[key]), max(objects[key])
        reach = f"{low:g} px and more" if math.isinf(high) else f"{low:g} to {high:g} px"
        return f"{reach} ({f'{few:,} to ' if few < many else ''}{many:,} objects)"

    def get(evaluation: Evaluation) -> dict[tuple[float, float], float]:
        return dict.fromkeys(objects, math.nan) | {(b.low, b.high): b.ap for b in evaluation.size_bins}

    return _by(results, "√area of the object", get, label)


def _sweep(results: Results) -> Table:
    """A row per trial, the best first."""
    rows = []
    for name, table in results.sweep.items():
        for i in np.argsort(-np.nan_to_num(table["ap"], nan=-1.0), kind="stable"):
            lr, weight, ap, chosen = (table[column][i] for column in ("lr", "box_weight", "ap", "chosen"))
            rows.append([name, f"{lr:g}", f"{weight:g}", points(ap), "chosen" if chosen else ""])
    notes = [
        "AP on the held-out training images, in points of 100: each learning rate at one box weight, then "
        "the other box weights at the best rate.",
        *_doubts(results),
    ]
    return Table(["loss", "learning rate", "box weight", "AP", ""], rows, notes)


def _doubts(results: Results) -> Iterable[str]:
    """A choice among equals, or at the end of what was tried, may not be the best one."""
    for name, table in results.sweep.items():
        if not np.nan_to_num(table["ap"]).any():
            yield f"{name}: no trial found anything (AP 0 or diverged), so that the choice means nothing."
    if any(np.isnan(table["ap"]).any() for table in results.sweep.values()):
        yield f"{NONE}: diverged."
    if results.training is None:
        return
    for words, tried_values in zip(("learning rate", "box weight"), results.training.axes):
        if results.sweep and len(tried_values) == 2:
            both = " and ".join(f"{value:g}" for value in tried_values)
            yield (
                f"Only 2 {words}s were tried ({both}), each an end of the range: one beyond or between them "
                "might do better."
            )
    for column, words in (("lr", "learning rate"), ("box_weight", "box weight")):
        for side, end, further in ((0, "smallest", "smaller"), (-1, "largest", "larger")):
            at_end = []
            for name, table in results.sweep.items():
                tried = np.unique(table[column])
                if len(tried) > 2 and tried[side] in table[column][table["chosen"] == 1]:
                    at_end.append(name)
            if at_end:
                said = f"the {end} {words} tried was chosen; a {further} one might do better"
                yield f"{', '.join(at_end)}: {said}."


def _data(results: Results) -> Table:
    splits = {"training": "train", "validation": "val"} if results.training else {"images": "val"}
    shown = [results.data[split] for split in splits.values()]
    listed = {"images": "images", "empty": "images without objects"}
    listed |= {"objects": "objects", "ignored": "ignored objects"}
    rows = [[what, *(f"{one[key]:,}" for one in shown)] for key, what in listed.items() if key in shown[0]]
    labels = results.data["class_map"]
    rows += [
        [f"{name} (class {labels[name]})", *(f"{one['per_class'][name]:,}" for one in shown)]
        for name in results.data["names"]
    ]
    return Table(["", *splits], rows, results.data.get("notes", ()))


def _flat(what: str, content: dict[str, Any]) -> Table:
    """Nested settings, one a row, named as on the command line."""
    rows: list[list[str]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append([prefix, NONE if value is None else text])

    walk("", content)
    return Table([what, "value"], rows)


def _plus_minus(value: float, half_width: float, form: str) -> str:
    if math.isnan(value):
        return NONE
    text = format(value, form).replace("-", "−")
    return text if math.isnan(half_width) else f"{text} ± {format(half_width, form)}"
