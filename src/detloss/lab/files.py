"""Files that survive bad days: whole or not there, on the disk before they count, checked when read."""

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from detloss.lab import signals
from detloss.lab.records import first_line

CHECKPOINT = "last.pt"
"""The name of a run's last checkpoint."""


class Damaged(ValueError):
    """A file that is not as it was written; the message names it."""


def replacing(path: Path, write: Callable[[Path], Any], keep: Path | None = None) -> None:
    """Lets `write` make a file that is either whole or not there, also when the power fails.

    What fails leaves the file that was there before.

    Args:
        path: of the file.
        write: writes to the path that it is called with.
        keep: where the file that was there is moved to, when the new one is whole.

    Raises:
        OSError: it cannot be written, such as on a full disk; it names the path.
    """
    part = path.with_name(path.name + ".part")
    # What writes may be in C, which an exception of ours would leave in a state of its own.
    with signals.held():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(part)
            _to_disk(part)
            if keep and path.exists():
                path.replace(keep)
            part.replace(path)
            _to_disk(path.parent)
        except BaseException as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if isinstance(error, Exception) and (cause := _of_the_disk(error)) is not None:
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk: a rename may overtake what it names."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the system that another one comes from: torch's writer says only that it failed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error
        error = error.__cause__ or error.__context__
    return None


# A checkpoint has two generations. Each is a zip archive, as torch writes it, with a CRC-32 of each record,
# which torch does not look at when it reads.


def before(path: Path) -> Path:
    """Where the checkpoint before the last one is."""
    return path.with_stem(path.stem + "-before")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint; the one that was there is kept as `before(path)`.

    Raises:
        OSError: it cannot be written; what was there stays.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:  # by its name, torch would not say why it fails
            torch.save(state, file)

    replacing(path, write, keep=before(path))


def read_checkpoint(
    path: Path, check: Callable[[dict[str, Any]], None], tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """The last checkpoint that is whole; None where there is none. Nothing in it is executed.

    Args:
        path: of the last one.
        check: raises ValueError where a state is not what it should be.
        tell: called with a line where the last one is damaged and the one before it is taken.

    Raises:
        Damaged: none is whole.
    """
    wrong: list[str] = []
    found = [one for one in (path, before(path)) if one.exists()]
    for one in found:
        try:
            state = _read_whole(one)
            check(state)
        except OSError:
            raise
        except Exception as error:
            wrong.append(f"{one} {first_line(error)}")
            continue
        for line in wrong:
            tell(f"{line}; the checkpoint before it is taken")
        return state
    if not wrong:
        return None
    raise Damaged(f"{'; '.join(wrong)}; to train anew, remove {' and '.join(one.name for one in found)}")


def _read_whole(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise ValueError(f"the checksum of {bad} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"is damaged ({first_line(error)})") from error
    if not isinstance(state, dict):
        raise ValueError(f"holds {type(state).__name__}, no state of a training")
    return state
