"""The files of a data folder: the only ones that readers open, and how an image is found among them."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from detloss.lab.data.images import SUFFIXES
from detloss.lab.data.text import UNPRINTABLE, printable

NO_DATA = {"__MACOSX", "Thumbs.db", "desktop.ini"}
"""What file managers leave; hidden files (.DS_Store, ._a.jpg) are passed over too."""
IMAGE_FOLDERS = {"jpegimages", "images", "image", "imgs", "img", "jpegs", "jpgs", "data"}
FILE, FOLDER = "file", "folder"


def plain(name: str) -> str:
    """A path as annotations write it, with / between its parts and without a leading ./."""
    return os.path.normpath(name.replace("\\", "/")) if name else ""


def key(name: str) -> str:
    """A name as it is looked up: small letters, and é as one sign where macOS has written two."""
    return unicodedata.normalize("NFC", name).casefold()


def stem(path: str) -> str:
    """The path without its suffix."""
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).suffix else path


def join(*parts: str) -> str:
    """Parts of a path put together; "" where that is the folder itself."""
    joined = os.path.normpath("/".join(part for part in parts if part) or ".")
    return "" if joined == "." else joined


class Tree:
    """A folder, listed as far as it is asked for. Paths in it are texts with /, the folder itself is "".

    Not opened are links out of the folder, devices, pipes, and names with control characters; `refused` says
    so of each that was met. With `outside` links may lead out.
    """

    def __init__(self, root: Path, outside: bool = False) -> None:
        self.root = root
        self.outside = outside
        self.refused: dict[str, str] = {}
        self._listed: dict[str, dict[str, str]] = {}
        self._real = root.resolve()

    def path(self, name: str) -> Path:
        """The path of a file of the tree."""
        return self.root / name

    def listing(self, folder: str) -> dict[str, str]:
        """What is in a folder: name → `FILE` or `FOLDER`, sorted; empty where there is no such folder."""
        if folder not in self._listed:
            there = folder == "" or self.is_folder(folder)
            self._listed[folder] = self._list(folder) if there else {}
        return self._listed[folder]

    def _list(self, folder: str) -> dict[str, str]:
        found = {}
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f"{self.root / folder}: cannot be listed ({error.strerror})") from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NO_DATA:
                continue
            why = None if printable(entry.name) else "has control characters in its name; rename it"
            if not why and entry.is_symlink():
                why = self._leads_out(entry)
            if not why and not (entry.is_dir() or entry.is_file()):
                why = "is not a plain file, so it is not opened"
            if why:
                self.refused[join(folder, entry.name)] = why
            else:
                found[entry.name] = FOLDER if entry.is_dir() else FILE
        return found

    def _leads_out(self, entry: os.DirEntry[str]) -> str | None:
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            return "is a link to nothing"
        if Path(entry.path).parent.resolve().is_relative_to(target):
            return "is a link to a folder that it is in"
        if not self.outside and not target.is_relative_to(self._real):
            return "is a link out of the data folder; allow_outside reads it"
        return None

    def is_file(self, name: str) -> bool:
        """Whether there is such a file, and it may be opened."""
        folder, _, last = name.rpartition("/")
        return self.listing(folder).get(last) == FILE

    def is_folder(self, name: str) -> bool:
        """The same of a folder."""
        if name in ("", "/"):
            return True
        folder, _, last = name.rpartition("/")
        return last not in ("", "..") and self.listing(folder).get(last) == FOLDER

    def walk(self, folder: str = "", depth: int = 16) -> Iterator[str]:
        """The files below a folder, sorted."""
        for name, kind in self.listing(folder).items():
            path = join(folder, name)
            if kind == FILE:
                yield path
            elif depth:
                yield from self.walk(path, depth - 1)

    @cached_property
    def files(self) -> list[str]:
        """All files."""
        return list(self.walk())

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """Images by the stem of their names, in small letters."""
        found: dict[str, list[str]] = {}
        for file in self.files:
            if file.lower().endswith(SUFFIXES):
                found.setdefault(key(PurePosixPath(file).stem), []).append(file)
        return found

    def inside(self, name: str) -> str | None:
        """A path as somebody wrote it, as one of the tree; None where it leads out."""
        name = plain(name)
        if name.startswith("/"):
            for root in (self.root.absolute(), self._real):
                if Path(name).is_relative_to(root):
                    return join(Path(name).relative_to(root).as_posix())
            return None
        return None if name == ".." or name.startswith("../") else join(name)

    def describe(self) -> str:
        """What is there, for a message that says what was not found: first names and counts of kinds."""
        top = [name + "/" * (kind == FOLDER) for name, kind in self.listing("").items()]
        kinds: dict[str, int] = {}
        for file in self.files[:100_000]:
            suffix = PurePosixPath(file).suffix.lower() or "no suffix"
            kinds[suffix] = kinds.get(suffix, 0) + 1
        counts = sorted(kinds.items(), key=lambda kind: -kind[1])[:6]
        files = ", ".join(f"{count} {suffix}" for suffix, count in counts) or "no files"
        refused = [f"; {note}" for note in self.notes()]
        shown = f"{', '.join(top[:8]) or 'nothing'}{', ...' if len(top) > 8 else ''} ({files})"
        return shown + "".join(refused)

    def notes(self) -> list[str]:
        """What was met and may not be opened, in one line."""
        if not self.refused:
            return []
        first, why = next(iter(self.refused.items()))
        shown = UNPRINTABLE.sub("\ufffd", first)
        return [f"{len(self.refused)} of the files and folders are not opened (first: {shown} {why})"]


class Images:
    """Finds the image that an annotation means; `guesses` are those found under another path than named."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.guesses: list[str] = []

    def named(self, name: str, folders: Sequence[str]) -> Path:
        """The image of a file name. Looked for in `folders`, then as the end of a path, then by last name.

        Raises:
            ValueError: none, several, or one that may not be opened.
        """
        tree, inside = self.tree, self.tree.inside(name)
        for folder in folders if inside is not None else ():
            if tree.is_file(path := join(folder, inside or "")):
                return tree.path(path)
        if inside is None and tree.outside:
            for folder in ("", *folders):
                if os.path.isfile(outside := tree.root / folder / plain(name)):
                    return outside
        last = PurePosixPath(plain(name))
        same = [
            one
            for one in tree.images.get(key(last.stem), ())
            if one.casefold().endswith(last.suffix.casefold())
        ]
        best = _longest(same, last.parts)
        if len(best) == 1:
            if inside is None or not f"/{best[0]}".endswith(f"/{inside}"):
                self.guesses.append(f"{name!r} → {best[0]}")
            return tree.path(best[0])
        if best:
            raise ValueError(f"several images are named {name!r}: {_few(best)}")
        there = [str(tree.path(folder)) for folder in dict.fromkeys(folders) if tree.is_folder(folder)]
        looked = ", ".join(there[:3])
        refused = [one for one in tree.refused if one == inside or one.endswith(f"/{last.name}")]
        for one in [*refused, *(join(folder, inside) for folder in folders if inside)]:
            if why := next((tree.refused[up] for up in _up(one) if up in tree.refused), None):
                raise ValueError(f"image {name!r} {why}")
        if inside is None:
            raise ValueError(f"image {name!r} is outside the data folder; allow_outside reads it")
        raise ValueError(f"image {name!r} is in none of {looked}, nor elsewhere below {tree.root}")

    def beside(self, annotation: str, named: str) -> Path:
        """The image of an annotation file: of the same stem, nearest to it, else the one that it names."""
        tree, own = self.tree, PurePosixPath(annotation)
        same = tree.images.get(key(own.stem), [])
        exact = [one for one in same if PurePosixPath(one).stem == own.stem] or same
        best = _nearest(exact, own)
        if len(best) > 1:  # a.jpg and a.png: the one that the file names
            last = PurePosixPath(plain(named)).name
            best = [one for one in best if PurePosixPath(one).name == last] or best
        if len(best) > 1:
            raise ValueError(f"several images are of this name: {_few(best)}")
        if best:
            return tree.path(best[0])
        called = PurePosixPath(plain(named))
        nearest = _nearest(tree.images.get(key(called.stem), []), own) if named else []
        nearest = [one for one in nearest if key(PurePosixPath(one).name) == key(called.name)]
        if len(nearest) == 1:
            return tree.path(nearest[0])
        own_refused = [one for one in tree.refused if PurePosixPath(one).stem == own.stem]
        refused = [f"; {one} {tree.refused[one]}" for one in own_refused] or [
            f"; {one}" for one in tree.notes()
        ]
        also = f" nor {called.name!r}" if named and called.stem != own.stem else ""
        raise ValueError(f"no image {own.stem}.jpg, .png, ...{also} below {tree.root}{''.join(refused[:1])}")

    def notes(self) -> list[str]:
        """What was guessed, in one line."""
        if not self.guesses:
            return []
        count = f"{len(self.guesses)} image{'s' * (len(self.guesses) > 1)}"
        return [f"{count} not where the annotations say, found by name (first: {self.guesses[0]})"]


def _up(path: str) -> list[str]:
    return [path, *(str(up) for up in PurePosixPath(path).parents)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _longest(paths: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Those of the paths that share most of the last parts."""

    def shared(path: str) -> int:
        pairs = zip(reversed(PurePosixPath(path).parts), reversed(parts))
        return next((i for i, (a, b) in enumerate(pairs) if key(a) != key(b)), len(parts))

    lengths = [shared(path) for path in paths]
    return [path for path, length in zip(paths, lengths) if length == max(lengths)]


def _nearest(paths: Sequence[str], own: PurePosixPath) -> list[str]:
    """Those of the paths that share most of their folders with a file; of these, in a folder for images."""

    def rank(path: str) -> tuple[int, bool]:
        folders = PurePosixPath(path).parent.parts
        pairs = zip(folders, own.parent.parts)
        shared = next(
            (i for i, (a, b) in enumerate(pairs) if a != b), min(len(folders), len(own.parent.parts))
        )
        here = folders == own.parent.parts
        return -shared, not here and not any(one.lower() in IMAGE_FOLDERS for one in folders[shared:])

    ranks = [rank(path) for path in paths]
    return [path for path, one in zip(paths, ranks) if one == min(ranks)]
