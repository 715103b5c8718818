"""Which image and which class the ids in somebody's COCO results mean, told by what fits the objects.

Trainers number alike things differently: an image by its number in the annotations or by its file name, a
class from 0, from 1, by COCO's ids with gaps or by its name. Read wrongly, every class is the next one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch

from detloss.boxes import box_iou
from detloss.lab.data import Dataset
from detloss.lab.data.sample import Detections
from detloss.lab.evaluate.detections import read_detections

AUTO = ("auto",)
WORDS = {
    "own": "classes by the annotations' ids",
    "0": "classes counted from 0",
    "1": "classes counted from 1",
    "coco": "classes by COCO's 80 ids from 1 to 90",
}
"""What a setting `category_ids` may be beside `auto` and NAME=ID for each class."""
IMAGES_OWN = "images by the annotations' ids"
COCO_IDS = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
Row = Mapping[str, Any]
Ways = Mapping[str, Callable[[Row], int | None]]
"""Words that say how ids may be read → what one row's id is then; None where it is nothing."""


class OwnIds(NamedTuple):
    """The ids that a data set has in its own annotations, which only COCO's do.

    Attributes:
        images: image id → `Sample.id`.
        categories: category id → class name.
    """

    images: Mapping[int | str, str]
    categories: Mapping[int, str]


class Reading(NamedTuple):
    """One way to read all results: which image and class each row is of, and how well that fits."""

    words: str
    classes: str
    images: list[int]
    labels: list[int]
    found: int
    weight: float

    def beats(self, other: Reading) -> bool:
        """Whether so much more is found that chance did not do it."""
        return self.found >= other.found + 3 and self.weight >= 2 * other.weight


def interpret(
    results: Sequence[Row],
    dataset: Dataset,
    own: OwnIds | None = None,
    category_ids: Sequence[str] = AUTO,
) -> tuple[list[Detections], str]:
    """The detections on each image of a data set, and a line that says how their ids were read.

    Of the ways that know every id, that one counts under which most objects are found (IoU ≥ 0.5, the right
    class). Where that does not tell, ids are those of the annotations, or file names and labels from 0.

    Args:
        results: rows as `read_coco_results` has them.
        dataset: what they are of.
        own: the ids of its annotations.
        category_ids: `auto`; a key of `WORDS`; or NAME=ID for each class.

    Raises:
        ValueError: an id that no way of reading knows; ways that cannot be told apart; or a wish under which
            nothing is found while another way finds objects.
    """
    image_ways = _known(results, _image_ways(dataset, own), "image_id")
    wished: Ways = {} if tuple(category_ids) == AUTO else _wished(category_ids, dataset.names, own)
    class_ways = _known(results, {**wished, **_class_ways(dataset.names, own)}, "category_id")
    every = _readings(dataset, results, image_ways, class_ways)
    if wished.keys() - class_ways.keys():
        _known(results, wished, "category_id")
    best = _best([one for one in every if not wished or one.classes in wished])
    others = [one for one in every if one is not best]
    fits = max(others, key=lambda one: one.weight, default=best)
    if wished and not best.found and fits.beats(best):
        raise ValueError(
            f"with category_ids {' '.join(category_ids)} no object is found; read as {fits.words}, "
            f"{fits.found} are. Leave category_ids out, or give NAME=ID for each class"
        )
    return read_detections(results, best.images, best.labels, len(dataset)), _said(best, others, dataset)


def said_ids(files: Iterable[tuple[str, str]]) -> list[str]:
    """How the ids of files were read, from (file, how): a line for all that were read alike."""
    alike = defaultdict(list)
    for file, words in files:
        alike[words].append(file)
    return [f"ids of {', '.join(own)}: {words}" for words, own in alike.items()]


def _best(readings: Sequence[Reading]) -> Reading:
    first, best = readings[0], max(readings, key=lambda one: one.weight)
    rivals = [one for one in readings if one is not best and not best.beats(one)]
    if not rivals:
        return best
    if best.found < 3:
        return first
    told = "; ".join(f"{one.words}: {one.found} objects" for one in (best, *rivals))
    raise ValueError(
        f"what the ids mean cannot be told from what is found ({told}). Set category_ids: "
        f"{', '.join(WORDS)}, or NAME=ID for each class"
    )


def _said(best: Reading, others: Sequence[Reading], dataset: Dataset) -> str:
    objects = sum(int((~dataset.annotation(i).ignored).sum()) for i in range(len(dataset)))
    line = f"{best.words}: finds {best.found} of {objects} objects"
    if others:
        second = max(others, key=lambda one: one.weight)
        line += f" ({second.words}: {second.found})"
    return line


def _image_ways(dataset: Dataset, own: OwnIds | None) -> Ways:
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    files = [dataset.file(i) for i in range(len(dataset))]
    tails = _unique(
        ("/".join(file.parts[-depth:]), i) for i, file in enumerate(files) if file for depth in (1, 2, 3, 4)
    )
    place = {id: i for i, id in enumerate(ids)}
    stems = _unique((name, i) for id, i in place.items() for name in {id, PurePath(id).name})
    numbers = _unique((str(int(name)), i) for name, i in stems.items() if name.isdecimal())

    def by_file_name(row: Row) -> int | None:
        parts = PurePath(str(row.get("file_name", ""))).parts
        return next((tails[end] for d in (4, 3, 2, 1) if (end := "/".join(parts[-d:])) in tails), None)

    def by(table: Mapping[str, int]) -> Callable[[Row], int | None]:
        return lambda row: table.get(str(row["image_id"]))

    ways: dict[str, Callable[[Row], int | None]] = {"images by file_name": by_file_name}
    if own:
        ways[IMAGES_OWN] = by({str(own_id): place[id] for own_id, id in own.images.items() if id in place})
    return {
        **ways,
        "images by file name without suffix": by(stems),
        "images by file name": by(tails),
        "images by the number in the file name": by(numbers),
    }


def _class_ways(names: Sequence[str], own: OwnIds | None) -> Ways:
    label = {name: i for i, name in enumerate(names)}

    def by_name(row: Row) -> int | None:
        return label.get(str(row.get("category_name", row["category_id"])))

    return {"classes by name": by_name} | {
        WORDS[word]: _by_id(table) for word, table in _tables(names, own).items()
    }


def _tables(names: Sequence[str], own: OwnIds | None) -> dict[str, dict[str, int]]:
    label = {name: i for i, name in enumerate(names)}
    tables = {}
    if own:
        tables["own"] = {str(id): label[name] for id, name in own.categories.items() if name in label}
    tables |= {"0": {str(i): i for i in label.values()}, "1": {str(i + 1): i for i in label.values()}}
    if len(names) == len(COCO_IDS):
        tables["coco"] = {str(id): i for i, id in enumerate(COCO_IDS)}
    return tables


def _by_id(table: Mapping[str, int]) -> Callable[[Row], int | None]:
    return lambda row: table.get(str(row["category_id"]))


def _wished(words: Sequence[str], names: Sequence[str], own: OwnIds | None) -> Ways:
    tables = _tables(names, own)
    if len(words) == 1 and words[0] in tables:
        return {WORDS[words[0]]: _by_id(tables[words[0]])}
    given = dict(word.rpartition("=")[::2] for word in words)
    if set(given) != set(names) or len(set(given.values())) != len(names):
        raise ValueError(
            f"category_ids is {' '.join(words) or 'empty'}; give auto, {', '.join(tables)}, or a NAME=ID of "
            f"its own for each class: {', '.join(names)}"
        )
    return {"classes as category_ids says": _by_id({id: names.index(name) for name, id in given.items()})}


def _known(results: Sequence[Row], ways: Ways, field: str) -> dict[str, list[int]]:
    """The ways that know the ids of all rows, with what they say; without any the first unknown is named."""
    read = {words: [way(row) for row in results] for words, way in ways.items()}
    whole = {words: found for words, found in read.items() if None not in found}
    if not whole:
        nearest = max(read.values(), key=lambda found: sum(one is not None for one in found))
        i = nearest.index(None)
        what = "an image" if field == "image_id" else "a class"
        raise ValueError(f"results[{i}]: {field} {results[i][field]!r} is not {what} of the data")
    return whole  # type: ignore[return-value]


def _readings(
    dataset: Dataset,
    results: Sequence[Row],
    image_ways: Mapping[str, list[int]],
    class_ways: Mapping[str, list[int]],
) -> list[Reading]:
    """Every pair of ways that says something of its own; the one to take where nothing tells comes first."""
    readings: list[Reading] = []
    images_seen: list[list[int]] = []
    for image_words, images in image_ways.items():
        if images in images_seen:
            continue
        images_seen.append(images)
        overlaps = _overlaps(dataset, results, images)
        # The classes that belong to the annotations' own image ids are theirs, to file names those from 0.
        words = list(class_ways)
        if image_words != IMAGES_OWN:
            words.sort(key=lambda one: one == WORDS["own"])
        labels_seen: list[list[int]] = []
        for class_words in words:
            labels = class_ways[class_words]
            if labels not in labels_seen:
                labels_seen.append(labels)
                scores: dict[tuple[int, int], float] = defaultdict(float)
                for row, image, obj, label in overlaps:
                    if labels[row] == label:
                        key = (image, obj)
                        scores[key] = max(scores[key], min(float(results[row]["score"]), 1.0))
                found = len(scores)
                readings.append(
                    Reading(
                        f"{image_words}, {class_words}",
                        class_words,
                        images,
                        labels,
                        found,
                        sum(scores.values()),
                    )
                )
    return readings


def _overlaps(
    dataset: Dataset, results: Sequence[Row], images: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """(row, image, object, its label) of all rows with an IoU of at least 0.5 with an object."""
    rows_of = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image].append(row)
    found = []
    for image, rows in rows_of.items():
        truth = dataset.annotation(image)
        boxes = np.array([results[row]["bbox"] for row in rows], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        near = box_iou(torch.from_numpy(boxes), torch.from_numpy(truth.boxes.astype(np.float64))) >= 0.5
        for i, obj in near.nonzero().tolist():
            found.append((rows[i], image, obj, int(truth.labels[obj])))
    return found


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The names that mean one thing only."""
    several = list(dict.fromkeys(pairs))
    count = Counter(name for name, _ in several)
    return {name: i for name, i in several if count[name] == 1}
