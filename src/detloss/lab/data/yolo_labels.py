"""The label files of YOLO data: which one is of an image, and what its rows say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detloss.lab.data.check import Raw
from detloss.lab.data.images import SUFFIXES
from detloss.lab.data.problems import Problems
from detloss.lab.data.text import read_lines, read_text
from detloss.lab.data.tree import Tree, join, stem

LABEL_FOLDERS = ("labels", "label", "labeltxt", "labels_txt", "annotations", "txt")


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


@dataclass
class Labels:
    """Finds the label file of an image; says where it was looked for, and what there belongs to no image."""

    own: tuple[Tree, str] | None = None
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


class Rows:
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
        shown = _shown(row)
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


def _shown(row: Sequence[str]) -> str:
    """A row as it is shown in a message."""
    text = " ".join(row[:12])
    return repr(text if len(row) <= 12 and len(text) <= 120 else text[:120] + " ...")
