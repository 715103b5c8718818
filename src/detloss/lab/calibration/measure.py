"""Calibration of finished runs side by side: which losses score too high, on what, and at what threshold.

Nothing is trained or predicted here: a run's detections.json is compared with the truth once more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from detloss.lab.compare.comparison import folder_name
from detloss.lab.data import Dataset, find_format
from detloss.lab.data.coco import results_ids
from detloss.lab.evaluate import Detections, Evaluation, evaluate, evaluate_at, from_coco_results
from detloss.lab.runs import read_json
from detloss.lab.statistics import mean_interval, points, short_names
from detloss.lab.training.config import CompareConfig, Recipe, TrainConfig, load_config
from detloss.lab.training.splits import open_split

NUMBERS = (
    "threshold",
    "detections",
    "recall",
    "ap",
    "ece",
    "signed_gap",
    "dece",
    "laece",
    "score_iou_correlation",
    "ece_by_chance",
    "dece_by_chance",
    "dece_detections",
)
CLASS_NUMBERS = (
    "objects",
    "detections",
    "recall",
    "ap",
    "ece",
    "signed_gap",
    "laece",
    "score_iou_correlation",
)


def _short_training() -> CompareConfig:
    return CompareConfig(losses=("bce", "focal", "quality_focal"), seeds=1, lr=0.01, box_weight=2.0)


@dataclass(frozen=True)
class CalibrationConfig:
    """Whose calibration is measured, and where."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Folders of `detloss train`, `evaluate` or `compare` (all its runs),
    or COCO results (.json; --data and --val-split say of what).
    Without any, --losses are trained first."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.3, 0.5)
    """Lowest scores that count, increasing; the first is that of the tables by loss and class and of the
    reliability diagrams."""
    training: Annotated[CompareConfig, tyro.conf.arg(name="")] = field(default_factory=_short_training)

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 <= low <= 1 for low in self.thresholds):
            raise ValueError(f"thresholds is {_words(self.thresholds)}; give at least one, each from 0 to 1")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds is {_words(self.thresholds)}; they must increase")
        recipe = self.training.recipe
        plain = replace(_short_training(), recipe=Recipe(data=recipe.data, val_split=recipe.val_split))
        if self.runs and self.training != plain:
            raise ValueError(
                f"{self.runs[0]} is trained already: --losses and all that says how to train is for a call "
                "without RUN; leave one of both out"
            )
        if self.runs and not any(run.endswith(".json") for run in self.runs) and recipe.data != "embedded":
            raise ValueError(
                f"data is {recipe.data!r}, but {self.runs[0]} has its own; `detloss evaluate RUN --data` "
                "evaluates a run on other data, and the folder it writes can be given here"
            )


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values) or "empty"


@dataclass(frozen=True)
class Measured:
    """One run and its evaluations.

    Attributes:
        loss: its name in tables and pictures.
        seed: of the run; None where that is not known.
        evaluation: of all detections, calibration from the first threshold on.
        at: for each threshold, of the detections with a score of at least that alone, AP too.
        data: what it was evaluated on, in words.
    """

    loss: str
    seed: int | None
    evaluation: Evaluation
    at: tuple[Evaluation, ...]
    data: str


@dataclass(frozen=True)
class _Source:
    """Where detections lie: a run folder with its configuration, or a file of COCO results.

    `given` is the path that a user knows it by: of a comparison's run, the comparison.
    """

    path: Path
    given: Path
    config: TrainConfig | None = None


def measure(
    config: CalibrationConfig, runs: Sequence[str | Path], progress: Callable[[int, int], Any]
) -> list[Measured]:
    """Evaluates the detections of all runs, losses in the order of their first run.

    Args:
        config: thresholds, and the data of results files.
        runs: as ``config.runs``.
        progress: called with (done, total).

    Raises:
        ValueError: a path that holds no results, a run given twice, or results that do not fit their data.
    """
    sources = [source for run in runs for source in _find(Path(run))]
    names = _names(sources)
    opened: dict[Any, Dataset] = {}
    measured = []
    for done, source in enumerate(sources, 1):
        recipe = source.config.recipe if source.config else config.training.recipe
        dataset, found = _read(source, recipe, opened)
        truths = [dataset.annotation(i) for i in range(len(dataset))]
        sizes = [dataset.size(i) for i in range(len(dataset))]
        first = config.thresholds[0]
        try:
            whole = evaluate(found, truths, dataset.names, score_threshold=first, sizes=sizes)
            at = evaluate_at(found, truths, dataset.names, config.thresholds, sizes=sizes)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None
        seed = source.config.seed if source.config else None
        data = f"{recipe.data}, {recipe.val_split}: {whole.images} images, {whole.objects} objects"
        measured.append(Measured(names[source.path], seed, whole, tuple(at), data))
        progress(done, len(sources))
    order = list(dict.fromkeys(one.loss for one in measured))
    return sorted(measured, key=lambda one: order.index(one.loss))


def left_out(path: Path) -> list[str]:
    """Of each run of a comparison that has no result: why. Nothing for any other path."""
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
    missing = [
        name for name in ("config.json", "detections.json", "metrics.json") if not (path / name).is_file()
    ]
    if missing:
        raise ValueError(
            f"{path} is no finished run: it has no {' and no '.join(missing)}. Give a folder of "
            "`detloss train`, `evaluate` or `compare`, or a COCO results file (.json) with --data"
        )
    return [_Source(path, path, load_config(TrainConfig, path))]


def _pair(source: _Source) -> tuple[str, str]:
    assert source.config is not None
    return source.config.loss, source.config.box_loss


def _names(sources: Sequence[_Source]) -> dict[Path, str]:
    """A name for each run: runs that differ in nothing but the seed share one."""
    groups: dict[Any, list[_Source]] = {}
    for source in sources:
        key = replace(source.config, seed=0) if source.config else source.path.resolve()
        groups.setdefault(key, []).append(source)
    for group in groups.values():
        seen: dict[Any, Path] = {}
        for source in group:
            seed = source.config.seed if source.config else None
            if seed in seen:
                raise ValueError(f"{seen[seed]} and {source.path} are the same run; give each once")
            seen[seed] = source.path
    short = short_names([_pair(source) for source in sources if source.config])
    chosen = [
        short[_pair(group[0])] if group[0].config else _stem(group[0].path) for group in groups.values()
    ]
    return {
        source.path: name if chosen.count(name) == 1 else f"{name} ({group[0].given})"
        for name, group in zip(chosen, groups.values())
        for source in group
    }


def _stem(file: Path) -> str:
    return file.resolve().parent.name if file.stem == "detections" else file.stem


def _read(source: _Source, recipe: Recipe, opened: dict[Any, Dataset]) -> tuple[Dataset, list[Detections]]:
    """The images that were evaluated, and what was found in each."""
    metrics: Mapping[str, Any] = {}
    names = None
    if source.config:
        metrics = read_json(source.path / "metrics.json")
        names = tuple(metrics["per_class"])
    elif recipe.data != "embedded" and find_format(Path(recipe.data)) == "voc":
        # VOC has no list of classes; labels are in the order of the training split's.
        names = open_split(recipe, recipe.train_split).names
    key = (recipe.data, recipe.val_split, recipe.scenes, names)
    if key not in opened:
        opened[key] = open_split(recipe, recipe.val_split, names)
    dataset = opened[key]
    images = metrics.get("images", len(dataset))
    if images > len(dataset):
        raise ValueError(
            f"{source.path} was evaluated on {images} images, but {recipe.data} has {len(dataset)} now"
        )
    dataset = dataset.select(range(images))  # `detloss evaluate --quick` takes the first ones
    file = source.path / "detections.json" if source.config else source.path
    results = _checked(file)
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    if not source.config:
        results = _translated(file, results, recipe, set(ids), dataset.names)
    try:
        return dataset, from_coco_results(results, ids, range(len(dataset.names)))
    except ValueError as error:
        raise ValueError(f"{file}: {error} of {recipe.data}, split {recipe.val_split!r}") from None


def _checked(file: Path) -> list[dict[str, Any]]:
    """A list of COCO results, every field there and of its type."""
    try:
        results = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    kinds: dict[str, Any] = {"image_id": (int, str), "category_id": int, "bbox": list, "score": (int, float)}
    if not isinstance(results, list):
        raise ValueError(f"{file} is no list of COCO results, which have {', '.join(kinds)}")
    for i, result in enumerate(results):
        for name, kind in kinds.items():
            if not isinstance(result, dict) or not isinstance(result.get(name), kind):
                raise ValueError(f"{file}: results[{i}] has no {name!r} of COCO's results")
        box = result["bbox"]
        if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
            raise ValueError(f"{file}: results[{i}].bbox is {box}, must be [x, y, width, height]")
    return results


def _translated(
    file: Path, results: list[dict[str, Any]], recipe: Recipe, ids: set[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Results in a COCO data set's own numbers → ids and labels of the samples; others as they are."""
    named = {result["image_id"] for result in results}
    strange = named - ids
    if recipe.data == "embedded" or find_format(Path(recipe.data)) != "coco":
        if not strange:
            return results
        raise ValueError(
            f"{file}: image_id {min(strange, key=str)!r} is no image of {recipe.data}, split "
            f"{recipe.val_split!r}; --data and --val-split say what the results are of"
        )
    images, categories = results_ids(recipe.data, recipe.val_split)
    if not strange and not named <= set(images):
        return results  # a detections.json of ours; where a data set's ids are its file names, its ids count
    labels = {number: names.index(name) for number, name in categories.items()}
    for what, known in (("image_id", images), ("category_id", labels)):
        for i, result in enumerate(results):
            if result[what] not in known:
                raise ValueError(
                    f"{file}: results[{i}].{what} {result[what]!r} is not in {recipe.data}, split "
                    f"{recipe.val_split!r}"
                )
    return [r | {"image_id": images[r["image_id"]], "category_id": labels[r["category_id"]]} for r in results]


def loss_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a run, at the first threshold; AP is of all detections."""
    return [{"loss": one.loss, "seed": one.seed, **_numbers(one.evaluation)} for one in measured]


def threshold_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a run and threshold; AP is of the detections that are left."""
    return [
        {"loss": one.loss, "seed": one.seed, **_numbers(evaluation)}
        for one in measured
        for evaluation in one.at
    ]


def class_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a run and class, at the first threshold."""
    return [
        {"loss": one.loss, "seed": one.seed, "class": c.name, **{n: getattr(c, n) for n in CLASS_NUMBERS}}
        for one in measured
        for c in one.evaluation.calibration.per_class
    ]


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    correlation = evaluation.score_iou_correlation
    return {
        name: correlation if name == "score_iou_correlation" else getattr(evaluation.calibration, name)
        for name in NUMBERS
    }


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
