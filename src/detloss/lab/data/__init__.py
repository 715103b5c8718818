"""Data sets of images and boxes: read, checked, written, drawn and augmented. NumPy only.

`load` reads a COCO, VOC or YOLO folder, `scenes` draws the embedded data set, `save` writes either.
"""

from collections.abc import Sequence
from pathlib import Path

from detloss.lab.data import coco, voc, yolo
from detloss.lab.data.augment import Augment, augment, letterbox, unletterbox
from detloss.lab.data.check import WHOLE
from detloss.lab.data.dataset import Dataset, fingerprint, summary
from detloss.lab.data.folds import is_fold, join, part
from detloss.lab.data.images import read_image
from detloss.lab.data.sample import Annotation, Sample
from detloss.lab.data.synthetic import SceneConfig, scenes
from detloss.lab.data.write import Splits

__all__ = [
    "Annotation",
    "Augment",
    "Dataset",
    "Sample",
    "SceneConfig",
    "augment",
    "fingerprint",
    "letterbox",
    "load",
    "read_image",
    "save",
    "scenes",
    "summary",
    "unletterbox",
]


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo}


def load(path: str | Path, split: str = "train", names: Sequence[str] | None = None) -> Dataset:
    """Read one split of a COCO, VOC or YOLO data set; the format is seen from what lies there.

    path: the data set's folder, or a COCO `.json` or YOLO `.yaml` file.
    split: as the data set names it. Where it ships no validation split, "train" and "val" are made by a hash
        of the ids, and the `notes` of both say so. "all-splits" is every image, "fold-2-of-5" a fifth of them
        with about a fifth of each class's objects, "not-fold-2-of-5" the others.
    names: class names in the order of the labels, usually those of the training split; classes are matched by
        name. By default the data set's own.

    Annotations are read and checked at once, images when they are asked for. Raises ValueError naming file
    and object: no such path or split, a file that cannot be read, a missing image, a class not in `names`, a
    box that is inverted or outside its image.
    """
    root = Path(path)
    if not root.exists():
        raise ValueError(f"{path}: no such path")
    format = FORMATS[find_format(root)]
    if is_fold(split):
        whole = join(lambda one: format.load(root, WHOLE + one, names), format.splits(root), names)
        return part(whole, split)
    return format.load(root, split, names)


def find_format(path: Path) -> str:
    """ "coco", "voc" or "yolo"; ValueError saying what was looked for."""
    if (path / "Annotations").is_dir() and any((path / "Annotations").glob("*.xml")):
        return "voc"
    if coco.annotation_files(path):
        return "coco"
    if yolo.find_yaml(path) is not None:
        return "yolo"
    raise ValueError(
        f"{path}: no data set found: neither COCO (annotations/instances_train.json, or a .json file), nor "
        "VOC (Annotations/*.xml with JPEGImages/), nor YOLO (data.yaml with images/train/ and labels/train/)"
    )


def save(splits: Splits, path: str | Path, format: str = "coco", names: Sequence[str] | None = None) -> None:
    """Write a data set: COCO, VOC or YOLO.

    splits: what each split holds, `{"train": train, "val": val}`: data sets, or iterables of samples.
    path: a folder that does not exist or is empty; it appears when all is written, or not at all.
    format: "coco", "voc" or "yolo".
    names: class names; needed where samples are given that are not a `Dataset`.

    Images that are files are copied unchanged, others written as PNG. Raises ValueError where the path is
    taken or the format cannot hold the data (VOC: an id in two splits; YOLO: ignored objects).
    """
    if format not in FORMATS:
        raise ValueError(f"format: is {format!r}, must be {', '.join(map(repr, FORMATS))}")
    FORMATS[format].save(splits, path, names)
