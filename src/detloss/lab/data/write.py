"""What every writer shares: one list of names, images copied or encoded, a folder that appears whole."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detloss.lab.data.check import check_names
from detloss.lab.data.dataset import Dataset
from detloss.lab.data.sample import Annotation, Sample
from detloss.lab.data.text import printable

Splits = Mapping[str, Dataset | Iterable[Sample]]


class Item(NamedTuple):
    """One image to write."""

    annotation: Annotation
    size: tuple[int, int]
    image: Path | np.ndarray

    def write_image(self, folder: Path) -> str:
        """Write <id>.<suffix> and return that name: a file is copied as it is, pixels become a PNG."""
        id = self.annotation.id
        if isinstance(self.image, Path):
            name = id + self.image.suffix
            shutil.copyfile(self.image, folder / name)
        else:
            name = f"{id}.png"
            Image.fromarray(self.image).save(folder / name)
        return name


def items(samples: Dataset | Iterable[Sample], names: Sequence[str]) -> Iterator[Item]:
    """The images of a split, checked: ids that can be file names, no id twice, labels within names."""
    seen = set()
    for item in _items(samples):
        annotation = item.annotation
        if annotation.id in seen:
            raise ValueError(f"id {annotation.id!r} occurs twice in a split; each image needs its own")
        seen.add(annotation.id)
        if Path(annotation.id).name != annotation.id or not printable(annotation.id):
            raise ValueError(f"id {annotation.id!r} cannot be the name of a file; rename it")
        if not np.isin(annotation.labels, range(len(names))).all():
            raise ValueError(f"sample {annotation.id}: labels must be 0..{len(names) - 1}")
        yield item


def _items(samples: Dataset | Iterable[Sample]) -> Iterator[Item]:
    if not isinstance(samples, Dataset):
        for sample in samples:
            height, width = sample.image.shape[:2]
            yield Item(sample.annotation, (height, width), sample.image)
        return
    for i in range(len(samples)):
        file = samples.file(i)
        yield Item(samples.annotation(i), samples.size(i), file if file is not None else samples[i].image)


def shared_names(splits: Splits, names: Sequence[str] | None) -> tuple[str, ...]:
    """The class names of splits to be written: those given, else those of the data sets, which must agree."""
    if not splits or any(not split or Path(split).name != split for split in splits):
        raise ValueError(f"splits: {list(splits)}, must be at least one, each a plain name such as 'train'")
    if names is not None:
        return check_names(names, "names")
    found = {samples.names for samples in splits.values() if isinstance(samples, Dataset)}
    if len(found) != 1 or not all(isinstance(samples, Dataset) for samples in splits.values()):
        what = "the splits have different names" if len(found) > 1 else "samples carry no names"
        raise ValueError(f"names: must be given, for {what}; load the others with names=train.names")
    return found.pop()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into: moved to `path` when the block ends well, removed when it does not.

    `path` must not exist or be an empty folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder; nothing is overwritten, choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp makes it private
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
