"""The tables of a comparison, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detloss.lab.compare.results import Results, Run
from detloss.lab.compare.sentences import course, gaps
from detloss.lab.evaluate import Evaluation
from detloss.lab.records import to_dict
from detloss.lab.statistics import mean_interval, measured, points

NONE = "–"


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
        "sizes": _by(results, "√area of the object", _sizes),
        "classes": _by(results, "class", lambda e: e.per_class),
        "sweep": _sweep(results),
        "data": _data(results),
        "config": _flat("setting", to_dict(results.config)),
        "versions": _flat("what", results.versions),
    }


def _main(results: Results) -> Table:
    rows = []
    for name, runs in results.runs.items():
        rows.append(
            [
                name,
                points(*_over_seeds(runs, "ap")),
                " ".join(points(run.row["ap"]) for run in runs.values()) or NONE,
                *(points(*_over_seeds(runs, column)) for column in ("ap50", "ap75", "ece", "ece_recall")),
                _plus_minus(*_over_seeds(runs, "score_iou_correlation"), ".2f"),
                _plus_minus(*_over_seeds(runs, "seconds"), ".1f"),
                *(
                    _plus_minus(_over_seeds(runs, column)[0], math.nan, form)
                    for column, form in (("peak_memory_mb", ",.0f"), ("lr", "g"), ("box_weight", "g"))
                ),
            ]
        )
    seeds = {name: len(runs) for name, runs in results.runs.items()}
    few, many = min(seeds.values()), max(seeds.values())
    listed = ", ".join(f"{name} {n}" for name, n in seeds.items())
    count = f"{many} seed{'s' if many > 1 else ''}" if few == many else f"the finished seeds ({listed})"
    return Table(
        [
            *("loss", "AP", "of each seed", "AP50", "AP75", "ECE", "recall", "score–IoU ρ"),
            *("time, s", "memory, MB", "learning rate", "box weight"),
        ],
        rows,
        [
            f"Mean over {count} ± half of the 95 % interval (Student's t). AP, ECE and "
            "recall in points of 100.",
            f"ECE: expected calibration error of detections with a score of at least {results.threshold:g}, "
            "lower is better; recall: objects found by those detections (few can look calibrated).",
            "Score–IoU ρ: does a higher score mean a better box? 1 always, 0 not at all.",
            "Time: optimiser steps without evaluation. Memory: on a GPU the most allocated, on a CPU the "
            "largest size of the process.",
        ],
    )


def _over_seeds(runs: Mapping[int, Run], column: str) -> tuple[float, float]:
    return mean_interval([run.row[column] for run in runs.values()])


def _differences(results: Results) -> Table:
    """All pairs, the higher mean first, so that the words are of it."""
    ece = {name: mean_interval(of.values())[0] for name, of in measured(results.column("ece")).items()}
    rows = []
    for one in (found.turned if found.difference < 0 else found for found in results.verdicts):
        intervals = [_range(one.low, one.high), _range(one.images_low, one.images_high)]
        rows.append(
            [
                f"{one.first} − {one.second}",
                one.verdict,
                points(one.difference, sign=True),
                _course(gaps(results.curves, one.first, one.second)),
                *intervals[: 2 if results.images else 1],
                NONE if one.further is None else str(one.further),
                points(ece[one.first] - ece[one.second], sign=True),
            ]
        )
    looks = " ".join(map(str, results.config.looks))
    over_images = ["over seeds and images"] if results.images else []
    return Table(
        [
            "pair",
            "verdict on AP",
            "ΔAP",
            "at ¼ and ½ of the steps",
            "over seeds",
            *over_images,
            "further seeds",
            "ΔECE",
        ],
        rows,
        [
            "In points of 100; the verdict is on the first of the pair. In 95 % of comparisons all intervals "
            f"hold together, for all pairs and all planned looks (at {looks} seeds).",
            f"Equivalent: the whole interval lies within ± {results.config.rope:g} AP. Undecided: neither "
            "that nor on one side of 0; so many further seeds would probably decide (–: none in reach).",
            "The verdict is by the interval over seeds; that over images too says what to expect on other "
            "images of this kind. A lower ECE is better."
            if results.images
            else "A lower ECE is better.",
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
    rows = []
    for name, evaluations in results.seeds(lambda run: run.evaluation).items():
        found = [e.calibration for e in evaluations]
        rows.append(
            [
                name,
                _plus_minus(mean_interval([c.detections for c in found])[0], math.nan, ",.0f"),
                *(
                    points(*mean_interval([getattr(c, what) for c in found]), sign=what == "signed_gap")
                    for what in (
                        "recall",
                        "ece",
                        "ece_by_chance",
                        "ece_platt",
                        "signed_gap",
                        "laece",
                        "dece",
                        "dece_by_chance",
                    )
                ),
            ]
        )
    return Table(
        [
            *("loss", "detections", "recall", "ECE", "by chance", "after Platt", "gap"),
            *("LaECE", "D-ECE", "by chance"),
        ],
        rows,
        [
            f"Detections with a score of at least {results.threshold:g}, in points of 100, mean over seeds ± "
            "half of the 95 % interval. By chance: the error if every score were right. After Platt: ECE "
            "where two numbers, fitted on the other half of the images, have repaired the scores.",
            "Gap: mean score − share of right detections; above 0 the scores are too proud. LaECE: against "
            "the IoU reached, class by class. D-ECE: also by place and size of the box.",
        ],
    )


def _by(results: Results, what: str, get: Any) -> Table:
    """AP by the keys of what ``get`` returns of an evaluation: mean over seeds."""
    per_loss = results.seeds(lambda run: get(run.evaluation))
    keys = list(dict.fromkeys(key for seeds in per_loss.values() for found in seeds for key in found))
    rows = [
        [
            key,
            *(
                points(*mean_interval([found.get(key, math.nan) for found in seeds]))
                for seeds in per_loss.values()
            ),
        ]
        for key in keys
    ]
    return Table(
        [what, *per_loss], rows, ["AP in points of 100, mean over seeds ± half of the 95 % interval."]
    )


def _sizes(evaluation: Evaluation) -> dict[str, float]:
    names = {}
    for b in evaluation.size_bins:
        reach = f"{b.low:g} px and more" if math.isinf(b.high) else f"{b.low:g} to {b.high:g} px"
        names[f"{reach} ({b.objects:,} objects)"] = b.ap
    return names


def _sweep(results: Results) -> Table:
    """A row a candidate, a column a rung; the best of the last rung first."""
    rungs = sorted({(r, s) for t in results.sweep.values() for r, s in zip(t["rung"], t["steps"])})
    rows = []
    for name, table in results.sweep.items():
        candidates: dict[tuple[float, float], dict[float, float]] = {}
        for lr, weight, rung, ap in zip(*(table[column] for column in ("lr", "box_weight", "rung", "ap"))):
            candidates.setdefault((lr, weight), {})[rung] = ap
        chosen = {(table["lr"][i], table["box_weight"][i]) for i in np.flatnonzero(table["chosen"])}
        for (lr, weight), ap in sorted(candidates.items(), key=lambda item: _last(item[1]), reverse=True):
            trials = [points(ap.get(rung, math.nan)) for rung, _ in rungs]
            mark = "chosen" if (lr, weight) in chosen else ""
            rows.append([name, f"{lr:g}", f"{weight:g}", *trials, mark])
    trained = [f"AP after {steps:.0f} steps" for _, steps in rungs]
    notes = ["AP on the held-out training images, in points of 100.", *_doubts(results)]
    return Table(["loss", "learning rate", "box weight", *trained, ""], rows, notes)


def _last(ap: dict[float, float]) -> tuple[float, float]:
    """The last rung of a candidate and its AP there, the lowest where it diverged."""
    rung = max(ap)
    return rung, -1.0 if math.isnan(ap[rung]) else ap[rung]


def _doubts(results: Results) -> Iterable[str]:
    """A choice among equals, or at the end of what was tried, may not be the best one."""
    for name, table in results.sweep.items():
        if not np.nan_to_num(table["ap"]).any():
            yield f"{name}: no candidate found anything (AP 0 or diverged), so that the choice means nothing."
    if any(np.isnan(table["ap"]).any() for table in results.sweep.values()):
        yield f"{NONE}: not tried, or diverged."
    tried_rates, tried_weights = (dict.fromkeys(values) for values in zip(*results.config.candidates))
    for words, tried_values in (("learning rate", tried_rates), ("box weight", tried_weights)):
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
                if len(tried) > 2 and table[column][np.flatnonzero(table["chosen"])[-1]] == tried[side]:
                    at_end.append(name)
            if at_end:
                said = f"the {end} {words} tried was chosen; a {further} one might do better"
                yield f"{', '.join(at_end)}: {said}."


def _data(results: Results) -> Table:
    train, val = results.data["train"], results.data["val"]
    rows = [
        [what, f"{train[key]:,}", f"{val[key]:,}"]
        for what, key in (
            ("images", "images"),
            ("images without objects", "empty"),
            ("objects", "objects"),
            ("ignored objects", "ignored"),
        )
        if key in train
    ]
    labels = results.data["class_map"]
    rows += [
        [f"{name} (class {labels[name]})", f"{train['per_class'][name]:,}", f"{val['per_class'][name]:,}"]
        for name in results.data["names"]
    ]
    return Table(["", "training", "validation"], rows, results.data.get("notes", ()))


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
