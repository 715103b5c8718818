import math
import warnings
from functools import cache, partial

import numpy as np
import pytest
import torch

from detloss import losses
from detloss.boxes import SIMILARITIES as KINDS
from detloss.lab.engines import JobFailed
from detloss.lab.simulate import Regression, SimulationConfig, simulate, simulation
from detloss.lab.simulate.published import PUBLISHED, Published
from detloss.lab.simulate.simulation import (
    CASES,
    CENTRES,
    PER_CENTRE,
    _descend,
    _step,
    anchor_centres,
    find_gradient,
    overlap_share,
    rate,
    sizes,
)
from detloss.names import BOX_LOSSES

PAPER_CENTRES = 700  # of FIELD's own numbers, which have their spread too
AT_50 = {"iou": 6.06e6, "giou": 1.94e6, "diou": 2.85e6, "ciou": 2.49e6}
"""With exact gradients, from an independent simulation in numpy of 700 centres."""


@cache
def small():
    """Forty centres, all losses; eager."""
    return simulate(KINDS, 40 * PER_CENTRE)


def pairs(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(cx, cy, w, h) of boxes that overlap, enclose each other, are apart in one direction or in both."""
    generator = np.random.default_rng(seed)
    boxes = generator.uniform(-1.5, 1.5, (2, count, 4))
    boxes[..., 2:] = generator.uniform(0.2, 3, (2, count, 2))
    predicted, true = torch.from_numpy(boxes)
    return predicted, true


def by_columns(gradient, predicted, true):
    return torch.stack(tuple(gradient(predicted.unbind(-1), true.unbind(-1))), -1)


def test_the_cases_are_the_papers():
    anchors, targets = sizes()
    assert (PER_CENTRE, CENTRES, CASES) == (343, 5000, 1_715_000)
    assert anchors.shape == targets.shape == (343, 2)
    np.testing.assert_allclose(targets.prod(axis=1), 1)
    ratios = [0.25, 1 / 3, 0.5, 1, 2, 3, 4]
    for target in np.unique(targets, axis=0):
        own = anchors[(targets == target).all(axis=1)]
        areas, shapes = own.prod(axis=1).round(9), (own[:, 0] / own[:, 1]).round(9)
        assert {*zip(areas, shapes)} == {
            (area, round(ratio, 9)) for area in (0.5, 0.67, 0.75, 1, 1.33, 1.5, 2) for ratio in ratios
        }
    np.testing.assert_allclose(np.unique((targets[:, 0] / targets[:, 1]).round(9)), ratios, rtol=1e-8)


def test_the_rate_falls_after_160_and_180_updates():
    rates = [rate(step) for step in range(1, 201)]
    assert rates == [0.1] * 160 + [0.01] * 20 + [0.001] * 20


def test_anchor_centres_are_uniform_in_the_disc():
    centres = anchor_centres(20_000, seed=3) - 10
    radius = np.hypot(*centres.T)
    assert radius.max() < 3
    for part in (0.1, 0.5, 0.9):  # of the area; three standard deviations
        assert (radius < 3 * math.sqrt(part)).mean() == pytest.approx(part, abs=0.011)
    assert np.abs(centres.mean(axis=0)).max() < 3 * 1.5 / math.sqrt(20_000)
    assert (anchor_centres(5, 1) == anchor_centres(5, 1)).all()
    assert (anchor_centres(5, 1) != anchor_centres(5, 2)).all()


def test_the_share_of_boxes_that_meet_their_target():
    anchors, targets = sizes()
    places = np.array([[10.0, 10], [10.3, 9.6], [11.5, 10], [11, 11.1], [12.5, 10], [13, 10]])
    by_hand = [
        np.mean(
            [
                abs(x - 10) < (w + u) / 2 and abs(y - 10) < (h + v) / 2
                for (w, h), (u, v) in zip(anchors, targets)
            ]
        )
        for x, y in places
    ]
    np.testing.assert_allclose(overlap_share(places), by_hand)
    assert by_hand[0] == 1
    assert by_hand[-1] == 0


def test_a_first_step_by_hand():
    """Box 1 wide, 2 high, half a side to the right of a unit target: I = 1/2, U = 5/2, 0.1 (2 - IoU) = 0.18.

    By cx: I falls by 1, U grows by 1: (-5/2 - 1/2) / U² = -0.48. By w: the left side moves half, and uncovers
    as much: I grows by 1/2, U by 2 - 1/2: (5/4 - 3/4) / U² = 0.08. By h: U grows by 1: -1/2 / U² = -0.08.
    """
    boxes = [torch.tensor([[value]], dtype=torch.float64) for value in (0.5, 0, 1, 2)]
    target = [torch.tensor([value], dtype=torch.float64) for value in (0, 0, 1, 1)]
    *moved, error = _step(find_gradient("iou,eps=0"), *boxes, *target, torch.tensor(0.1))
    x, y, w, h = (float(column) for column in moved)
    assert (x, y) == (pytest.approx(0.5 - 0.18 * 0.48), 0)
    assert (w, h) == (pytest.approx(1 + 0.18 * 0.08), pytest.approx(2 - 0.18 * 0.08))
    assert float(error) == pytest.approx(x + (w - 1) + (h - 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", ["", ",eps=0.01"])
def test_the_gradient_is_that_of_the_librarys_loss(kind, settings):
    predicted, true = pairs(500)
    predicted.requires_grad_()
    eps = {"eps": 0.01} if settings else {}
    BOX_LOSSES[kind](predicted, true, reduction="sum", fmt="cxcywh", impl="eager", **eps).backward()
    found = by_columns(find_gradient(kind + settings), predicted.detach(), true)
    torch.testing.assert_close(found, predicted.grad, rtol=1e-12, atol=1e-12)


def test_sums_and_other_losses_of_boxes():
    """Two unit boxes, half a side apart: L1 pulls by its sign on the four sides, whatever the distance."""
    predicted, true = torch.tensor([[0.5, 0, 1, 1]]).double(), torch.tensor([[0.0, 0, 1, 1]]).double()
    l1 = by_columns(find_gradient("l1"), predicted, true)
    torch.testing.assert_close(l1, torch.tensor([[2.0, 0, 0, 0]]).double())
    giou = by_columns(find_gradient("giou"), predicted, true)
    both = by_columns(find_gradient("giou+0.5*l1"), predicted, true)
    torch.testing.assert_close(both, giou + 0.5 * l1, rtol=1e-5, atol=1e-6)  # in float32


def test_boxes_that_meet_nothing_do_not_move_under_iou():
    iou = small()["iou"]
    share = overlap_share(iou.centres)
    apart = share == 0
    assert 5 < apart.sum() < 30
    assert (iou.errors[:, apart] == iou.errors[0, apart]).all()
    assert (iou.errors[-1, ~apart] < iou.errors[0, ~apart]).all()
    assert iou.stuck >= ((1 - share) * PER_CENTRE).sum()


def test_errors_are_those_of_the_field_within_their_spread():
    """Step 50 is the error after 50 updates."""
    for name, expected in AT_50.items():
        regression = small()[name]
        spread = math.hypot(1, math.sqrt(40 / PAPER_CENTRES)) * regression.spread[50]
        assert regression.error[50] == pytest.approx(expected, abs=0.01 * expected + 3 * spread)


def test_what_the_paper_claims_holds_on_the_same_boxes():
    found = small()
    start = found["iou"].errors[0]
    for regression in found.values():
        np.testing.assert_array_equal(regression.errors[0], start)
        assert regression.errors.shape == (201, 40)
        assert regression.not_finite == 0
        assert regression.first_not_finite is None
    at_50 = [found[name].error[50] for name in ("giou", "ciou", "diou", "iou")]
    assert at_50 == sorted(at_50)
    final = {name: regression.error[-1] for name, regression in found.items()}
    assert final["ciou"] < min(final["iou"], final["giou"], final["diou"])
    assert max(final["giou"], final["diou"]) < 0.02 * final["iou"]
    # where every box meets its target, IoU too brings all of them there
    inside = overlap_share(found["iou"].centres) == 1
    assert inside.any()
    assert (found["iou"].errors[-1, inside] / PER_CENTRE < 0.01).all()


@pytest.mark.slow
def test_all_cases_land_within_one_percent():
    found = simulate(list(AT_50))
    for name, expected in AT_50.items():
        assert found[name].error[50] == pytest.approx(expected, rel=0.01)
        assert found[name].spread[50] < 0.015 * expected
    assert found["iou"].error[200] == pytest.approx(5.88e6, rel=0.01)


@pytest.mark.parametrize("name", [*KINDS, *(f"{kind}_published" for kind in PUBLISHED)])
def test_mirrored_and_transposed_boxes_take_mirrored_ways(name):
    centres = anchor_centres(4, seed=7) - 10
    images = np.concatenate([centres, centres * (-1, 1), centres * (1, -1), centres[:, ::-1]]) + 10
    errors, _ = _descend(partial(_step, find_gradient(name)), images)
    own, *others = np.split(errors, 4, axis=1)
    for other in others:
        np.testing.assert_allclose(other[:50], own[:50], rtol=1e-6)
        # where sides pass each other, a last digit grows: errors begin at 1e3 and end at about 1
        np.testing.assert_allclose(other, own, rtol=0.02, atol=0.1)


def transcribed(kind, predicted, true):
    """One pair, loop by loop: what the script adds to (cx, cy, w, h), before rate and factor."""
    sides = {}
    for who, (x, y, w, h) in (("p", predicted), ("g", true)):
        sides[who] = {"t": y - h / 2, "b": y + h / 2, "l": x - w / 2, "r": x + w / 2}
    p, g = sides["p"], sides["g"]
    inner = {s: (max if s in "tl" else min)(p[s], g[s]) for s in "tblr"}
    outer = {s: (min if s in "tl" else max)(p[s], g[s]) for s in "tblr"}
    meet = inner["t"] < inner["b"] and inner["l"] < inner["r"]

    def width(box):
        return box["r"] - box["l"]

    def height(box):
        return box["b"] - box["t"]

    def by_sides(box, moves):
        """A box's area by each side, 0 for sides that do not move it."""
        across = {"t": -width(box), "b": width(box), "l": -height(box), "r": height(box)}
        return {s: across[s] if moves[s] else 0.0 for s in "tblr"}

    inner_by = by_sides(
        inner, {"t": p["t"] > g["t"], "b": p["b"] < g["b"], "l": p["l"] > g["l"], "r": p["r"] < g["r"]}
    )
    outer_by = by_sides(
        outer, {"t": p["t"] < g["t"], "b": p["b"] > g["b"], "l": p["l"] < g["l"], "r": p["r"] > g["r"]}
    )
    area_by = by_sides(p, dict.fromkeys("tblr", True))
    intersection = width(inner) * height(inner)
    union = width(p) * height(p) + width(g) * height(g) - intersection
    hull = width(outer) * height(outer)
    up = dict.fromkeys("tblr", 0.0)
    for s in "tblr":
        union_by = area_by[s] - inner_by[s]
        if meet:
            up[s] += (union * inner_by[s] - intersection * union_by) / union**2
        if kind == "giou":
            up[s] += (hull * union_by - union * outer_by[s]) / hull**2
    result = [up["l"] + up["r"], up["t"] + up["b"], up["r"] - up["l"], up["b"] - up["t"]]
    if kind in ("iou", "giou"):
        return result

    zero = (0.0, 0.0, 0.0, 0.0)
    top = (0, 1, 0, -0.5) if p["t"] < g["t"] else zero
    bottom = (0, 1, 0, 0.5) if p["b"] > g["b"] else zero
    left = (1, 0, -0.5, 0) if p["l"] < g["l"] else zero
    right = (1, 0, 0.5, 0) if p["r"] > g["r"] else zero
    hull_w = [right[0] - left[0], bottom[1] - top[1], right[2] - left[2], bottom[3] - top[3]]
    hull_h = list(hull_w)
    if p["l"] < g["l"] and p["r"] > g["r"]:
        hull_w[2] = -1
    if p["t"] < g["t"] and p["b"] > g["b"]:
        hull_h[3] = -1
    diagonal = width(outer) ** 2 + height(outer) ** 2
    apart = [true[0] - predicted[0], true[1] - predicted[1]]
    distance = apart[0] ** 2 + apart[1] ** 2
    for i in range(4):
        diagonal_by = 2 * width(outer) * hull_w[i] + 2 * height(outer) * hull_h[i]
        if i < 2:
            result[i] += (2 * apart[i] * diagonal - diagonal_by * distance) / diagonal**2
        else:
            result[i] += diagonal_by * distance / diagonal**2
    if kind == "ciou":
        angle = math.atan(true[2] / true[3]) - math.atan(predicted[2] / predicted[3])
        v = 4 / math.pi**2 * angle**2
        iou = intersection / union if meet else 0
        alpha = v / (1 - iou + v + 1e-7)
        result[2] += alpha * 8 / math.pi**2 * angle * predicted[3]
        result[3] -= alpha * 8 / math.pi**2 * angle * predicted[2]
    return result


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_gradients_are_what_the_script_computes(kind):
    predicted, true = pairs(400, seed=1)
    found = by_columns(find_gradient(f"{kind}_published"), predicted, true)
    expected = [transcribed(kind, *pair) for pair in zip(predicted.tolist(), true.tolist())]
    torch.testing.assert_close(-found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_with_every_slip_repaired_the_published_gradient_is_exact(kind):
    predicted, true = pairs(400, seed=2)
    exact = by_columns(find_gradient(f"{kind},eps=1e-7"), predicted, true)
    repaired = by_columns(Published(kind, frozenset()), predicted, true)
    torch.testing.assert_close(repaired, exact, rtol=1e-5, atol=1e-6)
    for slip in PUBLISHED[kind]:  # each slip alone is felt
        alone = by_columns(Published(kind, frozenset({slip})), predicted, true)
        assert ((alone - exact).abs().amax(dim=1) > 1e-3).float().mean() > 0.1, slip


def test_the_published_curves_end_where_the_papers_do():
    found = simulate([f"{kind}_published" for kind in PUBLISHED], 30 * PER_CENTRE)
    iou, giou, diou, ciou = (regression.error[200] for regression in found.values())
    assert iou == pytest.approx(5.9e6, rel=0.25)
    assert giou == pytest.approx(1.5e6, rel=0.5)
    assert max(diou, ciou) < 1e4
    assert find_gradient("diou_published-sign-sides") == Published("diou", frozenset({"size", "nested"}))
    clamped = simulate(["giou_published-overlap"], 30 * PER_CENTRE).popitem()[1]
    assert clamped.error[200] < 0.1 * giou


@pytest.mark.slow
def test_the_fused_step_is_the_eager_one():
    """In float64 and, of 23 centres, with a last block that is not full."""
    eager, fused = (simulate(["ciou"], 23 * PER_CENTRE, impl=impl)["ciou"] for impl in ("eager", "compile"))
    np.testing.assert_allclose(fused.errors[:50], eager.errors[:50], rtol=1e-7)
    np.testing.assert_allclose(fused.errors, eager.errors, rtol=0.02)
    assert abs(fused.stuck - eager.stuck) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, *(f"{kind}_published" for kind in PUBLISHED)])
def test_every_fused_step_is_the_eager_one(name):
    eager, fused = (simulate([name], 20 * PER_CENTRE, impl=impl)[name] for impl in ("eager", "compile"))
    np.testing.assert_allclose(fused.errors[:50], eager.errors[:50], rtol=1e-6)


def test_without_a_compiler_it_runs_eagerly_and_says_so(monkeypatch):
    def fails(gradient):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(simulation, "_compiled", fails)
    monkeypatch.setattr(simulation, "COMPILE_FROM", 1)
    with pytest.warns(
        UserWarning, match=r"could not be compiled \(RuntimeError: no compiler\); it runs eagerly"
    ):
        found = simulate(["iou"], PER_CENTRE)
    assert np.isfinite(found["iou"].errors).all()
    with pytest.raises(RuntimeError, match='pass impl="eager"'):
        simulate(["iou"], PER_CENTRE, impl="compile")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(["iou"], PER_CENTRE, impl="eager")


def test_error_and_spread_are_scaled_to_all_centres():
    errors = np.array([[1.0, 3], [2, 2]])
    regression = Regression("mine", np.zeros((2, 2)), errors, 0, 0)
    assert regression.cases == 686
    assert regression.error.tolist() == [10_000, 10_000]
    assert regression.spread.tolist() == pytest.approx([5000, 0])
    assert np.isnan(Regression("mine", np.zeros((1, 2)), errors[:, :1], 0, 0).spread).all()


def test_the_spread_is_that_of_other_seeds():
    starts = np.array([_start(seed) for seed in range(200)])
    assert np.std(starts[:, 0]) == pytest.approx(np.mean(starts[:, 1]), rel=0.2)


def _start(seed):
    """Error and spread at the start, of 30 centres."""
    anchors, targets = sizes()
    centres = anchor_centres(30, seed)
    error = PER_CENTRE * np.abs(centres - 10).sum(axis=1) + np.abs(anchors - targets).sum()
    regression = Regression("", centres, error[None], 0, 0)
    return regression.error[0], regression.spread[0]


def test_a_function_of_ones_own_takes_the_same_way():
    def mine(predicted, target):
        assert predicted.dtype == torch.float32
        return losses.generalized_box_iou_loss(predicted, target, impl="eager")

    calls = []
    found = simulate([mine, "giou"], 22 * PER_CENTRE, progress=lambda *counted: calls.append(counted))
    assert list(found) == ["mine", "giou"]
    np.testing.assert_allclose(found["mine"].errors[:11], found["giou"].errors[:11], rtol=1e-5)
    assert calls == [(done, 4) for done in range(5)]


def test_nan_is_counted_and_not_averaged_away():
    def half_broken(predicted, target, reduction="mean"):
        assert reduction == "none"
        centre = (predicted[:, 0] + predicted[:, 2]) / 2
        return (predicted - target).square().sum(-1) * torch.where(centre > 11, math.nan, 0.25)

    regression = simulate([half_broken], 30 * PER_CENTRE)["half_broken"]
    broken = regression.centres[:, 0] > 11
    assert 3 < broken.sum() < 20
    assert regression.not_finite == regression.stuck == 343 * broken.sum()
    assert regression.first_not_finite == 1
    assert np.isfinite(regression.error[0])
    assert np.isnan(regression.error[1:]).all()
    assert np.isfinite(regression.errors[:, ~broken]).all()
    assert (regression.errors[-1, ~broken] < 0.05 * regression.errors[0, ~broken]).all()


def raises(predicted, target):
    raise RuntimeError("out of luck")


def total(predicted, target):
    return (predicted - target).square().sum()


def constant(predicted, target):
    return torch.zeros(len(predicted))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, "loss 'raises': RuntimeError: out of luck"),
        (total, r"loss 'total': .*shape \(\); it must return one value a box"),
        (constant, "loss 'constant': .*does not require grad"),
    ],
)
def test_a_function_that_cannot_be_simulated_is_named(function, message):
    with pytest.raises(JobFailed, match=message):
        simulate([function], PER_CENTRE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 342}, "cases is 342; it may be from 343"),
        ({"cases": 1_715_001}, "cases is 1715001; it may be"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"losses": ("gou",)}, "unknown loss 'gou'; did you mean 'giou'"),
        ({"losses": ("eiou_published",)}, "unknown loss 'eiou_published'"),
        (
            {"losses": ("giou_published-sign",)},
            "giou_published has no slip 'sign' to repair; it has size, overlap",
        ),
        ({"losses": ("giou_published-",)}, "giou_published has no slip ''"),
        ({"impl": "fast"}, "impl is 'fast'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"losses": ("iou",), "cases": PER_CENTRE} | arguments)


def test_what_is_simulated_beside_the_losses():
    assert SimulationConfig().names == ["iou", "giou", "diou", "ciou", "eiou"]
    few = SimulationConfig(losses=("eiou", "giou"), published=True)
    assert few.names == ["eiou", "giou", "giou_published"]
    assert SimulationConfig(losses=("giou", "iou"), repaired=True).names == [
        *("giou", "iou", "iou_published", "giou_published"),
        *("iou_published-size", "giou_published-size", "giou_published-overlap"),
    ]
    assert SimulationConfig(losses=("giou", "giou_published"), published=True).names == [
        "giou",
        "giou_published",
    ]
    with pytest.raises(ValueError, match="losses is empty"):
        SimulationConfig(losses=())
    with pytest.raises(ValueError, match="losses is iou iou; each may be there once"):
        SimulationConfig(losses=("iou", "iou"))
