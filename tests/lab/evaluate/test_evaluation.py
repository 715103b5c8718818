"""evaluate() against pycocotools, and calibration and correlation against numbers worked out by hand."""

import contextlib
import io
import json
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.evaluate import (
    Detections,
    Evaluation,
    evaluate,
    from_coco_results,
    rank_correlation,
    to_coco_results,
)
from helpers.detections import Annotated, found, scene, truth

STATS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


def pycocotools_stats(
    detections: list[Detections],
    truths: list[Annotated],
    classes: int,
    area: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The 12 COCO numbers, AP per class, and AP over objects of an own range of area; -1 is none."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = []
    for image, t in enumerate(truths):
        for (x1, y1, x2, y2), label, ignored in zip(t.boxes.astype(float), t.labels, t.ignored):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(ignored),
                }
            )
    results = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(score),
        }
        for image, d in enumerate(detections)
        for (x1, y1, x2, y2), label, score in zip(d.boxes.astype(float), d.labels, d.scores)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": i} for i in range(classes)],
        }
        coco.createIndex()
        if results:
            loaded = coco.loadRes(results)
        else:  # loadRes of pycocotools cannot read an empty list
            loaded = COCO()
            loaded.dataset = {**coco.dataset, "annotations": []}
            loaded.createIndex()
        evaluator = COCOeval(coco, loaded, "bbox")
        if area is not None:
            evaluator.params.areaRng[3] = list(area)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()

    def mean(p: np.ndarray) -> float:
        return p[p > -1].mean() if (p > -1).any() else -1.0

    precision = evaluator.eval["precision"]
    per_class = np.array([mean(precision[:, :, i, 0, 2]) for i in range(classes)])
    return np.array(evaluator.stats), per_class, mean(precision[:, :, :, 3, 2])


def assert_is_pycocotools(detections: list[Detections], truths: list[Annotated], classes: int) -> Evaluation:
    result = evaluate(detections, truths, [str(i) for i in range(classes)])
    stats, per_class, _ = pycocotools_stats(detections, truths, classes)
    ours = np.nan_to_num([getattr(result, name) for name in STATS], nan=-1.0)
    np.testing.assert_allclose(ours, stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        np.nan_to_num(list(result.per_class.values()), nan=-1.0), per_class, rtol=0, atol=1e-12
    )
    return result


@pytest.mark.parametrize("step", [0.0, 0.25])
@pytest.mark.parametrize("noise", [0.02, 0.15])
@pytest.mark.parametrize("classes", [1, 5])
def test_all_numbers_are_pycocotools(classes, noise, step):
    for seed in range(4):
        rng = np.random.default_rng([seed, classes])
        result = assert_is_pycocotools(*scene(rng, 30, classes, noise, step), classes)
        assert 0 < result.ap < 1


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 4),
    classes=st.integers(1, 3),
    noise=st.sampled_from([0.0, 0.1, 0.3]),
    step=st.sampled_from([0.0, 0.5]),
)
def test_small_scenes_are_pycocotools(seed, images, classes, noise, step):
    assert_is_pycocotools(*scene(np.random.default_rng(seed), images, classes, noise, step), classes)


def test_more_than_100_detections_in_an_image():
    rng = np.random.default_rng(7)
    detections, truths = [], []
    for _ in range(3):
        corner = rng.uniform(0, 400, (260, 2)).astype(np.float32)
        boxes = np.concatenate([corner, corner + 20], axis=1)
        labels = rng.integers(0, 2, 260)
        detections.append(Detections(boxes + 1, rng.uniform(size=260).astype(np.float32), labels))
        truths.append(Annotated(boxes[:150], labels[:150], np.zeros(150, bool)))
    result = assert_is_pycocotools(detections, truths, 2)
    assert result.detections == 780


def test_size_bins_are_pycocotools_and_disjoint():
    rng = np.random.default_rng(3)
    detections, truths = scene(rng, 60, 3, 0.05, step=0.25)
    truths[0] = truth(
        (0, 0, 16, 16, 0), (40, 40, 72, 72, 1)
    )  # on the edges: 16 belongs to [16, 32), 32 to [32, 64)
    detections[0] = found((0, 0, 16, 16, 0, 0.9))
    result = evaluate(detections, truths, "abc")
    assert sum(b.objects for b in result.size_bins) == result.objects
    edges = [(b.low, b.high) for b in result.size_bins]
    assert edges == [(0, 16), (16, 32), (32, 64), (64, 96), (96, math.inf)]
    for b in result.size_bins:
        high = np.nextafter(b.high**2, 0) if math.isfinite(b.high) else 1e10
        assert b.ap == pytest.approx(pycocotools_stats(detections, truths, 3, (b.low**2, high))[2], abs=1e-12)


def test_size_bins_without_objects_are_left_out():
    result = evaluate([found()], [truth((0, 0, 20, 20, 0))], ["a"], size_edges=(0, 8, 20, 30, math.inf))
    assert [(b.low, b.high, b.objects, b.ap) for b in result.size_bins] == [(20, 30, 1, 0.0)]


def test_perfect_detections():
    result = evaluate([found((0, 0, 10, 10, 1, 1.0))], [truth((0, 0, 10, 10, 1))], ["cat", "dog"])
    got = (result.ap, result.ap50, result.ap75, result.ap_small, result.ar1, result.per_class["dog"])
    assert got == pytest.approx((1,) * 6)
    assert math.isnan(result.per_class["cat"])
    assert math.isnan(result.ap_large)
    assert result.calibration.ece == 0
    assert result.calibration.recall == 1
    assert list(result.precision) == ["dog"]
    np.testing.assert_allclose(result.precision["dog"], np.ones(101))
    np.testing.assert_allclose(result.recall_grid, np.arange(101) / 100)


def test_no_detections():
    result = evaluate([found()], [truth((0, 0, 10, 10, 0))], ["a"])
    assert (result.ap, result.ap50, result.ar100, result.detections) == (0, 0, 0, 0)
    assert math.isnan(result.calibration.ece)
    assert result.calibration.recall == 0
    assert math.isnan(result.score_iou_correlation)
    assert len(result.scores) == 0
    np.testing.assert_array_equal(result.mean_precision, np.zeros(101))


@pytest.mark.parametrize(
    "detections", [[found(), found()], [found((0, 0, 5, 5, 0, 0.5)), found((1, 1, 2, 2, 0, 0.9))]]
)
def test_no_objects(detections):
    result = evaluate(detections, [truth(), truth((0, 0, 1, 1, 0), ignored=(0,))], ["a"])
    assert result.objects == 0
    assert all(math.isnan(getattr(result, name)) for name in STATS)
    assert math.isnan(result.per_class["a"])
    assert math.isnan(result.calibration.recall)
    assert result.precision == {}
    assert np.isnan(result.mean_precision).all()
    assert result.size_bins == ()


def test_no_images():
    result = evaluate([], [], ["a"])
    assert (result.images, result.objects, result.detections) == (0, 0, 0)
    assert math.isnan(result.ap)


def test_ignored_is_neither_found_nor_a_mistake():
    objects = truth((0, 0, 20, 20, 0), (50, 50, 90, 90, 0), ignored=(1,))
    good = (0.0, 0.0, 20.0, 20.0, 0, 0.6)
    # all inside the ignored object: IoU with it is 1/16, intersection over the detection's area is 1
    inside = (60.0, 60.0, 70.0, 70.0, 0, 0.9)
    result = evaluate([found(good, inside, inside)], [objects], ["a"])
    assert (result.ap, result.objects, result.detections) == (pytest.approx(1), 1, 3)
    assert (result.calibration.detections, result.calibration.recall) == (1, 1)
    # of another class it is a mistake
    other = (60.0, 60.0, 70.0, 70.0, 1, 0.9)
    assert evaluate([found(good, other)], [objects], ["a", "b"]).calibration.detections == 2


def test_an_object_is_preferred_to_an_ignored_one():
    objects = truth((0, 0, 20, 20, 0), (0, 0, 40, 40, 0), ignored=(1,))
    result = evaluate([found((0, 0, 20, 20, 0, 0.9), (0, 0, 19, 19, 0, 0.8))], [objects], ["a"])
    # the first takes the object, the second lies inside the ignored one
    assert (result.calibration.detections, result.calibration.recall) == (1, 1)
    assert result.ap == pytest.approx(1)


def test_calibration_by_hand():
    objects = truth((0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (40, 0, 50, 10, 1), (60, 0, 70, 10, 1))
    detections = found(
        (0, 0, 10, 10, 0, 0.95),  # right, IoU 1
        (0, 0, 10, 9, 0, 0.85),  # a second one on the same object: mistake
        (20, 0, 30, 8, 0, 0.85),  # right, IoU .8
        (40, 0, 50, 5, 1, 0.25),  # right, IoU exactly .5
        (60, 0, 70, 4, 1, 0.25),  # IoU .4: mistake
        (60, 0, 70, 10, 0, 0.25),  # of another class: mistake
        (60, 0, 70, 10, 1, 0.04),  # below the threshold
    )
    result = evaluate([detections], [objects], ["a", "b"])
    c = result.calibration
    # three bins: .95 (1 of 1 right), .85 (1 of 2), .25 (1 of 3)
    assert c.count.tolist() == [0, 0, 3, 0, 0, 0, 0, 0, 2, 1]
    np.testing.assert_allclose(c.accuracy[[2, 8, 9]], [1 / 3, 1 / 2, 1])
    np.testing.assert_allclose(c.confidence[[2, 8, 9]], [0.25, 0.85, 0.95], rtol=1e-6)
    assert np.isnan(c.accuracy[0])
    assert np.isnan(c.confidence[0])
    assert c.ece == pytest.approx((3 * (1 / 3 - 0.25) + 2 * 0.35 + 1 * 0.05) / 6, rel=1e-6)
    assert (c.threshold, c.detections, c.recall, c.ap) == (0.05, 6, 3 / 4, result.ap)
    # score ranks 3, 2, 1 and IoU ranks 3, 2, 1
    assert result.score_iou_correlation == pytest.approx(1.0)
    np.testing.assert_allclose(sorted(result.ious), [0.5, 0.8, 1.0])

    everything = evaluate([detections], [objects], ["a", "b"], score_threshold=0.0).calibration
    assert (everything.detections, everything.recall) == (7, 1)


def test_calibration_bins_close_below():
    detections = found(*((100.0 * i, 0.0, 100.0 * i + 1, 1.0, 0, s) for i, s in enumerate((0.25, 0.5, 1.0))))
    c = evaluate([detections], [truth()], ["a"]).calibration
    assert c.count.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert c.ece == pytest.approx((0.25 + 0.5 + 1) / 3)


def test_a_free_object_of_less_overlap_is_taken():
    objects = truth((0, 0, 10, 10, 0), (0, 2, 10, 12, 0))
    result = evaluate([found((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.8))], [objects], ["a"])
    assert result.calibration.recall == 1
    np.testing.assert_allclose(result.ious, [1, 8 / 12])


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_calibration_matches_as_coco_does(seed):
    """What is right at score ≥ 0 is what COCO's recall at IoU 0.5 counts."""
    detections, truths = scene(np.random.default_rng(seed), 6, 1, 0.15)
    result = evaluate(detections, truths, ["a"], score_threshold=0.0)
    if result.objects:
        # COCO has no AR50; the last recall on the grid with precision > 0 is it, rounded down to 1 %
        reached = result.recall_grid[result.precision["a"] > 0]
        highest = reached.max() if len(reached) else 0.0
        assert highest <= result.calibration.recall + 1e-9 < highest + 0.01 + 2e-9


def test_calibrated_scores_have_a_small_ece():
    rng = np.random.default_rng(0)
    n = 4000
    scores = rng.uniform(0.05, 1, n).astype(np.float32)
    right = rng.uniform(size=n) < scores
    boxes = np.stack([np.arange(n) * 10.0, np.zeros(n), np.arange(n) * 10.0 + 8, np.full(n, 8.0)], axis=1)
    boxes = boxes.astype(np.float32)
    labels = np.zeros(n, np.int64)
    objects = [
        Annotated(
            boxes[i : i + 100][right[i : i + 100]],
            labels[: right[i : i + 100].sum()],
            np.zeros(right[i : i + 100].sum(), bool),
        )
        for i in range(0, n, 100)
    ]
    honest = [Detections(boxes[i : i + 100], scores[i : i + 100], labels[:100]) for i in range(0, n, 100)]
    proud = [Detections(d.boxes, np.sqrt(d.scores), d.labels) for d in honest]
    assert evaluate(honest, objects, ["a"]).calibration.ece < 0.03
    # E[√s - s] = 2/3 - 1/2 for s uniform in [0, 1]
    assert evaluate(proud, objects, ["a"]).calibration.ece == pytest.approx(1 / 6, abs=0.03)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [9, 4, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),  # 1 - 6 Σd² / n(n²-1) = 1 - 12/60
        ([1, 1, 2], [1, 2, 3], math.sqrt(3) / 2),  # ranks 1.5 1.5 3 and 1 2 3
        ([1, 1, 1], [1, 2, 3], math.nan),
        ([1], [1], math.nan),
        ([], [], math.nan),
    ],
)
def test_rank_correlation_by_hand(a, b, expected):
    assert rank_correlation(np.array(a, float), np.array(b, float)) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=12), st.data())
def test_rank_correlation_properties(a, data):
    b = data.draw(st.lists(st.integers(-4, 4), min_size=len(a), max_size=len(a)))
    x, y = np.array(a, float), np.array(b, float)
    rho = rank_correlation(x, y)
    if math.isnan(rho):
        assert min(len(set(a)), len(set(b))) == 1
        return
    assert abs(rho) <= 1 + 1e-12
    assert rank_correlation(y, x) == pytest.approx(rho)
    assert rank_correlation(-x, y) == pytest.approx(-rho)
    assert rank_correlation(np.exp(x), y**3) == pytest.approx(rho)  # only the order counts


def test_json_round_trip():
    detections, truths = scene(np.random.default_rng(1), 20, 3, 0.1)
    result = evaluate(detections, truths, ["a", "b", "c"])
    text = json.dumps(result.to_dict(), allow_nan=False)
    back = Evaluation.from_dict(json.loads(text))
    assert json.dumps(back.to_dict()) == text
    assert back.ap == result.ap
    assert math.isnan(back.per_class["c"])
    assert back.size_bins[-1].high == math.inf
    np.testing.assert_array_equal(back.calibration.accuracy, result.calibration.accuracy)
    np.testing.assert_array_equal(back.scores, result.scores)
    assert Evaluation.from_dict({"seconds": 1.0, **result.to_dict()}).to_dict() == result.to_dict()
    with pytest.raises(ValueError, match="evaluation has no 'ap', 'ious'; if an older version"):
        Evaluation.from_dict({k: v for k, v in result.to_dict().items() if k not in ("ap", "ious")})


def test_at_most_2000_pairs_are_kept():
    n = 2500
    boxes = np.stack([np.arange(n) * 10.0, np.zeros(n), np.arange(n) * 10.0 + 8, np.full(n, 8.0)], axis=1)
    boxes = boxes.astype(np.float32)
    labels = np.zeros(50, np.int64)
    images = [boxes[i : i + 50] for i in range(0, n, 50)]
    detections = [Detections(b, np.linspace(0.1, 1, 50, dtype=np.float32), labels) for b in images]
    result = evaluate(detections, [Annotated(b, labels, labels.astype(bool)) for b in images], ["a"])
    assert len(result.scores) == len(result.ious) == 2000
    assert result.calibration.detections == n


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_coco_results_round_trip_is_exact(seed):
    detections, _ = scene(np.random.default_rng(seed), 3, 4, 0.2)
    ids, categories = ["b", "a", "empty"], [7, 3, 90, 1]
    results = json.loads(json.dumps(to_coco_results(detections, ids, categories)))
    for back, d in zip(from_coco_results(results, ids, categories), detections, strict=True):
        np.testing.assert_array_equal(back.boxes, d.boxes)
        np.testing.assert_array_equal(back.scores, d.scores)
        np.testing.assert_array_equal(back.labels, d.labels)


def test_coco_results_by_hand():
    results = to_coco_results([found(), found((1, 2, 4, 8, 1, 0.5))], [10, 11], [1, 5])
    assert results == [{"image_id": 11, "category_id": 5, "bbox": [1, 2, 3, 6], "score": 0.5}]
    plain = to_coco_results([found((1, 2, 4, 8, 1, 0.5))], ["a"])
    assert plain[0]["category_id"] == 1  # the label itself
    assert from_coco_results(json.loads(json.dumps(plain)), ["a"])[0].labels.tolist() == [1]
    with pytest.raises(ValueError, match=r"results\[0\]: image_id 11 is not among the 1 ids given"):
        from_coco_results(results, [10], [1, 5])
    with pytest.raises(ValueError, match=r"results\[0\]: category_id 5 is not in \[1, 2\]"):
        from_coco_results(results, [11], [1, 2])


BOX = (0.0, 0.0, 1.0, 1.0, 0)


@pytest.mark.parametrize(
    ("detections", "truths", "message"),
    [
        ([], [truth()], r"detections: 0 images, but truths has 1"),
        ([found((0, 0, 1, 1, 2, 0.5))], [truth()], r"detections\.labels\[0\]: expected 0\.\.1, got 2"),
        ([found()], [truth(BOX, (0, 0, 1, 1, -1))], r"truths\.labels\[1\]: expected 0\.\.1, got -1"),
        ([found((*BOX, 1.5))], [truth()], r"detections\.scores\[0\]: expected 0\.\.1, got 1\.5"),
        ([found((*BOX, math.nan))], [truth()], r"detections\.scores\[0\]: expected 0\.\.1, got nan"),
        ([found((5, 0, 1, 1, 0, 0.5))], [truth()], r"detections\.boxes\[0\]: expected finite x1 ≤ x2"),
        (
            [found()],
            [truth((0, 0, math.inf, 1, 0))],
            r"truths\.boxes\[0\]: expected finite .* \(image 'image'\)",
        ),
        (
            [Detections(np.zeros((2, 4)), np.zeros(1), np.zeros(1, np.int64))],
            [truth()],
            r"detections\.boxes: expected shape \(1, 4\), got \(2, 4\) \(image 'image'\)",
        ),
    ],
)
def test_errors_name_argument_row_and_image(detections, truths, message):
    with pytest.raises(ValueError, match=message):
        evaluate(detections, truths, ["a", "b"])


@pytest.mark.parametrize("edges", [(0,), (0, 8, 8), (-1, 3), (5, 2)])
def test_size_edges_must_increase(edges):
    with pytest.raises(ValueError, match="size_edges: expected two or more increasing numbers"):
        evaluate([], [], ["a"], size_edges=edges)


def test_nothing_is_printed_or_logged_or_changed(capfd, caplog):
    detections, truths = scene(np.random.default_rng(5), 5, 2, 0.1)
    before = [d.boxes.copy() for d in detections], [t.boxes.copy() for t in truths]
    with caplog.at_level(logging.INFO):
        evaluate(detections, truths, ["a", "b"])
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    for old, new in zip(before[0] + before[1], [d.boxes for d in detections] + [t.boxes for t in truths]):
        np.testing.assert_array_equal(old, new)


def test_calibration_from_any_overlap_on():
    """Of one class IoU .4 with score .6, and a mistake of score .3; of another IoU 1 with .9."""
    objects = truth((0, 0, 10, 10, 0), (50, 50, 60, 60, 1))
    detections = found((0, 0, 10, 4, 0, 0.6), (90, 90, 99, 99, 0, 0.3), (50, 50, 60, 60, 1, 0.9))
    calibration = evaluate([detections], [objects], ["a", "b"]).calibration
    # alone in their bins: class a (|.6 - .4| + |.3 - 0|) / 2, class b |.9 - 1|
    assert calibration.laece0 == pytest.approx((0.25 + 0.1) / 2, abs=1e-6)
    assert calibration.laace0 == pytest.approx((0.25 + 0.1) / 2, abs=1e-6)
    assert calibration.laece == pytest.approx((0.45 + 0.1) / 2, abs=1e-6)  # from IoU .5 on it is a mistake


def test_laace_does_not_let_errors_of_a_bin_cancel():
    objects = [truth((0, 0, 10, 10, 0)), truth((0, 0, 10, 10, 0))]
    detections = [found((0, 0, 10, 10, 0, 0.8)), found((0, 0, 10, 6, 0, 0.8))]  # IoU 1 and .6
    calibration = evaluate(detections, objects, ["a"]).calibration
    assert calibration.laece0 == pytest.approx(0, abs=1e-6)
    assert calibration.laace0 == pytest.approx(0.2, abs=1e-6)


def test_platt_scaling_repairs_scores_that_are_too_proud():
    random = np.random.default_rng(0)
    detections, objects = [], []
    for _ in range(300):
        score = random.uniform(0.5, 0.99)
        right = random.uniform() < score - 0.4
        box = (0, 0, 10, 10) if right else (50, 50, 60, 60)
        detections.append(found((*box, 0, score)))
        objects.append(truth((0, 0, 10, 10, 0)))
    calibration = evaluate(detections, objects, ["a"]).calibration
    assert calibration.ece > 0.3
    assert calibration.ece_platt < 0.1
