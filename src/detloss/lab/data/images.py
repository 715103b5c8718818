"""Image files: found, measured, decoded, and decoding errors that name the file."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from detloss.lab.records import first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def is_image(path: Path) -> bool:
    """True when the name ends as an image's does."""
    return path.suffix.lower() in SUFFIXES


def find_image(folder: Path, stem: str) -> Path | None:
    """The image file of that stem in a folder, or None."""
    files = (folder / (stem + end) for suffix in SUFFIXES for end in (suffix, suffix.upper()))
    return next((file for file in files if file.is_file()), None)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image") from None
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        # What Pillow raises on truncated or damaged files depends on the format.
        what = f"the image cannot be decoded ({first_line(error)})"
        raise ValueError(f"{path}: {what}; replace or remove it") from error


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels from the file's header, after the EXIF orientation."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 swap the sides
        return (width, height) if turned else (height, width)


def read_image(path: Path) -> np.ndarray:
    """Decode a file to `(H, W, 3)` uint8 RGB, turned as its EXIF orientation says.

    Raises ValueError naming the file when it is missing, damaged or deeper than 8 bits.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            mode = f"pixels are of mode {image.mode}, deeper than 8 bits"
            raise ValueError(f"{path}: {mode}; convert the image")
        turned = ImageOps.exif_transpose(image)
        if "transparency" in turned.info:
            turned = turned.convert("RGBA")
        return np.array(turned.convert("RGB"))


class ImageFiles(Sequence[np.ndarray]):
    """Images decoded when asked for; `sizes` are what the annotations were checked against."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> None:
        self.paths, self.sizes = list(paths), list(sizes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        image = read_image(self.paths[index])
        if image.shape[:2] != self.sizes[index]:
            (height, width), (h, w) = image.shape[:2], self.sizes[index]
            raise ValueError(
                f"{self.paths[index]}: the image is {width}×{height} but annotated as {w}×{h} (width×height)"
            )
        return image
