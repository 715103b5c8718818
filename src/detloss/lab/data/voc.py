"""Pascal VOC folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`.

Box in the XML are VOC's: pixels counted from 1, both ends inside the box. They are read as
(xmin - 1, ymin - 1, xmax, ymax), so that a box of one pixel has area 1, and written the other way round.
`difficult` objects are `ignored`. VOC has no list of classes: names are those that occur in the split,
sorted, unless a file `classes.txt` (one name a line; `save` writes it) gives them and their order.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detloss.lab.data.check import BoxCheck, choose_split, labels_of, part_of
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.images import ImageFiles, find_image, image_size
from detloss.lab.data.sample import Annotation
from detloss.lab.data.write import Item, Splits, items, new_folder, shared_names

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def splits(path: Path) -> list[str]:
    """The lists of images that the data set ships."""
    return list(_sets(path)) or ["all"]


def _sets(root: Path) -> dict[str, Path]:
    # VOC also lists each class by itself: aeroplane_train.txt, with a flag after the id.
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    return {p.stem: p for p in lists if not p.stem.endswith(("_train", "_val", "_trainval", "_test"))}


def load(path: str | Path, split: str = "train", names: Sequence[str] | None = None) -> Dataset:
    """Read one split of a VOC folder; see `detloss.lab.data.load`."""
    root = Path(path)
    sets = _sets(root)
    shipped, part, notes = choose_split(split, sets or ("all",), str(root))
    if sets:
        ids = [line.strip() for line in sets[shipped].read_text("utf-8").splitlines() if line.strip()]
        where = str(sets[shipped])
    else:
        ids = sorted(p.stem for p in (root / "Annotations").glob("*.xml"))
        where = str(root / "Annotations")
    files = [root / "Annotations" / f"{id}.xml" for id in ids]
    trees = [_parse(file) for file in files]
    known, check = _names(root, trees) if names is None else names, BoxCheck()

    def read(i: int) -> tuple[Annotation, Path, tuple[int, int]]:
        folder = root / "JPEGImages"
        image = find_image(folder, ids[i]) or folder / _text(trees[i], "filename")
        if not image.is_file():
            raise ValueError(f"{files[i]}: no image {ids[i]}.jpg, .png, ... in {folder}")
        size = _size(files[i], trees[i], image)
        return _annotation(files[i], trees[i], ids[i], size, known, check), image, size

    annotations, images, sizes = zip(*map(read, part_of(ids, part, where)))
    return Dataset(known, annotations, ImageFiles(images, sizes), notes + check.notes())


def _parse(file: Path) -> ET.Element:
    """The annotation, in which every object has a name and is difficult or not."""
    try:
        tree = ET.parse(file).getroot()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such annotation") from None
    except ET.ParseError as error:
        raise ValueError(f"{file}: not valid XML ({error})") from error
    for i, o in enumerate(tree.findall("object"), 1):
        if not _text(o, "name"):
            raise ValueError(f"{file}: object {i} has no <name>; every object must name its class")
        if _text(o, "difficult") not in ("0", "1", ""):
            wrong = f"difficult is {_text(o, 'difficult')!r}"
            raise ValueError(f"{file}: object {i} ({_text(o, 'name')}): {wrong}, must be 0, 1 or left out")
    return tree


def _text(node: ET.Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _names(root: Path, trees: list[ET.Element]) -> tuple[str, ...]:
    listed = root / "classes.txt"
    if listed.is_file():
        return tuple(line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip())
    return tuple(sorted({_text(o, "name") for tree in trees for o in tree.findall("object")}))


def _size(file: Path, tree: ET.Element, image: Path) -> tuple[int, int]:
    try:
        height, width = (int(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    except ValueError:
        raise ValueError(f"{file}: size: width and height must be whole numbers") from None
    # Some tools leave the size out or write 0.
    return (height, width) if height > 0 and width > 0 else image_size(image)


def _annotation(
    file: Path, tree: ET.Element, id: str, size: tuple[int, int], names: Sequence[str], check: BoxCheck
) -> Annotation:
    objects = tree.findall("object")
    classes = [_text(o, "name") for o in objects]

    def where(i: int) -> str:
        return f"{file}: object {i + 1} ({classes[i]})"

    boxes = np.zeros((len(objects), 4))
    for i, o in enumerate(objects):
        for k, corner in enumerate(CORNERS):
            text = o.findtext(f"bndbox/{corner}")
            try:
                boxes[i, k] = float(text or "")
            except ValueError:
                raise ValueError(f"{where(i)}: bndbox/{corner} is {text!r}, must be a number") from None
    boxes[:, :2] -= 1
    ignored = np.array([_text(o, "difficult") == "1" for o in objects], bool)
    found = labels_of(classes, names, where)
    boxes, keep = check(boxes, size, where)
    return Annotation(boxes[keep], found[keep], ignored[keep], id)


def save(splits: Splits, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Write splits as a VOC folder; see `detloss.lab.data.save`. An id may not occur in two splits."""
    names = shared_names(splits, names)
    with new_folder(path) as root:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for split, samples in splits.items():
            ids = []
            for item in items(samples, names):
                id = item.annotation.id
                if (root / "Annotations" / f"{id}.xml").exists():
                    raise ValueError(f"id {id!r} occurs in two splits; VOC keeps one annotation of each id")
                image = item.write_image(root / "JPEGImages")
                _tree(item, image, names).write(root / "Annotations" / f"{id}.xml", "utf-8")
                ids.append(id)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text(
                "".join(f"{id}\n" for id in ids), "utf-8"
            )
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")


def _tree(item: Item, image: str, names: Sequence[str]) -> ET.ElementTree:
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = image
    size = ET.SubElement(root, "size")
    for side, value in (("width", item.size[1]), ("height", item.size[0]), ("depth", 3)):
        ET.SubElement(size, side).text = str(value)
    boxes, labels, ignored, _ = item.annotation
    for box, label, difficult in zip(boxes.tolist(), labels, ignored):
        node = ET.SubElement(root, "object")
        ET.SubElement(node, "name").text = names[label]
        ET.SubElement(node, "difficult").text = str(int(difficult))
        corners = ET.SubElement(node, "bndbox")
        for corner, value in zip(CORNERS, (box[0] + 1, box[1] + 1, box[2], box[3])):
            ET.SubElement(corners, corner).text = f"{value:.17g}"
    ET.indent(root)
    return ET.ElementTree(root)
