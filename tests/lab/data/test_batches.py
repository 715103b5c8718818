"""Batches as a pure function of (seed, step); squares and the way back."""

import numpy as np
import pytest

from detloss.lab.data import Augment, Dataset, Sample
from detloss.lab.data import batches as module
from detloss.lab.data.batches import Batch, Letterboxed, collate, training_batch

NONE = Augment(flip=0, scale=(1, 1), translate=0, colour=0)
SOME = Augment(flip=0.5, scale=(0.7, 1.4), translate=0.2, colour=0.3)


def dataset(count: int = 7, size: tuple[int, int] = (20, 32)) -> Dataset:
    """Images of one grey each, image i with i % 4 objects, every third of them ignored."""
    samples = []
    rng = np.random.default_rng(0)
    for i in range(count):
        n = i % 4
        corner = rng.integers(0, 10, (n, 2))
        boxes = np.concatenate([corner, corner + rng.integers(4, 10, (n, 2))], 1).astype(np.float32)
        image = np.full((*size, 3), 20 + 10 * i, np.uint8)
        samples.append(Sample(image, boxes, np.arange(n) % 3, f"id-{i}", np.arange(n) % 3 == 2))
    return Dataset(("a", "b", "c"), [s.annotation for s in samples], [s.image for s in samples])


def same(a: Batch, b: Batch) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("images", "boxes", "labels"))
    return arrays and a.ids == b.ids


class TestTrainingBatch:
    def test_depends_on_seed_and_step_alone(self):
        first, second = Letterboxed(dataset(), 32), Letterboxed(dataset(), 32)
        forwards = [training_batch(first, step, 3, 5, SOME) for step in range(9)]
        backwards = [training_batch(second, step, 3, 5, SOME) for step in reversed(range(9))][::-1]
        assert all(same(a, b) for a, b in zip(forwards, backwards))

    def test_another_seed_or_step_is_another_batch(self):
        data = Letterboxed(dataset(), 32)
        batch = training_batch(data, 0, 7, 5, SOME)
        assert not same(batch, training_batch(data, 0, 7, 6, SOME))
        assert not same(batch, training_batch(data, 1, 7, 5, SOME))

    @pytest.mark.parametrize("batch", [1, 3, 7, 10])
    def test_an_epoch_is_all_images_once_in_a_new_order(self, batch: int):
        data = Letterboxed(dataset(), 32)
        ids = [id for step in range(-(-35 // batch)) for id in training_batch(data, step, batch, 1, NONE).ids]
        epochs = [ids[7 * e : 7 * e + 7] for e in range(5)]
        for epoch in epochs:
            assert sorted(epoch) == [f"id-{i}" for i in range(7)]
        assert len({tuple(epoch) for epoch in epochs}) > 3

    def test_batch_size_does_not_change_what_is_seen(self):
        data = Letterboxed(dataset(), 32)
        one = [training_batch(data, step, 1, 2, SOME) for step in range(6)]
        six = training_batch(data, 0, 6, 2, SOME)
        assert six.ids == tuple(b.ids[0] for b in one)
        np.testing.assert_array_equal(six.images, np.concatenate([b.images for b in one]))

    def test_an_image_is_changed_anew_each_epoch(self):
        data = Letterboxed(dataset(1), 32)
        first, second = (training_batch(data, step, 1, 2, SOME) for step in range(2))
        assert first.ids == second.ids
        assert not np.array_equal(first.images, second.images)

    def test_changing_nothing_gives_the_squares(self):
        data = Letterboxed(dataset(), 32)
        batch = training_batch(data, 0, 7, 2, NONE)
        samples = {sample.id: sample for sample in (data[i] for i in range(7))}
        for i, id in enumerate(batch.ids):
            np.testing.assert_array_equal(batch.images[i], samples[id].image)
            count = len(samples[id].boxes)
            np.testing.assert_array_equal(batch.boxes[i, :count], samples[id].boxes)

    def test_data_is_not_changed(self):
        source = dataset()
        data = Letterboxed(source, 32)
        before = [data[i].image.copy() for i in range(7)], [data[i].boxes.copy() for i in range(7)]
        training_batch(data, 0, 7, 2, SOME)
        for i in range(7):
            np.testing.assert_array_equal(data[i].image, before[0][i])
            np.testing.assert_array_equal(data[i].boxes, before[1][i])


class TestCollate:
    def test_padding_and_ignored(self):
        data = Letterboxed(dataset(), 32)
        batch = collate([data[i] for i in (0, 1, 3)])
        assert batch.images.shape == (3, 32, 32, 3)
        assert batch.images.dtype == np.uint8
        assert (batch.boxes.shape, batch.boxes.dtype) == ((3, 3, 4), np.float32)
        assert batch.labels.dtype == np.int64
        assert batch.labels.tolist() == [[-1, -1, -1], [0, -1, -1], [0, 1, -100]]
        np.testing.assert_array_equal(batch.boxes[2], data[3].boxes)
        assert not batch.boxes[0].any()
        assert batch.ids == ("id-0", "id-1", "id-3")

    def test_no_objects(self):
        batch = collate([Letterboxed(dataset(), 32)[0]] * 2)
        assert batch.boxes.shape == (2, 0, 4)
        assert batch.labels.shape == (2, 0)


class TestLetterboxed:
    @pytest.mark.parametrize("size", [(20, 32), (31, 20), (20, 20), (64, 100)])
    def test_restore_is_the_way_back(self, size: tuple[int, int]):
        source = dataset(size=size)
        data = Letterboxed(source, 48)
        assert len(data) == 7
        for i in range(7):
            sample = data[i]
            assert sample.image.shape == (48, 48, 3)
            restored = data.restore(i, sample.boxes)
            assert restored.dtype == np.float32
            np.testing.assert_allclose(restored, source.annotation(i).boxes, atol=1e-4)
            np.testing.assert_array_equal(sample.labels, source.annotation(i).labels)

    def test_restored_boxes_end_at_the_image(self):
        # 20 x 32 in a square of 32: bars of 6 above and below, no image there.
        data = Letterboxed(dataset(size=(20, 32)), 32)
        assert data.restore(0, np.array([[0, 0, 32, 32]], np.float32)).tolist() == [[0, 0, 32, 20]]

    def test_decoded_once_where_memory_allows(self, monkeypatch: pytest.MonkeyPatch):
        class Counted(list):
            read = 0

            def __getitem__(self, i):
                Counted.read += 1
                return super().__getitem__(i)

        source = dataset()
        images = Counted(source[i].image for i in range(7))
        counted = Dataset(source.names, [source.annotation(i) for i in range(7)], images)
        Counted.read = 0
        data = Letterboxed(counted, 32)
        first, again = data[3], data[3]
        assert first is again
        assert Counted.read == 1
        monkeypatch.setattr(module, "_MEMORY", 100)
        data = Letterboxed(counted, 32)
        first, again = data[3], data[3]
        assert Counted.read == 3
        np.testing.assert_array_equal(first.image, again.image)
