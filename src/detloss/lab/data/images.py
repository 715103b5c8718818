"""Image files: found, measured, decoded, and decoding errors that name the file."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from detloss.lab.records import first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DECODERS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
"""Of Pillow's: no others, some of which start programs, whatever a file begins with."""


def is_image(path: Path) -> bool:
    """True when the name ends as an image's does."""
    return path.suffix.lower() in SUFFIXES


@contextmanager
def _opened(path: Path, lenient: bool) -> Iterator[Image.Image]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = lenient
    try:
        if not path.is_file():
            raise FileNotFoundError
        with warnings.catch_warnings():
            # Up to Pillow's limit of 179 million pixels; it warns from half of that on.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=DECODERS) as image:
                yield image
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image") from None
    except _Deep as error:
        raise ValueError(f"{path}: {error}; convert the image") from None
    except Exception as error:
        # What Pillow raises on truncated or damaged files depends on the format.
        what = f"the image cannot be decoded ({first_line(error)})"
        raise ValueError(f"{path}: {what}; replace or remove it") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


class _Deep(Exception):
    """More than 8 bits."""


def _check_depth(image: Image.Image) -> None:
    if image.mode.startswith(("I", "F")):
        raise _Deep(f"pixels are of mode {image.mode}, deeper than 8 bits")


def image_size(path: Path, lenient: bool = False) -> tuple[int, int]:
    """(height, width) in pixels from the file's header, after the EXIF orientation.

    Raises ValueError naming the file when it is missing, no image, or deeper than 8 bits.
    """
    with _opened(path, lenient) as image:
        _check_depth(image)
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 swap the sides
        return (width, height) if turned else (height, width)


def read_image(path: Path, lenient: bool = False) -> np.ndarray:
    """Decode a file to `(H, W, 3)` uint8 RGB, turned as its EXIF orientation says.

    lenient: of a damaged file what can be decoded, the rest grey or black, as viewers show it.

    Raises ValueError naming the file when it is missing, damaged or deeper than 8 bits.
    """
    with _opened(path, lenient) as image:
        _check_depth(image)
        turned = ImageOps.exif_transpose(image)
        if "transparency" in turned.info:
            turned = turned.convert("RGBA")
        return np.array(turned.convert("RGB"))


class ImageFiles(Sequence[np.ndarray]):
    """Images decoded when asked for; `sizes` are what the annotations were checked against."""

    def __init__(
        self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], lenient: bool = False
    ) -> None:
        self.paths, self.sizes, self.lenient = list(paths), list(sizes), lenient

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return self.checked(index, self.lenient)

    def checked(self, index: int, lenient: bool = False) -> np.ndarray:
        """An image, as `read_image` has it; ValueError where it has another size than was said."""
        image = read_image(self.paths[index], lenient)
        if image.shape[:2] != self.sizes[index]:
            raise ValueError(f"{self.paths[index]}: {other_size(image.shape[:2], self.sizes[index])}")
        return image


def other_size(own: tuple[int, ...], annotated: tuple[int, int]) -> str:
    """Of an image that has not the size that its annotation says, both as (height, width)."""
    (h, w), (height, width) = own, annotated
    return f"the image is {w}×{h} but annotated as {width}×{height} (width×height)"
