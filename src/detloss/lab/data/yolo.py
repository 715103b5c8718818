"""YOLO folders: `data.yaml`, `images/<split>/*`, `labels/<split>/*.txt`.

A label file holds a line "class cx cy width height" for each object, as fractions of the image's sides; an
image without one has no objects. The format has no flag for ignored objects. Of the YAML only `path`, the
splits' folders and `names` are read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detloss.lab.data.check import BoxCheck, choose_split, labels_of, part_of
from detloss.lab.data.data_yaml import quoted, read_data_yaml
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.images import ImageFiles, image_size, is_image
from detloss.lab.data.sample import Annotation
from detloss.lab.data.write import Splits, items, new_folder, shared_names

SPLITS = ("train", "val", "valid", "validation", "test")


def find_yaml(path: Path) -> Path | None:
    """The data set's YAML file: the path itself, `data.yaml` in it, or the only one there."""
    if path.suffix in (".yaml", ".yml"):
        return path
    if (path / "data.yaml").is_file():
        return path / "data.yaml"
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    return files[0] if len(files) == 1 else None


def splits(path: Path) -> list[str]:
    """The lists of images that the data set ships."""
    return list(_open(path)[1])


def _open(path: Path) -> tuple[Sequence[str], dict[str, Path], Path]:
    """Class names, split → image folder, and where the YAML lies."""
    file = find_yaml(path)
    if file is None:
        raise ValueError(f"{path}: no data.yaml, which names the classes of a YOLO data set")
    own, entries = read_data_yaml(file)
    found = {s: folder for s in SPLITS if (folder := _folder(file.parent, s, entries)) is not None}
    return own, found, file.parent


def load(path: str | Path, split: str = "train", names: Sequence[str] | None = None) -> Dataset:
    """Read one split of a YOLO data set; see `detloss.lab.data.load`."""
    own, folders, base = _open(Path(path))
    shipped, part, notes = choose_split(split, folders, str(base))
    folder = folders[shipped]
    label_folder = _label_folder(folder)
    files = sorted(p for p in folder.iterdir() if is_image(p))
    ids = [p.stem for p in files]
    orphans = {p.stem for p in label_folder.glob("*.txt")} - {*ids, "classes"}
    if orphans:
        raise ValueError(f"{label_folder / min(orphans)}.txt: there is no such image in {folder}")
    chosen = part_of(ids, part, str(folder))
    known, check = own if names is None else names, BoxCheck()

    def read(i: int) -> tuple[Annotation, Path, tuple[int, int]]:
        size = image_size(files[i])
        return _annotation(label_folder / f"{ids[i]}.txt", ids[i], size, own, known, check), files[i], size

    annotations, paths, sizes = zip(*map(read, chosen))
    return Dataset(known, annotations, ImageFiles(paths, sizes), notes + check.notes())


def _folder(base: Path, split: str, entries: dict[str, str]) -> Path | None:
    """The image folder of a split: where the YAML says, else at one of the usual places."""
    candidates = []
    if entry := entries.get(split):
        # Roboflow writes ../train/images where train/ is beside the YAML; `path` is often another machine's.
        places = (Path(entries.get("path", ""), entry), entry, entry.removeprefix("../"))
        candidates += [base / place for place in places]
    candidates += [base / "images" / split, base / split / "images"]
    return next((c for c in candidates if c.is_dir()), None)


def _label_folder(images: Path) -> Path:
    """The last `images` in the path becomes `labels`."""
    after = next((folder for folder in (images, *images.parents) if folder.name == "images"), None)
    return images if after is None else after.with_name("labels") / images.relative_to(after)


def _annotation(
    file: Path, id: str, size: tuple[int, int], own: Sequence[str], names: Sequence[str], check: BoxCheck
) -> Annotation:
    try:
        text = file.read_text("utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file ({error})") from None
    rows = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    values = np.zeros((len(rows), 5))
    for i, (n, row) in enumerate(rows):
        if len(row) != 5:
            raise ValueError(f"{file}: line {n}: {len(row)} values, must be 'class cx cy width height'")
        try:
            values[i] = [int(row[0]), *map(float, row[1:])]
        except (ValueError, OverflowError):
            raise ValueError(f"{file}: line {n}: {' '.join(row)!r} is not five numbers") from None
        if not 0 <= values[i, 0] < len(own):
            raise ValueError(f"{file}: line {n}: class {row[0]} is not in 0..{len(own) - 1}")
        if (values[i, 1:] > 2).any():
            raise ValueError(f"{file}: line {n}: {' '.join(row)!r} must be fractions of the image's sides")
    classes = [own[int(c)] for c in values[:, 0]]

    def where(i: int) -> str:
        return f"{file}: line {rows[i][0]} ({classes[i]})"

    found = labels_of(classes, names, where)
    height, width = size
    centre, half = values[:, 1:3] * (width, height), values[:, 3:] * (width, height) / 2
    boxes, keep = check(np.concatenate([centre - half, centre + half], 1), size, where)
    return Annotation(boxes[keep], found[keep], np.zeros(int(keep.sum()), bool), id)


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a YOLO data set; see `detloss.lab.data.save`.

    Raises ValueError at an ignored object, which the format cannot hold: `Dataset.without_ignored` drops it.
    """
    names = shared_names(splits, names)
    with new_folder(path) as root:
        for split, samples in splits.items():
            images, texts = root / "images" / split, root / "labels" / split
            images.mkdir(parents=True)
            texts.mkdir(parents=True)
            for item in items(samples, names):
                boxes, labels, ignored, id = item.annotation
                if ignored.any():
                    raise ValueError(
                        f"sample {id}: object {int(ignored.argmax()) + 1} is ignored, which YOLO label files "
                        "cannot say; save dataset.without_ignored(), or another format"
                    )
                item.write_image(images)
                height, width = item.size
                corners = boxes.astype(np.float64)
                centre = (corners[:, :2] + corners[:, 2:]) / 2 / (width, height)
                sides = (corners[:, 2:] - corners[:, :2]) / (width, height)
                rows = np.concatenate([centre, sides], 1).tolist()
                lines = [" ".join([str(c), *map(repr, row)]) for c, row in zip(labels.tolist(), rows)]
                (texts / f"{id}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        entries = "".join(f"{split}: images/{split}\n" for split in splits)
        listed = "".join(f"  {label}: {quoted(name)}\n" for label, name in enumerate(names))
        (root / "data.yaml").write_text(f"{entries}names:\n{listed}", "utf-8")
