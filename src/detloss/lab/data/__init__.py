"""Data sets of images and boxes: read, checked, written, drawn and augmented. NumPy only.

`load` reads a COCO, VOC, YOLO or labelme data set, `scenes` draws the embedded one, `save` writes either.
"""

from collections.abc import Sequence
from pathlib import Path

from detloss.lab.data import coco, voc, yolo
from detloss.lab.data.augment import Augment, augment, letterbox, unletterbox
from detloss.lab.data.dataset import Dataset, fingerprint, shared_images, summary
from detloss.lab.data.find import Reading, find
from detloss.lab.data.images import read_image
from detloss.lab.data.problems import DataError
from detloss.lab.data.sample import Annotation, Sample
from detloss.lab.data.synthetic import SceneConfig, scenes
from detloss.lab.data.write import Splits

__all__ = [
    "Annotation",
    "Augment",
    "DataError",
    "Dataset",
    "Reading",
    "Sample",
    "SceneConfig",
    "augment",
    "find",
    "fingerprint",
    "letterbox",
    "load",
    "read_image",
    "save",
    "scenes",
    "shared_images",
    "summary",
    "unletterbox",
]


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo}


def load(
    path: str | Path,
    split: str = "train",
    names: Sequence[str] | None = None,
    *,
    splits: Sequence[str] = (),
    images: str | Path = "",
    annotations: str | Path = "",
    lenient: bool = False,
    allow_outside: bool = False,
) -> Dataset:
    """Read one split of a data set; its format and layout are seen from what the files there hold.

    path: the data set's folder, or the COCO `.json`, YOLO `.yaml` or darknet `.data` file that describes it.
    split: as the data set names it. Where it ships no validation split, "train" and "val" are made by a hash
        of the ids, and the `notes` of both say so. "all-splits" is every image, "fold-2-of-5" a fifth of them
        with about a fifth of each class's objects, "not-fold-2-of-5" the others.
    names: class names in the order of the labels, usually those of the training split; classes are matched by
        name. By default the data set's own.
    splits: what a split is, "train=annotations/fold1.json": an annotation file, a list of images or a folder.
    images, annotations: where these are, if they are not found by themselves.
    lenient: repair or leave out what is wrong; `notes` say what, in counts.
    allow_outside: whether annotations, lists and links may name files outside the data folder.

    Annotations are read and checked at once, images when they are asked for. Raises ValueError naming the
    file: no such path or split, or several that may be meant; `DataError`, with all `problems`: an annotation
    that cannot be read, a missing image, a class not in `names`, a box that is inverted or outside its image.
    """
    reading = Reading(tuple(splits), str(images), str(annotations), lenient, allow_outside)
    return find(path, reading).load(split, names)


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
