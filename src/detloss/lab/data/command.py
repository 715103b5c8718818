"""`detloss scenes`: the embedded data as files."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from detloss.lab.cli.arguments import Out, read
from detloss.lab.cli.terminal import console, counting, say
from detloss.lab.data import SceneConfig, save, scenes
from detloss.lab.runs import new_folder


@dataclass(frozen=True)
class Arguments:
    """Write the embedded scenes as a data set of files."""

    format: Literal["coco", "voc", "yolo"] = "coco"
    """Format of the annotations."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    """What is drawn."""
    out: Out = None
    quick: bool = False
    """Only 64 training and 16 validation scenes."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss scenes`."""
    return read("scenes", Arguments, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss scenes`; its folder is returned."""
    config = arguments.scenes
    if arguments.quick:
        config = replace(config, train=min(config.train, 64), val=min(config.val, 16))
    out = new_folder("scenes", arguments.out)
    with counting("drawing scenes") as progress:
        splits = {split: scenes(config, split, progress=progress) for split in ("train", "val")}
    with console.status(f"writing {config.train + config.val} images"):
        save(splits, out, format=arguments.format)
    say(f"{config.train} training and {config.val} validation images as {arguments.format}")
    return out
