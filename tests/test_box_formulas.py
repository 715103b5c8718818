"""examples/box_losses.py: the box losses of papers, and the page that shows them."""

import ast
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from detloss import box_iou_loss, generalized_box_iou_loss
from detloss.calling import regress
from detloss.names import BOX_LOSSES, find_loss
from helpers.definitions import value_and_gradient

ROOT = Path(__file__).parents[1]
FILE = ROOT / "examples" / "box_losses.py"
spec = importlib.util.spec_from_file_location("box_losses", FILE)
box_losses = importlib.util.module_from_spec(spec)
spec.loader.exec_module(box_losses)

NAMES = ["siou", "wiou", "wiou_v3", "mpdiou", "shape_iou", "inner_giou", "focaler_giou", "nwd"]
LOSSES = {name: getattr(box_losses, name) for name in NAMES}
each_loss = pytest.mark.parametrize("name", NAMES)
TARGET = torch.tensor([10.0, 10, 30, 20])  # 20 wide, 10 high


def pairs(count=200, seed=0):
    """Boxes of all kinds, two thirds of which overlap."""
    generator = torch.Generator().manual_seed(seed)
    corner, size = (torch.rand(2, count, 2, generator=generator, dtype=torch.double) for _ in range(2))
    corner, size = 20 * corner, 2 + 20 * size
    corner[1, ::3] += 30
    return torch.cat((corner, corner + size), -1).unbind(0)


def geometry(a, b):
    """IoU, offsets, sides of both and of the enclosing box, written out."""
    w1, h1, w2, h2 = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1], b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]
    inter = (torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    hull = torch.max(a[:, 2:], b[:, 2:]) - torch.min(a[:, :2], b[:, :2])
    dx, dy = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).unbind(1)
    return inter / (w1 * h1 + w2 * h2 - inter), dx, dy, w1, h1, w2, h2, *hull.unbind(1)


def siou(a, b):
    """With the arcsine, as the paper writes it."""
    iou, dx, dy, w1, h1, w2, h2, cw, ch = geometry(a, b)
    sine = dy.abs() / (dx**2 + dy**2).sqrt()
    angle = 1 - 2 * torch.sin(torch.arcsin(sine) - math.pi / 4) ** 2
    gamma = 2 - angle
    distance = (1 - torch.exp(-gamma * (dx / cw) ** 2)) + (1 - torch.exp(-gamma * (dy / ch) ** 2))
    omega = [(p - q).abs() / torch.max(p, q) for p, q in ((w1, w2), (h1, h2))]
    return 1 - iou + (distance + sum((1 - torch.exp(-o)) ** 4 for o in omega)) / 2


def wiou(a, b):
    iou, dx, dy, *_, cw, ch = geometry(a, b)
    return torch.exp((dx**2 + dy**2) / (cw**2 + ch**2).detach()) * (1 - iou)


def wiou_v3(a, b):
    beta = (1 - geometry(a, b)[0]).detach() / 1.0
    return beta / (3 * 1.9 ** (beta - 3)) * wiou(a, b)


def mpdiou(a, b):
    corners = ((a - b) ** 2).sum(1)
    return 1 - geometry(a, b)[0] + corners / (640**2 + 640**2)


def shape_iou(a, b, s=0.0):
    iou, dx, dy, w1, h1, w2, h2, cw, ch = geometry(a, b)
    ww, hh = 2 * w2**s / (w2**s + h2**s), 2 * h2**s / (w2**s + h2**s)
    distance = (hh * dx**2 + ww * dy**2) / (cw**2 + ch**2)
    omega = hh * (w1 - w2).abs() / torch.max(w1, w2), ww * (h1 - h2).abs() / torch.max(h1, h2)
    return 1 - iou + distance + sum((1 - torch.exp(-o)) ** 4 for o in omega) / 2


def inner_giou(a, b, ratio=0.75):
    def shrunk(box):
        centre, half = (box[:, :2] + box[:, 2:]) / 2, ratio * (box[:, 2:] - box[:, :2]) / 2
        return torch.cat((centre - half, centre + half), 1)

    return generalized_box_iou_loss(a, b, eps=0) + geometry(a, b)[0] - geometry(shrunk(a), shrunk(b))[0]


def focaler_giou(a, b):
    iou = geometry(a, b)[0]
    return generalized_box_iou_loss(a, b, eps=0) + iou - (iou / 0.95).clamp(0, 1)


def nwd(a, b):
    _, dx, dy, w1, h1, w2, h2, *_ = geometry(a, b)
    return 1 - torch.exp(-((dx**2 + dy**2 + ((w1 - w2) ** 2 + (h1 - h2) ** 2) / 4).sqrt()) / 12.8)


@each_loss
def test_definition(name):
    a, b = pairs()
    expected, expected_gradient = value_and_gradient(globals()[name], a, b)
    value, gradient = value_and_gradient(LOSSES[name], a, b)
    assert_close(value, expected, rtol=1e-6, atol=1e-7)
    assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)
    assert_close(LOSSES[name](a.float(), b.float()).double(), expected, rtol=1e-4, atol=1e-5)


def test_by_hand():
    """A box of the target's size, 20 to its right: they touch, the enclosing box is 40 by 10."""
    beside = TARGET + torch.tensor([20.0, 0, 20, 0])
    found = {name: float(loss(beside, TARGET)) for name, loss in LOSSES.items()}
    diagonal = 400 / (40**2 + 10**2)
    expected = {
        "siou": 1 + (1 - math.exp(-2 / 4)) / 2,
        "wiou": math.exp(diagonal),
        "wiou_v3": math.exp(diagonal) / (3 * 1.9**-2),
        "mpdiou": 1 + 2 * 400 / (2 * 640**2),
        "shape_iou": 1 + diagonal,
        "inner_giou": 1.0,
        "focaler_giou": 1.0,
        "nwd": 1 - math.exp(-20 / 12.8),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    # a box of half the sides around the same centre: IoU 1/4
    inside = torch.tensor([15.0, 12.5, 25, 17.5])
    half = (1 - math.exp(-1 / 2)) ** 4
    found = {name: float(loss(inside, TARGET)) for name, loss in LOSSES.items()}
    expected = {
        "siou": 0.75 + half,
        "wiou": 0.75,
        "wiou_v3": 0.75 * 0.75 / (3 * 1.9 ** (0.75 - 3)),
        "mpdiou": 0.75 + 2 * (25 + 6.25) / (2 * 640**2),
        "shape_iou": 0.75 + half,
        "inner_giou": 0.75,
        "focaler_giou": 1 - 0.25 / 0.95,
        "nwd": 1 - math.exp(-math.sqrt((10**2 + 5**2) / 4) / 12.8),
    }
    assert found == pytest.approx(expected, rel=1e-5)


@each_loss
def test_an_equal_box_costs_nothing_and_a_shifted_one_more_and_more(name):
    assert LOSSES[name](TARGET, TARGET) == pytest.approx(0, abs=1e-4)
    for direction in ((1.0, 0), (0, -1), (0.6, 0.8)):
        shift = torch.tensor([0.0, 1, 3, 8, 25, 60])[:, None] * torch.tensor([*direction, *direction])
        assert (LOSSES[name](TARGET + shift, TARGET.expand(6, 4)).diff() > 0).all(), direction


@each_loss
@pytest.mark.parametrize("size", [(20.0, 10), (4, 4), (60, 5)])
def test_a_box_far_away_is_drawn_to_its_target(name, size):
    """Where a box moves as a whole, the loss falls towards the target, from every side."""
    half = torch.tensor(size) / 2
    centre = (TARGET[:2] + TARGET[2:]) / 2
    for turn in range(12):
        way = torch.tensor([math.cos(turn * math.pi / 6), math.sin(turn * math.pi / 6)])
        for far in (50.0, 120.0):
            at = centre + far * way
            _, gradient = value_and_gradient(LOSSES[name], torch.cat((at - half, at + half)), TARGET)
            moved = gradient[:2] + gradient[2:]
            assert moved @ way > 0, (turn, far)


def test_siou_rises_with_distance_where_mmdets_default_falls():
    rows = torch.tensor([1.0, 5, 10, 20, 50, 200])[:, None] * torch.tensor([1.0, 0, 1, 0])
    assert (box_losses.siou(TARGET + rows, TARGET.expand(6, 4)).diff() > 0).all()
    rho = (rows[:, 0] / (rows[:, 0] + 20)).square()
    other_sign = 1 - torch.exp(2 * rho)
    assert (other_sign.diff() < 0).all()


@each_loss
def test_degenerate_boxes(name):
    odd = [[1.0, 1, 3, 4], [1, 1, 1, 4], [1, 1, 3, 1], [1, 1, 1, 1], [3, 4, 1, 1], [-1e8, -1e8, 1e8, 1e8]]
    odd = torch.tensor(odd)
    chosen = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    for one, two in ((odd[chosen[:, 0]], odd[chosen[:, 1]]), (odd[chosen[:, 1]], odd[chosen[:, 0]])):
        value, gradient = value_and_gradient(LOSSES[name], one, two)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@each_loss
def test_the_scale_that_each_assumes(name):
    """Larger units change MPDIoU and NWD alone; with their sizes in these units they too are as before."""
    a, b = pairs(50)
    own = {"mpdiou": {"width": 6400.0, "height": 6400.0}, "nwd": {"constant": 128.0}}
    assert_close(LOSSES[name](10 * a, 10 * b, **own.get(name, {})), LOSSES[name](a, b), rtol=1e-5, atol=1e-6)
    same = torch.allclose(LOSSES[name](10 * a, 10 * b), LOSSES[name](a, b), rtol=1e-4)
    assert same == (name not in own)


@pytest.mark.slow
@each_loss
def test_compiled_is_eager(name):
    a, b = (boxes.float() for boxes in pairs())
    found = value_and_gradient(LOSSES[name], a, b, impl="compile")
    assert_close(found, value_and_gradient(LOSSES[name], a, b, impl="eager"), rtol=1e-4, atol=1e-5)


def test_shape_iou_by_the_shape_of_the_target():
    a, b = pairs()
    for scale in (0.5, 1.0, 2.0):
        expected = shape_iou(a, b, scale)
        assert_close(box_losses.shape_iou(a, b, scale=scale), expected, rtol=1e-5, atol=1e-6)


def test_wiou_v3_weighs_middling_boxes_most_and_keeps_no_state():
    shift = torch.tensor([0.0, 2, 5, 10, 18])[:, None] * torch.tensor([1.0, 0, 1, 0])
    boxes, target = TARGET + shift, TARGET.expand(5, 4)
    gain = box_losses.wiou_v3(boxes, target, mean=0.3) / box_losses.wiou(boxes, target)
    assert gain[1:].argmax() in (1, 2)
    first = box_losses.wiou_v3(boxes, target, mean=0.3)
    assert_close(box_losses.wiou_v3(boxes, target, mean=torch.tensor(0.3)), first)
    mean = torch.tensor(1.0)
    new = box_losses.running_mean(mean, boxes.requires_grad_(), target, momentum=0.1)
    assert_close(new, 0.9 + 0.1 * box_iou_loss(boxes, target).mean().detach())
    assert (mean, new.requires_grad) == (1, False)
    assert box_losses.running_mean(mean, boxes[:0], target[:0]) is mean


@each_loss
def test_on_the_command_line(name):
    found = find_loss(f"{FILE}:{name}", BOX_LOSSES)
    a, b = (boxes.float() for boxes in pairs(20))
    assert_close(regress(found, a, b), LOSSES[name](a, b))
    summed = find_loss(f"giou+0.5*{FILE}:{name}", BOX_LOSSES)
    assert_close(regress(summed, a, b), generalized_box_iou_loss(a, b) + 0.5 * LOSSES[name](a, b))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nwd,constant=0", "constant is 0.0; it must be at least 1e-06"),
        ("inner_giou,ratio=0", r"ratio is 0\.0; it must be in \[0\.1, 10\]"),
        ("siou,theta=0", "theta is 0.0; it must be at least 1"),
        ("wiou_v3,mean=0", "mean is 0.0; it must be at least 1e-06"),
    ],
)
def test_numbers_out_of_range(name, message):
    with pytest.raises(ValueError, match=message):
        find_loss(f"{FILE}:{name}", BOX_LOSSES)


def test_the_page_shows_every_function_of_the_file():
    page = (ROOT / "docs" / "box_formulas.md").read_text(encoding="utf-8")
    lines = FILE.read_text(encoding="utf-8").splitlines()
    functions = [node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.FunctionDef)]
    assert {function.name for function in functions} >= set(NAMES)
    for function in functions:
        start = min([function.lineno, *(one.lineno for one in function.decorator_list)])
        docstring = function.body[0]
        shown = [*lines[start - 1 : docstring.lineno - 1], *lines[docstring.end_lineno : function.end_lineno]]
        assert "\n".join(shown) in page, function.name
