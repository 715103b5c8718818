"""Measures the calibration of finished runs: by loss, by class and by threshold.

Nothing is trained or predicted here: a run's detections.json is compared with the truth once more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import folder_name
from detloss.lab.data import Dataset
from detloss.lab.evaluate import Detections, Evaluation, evaluate, evaluate_at, from_coco_results
from detloss.lab.evaluate.coco import ALL, count
from detloss.lab.evaluate.detections import read_coco_results
from detloss.lab.evaluate.interpret import AUTO
from detloss.lab.evaluate.matches import Matches
from detloss.lab.records import load_config
from detloss.lab.runs import read_json
from detloss.lab.statistics import mean_interval, short_names
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.splits import class_order, open_split, read_results_of


@dataclass(frozen=True)
class Measured:
    """One run and its evaluations.

    Attributes:
        loss: its name in tables and pictures.
        seed: of the run; None where that is not known.
        evaluation: of all detections, calibration from the first threshold on.
        at: for each threshold, of the detections with a score of at least that alone, AP too.
        data: on which images it was evaluated, in words.
        ids: how the ids of a file of COCO results were read, in words; empty for a run.
    """

    loss: str
    seed: int | None
    evaluation: Evaluation
    at: tuple[Evaluation, ...]
    data: str
    ids: str = ""


@dataclass(frozen=True)
class _Source:
    """Where detections lie: a run folder with its configuration, or a file of COCO results.

    `given` is the path that a user knows it by: of a comparison's run, the comparison.
    """

    path: Path
    given: Path
    config: TrainConfig | None = None


def measure(
    runs: Sequence[str | Path],
    thresholds: Sequence[float],
    recipe: Recipe,
    progress: Callable[[int, int], Any] = lambda done, total: None,
    category_ids: Sequence[str] = AUTO,
) -> list[Measured]:
    """Evaluates the detections of all runs, losses in the order of their first run.

    Args:
        runs: run folders, comparisons, or COCO results.
        thresholds: lowest scores that count, increasing.
        recipe: its data and validation split are what COCO results are of; a run has its own.
        progress: called with (done, total).
        category_ids: what those of COCO results mean, as of `interpret`.

    Raises:
        ValueError: a path that holds no results, a run given twice, or results that do not fit their data.
    """
    sources = [source for run in runs for source in _find(Path(run))]
    names = _names(sources)
    opened: dict[Any, Dataset] = {}
    measured = []
    for done, source in enumerate(sources, 1):
        of = source.config or recipe
        dataset, found, ids = _read(source, of, opened, category_ids)
        truths = [dataset.annotation(i) for i in range(len(dataset))]
        sizes = [dataset.size(i) for i in range(len(dataset))]
        try:
            whole = evaluate(found, truths, dataset.names, score_threshold=thresholds[0], sizes=sizes)
            at = evaluate_at(found, truths, dataset.names, thresholds, sizes=sizes)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None
        seed = source.config.seed if source.config else None
        data = f"{of.data}, {of.val_split}: {whole.images} images, {whole.objects} objects"
        measured.append(Measured(names[source.path], seed, whole, tuple(at), data, ids))
        progress(done, len(sources))
    order = list(dict.fromkeys(one.loss for one in measured))
    return sorted(measured, key=lambda one: order.index(one.loss))


def matches_of(run: str | Path, recipe: Recipe, category_ids: Sequence[str] = AUTO) -> tuple[Matches, str]:
    """Which detections of one run are right, and on what data, in words; arguments as of `measure`.

    Raises:
        ValueError: several runs; also as `measure`.
    """
    sources = _find(Path(run))
    if len(sources) > 1:
        raise ValueError(
            f"{run} has {len(sources)} runs, and a calibrator is of one; give one, such as {sources[0].path}"
        )
    of = sources[0].config or recipe
    dataset, found, _ = _read(sources[0], of, {}, category_ids)
    truths = [dataset.annotation(i) for i in range(len(dataset))]
    return count(found, truths, dataset.names, [ALL]).matches, f"{of.data}, {of.val_split}"


def left_out(path: Path) -> list[str]:
    """Why runs of a comparison have no result, a line per run; nothing for any other path."""
    if not _is_comparison(path):
        return []
    config, reasons = load_config(CompareConfig, path), []
    for pair in config.pairs:
        for seed in range(config.seeds):
            folder = path / "runs" / folder_name(pair) / f"seed-{seed}"
            if (folder / "diverged.json").is_file():
                reasons.append(f"{folder} diverged: {read_json(folder / 'diverged.json')}")
            elif not (folder / "metrics.json").is_file():
                reasons.append(f"{folder} is not finished")
    return reasons


def _is_comparison(path: Path) -> bool:
    return (path / "results.csv").is_file() and (path / "runs").is_dir()


def _find(path: Path) -> list[_Source]:
    """The finished runs of a path."""
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        return [_Source(path, path)]
    if _is_comparison(path):
        pairs = load_config(CompareConfig, path).pairs
        files = path.glob("runs/*/seed-*/metrics.json")
        found = [replace(source, given=path) for file in files for source in _find(file.parent)]
        if not found:
            raise ValueError(f"{path} is a comparison without a finished run")
        return sorted(found, key=lambda one: (pairs.index(_pair(one)), one.config.seed if one.config else 0))
    needed = ("config.json", "detections.json", "metrics.json")
    if missing := [name for name in needed if not (path / name).is_file()]:
        raise ValueError(
            f"{path} is not a finished run: it has no {' and no '.join(missing)}. Give a folder of "
            "`detloss train`, `evaluate` or `compare`, or a file of COCO results (.json)"
        )
    return [_Source(path, path, load_config(TrainConfig, path))]


def _pair(source: _Source) -> tuple[str, str]:
    assert source.config is not None
    return source.config.loss, source.config.box_loss


def _names(sources: Sequence[_Source]) -> dict[Path, str]:
    """A name for each run: runs that differ in nothing but the seed, and the scenes', share one."""
    groups: dict[Any, list[_Source]] = {}
    for source in sources:
        key: Any = source.path.resolve()
        if source.config:
            key = replace(source.config, seed=0, scenes=replace(source.config.scenes, seed=0))
        groups.setdefault(key, []).append(source)
    for group in groups.values():
        seen: dict[Any, Path] = {}
        for source in group:
            seed = (source.config.seed, source.config.scenes.seed) if source.config else None
            if seed in seen:
                raise ValueError(f"{seen[seed]} and {source.path} are the same run; give each once")
            seen[seed] = source.path
    short = short_names([_pair(source) for source in sources if source.config])
    firsts = [group[0] for group in groups.values()]
    chosen = [short[_pair(first)] if first.config else _stem(first.path) for first in firsts]
    return {
        source.path: name if chosen.count(name) == 1 else f"{name} ({group[0].given})"
        for name, group in zip(chosen, groups.values())
        for source in group
    }


def _stem(file: Path) -> str:
    return file.resolve().parent.name if file.stem == "detections" else file.stem


def _read(
    source: _Source, recipe: Recipe, opened: dict[Any, Dataset], category_ids: Sequence[str]
) -> tuple[Dataset, list[Detections], str]:
    """The images that were evaluated, what was found in each, and how the ids of a file were read."""
    metrics: Mapping[str, Any] = {}
    if source.config:
        metrics = read_json(source.path / "metrics.json")
        names: tuple[str, ...] | None = tuple(metrics["per_class"])
    else:
        names = class_order(recipe)
    key = (recipe.data, recipe.val_split, recipe.reading, recipe.scenes, names)
    if key not in opened:
        opened[key] = open_split(recipe, recipe.val_split, names)
    dataset = opened[key]
    images = metrics.get("images", len(dataset))
    if images > len(dataset):
        raise ValueError(
            f"{source.path} was evaluated on {images} images, but {recipe.data} has {len(dataset)} now"
        )
    dataset = dataset.select(range(images))  # `detloss evaluate --quick` takes the first ones
    if source.config is None:
        return dataset, *read_results_of(source.path, dataset, recipe, category_ids)
    file = source.path / "detections.json"
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    try:
        return dataset, from_coco_results(read_coco_results(file), ids, range(len(dataset.names))), ""
    except ValueError as error:
        raise ValueError(f"{file}: {error} of {recipe.data}, split {recipe.val_split!r}") from None


def loss_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row per run, at the first threshold; AP is of all detections."""
    return [{"loss": one.loss, "seed": one.seed, **_numbers(one.evaluation)} for one in measured]


def threshold_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row per run and threshold; AP is of the detections that are left."""
    return [
        {"loss": one.loss, "seed": one.seed, **_numbers(evaluation)}
        for one in measured
        for evaluation in one.at
    ]


def class_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row per run and class, at the first threshold."""
    rows = [(one, asdict(c)) for one in measured for c in one.evaluation.calibration.per_class]
    return [
        {"loss": one.loss, "seed": one.seed, "class": numbers.pop("name"), **numbers} for one, numbers in rows
    ]


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of a calibration, first those that the others depend on."""
    found = evaluation.calibration
    numbers = {name: value for name, value in vars(found).items() if isinstance(value, int | float)}
    first = {name: numbers[name] for name in ("threshold", "detections", "recall", "ap")}
    return first | numbers | {"score_iou_correlation": evaluation.score_iou_correlation}


def grouped(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str]
) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Rows by their values in some columns: the seeds of each group."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return groups


def over_seeds(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[float, float]:
    """Mean and half of its 95 % interval (`mean_interval`), over the seeds with a value."""
    return mean_interval([row[column] for row in rows if not math.isnan(row[column])])
