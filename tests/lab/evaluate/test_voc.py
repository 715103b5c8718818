"""VOC's average precision against cases computed by hand and a transcription of its rules."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.data import Sample
from detloss.lab.evaluate import Detections, evaluate, voc_ap, voc_map


def truth(boxes, labels, ignored=None, name="a") -> Sample:
    count = len(labels)
    return Sample(
        image=np.zeros((100, 100, 3), np.uint8),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        id=name,
        ignored=np.array([False] * count if ignored is None else ignored, bool),
    )


def found(boxes, scores, labels) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


A, B, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]


def test_by_hand():
    # By score: right (P 1, R .5), wrong (P .5, R .5), right (P 2/3, R 1).
    truths = [truth([A, B], [0, 0])]
    detections = [found([A, FAR, B], [0.9, 0.8, 0.7], [0, 0, 0])]
    # 2010: .5 · 1 + .5 · 2/3. 2007: recall 0 .1 .2 .3 .4 .5 have precision 1, .6 … 1 have 2/3.
    assert voc_ap(detections, truths, ["x"], "2010")["x"] == pytest.approx(0.5 + 1 / 3)
    assert voc_ap(detections, truths, ["x"], "2007")["x"] == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_recall_of_exactly_a_tenth_counts():
    # Three of ten objects found: recall .3, and 3/10 is a hair less than .3 in floating point.
    boxes = [[10 * i, 0, 10 * i + 8, 8] for i in range(10)]
    truths, detections = [truth(boxes, [0] * 10)], [found(boxes[:3], [0.9, 0.8, 0.7], [0] * 3)]
    assert voc_ap(detections, truths, ["x"], "2007")["x"] == pytest.approx(4 / 11)
    assert voc_ap(detections, truths, ["x"], "2010")["x"] == pytest.approx(0.3)


def test_a_second_detection_of_an_object_is_a_mistake():
    # IoU .8 with A; COCO's rule would do the same here, since there is no other object.
    truths, detections = [truth([A], [0])], [found([[0, 0, 10, 8], A], [0.9, 0.8], [0, 0])]
    assert voc_ap(detections, truths, ["x"])["x"] == 1.0
    detections = [found([[0, 0, 10, 8], A, B], [0.9, 0.8, 0.7], [0, 0, 0])]
    assert voc_ap(detections, [truth([A, B], [0, 0])], ["x"])["x"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_most_overlapped_object_is_the_one_even_if_taken():
    # Both detections overlap the first object most; the second, IoU .6 with the other, is not given to that.
    objects = [[0, 0, 10, 10], [4, 0, 14, 10]]
    detections = [found([[0, 0, 10, 10], [1, 0, 11, 10]], [0.9, 0.8], [0, 0])]
    assert voc_ap(detections, [truth(objects, [0, 0])], ["x"])["x"] == pytest.approx(0.5)


def test_iou_of_exactly_a_half_is_right():
    assert voc_ap([found([[0, 0, 10, 5]], [0.9], [0])], [truth([A], [0])], ["x"])["x"] == 1.0
    assert voc_ap([found([[0, 0, 10, 4.9]], [0.9], [0])], [truth([A], [0])], ["x"])["x"] == 0.0


def test_difficult_objects_count_neither_way():
    truths = [truth([A, B], [0, 0], [True, False])]
    detections = [found([A, [0, 0, 10, 9], B], [0.9, 0.85, 0.8], [0, 0, 0])]
    assert voc_ap(detections, truths, ["x"]) == {"x": 1.0}


def test_classes_images_and_nothing():
    truths = [truth([A], [0], name="a"), truth([A], [1], name="b"), truth([], [], name="c")]
    detections = [found([A], [0.5], [0]), found([A], [0.5], [0]), found([A], [0.9], [0])]
    ap = voc_ap(detections, truths, ["x", "y", "z"])
    assert ap["x"] == pytest.approx(1 / 2)  # the mistake in c has the higher score; in b it comes after
    assert ap["y"] == 0.0
    assert math.isnan(ap["z"])
    assert math.isnan(voc_ap([], [], ["x"])["x"])


def transcribed(detections, truths, label, rule) -> float:
    """The development kit's loop, one detection after another."""
    rows = [
        (float(s), i, box)
        for i, d in enumerate(detections)
        for s, box, name in zip(d.scores, d.boxes.astype(float), d.labels)
        if name == label
    ]
    rows.sort(key=lambda row: -row[0])
    objects = sum(int(((t.labels == label) & ~t.ignored).sum()) for t in truths)
    taken, hits, count, curve = set(), 0, 0, []
    for _, i, (x1, y1, x2, y2) in rows:
        best, which = -1.0, -1
        for j, (a, b, c, d) in enumerate(truths[i].boxes.astype(float)):
            if truths[i].labels[j] == label:
                shared = max(0, min(x2, c) - max(x1, a)) * max(0, min(y2, d) - max(y1, b))
                iou = shared / ((x2 - x1) * (y2 - y1) + (c - a) * (d - b) - shared)
                if iou > best:
                    best, which = iou, j
        if best >= 0.5 and truths[i].ignored[which]:
            continue
        count += 1
        if best >= 0.5 and (i, which) not in taken:
            taken.add((i, which))
            hits += 1
        curve.append((hits / objects, hits / count))
    if rule == "2007":
        return sum(max((p for r, p in curve if r >= t / 10 - 1e-9), default=0) for t in range(11)) / 11
    area, before = 0.0, 0.0
    for k, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[k:])
        before = recall
    return area


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_as_the_development_kit(seed):
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for i in range(3):
        n, m = rng.integers(0, 5), rng.integers(0, 9)
        corner = rng.integers(0, 20, (n, 2))
        boxes = np.concatenate([corner, corner + rng.integers(4, 12, (n, 2))], 1)
        truths.append(truth(boxes, rng.integers(0, 2, n), rng.random(n) < 0.2, f"{i}"))
        corner = rng.integers(0, 20, (m, 2))
        boxes = np.concatenate([corner, corner + rng.integers(4, 12, (m, 2))], 1)
        scores = rng.permutation(100)[:m] / 100 + i / 1000  # no ties: their order would be anybody's choice
        detections.append(found(boxes, scores, rng.integers(0, 2, m)))
    for rule in ("2007", "2010"):
        ap = voc_ap(detections, truths, ["x", "y"], rule)
        for label, value in enumerate(ap.values()):
            if not math.isnan(value):
                assert value == pytest.approx(transcribed(detections, truths, label, rule), abs=1e-9)


def test_errors():
    with pytest.raises(ValueError, match="rule is '2012'"):
        voc_ap([], [], ["x"], "2012")
    with pytest.raises(ValueError, match="detections: 0 images, but truths has 1"):
        voc_ap([], [truth([A], [0])], ["x"])
    with pytest.raises(ValueError, match="labels"):
        voc_ap([found([A], [0.5], [3])], [truth([A], [0])], ["x"])


def test_the_map_is_the_mean_over_classes_with_objects():
    truths = [truth([A, B, FAR], [0, 0, 1])]
    detections = [found([A, FAR, B], [0.9, 0.8, 0.7], [0, 0, 0])]
    # Class 0 as in test_by_hand, class 1 is never found, class 2 has no object.
    by_hand = [(6 + 5 * 2 / 3) / 11 / 2, (0.5 + 1 / 3) / 2]
    assert voc_map(detections, truths, ["x", "y", "z"]) == pytest.approx(by_hand)
    result = evaluate(detections, truths, ["x", "y", "z"])
    assert [result.voc2007, result.voc2010] == pytest.approx(by_hand)
    assert np.isnan(voc_map([found([A], [0.9], [0])], [truth([], [])], ["x"])).all()


def test_as_many_detections_as_images():
    with pytest.raises(ValueError, match="detections: 0 images, but truths has 1"):
        voc_map([], [truth([A], [0])], ["x"])
