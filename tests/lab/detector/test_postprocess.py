"""Suppression against plain loops, the limits one by one, and what becomes of a detector's output."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detloss.lab.detector import Detector, DetectorConfig, Output
from detloss.lab.detector.postprocess import Limits, detect, suppress


def limits(**more) -> Limits:
    return Limits(**{"score": 0.05, "candidates": 1000, "nms": 0.5, "detections": 100, **more})


def slow_nms(boxes: list, scores: list, labels: list, threshold: float, most: int) -> list[int]:
    """The definition: best first, drop what overlaps a kept one of its class by more than the threshold."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(labels[i] == labels[k] and iou(boxes[i], boxes[k]) > threshold for k in kept):
            kept.append(i)
    return kept[:most]


def iou(a: list[float], b: list[float]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


@st.composite
def candidates(draw) -> tuple[list, list, list]:
    """Boxes of whole pixels, degenerate ones too, with scores that often tie."""
    count = draw(st.integers(0, 25))
    whole = st.integers(0, 12)
    boxes = [[draw(whole), draw(whole), draw(whole), draw(whole)] for _ in range(count)]
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes]
    scores = draw(st.lists(st.integers(1, 16), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return boxes, [score / 16 for score in scores], labels


class TestSuppress:
    @given(
        found=candidates(), threshold=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), most=st.integers(1, 30)
    )
    @settings(max_examples=200)
    def test_equals_the_loops(self, found: tuple[list, list, list], threshold: float, most: int):
        boxes, scores, labels = found
        kept = slow_nms(boxes, scores, labels, threshold, most)
        result = suppress(
            torch.tensor(boxes).float().reshape(-1, 4),
            torch.tensor(scores),
            torch.tensor(labels, dtype=torch.int64),
            limits(nms=threshold, detections=most),
        )
        # Ties keep their order, so that even the choice among equals is the same.
        assert result.boxes.tolist() == [boxes[i] for i in kept]
        assert result.scores.tolist() == [scores[i] for i in kept]
        assert result.labels.tolist() == [labels[i] for i in kept]

    def test_types_also_of_nothing(self):
        result = suppress(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), limits())
        assert (result.boxes.shape, result.scores.shape, result.labels.shape) == ((0, 4), (0,), (0,))
        assert (result.boxes.dtype, result.scores.dtype) == (np.float32, np.float32)
        assert result.labels.dtype == np.int64

    def test_classes_do_not_suppress_each_other(self):
        boxes, scores = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1), torch.tensor([0.3, 0.9, 0.6])
        result = suppress(boxes, scores, torch.tensor([0, 0, 1]), limits())
        assert result.scores.tolist() == pytest.approx([0.9, 0.6])
        assert result.labels.tolist() == [0, 1]

    def test_an_overlap_of_exactly_the_limit_stays(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [0.0, 0, 10, 6]])
        result = suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]), limits(nms=0.5))
        assert result.scores.tolist() == pytest.approx([0.9, 0.8])

    def test_a_suppressed_box_suppresses_nothing(self):
        # Each overlaps the next by 2/3 and the one after by 3/7: the middle one goes, the last stays.
        boxes = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [4.0, 0, 14, 10]])
        result = suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]), limits(nms=0.5))
        assert result.scores.tolist() == pytest.approx([0.9, 0.7])


CONFIG = DetectorConfig(width=4, channels=8, strides=(4, 8), anchor_size=4.0, bins=0)


def output(detector: Detector, found: dict[tuple[int, int], float], images: int = 1) -> Output:
    """Base anchors as boxes and hardly any score but at the (location, class) given."""
    count = len(detector.grid(16, 16).anchors)
    logits = torch.full((images, count, 2), -20.0)
    for (location, label), score in found.items():
        logits[-1, location, label] = torch.tensor(score).logit()
    return Output(logits, torch.zeros(images, count, 4))


def run(found: dict[tuple[int, int], float], images: int = 1, **more) -> list:
    detector = Detector(CONFIG, 2)
    return detect(detector, detector.grid(16, 16), output(detector, found, images), (16, 16), limits(**more))


class TestDetect:
    """16 x 16 pixels: 16 locations of stride 4, then 4 of stride 8; base anchors of 16 and 32 pixels."""

    def test_location_class_box_and_score(self):
        (found,) = run({(0, 1): 0.5, (15, 0): 0.75, (19, 1): 0.25})
        assert found.scores.tolist() == pytest.approx([0.75, 0.5, 0.25])
        assert found.labels.tolist() == [0, 1, 1]
        # Centres (14, 14), (2, 2), (12, 12); clipped to the image.
        assert found.boxes.tolist() == [[6, 6, 16, 16], [0, 0, 10, 10], [0, 0, 16, 16]]

    def test_size_is_height_then_width(self):
        detector = Detector(CONFIG, 2)
        grid = detector.grid(8, 16)
        logits = torch.full((1, len(grid.anchors), 2), 3.0)
        everything = Output(logits, torch.full((1, len(grid.anchors), 4), 9.0))  # far beyond the image
        (found,) = detect(detector, grid, everything, (8, 16), limits())
        assert found.boxes.tolist() == [[0, 0, 16, 8], [0, 0, 16, 8]]

    def test_nothing(self):
        (found,) = run({})
        assert found.boxes.shape == (0, 4)

    def test_images_are_kept_apart(self):
        first, second = run({(5, 0): 0.9}, images=2)
        assert (len(first.scores), len(second.scores)) == (0, 1)

    def test_least_score(self):
        (found,) = run({(0, 0): 0.5, (15, 0): 0.4}, score=0.45)
        assert found.scores.tolist() == pytest.approx([0.5])

    def test_candidates_are_counted_a_level_and_over_classes(self):
        scores = {(0, 0): 0.9, (0, 1): 0.8, (3, 0): 0.7, (12, 0): 0.6, (16, 0): 0.3, (19, 1): 0.2}
        (found,) = run(scores, candidates=2, nms=1.0)
        assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3, 0.2])

    def test_most_detections(self):
        (found,) = run({(0, 0): 0.9, (3, 0): 0.8, (12, 0): 0.7, (15, 0): 0.6}, detections=3, nms=1.0)
        assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])

    def test_overlapping_ones_of_a_class_are_suppressed(self):
        # Neighbours 4 px apart, 16 px wide, clipped to [0, 10] and [0, 14]: IoU 10/14.
        assert run({(0, 0): 0.9, (1, 0): 0.8})[0].scores.tolist() == pytest.approx([0.9])
        assert len(run({(0, 0): 0.9, (1, 1): 0.8})[0].scores) == 2

    def test_a_location_may_be_several_classes(self):
        assert run({(0, 0): 0.9, (0, 1): 0.8})[0].labels.tolist() == [0, 1]

    def test_softmax_background_is_no_class(self):
        detector = Detector(CONFIG, 2, softmax=True)
        grid = detector.grid(16, 16)
        logits = torch.tensor([-20.0, -20, 20]).repeat(1, len(grid.anchors), 1)
        logits[0, 7] = torch.tensor([0.0, np.log(3), -20])
        (found,) = detect(
            detector, grid, Output(logits, torch.zeros(1, len(grid.anchors), 4)), (16, 16), limits()
        )
        # One of the three surviving (location, class) pairs a class: .75 and .25.
        assert found.labels.tolist() == [1, 0]
        assert found.scores.tolist() == pytest.approx([0.75, 0.25])

    def test_retinanet_and_distributions(self):
        for config in (
            DetectorConfig(kind="retinanet", width=4, channels=8, strides=(4, 8)),
            DetectorConfig(width=4, channels=8, strides=(4, 8), bins=8),
        ):
            torch.manual_seed(0)
            detector = Detector(config, 3).eval()
            with torch.no_grad():
                results = detect(
                    detector, detector.grid(32, 24), detector(torch.rand(2, 3, 32, 24)), (32, 24),
                    limits(score=0.005, detections=7, nms=1.0),
                )  # fmt: skip
            assert [len(found.scores) for found in results] == [7, 7]
            for found in results:
                assert (np.diff(found.scores) <= 0).all()
                assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
                assert found.boxes.min() >= 0
                assert (found.boxes <= [24, 32, 24, 32]).all()

    def test_half_precision_output(self):
        detector = Detector(CONFIG, 2)
        one = output(detector, {(0, 1): 0.5})
        half = Output(one.logits.bfloat16(), one.regression.bfloat16())
        (found,) = detect(detector, detector.grid(16, 16), half, (16, 16), limits())
        assert found.boxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": -0.1}, "score is -0.1"),
        ({"nms": 1.5}, "nms is 1.5"),
        ({"candidates": 0}, "candidates is 0"),
        ({"detections": 0}, "detections is 0"),
    ],
)
def test_errors_name_the_limit(change: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        limits(**change)


def random_detections(seed: int, count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator) * 100
    scores = torch.rand(count, generator=generator)
    return torch.cat([corner, corner + size], 1), scores, torch.randint(0, 4, (count,), generator=generator)


def test_many_random_boxes_equal_the_loops():
    boxes, scores, labels = random_detections(0)
    result = suppress(boxes, scores, labels, limits(detections=1000))
    kept = slow_nms(boxes.tolist(), scores.tolist(), labels.tolist(), 0.5, 1000)
    assert len(kept) < 350
    assert result.scores.tolist() == [scores[i].item() for i in kept]
