"""Draws docs/figures/scenes.png: `python docs/figures_data.py`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from detloss.lab.data import SceneConfig
from detloss.lab.data.synthetic import draw_scene


def scenes_figure(rows: int = 2, columns: int = 4, zoom: int = 2) -> Image.Image:
    """Validation scenes of the default configuration, enlarged, with their objects framed and named."""
    config, gap = SceneConfig(), 4
    side = config.size * zoom
    sheet = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), "white")
    for i in range(rows * columns):
        pixels, boxes, labels = draw_scene(config, "val", i)
        scene = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(scene)
        for box, label in zip(np.asarray(boxes) * zoom, labels):
            x1, y1, x2, y2 = box.tolist()
            draw.rectangle((x1 - 1, y1 - 1, x2, y2), outline=(255, 230, 0))
            above = y1 >= 14
            draw.text((x1, y1 - 13 if above else y2 + 1), config.names[label], fill="white", stroke_width=1,
                      stroke_fill="black")  # fmt: skip
        sheet.paste(scene, (i % columns * (side + gap), i // columns * (side + gap)))
    return sheet


if __name__ == "__main__":
    folder = Path(__file__).parent / "figures"
    folder.mkdir(exist_ok=True)
    scenes_figure().save(folder / "scenes.png", optimize=True)
