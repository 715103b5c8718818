"""The box losses; the similarities themselves are tested in test_boxes.py."""

import shutil

import pytest
import torch
from torch.func import grad, vmap
from torch.testing import assert_close

from detloss.boxes import SIMILARITIES, box_convert, paired_box_iou
from detloss.losses import (
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    efficient_box_iou_loss,
    generalized_box_iou_loss,
)
from helpers.definitions import value_and_gradient

LOSSES = {
    "iou": box_iou_loss,
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
    "eiou": efficient_box_iou_loss,
}
each_kind = pytest.mark.parametrize("kind", SIMILARITIES)

BOXES1 = torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 9], [0, 0, 1, 1], [10, 10, 12, 15]])
BOXES2 = torch.tensor([[1.0, 1, 4, 4], [1, 2, 6, 8], [2, 2, 3, 4], [10, 10, 12, 15]])


@each_kind
def test_is_one_minus_the_similarity(kind):
    loss = LOSSES[kind]
    value = loss(BOXES1, BOXES2)
    assert_close(value, 1 - paired_box_iou(BOXES1, BOXES2, kind))
    assert_close(loss(BOXES1, BOXES2, "none", 1e-3), 1 - paired_box_iou(BOXES1, BOXES2, kind, eps=1e-3))
    assert value.shape == (4,)
    assert value[3] == pytest.approx(0, abs=1e-6)
    for fmt in ("xywh", "cxcywh"):
        converted = [box_convert(boxes, "xyxy", fmt) for boxes in (BOXES1, BOXES2)]
        assert_close(loss(*converted, fmt=fmt), value)


@pytest.mark.parametrize(
    ("other", "expected"),
    [([0, 0, 1, 1], 0.0), ([-1, -1, 1, 1], 0.75), ([0, 1, 1, 2], 1.0), ([1, 1, 2, 2], 1.5)],
)
def test_generalized_by_hand(other, expected):
    loss = generalized_box_iou_loss(torch.tensor([0.0, 0, 1, 1]), torch.tensor(other).float())
    assert_close(loss, torch.tensor(expected), rtol=0, atol=1e-6)


@each_kind
def test_reductions_and_weight(kind):
    loss = LOSSES[kind]
    value = loss(BOXES1, BOXES2)
    assert_close(loss(BOXES1, BOXES2, "sum"), value.sum())
    assert_close(loss(BOXES1, BOXES2, "mean"), value.mean())
    weight = torch.tensor([1.0, 0, 2, 5])
    assert_close(loss(BOXES1, BOXES2, weight=weight), value * weight)
    assert_close(loss(BOXES1, BOXES2, "mean", weight=weight), (value * weight).sum() / 4)
    assert_close(loss(BOXES1.reshape(2, 2, 4), BOXES2.reshape(2, 2, 4)), value.reshape(2, 2))
    assert_close(loss(BOXES1[0], BOXES2[0]), value[0])


@each_kind
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_boxes_give_zero_and_a_gradient(kind, reduction):
    boxes = torch.zeros(0, 4, requires_grad=True)
    value = LOSSES[kind](boxes, torch.zeros(0, 4), reduction)
    value.sum().backward()
    assert value.sum().item() == 0
    assert value.shape == ((0,) if reduction == "none" else ())
    assert boxes.grad.shape == (0, 4)


@each_kind
def test_dtypes(kind):
    for dtype in (torch.float16, torch.bfloat16):
        value, gradient = value_and_gradient(LOSSES[kind], BOXES1.to(dtype), BOXES2.to(dtype))
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        assert_close(value, LOSSES[kind](BOXES1, BOXES2))
        with torch.autocast("cpu", dtype):
            assert_close(LOSSES[kind](BOXES1.to(dtype), BOXES2, "mean"), value.mean())
    assert LOSSES[kind](BOXES1.double(), BOXES2.double(), "mean").dtype == torch.float64


@each_kind
def test_a_step_against_the_gradient_comes_closer(kind):
    start = BOXES1[:2]
    value, gradient = value_and_gradient(LOSSES[kind], start, BOXES2[:2])
    assert (LOSSES[kind](start - 0.01 * gradient, BOXES2[:2]) < value).all()


@each_kind
def test_gradient_under_a_non_uniform_grad_output(kind):
    _, gradient = value_and_gradient(LOSSES[kind], BOXES1, BOXES2)
    leaf, output_gradient = BOXES1.clone().requires_grad_(), torch.tensor([1.0, -2, 0, 3])
    LOSSES[kind](leaf, BOXES2).backward(output_gradient)
    assert_close(leaf.grad, gradient * output_gradient.unsqueeze(1))


@each_kind
def test_arguments_are_not_changed_and_may_be_strided(kind):
    boxes1, boxes2 = BOXES1.t().contiguous().t(), BOXES2.t().contiguous().t()
    assert_close(LOSSES[kind](boxes1, boxes2), LOSSES[kind](BOXES1, BOXES2))
    assert torch.equal(boxes1, BOXES1)
    assert torch.equal(boxes2, BOXES2)


@each_kind
def test_compile_and_vmap(kind):
    loss = LOSSES[kind]
    compiled = torch.compile(lambda b: loss(b, BOXES2, "mean"), fullgraph=True, backend="aot_eager")
    ours, plain = value_and_gradient(compiled, BOXES1), value_and_gradient(loss, BOXES1, BOXES2, "mean")
    assert_close(ours[0], plain[0])
    assert_close(ours[1], plain[1])
    assert_close(vmap(grad(loss))(BOXES1, BOXES2), plain[1] * 4)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="Inductor needs a C++ compiler")
@each_kind
def test_inductor(kind):
    compiled = torch.compile(lambda b: LOSSES[kind](b, BOXES2, "mean", fmt="cxcywh"), fullgraph=True)
    ours = value_and_gradient(compiled, BOXES1)
    plain = value_and_gradient(lambda b: LOSSES[kind](b, BOXES2, "mean", fmt="cxcywh"), BOXES1)
    assert_close(ours[0], plain[0])
    assert_close(ours[1], plain[1])


@each_kind
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes2": torch.zeros(1, 4)}, r"boxes1 has shape \(3, 4\), boxes2 \(1, 4\)"),
        ({"boxes1": torch.zeros(3, 5), "boxes2": torch.zeros(3, 5)}, r"it must be \(\.\.\., 4\)"),
        ({"reduction": "avg"}, r"reduction is 'avg'"),
        ({"fmt": "xy"}, r"fmt is 'xy'"),
        ({"weight": torch.zeros(3, 1)}, r"weight has shape \(3, 1\), which does not broadcast to \(3,\)"),
    ],
)
def test_errors(kind, change, message):
    arguments = {"boxes1": torch.zeros(3, 4), "boxes2": torch.zeros(3, 4)} | change
    with pytest.raises(ValueError, match=message):
        LOSSES[kind](**arguments)


# Boxes that are inside out, small, huge, or points

TARGET = torch.tensor([[40.0, 40, 60, 80]])
INVERTED = [[56.0, 42, 44, 78], [42.0, 78, 58, 44], [58.0, 76, 43, 45]]


@each_kind
@pytest.mark.parametrize("fmt", ["xyxy", "cxcywh"])
def test_an_inverted_box_turns_round_and_learns(kind, fmt):
    predicted = box_convert(torch.tensor(INVERTED), "xyxy", fmt).requires_grad_()
    target = box_convert(TARGET.expand(3, 4), "xyxy", fmt)
    optimizer = torch.optim.Adam([predicted], 0.5)
    for _ in range(400):
        optimizer.zero_grad()
        value = LOSSES[kind](predicted, target, fmt=fmt)
        value.sum().backward()
        optimizer.step()
    assert (value < 0.1).all()


@each_kind
@pytest.mark.parametrize("side", [0, 1])
def test_the_gradient_of_an_inverted_box_makes_it_less_so(kind, side):
    """For any place and size, whichever of the two arguments is predicted."""
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 500, 2, generator=generator, dtype=torch.float64) * 100
    proper = torch.cat((corner, corner + size + 1), 1)
    corner, size = torch.rand(2, 500, 2, generator=generator, dtype=torch.float64) * 100
    inverted = torch.cat((corner + size + 1, corner), 1).requires_grad_()
    pair = (inverted, proper) if side == 0 else (proper, inverted)
    value = LOSSES[kind](*pair)
    (gradient,) = torch.autograd.grad(value.sum(), inverted)
    assert value.isfinite().all()
    assert (value >= 1).all()
    assert (gradient[:, 2:] - gradient[:, :2] < 0).all()  # a step against it moves right from left


@each_kind
def test_the_loss_of_an_inverted_box_begins_at_that_of_a_line(kind):
    line = torch.tensor([[50.0, 45, 50, 75]], dtype=torch.float64)
    turned = line + torch.tensor([1e-9, 0, -1e-9, 0], dtype=torch.float64)
    assert_close(LOSSES[kind](turned, TARGET.double()), LOSSES[kind](line, TARGET.double()))


@each_kind
@pytest.mark.parametrize("eps", [1e-7, None, 0.0])
@pytest.mark.parametrize("size", [1 / 640, 1 / 8192, 1e-12, 100.0, 1e19])
def test_size_does_not_matter(kind, eps, size):
    unit = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 2, 1], [0.25, 0, 1.25, 1.5], [3.0, 1, 4, 2]])
    other = torch.tensor([[0.0, 0, 1, 1], [0.5, 0, 1, 2], [0.0, 0, 1, 1], [0.0, 0, 1, 1]])
    expected = 1 - paired_box_iou(unit.double(), other.double(), kind, eps=None)
    assert_close(LOSSES[kind](unit * size, other * size, eps=eps), expected.float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(LOSSES[kind](unit * size, unit * size, eps=eps), torch.zeros(4))


HARD = torch.tensor([0.0, -0.0, 1, 1e-8, -1e-8, 1e-30, -1e-30, 0.5, -2, 640, 1e9, 3e19, -3e19, 1e30, -1e30])


@each_kind
@pytest.mark.parametrize("eps", [1e-7, None, 0.0, torch.tensor(0.0)], ids=str)
@pytest.mark.parametrize("fmt", ["xyxy", "cxcywh"])
def test_value_and_gradient_are_finite_for_any_numbers(kind, eps, fmt):
    generator = torch.Generator().manual_seed(1)
    first, second = HARD[torch.randint(len(HARD), (2, 3000, 4), generator=generator)]
    second[::5], second[1::5, :2], second[2::5, ::2] = first[::5], first[1::5, :2], first[2::5, ::2]
    pair = first.requires_grad_(), second.requires_grad_()
    value = LOSSES[kind](*pair, eps=eps, fmt=fmt)
    gradients = torch.autograd.grad(value.sum(), pair)
    assert all(tensor.isfinite().all() for tensor in (value, *gradients))


@each_kind
def test_a_weight_per_coordinate_counts_as_its_mean(kind):
    weight = torch.rand(4, 4)
    value = LOSSES[kind](BOXES1, BOXES2)
    assert_close(LOSSES[kind](BOXES1, BOXES2, weight=weight), value * weight.mean(1))
    mask = torch.tensor([True, False, True, True])
    for dtype in (torch.bool, torch.uint8):
        assert_close(LOSSES[kind](BOXES1, BOXES2, weight=mask.to(dtype)), value * mask)
        each = mask[:, None].expand(4, 4).to(dtype)
        assert_close(LOSSES[kind](BOXES1, BOXES2, "sum", weight=each), (value * mask).sum())
    # four pairs of four boxes: (4, 4) is one per pair there
    four = LOSSES[kind](BOXES1.expand(4, 4, 4), BOXES2.expand(4, 4, 4), weight=weight)
    assert_close(four, value.expand(4, 4) * weight)
