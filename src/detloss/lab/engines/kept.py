"""The folder of a job that is done on another machine, kept here as it is there."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from detloss.lab.runs import replacing

Files = dict[str, bytes | None]
"""Names and contents; None for a file that is gone."""


class Kept:
    """The files of a run where its folder is not the caller's own."""

    def __init__(self, folder: Path, shared: bool, files: Files) -> None:
        self.folder, self.shared = folder, shared
        self.known: dict[str, Any] = {}
        if not shared:
            write_files(folder, files)
            self.known = tell_apart(folder)

    def changed(self) -> Files:
        """What was written since the last call, in that order; {} where the caller has it anyway."""
        if self.shared:
            return {}
        before, self.known = self.known, tell_apart(self.folder)
        gone: Iterable[str] = before.keys() - self.known.keys()
        new = [name for name, stamp in self.known.items() if before.get(name) != stamp]
        return {**{name: (self.folder / name).read_bytes() for name in new}, **dict.fromkeys(gone)}


def tell_apart(folder: Path) -> dict[str, tuple[int, ...]]:
    """The files of a folder, those written last at the end, each with what changes when it is written."""
    files: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
    found = {str(f.relative_to(folder)): f.stat() for f in files if f.is_file() and f.suffix != ".part"}
    stamps = {name: (s.st_mtime_ns, s.st_size, s.st_ino) for name, s in found.items()}
    return dict(sorted(stamps.items(), key=lambda item: item[1]))


def read_files(folder: Path) -> Files:
    """All files of a folder."""
    return {name: (folder / name).read_bytes() for name in tell_apart(folder)}


def write_files(folder: Path, files: Files) -> None:
    """Makes a folder what another one is, a file after the other, each whole or not there."""
    for name, content in files.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            replacing(folder / name, partial(Path.write_bytes, data=content))
