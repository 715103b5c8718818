import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from detloss.lab.data import SceneConfig, scenes, summary
from detloss.lab.data.glyphs import DISTRACTORS, GLYPHS, mask, pose
from detloss.lab.data.synthetic import MAX_OVERLAP, draw_scene

SMALL = SceneConfig(train=40, val=30)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_scene_depends_on_seed_split_and_index_alone():
    few, many = scenes(SMALL), scenes(replace(SMALL, train=45, val=7))
    for i in range(40):
        np.testing.assert_array_equal(few[i].image, many[i].image)
        np.testing.assert_array_equal(few[i].boxes, many[i].boxes)
    other = scenes(replace(SMALL, seed=1))
    assert not any(np.array_equal(few[i].image, other[i].image) for i in range(40))
    assert not {a.id for a in few} & {a.id for a in other}


def test_golden_scene():
    """The scenes are a benchmark: whoever changes what they look like raises VERSION and these numbers."""
    image, boxes, labels = draw_scene(SceneConfig(), "val", 1)
    assert boxes.tolist() == [[50, 30, 76, 50], [37, 81, 57, 96], [53, 0, 81, 21]]
    assert labels.tolist() == [0, 2, 2]
    assert image.mean() == pytest.approx(128.649, abs=0.05)


def test_train_and_val_share_no_instance_and_no_background():
    train, val = scenes(SMALL, "train"), scenes(SMALL, "val")

    def patches(data):
        return {
            s.image[y1:y2, x1:x2].tobytes() for s in data for x1, y1, x2, y2 in s.boxes.astype(int).tolist()
        }

    a, b = patches(train), patches(val)
    assert len(a) == summary(train)["objects"]  # each instance is drawn anew within a split, too
    assert not a & b

    def textures(data):
        flat = np.stack([s.image.mean(2).ravel() for s in data])
        flat -= flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    # Smooth random textures correlate, so no bound near 0; but no pair is the same picture.
    between = textures(train) @ textures(val).T
    assert np.abs(between).max() < 0.9
    assert abs(between.mean()) < 0.05
    # Nor do only their pixels differ by noise: no box of val has the place and sides of one of train.
    places = [{tuple(box) for s in data for box in s.boxes.tolist()} for data in (train, val)]
    assert len(places[0] & places[1]) == 0


def test_knobs():
    config = SceneConfig(train=150, objects=(2, 4), object_size=(10, 20), classes=5, empty=0.3, long_tail=1.0)
    data = scenes(config)
    counts = summary(data)
    assert data.names == tuple(GLYPHS)[:5]
    assert 25 <= counts["empty"] <= 65  # 45 ± 5.6
    numbers = [len(data.annotation(i).labels) for i in range(len(data))]
    assert set(numbers) == {0, 2, 3, 4}
    frequencies = list(counts["per_class"].values())
    assert frequencies[0] > 2 * frequencies[4] > 0  # expected 5 times
    sides = np.concatenate([data.annotation(i).boxes for i in range(len(data))])
    longer = (sides[:, 2:] - sides[:, :2]).max(1)
    assert 8 <= longer.min() <= 11
    assert 18 <= longer.max() <= 21
    dim = scenes(SceneConfig(train=20, size=64, contrast=(0.01, 0.02), noise=0.0, object_size=(10, 20)))
    clear = scenes(SceneConfig(train=20, size=64, contrast=(0.6, 0.6), noise=0.0, object_size=(10, 20)))
    assert clear[0].image.shape == (64, 64, 3)
    edges = [np.mean([np.abs(np.diff(s.image.astype(int), axis=0)).mean() for s in d]) for d in (dim, clear)]
    assert edges[1] > 1.3 * edges[0]


def test_default_scenes():
    data = scenes(SceneConfig(train=300))
    counts = summary(data)
    assert 15 <= counts["empty"] <= 50  # 30 ± 5.2
    assert min(counts["per_class"].values()) > 35  # 540 objects of 8 classes
    for i in range(len(data)):
        boxes = data.annotation(i).boxes
        assert (boxes == boxes.round()).all()
        assert (boxes >= 0).all()
        assert (boxes <= 128).all()
        for j, a in enumerate(boxes):
            for b in boxes[:j]:
                w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
                shared = max(w, 0) * max(h, 0)
                union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
                assert shared / union <= MAX_OVERLAP


def test_boxes_are_tight_and_clutter_covers_no_object():
    """The same scene with and without contrast: what differs reaches exactly to the box's edges."""
    config = SceneConfig(objects=(1, 1), empty=0, clutter=(0, 0), noise=0, contrast=(0.3, 0.3))
    for i in range(40):
        image, boxes, _ = draw_scene(config, "train", i)
        flat, same, _ = draw_scene(replace(config, contrast=(1e-9, 1e-9)), "train", i)
        np.testing.assert_array_equal(boxes, same)
        changed = np.abs(image.astype(int) - flat.astype(int)).max(2) > 30
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == boxes[0].tolist()


def test_masks_of_known_shapes():
    square = mask([np.array([[0, 0], [8, 0], [8, 8], [0, 8]], float)])
    assert square.shape == (8, 8)
    assert (square == 1).all()
    disc = mask(pose(GLYPHS["disc"], 40, 0, 0, 1))
    assert disc.shape == (40, 40)
    assert disc.mean() == pytest.approx(np.pi / 4, abs=0.02)
    ring = mask(pose(GLYPHS["ring"], 40, 0, 0, 1))
    assert ring.mean() == pytest.approx(np.pi / 4 * (1 - (0.27 / 0.5) ** 2), abs=0.02)
    for outlines in [*GLYPHS.values(), *DISTRACTORS]:
        turned = mask(pose(outlines, 20, 0.3, 0.1, 1.1))
        assert 18 <= max(turned.shape) <= 21
        assert 0.05 < turned.mean() < 1


def test_classes_look_different():
    """Straight and of one size, no two shapes, distractors included, cover nearly the same pixels."""
    shapes = [np.zeros((32, 32)) for _ in range(len(GLYPHS) + len(DISTRACTORS))]
    for canvas, outlines in zip(shapes, [*GLYPHS.values(), *DISTRACTORS]):
        coverage = mask(pose(outlines, 32, 0, 0, 1))
        canvas[: coverage.shape[0], : coverage.shape[1]] = coverage
    for i, a in enumerate(shapes):
        for b in shapes[:i]:
            assert np.minimum(a, b).sum() / np.maximum(a, b).sum() < 0.9


def test_cache_is_read_not_drawn_again(cache):
    calls = []
    first = scenes(SMALL, "val", lambda done, total: calls.append((done, total)))
    assert calls == [(k + 1, 30) for k in range(30)]
    again = scenes(SMALL, "val", lambda done, total: calls.append((done, total)))
    assert len(calls) == 30
    np.testing.assert_array_equal(first[3].image, again[3].image)
    assert len(os.listdir(cache)) == 2  # nothing temporary is left


def test_an_interrupted_drawing_leaves_nothing(cache):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scenes(SMALL, "val", stop)
    assert os.listdir(cache) == []
    assert len(scenes(SMALL, "val")) == 30


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DETLOSS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ValueError, match=r"below: cannot keep the drawn scenes here .*DETLOSS_CACHE"):
        scenes(SMALL, "val")


def test_pickled_as_a_path_and_images_are_private_copies():
    data = scenes(SMALL, "val")
    packed = pickle.dumps(data)
    assert len(packed) < 30_000  # 1.5 MB of images are not in it
    other = pickle.loads(packed)
    np.testing.assert_array_equal(other[5].image, data[5].image)
    other[5].image[:] = 0
    assert data[5].image.any()
    assert other[5].image.any()


@pytest.mark.parametrize(
    "knob",
    [
        {"size": 8},
        {"train": 0},
        {"val": 0},
        {"classes": 0},
        {"classes": 13},
        {"objects": (0, 3)},
        {"objects": (3, 2)},
        {"object_size": (2, 10)},
        {"object_size": (10, 70)},
        {"contrast": (0, 0.3)},
        {"contrast": (0.5, 0.3)},
        {"clutter": (-1, 2)},
        {"noise": -0.1},
        {"long_tail": -1},
        {"empty": 1.5},
        {"seed": -1},
    ],
)
def test_bad_knobs(knob):
    (name,) = knob
    with pytest.raises(ValueError, match=rf"^{name} is .*; it must be"):
        SceneConfig(**knob)


def test_bad_split():
    with pytest.raises(ValueError, match="split: is 'test', embedded scenes have 'train' and 'val'"):
        scenes(SMALL, "test")


def test_more_objects_than_fit_are_left_out():
    image, boxes, labels = draw_scene(
        SceneConfig(size=32, objects=(30, 30), object_size=(12, 16), empty=0), "val", 0
    )
    assert 1 <= len(boxes) == len(labels) < 30
    assert image.shape == (32, 32, 3)
