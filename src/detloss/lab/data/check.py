"""What every reader shares: one policy for odd boxes, classes by name, and what is done about problems."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from detloss.lab.data.dataset import Dataset
from detloss.lab.data.images import ImageFiles, image_size, other_size
from detloss.lab.data.problems import DataError, NoImages, Problems
from detloss.lab.data.sample import Annotation
from detloss.lab.data.text import printable

SMALLEST_AREA = 1.0  # px²; at most this is a click, not an object
TOLERANCE = 0.01  # px of sticking out that is rounding, not worth a note
OTHER_SIZE = 2  # px by which a side may differ from the annotated one and the boxes still fit


class Raw(NamedTuple):
    """One image as its annotation has it, before it is checked.

    image: where it lies; id: unique; size: (height, width) as annotated, None where it is not;
    classes, boxes, ignored: of each object, boxes (N, 4) float64 xyxy in pixels;
    file: of the annotation; place: says which object number i is.
    """

    image: Path
    id: str
    size: tuple[int, int] | None
    classes: Sequence[str]
    boxes: np.ndarray
    ignored: np.ndarray
    file: Path
    place: Callable[[int], str]


def unique_ids(paths: Sequence[str]) -> list[str]:
    """File names without suffix; with folder and suffix where those are not unique."""
    stems = [PurePosixPath(path).stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    whole = [path.strip("/").replace("/", "_") for path in paths]
    return whole if len(set(whole)) == len(whole) else [f"{i}-{one}" for i, one in enumerate(whole)]


def check_names(names: Sequence[str], file: Path | str) -> tuple[str, ...]:
    """Class names as they are; ValueError where one has control characters, or is there twice."""
    seen = set()
    for name in names:
        if not printable(name):
            raise ValueError(f"{file}: class {name[:80]!r} has control characters in its name; rename it")
        if name in seen:
            raise ValueError(f"{file}: class name {name[:80]!r} is there more than once; rename one")
        seen.add(name)
    return tuple(names)


def assemble(
    raws: Iterable[Raw],
    names: Sequence[str],
    notes: Sequence[str],
    problems: Problems,
    lenient: bool,
    where: str,
) -> Dataset:
    """The data set of what a reader found. This is where strict and lenient reading part.

    names: the classes in the order of their labels; notes: what the reader has to say; problems: what it met,
    to which those found here are added; where: what the message begins with.

    Raises:
        DataError: there are problems, and reading is not lenient.
    """
    kept, sizes = _sized(raws, problems, lenient)
    counts = np.array([len(raw.classes) for raw in kept], np.int64)
    of = np.repeat(np.arange(len(kept)), counts)  # the image of each object
    first = np.cumsum(counts) - counts

    def place(k: int) -> tuple[Path, str]:
        raw = kept[of[k]]
        return raw.file, raw.place(int(k - first[of[k]]))

    classes = [name for raw in kept for name in raw.classes]
    boxes = np.concatenate([np.zeros((0, 4)), *(raw.boxes for raw in kept)])
    ignored = np.concatenate([np.zeros(0, bool), *(raw.ignored for raw in kept)])
    labels, known = _labels(classes, names, place, problems)
    sides = np.array(sizes, np.float64).reshape(-1, 2)[of]
    boxes, keep, said = check_boxes(boxes, sides, place, problems)
    keep &= known
    keep, doubled = _once(of, labels, boxes, ignored, keep)
    if doubled.size:
        file, what = place(int(doubled[0]))
        said.append(f"{_count(doubled, 'object')} twice in an image, read once (first: {file}: {what})")
    if len(problems) and not lenient:
        raise DataError(where, problems)
    if not kept:
        raise NoImages(f"{where}: no images" + (f"; {problems.notes()[0]}" if len(problems) else ""))
    annotations = []
    ends = np.searchsorted(of[keep], np.arange(len(kept) + 1))
    boxes, labels, ignored = boxes[keep], labels[keep], ignored[keep]
    for raw, a, b in zip(kept, ends[:-1], ends[1:]):
        annotations.append(Annotation(boxes[a:b], labels[a:b], ignored[a:b], raw.id))
    images = ImageFiles([raw.image for raw in kept], sizes, lenient)
    return Dataset(names, annotations, images, [*notes, *problems.notes(), *said])


def _sized(raws: Iterable[Raw], problems: Problems, lenient: bool) -> tuple[list[Raw], list[tuple[int, int]]]:
    """The images with their sizes: those annotated, else, and always where reading is lenient, their own."""
    kept, sizes = [], []
    for raw in raws:
        size = raw.size
        if size is None or lenient:
            try:
                own = image_size(raw.image, lenient)
            except ValueError as error:
                file, _, what = str(error).partition(": ")
                problems.add("image that cannot be decoded", file, what)
                continue
            if size not in (None, own):
                problems.add("image of another size", raw.image, other_size(own, size or own))
                if max(abs(own[0] - size[0]), abs(own[1] - size[1])) > OTHER_SIZE:
                    continue
            size = own
        kept.append(raw)
        sizes.append(size)
    return kept, sizes


def _labels(
    classes: Sequence[str], names: Sequence[str], place: Callable[[int], tuple[Path, str]], problems: Problems
) -> tuple[np.ndarray, np.ndarray]:
    """The place of each class among the names, and whether it is there."""
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number.get(name, -1) for name in classes], np.int64)
    known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    for k in np.flatnonzero(labels < 0).tolist():
        file, what = place(k)
        problems.add(
            "class not known",
            file,
            f"{what}: class {classes[k]!r} is not among the classes known from training ({known}); rename or "
            "remove the object, or add objects of the class to the training split",
        )
    return labels, labels >= 0


def check_boxes(
    boxes: np.ndarray, sizes: np.ndarray, place: Callable[[int], tuple[Path | str, str]], problems: Problems
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`(N, 4)` xyxy → the boxes clipped, float32; which to keep, `(N,)`; what was changed without a problem.

    - A box that is not finite, is inverted, or lies outside the image by more than half its area is a
      problem.
    - A box that sticks out by less is clipped to the image.
    - A box of at most one pixel in area is a slip of the mouse, not an object (COCO 2017 and BCCD have some):
      it is left out.

    sizes: (height, width) of the image of each.
    """
    corners = boxes.copy()
    limit = sizes[:, [1, 0, 1, 0]]

    def report(wrong: Any, kind: str, what: Callable[[int], str]) -> None:
        for k in np.flatnonzero(wrong).tolist():
            file, object = place(k)
            x1, y1, x2, y2 = corners[k]
            said = f"{object}: the box (x {x1:g} to {x2:g}, y {y1:g} to {y2:g} px) {what(k)}"
            problems.add(kind, file, said)

    finite = np.isfinite(boxes).all(1)
    report(~finite, "box that is not finite", lambda k: "is not finite")
    boxes = np.where(finite[:, None], boxes, 0)
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(1)
    before = "is inverted (its second corner lies before its first)"
    report(inverted, "inverted box", lambda k: before)
    boxes = np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1
    )
    inside = boxes.clip(0, limit)
    with np.errstate(over="ignore", invalid="ignore"):  # of sides up to 1e308
        area, visible = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, inside))
        out = np.abs(inside - boxes).max(1, initial=0)
    dot = area <= SMALLEST_AREA
    away = finite & np.where(dot, out > 1, ~(visible >= area / 2))
    report(
        away & ~inverted,
        "box outside its image",
        lambda k: f"lies outside the {sizes[k, 1]:g}×{sizes[k, 0]:g} image, wholly or by more than half",
    )
    clipped = np.flatnonzero(finite & ~away & ~dot & (out > TOLERANCE))
    dots = np.flatnonzero(finite & ~away & dot)
    notes = []
    for changed, what in ((clipped, "clipped to the image"), (dots, "of at most one pixel left out")):
        if changed.size:
            file, object = place(int(changed[0]))
            notes.append(f"{_count(changed, 'box', 'boxes')} {what} (first: {file}: {object})")
    return inside.astype(np.float32), finite & ~away & ~dot, notes


def _count(found: np.ndarray, one: str, many: str = "") -> str:
    return f"{len(found)} {one if len(found) == 1 else many or one + 's'}"


def _once(
    of: np.ndarray, labels: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps of equal objects in an image the first only; says which are left out."""
    places = np.flatnonzero(keep)
    rows = np.column_stack([of, labels, ignored, boxes.astype(np.float64)])[places]
    order = np.lexsort(rows.T[::-1])
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    doubled = np.sort(places[order[1:][same]])
    keep = keep.copy()
    keep[doubled] = False
    return keep, doubled
