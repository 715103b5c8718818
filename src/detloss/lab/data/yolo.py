"""YOLO: images named by folders or lists, and a text file of rows beside or in place of each `images` folder.

A row is "class cx cy width height" for each object, as fractions of the image's sides; a row of more numbers
is a polygon or an oriented box, of which the box around is read; DOTA's rows (labelTxt) are corners in pixels
and a class name. An image without a file has no objects. The format has no flag for ignored objects. Where
things are is said by `data.yaml`, by darknet's `obj.data`, or by nothing but `classes.txt`.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from detloss.lab.data.check import check_names, unique_ids
from detloss.lab.data.coco_table import Read
from detloss.lab.data.images import SUFFIXES, image_size
from detloss.lab.data.lists import WORDS, by_folder, read_together, word_of
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import read_lines, read_yaml
from detloss.lab.data.tree import Tree, join, plain
from detloss.lab.data.write import Splits, items, new_folder, shared_names
from detloss.lab.data.yolo_labels import Labels, Place, Rows

SPLITS = ("train", *sorted(set().union(*WORDS.values()) - {"train"}))
CLASSES = ("classes.txt", "obj.names", "labels.txt")


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
        entries = {split: entry for split in SPLITS if (entry := self.entries.get(split))}
        found = {
            split: [self._place(split, one) for one in (entry if isinstance(entry, list) else [entry])]
            for split, entry in entries.items()
        }
        for split in SPLITS:  # at the usual places, where the file names nothing of this meaning
            places = [join(self.base, one) for one in (f"images/{split}", f"{split}/images")]
            there = [Place(self.images, one) for one in places if self.images.is_folder(one)][:1]
            if there and word_of(split) not in map(word_of, found):
                found[split] = there
                if entries:
                    self.notes.append(f"{self.file}: names no {split!r}; read is {there[0].path}")
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
        labels = Labels(None if self.labels is None else (self.tree, self.labels))
        rows = Rows(self.names, self.entries.get("kpt_shape"), problems)
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
        return Read(raws, self.names, [*notes, *rows.notes()])

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
