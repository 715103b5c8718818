"""`detloss predict`: boxes on a user's own images."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from detloss.lab.cli.arguments import Out, check_trust, read
from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import Dataset, read_image
from detloss.lab.data.batches import Letterboxed
from detloss.lab.data.sample import Annotation, Detections
from detloss.lab.detector.inference import predict
from detloss.lab.detector.postprocess import Limits
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import to_coco_results
from detloss.lab.evaluate.calibrator import Calibrators, Method
from detloss.lab.records import load_config
from detloss.lab.runs import new_folder, write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.predict import draw, find_images
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
    calibrate: Path | None = None
    """calibrator.json of `detloss calibration --fit`: scores become probabilities, --score is of these."""
    calibrator: Method = "platt"
    """Which of its calibrators. Isotonic makes scores equal that were not."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    trust: bool = False
    """Run the code of others that the run names as its detector (FILE.py:build): you have read it."""
    out: Out = None
    quick: bool = False
    """Only the first 8 images."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss predict`."""
    return read("predict", Arguments, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss predict`; its folder is returned."""
    calibrator = None
    if arguments.calibrate:
        calibrator = getattr(Calibrators.load(arguments.calibrate), arguments.calibrator)
    device = pick_device(arguments.device)
    if (arguments.run / "config.json").is_file():
        check_trust(load_config(TrainConfig, arguments.run).detector, arguments.run, arguments.trust)
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
    nothing = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    ids: list[str] = []
    found: list[Detections] = []
    with counting("detecting") as progress:
        for start in range(0, len(files), 16):
            images = [read_image(file) for file in files[start : start + 16]]
            data = Dataset((), [Annotation(*nothing, str(i)) for i in range(len(images))], images)
            for one in predict(detector, Letterboxed(data, config.size), Limits(), device):
                found.append(replace(one, scores=calibrator(one.scores)) if calibrator else one)
            for file, image, one in zip(files[start:], images, found[start:]):
                # Two folders may hold files of one name.
                stems = itertools.chain([file.stem], (f"{file.stem}-{n}" for n in itertools.count(2)))
                ids.append(next(stem for stem in stems if stem not in ids))
                draw(image, one, names, arguments.score).save(out / f"{ids[-1]}.png")
                progress(len(ids), len(files))
    write_json(out / "detections.json", to_coco_results(found, ids))
    shown = sum(int((one.scores >= arguments.score).sum()) for one in found)
    say(f"{len(files)} images, {shown} boxes with a score of at least {arguments.score:g}")
    return out
