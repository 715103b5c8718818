"""Result files of any trainer → the results of a comparison."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detloss.lab.compare.disagreements import disagreement
from detloss.lab.compare.results import Results, Rule, Run, choose_samples
from detloss.lab.data import Dataset, summary
from detloss.lab.data.sample import Detections
from detloss.lab.evaluate import to_coco_results
from detloss.lab.evaluate.detections import check
from detloss.lab.evaluate.matches import resample_images
from detloss.lab.runs import versions
from detloss.lab.training.config import Recipe
from detloss.lab.training.splits import class_order, open_split, read_results_of
from detloss.lab.training.trained import evaluate_found

NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100", "score_iou_correlation")
CALIBRATION = ("ece", "ece_platt", "ece_by_chance", "signed_gap", "dece", "dece_all", "laece")
Progress = Callable[[int, int], object]


def files_of(words: Sequence[str]) -> dict[str, list[Path]]:
    """`name=file,file` and bare paths, named by their stems → name → files.

    Raises:
        ValueError: fewer than two names, a name twice, a file twice, or one that is not there.
    """
    found: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for word in words:
        name, named, listed = word.partition("=")
        if Path(word).is_file() or not named:
            name, listed = Path(word).stem, word
        files = [Path(file) for file in ([listed] if Path(listed).is_file() else listed.split(","))]
        if not name or name in found:
            raise ValueError(
                f"{word}: {f'there are two losses {name!r}' if name else 'there is no name'}; name each, as "
                "name=file,file, with all files of one loss, its seeds, together"
            )
        for file in files:
            if not file.is_file():
                raise ValueError(f"{word}: no such file {str(file)!r}; give name=file,file or a file")
            if file.resolve() in seen:
                raise ValueError(f"{file} is given twice; give each file once")
            seen.add(file.resolve())
        found[name] = files
    if len(found) < 2:
        raise ValueError(f"files has {len(found)} losses; give at least two to compare")
    return found


def read(
    files: Mapping[str, Sequence[Path]],
    recipe: Recipe,
    allow_empty: bool,
    category_ids: Sequence[str],
    progress: Progress,
) -> tuple[Dataset, dict[Path, list[Detections]], dict[str, str]]:
    """The images, what each file found in them, and how its ids were read.

    Raises:
        ValueError: a file that does not fit the data, or the others; it is named.
    """
    dataset = open_split(recipe, recipe.val_split, class_order(recipe))
    truths = [dataset.annotation(i) for i in range(len(dataset))]
    if not summary(dataset)["objects"]:
        raise ValueError(
            f"split {recipe.val_split!r} of {recipe.data} has no objects, so nothing can be measured"
        )
    listed = [file for own in files.values() for file in own]
    found: dict[Path, list[Detections]] = {}
    ids: dict[str, str] = {}
    for done, file in enumerate(listed, start=1):
        found[file], ids[file.name] = read_results_of(file, dataset, recipe, category_ids)
        try:
            check(found[file], truths, len(dataset.names))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if not any(len(one.scores) for one in found[file]):
            raise ValueError(f"{file} is empty: it has no detection; give the results of a detector")
        progress(done, len(listed))
    covered = {file: {i for i, one in enumerate(found[file]) if len(one.scores)} for file in listed}
    every = set().union(*covered.values())
    for file, images in covered.items():
        if images != every and not allow_empty:
            lacking = truths[min(every - images)].id
            raise ValueError(
                f"{file} has results on {len(images)} images, the files together on {len(every)}: none on "
                f"{lacking!r}. If nothing was found there, set allow_empty; if the detector has not seen "
                "that image, give results on the same images"
            )
    return dataset, found, ids


def judge(
    config: Rule,
    files: Mapping[str, Sequence[Path]],
    dataset: Dataset,
    found: Mapping[Path, list[Detections]],
    source: str,
    resamples: int,
    progress: Progress,
) -> Results:
    """Everything that a comparison's tables and page need of these files."""
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    runs: dict[str, dict[int, Run]] = {name: {} for name in files}
    matches: dict[str, list[Any]] = {name: [] for name in files}
    for name, own in files.items():
        for seed, file in enumerate(own):
            evaluation, of_file = evaluate_found(found[file], dataset)
            matches[name].append(of_file)
            row = {number: getattr(evaluation, number) for number in NUMBERS}
            row |= {number: getattr(evaluation.calibration, number) for number in CALIBRATION}
            row["ece_recall"] = evaluation.calibration.recall
            row |= {"best_score": evaluation.operating.best_score, "best_f1": evaluation.operating.best_f1}
            row |= evaluation.errors
            detections = to_coco_results(found[file], ids)
            runs[name][seed] = Run(row, evaluation, {}, {}, detections, matches[name][-1])
    results = Results(
        config=config,
        versions=versions("cpu"),
        data={
            **{"source": source, "names": dataset.names, "class_map": dataset.class_map},
            **{"val": summary(dataset), "notes": dataset.notes},
        },
        runs=runs,
        sweep={},
        diverged=[],
        samples=[],
        images=resample_images(matches, resamples, progress=progress),
    )
    apart = disagreement(results)
    return replace(results, samples=choose_samples(dataset, apart.f1)) if apart else results


def rows(results: Results, files: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """A row a file for results.csv; what is not known is empty."""
    return [
        {"loss": name, "seed": seed, "file": str(files[name][seed])}
        | {column: "" if math.isnan(value) else value for column, value in run.row.items()}
        for name, own in results.runs.items()
        for seed, run in own.items()
    ]
