"""What every reader shares: one policy for odd boxes, labels by class name, splits found or made."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

VAL_FRACTION = 0.2
WHOLE = "all of "
SMALLEST_AREA = 1.0  # px²; at most this is a click, not an object
TOLERANCE = 0.01  # px of sticking out that is rounding, not worth a note


class BoxCheck:
    """One policy for the boxes of every format; counts what it changed, for the data set's notes.

    - A box that is not finite, is inverted, or lies outside the image by more than half its area is an error.
    - A box that sticks out by less is clipped to the image.
    - A box of at most one pixel in area is a slip of the mouse, not an object (COCO 2017 and BCCD have some):
      it is left out.
    """

    def __init__(self) -> None:
        self._clipped: list[str] = []
        self._dots: list[str] = []

    def __call__(
        self, boxes: np.ndarray, size: tuple[int, int], name: Callable[[int], str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(N, 4)` float64 xyxy → the boxes clipped, float32, and which of them to keep, `(N,)` bool.

        size: (height, width); name: says which file and object number i is.
        """
        height, width = size
        boxes = boxes.reshape(-1, 4)

        def refuse(wrong: np.ndarray, what: str) -> None:
            if wrong.any():
                i = int(wrong.argmax())
                x1, y1, x2, y2 = boxes[i]
                corners = f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g} px"
                raise ValueError(f"{name(i)}: the box ({corners}) {what}; correct or remove it")

        refuse(~np.isfinite(boxes).all(1), "is not finite")
        sides = boxes[:, 2:] - boxes[:, :2]
        refuse((sides < 0).any(1), "is inverted (its second corner lies before its first)")
        inside = boxes.clip(0, [width, height, width, height])
        area, visible = sides.prod(1), (inside[:, 2:] - inside[:, :2]).prod(1)
        dot = area <= SMALLEST_AREA
        away = np.where(dot, np.abs(inside - boxes).max(1) > 1, visible < area / 2)
        refuse(away, f"lies outside the {width}×{height} image, wholly or by more than half")
        clipped = ~dot & (np.abs(inside - boxes).max(1) > TOLERANCE)
        self._clipped += [name(int(i)) for i in np.flatnonzero(clipped)]
        self._dots += [name(int(i)) for i in np.flatnonzero(dot)]
        return inside.astype(np.float32), ~dot

    def notes(self) -> list[str]:
        """One line for each kind of change, with the count and the first place."""
        return [
            f"{len(places)} {'box' if len(places) == 1 else 'boxes'} {what} (first: {places[0]})"
            for places, what in (
                (self._clipped, "clipped to the image"),
                (self._dots, "of at most one pixel left out"),
            )
            if places
        ]


def labels_of(classes: Sequence[str], names: Sequence[str], where: Callable[[int], str]) -> np.ndarray:
    """`(N,)` int64: the place of each class among the names; ValueError at the first that is unknown.

    where: says which file and object number i is.
    """
    labels = {name: label for label, name in enumerate(names)}
    for i, name in enumerate(classes):
        if name not in labels:
            known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ValueError(
                f"{where(i)}: class {name!r} is not among the classes known from training ({known}); "
                "rename or remove the object, or add objects of the class to the training split"
            )
    return np.array([labels[name] for name in classes], np.int64)


def choose_split(split: str, shipped: Collection[str], where: str) -> tuple[str, str | None, list[str]]:
    """Which shipped list of images to read for a split, and which part of it.

    Returns (list, part, notes): part None is the whole list, "train" or "val" is that part of it. A data set
    without a validation split is cut by a hash of the ids, the same way every time (`part_of`); one that is
    not split at all ships one list called "all". `WHOLE` before a shipped name is all of that list.
    """
    shipped = set(shipped)
    if split.startswith(WHOLE):
        return split.removeprefix(WHOLE), None, []
    validation = next((name for name in ("val", "valid", "validation") if name in shipped), None)
    if split == "val" and validation:
        return validation, None, []
    if split in shipped and (split != "train" or validation):
        return split, None, []
    base = next((name for name in ("train", "trainval", "all") if name in shipped), None)
    if split in ("train", "val") and not validation and base:
        note = (
            f"{where} has no validation split: {VAL_FRACTION:.0%} of its {base!r} images, chosen by a hash "
            "of their ids, are held out as 'val' and the others are 'train'"
        )
        return base, split, [note]
    raise ValueError(f"{where}: no split {split!r}; there are {', '.join(sorted(shipped)) or 'none'}")


def part_of(ids: Iterable[str], part: str | None, where: str) -> list[int]:
    """The indices of a part of the ids (see `choose_split`), in their order."""
    ids = list(ids)
    if not ids:
        raise ValueError(f"{where}: no images")
    if part is None:
        return list(range(len(ids)))
    if len(ids) < 2:
        raise ValueError(f"{where}: holds one image only, too few to hold out a validation split")
    place = [int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) / 2**64 for id in ids]
    val = {i for i, p in enumerate(place) if p < VAL_FRACTION} or {place.index(min(place))}
    if len(val) == len(ids):
        val.remove(place.index(max(place)))
    return [i for i in range(len(ids)) if (i in val) == (part == "val")]
