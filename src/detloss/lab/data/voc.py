"""One annotation file an image: Pascal VOC's XML, and labelme's JSON.

Boxes in the XML are VOC's: pixels counted from 1, both ends inside the box. They are read as
(xmin - 1, ymin - 1, xmax, ymax), so that a box of one pixel has area 1, and written the other way round.
`difficult` objects are `ignored`. labelme's rectangles count from 0; of its other shapes with an extent
(polygons, circles) the box around is read. Neither has a list of classes: names are those that occur in the
split, sorted, unless a file `classes.txt` (one name a line; `save` writes it) gives them and their order.
"""

import reprlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detloss.lab.data.check import Raw, check_names, unique_ids
from detloss.lab.data.coco_table import Read
from detloss.lab.data.images import SUFFIXES
from detloss.lab.data.lists import by_folder, read_together, word_of
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import read_json, read_lines, read_xml
from detloss.lab.data.tree import Images, Tree, join, key, plain, stem
from detloss.lab.data.write import Item, Splits, items, new_folder, shared_names

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SHAPES = {"rectangle": 2, "polygon": 3, "circle": 2, "linestrip": 2, "line": 2}
"""labelme's shapes with an extent, and the fewest points of each; lines and points have none."""


class Lists:
    """The lists of images of a folder of annotation files: text files of ids, else folders, else all."""

    def __init__(self, tree: Tree, files: Sequence[str], images: Tree, format: str) -> None:
        self.tree, self.files, self.images, self.format = tree, sorted(files), images, format
        self.notes: list[str] = []
        self._by_stem: dict[str, list[str]] = {}
        for file in self.files:
            self._by_stem.setdefault(PurePosixPath(file).stem, []).append(file)
        known = {key(name) for name in self._by_stem}
        self.lists: dict[str, list[str | list[str]]] = {
            name: [file] for name, file in self._image_sets().items()
        }
        if not self.lists:
            groups = by_folder(self.files)
            if rest := groups.pop("", None):
                count = f"{len(rest)} annotation files are in no folder of a split"
                self.notes.append(f"{count} and not read (first: {rest[0]})")
            self.lists = {name: [own] for name, own in groups.items()}
            self.notes += read_together(groups, "annotation files")

        if tree is images:
            alone = [one for name, own in tree.images.items() if name not in known for one in own]
            if alone:
                self.notes.append(
                    f"{len(alone)} images have no annotation and are not read (first: {alone[0]})"
                )

    def _image_sets(self) -> dict[str, str]:
        """The text files that list ids: those of ImageSets/Main, else those of any folder."""
        folders: dict[str, dict[str, str]] = {}
        for file in self.tree.files:
            path = PurePosixPath(file)
            sets = any(part.lower().startswith("imageset") for part in path.parent.parts)
            named = sets or word_of(path.stem) or path.stem in ("trainval", "all", "default")
            if path.suffix.lower() == ".txt" and named and self._lists_ids(file):
                folders.setdefault(str(path.parent), {})[path.stem] = file
        main = {
            folder: own for folder, own in folders.items() if PurePosixPath(folder).name.lower() == "main"
        }
        chosen = main or folders
        if len(chosen) > 1:  # of several data sets: a list is named by its path
            return {stem(file): file for own in chosen.values() for file in own.values()}
        return next(iter(chosen.values()), {})

    def _lists_ids(self, file: str) -> bool:
        """Whether the lines are ids of annotations. VOC also lists each class by itself, with a flag."""
        lines = read_lines(self.tree.path(file))
        if not lines:
            return PurePosixPath(file).parent.name.lower() == "main"  # an empty list is one
        if any(self._files_of(line) for line in lines[:20]):
            return True
        words, last = lines[0].split(), lines[0].rsplit(None, 1)
        flagged = len(last) == 2 and last[1] in ("-1", "0", "1") and len(words) < 4
        in_main = PurePosixPath(file).parent.name.lower() == "main"
        return not flagged and (in_main or (len(words) <= 4 and any(map(self._files_of, words[:1]))))

    def _files_of(self, line: str) -> list[str]:
        """The annotation files that a line means: an id, with or without folder and suffix."""
        line = plain(line.strip("\"'"))
        known = (".xml", ".json", *SUFFIXES)
        for id in dict.fromkeys((line, stem(line) if line.lower().endswith(known) else line)):
            same = self._by_stem.get(PurePosixPath(id).name, [])
            exact = [one for one in same if f"/{stem(one)}".endswith(f"/{id.lstrip('/')}")]
            if exact or same:
                return exact or (same if "/" in id else [])
        return []

    def source(self, path: str) -> str | list[str]:
        """The list that a user names outright: a text file of ids, or a folder of annotations or images."""
        if self.tree.is_file(path):
            return path
        below = [file for file in self.files if not path or file.startswith(f"{path}/")]
        if not below and self.images is self.tree:
            stems = {PurePosixPath(file).stem for file in self.tree.walk(path)}
            below = [file for file in self.files if PurePosixPath(file).stem in stems]
        if not below:
            raise ValueError(f"{self.tree.path(path)}: no annotations there; name a list of ids or a folder")
        return below

    def read(self, sources: Sequence[str | list[str]], name: str, problems: Problems) -> Read:
        """What the files of a list hold."""
        notes: list[str] = []
        files: dict[str, None] = {}
        for source in sources:
            listed = self._listed(source, problems) if isinstance(source, str) else source
            double = len(listed) - len(set(listed)) + len(files.keys() & set(listed))
            if double:
                notes.append(f"{double} images are listed again and read once (list {name!r})")
            files |= dict.fromkeys(listed)
        ids = unique_ids(list(files))
        images, parse = Images(self.images), _parse_voc if self.format == "voc" else _parse_labelme
        raws, used = [], set()
        for file, id in zip(files, ids):
            raw = parse(self.tree.path(file), file, id, images, problems)
            if raw is not None and raw.image in used:
                what = f"its image {raw.image} is that of another annotation, too"
                problems.add("image twice", raw.file, what)
            elif raw is not None:
                used.add(raw.image)
                raws.append(raw)
        listed_names = self._names()
        names = listed_names or tuple(sorted({one for raw in raws for one in raw.classes}))
        return Read(raws, check_names(names, self.tree.root), [*notes, *images.notes()])

    def _listed(self, file: str, problems: Problems) -> list[str]:
        """The annotation files of a list of ids."""
        found = []
        beside = PurePosixPath(file).parts
        depth = next((i for i, part in enumerate(beside) if part.lower().startswith("imageset")), 0)
        own = "/".join(beside[:depth])  # VOC2007 of VOC2007/ImageSets/Main/train.txt
        for number, line in enumerate(read_lines(self.tree.path(file)), 1):
            same = self._files_of(line) or (self._files_of(line.split()[0]) if line.split() else [])
            near = [one for one in same if not own or one.startswith(f"{own}/")] or same
            if len(near) == 1:
                found.append(near[0])
                continue
            several = f"several annotations: {', '.join(near[:3])}"
            suffix = ".xml" if self.format == "voc" else ".json"
            folder = PurePosixPath(self.files[0]).parent if self.files else ""
            missing = self.tree.path(join(str(folder), plain(line) + suffix))
            what = several if near else f"{missing}: no such annotation"
            problems.add(
                "annotation that cannot be read",
                self.tree.path(file),
                f"entry {number} ({line[:80]}): {what}",
            )
        return found

    def _names(self) -> tuple[str, ...]:
        if "classes.txt" in self.tree.listing(""):
            return tuple(read_lines(self.tree.path("classes.txt")))
        return ()


def _parse_voc(file: Path, name: str, id: str, images: Images, problems: Problems) -> Raw | None:
    """An annotation in which every object has a name and a box; None where it or its image is unusable."""
    try:
        tree = read_xml(file)
        if tree.tag != "annotation":
            raise ValueError(f"{file}: begins with <{tree.tag[:40]}>, and VOC's with <annotation>")
        image = images.beside(name, _text(tree, "filename") or _text(tree, "path"))
    except ValueError as error:
        _left_out(file, error, problems)
        return None
    size = _size(file, tree, problems)
    classes, boxes, flags, numbers = [], [], [], []
    for number, o in enumerate(tree.findall("object"), 1):
        if not (called := _text(o, "name")):
            what = f"object {number} has no <name>; every object must name its class"
            problems.add("wrong value", file, what)
            continue
        corners = [o.findtext(f"bndbox/{corner}") for corner in CORNERS]
        values = [_float(text) for text in corners]
        if None in values:
            k = values.index(None)
            what = f"object {number} ({called}): bndbox/{CORNERS[k]} is {corners[k]!r}, must be a number"
            problems.add("wrong value", file, what)
            continue
        flag = _text(o, "difficult")
        if flag not in ("0", "1", "", "Unspecified"):
            what = f"object {number} ({called}): difficult is {flag!r}, must be 0, 1 or left out"
            problems.add("wrong flag", file, what)
        classes.append(called)
        boxes.append(values)
        flags.append(flag == "1")
        numbers.append(number)
    corners_of = np.array(boxes, np.float64).reshape(-1, 4)
    inverted = corners_of[:, :2] > corners_of[:, 2:]  # whichever comes first in the image counts from 1
    corners_of -= np.concatenate([~inverted, inverted], 1)
    place = partial(_place, "object", numbers, classes)
    return Raw(image, id, size, classes, corners_of, np.array(flags, bool), file, place)


def _place(what: str, numbers: Sequence[int], classes: Sequence[str], i: int) -> str:
    return f"{what} {numbers[i]} ({classes[i]})"


def _left_out(file: Path, error: ValueError, problems: Problems) -> None:
    text = str(error)
    own = text.startswith(f"{file}: ")
    kind = "annotation that cannot be read" if own else "image that is not there"
    problems.add(kind, file, text.removeprefix(f"{file}: "))


def _text(node: ET.Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _size(file: Path, tree: ET.Element, problems: Problems) -> tuple[int, int] | None:
    values = [_float(tree.findtext(f"size/{side}") or "0") for side in ("height", "width")]
    if any(value is None or not value.is_integer() or abs(value) > 2**31 for value in values):
        problems.add("wrong value", file, "size: width and height must be whole numbers")
        return None
    height, width = (int(value or 0) for value in values)
    return (height, width) if height > 0 and width > 0 else None  # some tools leave it out or write 0


def _parse_labelme(file: Path, name: str, id: str, images: Images, problems: Problems) -> Raw | None:
    try:
        table: Any = read_json(file)
        if not isinstance(table, dict) or not isinstance(table.get("shapes"), list):
            raise ValueError(f"{file}: has no list 'shapes', as labelme's files have")
        named = table.get("imagePath")
        image = images.beside(name, named if isinstance(named, str) else "")
    except ValueError as error:
        _left_out(file, error, problems)
        return None
    height, width = (
        side if type(side) is int and 0 < side < 2**31 else 0
        for side in (table.get("imageHeight"), table.get("imageWidth"))
    )
    size = (height, width) if height and width else None
    classes, boxes, numbers = [], [], []
    for number, shape in enumerate(table["shapes"], 1):
        shape = shape if isinstance(shape, dict) else {}
        kind, label = shape.get("shape_type", "polygon"), shape.get("label")
        try:
            points = np.atleast_1d(np.array(shape.get("points") or [], np.float64))
        except (ValueError, TypeError, OverflowError):
            points = np.zeros(0)
        fewest = SHAPES.get(kind) if isinstance(kind, str) else None
        if not isinstance(label, str) or not label.strip():
            problems.add(
                "wrong value", file, f"shape {number} has no label; every object must name its class"
            )
        elif fewest is None or points.ndim != 2 or points.shape[1] != 2 or len(points) < fewest:
            shown = reprlib.repr(kind)
            what = f"shape {number} ({label[:40]}): {shown} of {len(points)} points has no box around it"
            problems.add("wrong value", file, what)
        else:
            if kind == "circle":
                radius = np.linalg.norm(points[1] - points[0])
                points = np.stack([points[0] - radius, points[0] + radius])
            classes.append(label.strip())
            boxes.append([*points.min(0), *points.max(0)])
            numbers.append(number)
    place = partial(_place, "shape", numbers, classes)
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return Raw(image, id, size, classes, corners, np.zeros(len(classes), bool), file, place)


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a VOC folder; see `detloss.lab.data.save`. An id may not occur in two splits."""
    names = shared_names(splits, names)
    with new_folder(path) as root:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for split, samples in splits.items():
            ids = []
            for item in items(samples, names):
                id = item.annotation.id
                if (root / "Annotations" / f"{id}.xml").exists():
                    raise ValueError(f"id {id!r} occurs in two splits; VOC keeps one annotation of each id")
                image = item.write_image(root / "JPEGImages")
                _tree(item, image, names).write(root / "Annotations" / f"{id}.xml", "utf-8")
                ids.append(id)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text(
                "".join(f"{id}\n" for id in ids), "utf-8"
            )
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")


def _tree(item: Item, image: str, names: Sequence[str]) -> ET.ElementTree:
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = image
    size = ET.SubElement(root, "size")
    for side, value in (("width", item.size[1]), ("height", item.size[0]), ("depth", 3)):
        ET.SubElement(size, side).text = str(value)
    boxes, labels, ignored, _ = item.annotation
    for box, label, difficult in zip(boxes.tolist(), labels, ignored):
        node = ET.SubElement(root, "object")
        ET.SubElement(node, "name").text = names[label]
        ET.SubElement(node, "difficult").text = str(int(difficult))
        corners = ET.SubElement(node, "bndbox")
        for corner, value in zip(CORNERS, (box[0] + 1, box[1] + 1, box[2], box[3])):
            ET.SubElement(corners, corner).text = f"{value:.17g}"
    ET.indent(root)
    return ET.ElementTree(root)
