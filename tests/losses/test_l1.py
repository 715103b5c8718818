"""L1 and smooth L1 of boxes: against torch's own functions, in every format."""

import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.testing import assert_close

from detloss.boxes import box_convert
from detloss.losses import l1_box_loss, smooth_l1_box_loss
from helpers.definitions import value_and_gradient

LOSSES = {"l1": l1_box_loss, "smooth_l1": smooth_l1_box_loss}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_format = pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])

BOXES1 = torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 9], [0, 0, 1, 1], [10, 10, 12, 15]])
BOXES2 = torch.tensor([[1.0, 1, 4, 4], [1.5, 2, 6, 8], [2, 2, 3, 4], [10, 10, 12, 15]])


@each_format
@pytest.mark.parametrize("impl", ["eager", "compile"])
def test_l1_is_the_sum_of_torchs_over_the_four_numbers(fmt, impl):
    boxes = [box_convert(one, "xyxy", fmt) for one in (BOXES1, BOXES2)]
    expected = value_and_gradient(lambda a: F.l1_loss(a, boxes[1], reduction="none").sum(-1), boxes[0])
    found = value_and_gradient(l1_box_loss, *boxes, fmt=fmt, impl=impl)
    assert_close(found, expected)
    assert found[0].shape == (4,)


@each_format
@pytest.mark.parametrize("impl", ["eager", "compile"])
@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0, 2.5])
def test_smooth_l1_is_the_sum_of_torchs_over_the_four_numbers(fmt, impl, beta):
    boxes = [box_convert(one, "xyxy", fmt) for one in (BOXES1, BOXES2)]

    def theirs(a):
        return F.smooth_l1_loss(a, boxes[1], reduction="none", beta=beta).sum(-1)

    assert_close(
        value_and_gradient(smooth_l1_box_loss, *boxes, beta=beta, fmt=fmt, impl=impl),
        value_and_gradient(theirs, boxes[0]),
    )


def test_by_hand():
    first, second = torch.tensor([1.0, 2, 8, 5]), torch.tensor([1.5, 2, 6, 5])  # 0.5, 0, 2, 0
    assert l1_box_loss(first, second) == 2.5
    assert smooth_l1_box_loss(first, second) == 0.5**2 / 2 + (2 - 0.5)
    assert smooth_l1_box_loss(first, second, beta=4.0) == (0.5**2 + 2**2) / 8
    # in centre and size: off by -0.25 + 1 and 0, and by 7 - 4.5 and 0
    corners = [box_convert(one, "xyxy", "cxcywh") for one in (first, second)]
    assert l1_box_loss(*corners, fmt="cxcywh") == 0.75 + 2.5
    assert l1_box_loss(first, second, relative=True) == pytest.approx((0.5 + 2) / 4.5)


@each_format
def test_relative_to_the_size_of_the_target(fmt):
    target = torch.tensor([[0.0, 0, 10, 20], [0, 0, 100, 200], [5, 5, 5, 5], [8, 8, 6, 6]])
    off = torch.tensor([[1.0, 2, 1, 2], [10, 20, 10, 20], [1, 1, 1, 1], [1, 1, 1, 1]])
    if fmt != "xyxy":
        target, off = target[:3], off[:3]  # the last is inverted
        target = box_convert(target, "xyxy", fmt)
    expected = torch.tensor([0.4, 0.4, 4.0, 4.0])[: len(target)]  # a side below 1 counts as 1
    assert_close(l1_box_loss(target + off, target, relative=True, fmt=fmt), expected)
    smooth = smooth_l1_box_loss(target + off, target, relative=True, beta=0.1, fmt=fmt)
    assert_close(smooth, expected - 4 * 0.05)


@each_loss
def test_in_float64_and_a_gradient_to_both(loss):
    one, two = (boxes.double().requires_grad_() for boxes in (BOXES1 + 0.3, BOXES2))
    for fmt in ("xyxy", "cxcywh"):
        assert torch.autograd.gradcheck(lambda a, b, fmt=fmt: loss(a, b, fmt=fmt), (one, two))
    assert loss(one, two).dtype == torch.float64
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        assert_close(
            loss(BOXES1.to(dtype), BOXES2.to(dtype)), loss(BOXES1.to(dtype).float(), BOXES2.to(dtype).float())
        )


@each_loss
def test_reductions_and_weight(loss):
    value = loss(BOXES1, BOXES2)
    weight = torch.tensor([1.0, 0, 2, 5])
    assert_close(loss(BOXES1, BOXES2, "sum"), value.sum())
    assert_close(loss(BOXES1, BOXES2, "mean", weight=weight), (value * weight).sum() / 4)
    assert_close(loss(BOXES1.reshape(2, 2, 4), BOXES2.reshape(2, 2, 4)), value.reshape(2, 2))


@each_loss
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_boxes_give_zero_and_a_gradient(loss, relative, reduction):
    boxes = torch.zeros(0, 4, requires_grad=True)
    value = loss(boxes, torch.zeros(0, 4), reduction, relative=relative)
    value.sum().backward()
    assert value.sum().item() == 0
    assert boxes.grad.shape == (0, 4)


@each_loss
@each_format
@pytest.mark.parametrize("relative", [False, True])
def test_finite_for_odd_boxes(loss, fmt, relative):
    odd = torch.tensor(
        [[1.0, 1, 3, 4], [1, 1, 1, 4], [1, 1, 1, 1], [3, 4, 1, 1], [-1e8, -1e8, 1e8, 1e8], [0, 0, 1e30, 1e30]]
    )
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    value, gradient = value_and_gradient(loss, odd[pairs[:, 0]], odd[pairs[:, 1]], fmt=fmt, relative=relative)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient.abs() <= 1).all()


def test_an_inverted_box_is_pulled_open():
    """Width below 0: the size that the IoU losses take as 0 still has a gradient here."""
    box = torch.tensor([5.0, 5, -2, 1], requires_grad=True)
    l1_box_loss(box, torch.tensor([5.0, 5, 2, 1]), fmt="cxcywh").backward()
    assert box.grad.tolist() == [0, 0, -1, 0]


def test_beta_may_be_a_tensor_and_is_checked():
    betas = torch.tensor([0.5, 1.0, 2.0, 0.0])
    one_by_one = [smooth_l1_box_loss(a, b, beta=float(c)) for a, b, c in zip(BOXES1, BOXES2, betas)]
    assert_close(smooth_l1_box_loss(BOXES1, BOXES2, beta=betas), torch.stack(one_by_one))
    for beta in (-1.0, torch.tensor(-1.0), float("nan")):
        with pytest.raises(ValueError, match=r"beta is (-1\.0|nan); it must be at least 0"):
            smooth_l1_box_loss(BOXES1, BOXES2, beta=beta)


@each_loss
def test_compile_and_vmap(loss):
    compiled = torch.compile(lambda b: loss(b, BOXES2, "mean"), fullgraph=True, backend="aot_eager")
    ours, plain = value_and_gradient(compiled, BOXES1), value_and_gradient(loss, BOXES1, BOXES2, "mean")
    assert_close(ours, plain)
    assert_close(vmap(grad(loss))(BOXES1, BOXES2), plain[1] * 4)


@each_loss
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes2": torch.zeros(1, 4)}, r"boxes1 has shape \(3, 4\), boxes2 \(1, 4\)"),
        ({"reduction": "avg"}, r"reduction is 'avg'"),
        ({"fmt": "xy"}, r"fmt is 'xy'"),
        ({"weight": torch.zeros(3, 1)}, r"weight has shape \(3, 1\), which does not broadcast to \(3,\)"),
    ],
)
def test_errors(loss, change, message):
    arguments = {"boxes1": torch.zeros(3, 4), "boxes2": torch.zeros(3, 4)} | change
    with pytest.raises(ValueError, match=message):
        loss(**arguments)
