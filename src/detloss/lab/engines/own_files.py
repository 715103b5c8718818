"""What a job on another machine needs of this one: the user's own files, and the way to the data.

A job names files relative to the folder that the command was started in. On the other machine a folder is
made that looks like it: files named in the configuration lie there, so do own modules; data is linked.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
    # A loss may be giou+0.4*mine.py:box,tau=2.
    texts = dict.fromkeys(text for job in jobs for text in _texts(asdict(job)))
    named = (part.rpartition(":")[0] or part for text in texts for part in (text, *re.split(r"[+*,]", text)))
    files = {name for name in named if name and name not in data and Path(name).is_file()}
    return OwnFiles(
        Path.cwd(), {name: Path(name).read_bytes() for name in sorted(files | _modules())}, (*data,)
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _modules() -> set[str]:
    """Imported files below the working folder, but for installed packages, this one among them."""
    installed = [Path(__file__).parents[2], *(Path(place) for place in sys.path if "-packages" in place)]
    installed += [Path(sys.prefix), Path(sys.base_prefix)]
    found = set()
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "")
        own = file.suffix == ".py" and file.is_relative_to(Path.cwd())
        if own and not any(file.is_relative_to(place) for place in installed):
            found.add(str(file.relative_to(Path.cwd())))
    return found


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
