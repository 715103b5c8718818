"""One process at a time works in a folder of results: the others are told who does."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


class Locked(ValueError):
    """Another process works in the folder."""


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keeps other processes out of a folder until the end of the block.

    The system itself gives a lock back when its process ends, however that ends (`flock`). Where the disk
    cannot lock files, the lock is the file alone: what a dead process of this machine left does not count.

    Args:
        folder: made if it is not there.
        patience: seconds to wait for another process to end.

    Raises:
        Locked: another process is in it; the message says who, where and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with _opened(path, time.monotonic() + patience) as file:
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        }
        file.seek(0)
        file.truncate()
        file.write(json.dumps(me))
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # while it is held: nobody else's is removed
                path.unlink()


def _opened(path: Path, until: float) -> IO[str]:
    """The file of the lock, which is this process's."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            if not _flock(file):
                _check_owner(path, file)
            # Who held it before may have removed this very file, and another one is the lock now.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException as error:
            file.close()
            if not isinstance(error, Locked) or time.monotonic() >= until:
                raise
            time.sleep(0.2)
        file.close()


def _flock(file: IO[str]) -> bool:
    """Locks the file; False where the system or the disk cannot."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked(Path(file.name), _owner(file)) from None
    except OSError:
        return False
    return True


def _check_owner(path: Path, file: IO[str]) -> None:
    owner = _owner(file)
    if not owner or owner.get("pid") == os.getpid():
        return
    if owner.get("host") != socket.gethostname() or _lives(int(owner["pid"])):
        raise _locked(path, owner)


def _owner(file: IO[str]) -> dict[str, str]:
    file.seek(0)
    with suppress(ValueError):
        found = json.loads(file.read())
        if isinstance(found, dict) and {"host", "pid", "since"} <= found.keys():
            return found
    return {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _locked(path: Path, owner: dict[str, str]) -> Locked:
    who = "another process"
    if owner:
        who = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    return Locked(
        f"{path.parent} is in use by {who}; wait until it ends, or give another folder. If there is no such "
        f"process, remove {path}"
    )
