"""A COCO file as tables: every field that is read is there and of its type, each image has its objects."""

import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from detloss.lab.data.check import Raw, check_names, unique_ids
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import printable, read_json
from detloss.lab.data.tree import Images, Tree, join, plain

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


@dataclass
class Read:
    """What a reader yields of a list: images, class names, notes; of COCO the tables, which know its ids."""

    raws: list[Raw]
    names: tuple[str, ...]
    notes: list[str]
    tables: "Sequence[Table]" = ()


class Table:
    """One file: its tables, with every field that is read below there and of its type."""

    def __init__(self, tree: Tree, images: Tree, file: str, name: str, problems: Problems) -> None:
        self.file, self.problems = tree.path(file), problems
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
        self.images = Images(images)
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
