"""The lists of images that a data set ships, what their names mean, and the split that is made of one."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from detloss.lab.data.problems import NoImages

VAL_FRACTION = 0.2
WHOLE = "all of "
WORDS = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
BOTH = {"trainval", "train_val", "all"}


def word_of(name: str) -> str | None:
    """ "train", "val" or "test" where a name has one of these among its words, as train2017 has."""
    parts = set(re.split(r"[^a-z]+", name.lower()))
    found = [word for word, ways in WORDS.items() if parts & ways]
    return found[0] if len(found) == 1 else None


def by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by the folder in their path that is named as a split; "" for the others, "all" if none is."""
    found: dict[str, list[str]] = {}
    for file in files:
        parts = PurePosixPath(file).parent.parts
        depth = next((i for i, part in enumerate(parts) if word_of(part)), None)
        found.setdefault("" if depth is None else "/".join(parts[: depth + 1]), []).append(file)
    if list(found) == [""]:
        return {"all": found[""]}
    short = [PurePosixPath(name).name for name in found]
    return dict(zip(short, found.values())) if len(set(short)) == len(short) else found


def read_together(groups: dict[str, list[str]], what: str) -> list[str]:
    """A note where files of several folders are one list, because nothing in their paths tells them apart."""
    counts = Counter(str(PurePosixPath(file).parent) for file in groups.get("all", ()))
    if len(counts) < 2:
        return []
    first = ", ".join(f"{folder} ({count})" for folder, count in list(counts.items())[:4])
    return [f"{what} of {len(counts)} folders are read together: {first}{', ...' * (len(counts) > 4)}"]


def choose_split(split: str, shipped: Collection[str], where: str) -> tuple[str, str | None, list[str]]:
    """Which shipped list of images to read for a split, and which part of it.

    Returns (list, part, notes): part None is the whole list, "train" or "val" is that part of it. A list is
    named as it is, or by what its name means: "train" is train2017 where that is the only one for training. A
    data set without a validation split is cut by a hash of the ids, the same way every time (`part_of`).
    `WHOLE` before a shipped name is all of that list.

    Raises:
        ValueError: no such list, or several.
    """
    if split.startswith(WHOLE):
        return split.removeprefix(WHOLE), None, []

    def meant(name: str) -> str | None:
        if name in shipped:
            return name
        word = word_of(name) if name in set().union(*WORDS.values()) else None
        found = [
            one for one in shipped if (word and word_of(one) == word) or one.rstrip("0123456789-_") == name
        ]
        if len(found) > 1:
            raise ValueError(
                f"{where}: split {name!r} may be {', '.join(sorted(found))}; name one of them as the split, "
                f"or say with splits which it is, such as {name}={min(found)}"
            )
        return found[0] if found else None

    found = meant(split)
    validation = any(word_of(one) == "val" for one in shipped)
    if found is not None and (split != "train" or validation):
        return found, None, []
    alone = next(iter(shipped)) if len(shipped) == 1 else None
    base = meant("train") or next((name for name in shipped if name in BOTH), None)
    if base is None and alone and not word_of(alone):
        base = alone
    if split == "all" and alone:
        return alone, None, []
    if split in ("train", "val") and not validation and base:
        note = (
            f"{where} has no validation split: {VAL_FRACTION:.0%} of its {base!r} images, chosen by a hash "
            "of their ids, are held out as 'val' and the others are 'train'"
        )
        return base, split, [note]
    there = ", ".join(sorted(shipped)[:20]) or "none"
    raise ValueError(
        f"{where}: no split {split!r}; there are {there}; splits says what each is, {split}=PATH"
    )


def part_of(ids: Sequence[str], part: str | None, where: str) -> list[int]:
    """The indices of a part of the ids (see `choose_split`), in their order."""
    if not ids:
        raise NoImages(f"{where}: no images")
    if part is None:
        return list(range(len(ids)))
    if len(ids) < 2:
        raise ValueError(f"{where}: holds one image only, too few to hold out a validation split")
    place = [int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) / 2**64 for id in ids]
    val = {i for i, p in enumerate(place) if p < VAL_FRACTION} or {place.index(min(place))}
    if len(val) == len(ids):
        val.remove(place.index(max(place)))
    return [i for i in range(len(ids)) if (i in val) == (part == "val")]
