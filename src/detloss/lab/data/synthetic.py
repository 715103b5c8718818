"""Embedded scenes: a detection data set drawn from a seed, without a download.

Small shapes of several classes on a textured, noisy background, among shapes and strokes that belong to no
class. Scene i of a split is a function of (config, split, i) alone: the number of scenes changes no scene,
and training and validation draw from different random streams: no instance and no background occurs in both.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detloss.lab.data.dataset import Dataset
from detloss.lab.data.glyphs import DISTRACTORS, GLYPHS, mask, pose, stroke
from detloss.lab.data.sample import Annotation
from detloss.lab.records import require

VERSION = 4  # raised whenever a scene of the same config looks different: old caches are then not read
SPLITS = ("train", "val")
MAX_OVERLAP = 0.2  # IoU of two objects

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class SceneConfig:
    """What the embedded scenes look like; the same config draws the same scenes."""

    size: int = 96
    """Side of the square image in pixels."""
    train: int = 3000
    """Number of training scenes."""
    val: int = 1024
    """Number of validation scenes."""
    classes: int = 4
    """Number of classes, 1 to 12."""
    objects: tuple[int, int] = (1, 3)
    """Fewest and most objects in a scene that is not empty (fewer where they do not fit)."""
    object_size: tuple[float, float] = (14.0, 32.0)
    """Shortest and longest, in pixels, of the longer side of an object's box."""
    contrast: tuple[float, float] = (0.35, 0.8)
    """Least and most difference of an object from its background, as a fraction of full range."""
    clutter: tuple[int, int] = (2, 4)
    """Fewest and most shapes and strokes of no class, drawn like objects: hard negatives."""
    noise: float = 0.03
    """Standard deviation of each pixel's noise, as a fraction of full range."""
    long_tail: float = 0.0
    """Frequency of class k is proportional to (k + 1) ** -long_tail; 0 is uniform."""
    empty: float = 0.1
    """Fraction of scenes without an object."""
    seed: int = 0
    """Seed of everything drawn."""
    same: bool = field(default=False, compare=False, metadata={"before": True})
    """Of a comparison: the same scenes for all its seeds. Otherwise seed k has scenes of its own, drawn from
    the scenes' seed + k, and the same for all losses."""

    def __post_init__(self) -> None:
        within_scene = 4 <= self.object_size[0] <= self.object_size[1] <= self.size / 2
        for name, holds, words in (
            ("size", self.size >= 16, "at least 16 px"),
            ("train", self.train >= 1, "at least 1"),
            ("val", self.val >= 1, "at least 1"),
            ("classes", 1 <= self.classes <= len(GLYPHS), f"from 1 to {len(GLYPHS)}"),
            ("objects", 1 <= self.objects[0] <= self.objects[1], "(fewest, most) with 1 <= fewest <= most"),
            ("object_size", within_scene, f"(shortest, longest) from 4 to size / 2 = {self.size / 2:g} px"),
            ("contrast", 0 < self.contrast[0] <= self.contrast[1] <= 1, "(least, most) within (0, 1]"),
            ("clutter", 0 <= self.clutter[0] <= self.clutter[1], "(fewest, most) with 0 <= fewest <= most"),
            ("noise", 0 <= self.noise <= 1, "from 0 to 1"),
            ("long_tail", self.long_tail >= 0, "at least 0"),
            ("empty", 0 <= self.empty <= 1, "from 0 to 1"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            require(self, name, holds, f"it must be {words}")

    @property
    def names(self) -> tuple[str, ...]:
        """The class names."""
        return tuple(GLYPHS)[: self.classes]


def scenes(
    config: SceneConfig | None = None, split: str = "train", progress: Callable[[int, int], Any] | None = None
) -> Dataset:
    """The embedded data set, drawn on first use and then read from a cache on disk.

    split: "train" or "val".
    progress: called with (done, total) as scenes are drawn; not called when they are in the cache.

    The cache is the folder `$DETLOSS_CACHE`, else `~/.cache/detloss`; it may be deleted at any time. Images
    are memory-mapped, so that several processes share them.
    """
    config = config or SceneConfig()
    if split not in SPLITS:
        raise ValueError(f"split: is {split!r}, embedded scenes have {' and '.join(map(repr, SPLITS))}")
    look = {k: v for k, v in asdict(config).items() if k not in (*SPLITS, "same")}
    count: int = getattr(config, split)
    key = hashlib.sha256(json.dumps([VERSION, look, split, count], sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("DETLOSS_CACHE") or Path.home() / ".cache" / "detloss")
    images, table = folder / f"scenes-{split}-{key}.npy", folder / f"scenes-{split}-{key}.npz"
    if not (images.is_file() and table.is_file()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _draw_all(config, split, count, images, table, progress)
        except OSError as error:
            raise ValueError(
                f"{folder}: cannot keep the drawn scenes here ({error.strerror or error}); "
                "set DETLOSS_CACHE to a folder with room"
            ) from error
    with np.load(table) as stored:
        boxes, labels, counts = stored["boxes"], stored["labels"], stored["counts"]
    ends = np.cumsum(counts)
    which = f"{config.seed}-" if config.seed else ""  # other images have other ids
    annotations = [
        Annotation(boxes[end - n : end], labels[end - n : end], np.zeros(n, bool), f"{split}-{which}{i:06d}")
        for i, (end, n) in enumerate(zip(ends, counts))
    ]
    return Dataset(config.names, annotations, MappedImages(images))


class MappedImages(Sequence[np.ndarray]):
    """The images of an `.npy` file `(N, H, W, 3)`, mapped rather than read; pickled as the path alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._map)

    def __getitem__(self, index: Any) -> Any:
        return np.array(self._map[index])  # a copy: the map is read-only, which torch.from_numpy warns about

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return MappedImages, (self.path,)


def draw_scene(config: SceneConfig, split: str, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, boxes, labels) of one scene."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    image = _background(rng, config.size)
    count = 0 if rng.random() < config.empty else int(rng.integers(config.objects[0], config.objects[1] + 1))
    frequency = np.arange(1, config.classes + 1) ** -config.long_tail
    labels = rng.choice(config.classes, count, p=frequency / frequency.sum())

    placed: list[tuple[np.ndarray, Box]] = []  # (mask, box), objects first
    kept = []
    for label in labels:
        coverage = _instance(rng, GLYPHS[config.names[label]], config)
        box = _place(rng, coverage.shape, config.size, [box for _, box in placed], MAX_OVERLAP)
        if box is not None:
            placed.append((coverage, box))
            kept.append(label)
    objects = len(placed)
    for _ in range(rng.integers(config.clutter[0], config.clutter[1] + 1)):
        shape = stroke(rng) if rng.random() < 0.3 else DISTRACTORS[rng.integers(len(DISTRACTORS))]
        coverage = _instance(rng, shape, config)
        box = _place(rng, coverage.shape, config.size, [box for _, box in placed[:objects]], 0.0)
        if box is not None:
            placed.append((coverage, box))

    for coverage, (x1, y1, x2, y2) in reversed(placed):  # clutter below, objects on top
        patch = image[y1:y2, x1:x2]
        patch += coverage[..., None] * _colour(rng, patch, config.contrast)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(config.noise)
    pixels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    xyxy = np.array([box for _, box in placed[:objects]], np.float32).reshape(-1, 4)
    return pixels, xyxy, np.array(kept, np.int64)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """`(size, size, 3)` float32: a colour of its own and a texture of several scales, coarse to fine."""
    texture = [np.full((3, 3), value, np.float32) for value in rng.uniform(0.3, 0.7, 3)]
    for cells, strength in ((3, 0.10), (7, 0.06), (17, 0.05), (size // 3, 0.035)):
        strength *= rng.uniform(0.4, 1.4)
        noise = rng.standard_normal((4, cells, cells), np.float32)
        texture = [_enlarge(t, cells) + strength * (0.8 * noise[3] + 0.5 * n) for t, n in zip(texture, noise)]
    return np.stack([_enlarge(t, size) for t in texture], 2)


def _enlarge(plane: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))


def _instance(rng: np.random.Generator, outlines: list[np.ndarray], config: SceneConfig) -> np.ndarray:
    size = math.exp(rng.uniform(*np.log(config.object_size)))
    angle, shear, stretch = rng.uniform(-1, 1, 3) * (0.3, 0.12, 0.12)
    return mask(pose(outlines, size, angle, shear, math.exp(stretch)))


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], size: int, others: list[Box], overlap: float
) -> Box | None:
    """A box of that shape at a random place, IoU with the others at most `overlap`; None if none is found."""
    height, width = shape
    for x, y in rng.integers(0, (size - width + 1, size - height + 1), (30, 2)).tolist():
        box = x, y, x + width, y + height
        if all(_iou(box, other) <= overlap for other in others):
            return box
    return None


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _colour(rng: np.random.Generator, patch: np.ndarray, contrast: tuple[float, float]) -> np.ndarray:
    """What to add to the background: brighter or darker by a grey step, with some hue."""
    step = rng.uniform(*contrast)
    mean = float(patch.mean())
    sign = 1.0 if rng.random() < np.clip(1.1 - 1.2 * mean, 0.1, 0.9) else -1.0
    hue = rng.uniform(-0.4, 0.4, 3)
    return (step * (sign + hue - hue.mean())).astype(np.float32)


def _draw_all(
    config: SceneConfig,
    split: str,
    count: int,
    images: Path,
    table: Path,
    progress: Callable[[int, int], Any] | None,
) -> None:
    """Draw a split into two files; each appears whole or not at all, the images first."""
    boxes, labels = [], []
    with tempfile.TemporaryDirectory(dir=images.parent, prefix=".drawing-") as folder:
        shape = (count, config.size, config.size, 3)
        # Not mapped: of a full disk a map knows only by a bus error.
        with Path(folder, "images.npy").open("wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            for i in range(count):
                image, scene_boxes, scene_labels = draw_scene(config, split, i)
                file.write(image.tobytes())
                boxes.append(scene_boxes)
                labels.append(scene_labels)
                if progress is not None:
                    progress(i + 1, count)
            file.flush()
            os.fsync(file.fileno())
        counts = np.array([len(one) for one in labels])
        columns: dict[str, Any] = {"boxes": np.concatenate(boxes), "labels": np.concatenate(labels)}
        np.savez(Path(folder, "table.npz"), **columns, counts=counts)
        os.replace(Path(folder, "images.npy"), images)
        os.replace(Path(folder, "table.npz"), table)
