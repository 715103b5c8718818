"""The shapes of the embedded scenes: outlines in the unit square, and how one is drawn as a small mask.

A glyph is a list of closed outlines `(P, 2)`; where outlines nest, the inner one is a hole (even-odd rule).
"""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Outlines = list[np.ndarray]

OVERSAMPLING = 4  # masks are drawn this many times larger and averaged down


def _arc(
    radius: float, start: float = 0.0, stop: float = 360.0, x: float = 0.5, y: float = 0.5
) -> np.ndarray:
    angle = np.radians(np.linspace(start, stop, max(3, round(abs(stop - start) / 9))))
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


def _regular(corners: int, inner: float = 1.0) -> np.ndarray:
    """A regular polygon with a corner on top; inner < 1 makes it a star of that inner radius."""
    radius = np.tile([0.5, 0.5 * inner], corners) if inner < 1 else np.full(corners, 0.5)
    angle = np.linspace(0, 2 * math.pi, len(radius), endpoint=False) - math.pi / 2
    return np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1)


def _points(text: str) -> np.ndarray:
    """Box written as "x,y x,y ..." in hundredths."""
    return np.array([[float(v) for v in corner.split(",")] for corner in text.split()]) / 100


GLYPHS: dict[str, Outlines] = {
    "disc": [_arc(0.5)],
    "ring": [_arc(0.5), _arc(0.27)],
    "triangle": [_regular(3)],
    "square": [_points("4,4 96,4 96,96 4,96")],
    "cross": [_points("34,0 66,0 66,34 100,34 100,66 66,66 66,100 34,100 34,66 0,66 0,34 34,34")],
    "star": [_regular(5, 0.42)],
    "crescent": [np.concatenate([_arc(0.5, 48, 312), _arc(0.4, 292, 68, x=0.68)])],
    "arrow": [_points("50,0 100,48 68,48 68,100 32,100 32,48 0,48")],
    "tee": [_points("0,0 100,0 100,32 66,32 66,100 34,100 34,32 0,32")],
    "ell": [_points("8,0 42,0 42,68 92,68 92,100 8,100")],
    "heart": [_points("50,96 4,44 4,22 18,6 36,8 50,24 64,8 82,6 96,22 96,44")],
    "hourglass": [_points("4,0 96,0 60,50 96,100 4,100 40,50")],
}
"""Shapes that are classes; `SceneConfig.classes` takes the first so many."""

DISTRACTORS: list[Outlines] = [
    [np.concatenate([_arc(0.5, 40, 320), _arc(0.27, 320, 40)])],  # an open ring
    [_arc(0.5, 0, 180, y=0.25)],  # half a disc
    [_regular(6)],
    [_points("50,0 70,50 50,100 30,50")],  # a lozenge
    [_points("45,0 100,0 55,100 0,100")],  # a slanted bar
    [_points("0,30 50,0 100,30 100,70 50,40 0,70")],  # a chevron
    [_points("0,0 34,0 34,66 66,66 66,0 100,0 100,100 0,100")],  # U
    [_points("0,0 70,0 70,68 100,68 100,100 32,100 32,32 0,32")],  # Z
    [_points("0,34 66,34 66,0 100,0 100,100 66,100 66,66 0,66")],  # a tee with its bar and stem of one length
    [_regular(4, 0.35)],  # a spark
    [_points("4,4 96,4 96,96 4,96"), _points("30,30 70,30 70,70 30,70")],  # a frame
    [_points("0,0 100,0 50,50 100,100 0,100")],  # a flag
    [_points("0,38 100,38 100,62 0,62")],  # a bar
]
"""Shapes of no class, each near to one."""


def stroke(rng: np.random.Generator) -> Outlines:
    """A bent line of random course and thickness."""
    t = np.linspace(0, 1, 12)[:, None]
    a, b, c = rng.uniform(0, 1, (3, 2))
    course = a * (1 - t) ** 2 + 2 * b * t * (1 - t) + c * t**2
    step = np.gradient(course, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / (np.linalg.norm(step, axis=1, keepdims=True) + 1e-6)
    half = rng.uniform(0.05, 0.12)
    return [np.concatenate([course + half * normal, (course - half * normal)[::-1]])]


def pose(outlines: Outlines, size: float, angle: float, shear: float, aspect: float) -> Outlines:
    """Shear, stretch and turn a glyph, then scale it to a box at the origin, its longer side `size` px."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[aspect, shear], [0, 1 / aspect]])
    turned = [(points - 0.5) @ matrix.T for points in outlines]
    low = np.min([points.min(0) for points in turned], 0)
    high = np.max([points.max(0) for points in turned], 0)
    return [(points - low) * (size / (high - low).max()) for points in turned]


def mask(outlines: Outlines) -> np.ndarray:
    """Coverage of each pixel, float32 in [0, 1], of a posed glyph; cut to the pixels covered by half or more.

    So the glyph's box in a scene is where this mask lies: its first and last row and column are drawn in the
    image, and what is outside it is not.
    """
    height, width = (math.ceil(v) for v in np.max([points.max(0) for points in outlines], 0)[::-1])
    canvas: Image.Image | None = None
    for points in outlines:
        layer = Image.new("1", (width * OVERSAMPLING, height * OVERSAMPLING))
        ImageDraw.Draw(layer).polygon([tuple(p) for p in (points * OVERSAMPLING - 0.5).tolist()], fill=1)
        canvas = layer if canvas is None else ImageChops.logical_xor(canvas, layer)
    assert canvas is not None
    fine = np.asarray(canvas).reshape(height, OVERSAMPLING, width, OVERSAMPLING)
    coverage = fine.mean((1, 3), dtype=np.float32)
    seen = coverage >= 0.5
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):  # a stroke too thin to be seen
        return np.ones((1, 1), np.float32)
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
