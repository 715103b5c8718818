"""A few photographs of BCCD, blood cells in VOC format, where they are at hand."""

from pathlib import Path

import pytest

from detloss.lab import data

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "bccd"


def small_bccd(folder: Path, train: int = 12, val: int = 6) -> Path:
    """A folder with so many of its images."""
    if not FOLDER.exists():
        pytest.skip(f"the data set BCCD is not at {FOLDER}")
    whole = data.load(FOLDER, "train")
    parts = {"train": whole.select(range(train)), "val": whole.select(range(train, train + val))}
    data.save(parts, folder, "voc")
    return folder
