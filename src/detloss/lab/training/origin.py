"""What the results in a folder rest on: the contents of the data and of the user's own files, and versions.

A configuration names files, and what is in them may change: results from before and after would be mixed.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detloss.lab.data import Dataset
from detloss.lab.own_code import digestible
from detloss.lab.runs import WrongFolder, read_json, write_json

FILE = "origin.json"
VERSIONS = ("detloss", "torch", "numpy")
"""Packages whose versions change what a run comes to; CPU and CUDA builds of one version are alike."""


def origin_of(config: Any, splits: Mapping[str, Dataset]) -> dict[str, str]:
    """What identifies all that results rest on beside the configuration, by an error's words for it.

    Every image is read, from its file as it is.
    """
    found = {what: _digest(file.read_bytes()) for what, file in digestible(config).items()}
    for name, dataset in splits.items():
        objects, pixels = hashlib.sha256(), hashlib.sha256()
        objects.update(repr(dataset.names).encode())
        for i in range(len(dataset)):
            boxes, labels, ignored, id = dataset.annotation(i)
            objects.update(repr((id, boxes.tolist(), labels.tolist(), ignored.tolist())).encode())
            file = dataset.file(i)
            pixels.update(_digest(file.read_bytes() if file else dataset[i].image.tobytes()).encode())
        found[f"the objects of split {name}"] = objects.hexdigest()
        found[f"the pixels of split {name}"] = pixels.hexdigest()
    return found | {f"the version of {name}": version(name).partition("+")[0] for name in VERSIONS}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def claim_origin(out: Path, found: Mapping[str, str]) -> None:
    """Writes down what results rest on, in a folder that is begun now; in another one compares it.

    Raises:
        WrongFolder: it is not what the folder was begun with; the message says what has changed.
    """
    if not (out / FILE).exists():
        write_json(out / FILE, dict(found))
        return
    known = read_json(out / FILE)
    changed = [what for what in {**known, **found} if known.get(what) != found.get(what)]
    if not changed:
        return
    what, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    values = ""
    if what.startswith("the version"):
        values = f", from {known.get(what)} to {found.get(what)}"
    raise WrongFolder(
        f"{what} has changed{values}{more} since {out} was begun, and results of both would be mixed: put it "
        "back as it was"
    )
