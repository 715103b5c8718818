"""Swapping the import for torchvision's changes nothing: signatures, values, gradients, dtypes, errors."""

import inspect

import pytest
import torch
from torch.testing import assert_close

import detloss.boxes
import detloss.losses

pytestmark = pytest.mark.clients
ops = pytest.importorskip("torchvision.ops")

BOX_LOSSES = ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"]
PAIRWISE = ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"]


def ours(name):
    return getattr(detloss.losses, name, None) or getattr(detloss.boxes, name)


def boxes(count, seed, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 100
    return (torch.cat((corner, corner + size + 1), 1).round() * scale).to(dtype)


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "box_convert", *BOX_LOSSES, *PAIRWISE])
def test_signature(name):
    theirs = inspect.signature(getattr(ops, name)).parameters
    mine = [p for p in inspect.signature(ours(name)).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert [p.name for p in mine] == list(theirs)
    for parameter in mine:
        assert parameter.default == theirs[parameter.name].default, parameter.name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2), (-1, 2.0), (0.9, 0.0), (0.5, 1.5), (0, 5)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_sigmoid_focal_loss(dtype, alpha, gamma, reduction):
    x = (torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    t = torch.rand(50, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    t[::3], t[1::3] = 0, 1
    half = dtype in (torch.float16, torch.bfloat16)
    results = []
    for function in (ops.sigmoid_focal_loss, ours("sigmoid_focal_loss")):
        # torchvision computes half precision in half precision: its float32 is what ours has to meet
        widened = half and function is ops.sigmoid_focal_loss
        leaf = (x.float() if widened else x).clone().requires_grad_()
        value = function(leaf, t.to(leaf.dtype), alpha, gamma, reduction)
        value.sum().backward()
        results.append((value.detach(), leaf.grad))
    (their_value, their_gradient), (value, gradient) = results
    assert gradient.dtype == dtype
    assert value.dtype == (dtype if reduction == "none" else their_value.dtype)
    assert ops.sigmoid_focal_loss(x, t, alpha, gamma, reduction).dtype == dtype
    for mine, theirs in ((value, their_value), (gradient, their_gradient)):
        rtol, atol = (1e-2, 1e-4) if half else (1e-4, 1e-6)
        atol *= theirs.abs().max().item()
        assert_close(mine, theirs, rtol=rtol, atol=atol, check_dtype=False)


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_box_losses(name, dtype, reduction, eps):
    target = boxes(40, 1, dtype)
    results = []
    for function in (getattr(ops, name), ours(name)):
        leaf = boxes(40, 0, dtype).requires_grad_()
        value = function(leaf, target, reduction, eps)
        value.sum().backward()
        results.append((value.detach(), leaf.grad))
    (their_value, their_gradient), (value, gradient) = results
    assert value.dtype == their_value.dtype
    # torchvision adds eps to some denominators, in pixels; here none goes below it, in parts of the boxes.
    usual = eps == 1e-7
    assert_close(value, their_value, rtol=1e-4 if usual else 2e-2, atol=1e-5 if usual else 1e-3)
    assert_close(gradient, their_gradient, rtol=1e-4 if usual else 2e-2, atol=1e-5 if usual else 1e-4)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_relative_boxes_and_no_boxes(name):
    boxes1, boxes2 = boxes(40, 0, scale=1 / 250), boxes(40, 1, scale=1 / 250)
    assert_close(ours(name)(boxes1, boxes2), getattr(ops, name)(boxes1, boxes2))
    empty = torch.zeros(0, 4)
    for reduction in ("sum", "mean"):
        assert_close(ours(name)(empty, empty, reduction), getattr(ops, name)(empty, empty, reduction))


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int16, torch.int64]
)
@pytest.mark.parametrize(("n", "m"), [(5, 9), (9, 5), (1, 3), (0, 3), (3, 0)])
def test_pairwise(name, dtype, n, m):
    boxes1, boxes2 = boxes(n, 0, dtype), boxes(m, 1, dtype)
    value, theirs = ours(name)(boxes1, boxes2), getattr(ops, name)(boxes1, boxes2)
    assert value.dtype == theirs.dtype
    assert value.shape == theirs.shape
    # torchvision subtracts bfloat16 and float16 corners before it widens them
    assert_close(value, theirs, **({"rtol": 0.05, "atol": 0.02} if dtype.itemsize == 2 else {}))
    if dtype == torch.float32:
        assert_close(ours(name)(boxes1 / 250, boxes2 / 250), getattr(ops, name)(boxes1 / 250, boxes2 / 250))


@pytest.mark.parametrize("in_fmt", detloss.boxes.FORMATS)
@pytest.mark.parametrize("out_fmt", detloss.boxes.FORMATS)
def test_box_convert_and_formats(in_fmt, out_fmt):
    given = ops.box_convert(boxes(6, 0), "xyxy", in_fmt)
    assert_close(ours("box_convert")(given, in_fmt, out_fmt), ops.box_convert(given, in_fmt, out_fmt))
    assert_close(ours("box_iou")(given, given, in_fmt), ops.box_iou(given, given, in_fmt))


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", *BOX_LOSSES])
def test_unknown_reduction(name):
    for function in (ours(name), getattr(ops, name)):
        with pytest.raises(ValueError, match="avg"):
            function(torch.zeros(2, 4), torch.zeros(2, 4), reduction="avg")


def test_alpha_above_one():
    for function in (ours("sigmoid_focal_loss"), ops.sigmoid_focal_loss):
        with pytest.raises(ValueError, match="alpha"):
            function(torch.zeros(2), torch.zeros(2), alpha=1.5)
