"""What the examples share: images with boxes, and the time and memory of some steps."""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.nn import functional as F

NAMES = ("RBC", "WBC", "Platelets")
"""The classes of BCCD, images of blood cells; in drawn images they are small, middle and large squares."""


class Sample(NamedTuple):
    """An image (3, size, size) in [0, 1], its boxes (n, 4) in pixels as xyxy, their classes (n,) from 0."""

    image: Tensor
    boxes: Tensor
    labels: Tensor


def arguments(about: str, steps: int = 6, size: int = 128) -> argparse.Namespace:
    """--data, --steps, --size."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--data", type=Path, help="the folder of BCCD, in VOC's layout; else images are drawn"
    )
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--size", type=int, default=size, help="width and height of the images, in pixels")
    return parser.parse_args()


def samples(data: Path | None, count: int, size: int) -> list[Sample]:
    """The first images of BCCD, or drawn ones, the same each time."""
    if data is None:
        return [_drawn(index, size) for index in range(count)]
    return [_read(file, data, size) for file in sorted((data / "Annotations").glob("*.xml"))[:count]]


def _drawn(seed: int, size: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image, boxes, labels = torch.rand(3, size, size, generator=generator) / 3, [], []
    for label in torch.randint(0, 3, (4,), generator=generator).tolist():
        side = size * (label + 2) // 12
        x, y = torch.randint(0, size - side, (2,), generator=generator).tolist()
        image[label, y : y + side, x : x + side] += 0.6
        boxes.append([x, y, x + side, y + side])
        labels.append(label)
    return Sample(image, torch.tensor(boxes).float(), torch.tensor(labels))


def _read(file: Path, data: Path, size: int) -> Sample:
    import numpy as np
    from PIL import Image

    found = [
        ([float(item.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")], item)
        for item in ElementTree.parse(file).getroot().iter("object")
    ]
    found = [(box, item) for box, item in found if box[0] < box[2] and box[1] < box[3]]
    with Image.open(data / "JPEGImages" / f"{file.stem}.jpg") as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255
    image = F.interpolate(pixels[None], (size, size), mode="area")[0]
    width, height = pixels.shape[2], pixels.shape[1]
    boxes = torch.tensor([box for box, _ in found]).view(-1, 4) * size / torch.tensor([width, height] * 2)
    return Sample(image, boxes, torch.tensor([NAMES.index(str(item.findtext("name"))) for _, item in found]))


def measure(name: str, step: Callable[[], Tensor], optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Train for some steps, and print a line: the first step, the median of the others, memory, losses."""
    times, losses = [], []
    reset_peak()
    for _ in range(steps):
        began = time.perf_counter()
        loss = step()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))  # waits for a GPU
        times.append(time.perf_counter() - began)
    report(name, times, losses)


def report(name: str, times: list[float], losses: list[float]) -> None:
    """Print the line of `measure`."""
    first, later = times[0] * 1000, statistics.median(times[1:]) * 1000
    print(
        f"{name:62} first step {first:6.0f} ms, then {later:6.0f} ms; peak {peak():6.0f} MB; "
        f"loss {losses[0]:.4g} → {losses[-1]:.4g}"
    )


def reset_peak() -> None:
    """Begin to measure peak memory: of the GPU, or of the process (on Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak memory since `reset_peak`, in MB; nan where it cannot be measured."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1e3 if found else float("nan")
