"""The user's own files that a configuration names: losses, detectors, trainers, weights."""

import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

CODE = re.compile(r"[\w./\\ -]+:[A-Za-z_]\w*")
OURS = ("torchvision:", "transformers:", "timm:", "detloss.", "detloss:")
"""How names begin that are of installed packages which this one knows."""
PROGRAM = ("__main__", "__mp_main__")
"""What runs is no part of what it names."""


def texts(config: Any) -> Iterator[str]:
    """What stands in a configuration, but where its data is; a sum of losses is several texts, too."""
    if isinstance(config, str):
        yield config
        # A loss may be giou+0.4*mine.py:box,tau=2.
        yield from re.split(r"[+*,]", config)
    elif isinstance(config, dict):
        yield from texts(list(config.values()))
    elif isinstance(config, list | tuple):
        for one in config:
            yield from texts(one)
    elif is_dataclass(config):
        yield from texts([getattr(config, f.name) for f in fields(config) if f.name != "data"])


def named_code(config: Any) -> list[str]:
    """The functions of the user's own that a configuration names, such as mine.py:loss or module:function."""
    found = dict.fromkeys(text for text in texts(config) if CODE.fullmatch(text))
    return [text for text in found if not text.startswith(OURS)]


def named_files(config: Any) -> list[str]:
    """The files that a configuration names, but its data."""
    names = (place for text in texts(config) for place in (text.rpartition(":")[0], text))
    return sorted({name for name in names if name and Path(name).is_file()})


def modules_below(folder: Path) -> dict[str, Path]:
    """The modules from files below a folder that are imported by now, but for installed packages."""
    installed = [Path(__file__).parents[2], *(Path(place) for place in sys.path if "-packages" in place)]
    installed += [Path(sys.prefix), Path(sys.base_prefix)]
    found = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        own = file.suffix == ".py" and file.is_relative_to(folder) and name not in PROGRAM
        if own and not any(file.is_relative_to(place) for place in installed):
            found[name] = file
    return found


def digestible(config: Any) -> dict[str, Path]:
    """All files of the user's that decide what a configuration comes to, and how an error names each.

    They are those that it names, the modules that these have imported from beside or below them, and the
    files of modules that it names.
    """
    found = {f"the file {name}": Path(name) for name in named_files(config)}
    places = [file.absolute().parent for file in found.values() if file.suffix == ".py"]
    for folder in dict.fromkeys(places):
        known = {file.absolute() for file in found.values()}
        below = modules_below(folder).items()
        found |= {f"the module {name}": file for name, file in below if file.absolute() not in known}
    for text in named_code(config):
        file = getattr(sys.modules.get(text.rpartition(":")[0]), "__file__", None)
        if file:
            found.setdefault(f"the module {text.rpartition(':')[0]}", Path(file))
    return found
