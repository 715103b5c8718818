"""`detloss data`: what is wrong with a data set, and the same data in another format."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from detloss.lab.cli.arguments import DataReading, Out, read
from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import Dataset, Reading, find, save, shared_images, summary
from detloss.lab.data.find import Found
from detloss.lab.data.lists import WHOLE, WORDS, choose_split
from detloss.lab.data.problems import Problems, rows
from detloss.lab.runs import new_folder, write_csv


@dataclass(frozen=True)
class Arguments:
    """Check a data set and list all that is wrong in it, or write it in another format."""

    action: tyro.conf.Positional[Literal["check", "convert"]]
    """check: reads every list and decodes every image; problems.csv has what is wrong. convert: writes it."""
    folder: tyro.conf.Positional[str] = ""
    """The data set's folder, or the file that describes it."""
    split: tuple[str, ...] = ()
    """The splits; otherwise train, val and test as far as there are, or else all lists."""
    format: Literal["coco", "voc", "yolo"] = "coco"
    """What convert writes."""
    reading: DataReading = field(default_factory=Reading)
    """How the data are found and read."""
    out: Out = None
    quick: bool = False
    """Of each list only the first 64 images are decoded, or written."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss data`."""
    return read("data", Arguments, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss data`; its folder is returned. A check ends with status 1 where there are problems."""
    place = arguments.folder or arguments.reading.annotations or arguments.reading.images
    if not place:
        raise ValueError("which data? write detloss data check FOLDER")
    found = find(place, arguments.reading)
    names = {split: _list_of(found, split) for split in arguments.split} or _splits(found)
    lists = {split: one.removeprefix(WHOLE) for split, one in names.items()}
    shown = ", ".join(split if one == split else f"{one} as {split}" for split, one in lists.items())
    say(f"{place}: {found.format} data; lists: {', '.join(found.splits)}; read: {shown}")
    if arguments.action == "convert":
        return _convert(arguments, found, names)
    problems = _check(found, names, 64 if arguments.quick else sys.maxsize)
    out = new_folder("data", arguments.out)
    write_csv(out / "problems.csv", ["kind", "file", "what", "lenient"], rows(problems.listed))
    if not len(problems):
        say("no problems")
        return out
    say(f"{len(problems)} problems, listed in problems.csv, and what --lenient does about them:")
    for note in problems.notes():
        say(f"  {note}")
    print(out)
    raise SystemExit(1)


def _list_of(found: Found, split: str) -> str:
    """The list that a split is, whole where it is one; the split itself where it is a part."""
    one, part, _ = choose_split(split, found.splits, found.where)
    return split if part else WHOLE + one


def _splits(found: Found) -> dict[str, str]:
    """What is read of a data set: split → list, of train, val and test, or else of all lists."""
    chosen = {}
    for word in WORDS:
        try:
            one = _list_of(found, word)
        except ValueError as error:
            if "may be" in str(error):
                raise
            continue
        if one.startswith(WHOLE):
            chosen[word] = one
    if "train" in chosen or "val" in chosen:
        return chosen
    base = [one for one in found.splits if not chosen or WHOLE + one not in chosen.values()]
    return {one: WHOLE + one for one in base} | chosen


def _check(found: Found, names: dict[str, str], decoded: int) -> Problems:
    """All that is wrong with the lists; what they hold is said."""
    problems, classes = Problems(), None
    datasets = {}
    for split, one in names.items():
        with counting(f"decoding {split} images") as progress:
            dataset, own = found.check(one, classes, progress, decoded)
        problems.extend(own)
        if dataset is None:
            continue
        classes = classes or dataset.names
        datasets[split] = dataset
        say(f"{split}: {_words(dataset)}")
        for note in dataset.notes:
            if note not in own.notes():
                say(f"{split}: {note}")
    for split in ("val", "test"):
        if split in datasets and "train" in datasets:
            shared = shared_images(datasets["train"], datasets[split])
            say(f"{split}: {shared}" if shared else f"{split}: shares no image with train")
    return problems


def _words(dataset: Dataset) -> str:
    found = summary(dataset)
    counts = ", ".join(f"{name} {count}" for name, count in found["per_class"].items())
    return (
        f"{found['images']} images ({found['empty']} without objects), {found['objects']} objects, "
        f"{found['ignored']} ignored; {counts}"
    )


def _convert(arguments: Arguments, found: Found, names: dict[str, str]) -> Path:
    """Writes the lists in another format."""
    own = {split: found.load(one) for split, one in names.items()}
    classes = tuple(dict.fromkeys(name for dataset in own.values() for name in dataset.names))
    splits = {split: found.load(one, classes) for split, one in names.items()}
    if arguments.quick:
        splits = {split: dataset.select(range(min(len(dataset), 64))) for split, dataset in splits.items()}
    for split, dataset in splits.items():
        ignored = summary(dataset)["ignored"]
        if arguments.format == "yolo" and arguments.reading.lenient and ignored:
            say(f"{split}: {ignored} ignored objects, which YOLO cannot say, are left out")
            splits[split] = dataset.without_ignored()
        say(f"{split}: {_words(splits[split])}")
        for note in dataset.notes:
            say(f"{split}: {note}")
    out = new_folder("data", arguments.out)
    save(splits, out, arguments.format)
    return out
