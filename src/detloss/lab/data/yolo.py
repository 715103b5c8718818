"""YOLO: images named by folders or lists, and a text file of rows beside or in place of each `images` folder.

A row is "class cx cy width height" for each object, as fractions of the image's sides; a row of more numbers
is a polygon or an oriented box, of which the box around is read; DOTA's rows (labelTxt) are corners in pixels
and a class name. An image without a file has no objects. The format has no flag for ignored objects. Where
things are is said by `data.yaml`, by darknet's `obj.data`, or by nothing but `classes.txt`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from detloss.lab.data.check import Raw, check_names, unique_ids
from detloss.lab.data.coco import Read
from detloss.lab.data.images import SUFFIXES, image_size
from detloss.lab.data.lists import WORDS, by_folder, read_together, word_of
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import read_lines, read_text, read_yaml
from detloss.lab.data.tree import Tree, join, plain, stem
from detloss.lab.data.write import Splits, items, new_folder, shared_names

SPLITS = ("train", *sorted(set().union(*WORDS.values()) - {"train"}))
LABEL_FOLDERS = ("labels", "label", "labeltxt", "labels_txt", "annotations", "txt")
CLASSES = ("classes.txt", "obj.names", "labels.txt")


@dataclass
class Place:
    """A file or folder of a tree."""

    tree: Tree
    path: str

    @property
    def whole(self) -> Path:
        """As a path."""
        return self.tree.path(self.path)

    def images(self) -> list["Place"]:
        """The images in a folder and below it."""
        return [Place(self.tree, one) for one in self.tree.walk(self.path) if one.lower().endswith(SUFFIXES)]


class Lists:
    """The lists of images of a YOLO data set, and its class names."""

    format = "yolo"

    def __init__(
        self,
        tree: Tree,
        file: str | None,
        images: Tree,
        names_file: Path | None = None,
        labels: str | None = None,
    ) -> None:
        self.tree, self.images, self.labels = tree, images, labels
        self.file = tree.path(file) if file else tree.root
        self.base = str(PurePosixPath(file).parent) if file else ""
        self.base = "" if self.base == "." else self.base
        self.entries: dict[str, Any] = {}
        self.notes: list[str] = []
        if file and file.endswith((".yaml", ".yml")):
            self.entries = read_yaml(self.file)
            names = _names(self.entries.get("names"), self.file)
        else:
            if file:
                self.entries = _darknet(self.file)
                named = self._inside(self.entries.get("names", ""), self.base)
                named = named or self._inside(PurePosixPath(self.entries.get("names", "")).name, self.base)
                names_file = tree.path(named) if named else names_file
            if names_file is None:
                raise ValueError(f"{self.file}: no names of classes; list them in classes.txt, one a line")
            names = tuple(read_lines(names_file))
        self.names = check_names(names, self.file)
        count = self.entries.get("nc", self.entries.get("classes", str(len(names))))
        if str(count).isdecimal() and count != str(len(names)):
            raise ValueError(f"{self.file}: says {count} classes, and names has {len(names)}; correct one")
        self.lists: dict[str, list[Place]] = self._lists()

    def _lists(self) -> dict[str, list[Place]]:
        found = {}
        for split in SPLITS:
            entry = self.entries.get(split)
            if entry in (None, "", []):
                places = [join(self.base, one) for one in (f"images/{split}", f"{split}/images")]
                found[split] = [Place(self.images, one) for one in places if self.images.is_folder(one)][:1]
            else:
                found[split] = [
                    self._place(split, one) for one in (entry if isinstance(entry, list) else [entry])
                ]
        found = {split: places for split, places in found.items() if places}
        if found:
            return found
        for file in self.tree.listing(self.base):  # lists beside the names, as darknet's
            path = join(self.base, file)
            if file.endswith(".txt") and (word_of(file) or file == "images.txt") and self._lists_images(path):
                found[PurePosixPath(file).stem] = [Place(self.tree, path)]
        if found:
            return found
        base = self.base if self.images is self.tree else ""
        files = [place.path for place in Place(self.images, base).images()]
        groups = by_folder(files)
        if rest := groups.pop("", None):
            self.notes.append(
                f"{len(rest)} images are in no folder of a split and not read (first: {rest[0]})"
            )
        self.notes += read_together(groups, "images")
        return {name: [Place(self.images, one) for one in own] for name, own in groups.items()}

    def _lists_images(self, file: str) -> bool:
        lines = read_lines(self.tree.path(file))
        return bool(lines) and lines[0].lower().endswith(SUFFIXES)

    def _place(self, split: str, entry: Any) -> Place:
        """What an entry of the data set's file names: a folder, a list, or an image.

        As it is named; else, where that is another machine's path, the longest end of it that is here.
        """
        if not isinstance(entry, str) or not entry.strip():
            raise ValueError(f"{self.file}: {split}: must be a folder, a list of images, or several of these")
        path = self.entries.get("path")
        path = path if isinstance(path, str) else ""
        named = [join(plain(path), plain(entry)) if not entry.startswith("/") else plain(entry)]
        inside = [self._inside(one, self.base) for one in (*named, entry, plain(entry).removeprefix("../"))]
        there = next((one for one in inside if one is not None), None)
        outside = named[0] if named[0].startswith("/") else str(self.tree.root / self.base / named[0])
        if self._inside(named[0], self.base) is None and os.path.exists(outside):
            choice = f"; {there} in the data folder is there too" if there else ""
            if not self.tree.outside:
                raise ValueError(
                    f"{self.file}: {split}: {entry} is {Path(outside).resolve()}, outside the data folder"
                    f"{choice}; allow_outside reads it, or correct the entry"
                )
            return Place(Tree(Path("/"), True), str(Path(outside).resolve()).lstrip("/"))
        if there is None:
            parts = [part for part in PurePosixPath(plain(entry)).parts if part not in ("/", "..")]
            ends = (self._inside("/".join(parts[i:]), self.base) for i in range(1, len(parts)))
            there = next((one for one in ends if one is not None), None)
            if there is None:
                looked = ", ".join(dict.fromkeys(str(self.tree.path(join(self.base, one))) for one in named))
                raise ValueError(
                    f"{self.file}: {split}: {entry!r} is not there; looked for {looked}. There are "
                    f"{self.tree.describe()}"
                )
            self.notes.append(f"{self.file}: {split}: {entry!r} is not there; read is {there}")
        return Place(self.images if self.images.is_folder(there) else self.tree, there)

    def _inside(self, name: str, base: str) -> str | None:
        """The file or folder of the tree of that name, from a folder of it."""
        if not name:
            return None
        inside = self.tree.inside(name if name.startswith("/") else join(base, plain(name)))
        for tree in (self.tree, self.images):
            if inside is not None and (tree.is_file(inside) or tree.is_folder(inside)):
                return inside
        return None

    def source(self, path: str) -> Place:
        """What a user names outright: a folder of images, a list of images, or an image."""
        return Place(self.images if self.images.is_folder(path) else self.tree, path)

    def read(self, sources: Sequence[Place], name: str, problems: Problems) -> Read:
        """What the images of a list hold."""
        notes: list[str] = []
        found: dict[Path, Place] = {}
        double = 0
        for place in sources:
            for one in self._expand(place, problems, notes):
                double += one.whole in found
                found.setdefault(one.whole, one)
        if double:
            notes.append(f"{double} images are named again and read once (list {name!r})")
        places = list(found.values())
        ids = unique_ids([place.path for place in places])
        labels = _Labels(None if self.labels is None else (self.tree, self.labels))
        rows = _Rows(self.names, self.entries.get("kpt_shape"), problems)
        raws, empty, of_file = [], 0, dict[Path, Path]()
        for place, id in zip(places, ids):
            file = labels.of(place)
            if file is not None and of_file.setdefault(file, place.whole) != place.whole:
                what = f"{of_file[file].name} has the same labels, {file}; which of the two are they of?"
                problems.add("image twice", place.whole, what)
                continue
            try:
                size = image_size(place.whole, lenient=True)
            except ValueError as error:
                file_name, _, what = str(error).partition(": ")
                problems.add("image that cannot be decoded", file_name, what)
                continue
            empty += file is None
            if (raw := rows.read(file, place.whole, id, size)) is not None:
                raws.append(raw)
        if places and empty == len(places) and not labels.there(places[0]):
            problems.add("no labels", *labels.looked(places[0]))
        elif empty:
            notes.append(f"{empty} of {len(places)} images have no label file: images without objects")
        labels.report_orphans(problems)
        return Read(raws, self.names, [*self.notes, *notes, *labels.notes, *rows.notes()])

    def _expand(self, place: Place, problems: Problems, notes: list[str]) -> list[Place]:
        """The images of a folder, a list, or one image."""
        if place.tree.is_folder(place.path):
            return place.images()
        if place.path.lower().endswith(SUFFIXES):
            return [place]
        above = str(PurePosixPath(place.path).parent)
        found, moved = [], []
        path = self.entries.get("path")
        bases = [
            above if above != "." else "",
            join(self.base, plain(path)) if isinstance(path, str) else "",
            "",
        ]
        for number, line in enumerate(read_lines(place.whole), 1):
            one = self._listed(line, bases, place.tree)
            if one is None:
                words = f"entry {number}: {line[:120]!r} is not there; looked from {place.whole.parent}"
                outside = os.path.isabs(line) and os.path.exists(line) and not self.tree.outside
                words += "; it is outside the data folder: allow_outside reads it" if outside else ""
                problems.add("image that is not there", place.whole, words)
                continue
            if one.whole.absolute() != Path(line) and not f"/{one.path}".endswith(f"/{plain(line)}"):
                moved.append(f"{line} → {one.path}")
            found.append(one)
        if moved:
            notes.append(f"{place.whole}: {len(moved)} entries are other paths here (first: {moved[0]})")
        return found

    def _listed(self, line: str, bases: Sequence[str], tree: Tree) -> Place | None:
        """The image of a line of a list: from the list's folder, `path`, the data folder, or its end."""
        for base in dict.fromkeys(bases):
            inside = tree.inside(line if line.startswith("/") else join(base, plain(line)))
            for own in (tree, self.images):
                if inside is not None and own.is_file(inside):
                    return Place(own, inside)
        if tree.outside and os.path.isfile(outside := tree.root / bases[0] / plain(line)):
            return Place(Tree(Path("/"), True), str(outside.resolve()).lstrip("/"))
        if os.path.isabs(line) and os.path.exists(line):
            return None  # named outright, and outside
        parts = [part for part in PurePosixPath(plain(line)).parts if part not in ("/", "..")]
        for i in range(1, len(parts)):
            end = join(self.base, *parts[i:])
            if self.images.is_file(end):
                return Place(self.images, end)
        return None


def _names(value: Any, file: Path) -> tuple[str, ...]:
    """The class names of data.yaml: a list, or numbered from 0."""
    if value in (None, "", [], {}):
        raise ValueError(f"{file}: names: is missing; it lists the classes, as '[a, b]', '- a' or '0: a'")
    if isinstance(value, dict):
        order = sorted(value, key=lambda key: int(key) if str(key).isdecimal() and len(key) < 9 else -1)
        if order != [str(i) for i in range(len(order))]:
            shown = ", ".join(str(key)[:40] for key in list(value)[:5])
            raise ValueError(f"{file}: names: must be numbered 0, 1, 2, ...; found {shown}")
        value = [value[key] for key in order]
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        raise ValueError(f"{file}: names: must be a list of texts, as '[a, b]', '- a' or '0: a'")
    return tuple(one.strip() for one in value)


def _darknet(file: Path) -> dict[str, str]:
    """The entries of obj.data, `key = value` lines, under the names of data.yaml."""
    pairs = (line.partition("=") for line in read_lines(file) if not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


@dataclass
class _Labels:
    """Finds the label file of an image; says where it was looked for, and what there belongs to no image."""

    own: tuple[Tree, str] | None = None
    notes: list[str] = field(default_factory=list)
    _folders: dict[tuple[int, str], tuple[Tree, str] | None] = field(default_factory=dict)
    _files: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict)
    _left: dict[Path, str] = field(default_factory=dict)

    def of(self, image: Place) -> Path | None:
        """The label file of an image, None where it has none."""
        folder, stem_of = str(PurePosixPath(image.path).parent), PurePosixPath(image.path).stem
        folder = "" if folder == "." else folder
        key = (id(image.tree), folder)
        if key not in self._folders:
            self._folders[key] = self._find(image.tree, folder)
            if found := self._folders[key]:
                texts = self._texts(*found)
                for own in _stems(image.tree, folder, SUFFIXES) & texts.keys():
                    self._left.pop(found[0].path(join(found[1], texts[own])), None)
        found = self._folders[key]
        name = self._texts(*found).get(stem_of) if found else None
        return found[0].path(join(found[1], name)) if found and name else None

    def _texts(self, tree: Tree, folder: str) -> dict[str, str]:
        """The label files of a folder by stem; the suffix may be .TXT."""
        key = (id(tree), folder)
        if key not in self._files:
            listed = [name for name in tree.listing(folder) if name.lower().endswith(".txt")]
            self._files[key] = {stem(name): name for name in listed}
            self._left |= {tree.path(join(folder, name)): one for one, name in self._files[key].items()}
        return self._files[key]

    def _candidates(self, tree: Tree, folder: str) -> list[tuple[Tree, str]]:
        """Folders that may hold the labels of an image folder: its `images` as `labels`, else itself."""
        parts = PurePosixPath(folder).parts
        found = []
        for i in reversed(range(len(parts))):
            if parts[i].lower() in ("images", "image", "imgs", "img", "jpegimages"):
                above, rest = "/".join(parts[:i]), parts[i + 1 :]
                # The name that tools look for is the first, then the one spelled otherwise.
                there = [one for one in tree.listing(above) if one.lower() in LABEL_FOLDERS]
                there.sort(key=lambda one: (one != "labels", LABEL_FOLDERS.index(one.lower())))
                found += [(tree, join(above, one, *rest)) for one in there or ["labels"]]
                break
        if self.own is not None:
            tree_of, above = self.own
            found = [(tree_of, join(above, folder)), (tree_of, above), *found]
        if not found and tree.is_folder(join(folder, "labels")):
            found.append((tree, join(folder, "labels")))
        return [*found, (tree, folder)]

    def _find(self, tree: Tree, folder: str) -> tuple[Tree, str] | None:
        stems = _stems(tree, folder, SUFFIXES)
        candidates = self._candidates(tree, folder)
        for own, one in candidates:
            if own.is_folder(one) and stems & _stems(own, one, (".txt",)):
                return own, one
        return candidates[0] if len(candidates) > 1 else None

    def there(self, image: Place) -> bool:
        """Whether there is a folder for the labels of an image, beside that of the images."""
        folder = str(PurePosixPath(image.path).parent)
        return any(
            tree.is_folder(one) and one != folder for tree, one in self._candidates(image.tree, folder)
        )

    def looked(self, image: Place) -> tuple[Path, str]:
        """The folder of an image, and where its labels were looked for and what is there."""
        folder = str(PurePosixPath(image.path).parent)
        folder = "" if folder == "." else folder
        said = []
        for tree, one in dict.fromkeys(self._candidates(image.tree, folder)):
            count = len(_stems(tree, one, (".txt",)))
            there = f"{count} text files of other names" if tree.is_folder(one) else "no such folder"
            said.append(f"{tree.path(one)} ({there})")
        return image.tree.path(folder), f"none of the images has a label file; looked in {', '.join(said)}"

    def report_orphans(self, problems: Problems) -> None:
        """Label files that no image has, and that hold rows: other text files are no data."""
        for path in self._left:
            try:
                rows = [line.split() for line in read_lines(path)]
            except ValueError:
                continue
            if rows and len(rows[0]) >= 5 and all(_is_number(value) for value in rows[0][:5]):
                problems.add("labels without an image", path, "there is no image of this name")


def _stems(tree: Tree, folder: str, suffixes: tuple[str, ...]) -> set[str]:
    return {stem(name) for name in tree.listing(folder) if name.lower().endswith(suffixes)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Rows:
    """Reads label files; counts the rows that are no plain boxes."""

    def __init__(self, names: tuple[str, ...], points: Any, problems: Problems) -> None:
        self.names, self.problems = names, problems
        self.polygons: list[str] = []
        self.corners: list[str] = []
        self.poses: list[str] = []
        pair = isinstance(points, list) and len(points) == 2 and all(str(one).isdecimal() for one in points)
        self.pose = 5 + int(points[0]) * int(points[1]) if pair else None

    def read(self, file: Path | None, image: Path, id: str, size: tuple[int, int]) -> Raw | None:
        """The objects of an image; None where its label file cannot be read."""
        try:
            text = read_text(file) if file is not None else ""
        except ValueError as error:
            what = str(error).removeprefix(f"{file}: ")
            self.problems.add("annotation that cannot be read", str(file), what)
            return None
        found = file or image
        classes, boxes, lines = [], [], []
        for n, line in enumerate(text.splitlines(), 1):
            row = line.split()
            if not row or row[0].lower().startswith(("imagesource:", "gsd:")):  # DOTA's first lines
                continue
            try:
                named, box = self._row(row, size, f"{found}: line {n}")
            except ValueError as error:
                self.problems.add("row that cannot be read", found, f"line {n}: {error}")
                continue
            if len(row) == 6:
                what = f"line {n}: 6 values; the last looks like a confidence, of saved predictions"
                self.problems.add("row with a confidence", found, what)
            classes.append(named)
            boxes.append(box)
            lines.append(n)
        corners = np.array(boxes, np.float64).reshape(-1, 4)

        def place(i: int) -> str:
            return f"line {lines[i]} ({classes[i]})"

        return Raw(image, id, size, classes, corners, np.zeros(len(classes), bool), found, place)

    def _row(self, row: list[str], size: tuple[int, int], where: str) -> tuple[str, np.ndarray]:
        """Class and box of a row."""
        scale = np.array([size[1], size[0]], np.float64)
        shown = reprlib_row(row)
        if len(row) in (9, 10) and not _is_number(row[8]) and all(map(_is_number, row[:8])):
            if row[8] not in self.names:
                raise ValueError(f"class {row[8][:40]!r} is not among {', '.join(self.names[:20])}")
            self.corners.append(where)
            points = np.array([float(value) for value in row[:8]]).reshape(-1, 2)
            return row[8], np.concatenate([points.min(0), points.max(0)])
        pose = len(row) == self.pose
        polygon = len(row) >= 7 and len(row) % 2 == 1 and not pose
        if len(row) not in (5, 6) and not polygon and not pose:
            raise ValueError(f"{len(row)} values, must be 'class cx cy width height'")
        try:
            values = np.array([float(value) for value in row])
        except ValueError:
            raise ValueError(f"{shown} is not {'five' if len(row) < 7 else len(row)} numbers") from None
        label = values[0]
        if not (label.is_integer() and 0 <= label < len(self.names)):
            raise ValueError(f"class {row[0][:20]} is not in 0..{len(self.names) - 1}")
        if (np.abs(values[1:] if polygon else values[1:5]) > 2).any():
            raise ValueError(f"{shown} must be fractions of the image's sides")
        if pose:
            self.poses.append(where)
        if polygon:
            (self.corners if len(row) == 9 else self.polygons).append(where)
            points = values[1:].reshape(-1, 2) * scale
            return self.names[int(label)], np.concatenate([points.min(0), points.max(0)])
        centre, half = values[1:3] * scale, values[3:5] * scale / 2
        return self.names[int(label)], np.concatenate([centre - half, centre + half])

    def notes(self) -> list[str]:
        """What was read as boxes, in counts."""
        return [
            f"{len(rows)} rows are {what}; read are the upright boxes around them (first: {rows[0]})"
            for rows, what in (
                (self.corners, "oriented boxes, or polygons of four corners"),
                (self.polygons, "polygons"),
                (self.poses, "poses"),
            )
            if rows
        ]


def reprlib_row(row: Sequence[str]) -> str:
    """A row as it is shown in a message."""
    text = " ".join(row[:12])
    return repr(text if len(row) <= 12 and len(text) <= 120 else text[:120] + " ...")


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a YOLO data set; see `detloss.lab.data.save`.

    Raises ValueError at an ignored object, which the format cannot hold: `Dataset.without_ignored` drops it.
    """
    names = shared_names(splits, names)
    with new_folder(path) as root:
        for split, samples in splits.items():
            images, texts = root / "images" / split, root / "labels" / split
            images.mkdir(parents=True)
            texts.mkdir(parents=True)
            for item in items(samples, names):
                boxes, labels, ignored, id = item.annotation
                if ignored.any():
                    raise ValueError(
                        f"sample {id}: object {int(ignored.argmax()) + 1} is ignored, which YOLO label files "
                        "cannot say; save dataset.without_ignored(), or another format"
                    )
                item.write_image(images)
                height, width = item.size
                corners = boxes.astype(np.float64)
                centre = (corners[:, :2] + corners[:, 2:]) / 2 / (width, height)
                sides = (corners[:, 2:] - corners[:, :2]) / (width, height)
                rows = np.concatenate([centre, sides], 1).tolist()
                lines = [" ".join([str(c), *map(repr, row)]) for c, row in zip(labels.tolist(), rows)]
                (texts / f"{id}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        entries: dict[str, Any] = {split: f"images/{split}" for split in splits}
        entries["names"] = dict(enumerate(names))
        text = yaml.safe_dump(entries, allow_unicode=True, sort_keys=False)
        (root / "data.yaml").write_text(text, "utf-8")
