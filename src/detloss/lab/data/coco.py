"""COCO JSON: `annotations/instances_<split>*.json` beside image folders, or a single `.json`.

Category ids may have gaps; labels are 0..C-1 in the order of the ids, or by name where names are given.
`bbox` is (x, y, width, height), the corner counted from 0. `iscrowd` objects are `ignored`. No other fields
are read.
"""

import json
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detloss.lab.data.check import BoxCheck, choose_split, labels_of, part_of
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.images import ImageFiles
from detloss.lab.data.sample import Annotation
from detloss.lab.data.write import Item, Splits, items, new_folder, shared_names

SPLITS = ("train", "val", "valid", "validation", "test", "trainval", "all")


def _number(value: Any) -> bool:
    # JSON's true is no number, and an integer may be too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> bool:
    return _number(value) and value % 1 == 0


# What a field must be: a test, and the same in words.
ID = (lambda v: _whole(v) or isinstance(v, str), "a whole number or a text")
CATEGORY = (_whole, "a whole number")
TEXT = (lambda v: isinstance(v, str) and v.strip() != "", "a text that is not empty")
SIDE = (lambda v: _whole(v) and 0 < v < 2**31, "a whole number of pixels, at least 1")
BOX = (
    lambda v: isinstance(v, list) and len(v) == 4 and all(map(_number, v)),
    "[x, y, width, height], four finite numbers",
)
FLAG = (lambda v: v in (0, 1), "0 or 1")
FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {"id": ID, "file_name": TEXT, "width": SIDE, "height": SIDE},
    "categories": {"id": CATEGORY, "name": TEXT},
    "annotations": {"image_id": ID, "category_id": CATEGORY, "bbox": BOX, "id": ID, "iscrowd": FLAG},
}
OPTIONAL = {("annotations", "id"), ("annotations", "iscrowd")}
UNIQUE = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ("id",)}


def annotation_files(path: Path) -> dict[str, Path]:
    """Split → annotation file, of a data set's folder or of a `.json` itself (split "all").

    Found are `instances_<split>.json` and `<split>.json`, in `annotations/` or in the folder itself, and
    `<split>/_annotations.coco.json`. The digits of train2017 are not part of the split's name.
    """
    if path.suffix == ".json":
        return {"all": path}
    found: dict[str, Path] = {}
    for folder in (path / "annotations", path):
        for file in sorted(folder.glob("*.json")):
            name = file.stem.removeprefix("instances_")
            split = name.rstrip("0123456789") or name
            # Any other JSON file is not ours: captions_train2017, package.json.
            if name != file.stem or split in SPLITS:
                found.setdefault(split, file)
    for file in sorted(path.glob("*/_annotations.coco.json")):
        found.setdefault(file.parent.name, file)
    return found


def splits(path: Path) -> list[str]:
    """The lists of images that the data set ships."""
    return list(annotation_files(path))


def load(path: str | Path, split: str = "train", names: Sequence[str] | None = None) -> Dataset:
    """Read one split of a COCO data set; see `detloss.lab.data.load`."""
    root = Path(path)
    files = annotation_files(root)
    shipped, part, notes = choose_split(split, files, str(root))
    file = files[shipped]
    table = _parse(file)
    categories = {c["id"]: c["name"] for c in sorted(table["categories"], key=lambda c: c["id"])}
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in table["images"]}
    for annotation in table["annotations"]:
        if (id := annotation["image_id"]) not in by_image:
            raise ValueError(f"{_where(file, annotation)}: there is no image of id {id!r}")
        by_image[annotation["image_id"]].append(annotation)
    ids = _ids([image["file_name"] for image in table["images"]])
    chosen = part_of(ids, part, str(file))
    folder = _image_folder(root, file, shipped, table["images"][0]["file_name"])

    known, check = tuple(categories.values()) if names is None else names, BoxCheck()

    def read(i: int) -> tuple[Annotation, Path, tuple[int, int]]:
        image = table["images"][i]
        objects, path = by_image[image["id"]], folder / image["file_name"]
        size = (int(image["height"]), int(image["width"]))
        annotation = _annotation(file, objects, categories, ids[i], size, known, check)
        if not path.is_file():
            raise ValueError(f"{file}: image {image['file_name']!r} (id {image['id']}) is not in {folder}")
        return annotation, path, size

    annotations, paths, sizes = zip(*map(read, chosen))
    return Dataset(known, annotations, ImageFiles(paths, sizes), notes + check.notes())


def own_ids(path: str | Path, split: str) -> tuple[dict[int | str, str], dict[int, str]]:
    """The ids that the annotations of a split have: image id → `Sample.id`, category id → class name."""
    files = annotation_files(Path(path))
    table = _parse(files[choose_split(split, files, str(path))[0]])
    ids = _ids([image["file_name"] for image in table["images"]])
    images = {image["id"]: id for image, id in zip(table["images"], ids)}
    return images, {category["id"]: category["name"] for category in table["categories"]}


def _parse(file: Path) -> dict[str, Any]:
    """The file's tables, with every field that is read below there and of its type."""
    try:
        table = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # also of bytes that are no text, or thousands of digits
        raise ValueError(f"{file}: not valid JSON ({error})") from error
    for kind, fields in FIELDS.items():
        rows = table.get(kind) if isinstance(table, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"{file}: has no list {kind!r}; COCO detection files hold {', '.join(FIELDS)}")
        for i, row in enumerate(rows):
            for field, (valid, words) in fields.items():
                if not isinstance(row, dict) or (field not in row and (kind, field) not in OPTIONAL):
                    raise ValueError(f"{file}: {kind}[{i}] has no {field!r}")
                if field in row and not valid(row[field]):
                    value = reprlib.repr(row[field])
                    raise ValueError(f"{file}: {kind}[{i}].{field} is {value}, must be {words}")
    for kind, field in ((kind, field) for kind, unique in UNIQUE.items() for field in unique):
        most = Counter(row[field] for row in table[kind] if field in row).most_common(1)
        if most and most[0][1] > 1:
            raise ValueError(f"{file}: {kind}: {field} {most[0][0]!r} occurs more than once")
    return table


def _where(file: Path, annotation: dict[str, Any]) -> str:
    return f"{file}: annotation {annotation.get('id', 'without id')} of image {annotation['image_id']}"


def _ids(files: list[str]) -> list[str]:
    """File names without suffix; with folder and suffix where those are not unique."""
    stems = [Path(file).stem for file in files]
    return stems if len(set(stems)) == len(stems) else [file.replace("/", "_") for file in files]


def _image_folder(root: Path, file: Path, split: str, first: str) -> Path:
    base = root if root.is_dir() else file.parent
    name = file.stem.removeprefix("instances_")
    above = base.parent if base.name == "annotations" else base
    folders = [
        parent / sub
        for parent in dict.fromkeys((base, above))
        for sub in (f"images/{name}", f"images/{split}", name, split, "images", "")
    ] + [file.parent]
    for folder in folders:
        if (folder / first).is_file():
            return folder
    looked = ", ".join(str(f) for f in dict.fromkeys(folders))
    raise ValueError(f"{file}: its image {first!r} is in none of {looked}")


def _annotation(
    file: Path,
    objects: list[dict[str, Any]],
    categories: dict[Any, str],
    id: str,
    size: tuple[int, int],
    names: Sequence[str],
    check: BoxCheck,
) -> Annotation:
    def where(i: int) -> str:
        name = categories.get(objects[i]["category_id"], "?")
        return f"{_where(file, objects[i])} ({id}, {name})"

    boxes = np.zeros((len(objects), 4))
    for i, o in enumerate(objects):
        if o["category_id"] not in categories:
            raise ValueError(f"{where(i)}: there is no category of id {o['category_id']}")
        x, y, width, height = map(float, o["bbox"])
        boxes[i] = x, y, x + width, y + height
    ignored = np.array([bool(o.get("iscrowd", 0)) for o in objects], bool)
    found = labels_of([categories[o["category_id"]] for o in objects], names, where)
    boxes, keep = check(boxes, size, where)
    return Annotation(boxes[keep], found[keep], ignored[keep], id)


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a COCO data set; see `detloss.lab.data.save`."""
    names = shared_names(splits, names)
    with new_folder(path) as root:
        (root / "annotations").mkdir()
        for split, samples in splits.items():
            folder = root / "images" / split
            folder.mkdir(parents=True)
            text = _text(items(samples, names), names, partial(Item.write_image, folder=folder))
            (root / "annotations" / f"instances_{split}.json").write_text(text, "utf-8")


def list_images(dataset: Dataset, file: Path) -> None:
    """Write a COCO `.json` of images where they lie, by absolute paths; drawn ones go to a folder beside it.

    The id of an image is 1 + its index, that of a category 1 + the label.
    """
    folder = file.with_suffix("").absolute()

    def place(item: Item) -> str:
        if isinstance(item.image, Path):
            return str(item.image.absolute())
        folder.mkdir(exist_ok=True)
        return str(folder / item.write_image(folder))

    file.write_text(_text(items(dataset, dataset.names), dataset.names, place), "utf-8")


def _text(listed: Iterable[Item], names: Sequence[str], place: Callable[[Item], str]) -> str:
    """The JSON of a split; `place` gives the file name of an image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item in listed:
        number, (height, width) = len(images) + 1, item.size
        images.append({"id": number, "file_name": place(item), "width": width, "height": height})
        boxes, labels, ignored, _ = item.annotation
        for (x1, y1, x2, y2), label, crowd in zip(boxes.tolist(), labels.tolist(), ignored.tolist()):
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            annotations.append(one | box | {"iscrowd": int(crowd)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(table, ensure_ascii=False)
