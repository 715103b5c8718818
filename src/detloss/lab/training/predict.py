"""A user's own images: where they lie, and detections drawn on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detloss.lab.data.images import SUFFIXES, is_image
from detloss.lab.data.sample import Detections

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers too."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images among `paths`, folders searched through.

    Raises:
        ValueError: a path that is not there, or no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if is_image(p))
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: no such image or folder")
    if not found:
        raise ValueError(f"no image in {', '.join(map(str, paths))}; looked for {', '.join(SUFFIXES)}")
    return found


def draw(image: np.ndarray, found: Detections, names: Sequence[str], least: float) -> Image.Image:
    """The image with a box, class and score for each detection with a score of at least `least`."""
    from detloss.lab.figures import font_file, legible

    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    size = max(10, round(max(picture.size) / 45))
    for box, score, label in sorted(zip(found.boxes, found.scores, found.labels), key=lambda d: float(d[1])):
        if score < least:
            continue
        colour = COLOURS[int(label) % len(COLOURS)]
        x1, y1, x2, y2 = map(float, box)
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)
        family, text = legible(f"{names[int(label)]} {score:.2f}")
        font = ImageFont.truetype(font_file(family), size)
        left, top, right, bottom = canvas.textbbox((x1, y1), text, font=font, anchor="lb")
        if top < 0:
            left, top, right, bottom = canvas.textbbox((x1, y1), text, font=font, anchor="lt")
        canvas.rectangle((left, top, right + 2, bottom), fill=colour)
        ink = "black" if colour == "#f0e442" else "white"
        canvas.text((left + 1, top), text, fill=ink, font=font, anchor="lt")
    return picture
