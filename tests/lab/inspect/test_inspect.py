"""What lies in a data set and which objects no location must find: hand-made scenes and what must add up."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detloss.lab.data import Annotation, Dataset, SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed, collate
from detloss.lab.detector import Detector, DetectorConfig
from detloss.lab.detector.assign import max_iou
from detloss.lab.detector.locations import LevelCounts, LocationCounts, count_locations
from detloss.lab.inspect.figure4 import LossCurve
from detloss.lab.inspect.inspection import InspectConfig, measure_data
from detloss.lab.inspect.objects import count_objects, count_sizes
from detloss.lab.inspect.recommend import (
    AS_CONFIGURED,
    Alternative,
    Recommendation,
    count_alternatives,
    recommend,
)
from detloss.names import CLASSIFICATION_LOSSES, find_loss

KINDS = ("anchor_free", "retinanet")


def dataset(*images: list[tuple[float, float, float, float]], side: int = 32, ignored: tuple = ()) -> Dataset:
    """Grey images of these boxes, all of class 0 of two; `ignored` names (image, object)."""
    annotations = [
        Annotation(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.zeros(len(boxes), np.int64),
            np.array([(i, k) in ignored for k in range(len(boxes))], bool),
            str(i),
        )
        for i, boxes in enumerate(images)
    ]
    return Dataset(("a", "b"), annotations, [np.full((side, side, 3), 99, np.uint8) for _ in images])


LOST = (0.2, 0.2, 1.8, 1.8)
"""The cells' centres nearest to it lie at (2, 2), (4, 4) and (8, 8)."""
FOUND = (8.0, 8.0, 24.0, 24.0)


def test_an_object_between_the_centres_is_lost():
    counts = count_locations(DetectorConfig(), Letterboxed(dataset([LOST, FOUND]), 32))
    assert counts.object_positives[0] == 0
    assert counts.object_positives[1] == counts.positives > 0
    np.testing.assert_allclose(counts.sizes, [1.6, 16.0], rtol=1e-6)
    assert (counts.objects, counts.objects_without_positive) == (2, 1)


def test_two_objects_with_one_box_are_both_found_only_if_their_class_is():
    twice = dataset([FOUND, FOUND])
    twice.annotation(0).labels[1] = 1
    counts = count_locations(DetectorConfig(), Letterboxed(twice, 32))
    assert sorted(counts.object_positives > 0) == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_every_location_is_counted_once_and_every_positive_has_its_object(kind):
    data = Letterboxed(scenes(SceneConfig(train=24), "train"), 96)
    config = DetectorConfig(kind=kind)
    counts = count_locations(config, data)
    assert [level.stride for level in counts.levels] == [4, 8, 16]
    for level in counts.levels:
        assert level.positives + level.negatives + level.ignored == counts.images * level.locations
    assert counts.object_positives.sum() == counts.positives
    assert counts.logits == 4 * (counts.positives + counts.negatives)
    assert counts.negatives_per_positive == counts.negatives / counts.positives
    assert counts.negatives_per_positive_logits == (counts.logits - counts.positives) / counts.positives
    assert counts.objects == count_objects(data.dataset, 96).objects


def test_counting_does_not_depend_on_how_many_at_a_time(monkeypatch):
    data = Letterboxed(scenes(SceneConfig(train=5), "train"), 96)
    together = count_locations(DetectorConfig(), data)
    monkeypatch.setattr("detloss.lab.detector.locations._AT_ONCE", 1)
    one_by_one = count_locations(DetectorConfig(), data)
    assert one_by_one.levels == together.levels
    np.testing.assert_array_equal(one_by_one.object_positives, together.object_positives)


def test_no_object_at_all():
    data = Letterboxed(dataset([], []), 32)
    counts = count_locations(DetectorConfig(), data)
    assert (counts.objects, counts.positives, counts.negatives) == (0, 0, 2 * counts.locations)
    assert counts.negatives_per_positive == counts.negatives
    assert count_sizes(np.zeros(0), np.zeros(0), np.zeros(0), []) == []


def test_ignored_objects_are_neither_found_nor_lost():
    data = dataset([LOST, FOUND], [FOUND], [], ignored=((0, 1), (1, 0)))
    counts = count_locations(DetectorConfig(), Letterboxed(data, 32))
    assert (counts.objects, counts.positives) == (1, 0)
    assert counts.ignored == 2 * (16 + 4 + 1)  # centres within 16 × 16 px at strides 4, 8 and 16
    objects = count_objects(data, 32)
    assert (objects.images, objects.empty, objects.objects, objects.ignored) == (3, 2, 1, 2)
    assert objects.per_class == {"a": 1, "b": 0}
    assert objects.per_image.tolist() == [2, 1]


def test_sizes_are_in_the_pixels_of_the_square():
    wide = Dataset(
        ("a",),
        [Annotation(np.array([[0, 0, 40, 10]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), "0")],
        [np.zeros((50, 100, 3), np.uint8)],
    )
    assert count_objects(wide, 32).sizes == pytest.approx([20 * 0.32])
    assert count_objects(wide, 32).own_sizes == pytest.approx([20])
    measured = count_locations(DetectorConfig(), Letterboxed(wide, 32)).sizes
    np.testing.assert_allclose(measured, [20 * 0.32], rtol=1e-6)


def test_size_table():
    rows = count_sizes(np.array([5.0, 6.0, 7.9, 20.0]), np.full(4, 10.0), np.array([6.0, 20.0]), [0, 3])
    assert [(row.low, row.high) for row in rows] == [(4, 6), (6, 8), (8, 12), (12, 16), (16, 24)]
    assert [row.objects for row in rows] == [1, 2, 0, 0, 1]
    assert [row.own for row in rows] == [0, 0, 4, 0, 0]
    assert [row.measured for row in rows] == [0, 1, 0, 0, 1]
    assert [row.without_positive for row in rows] == [0, 1, 0, 0, 0]
    assert [row.positives for row in rows] == [0, 0, 0, 0, 3]
    assert count_sizes(np.array([1e5]), np.zeros(0), np.zeros(0), [])[0].high == math.inf


# What to try


def counts_of(sizes: list[float], positives: list[int], negatives: int = 980) -> LocationCounts:
    level = LevelCounts(4, 1000, sum(positives), negatives, 0)
    rescued = np.zeros(len(sizes), bool)
    return LocationCounts(1, 2, (level,), np.array(sizes), np.array(positives), rescued)


def curve(label: str, gamma: float, total: float) -> LossCurve:
    return LossCurve(label, gamma, np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1, total)


def test_prior_and_alpha_by_hand():
    counts = counts_of([9.0, 20.0], [8, 12])
    curves = [curve("positive", 2.0, 1.0), curve("negative", 2.0, 3.0), curve("positive", 1.0, 0.0)]
    curves.append(curve("negative", 1.0, 0.0))
    alternatives = count_alternatives(DetectorConfig(), Letterboxed(dataset([FOUND]), 32), counts)
    found = {one.what: one for one in recommend(DetectorConfig(), counts, alternatives, curves)}
    prior = found["--detector.prior"]
    assert prior.evidence["positive_rate"] == 20 / 2000 == prior.value
    assert prior.evidence["bias"] == pytest.approx(-math.log(0.99 / 0.01))
    assert prior.evidence["bias"] == pytest.approx(prior.evidence["configured_bias"])
    balanced = found["alpha and gamma, balanced here"]
    assert balanced.value == ["focal,gamma=2,alpha=0.75"]  # of gamma 1 nothing is known
    alpha = balanced.evidence["gamma 2"]["alpha"]
    assert alpha * 1.0 == (1 - alpha) * 3.0
    assert found["strides and anchors"].value == "keep"
    assert "2 of 2 objects have a location" in found["strides and anchors"].why
    assert "focal,gamma=2,alpha=0.25" in found["alpha and gamma, published"].value


def test_without_positives_there_is_no_prior_to_recommend():
    counts = counts_of([], [])
    found = [one.what for one in recommend(DetectorConfig(), counts, [], [])]
    assert found == ["alpha and gamma, published", "strides and anchors"]


def test_what_covers_a_lost_object_is_found_by_counting():
    data = Letterboxed(dataset([LOST, FOUND], [FOUND]), 32)
    config = DetectorConfig()
    counts = count_locations(config, data)
    alternatives = count_alternatives(config, data, counts)
    assert (alternatives[0].change, alternatives[0].objects_without_positive) == (AS_CONFIGURED, 1)
    (advice,) = (
        one for one in recommend(config, counts, alternatives, []) if one.what == "strides and anchors"
    )
    assert advice.why.startswith("1 of 3 objects have no location that must find them (2 px).")
    # At twice the size the first cell's centre lies inside; RetinaNet covers it too, with more locations.
    assert advice.value == "--size 64"
    assert count_locations(config, Letterboxed(data.dataset, 64)).objects_without_positive == 0
    chosen = next(row for row in alternatives if row.change == advice.value)
    assert chosen.objects_without_positive == 0
    for row in alternatives[1:]:
        assert row.unfit or row.locations >= chosen.locations


def test_nothing_is_proposed_that_does_not_help():
    counts = counts_of([3.0, 20.0], [0, 5])
    rows = count_alternatives(DetectorConfig(), Letterboxed(dataset([LOST]), 32), counts)
    none_helps = [replace(row, objects_without_positive=1, objects_rescued=0) for row in rows]
    (advice,) = (
        one
        for one in recommend(DetectorConfig(), counts, none_helps, [])
        if one.what == "strides and anchors"
    )
    assert advice.value == "keep"
    assert "No change that was counted" in advice.why


SMALL = (10.0, 10.0, 18.0, 18.0)
"""The anchors of the finest level have sides of 16 px and more: none overlaps it by .5."""


def test_objects_below_every_cell_need_a_larger_size():
    counts = counts_of([1.2, 1.5], [0, 0])
    row = Alternative(AS_CONFIGURED, 96, 756, 2, 0, 2, 3024.0)
    found = recommend(DetectorConfig(), counts, [row, replace(row, change="--size 192", size=192)], [])
    advice = {one.what: one for one in found}["strides and anchors"]
    assert advice.value == "keep"
    assert "smaller than the finest cell, 4 px: try a far larger --size" in advice.why


def test_what_the_rescue_saves():
    data = Letterboxed(dataset([SMALL, FOUND]), 32)
    config = DetectorConfig(kind="retinanet")
    counts = count_locations(config, data)
    assert (counts.object_positives > 0).all()
    assert counts.object_rescued.tolist() == [True, False]
    grid = Detector(config, 2).grid(32, 32)
    boxes, labels = torch.tensor([[SMALL, FOUND]]), torch.zeros(1, 2, dtype=torch.int64)
    without = max_iou(grid.anchors, boxes, labels, 2, rescue=False)
    assert not (without.boxes[without.positives] == boxes[0, 0]).all(-1).any()
    rows = count_alternatives(config, data, counts)
    assert (rows[0].objects_without_positive, rows[0].objects_rescued, rows[0].unfit) == (0, 1, 1)
    found = {one.what: one for one in recommend(config, counts, rows, [])}
    rescue = found["rescue of an object's best anchors"]
    assert (rescue.value, rescue.evidence["saved"]) == ("keep", 1)
    # Half of the objects live by the rescue alone: smaller anchors are proposed, and they do fit.
    assert found["strides and anchors"].value != "keep"
    chosen = next(row for row in rows if row.change == found["strides and anchors"].value)
    assert chosen.unfit == 0


def test_the_rescue_agrees_with_an_assignment_without_it():
    data = Letterboxed(scenes(SceneConfig(train=12, object_size=(6.0, 20.0)), "train"), 96)
    config = DetectorConfig(kind="retinanet")
    counts = count_locations(config, data)
    grid = Detector(config, 4).grid(96, 96)
    lost = 0
    for i in range(len(data)):
        batch = collate([data[i]])
        boxes, labels = torch.from_numpy(batch.boxes), torch.from_numpy(batch.labels)
        without = max_iou(grid.anchors, boxes, labels, 4, rescue=False)
        given = without.boxes[0][without.positives[0]]
        lost += sum(not (given == box).all(-1).any() for box in boxes[0])
    assert 0 < lost < counts.objects
    assert counts.object_rescued.sum() + counts.objects_without_positive == lost


def test_a_few_rescued_objects_are_no_reason_for_other_anchors():
    counts = replace(counts_of([20.0] * 200, [3] * 200), object_rescued=np.arange(200) == 7)
    config = DetectorConfig(kind="retinanet")
    rows = count_alternatives(config, Letterboxed(dataset([FOUND]), 32), counts)
    advice = {one.what: one for one in recommend(config, counts, rows, [])}["strides and anchors"]
    assert advice.value == "keep"
    assert "So few are what the rescue is for" in advice.why


def test_retinanet_is_no_remedy_for_objects_that_only_its_rescue_finds():
    """Of objects of 2 px its anchors of 16 px and more overlap hardly anything."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(2, 90, (12, 2))
    data = Letterboxed(dataset([(*xy, *(xy + 2)) for xy in corners], side=96), 96)
    config = DetectorConfig()
    counts = count_locations(config, data)
    rows = count_alternatives(config, data, counts)
    retinanet = next(row for row in rows if row.change == "--detector.kind retinanet")
    assert retinanet.objects_without_positive < counts.objects_without_positive <= retinanet.unfit
    advice = {one.what: one for one in recommend(config, counts, rows, [])}["strides and anchors"]
    assert advice.value == "--size 192"


def test_no_change_leaves_more_objects_without_any_location():
    counts = replace(counts_of([9.0] * 100, [1] * 100), object_rescued=np.arange(100) < 90)
    now = Alternative(AS_CONFIGURED, 96, 6804, 0, 90, 100, 73.0)
    other_kind = Alternative("--detector.kind anchor_free", 96, 756, 40, 0, 100, 47.0)
    same_kind = Alternative("--detector.anchor-size 2", 96, 6804, 0, 60, 100, 198.0)
    config = DetectorConfig(kind="retinanet")
    found = recommend(config, counts, [now, other_kind, same_kind], [])
    assert {one.what: one.value for one in found}["strides and anchors"] == same_kind.change


def test_where_every_object_is_lost():
    data = Letterboxed(dataset([LOST], [LOST]), 32)
    counts = count_locations(DetectorConfig(), data)
    assert (counts.positives, counts.objects_without_positive) == (0, 2)
    rows = count_alternatives(DetectorConfig(), data, counts)
    found = {one.what: one for one in recommend(DetectorConfig(), counts, rows, [])}
    assert "--detector.prior" not in found
    assert found["strides and anchors"].value == "--size 64"
    assert found["strides and anchors"].why.endswith(
        "negatives per positive."
    )  # of 0 positives there is no ratio


def test_an_alpha_that_nobody_would_try_is_not_proposed():
    curves = [curve("positive", 0.0, 1.0), curve("negative", 0.0, 3.0)]
    curves += [curve("positive", 2.0, 1.0), curve("negative", 2.0, 1e-4)]
    curves += [curve("positive", 5.0, 1.0), curve("negative", 5.0, 9999.0)]
    counts = counts_of([9.0], [20])
    what = "alpha and gamma, balanced here"

    def balanced(curves: list[LossCurve], **more) -> Recommendation:
        return {one.what: one for one in recommend(DetectorConfig(), counts, [], curves, **more)}[what]

    assert balanced(curves).value == ["focal,gamma=0,alpha=0.75"]
    assert "Left out is gamma 2, 5, whose alpha lies outside 0.01 to 0.999" in balanced(curves).why
    assert balanced(curves[2:]).value == "none"
    doubted = balanced(curves, doubt="none of the 20 positives reaches p = .5")
    assert (doubted.value, "none of the 20" in doubted.why) == ("none", True)
    soft = balanced(curves[:2], softmax=True)
    assert soft.value == ["gamma 0: 0.75 of a class, 0.25 of the background"]
    assert "softmax_focal_loss" in soft.why


def test_of_yolov2_no_alpha_is_proposed():
    """--loss is of its positives only; the objectness has always cross entropy."""
    config = DetectorConfig(kind="yolov2", strides=(8,))
    counts = replace(counts_of([9.0], [20]), classes=1)
    curves = [curve("positive", 2.0, 1.0), curve("negative", 2.0, 3.0)]
    found = {one.what: one for one in recommend(config, counts, [], curves, softmax=True)}
    assert list(found) == ["--detector.prior", "--loss", "strides and anchors"]
    assert found["--detector.prior"].value == 0.02
    assert "of the objectness" in found["--detector.prior"].why
    for name in found["--loss"].value:
        assert find_loss(name, CLASSIFICATION_LOSSES, training=True).mining is not None


def test_the_prior_of_a_softmax_is_that_of_all_classes_together():
    data = Letterboxed(scenes(SceneConfig(train=8), "train"), 96)
    recipe = InspectConfig()
    one, many = (measure_data(recipe, data, lambda *done: None, soft).locations for soft in (True, False))
    assert (one.classes, many.classes) == (1, 4)
    rates = {}
    for counts, softmax in ((one, True), (many, False)):
        prior = recommend(DetectorConfig(), counts, [], [], softmax)[0]
        rates[softmax] = prior.evidence["positive_rate"]
        # What it makes of an untrained detector: the score that some class is there, or that one is.
        detector = Detector(DetectorConfig(prior=rates[softmax]), 4, softmax=softmax)
        bias = detector.class_head.bias.detach()
        score = bias.softmax(0)[:-1].sum() if softmax else bias.sigmoid().mean()
        assert float(score) == pytest.approx(rates[softmax], rel=1e-5)
    assert rates[True] == pytest.approx(4 * rates[False])


@pytest.mark.parametrize(
    ("kind", "bins"), [("anchor_free", 0), ("anchor_free", 16), ("retinanet", 0), ("yolov2", 0)]
)
def test_every_change_that_is_counted_is_one_of_the_command_line(kind, bins):
    import shlex

    from detloss.lab.inspect.command import parse
    from detloss.lab.inspect.recommend import changes

    strides = (8,) if kind == "yolov2" else (8, 16)
    config = DetectorConfig(kind=kind, strides=strides, bins=bins)
    start = ["--detector.kind", kind, "--detector.strides", *map(str, strides), "--size", "64"]
    start += ["--detector.bins", str(bins)]
    for change, wanted, size in changes(config, 64):
        recipe = parse([*start, *shlex.split(change)]).settings
        assert recipe.size == size
        assert (recipe.detector.kind, recipe.detector.bins) == (wanted.kind, wanted.bins)
        assert recipe.detector.strides == wanted.strides
        assert recipe.detector.anchor_count == wanted.anchor_count
        assert recipe.detector.anchor_size == wanted.anchor_size
        np.testing.assert_allclose(recipe.detector.anchor_scales, wanted.anchor_scales, rtol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"losses": ()}, "losses is empty"),
        ({"losses": ("bce", "bce")}, "losses is bce bce; each may be there once"),
        ({"gammas": (-1.0,)}, "gammas has -1.0"),
        ({"gammas": (math.inf,)}, "gammas has inf"),
        ({"easy": 1.0}, "easy is 1.0"),
        ({"images": 0}, "images is 0"),
        ({"examples": -1}, "examples is -1"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        InspectConfig(**wrong)


def test_of_yolov2_the_objectness_counts():
    data = Letterboxed(scenes(SceneConfig(train=24), "train"), 96)
    counts = count_locations(DetectorConfig(kind="yolov2", strides=(8,)), data)
    assert counts.classes == 1
    assert counts.negatives_per_positive_logits == counts.negatives_per_positive
    assert torch.tensor(counts.object_positives).sum() == counts.positives
