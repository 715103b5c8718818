"""Data sets of images and boxes: read, checked, written, drawn and augmented. NumPy only.

`load` reads a COCO, VOC or YOLO folder, `scenes` draws the embedded data set, `save` writes either.
"""

from collections.abc import Sequence
from pathlib import Path

from detloss.data import voc
from detloss.data.augment import Augment, augment, letterbox, unletterbox
from detloss.data.dataset import Dataset, summary
from detloss.data.sample import Annotation, Sample
from detloss.data.synthetic import SceneConfig, scenes

__all__ = [
    "Annotation",
    "Augment",
    "Dataset",
    "Sample",
    "SceneConfig",
    "augment",
    "letterbox",
    "load",
    "scenes",
    "summary",
    "unletterbox",
]


def load(path: str | Path, split: str = "train", names: Sequence[str] | None = None) -> Dataset:
    """Read one split of a data set on disk."""
    root = Path(path)
    if not root.exists():
        raise ValueError(f"{path}: no such path")
    return voc.load(root, split, names)
