"""`detloss calibration`: how far the scores of detections are from probabilities, for each loss."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from detloss.lab.calibration.fitting import fit_all
from detloss.lab.calibration.measure import (
    Measured,
    class_rows,
    grouped,
    left_out,
    loss_rows,
    matches_of,
    measure,
    over_seeds,
    threshold_rows,
)
from detloss.lab.cli.arguments import (
    CategoryIds,
    FromFile,
    Out,
    Trust,
    given,
    read,
    refuse_another,
    results_folder,
)
from detloss.lab.cli.terminal import counting, interruptible, say, show_table
from detloss.lab.compare.command import open_comparison, train_shown
from detloss.lab.compare.comparison import Comparison
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.prepare import prepare
from detloss.lab.engines import JobFailed
from detloss.lab.evaluate.interpret import AUTO, said_ids
from detloss.lab.evaluate.reliability import DECE_LEAST
from detloss.lab.lock import locked
from detloss.lab.records import to_dict
from detloss.lab.runs import new_folder, write_json, write_tables
from detloss.lab.statistics import points
from detloss.lab.training.config import Recipe


def _short_training() -> CompareConfig:
    return CompareConfig(losses=("bce", "focal", "quality_focal"), seeds=1, lr=0.01, box_weight=2.0)


@dataclass(frozen=True)
class CalibrationConfig:
    """Which runs are measured, and from which scores on."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Folders of `detloss train`, `evaluate` or `compare` (all its runs),
    or COCO results (.json; --data and --val-split name the data they are of).
    Without any, --losses are trained first."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.3, 0.5)
    """Lowest scores that count, increasing. The tables by loss and by class and the reliability diagrams are
    for the first one."""
    category_ids: CategoryIds = AUTO
    fit: bool = False
    """Also fit temperature, Platt scaling and isotonic regression to the one RUN:
    calibrator.json, for `detloss predict --calibrate`."""
    training: Annotated[CompareConfig, tyro.conf.arg(name="")] = field(default_factory=_short_training)

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 <= low <= 1 for low in self.thresholds):
            raise ValueError(f"thresholds is {_words(self.thresholds)}; give at least one, each from 0 to 1")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds is {_words(self.thresholds)}; they must increase")
        if self.fit and len(self.runs) != 1:
            raise ValueError(
                f"fit is given with {len(self.runs)} runs; a calibrator is of one detector: give one RUN"
            )
        data = self.training.data
        if self.runs and self.training != replace(
            _short_training(), data=data, val_split=self.training.val_split, reading=self.training.reading
        ):
            raise ValueError(
                f"{self.runs[0]} is trained already: --losses and all that says how to train is for a call "
                "without RUN; leave one of both out"
            )
        if self.runs and not any(run.endswith(".json") for run in self.runs) and data != "embedded":
            raise ValueError(
                f"data is {data!r}, but {self.runs[0]} has its own; `detloss evaluate RUN --data` "
                "evaluates a run on other data, and the folder it writes can be given here"
            )


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values) or "empty"


@dataclass(frozen=True)
class Arguments:
    """Does a score mean a probability? ECE, D-ECE, LaECE and score against IoU, by loss, class, threshold."""

    settings: Annotated[CalibrationConfig, tyro.conf.arg(name="")] = field(default_factory=CalibrationConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
    quick: bool = False
    """A first look in under a minute: few images, few steps. Trained runs are measured as ever."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss calibration`: defaults, changed by --config, by --quick, by the other arguments."""
    config = given(CalibrationConfig, arguments)
    parsed = read("calibration", Arguments, arguments, Arguments(config))
    if not parsed.quick or parsed.settings.runs:
        return parsed
    training = Recipe.quick(config.training)  # not the comparison's, which changes the sweep too
    return read("calibration", Arguments, arguments, Arguments(replace(config, training=training)))


def run(arguments: Arguments) -> Path:
    """Runs `detloss calibration`; its folder is returned."""
    from detloss.lab.calibration.figures import calibration_against_threshold
    from detloss.lab.evaluate.figures import reliability, score_against_iou
    from detloss.lab.figures import save_all

    config = arguments.settings
    refuse_another(arguments.out, config)
    repair, repaired = None, list[str]()
    if config.fit:
        matches, data_of = matches_of(config.runs[0], config.training, config.category_ids)
        repair, repaired = fit_all(matches, config.thresholds[0], data_of)
    trained = None if config.runs else _trained(config, arguments.out)
    runs = config.runs if trained is None else [trained / "comparison"]
    with counting("measuring") as progress:
        measured = measure(runs, config.thresholds, config.training, progress, config.category_ids)
    missing = [reason for run in runs for reason in left_out(Path(run))]
    out = results_folder("calibration", trained or arguments.out, config)
    tables = {
        "calibration": loss_rows(measured),
        "thresholds": threshold_rows(measured),
        "per_class": class_rows(measured),
    }
    write_tables(out, {name: [_plain(row) for row in rows] for name, rows in tables.items()})
    evaluations, at = _by_loss(measured, lambda m: m.evaluation), _by_loss(measured, lambda m: m.at)
    drawn = {
        "reliability": partial(reliability, evaluations),
        "reliability_iou": partial(reliability, evaluations, localised=True),
        "score_iou": partial(score_against_iou, evaluations),
        "thresholds": partial(calibration_against_threshold, at),
    }
    with counting("drawing") as progress:
        save_all(out, drawn, progress)
    for line in said_ids((one.loss, one.ids) for one in measured if one.ids):
        say(line)
    _print(config, *tables.values())
    if repair:
        write_json(out / "calibrator.json", to_dict(repair))
    for line in repaired:
        say(line)
    data = {name: dict.fromkeys(of) for name, of in _by_loss(measured, lambda m: m.data).items()}
    most = max(data.values(), key=len)
    if any(not of.keys() <= most.keys() for of in data.values()):  # each seed may have scenes of its own
        say("\nThese are of different data, so their numbers do not compare:")
        for loss, of in data.items():
            say(f"{loss}: {' and '.join(of)}")
    for reason in missing:
        say(f"left out: {reason}")
    if missing and not config.runs:
        raise JobFailed(f"{len(missing)} runs diverged; {out} is of the others")
    return out


def _trained(config: CalibrationConfig, out: Path | None) -> Path:
    """Trains the losses in `comparison` of the command's folder, which is returned."""
    training, *splits = open_comparison(config.training)
    out = new_folder("calibration", out)
    with locked(out), interruptible(out):
        prepare(training, out / "comparison", *splits)
        train_shown(Comparison(training, out / "comparison"))
    return out


def _by_loss(measured: Sequence[Measured], get: Callable[[Measured], Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in measured:
        found.setdefault(one.loss, []).append(get(one))
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """An unknown number is an empty field."""
    return {
        name: "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
        for name, value in row.items()
    }


def _print(
    config: CalibrationConfig,
    by_loss: list[dict[str, Any]],
    by_threshold: list[dict[str, Any]],
    by_class: list[dict[str, Any]],
) -> None:
    seeds = len({row["seed"] for row in by_loss})
    say(f"Detections with a score of at least {config.thresholds[0]:g}, right if IoU ≥ 0.5; points of 100")
    if seeds > 1:
        say("mean over seeds ± half of the 95 % interval; further below means only, every seed is in the CSV")
    errors = ("recall", "ap", "ece", "signed_gap", "dece", "laece")
    _show(by_loss, ("loss",), errors, spread=True)
    for (loss,), rows in grouped(by_loss, ("loss",)).items():
        chance = [
            points(over_seeds(rows, name)[0]) for name in ("ece_by_chance", "dece_by_chance", "ece_platt")
        ]
        every = [points(over_seeds(rows, name)[0]) for name in ("dece_all", "dece_all_by_chance")]
        share = sum(row["dece_detections"] for row in rows) / (sum(row["detections"] for row in rows) or 1)
        say(
            f"{loss}: with right scores ECE would be {chance[0]} and D-ECE {chance[1]}, by chance alone; "
            f"D-ECE is over {100 * share:.0f} % of the detections, those in cells of at least {DECE_LEAST}; "
            f"over all cells it is {every[0]} (by chance {every[1]}). After Platt scaling ECE is {chance[2]}"
        )
    say("\nBy class")
    _show(by_class, ("loss", "class"), ("recall", "ap", "ece", "signed_gap", "laece"))
    say("\nBy threshold; AP is of the detections that are left")
    _show(by_threshold, ("loss", "threshold"), errors)
    for (loss,), rows in grouped(by_threshold, ("loss",)).items():
        say(verdict(loss, rows))


def verdict(loss: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the signed gap of a loss says at the ends of its ``threshold_rows``."""
    at = {threshold: found for (threshold,), found in grouped(rows, ("threshold",)).items()}
    said = [_gap(threshold, at[threshold]) for threshold in sorted({min(at), max(at)})]
    return f"{loss}: mean score - share right is {', '.join(said)}"


def _gap(threshold: float, rows: Sequence[Mapping[str, Any]]) -> str:
    gap, width = over_seeds(rows, "signed_gap")
    if math.isnan(gap):
        return f"not known from a score of {threshold:g} on (no detections)"
    word = "over-confident" if gap > 0 else "under-confident"
    if math.isnan(width):
        word += ", one seed"
    elif abs(gap) <= width:
        word = "within the spread over seeds"
    return f"{points(gap, width, sign=True)} from a score of {threshold:g} on ({word})"


HEADS = dict(recall="recall", ap="AP", ece="ECE", signed_gap="gap", dece="D-ECE", laece="LaECE")


def _show(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], columns: Sequence[str], spread: bool = False
) -> None:
    """Prints a row per group of seeds: its name, mean detections, errors in points, score-IoU correlation.

    Whole in 80 columns: the spread over seeds, where it is wanted, is a line of its own.
    """
    shown = [
        [
            *(f"{part:g}" if isinstance(part, float) else str(part) for part in key),
            f"{over_seeds(group, 'detections')[0]:.0f}",
            *(_cell(group, column, spread) for column in (*columns, "score_iou_correlation")),
        ]
        for key, group in grouped(rows, by).items()
    ]
    show_table([*by, "found", *(HEADS[c] for c in columns), "ρ"], shown, len(by), padding=(0, 1, 0, 0))


def _cell(rows: Sequence[Mapping[str, Any]], column: str, spread: bool) -> str:
    mean, width = over_seeds(rows, column)
    if column == "score_iou_correlation":
        text, half = f"{mean:.2f}".replace("nan", "–").replace("-", "−"), f"{width:.2f}"
    else:
        text, half = points(mean, sign=column == "signed_gap"), points(width)
    return f"{text}\n± {half}" if spread and not math.isnan(width) else text
