"""COCO JSON: a file of images, categories and annotations for each list of images.

Category ids may have gaps; labels are 0..C-1 in the order of the ids, or by name where names are given.
`bbox` is (x, y, width, height), the corner counted from 0; where there is none it is the box around the
polygons of `segmentation`. `iscrowd` objects are `ignored`. No other fields are read. Datumaro's own JSON is
read too, by way of the same tables.
"""

import json
import mmap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from detloss.lab.data.check import Raw, unique_ids
from detloss.lab.data.coco_table import Read, Table
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.lists import word_of
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import read_lines
from detloss.lab.data.tree import Tree, plain
from detloss.lab.data.write import Item, Splits, items, new_folder, shared_names

MOST_WIDE = 512 * 2**20


def sniff(file: Path) -> str:
    """ "coco", "datumaro", "labelme", or "" where the JSON is another one; seen from its names of fields."""
    try:
        with file.open("rb") as opened:
            start = opened.read(65536).replace(b"\0", b"")  # UTF-16 has zeros in between
            if b'"shapes"' in start and b'"images"' not in start:
                return "labelme"
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                # With zeros in between it is taken whole, and then only where memory holds it with ease.
                wide = 0 < len(start) < 40000 and len(whole) < MOST_WIDE and whole.find(b"\0") >= 0
                text: Any = whole[:].replace(b"\0", b"") if wide else whole

                def has(*fields: bytes) -> bool:
                    return all(text.find(b'"%s"' % field) >= 0 for field in fields)

                if has(b"images", b"annotations", b"categories"):
                    return "" if has(b"caption") and not has(b"bbox") else "coco"
                if has(b"items", b"categories", b"annotations") and not has(b"images"):
                    return "datumaro"
    except (OSError, ValueError):  # an empty file cannot be mapped
        pass
    return ""


def list_name(file: str) -> str:
    """What a list of images is called, by its file: train2017 of annotations/instances_train2017.json."""
    path = PurePosixPath(file)
    name = path.stem.removeprefix("instances_")
    if word_of(name) or path.stem.startswith("instances_"):
        return name
    return next((part for part in reversed(path.parent.parts) if word_of(part)), name)


class Lists:
    """The lists of images of a COCO data set, a JSON file each."""

    format = "coco"

    def __init__(self, tree: Tree, files: Sequence[str], images: Tree) -> None:
        self.tree, self.images = tree, images
        self.notes: list[str] = []
        self.lists: dict[str, list[str]] = {}
        folders = {str(PurePosixPath(file).parent) for file in files if "instances_" in file}
        for file in files:
            path = PurePosixPath(file)
            # COCO's own captions and key points lie beside the instances.
            if str(path.parent) not in folders or path.name.startswith("instances_"):
                self.lists.setdefault(list_name(file), []).append(file)
        for name, several in list(self.lists.items()):
            if len(several) > 1:  # by their paths, so that each can be named
                del self.lists[name]
                self.lists |= {str(PurePosixPath(one).with_suffix("")): [one] for one in several}

    def source(self, path: str) -> "str | Part":
        """What a user names outright: a JSON file, or of the only one the images of a list or a folder."""
        if path.endswith(".json"):
            return path
        files = [file for several in self.lists.values() for file in several]
        if len(files) != 1:
            several = ", ".join(files)
            raise ValueError(
                f"{self.tree.path(path)}: there are several annotation files, name one: {several}"
            )
        return Part(files[0], path)

    def read(self, sources: "Sequence[str | Part]", name: str, problems: Problems) -> "Read":
        """What the files of a list hold."""
        whole = [Part(source, None) if isinstance(source, str) else source for source in sources]
        parts = [Table(self.tree, self.images, part.file, name, problems) for part in whole]
        reads = [table.read() for table in parts]
        for read, part in zip(reads, whole):
            if part.within is not None:
                read.raws = self._within(read.raws, part.within, problems)
        if len(parts) == 1:
            return reads[0]
        names = tuple(dict.fromkeys(name for one in reads for name in one.names))
        raws, seen, double = [], set[Path](), 0
        for one in reads:
            for raw in one.raws:
                double += raw.image in seen
                if raw.image not in seen:
                    raws.append(raw)
                seen.add(raw.image)
        ids = unique_ids([str(raw.image) for raw in raws])
        notes = [note for one in reads for note in one.notes]
        notes += [f"{double} images are in several of the files, and read from the first"] if double else []
        new = {raw.image: id for raw, id in zip(raws, ids)}
        for table, one in zip(parts, reads):
            before = {raw.id: raw.image for raw in one.raws}
            table.ids = {own: new[before[id]] for own, id in table.ids.items()}
        return Read([raw._replace(id=id) for raw, id in zip(raws, ids)], names, notes, parts)

    def _within(self, raws: list[Raw], path: str, problems: Problems) -> list[Raw]:
        """The images of a folder, or of a text file that lists them by name or id."""
        if self.tree.is_folder(path):
            folder = self.tree.path(path)
            return [raw for raw in raws if raw.image.is_relative_to(folder)]
        by_stem: dict[str, list[Raw]] = {}
        for raw in raws:
            by_stem.setdefault(raw.image.stem, []).append(raw)
        found: dict[Path, Raw] = {}
        for number, line in enumerate(read_lines(self.tree.path(path)), 1):
            name = PurePosixPath(plain(line))
            ends = {f"/{line}".casefold() for line in (str(name).lstrip("/"), name.name)}
            same = [
                raw
                for raw in (*by_stem.get(name.stem, ()), *by_stem.get(name.name, ()))
                if any(
                    f"/{one}".casefold().endswith(tuple(ends))
                    for one in (raw.image, raw.image.with_suffix(""))
                )
            ]
            found |= {raw.image: raw for raw in same}
            if not same:
                what = f"entry {number} ({line[:80]}): no such image in the annotations"
                problems.add("image that is not there", self.tree.path(path), what)
        return list(found.values())


class Part(NamedTuple):
    """A JSON file, and the folder or list that its images are of; None is all of them."""

    file: str
    within: str | None


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a COCO data set; see `detloss.lab.data.save`."""
    names = shared_names(splits, names)
    with new_folder(path) as root:
        (root / "annotations").mkdir()
        for split, samples in splits.items():
            folder = root / "images" / split
            folder.mkdir(parents=True)
            text = _text(items(samples, names), names, partial(Item.write_image, folder=folder))
            (root / "annotations" / f"instances_{split}.json").write_text(text, "utf-8")


def list_images(dataset: Dataset, file: Path) -> None:
    """Write a COCO `.json` of images where they lie, by absolute paths; drawn ones go to a folder beside it.

    The id of an image is 1 + its index, that of a category 1 + the label.
    """
    folder = file.with_suffix("").absolute()

    def place(item: Item) -> str:
        if isinstance(item.image, Path):
            return str(item.image.absolute())
        folder.mkdir(exist_ok=True)
        return str(folder / item.write_image(folder))

    file.write_text(_text(items(dataset, dataset.names), dataset.names, place), "utf-8")


def _text(listed: Iterable[Item], names: Sequence[str], place: Callable[[Item], str]) -> str:
    """The JSON of a split; `place` gives the file name of an image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item in listed:
        number, (height, width) = len(images) + 1, item.size
        images.append({"id": number, "file_name": place(item), "width": width, "height": height})
        boxes, labels, ignored, _ = item.annotation
        for (x1, y1, x2, y2), label, crowd in zip(boxes.tolist(), labels.tolist(), ignored.tolist()):
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            annotations.append(one | box | {"iscrowd": int(crowd)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(table, ensure_ascii=False)
