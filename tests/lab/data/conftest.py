from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.data import Dataset, Sample

NAMES = ("red cell", "白血球", 'a "quoted", #1: one', "driver's seat")


def make_sample(id: str, boxes: list, labels: list, ignored: list | None = None, size=(60, 90)) -> Sample:
    rng = np.random.default_rng(sum(id.encode()))
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    flags = np.zeros(len(labels), bool) if ignored is None else np.array(ignored, bool)
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), id, flags)


def make_dataset(samples: list[Sample], names=NAMES) -> Dataset:
    return Dataset(names, [s.annotation for s in samples], [s.image for s in samples])


@pytest.fixture
def splits() -> dict[str, Dataset]:
    """Two splits with an empty image, other shapes, a box that is the whole image, a name beyond ASCII."""
    train = [
        make_sample("a", [[0, 0, 90, 60], [3, 4, 10, 20]], [0, 3]),
        make_sample("empty", [], []),
        make_sample("köln 1.2", [[1, 2, 31, 7]], [2], size=(33, 47)),
        make_sample("c", [[0, 0, 2, 2], [10, 10, 12, 30], [10, 10, 12, 30]], [1, 1, 0]),
    ]
    val = [make_sample("v1", [[5, 6, 7, 8]], [3]), make_sample("v2", [], [], size=(20, 20))]
    return {"train": make_dataset(train), "val": make_dataset(val)}


@pytest.fixture
def assert_same() -> Callable[[Dataset, Dataset], None]:
    def check(found: Dataset, wanted: Dataset) -> None:
        assert found.names == wanted.names
        order = {found.annotation(i).id: i for i in range(len(found))}
        assert sorted(order) == sorted(wanted.annotation(i).id for i in range(len(wanted)))
        for sample in wanted:
            same = found[order[sample.id]]
            np.testing.assert_array_equal(same.image, sample.image)
            np.testing.assert_array_equal(same.boxes, sample.boxes)
            np.testing.assert_array_equal(same.labels, sample.labels)
            np.testing.assert_array_equal(same.ignored, sample.ignored)
            assert found.size(order[sample.id]) == sample.image.shape[:2]
            assert (same.boxes.dtype, same.labels.dtype, same.ignored.dtype) == (np.float32, np.int64, bool)

    return check


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Replace a text that must occur in a file."""

    def replace(file: Path, old: str, new: str) -> None:
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")

    return replace


@pytest.fixture
def make():
    return make_sample
