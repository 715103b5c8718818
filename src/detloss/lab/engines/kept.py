"""The folder of a job that is done on another machine, kept here as it is there."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from detloss.lab.files import CHECKPOINT, before, replacing
from detloss.lab.lock import NAME as LOCK

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
        known, self.known = self.known, tell_apart(self.folder)
        gone: Iterable[str] = known.keys() - self.known.keys()
        new = [name for name, stamp in self.known.items() if known.get(name) != stamp]
        # The checkpoint before the last one is there already, as the last one.
        new = [name for name in new if not name.endswith(before(Path(CHECKPOINT)).name)]
        return {**{name: (self.folder / name).read_bytes() for name in new}, **dict.fromkeys(gone)}


def tell_apart(folder: Path) -> dict[str, tuple[int, ...]]:
    """The files of a folder, those written last at the end, each with what changes when it is written."""
    files: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
    kept = (f for f in files if f.is_file() and f.suffix != ".part" and f.name != LOCK)
    found = {str(f.relative_to(folder)): f.stat() for f in kept}
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
            path = folder / name
            keep = before(path) if path.name == CHECKPOINT else None
            replacing(path, partial(Path.write_bytes, data=content), keep)
