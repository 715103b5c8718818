"""`detloss predict`: boxes on a user's own images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from detloss.lab.cli.arguments import Out, read
from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import read_image
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import to_coco_results
from detloss.lab.runs import new_folder, write_json
from detloss.lab.training.predict import find_images, predict_files
from detloss.lab.training.trained import load_detector


@dataclass(frozen=True)
class Arguments:
    """Detect in images or folders of images: drawn boxes and COCO results."""

    run: tyro.conf.Positional[Path]
    """Run folder of `detloss train`, or a run of a comparison."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Images, or folders of images."""
    score: float = 0.3
    """Least score of a box that is drawn; detections.json holds all."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    out: Out = None
    quick: bool = False
    """Only the first 8 images."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss predict`."""
    return read("predict", Arguments, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss predict`; its folder is returned."""
    device = pick_device(arguments.device)
    detector, config, names = load_detector(arguments.run, device)
    files = find_images(arguments.images)
    if arguments.quick:
        files = files[:8]
    if arguments.out and any(file.resolve().parent == arguments.out.resolve() for file in files):
        raise ValueError(f"--out {arguments.out} is where the images are; drawn ones would replace them")
    with counting("reading images") as progress:
        for i, file in enumerate(files, 1):
            read_image(file)  # a damaged one is an error before anything is written
            progress(i, len(files))
    if arguments.out and (arguments.out / "config.json").exists():
        raise ValueError(f"--out {arguments.out} holds a run, which is kept; give another folder")
    out = new_folder("predict", arguments.out)
    with counting("detecting") as progress:
        ids, found = predict_files(detector, config, names, files, out, device, arguments.score, progress)
    write_json(out / "detections.json", to_coco_results(found, ids))
    shown = sum(int((one.scores >= arguments.score).sum()) for one in found)
    say(f"{len(files)} images, {shown} boxes with a score of at least {arguments.score:g}")
    return out
