"""What happens to a sample before it is trained on: flip, scale, crop, colour; letterboxing."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from detloss.lab.data.sample import Sample
from detloss.lab.records import require

FILL = 114  # grey of pixels outside the image, as in YOLO's letterbox
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601 luma, Pillow's
MIN_SIDE = 1.0  # px; what is left of an object below this is not seen


@dataclass(frozen=True)
class Augment:
    """How strongly training images are changed; all zero and scale (1, 1) changes nothing."""

    flip: float = 0.5
    """Probability of a left-right flip."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest magnification, uniform in its logarithm."""
    translate: float = 0.05
    """Largest shift of the centre, as a fraction of the image's sides; what leaves the image is cut off."""
    colour: float = 0.1
    """Largest relative change of brightness, contrast and saturation, each uniform in [-colour, colour]."""
    visible: float = 0.3
    """An object of which less than this fraction of its area is left becomes ignored."""

    def __post_init__(self) -> None:
        for name in ("flip", "translate", "colour", "visible"):
            require(self, name, 0 <= getattr(self, name) <= 1, "it must be from 0 to 1")
        ordered = 0 < self.scale[0] <= self.scale[1]
        require(self, "scale", ordered, "it must be (smallest, largest) with 0 < smallest <= largest")


def augment(sample: Sample, rng: np.random.Generator, config: Augment | None = None) -> Sample:
    """A random variant of a sample, of the same image size.

    Boxes follow the image and are clipped to it. An object of which less than `config.visible` of the area is
    left becomes ignored, one that is gone (a side below 1 px) is left out. The sample given is not changed.
    The same state of `rng` gives the same result, and every call draws the same number of values from it.
    """
    config = config or Augment()
    height, width = sample.image.shape[:2]
    flip, zoom, shift_x, shift_y, *colours = rng.random(7).tolist()
    scale = config.scale[0] * (config.scale[1] / config.scale[0]) ** float(zoom)
    # The window of the input that fills the output: 1 / scale of its sides, centre moved by the shift.
    window_w, window_h = width / scale, height / scale
    left = (width - window_w) / 2 + (2 * shift_x - 1) * config.translate * width
    top = (height - window_h) / 2 + (2 * shift_y - 1) * config.translate * height

    colour = None
    if config.colour > 0:
        colour = _colour_matrix(*(1 + config.colour * (2 * c - 1) for c in colours))
    image = _window(sample.image, left, top, scale, flip < config.flip, colour)
    boxes = (sample.boxes - np.array([left, top, left, top], np.float32)) * np.float32(scale)
    if flip < config.flip:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]

    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    ignored = sample.ignored | (sides.prod(1) < config.visible * area)
    keep = (sides >= MIN_SIDE).all(1)
    return Sample(image, boxes[keep], sample.labels[keep], sample.id, ignored[keep])


def _window(
    image: np.ndarray, left: float, top: float, scale: float, flip: bool, colour: tuple[float, ...] | None
) -> np.ndarray:
    """The part of an image from (left, top), magnified, in an image of its size; FILL where there is none.

    The part is cut so that it covers whole output pixels; the rest of the mapping is exact.
    """
    height, width = image.shape[:2]
    x1, y1 = max(0, math.ceil(-left * scale)), max(0, math.ceil(-top * scale))
    x2 = min(width, math.floor((width - left) * scale))
    y2 = min(height, math.floor((height - top) * scale))
    out = np.full_like(image, FILL)
    if x2 > x1 and y2 > y1:
        low = max(left + x1 / scale, 0), max(top + y1 / scale, 0)
        high = min(left + x2 / scale, width), min(top + y2 / scale, height)
        part = Image.fromarray(image).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, (*low, *high))
        if colour is not None:
            part = part.convert("RGB", colour)
        (out[:, ::-1] if flip else out)[y1:y2, x1:x2] = np.asarray(part)
    return out


def _colour_matrix(brightness: float, contrast: float, saturation: float) -> tuple[float, ...]:
    """The 3×4 affine map of RGB: brightness, contrast about middle grey, saturation about a pixel's grey."""
    gain = brightness * contrast
    matrix = gain * (saturation * np.eye(3) + (1 - saturation) * GREY)
    return tuple(np.column_stack([matrix, np.full(3, 128 * (1 - contrast))]).ravel().tolist())


def letterbox(sample: Sample, size: int) -> tuple[Sample, float, tuple[int, int]]:
    """Fit a sample into a square of `size` pixels, keeping its aspect, grey bars beside it.

    Returns (sample, scale, offset): a box of the original lies at `boxes * scale + (x, y, x, y)` with
    offset = (x, y), exactly; `unletterbox` is the inverse.
    """
    height, width = sample.image.shape[:2]
    scale = size / max(height, width)
    new_w, new_h = (max(1, int(side * scale + 1e-6)) for side in (width, height))
    x, y = (size - new_w) // 2, (size - new_h) // 2
    # Only the part that fills whole pixels is resized, so that one scale holds along both sides.
    part = (0, 0, min(width, new_w / scale), min(height, new_h / scale))
    image = np.full((size, size, 3), FILL, np.uint8)
    resized = Image.fromarray(sample.image).resize((new_w, new_h), Image.Resampling.BILINEAR, part)
    image[y : y + new_h, x : x + new_w] = np.asarray(resized)
    boxes = sample.boxes * np.float32(scale) + np.array([x, y, x, y], np.float32)
    return replace(sample, image=image, boxes=boxes), scale, (x, y)


def unletterbox(
    boxes: np.ndarray, scale: float, offset: tuple[int, int], size: tuple[int, int] | None = None
) -> np.ndarray:
    """Boxes `(N, 4)` of a letterboxed image in pixels of the original.

    size: (height, width) of the original; when given, boxes are clipped to it.
    """
    x, y = offset
    original = (boxes - np.array([x, y, x, y], np.float32)) / np.float32(scale)
    if size is not None:
        original = original.clip(0, np.array([size[1], size[0], size[1], size[0]], np.float32))
    return original
