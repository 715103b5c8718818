"""COCO JSON: a file of images, categories and annotations for each list of images.

Category ids may have gaps; labels are 0..C-1 in the order of the ids, or by name where names are given.
`bbox` is (x, y, width, height), the corner counted from 0; where there is none it is the box around the
polygons of `segmentation`. `iscrowd` objects are `ignored`. No other fields are read. Datumaro's own JSON is
read too, by way of the same tables.
"""

import json
import mmap
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from detloss.lab.data.check import Raw, check_names, unique_ids
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.lists import word_of
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import printable, read_json, read_lines
from detloss.lab.data.tree import Images, Tree, join, plain
from detloss.lab.data.write import Item, Splits, items, new_folder, shared_names

Row = dict[str, Any]
T = TypeVar("T", dict[str, Any], list[Any])


def _number(value: Any) -> bool:
    # JSON's true is no number, and an integer may be too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> bool:
    return _number(value) and value % 1 == 0


def _polygons(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(one, list) and len(one) >= 6 and all(map(_number, one)) for one in value)
    )


# What a field must be: a test, and the same in words.
ID = (lambda v: _whole(v) or isinstance(v, str), "a whole number or a text")
CATEGORY = (_whole, "a whole number")
TEXT = (lambda v: isinstance(v, str) and v.strip() != "" and printable(v), "a text that is not empty")
SIDE = (lambda v: _whole(v) and 0 <= v < 2**31, "a whole number of pixels, at least 1, or left out")
BOX = (
    lambda v: isinstance(v, list) and len(v) == 4 and all(map(_number, v)),
    "[x, y, width, height], four finite numbers",
)
FLAG = (lambda v: v is None or (type(v) in (int, float, bool) and v in (0, 1)), "0 or 1")
FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {"id": ID, "file_name": TEXT},
    "categories": {"id": CATEGORY, "name": TEXT},
    "annotations": {"image_id": ID, "category_id": CATEGORY},
}


def sniff(file: Path) -> str:
    """ "coco", "datumaro", "labelme", or "" where the JSON is another one; seen from its names of fields."""
    try:
        with file.open("rb") as opened:
            start = opened.read(65536).replace(b"\0", b"")  # UTF-16 has zeros in between
            if b'"shapes"' in start and b'"images"' not in start:
                return "labelme"
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                wide = len(start) < 40000 and whole.find(b"\0") >= 0
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
        parts = [Table(self, part.file, name, problems) for part in whole]
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


@dataclass
class Read:
    """What a reader yields of a list: images, class names, notes; of COCO the tables, which know its ids."""

    raws: list[Raw]
    names: tuple[str, ...]
    notes: list[str]
    tables: "Sequence[Table]" = ()


class Table:
    """One file: its tables, with every field that is read below there and of its type."""

    def __init__(self, lists: Lists, file: str, name: str, problems: Problems) -> None:
        self.file, self.problems, self.lists = lists.tree.path(file), problems, lists
        self.notes: list[str] = []
        self._unknown = {kind: False for kind in FIELDS}  # whether a row of a kind was left out
        table = read_json(self.file, _without_outlines)
        if isinstance(table, dict) and "items" in table and "images" not in table:
            table = _from_datumaro(table, self.file)
        for kind in FIELDS:
            if not isinstance(table, dict) or not isinstance(table.get(kind), list):
                words = f"COCO detection files hold {', '.join(FIELDS)}"
                raise ValueError(f"{self.file}: has no list {kind!r}; {words}")
        self.annotations = self._valid(table, "annotations")
        self.categories = self._categories(self._valid(table, "categories"))
        self.rows = self._images(self._valid(table, "images"))
        self.images = Images(lists.images)
        self.folders = _image_folders(file, name)
        self.ids: dict[Any, str] = {}

    def _valid(self, table: Row, kind: str) -> list[Row]:
        good = []
        for i, row in enumerate(table[kind]):
            for field, (valid, words) in FIELDS[kind].items():
                if not isinstance(row, dict) or field not in row:
                    self.problems.add("wrong value", self.file, f"{kind}[{i}] has no {field!r}")
                    break
                if not valid(row[field]):
                    self._wrong(f"{kind}[{i}].{field}", row[field], words)
                    break
            else:
                good.append(row)
        self._unknown[kind] = len(good) < len(table[kind])
        return good

    def _wrong(self, where: str, value: Any, words: str, kind: str = "wrong value") -> None:
        if isinstance(value, str) and not printable(value):
            words = "without control characters"
        self.problems.add(kind, self.file, f"{where} is {reprlib.repr(value)}, must be {words}")

    def _double(self, rows: Sequence[Row], kind: str, field: str) -> set[Any]:
        return {value for value, count in Counter(row[field] for row in rows).items() if count > 1}

    def _categories(self, rows: list[Row]) -> dict[Any, str]:
        """Id → name, sorted. A root, only there for others to be under, is left out."""
        for double in self._double(rows, "categories", "id"):
            what = f"categories: id {double!r} occurs more than once"
            self.problems.add("class twice", self.file, what)
        used = {row["category_id"] for row in self.annotations}
        above = Counter(row["supercategory"] for row in rows if isinstance(row.get("supercategory"), str))
        roots = [
            row
            for row in rows
            if row["id"] not in used and above[row["name"]] > (row.get("supercategory") == row["name"])
        ]
        for row in roots:
            self.notes.append(f"category {row['name']!r} (id {row['id']}) is above others only: left out")
        left = {id(row) for row in roots}
        rows = [row for row in rows if id(row) not in left]
        for name in self._double(rows, "categories", "name"):
            what = f"categories: name {name!r} occurs more than once"
            self.problems.add("class twice", self.file, what)
        return {row["id"]: row["name"] for row in sorted(rows, key=lambda row: row["id"])}

    def _images(self, rows: list[Row]) -> list[Row]:
        for field in ("id", "file_name"):
            for value in self._double(rows, "images", field):
                what = f"images: {field} {value!r} occurs more than once"
                self.problems.add("image twice", self.file, what)
        return rows

    def read(self) -> Read:
        """The images with their objects."""
        names = check_names(tuple(dict.fromkeys(self.categories.values())), self.file)
        by_image: dict[Any, list[Row]] = {row["id"]: [] for row in self.rows}
        polygons, ids = 0, Counter[Any]()
        for i, row in enumerate(self.annotations):
            id = row.get("id")
            if isinstance(id, int | str):
                ids[id] += 1
            if row["image_id"] not in by_image:
                if not self._unknown["images"]:
                    what = f"{_which(row)}: there is no image of id {row['image_id']!r}"
                    self.problems.add("wrong value", self.file, what)
                continue
            if row["category_id"] not in self.categories:
                if not self._unknown["categories"]:
                    what = f"{_which(row)}: there is no category of id {row['category_id']}"
                    self.problems.add("wrong value", self.file, what)
                continue
            if not BOX[0](box := row.get("bbox")):
                if box or not _polygons(row.get("segmentation")):
                    if "bbox" in row:
                        self._wrong(f"annotations[{i}].bbox", box, BOX[1])
                    else:
                        self.problems.add("wrong value", self.file, f"annotations[{i}] has no 'bbox'")
                    continue
                polygons += 1
                row["bbox"] = _around(row["segmentation"])
            if not FLAG[0](row.get("iscrowd")):
                self._wrong(f"annotations[{i}].iscrowd", row["iscrowd"], FLAG[1], "wrong flag")
                row["iscrowd"] = 0
            by_image[row["image_id"]].append(row)
        if odd := sum(count - 1 for count in ids.values()):
            self.notes.append(f"{self.file}: {odd} ids of annotations are there again; they are not used")
        if polygons:
            self.notes.append(
                f"{self.file}: {polygons} objects have no box and get that around their polygons"
            )
        raws = self._raws(by_image)
        return Read(raws, names, [*self.notes, *self.images.notes()], [self])

    def _raws(self, by_image: dict[Any, list[Row]]) -> list[Raw]:
        found: dict[Path, tuple[int, Row, list[Row]]] = {}
        unsized = 0
        for i, row in enumerate(self.rows):
            try:
                path = self.images.named(row["file_name"], self.folders)
            except ValueError as error:
                self.problems.add("image that is not there", self.file, f"images[{i}]: {error}")
                continue
            found.setdefault(path, (i, row, []))[2].extend(by_image.pop(row["id"], []))
        names = [row["file_name"] for _, row, _ in found.values()]
        ids = unique_ids([plain(name) for name in names])
        raws = []
        for (path, (i, row, objects)), id in zip(found.items(), ids):
            self.ids[row["id"]] = id
            size = None
            height, width = row.get("height"), row.get("width")
            if height and width and SIDE[0](height) and SIDE[0](width):
                size = (int(height), int(width))
            elif wrong := [f for f in ("height", "width") if row.get(f) is not None and not SIDE[0](row[f])]:
                self._wrong(f"images[{i}].{wrong[0]}", row[wrong[0]], SIDE[1])
                continue
            else:
                unsized += 1
            raws.append(self._raw(path, id, size, objects))
        if unsized:
            self.notes.append(f"{self.file}: {unsized} images have no size there; it is read from the images")
        return raws

    def _raw(self, path: Path, id: str, size: tuple[int, int] | None, objects: list[Row]) -> Raw:
        classes = [self.categories[row["category_id"]] for row in objects]
        boxes = np.array([row["bbox"] for row in objects], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ignored = np.array([bool(row.get("iscrowd")) for row in objects], bool)

        def place(i: int) -> str:
            return f"{_which(objects[i])} ({id}, {classes[i]})"

        return Raw(path, id, size, classes, boxes, ignored, self.file, place)


def _without_outlines(row: Row) -> Row:
    """An object of the JSON without the polygons that have a box: they are most of a large file."""
    if "segmentation" in row and row.get("bbox"):
        del row["segmentation"]
    return row


def _which(row: Row) -> str:
    return f"annotation {reprlib.repr(row.get('id', 'without id'))} of image {row['image_id']}"


def _around(polygons: list[list[float]]) -> list[float]:
    """The box around polygons, as (x, y, width, height)."""
    x = [value for one in polygons for value in one[0::2]]
    y = [value for one in polygons for value in one[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _image_folders(file: str, split: str) -> list[str]:
    """Where the images of a file are looked for first."""
    path = PurePosixPath(file)
    name, base = path.stem.removeprefix("instances_"), str(path.parent)
    base = "" if base == "." else base
    above = join(base, "..") if PurePosixPath(base).name.lower() in ("annotations", "labels") else base
    short = {split, name, name.rstrip("0123456789")} - {""}
    places = [
        join(parent, sub)
        for parent in dict.fromkeys((above, base))
        for sub in (
            *(f"images/{one}" for one in sorted(short, key=len, reverse=True)),
            *sorted(short),
            "images",
            "",
        )
    ]
    return list(dict.fromkeys([*places, base]))


def _of_type(kind: type[T], value: Any) -> T:
    return value if isinstance(value, kind) else kind()


def _from_datumaro(table: Row, file: Path) -> Row:
    """Datumaro's tables as COCO's: items with their annotations, labels by their place in a list."""
    labels = _of_type(dict, _of_type(dict, table.get("categories")).get("label")).get("labels")
    if not isinstance(labels, list) or not isinstance(table["items"], list):
        raise ValueError(f"{file}: has no list 'images', nor the items and labels of Datumaro")
    categories = [{"id": i, "name": one.get("name")} for i, one in enumerate(labels) if isinstance(one, dict)]
    images, annotations = [], []
    for number, item in enumerate(table["items"]):
        item = item if isinstance(item, dict) else {}
        image = _of_type(dict, item.get("image"))
        size = _of_type(list, image.get("size"))
        height, width = size if len(size) == 2 else (None, None)
        name = image.get("path") or item.get("id")
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for one in _of_type(list, item.get("annotations")):
            if not isinstance(one, dict) or one.get("type") not in ("bbox", "polygon"):
                continue
            row = {"id": one.get("id", 0), "image_id": number, "category_id": one.get("label_id")}
            row["iscrowd"] = int(bool(_of_type(dict, one.get("attributes")).get("is_crowd")))
            points = one.get("points")
            annotations.append(row | {"bbox": one.get("bbox"), "segmentation": [points] if points else []})
    return {"images": images, "annotations": annotations, "categories": categories}


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
