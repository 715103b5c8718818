"""Assignment against loops written from the papers, hand-made scenes, and what must not change it."""

import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from detloss.lab.detector.assign import IGNORED, NO_OBJECT, Assignment, atss, centre_cell, max_iou

CLASSES = 5
BACKGROUND = CLASSES
IGNORE = "ignored"


def plain_iou(a: list[float], b: list[float]) -> np.float32:
    """In float32, exact for the small integers of these tests but for the division."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return np.float32(shared) / np.float32(union)


def centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def in_region(anchor: list[float], boxes: list, labels: list) -> bool:
    x, y = centre(anchor)
    return any(
        label == IGNORED and left <= x < right and top <= y < bottom
        for (left, top, right, bottom), label in zip(boxes, labels)
    )


def slow_max_iou(anchors: list, boxes: list, labels: list, rescue: bool) -> list:
    """For each anchor of one image "ignored", "background", or the set of objects that may have it (ties)."""
    objects = [i for i, label in enumerate(labels) if label >= 0]
    iou = {(i, a): plain_iou(boxes[i], anchor) for i in objects for a, anchor in enumerate(anchors)}
    verdicts: list = []
    bids: dict[int, list] = {}
    for i in objects:
        most = max(iou[i, a] for a in range(len(anchors)))
        if rescue and 0 < most < 0.5:
            for a in range(len(anchors)):
                if iou[i, a] == most:
                    bids.setdefault(a, []).append((most, i))
    for a, anchor in enumerate(anchors):
        best = max((iou[i, a] for i in objects), default=np.float32(0))
        if best >= 0.5:
            verdicts.append({i for i in objects if iou[i, a] == best})
        elif a in bids:
            highest = max(bids[a])[0]
            verdicts.append({i for value, i in bids[a] if value == highest})
        elif best >= np.float32(0.4) or in_region(anchor, boxes, labels):
            verdicts.append(IGNORE)
        else:
            verdicts.append("background")
    return verdicts


def slow_atss(anchors: list, level_sizes: list, boxes: list, labels: list, k: int) -> list | None:
    """Algorithm 1 of 1912.02424; None where rounding could decide."""
    claims: dict[int, list] = {}
    for i, (box, label) in enumerate(zip(boxes, labels)):
        if label < 0:
            continue
        candidates: list[int] = []
        start = 0
        for size in level_sizes:
            level = range(start, start + size)
            squared = {
                a: sum((p - q) ** 2 for p, q in zip(centre(anchors[a]), centre(box), strict=True))
                for a in level
            }
            candidates += sorted(level, key=squared.__getitem__)[:k]
            start += size
        overlaps = [float(plain_iou(box, anchors[a])) for a in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        if any(abs(value - threshold) < 1e-5 for value in overlaps):
            return None
        for a, value in zip(candidates, overlaps):
            x, y = centre(anchors[a])
            if value >= threshold and box[0] < x < box[2] and box[1] < y < box[3]:
                claims.setdefault(a, []).append((value, i))
    return [
        {max(claims[a])[1]} if a in claims else IGNORE if in_region(anchor, boxes, labels) else "background"
        for a, anchor in enumerate(anchors)
    ]


def assert_is(found: Assignment, image: int, verdicts: list, boxes: list, labels: list) -> None:
    for a, verdict in enumerate(verdicts):
        label, box = found.labels[image, a].item(), found.boxes[image, a].tolist()
        assert found.positives[image, a].item() == isinstance(verdict, set), f"anchor {a}: {verdict}"
        if isinstance(verdict, set):
            assert (label, box) in [(labels[i], boxes[i]) for i in verdict], f"anchor {a}"
        else:
            assert label == (IGNORED if verdict == IGNORE else BACKGROUND), f"anchor {a}: {verdict}"
            assert box == [0, 0, 0, 0]


def pad(images: list[tuple[list, list]]) -> tuple[Tensor, Tensor]:
    most = max(len(labels) for _, labels in images)
    boxes, labels = torch.zeros(len(images), most, 4), torch.full((len(images), most), NO_OBJECT)
    for i, (some, classes) in enumerate(images):
        if classes:
            boxes[i, : len(classes)] = torch.tensor(some, dtype=torch.float32)
            labels[i, : len(classes)] = torch.tensor(classes)
    return boxes, labels


def random_images(rng: np.random.Generator, whole: bool, count: int = 4) -> list[tuple[list, list]]:
    """Objects and ignored regions of a batch; the first image has none."""
    images: list[tuple[list, list]] = [([], [])]
    for _ in range(count - 1):
        objects = int(rng.integers(0, 6))
        corner, size = rng.uniform(-4, 56, (objects, 2)), rng.uniform(3, 40, (objects, 2))
        boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
        if whole:
            boxes = boxes.round()
        labels = np.where(rng.random(objects) < 0.2, IGNORED, rng.integers(0, CLASSES, objects))
        images.append((boxes.tolist(), labels.tolist()))
    return images


def square_grid(size: int, strides: list[int], side: float) -> tuple[list, list]:
    anchors, level_sizes = [], []
    for stride in strides:
        centres = [(i + 0.5) * stride for i in range(size // stride)]
        half = side * stride / 2
        anchors += [[x - half, y - half, x + half, y + half] for y in centres for x in centres]
        level_sizes.append(len(centres) ** 2)
    return anchors, level_sizes


class TestMaxIoU:
    @pytest.mark.parametrize("rescue", [True, False])
    @pytest.mark.parametrize("seed", range(12))
    def test_equals_the_loops(self, seed: int, rescue: bool):
        rng = np.random.default_rng(seed)
        corner, size = rng.integers(-8, 60, (120, 2)), rng.integers(4, 40, (120, 2))
        anchors = np.concatenate([corner, corner + size], 1).astype(float).tolist()
        images = random_images(rng, whole=True)
        boxes, labels = pad(images)
        found = max_iou(torch.tensor(anchors), boxes, labels, CLASSES, rescue=rescue)
        kinds = set()
        for i, (some, classes) in enumerate(images):
            verdicts = slow_max_iou(anchors, some, classes, rescue)
            assert_is(found, i, verdicts, some, classes)
            kinds |= {"positive" if isinstance(v, set) else v for v in verdicts}
        assert "background" in kinds

    def test_the_random_cases_hold_every_kind(self):
        # The loops above would prove little on scenes without positives, rescues and ignored anchors.
        count = {"positive": 0, "rescued": 0, "ignored": 0}
        for seed in range(12):
            rng = np.random.default_rng(seed)
            corner, size = rng.integers(-8, 60, (120, 2)), rng.integers(4, 40, (120, 2))
            anchors = torch.tensor(np.concatenate([corner, corner + size], 1)).float()
            boxes, labels = pad(random_images(rng, whole=True))
            with_rescue = max_iou(anchors, boxes, labels, CLASSES)
            without = max_iou(anchors, boxes, labels, CLASSES, rescue=False)
            count["positive"] += int(without.positives.sum())
            count["rescued"] += int((with_rescue.positives & ~without.positives).sum())
            count["ignored"] += int((with_rescue.labels == IGNORED).sum())
        assert min(count.values()) > 10, count

    @pytest.mark.parametrize(
        ("height", "label"),
        [(20, 3), (21, IGNORED), (25, IGNORED), (26, BACKGROUND)],  # IoU .5, .476, .4, .385
    )
    def test_bounds_by_hand(self, height: int, label: int):
        box = torch.tensor([[[0.0, 0, 10, 10]]])
        found = max_iou(
            torch.tensor([[0.0, 0, 10, height], [0.0, 0, 10, 10]]), box, torch.tensor([[3]]), CLASSES
        )
        assert found.labels[0].tolist() == [label, 3]

    def test_rescue_takes_every_anchor_that_overlaps_most_whatever_the_overlap(self):
        # A 2x2 object inside two 10x10 anchors: IoU .04 with both; a third only touches it.
        anchors = torch.tensor([[0.0, 0, 10, 10], [1.0, 1, 11, 11], [5.0, 5, 15, 15], [40.0, 40, 50, 50]])
        boxes, labels = torch.tensor([[[4.0, 4, 6, 6]]]), torch.tensor([[1]])
        found = max_iou(anchors, boxes, labels, CLASSES)
        assert found.labels.tolist() == [[1, 1, BACKGROUND, BACKGROUND]]
        assert not max_iou(anchors, boxes, labels, CLASSES, rescue=False).positives.any()

    def test_an_object_no_anchor_touches_is_not_rescued(self):
        found = max_iou(
            torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[[20.0, 20, 30, 30]]]), torch.tensor([[0]]), CLASSES
        )
        assert found.labels.tolist() == [[BACKGROUND]]

    def test_two_objects_rescued_by_one_anchor(self):
        anchor = torch.tensor([[0.0, 0, 10, 10]])
        boxes = torch.tensor([[[0.0, 0, 3, 10], [6.0, 0, 10, 10]]])  # IoU .3 and .4
        for order in ([0, 1], [1, 0]):
            found = max_iou(anchor, boxes[:, order], torch.tensor([[7, 8]])[:, order], 9)
            assert found.labels.tolist() == [[8]]
            assert found.boxes.tolist() == [[[6, 0, 10, 10]]]

    def test_a_rescue_does_not_take_a_positive_anchor(self):
        # The second object overlaps only the anchor that is positive for the first.
        boxes = torch.tensor([[[0.0, 0, 10, 9], [0.0, 0, 3, 10]]])
        found = max_iou(torch.tensor([[0.0, 0, 10, 10]]), boxes, torch.tensor([[1, 2]]), CLASSES)
        assert found.labels.tolist() == [[1]]

    def test_the_larger_overlap_has_the_anchor(self):
        boxes = torch.tensor([[[0.0, 0, 10, 7], [0.0, 0, 10, 8]]])
        found = max_iou(torch.tensor([[0.0, 0, 10, 10]]), boxes, torch.tensor([[1, 2]]), CLASSES)
        assert found.labels.tolist() == [[2]]

    def test_a_positive_inside_an_ignored_region_stays_positive(self):
        anchors = torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 30, 30], [80.0, 80, 90, 90]])
        boxes = torch.tensor([[[0.0, 0, 40, 40], [0.0, 0, 10, 10]]])
        found = max_iou(anchors, boxes, torch.tensor([[IGNORED, 2]]), CLASSES)
        assert found.labels.tolist() == [[2, IGNORED, BACKGROUND]]


class TestATSS:
    @pytest.mark.parametrize("k", [9, 4])
    def test_equals_the_loops(self, k: int):
        anchors, level_sizes = square_grid(64, [8, 16, 32], 4.0)
        decided = positives = contested = 0
        for seed in range(25):
            images = random_images(np.random.default_rng(seed), whole=False)
            boxes, labels = pad(images)
            found = atss(torch.tensor(anchors), level_sizes, boxes, labels, CLASSES, k)
            for i, (some, classes) in enumerate(images):
                verdicts = slow_atss(anchors, level_sizes, some, classes, k)
                if verdicts is not None:
                    assert_is(found, i, verdicts, some, classes)
                    decided += 1
                    positives += sum(isinstance(v, set) for v in verdicts)
                    contested += IGNORE in verdicts
        assert decided > 90
        assert positives > 200
        assert contested > 5

    def test_by_hand(self):
        # Nine cells of 10 px, the object is the middle one: IoU 1 and eight zeros, mean 1/9, deviation 1/3.
        anchors, level_sizes = square_grid(30, [10], 1.0)
        found = atss(torch.tensor(anchors), level_sizes, torch.tensor([[[10.0, 10, 20, 20]]]),
                     torch.tensor([[2]]), CLASSES)  # fmt: skip
        assert found.positives[0].nonzero().flatten().tolist() == [4]
        assert found.boxes[0, 4].tolist() == [10, 10, 20, 20]

    def test_only_centres_inside(self):
        # A stripe over the left column: IoU .25 with its cells, whose centres lie at x = 5, 0 with others.
        anchors, level_sizes = square_grid(30, [10], 1.0)
        box = torch.tensor([[[0.0, 0, 4.9, 30]]])
        assert not atss(torch.tensor(anchors), level_sizes, box, torch.tensor([[0]]), CLASSES).positives.any()
        box[..., 2] = 5.1
        found = atss(torch.tensor(anchors), level_sizes, box, torch.tensor([[0]]), CLASSES)
        assert found.positives[0].tolist() == [True, False, False] * 3

    def test_an_anchor_wanted_twice_goes_to_the_larger_overlap(self):
        anchors, level_sizes = square_grid(30, [10], 1.0)
        boxes = torch.tensor([[[8.0, 8, 22, 22], [9.0, 9, 21, 21]]])
        for order in ([0, 1], [1, 0]):
            found = atss(
                torch.tensor(anchors), level_sizes, boxes[:, order], torch.tensor([[3, 4]])[:, order], CLASSES
            )
            assert found.labels[0, 4].item() == 4

    def test_one_location_in_all(self):
        anchor = torch.tensor([[0.0, 0, 16, 16]])
        found = atss(anchor, [1], torch.tensor([[[2.0, 2, 14, 14]]]), torch.tensor([[1]]), CLASSES)
        assert found.labels.tolist() == [[1]]


def both() -> list:
    anchors, level_sizes = square_grid(64, [8, 16, 32], 3.0)
    points = torch.tensor(anchors)
    return [
        pytest.param(lambda b, t: max_iou(points, b, t, CLASSES), id="max_iou"),
        pytest.param(lambda b, t: atss(points, level_sizes, b, t, CLASSES), id="atss"),
    ]


@pytest.mark.parametrize("assign", both())
class TestBoth:
    @pytest.mark.parametrize("count", [0, 3])
    def test_no_objects(self, assign: Callable, count: int):
        found = assign(torch.zeros(2, count, 4), torch.full((2, count), NO_OBJECT))
        assert found.labels.shape == (2, 84)
        assert (found.labels == BACKGROUND).all()
        assert found.labels.dtype == torch.int64
        assert found.boxes.shape == (2, 84, 4)
        assert not found.boxes.any()
        assert found.positives.dtype == torch.bool
        assert not found.positives.any()

    def test_a_batch_is_its_images_and_padding_nothing(self, assign: Callable):
        images = random_images(np.random.default_rng(5), whole=False, count=6)
        boxes, labels = pad(images)
        whole = assign(boxes, labels)
        for i, image in enumerate(images):
            alone = assign(*pad([image]))
            for name in ("labels", "boxes", "positives"):
                assert torch.equal(getattr(whole, name)[i], getattr(alone, name)[0])

    def test_garbage_in_padding_counts_for_nothing(self, assign: Callable):
        boxes, labels = pad(random_images(np.random.default_rng(6), whole=False))
        wanted = assign(boxes, labels)
        boxes[labels == NO_OBJECT] = torch.tensor([0.0, 0, 64, 64])
        found = assign(boxes, labels)
        assert torch.equal(found.labels, wanted.labels)
        assert torch.equal(found.boxes, wanted.boxes)

    def test_the_order_of_objects_does_not_matter(self, assign: Callable):
        boxes, labels = pad(random_images(np.random.default_rng(7), whole=False))
        found, reverse = assign(boxes, labels), assign(boxes.flip(1), labels.flip(1))
        assert torch.equal(found.labels, reverse.labels)
        assert torch.equal(found.boxes, reverse.boxes)

    def test_labels_and_boxes_agree(self, assign: Callable):
        boxes, labels = pad(random_images(np.random.default_rng(8), whole=False))
        found = assign(boxes, labels)
        assert torch.equal(found.positives, (found.labels >= 0) & (found.labels < BACKGROUND))
        assert found.positives.any()

    def test_an_ignored_region_makes_the_centres_in_it_ignored(self, assign: Callable):
        region = torch.tensor([[[0.0, 0, 32, 16]]])
        found = assign(region, torch.tensor([[IGNORED]]))
        assert not found.positives.any()
        # Cells of 8 px: 4 x 2 centres in it; of 16: 2 x 1; of 32: (16, 16) lies on its lower side, outside.
        assert (found.labels == IGNORED).sum() == 10

    def test_arguments_are_not_changed(self, assign: Callable):
        boxes, labels = pad(random_images(np.random.default_rng(9), whole=False))
        before = boxes.clone(), labels.clone()
        assign(boxes, labels)
        assert torch.equal(boxes, before[0])
        assert torch.equal(labels, before[1])


def every() -> list:
    anchors, _ = square_grid(64, [8], 3.0)
    points, strides = torch.tensor(anchors), torch.full((64,), 8.0)
    cells = pytest.param(lambda b, t: centre_cell(points, strides, b, t, CLASSES), id="centre_cell")
    return [*both(), cells]


@pytest.mark.parametrize("at_once", [1, 700])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("assign", every())
def test_a_few_objects_at_a_time_are_as_all_at_once(assign: Callable, seed: int, at_once: int, monkeypatch):
    rng = np.random.default_rng(seed)
    boxes, labels = pad(random_images(rng, whole=bool(seed % 2), count=5))  # whole numbers make ties
    expected = assign(boxes, labels)
    monkeypatch.setattr("detloss.lab.detector.assign.AT_ONCE", at_once)
    found = assign(boxes, labels)
    for one, other in zip(
        (found.labels, found.boxes, found.positives),
        (expected.labels, expected.boxes, expected.positives),
    ):
        assert torch.equal(one, other)


MEMORY = """
import resource, torch
from detloss.lab.detector.assign import atss, centre_cell, max_iou
torch.set_num_threads(1)
side, objects = {side}, {objects}
cell = torch.arange(side) * 8.0
y, x = torch.meshgrid(cell, cell, indexing="ij")
corner = torch.stack([x, y], -1).reshape(-1, 2)
anchors = torch.cat([corner - 12, corner + 20], 1)
place = torch.rand(1, objects, 2, generator=torch.Generator().manual_seed(0)) * side * 8
boxes, labels = torch.cat([place, place + 40], -1), torch.zeros(1, objects, dtype=torch.int64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for assign, more in (max_iou, ()), (atss, ([side**2],)), (centre_cell, (torch.full((side**2,), 8.0),)):
    assert assign(anchors, *more, boxes, labels, 3).positives.sum() >= objects / 2
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("side", "objects"), [(1000, 100), (200, 5000)])
def test_memory_grows_with_neither_anchors_nor_objects(side: int, objects: int):
    """In MiB; all at once it would be 2 to 5 GB."""
    program = MEMORY.format(side=side, objects=objects)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1024
