"""An Ultralytics YOLO from a yaml, with its losses swapped: one line before `train`.

pip install ultralytics  # AGPL-3.0: a choice of yours, detloss does not bring it
python examples/ultralytics_yolo.py --data BCCD
"""

import tempfile
import time
from pathlib import Path

from common import NAMES, Sample, arguments, report, reset_peak, samples
from torchvision.transforms.functional import to_pil_image
from ultralytics import YOLO

from detloss import box_convert
from detloss.integrations.ultralytics import swap_losses


def write(folder: Path, batch: list[Sample], size: int) -> Path:
    """The images as a data set in the layout of Ultralytics."""
    for place in ("images", "labels"):
        (folder / place).mkdir()
    for index, sample in enumerate(batch):
        to_pil_image(sample.image).save(folder / f"images/{index}.png")
        boxes = (box_convert(sample.boxes, "xyxy", "cxcywh") / size).tolist()
        lines = [f"{label} {' '.join(map(str, box))}" for label, box in zip(sample.labels.tolist(), boxes)]
        (folder / f"labels/{index}.txt").write_text("\n".join(lines))
    file = folder / "data.yaml"
    file.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: [{', '.join(NAMES)}]\n")
    return file


def train(name: str, data: Path, size: int, **losses: str) -> None:
    """One epoch from random weights, and a line of measurements."""
    model = YOLO("yolo11n.yaml")
    if losses:
        name += f": {swap_losses(model, **losses)}"  # the one line
    began, times, values = [], [], []

    def after(trainer) -> None:
        times.append(time.perf_counter() - began[-1])
        values.append(float(trainer.loss))

    model.add_callback("on_train_batch_start", lambda trainer: began.append(time.perf_counter()))
    model.add_callback("on_train_batch_end", after)
    reset_peak()
    quiet = {"plots": False, "val": False, "verbose": False, "workers": 0, "amp": False, "device": "cpu"}
    model.train(data=str(data), epochs=1, batch=2, imgsz=size, project=str(data.parent), **quiet)
    report(name, times, values)


def main() -> None:
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder), samples(args.data, 2 * args.steps, args.size), args.size)
        train("YOLO11: BCE and CIoU", data, args.size)
        train("YOLO11", data, args.size, classification="quality_focal", box="giou")


if __name__ == "__main__":
    main()
