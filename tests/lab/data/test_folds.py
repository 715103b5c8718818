"""Folds: every image in one, and in each about the same part of every class."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.data import Annotation, Dataset, SceneConfig, load, save, scenes, summary
from detloss.lab.data.folds import fold_names, folds_of

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd"
SCENES = SceneConfig(train=20, val=9, size=32, object_size=(8, 12))


@pytest.fixture(scope="module", params=["coco", "voc", "yolo"])
def folder(request, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("folds") / request.param
    save({split: scenes(SCENES, split) for split in ("train", "val")}, out, request.param)
    return out


def annotations(dataset: Dataset) -> dict[str, Annotation]:
    return {one.id: one for one in (dataset.annotation(i) for i in range(len(dataset)))}


def test_all_splits_are_every_image_once(folder):
    whole = load(folder, "all-splits")
    expected = annotations(load(folder, "train")) | annotations(load(folder, "val"))
    assert len(whole) == 29
    assert list(annotations(whole)) == list(expected)
    for id, one in annotations(whole).items():
        np.testing.assert_array_equal(one.boxes, expected[id].boxes)
        np.testing.assert_array_equal(one.labels, expected[id].labels)
    np.testing.assert_array_equal(whole[25].image, load(folder, "val")[5].image)


def test_a_fold_and_the_others_are_all_images(folder):
    whole = set(annotations(load(folder, "all-splits")))
    judged = []
    for fold in (1, 2, 3):
        learned, own = (set(annotations(load(folder, name))) for name in fold_names(fold, 3))
        assert learned | own == whole
        assert not learned & own
        judged += own
    assert sorted(judged) == sorted(whole)


def test_a_training_split_that_would_be_cut_is_whole(folder, tmp_path):
    """Without a validation split a part of train serves as one: of all images it is not the end."""
    if (folder / "annotations").is_dir():
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "annotations" / "instances_val.json").unlink()
        assert len(load(copy, "train")) < 20
        whole = load(copy, "all-splits")
        assert (len(whole), whole.notes) == (20, ())


def test_classes_are_matched_by_name_and_ids_stay_apart(tmp_path):
    nothing = np.zeros(1, bool)
    box, image = np.array([[1, 1, 9, 9]], np.float32), np.zeros((16, 16, 3), np.uint8)
    splits = {
        "train": Dataset(("cat", "dog"), [Annotation(box, np.array([1]), nothing, "a")], [image]),
        "val": Dataset(("dog", "cow"), [Annotation(box, np.array([1]), nothing, "a")], [image]),
        "test": Dataset(("cat",), [Annotation(box[:0], np.zeros(0, int), nothing[:0], "b")], [image]),
    }
    root = tmp_path / "own"
    for split, data in splits.items():  # each with categories of its own
        save({split: data}, tmp_path / split, "coco")
        shutil.copytree(tmp_path / split, root, dirs_exist_ok=True)
    whole = load(root, "all-splits")
    found = annotations(whole)
    assert sorted(whole.names) == ["cat", "cow", "dog"]
    assert {id: [whole.names[label] for label in one.labels] for id, one in found.items()} in (
        {"a": ["dog"], "val-a": ["cow"]},
        {"a": ["cow"], "train-a": ["dog"]},
    )
    assert whole.notes == ("split 'test' has no objects and is left out",)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("fold-1-of-1", "folds is 1; it must be from 2 to the number of images, 29"),
        ("fold-1-of-30", "folds is 30; it must be from 2 to the number of images, 29"),
        ("not-fold-4-of-3", "folds are 1 to 3"),
    ],
)
def test_folds_that_cannot_be(folder, split, message):
    with pytest.raises(ValueError, match=message):
        load(folder, split)


def drawn(random: np.random.Generator, images: int, classes: int) -> Dataset:
    found = []
    for i in range(images):
        n = int(random.integers(0, 5))
        labels = np.minimum(random.geometric(0.5, n) - 1, classes - 1)
        found.append(Annotation(np.tile([0.0, 0, 5, 5], (n, 1)), labels, random.random(n) < 0.1, f"{i:04d}"))
    image = np.zeros((8, 8, 3), np.uint8)
    return Dataset([f"class {k}" for k in range(classes)], found, [image] * images)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(2, 40), folds=st.integers(2, 6))
def test_the_order_of_the_images_does_not_matter(seed, images, folds):
    random = np.random.default_rng(seed)
    folds = min(folds, images)
    data = drawn(random, images, 3)
    found = folds_of(data, folds)
    assert set(found) == set(range(folds))
    order = random.permutation(images)
    np.testing.assert_array_equal(folds_of(data.select(order), folds), found[order])


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_classes_are_spread_evenly(folds):
    data = drawn(np.random.default_rng(folds), 400, 4)
    parts = [summary(data.select(np.flatnonzero(folds_of(data, folds) == k))) for k in range(folds)]
    whole = summary(data)
    for name, count in whole["per_class"].items():
        held = [part["per_class"][name] for part in parts]
        assert max(held) - min(held) <= 3, (name, count, held)
    assert max(part["images"] for part in parts) - min(part["images"] for part in parts) <= 0.2 * 400 / folds


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no {BCCD}: github.com/Shenggan/BCCD_Dataset")
def test_bccd():
    whole = summary(load(BCCD, "all-splits"))
    assert whole["images"] == 364
    judged = []
    for fold in range(1, 6):
        own = load(BCCD, fold_names(fold, 5)[1], whole["per_class"])
        judged += annotations(own)
        part = summary(own)
        for name, count in whole["per_class"].items():
            assert part["per_class"][name] == pytest.approx(count / 5, rel=0.1), name
    assert len(set(judged)) == len(judged) == 364
