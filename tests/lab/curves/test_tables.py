"""The curves are the losses' own: hand-derived values, closed forms, minima solved for in another way."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.curves.tables import (
    CurvesConfig,
    box_gradient,
    box_panels,
    curves,
    figures,
    label_panels,
    minimiser_panel,
    minimisers,
    rows,
    soft_panel,
)
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES

GAMMAS = (0, 0.5, 1, 2, 5)
FOCAL = [f"focal,alpha=none,gamma={gamma}" for gamma in GAMMAS]

OWN = """
import torch
from torch.nn.functional import logsigmoid
from detloss.losses import generalized_box_iou_loss, sigmoid_focal_loss, varifocal_loss

def on_both_terms(x, t, gamma=2.0):  # as kornia: (1-p)^gamma and p^gamma
    p = x.sigmoid()
    return -t * (1 - p) ** gamma * logsigmoid(x) - (1 - t) * p**gamma * logsigmoid(-x)

def runs_away(x, t):  # as MONAI: 1-p_t = sigmoid((1-2t) x)
    ce = -t * logsigmoid(x) - (1 - t) * logsigmoid(-x)
    return torch.sigmoid((1 - 2 * t) * x) ** 2 * ce

def with_quality(x, t, quality):
    return varifocal_loss(x, t, quality=quality)

def single(x, t):
    return sigmoid_focal_loss(x.float(), t.float())

def only_single(x, t):
    if x.dtype != torch.float32:
        raise TypeError("expected float32")
    return sigmoid_focal_loss(x, t)

def nowhere(x, t):
    return x * float("nan")

def overlap(a, b):
    return generalized_box_iou_loss(a, b)

def only_single_boxes(a, b):
    return generalized_box_iou_loss(a, b) if a.dtype == torch.float32 else None
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


class TestCurves:
    def test_by_hand(self):
        one, two = curves(["focal,alpha=none,gamma=2", "focal"], points=[0.5])
        assert one.y[0] == pytest.approx(0.25 * math.log(2), rel=1e-14)
        assert two.y[0] == pytest.approx(0.25 * 0.25 * math.log(2), rel=1e-14)
        (negative,) = curves(["focal"], 0.0, points=[0.5])
        assert negative.y[0] == pytest.approx(0.75 * 0.25 * math.log(2), rel=1e-14)

    def test_below_cross_entropy_as_the_paper_says(self):
        (weight,) = curves(["focal,alpha=none,gamma=2"], of="weight", points=[0.9, 0.968])
        assert 1 / weight.y[0] == pytest.approx(100, rel=1e-12)
        assert 1 / weight.y[1] == pytest.approx(976.5625, rel=1e-12)  # "1000 times" in section 3.2

    def test_gradient_is_that_of_appendix_b(self):
        for over in ("p", "logit"):
            for gamma, curve in zip(GAMMAS, curves(FOCAL, of="gradient", over=over)):
                p = curve.x if over == "p" else 1 / (1 + np.exp(-curve.x))
                closed = (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)
                np.testing.assert_allclose(curve.y, closed, rtol=1e-9, atol=1e-15)

    @given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20))
    @settings(max_examples=25)
    def test_more_gamma_is_less_loss(self, points: list[float]):
        values = np.array([curve.y for curve in curves(FOCAL, points=points)])
        assert (np.diff(values, axis=0) < 0).all()

    @pytest.mark.parametrize("target", [0.0, 1.0])
    def test_weight_is_alpha_t_times_the_miss_to_gamma(self, target: float):
        for curve in curves(["focal,alpha=0.25,gamma=0.5", "focal,alpha=0.25"], target, of="weight"):
            gamma = 2.0 if curve.name == "focal,alpha=0.25" else 0.5
            miss, alpha = (1 - curve.x, 0.25) if target else (curve.x, 0.75)
            np.testing.assert_allclose(curve.y, alpha * miss**gamma, rtol=1e-12)

    @pytest.mark.parametrize("target", [0.0, 1.0])
    @pytest.mark.parametrize("of", ["loss", "gradient"])
    def test_a_softmax_of_two_is_a_sigmoid(self, target: float, of: str):
        both = curves(["softmax_focal,gamma=1.5", "focal,alpha=none,gamma=1.5"], target, of=of, over="logit")
        np.testing.assert_allclose(both[0].y, both[1].y, rtol=1e-9)

    def test_every_loss_has_finite_curves(self):
        for target in (0.0, 0.3, 1.0):
            for of in ("loss", "gradient", "weight"):
                found = curves(list(CLASSIFICATION_LOSSES), target, of=of, points=20)
                assert [curve.name for curve in found] == list(CLASSIFICATION_LOSSES)
                assert all(np.isfinite(curve.y).all() and curve.y.dtype == float for curve in found)

    def test_own_losses(self, own: Path):
        quality, dense = curves([f"{own}:with_quality", "varifocal"], 0.3)
        np.testing.assert_array_equal(quality.y, dense.y)
        quality, dense = curves([f"{own}:with_quality", "varifocal"], 0.0)
        np.testing.assert_array_equal(quality.y, dense.y)
        single, double = curves([f"{own}:single", "focal"])
        np.testing.assert_allclose(single.y, double.y, rtol=1e-5)
        assert not np.array_equal(single.y, double.y)

    def test_errors(self, own: Path):
        with pytest.raises(ValueError, match="unknown loss 'focl'; did you mean 'focal'"):
            curves(["focl"])
        with pytest.raises(ValueError, match=r"target has 1\.2; a soft target is in"):
            curves(["focal"], 1.2)
        with pytest.raises(ValueError, match=r"points are \[0.5, 1.0\]; a probability is above 0"):
            curves(["focal"], points=[0.5, 1.0])
        message = re.escape(f"loss '{own}:only_single' cannot be drawn, called in float64")
        with pytest.raises(ValueError, match=message + ".*TypeError: expected float32"):
            curves([f"{own}:only_single"])


def stationary(t: float, gamma: float) -> float:
    """Where the derivative of (1-p_t)^gamma BCE is 0, by bisection between the nearer end and the label."""

    def slope(p: float) -> float:
        miss, ce = t + p - 2 * t * p, -t * math.log(p) - (1 - t) * math.log(1 - p)
        return gamma * (1 - 2 * t) * ce + miss * ((1 - t) / (1 - p) - t / p)

    low, high = (1e-12, t) if t < 0.5 else (t, 1 - 1e-12)
    assert slope(low) < 0 < slope(high)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


class TestMinimisers:
    def test_losses_whose_score_is_the_label(self):
        targets = [0.0, 0.03, 0.1, 0.3, 0.5, 0.8, 0.999, 1.0]
        losses = ["bce", "quality_focal", "quality_focal,beta=0.5", "varifocal"]
        for place in minimisers(losses, targets):
            assert place.p == pytest.approx(place.soft_target, abs=1e-7)

    @pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
    def test_focal_has_its_own(self, gamma: float):
        targets = [0.05, 0.2, 0.3, 0.4, 0.7, 0.95]
        for place in minimisers([f"focal,alpha=none,gamma={gamma}"], targets):
            assert place.p == pytest.approx(stationary(place.soft_target, gamma), abs=1e-7)

    def test_published_ones(self, own: Path):
        names = ["focal,alpha=none", f"{own}:on_both_terms", f"{own}:runs_away", "quality_focal"]
        places = minimisers(names, [0.3])
        assert [f"{place.p:.3f}" for place in places] == ["0.122", "0.422", "0.000", "0.300"]
        assert [place.loss for place in places] == names

    def test_matchability_aware_learns_a_power(self):
        for place in minimisers(["mal", "mal,gamma=2"], [0.2, 0.7]):
            gamma = 2 if place.loss.endswith("2") else 1.5
            assert place.p == pytest.approx(place.soft_target**gamma, abs=1e-7)

    def test_nothing_is_below(self):
        names = list(CLASSIFICATION_LOSSES)
        for target in (0.0, 0.2, 0.6):
            for place, curve in zip(minimisers(names, [target]), curves(names, target, points=999)):
                assert place.value <= curve.y.min() + 1e-15

    def test_errors(self, own: Path):
        with pytest.raises(ValueError, match=r"targets has -0\.1; a soft target is in"):
            minimisers(["focal"], [0.5, -0.1])
        with pytest.raises(ValueError, match="nowhere' is not finite on soft targets"):
            minimisers([f"{own}:nowhere"], [0.5])


def union_and_overlap(box: np.ndarray, eps: float) -> np.ndarray:
    """(IoU, |hull|, |union|) of a box (cx, cy, w, h) and the unit square around 0."""
    low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    inter = np.clip(np.minimum(high, 0.5) - np.maximum(low, -0.5), 0, None).prod()
    union = box[2:].prod() + 1 - inter
    hull = (np.maximum(high, 0.5) - np.minimum(low, -0.5)).prod()
    return np.array([inter / (union + eps), hull, union])


def norm_by_differences(kind: str, box: list[float]) -> float:
    """Norm of the gradient by central differences: where sides coincide, the mean of both slopes."""

    def loss(at: np.ndarray) -> float:
        iou, hull, union = union_and_overlap(at, 1e-7)
        return 1 - iou + ((hull - union) / (hull + 1e-7) if kind == "giou" else 0)

    steps = 1e-6 * np.eye(4)
    return float(np.linalg.norm([(loss(box + step) - loss(box - step)) / 2e-6 for step in steps]))


class TestBoxes:
    def test_iou_does_not_move_what_is_apart(self):
        panel, gradient = box_panels(["iou"], 90)[:2]
        (loss,), (norm,) = panel.curves, gradient.curves
        apart = loss.x > 1
        assert apart.any()
        assert not apart.all()
        np.testing.assert_array_equal(norm.y[apart], 0)
        np.testing.assert_array_equal(loss.y[apart], 1)
        assert (norm.y[~apart] > 0.5).all()

    def test_closed_forms_of_sliding(self):
        x = torch.linspace(0.1, 3, 30, dtype=torch.double)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        boxes, d = torch.stack((x, zero, one, one), 1), x.numpy()
        iou = np.where(d < 1, (1 - d) / (1 + d), 0)
        hull = 1 + d
        expected = {
            "iou": 1 - iou,
            "giou": 1 - iou + (hull - np.where(d < 1, 1 + d, 2)) / hull,
            "diou": 1 - iou + d**2 / (hull**2 + 1),
        }
        expected |= {"ciou": expected["diou"], "eiou": expected["diou"]}
        for kind, value in expected.items():
            np.testing.assert_allclose(box_gradient(kind, boxes)[0], value, atol=1e-6, err_msg=kind)

    def test_closed_forms_of_shrinking(self):
        loss, gradient = box_panels(["iou", "giou", "diou", "ciou"], 60)[2:4]
        side = loss.curves[0].x
        assert side[0] < 0.14
        assert side[-1] > 3.7
        for value, norm in zip(loss.curves, gradient.curves):
            np.testing.assert_allclose(value.y, 1 - np.minimum(side, 1 / side) ** 2, atol=1e-6)
            wanted = math.sqrt(2) * np.where(side < 1, side, side**-3.0)
            np.testing.assert_allclose(norm.y, wanted, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["iou", "giou"])
    @pytest.mark.parametrize("box", [[0.4, 0, 1, 1], [1.7, 0, 1, 1], [0.1, 0.2, 2, 0.5], [0, 0, 0.3, 0.3]])
    def test_norm_is_that_of_differences(self, kind: str, box: list[float]):
        (norm,) = box_gradient(kind, torch.tensor([box], dtype=torch.double))[1]
        assert norm == pytest.approx(norm_by_differences(kind, box), abs=1e-7)

    def test_a_ratio_and_its_inverse_cost_the_same(self):
        for panel in box_panels(list(BOX_LOSSES), 39)[4:]:
            for curve in panel.curves:
                assert curve.y.all()  # no point where the boxes are one, whose gradient is no slope beside it
                np.testing.assert_allclose(curve.x, 1 / curve.x[::-1])
                np.testing.assert_allclose(curve.y, curve.y[::-1], rtol=1e-6)
        assert [curve.name for curve in panel.curves] == list(BOX_LOSSES)

    def test_own_losses(self, own: Path):
        for panel in box_panels(["giou", f"{own}:overlap"], 20):
            np.testing.assert_array_equal(panel.curves[0].y, panel.curves[1].y)
        with pytest.raises(ValueError, match="only_single_boxes' cannot be drawn"):
            box_panels([f"{own}:only_single_boxes"], 20)
        with pytest.raises(ValueError, match="unknown loss 'gio'; did you mean 'giou'"):
            box_gradient("gio", torch.zeros(1, 4))


class TestFigures:
    def test_the_papers_figure_is_the_default(self):
        drawn = figures(CurvesConfig(points=12))
        names = ["loss", "gradient", "weight", "alpha", "soft_targets", "minimisers", "boxes"]
        assert list(drawn) == names
        assert [curve.name for curve in drawn["loss"][0].curves] == FOCAL
        assert [panel.line for panel in drawn["soft_targets"]] == [0.1, 0.3, 0.5, 0.8]
        for panels in drawn.values():
            for panel in panels:
                assert all((panel.title, panel.x, panel.y))
                for curve in panel.curves:
                    assert np.isfinite(curve.y).all()
                    assert len(curve.x) == len(curve.y) == 12

    def test_panels_mark_their_minima(self):
        panel = soft_panel(["focal,alpha=none", "bce"], 0.3)
        (p, value), (_, entropy) = (curve.lowest for curve in panel.curves)
        assert p == pytest.approx(stationary(0.3, 2), abs=1e-7)
        assert value == pytest.approx(panel.curves[0].y.min(), rel=1e-3)
        assert entropy == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7), rel=1e-12)
        (learned,) = minimiser_panel(["quality_focal"], 11).curves
        np.testing.assert_allclose(learned.y, learned.x, atol=1e-7)

    def test_labels_swap_sides(self):
        positive, negative = label_panels(["focal,alpha=none"])
        np.testing.assert_allclose(positive.curves[0].y, negative.curves[0].y[::-1], rtol=1e-9)

    def test_rows_hold_every_point(self):
        panels = figures(CurvesConfig(points=10))["soft_targets"]
        table = list(rows("soft_targets", panels))
        assert len(table) == 4 * 4 * 10
        assert all(
            tuple(row) == ("figure", "panel", "x_title", "y_title", "curve", "x", "y") for row in table
        )
        row, curve = table[3 * 40 + 10 + 2], panels[3].curves[1]
        assert (row["panel"], row["curve"]) == ("soft target 0.8", "focal,alpha=none")
        assert (float(row["x"]), float(row["y"])) == pytest.approx((curve.x[2], curve.y[2]), rel=1e-8)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"losses": ()}, "losses is empty; name at least one"),
            ({"box_losses": ()}, "box_losses is empty"),
            ({"soft_targets": ()}, "soft_targets is empty"),
            ({"soft_losses": ("bce", "bce")}, "soft_losses is bce bce; each may be there once"),
            ({"soft_targets": (0.5, 1.5)}, "soft_targets has 1.5; a soft target is in"),
            ({"soft_targets": (-0.5,)}, "soft_targets has -0.5"),
            ({"soft_targets": (math.nan,)}, "soft_targets has nan"),
            ({"points": 9}, "points is 9; it must be at least 10"),
        ],
    )
    def test_bad_settings(self, changed: dict, message: str):
        with pytest.raises(ValueError, match=re.escape(message)):
            CurvesConfig(**changed)
