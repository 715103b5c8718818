"""What a job on another machine needs of this one: the user's own files, and the way to the data.

A job names files relative to the folder that the command was started in. On the other machine a folder is
made that looks like it: files named in the configuration lie there, so do own modules; data is linked.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detloss.lab.own_code import modules_below, named_files


@dataclass(frozen=True)
class OwnFiles:
    """What is taken along.

    Attributes:
        here: the folder that the command was started in.
        files: names, as the configuration has them, and contents.
        data: data folders, as the configuration has them; they are not taken along.
    """

    here: Path
    files: dict[str, bytes]
    data: tuple[str, ...]


def pack(jobs: Sequence[Any]) -> OwnFiles:
    """The files that jobs name, and the modules below the working folder that are imported by now.

    Args:
        jobs: dataclasses; `job.data` is the path of its data, or "".
    """
    data = dict.fromkeys(job.data for job in jobs if job.data)
    files = {name for job in jobs for name in named_files(job)} - data.keys()
    here = Path.cwd()
    files |= {str(file.relative_to(here)) for file in modules_below(here).values()}
    return OwnFiles(here, {name: Path(name).read_bytes() for name in sorted(files)}, (*data,))


def unpack(own: OwnFiles, root: Path) -> None:
    """Makes a working folder like that of the command below `root`, and goes there.

    Raises:
        ValueError: data that is not on this machine, or an own file outside that must be the same here.
    """
    here = root.joinpath(*own.here.parts[1:])
    here.mkdir(parents=True, exist_ok=True)
    for name, content in own.files.items():
        path = Path(os.path.normpath(here / name))
        if not Path(name).is_absolute():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            raise ValueError(
                f"{name} is not the same file here; name it relative to the folder that the command is "
                "started in, and it is sent along"
            )
    for name in own.data:
        path, real = Path(os.path.normpath(here / name)), own.here / name
        if not real.exists():
            raise ValueError(
                f"the data {real} is not here, and data is not sent: copy it to the same path on every "
                "node, or name a folder that all nodes share"
            )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(real)
    os.chdir(here)
    sys.path.insert(0, str(here))
