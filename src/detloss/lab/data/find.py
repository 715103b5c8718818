"""Finds the data set in a folder, by what the files there hold, whatever tool has laid them out."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from detloss.lab.data import coco, voc, yolo
from detloss.lab.data.check import assemble
from detloss.lab.data.coco_table import Read
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.folds import is_fold, join, part
from detloss.lab.data.lists import WHOLE, WORDS, choose_split, part_of
from detloss.lab.data.problems import NoImages, Problems
from detloss.lab.data.text import read_start, read_yaml
from detloss.lab.data.tree import Tree, key
from detloss.lab.data.tree import join as inside

Progress = Callable[[int, int], Any]
LOOKED_FOR = (
    "COCO (.json with images, annotations, categories), VOC (.xml), labelme (.json), YOLO (data.yaml, "
    "obj.data, or classes.txt with label files)"
)
MOST_SNIFFED = 20
"""JSON files of one folder that are looked into before the others are taken to be like them."""


@dataclass(frozen=True)
class Reading:
    """How the data on disk are found and read."""

    splits: tuple[str, ...] = ()
    """What each split is, as NAME=PATH: an annotation file, a list of images or a folder, as seen from the
    data folder. A name given twice is both together."""
    images: str = ""
    """Folder of the images, where they are not found by themselves."""
    annotations: str = ""
    """Folder or file of the annotations, where they are not found by themselves."""
    lenient: bool = False
    """Repair or leave out what is wrong in the data, in counts; otherwise it is an error that lists all."""
    allow_outside: bool = False
    """Annotations, lists and links may name files outside the data folder."""


class Lists(Protocol):
    """What the reader of a format knows of a data set: its lists of images, each read when asked for."""

    format: str
    lists: dict[str, list[Any]]
    """Of each list the sources that it is put together from: files, or what else the reader makes of them."""
    notes: list[str]

    def source(self, path: str) -> Any:
        """The source that a user names outright."""

    def read(self, sources: Sequence[Any], name: str, problems: Problems) -> Read:
        """What the sources of a list hold."""


class Found:
    """A data set on disk: its format, its lists of images, and the splits that are made of them."""

    def __init__(self, where: str, tree: Tree, lists: Lists, reading: Reading) -> None:
        self.where, self.tree, self.reading = where, tree, reading
        self._lists = lists
        self.format = lists.format
        self._sources: dict[str, list[Any]] = dict(lists.lists)
        named: dict[str, list[Any]] = {}
        for word in reading.splits:
            name, equals, path = word.partition("=")
            if not equals or not name or not path:
                raise ValueError(f"splits: {word!r} must be NAME=PATH, such as train=annotations/train.json")
            named.setdefault(name, []).extend(self._named(name, path))
        self._sources |= named

    @property
    def splits(self) -> list[str]:
        """The names of the lists of images."""
        return list(self._sources)

    def _named(self, name: str, path: str) -> list[Any]:
        """What a user says a split is: a list of the data set by its name, or a path."""
        if path in self._sources:
            return list(self._sources[path])
        for word in (path, str(Path(path).absolute())):  # seen from the data folder, else from here
            for tree in (self.tree, getattr(self._lists, "images", self.tree)):
                inside = tree.inside(word)
                if inside is not None and (tree.is_file(inside) or tree.is_folder(inside)):
                    return [self._lists.source(inside)]
        there = ", ".join(self._sources) or "none"
        raise ValueError(
            f"splits: {name}={path}: no such file or folder in {self.where}, nor a list of the data ({there})"
        )

    def _choose(self, split: str) -> tuple[str, str | None, list[str]]:
        """As `choose_split`, of the lists here; a list may also be named as its file."""
        for name, sources in self._sources.items():
            path = sources[0] if isinstance(sources[0], str) else getattr(sources[0], "path", None)
            if path is not None and split not in self._sources and len(sources) == 1:
                file = PurePosixPath(path)
                if split in (path, file.name, file.stem) and split not in WORDS:
                    return name, None, []
        return choose_split(split, self._sources, self.where)

    def read(self, split: str) -> tuple[Read, Problems]:
        """A split as it lies there, with what is wrong with it."""
        shipped, half, notes = self._choose(split)
        problems = Problems()
        read = self._lists.read(self._sources[shipped], shipped, problems)
        chosen = part_of([raw.id for raw in read.raws], half, self._of(shipped)) if read.raws else []
        read.raws = [read.raws[i] for i in chosen]
        trees = dict.fromkeys([self.tree, getattr(self._lists, "images", self.tree)])
        refused = [note for tree in trees for note in tree.notes()]
        read.notes = [*notes, *self._lists.notes, *read.notes, *refused]
        return read, problems

    def check(
        self,
        split: str,
        names: Sequence[str] | None = None,
        progress: Progress | None = None,
        decoded: int = sys.maxsize,
    ) -> tuple[Dataset | None, Problems]:
        """A split without what is wrong with it, None where nothing is left; and all that is wrong.

        names, progress: as of `load` and `Dataset.image_problems`; decoded: at most so many images are.
        """
        read, problems = self.read(split)
        try:
            dataset = assemble(read.raws, names or read.names, read.notes, problems, True, self.where)
        except ValueError:
            if not len(problems):
                raise
            return None, problems
        looked = dataset.select(range(min(len(dataset), decoded)))
        problems.extend(looked.image_problems(progress, strict=True))
        return dataset, problems

    def own_ids(self, split: str) -> tuple[dict[int | str, str], dict[int, str]] | None:
        """The ids in COCO's annotations of a split: image id → `Sample.id`, category id → class name."""
        if self.format != "coco":
            return None
        tables = self.read(split)[0].tables
        images = {own: id for table in tables for own, id in table.ids.items()}
        return images, {own: name for table in tables for own, name in table.categories.items()}

    def _of(self, shipped: str) -> str:
        source = self._sources[shipped][0]
        if isinstance(source, yolo.Place):
            return str(source.whole)
        return str(self.tree.path(source)) if isinstance(source, str) else self.where

    def load(self, split: str, names: Sequence[str] | None = None) -> Dataset:
        """One split, checked; see `detloss.lab.data.load`."""
        if is_fold(split):
            try:
                return part(join(lambda one: self.load(WHOLE + one, names), self.splits, names), split)
            except NoImages as error:
                raise NoImages(f"{self.where}: {error}") from None
        read, problems = self.read(split)
        known = read.names if names is None else tuple(names)
        where = self._of(self._choose(split)[0])
        return assemble(read.raws, known, read.notes, problems, self.reading.lenient, where)


def find(path: str | Path, reading: Reading | None = None) -> Found:
    """The data set at a path: a folder, or the file that describes it.

    Raises:
        ValueError: none, or several; the message says what was looked for and what is there.
    """
    reading = reading or Reading()
    root = Path(path)
    if not root.exists():
        raise ValueError(f"{path}: no such path")
    if not root.is_dir() and not root.is_file():
        raise ValueError(f"{path}: is neither a folder nor a plain file")
    outside = reading.allow_outside
    base = root if root.is_dir() else root.parent
    if root.is_file() and base.name.lower() == "annotations":
        base = base.parent  # of COCO's, where the images lie beside
    tree = images = Tree(base, outside)
    start = inside(root.relative_to(base).as_posix())
    if reading.images:
        images = Tree(_given("images", base, reading.images), outside)
    if reading.annotations:
        place = _given("annotations", base, reading.annotations)
        if not place.is_relative_to(base):
            tree = Tree(place if place.is_dir() else place.parent, outside)
            start = "" if place.is_dir() else place.name
        else:
            start = inside(place.relative_to(base).as_posix())
    lists = _lists(root, tree, start, images)
    return Found(str(path), tree, lists, reading)


def _given(argument: str, base: Path, path: str) -> Path:
    """A path that a user names: from the data folder, else from where the command runs."""
    for place in (base / path, Path(path)):
        if place.is_dir() or (argument == "annotations" and place.is_file()):
            return place
    raise ValueError(f"{argument}: {path} is neither in {base} nor here; it must be a folder that is there")


def _lists(root: Path, tree: Tree, start: str, images: Tree) -> Lists:
    """The one data set that is below `start`, a folder or file of the tree."""
    files = [start] if tree.is_file(start) else list(tree.walk(start))
    kinds = _Kinds(tree, files, images, start)
    found = kinds.found()
    if len(found) == 1:
        return next(iter(found.values()))()
    if not found:
        here = tree.describe() if not tree.is_file(start) else f"a file {PurePosixPath(start).suffix}"
        raise ValueError(
            f"{root}: no data set found. Looked for {LOOKED_FOR}; there are {here}; images and annotations "
            "say where they are"
        )
    choices = "; ".join(found)
    raise ValueError(
        f"{root}: several data sets: {choices}. Name the file or folder of one, as the data or as annotations"
    )


class _Kinds:
    """The data sets among files, by what the files hold."""

    def __init__(self, tree: Tree, files: Sequence[str], images: Tree, start: str) -> None:
        self.tree, self.files, self.images, self.start = tree, files, images, start

    def found(self) -> dict[str, Callable[[], Lists]]:
        """What each is, in words → how its lists are made."""
        found: dict[str, Callable[[], Lists]] = {}
        tables, labelme = self._json()
        if tables:
            found[f"COCO ({_some(tables)})"] = partial(coco.Lists, self.tree, tables, self.images)
        for format, own in (("voc", self._of(".xml", b"<annotation")), ("labelme", labelme)):
            if own:
                found[f"{format} ({_some(own)})"] = partial(voc.Lists, self.tree, own, self.images, format)
        apart = self.start or self.tree is not self.images
        labels = self.start if apart and self.tree.is_folder(self.start) else None
        if (described := self._described()) is not None:
            found[f"YOLO ({described})"] = partial(
                yolo.Lists, self.tree, described, self.images, labels=labels
            )
        elif (names := self._names()) is not None and self._label_files():
            found[f"YOLO ({names.name})"] = partial(yolo.Lists, self.tree, None, self.images, names, labels)
        elif not found and (texts := self._label_files()):
            raise ValueError(
                f"{self.tree.root}: YOLO label files ({_some(texts)}) but no names of classes; list them in "
                f"classes.txt there, one a line, or name the data.yaml"
            )
        return found

    def _json(self) -> tuple[list[str], list[str]]:
        """The files of COCO, and those of labelme."""
        tables, labelme = list[str](), list[str]()
        looked: dict[str, list[str]] = {}
        for file in self.files:
            path = PurePosixPath(file)
            if path.suffix.lower() != ".json":
                continue
            seen = looked.setdefault(str(path.parent), [])
            alike = len(seen) >= MOST_SNIFFED and set(seen) == {"labelme"}
            seen += [] if alike else [coco.sniff(self.tree.path(file))]
            # A damaged file that can only be COCO's is an error when it is read.
            meant = path.name.startswith(("instances_", "_annotations.coco")) or file == self.start
            if alike or seen[-1] == "labelme":
                labelme.append(file)
            elif seen[-1] or meant:
                tables.append(file)
        return tables, labelme

    def _of(self, suffix: str, start: bytes) -> list[str]:
        """Files of a suffix, in folders where the first of them begins as it must."""
        files = [file for file in self.files if file.lower().endswith(suffix)]
        looked: dict[str, bool] = {}
        for file in files:
            folder = str(PurePosixPath(file).parent)
            if not looked.get(folder):
                data = read_start(self.tree.path(file), 4096)
                looked[folder] = start + b">" in data or start + b" " in data
        return [file for file in files if looked[str(PurePosixPath(file).parent)]]

    def _described(self) -> str | None:
        """The YAML or darknet file of a YOLO data set: data.yaml, or the only one that names classes."""
        by_depth = sorted(self.files, key=lambda file: (file.count("/"), file))
        found: list[str] = []
        for file in by_depth:
            if found and file.count("/") > found[0].count("/"):
                break
            suffix = PurePosixPath(file).suffix.lower()
            if (
                suffix in (".yaml", ".yml") and (file == self.start or _names_classes(self.tree.path(file)))
            ) or (suffix == ".data" and b"names" in read_start(self.tree.path(file), 4096)):
                found.append(file)
        usual = [file for file in found if PurePosixPath(file).name in ("data.yaml", "data.yml")]
        if len(usual or found) > 1:
            raise ValueError(
                f"{self.tree.root}: several files describe a YOLO data set: {', '.join(found)}; name one of "
                "them as the data"
            )
        return next(iter(usual or found), None)

    def _names(self) -> Path | None:
        """The file that lists the classes, beside the labels or above them."""
        root = self.tree.root
        beside = [PurePosixPath(file).parent for file in self._label_files()[:1]]
        folders = [self.start, *(str(up) for one in beside for up in (one, *one.parents))]
        for folder in [
            *(root / one for one in folders),
            root.parent,
            self.images.root,
            self.images.root.parent,
        ]:
            for name in yolo.CLASSES:
                if (folder / name).is_file() and not (folder / name).is_symlink():
                    return folder / name
        named = [file for file in self.files if file.endswith(".names")]
        return self.tree.path(named[0]) if len(named) == 1 else None

    def _label_files(self) -> list[str]:
        """Text files of the stem of an image; the first few."""
        found = []
        for file in self.files:
            path = PurePosixPath(file)
            if path.suffix.lower() == ".txt" and key(path.stem) in self.images.images:
                found.append(file)
                if len(found) > 3:
                    break
        return found


def _names_classes(file: Path) -> bool:
    """Whether a YAML file has class names; one that cannot be read may."""
    try:
        return "names" in read_yaml(file)
    except ValueError:
        return file.name in ("data.yaml", "data.yml")


def _some(files: Sequence[str]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
