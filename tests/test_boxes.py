import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from detloss.boxes import (
    FORMATS,
    SIMILARITIES,
    box_convert,
    box_iou,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    paired_box_iou,
)

PAIRWISE = {
    "iou": box_iou,
    "giou": generalized_box_iou,
    "diou": distance_box_iou,
    "ciou": complete_box_iou,
}


def random_boxes(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Corner boxes of 2 to 60 pixels with their corners in 0..100."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 58 + 2
    return torch.cat((corner, corner + size), 1).to(dtype)


def definition(a: list[float], b: list[float], kind: str) -> float:
    """The papers' formulas with plain numbers."""
    w1, h1, w2, h2 = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = w1 * h1 + w2 * h2 - inter
    iou = inter / union
    cw, ch = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    diou = iou - (dx**2 + dy**2) / (cw**2 + ch**2)
    v = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    return {
        "iou": iou,
        "giou": iou - (cw * ch - union) / (cw * ch),
        "diou": diou,
        "ciou": diou - (v**2 / (1 - iou + v) if v else 0),
        "eiou": diou - (w1 - w2) ** 2 / cw**2 - (h1 - h2) ** 2 / ch**2,
    }[kind]


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_definition(kind):
    boxes1, boxes2 = random_boxes(200), random_boxes(200, 1)
    expected = [definition(a, b, kind) for a, b in zip(boxes1.tolist(), boxes2.tolist())]
    assert_close(
        paired_box_iou(boxes1, boxes2, kind),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-7,
    )


UNIT, RIGHT, DIAGONAL, AROUND = [0, 0, 1, 1], [1, 0, 2, 1], [1, 1, 2, 2], [-1, -1, 1, 1]
LYING, STANDING, FAR = [0, 0, 2, 1], [0, 0, 1, 2], [3, 0, 4, 1]
V = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2


@pytest.mark.parametrize(
    ("a", "b", "kind", "expected"),
    [
        (UNIT, UNIT, "iou", 1),
        (UNIT, UNIT, "giou", 1),
        (UNIT, UNIT, "diou", 1),
        (UNIT, UNIT, "ciou", 1),
        (UNIT, UNIT, "eiou", 1),
        (UNIT, AROUND, "iou", 1 / 4),  # inside
        (UNIT, AROUND, "giou", 1 / 4),  # the enclosing box is the union
        (UNIT, AROUND, "diou", 1 / 4 - 0.5 / 8),
        (UNIT, AROUND, "ciou", 1 / 4 - 0.5 / 8),  # same aspect ratio
        (UNIT, AROUND, "eiou", 1 / 4 - 0.5 / 8 - 1 / 4 - 1 / 4),
        (UNIT, RIGHT, "iou", 0),  # side by side
        (UNIT, RIGHT, "giou", 0),
        (UNIT, RIGHT, "diou", -1 / 5),
        (UNIT, DIAGONAL, "giou", -1 / 2),  # corner to corner
        (UNIT, DIAGONAL, "diou", -2 / 8),
        (UNIT, FAR, "giou", -2 / 4),  # apart
        (UNIT, FAR, "diou", -9 / 17),
        (UNIT, FAR, "eiou", -9 / 17),
        (LYING, STANDING, "iou", 1 / 3),
        (LYING, STANDING, "giou", 1 / 3 - 1 / 4),
        (LYING, STANDING, "diou", 1 / 3 - 0.5 / 8),
        (LYING, STANDING, "ciou", 1 / 3 - 0.5 / 8 - V * V / (2 / 3 + V)),
        (LYING, STANDING, "eiou", 1 / 3 - 0.5 / 8 - 1 / 4 - 1 / 4),
    ],
)
def test_hand_calculated(a, b, kind, expected):
    boxes1, boxes2 = torch.tensor([a, b]), torch.tensor([b, a])  # all are symmetric
    assert_close(
        paired_box_iou(boxes1, boxes2, kind), torch.full((2,), float(expected)), rtol=1e-6, atol=1e-6
    )
    if kind in PAIRWISE:
        assert_close(
            PAIRWISE[kind](boxes1, boxes2).diagonal(), torch.full((2,), float(expected)), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("kind", PAIRWISE)
@pytest.mark.parametrize(("n", "m"), [(5, 3), (1, 7), (4, 4), (0, 3), (3, 0), (0, 0)])
def test_pairwise_is_paired_for_every_combination(kind, n, m):
    boxes1, boxes2 = random_boxes(n), random_boxes(m, 1)
    matrix = PAIRWISE[kind](boxes1, boxes2)
    assert matrix.shape == (n, m)
    for i in range(n):
        for j in range(m):
            assert_close(matrix[i, j], paired_box_iou(boxes1[i], boxes2[j], kind), rtol=1e-8, atol=1e-8)


def test_pairwise_in_batches():
    boxes1, boxes2 = random_boxes(10).reshape(2, 5, 4), random_boxes(6, 1).reshape(2, 3, 4)
    for function in PAIRWISE.values():
        assert_close(function(boxes1, boxes2), torch.stack([function(a, b) for a, b in zip(boxes1, boxes2)]))


@pytest.mark.parametrize("in_fmt", FORMATS)
@pytest.mark.parametrize("out_fmt", FORMATS)
def test_formats(in_fmt, out_fmt):
    same = {"xyxy": [10.0, 20, 30, 60], "xywh": [10.0, 20, 20, 40], "cxcywh": [20.0, 40, 20, 40]}
    boxes = torch.tensor([same[in_fmt]])
    converted = box_convert(boxes, in_fmt, out_fmt)
    assert_close(converted, torch.tensor([same[out_fmt]]))
    assert converted.data_ptr() != boxes.data_ptr()
    assert_close(box_convert(converted, out_fmt, in_fmt), boxes)
    many = box_convert(random_boxes(6).reshape(2, 3, 4), "xyxy", in_fmt)
    assert_close(box_convert(box_convert(many, in_fmt, out_fmt), out_fmt, in_fmt), many)


@pytest.mark.parametrize("fmt", FORMATS)
def test_overlaps_in_every_format(fmt):
    boxes1, boxes2 = random_boxes(9), random_boxes(9, 1)
    in_fmt = [box_convert(boxes, "xyxy", fmt) for boxes in (boxes1, boxes2)]
    assert_close(box_iou(*in_fmt, fmt=fmt), box_iou(boxes1, boxes2))
    for kind in SIMILARITIES:
        assert_close(paired_box_iou(*in_fmt, kind, fmt=fmt), paired_box_iou(boxes1, boxes2, kind))


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_scale_shift_and_symmetry(kind):
    boxes1, boxes2 = random_boxes(50), random_boxes(50, 1)
    expected = paired_box_iou(boxes1, boxes2, kind)
    assert_close(paired_box_iou(boxes2, boxes1, kind), expected)
    assert_close(paired_box_iou(boxes1 * 8, boxes2 * 8, kind), expected, rtol=1e-6, atol=1e-7)
    shift = torch.tensor([100.0, -30, 100, -30]).double()
    assert_close(paired_box_iou(boxes1 + shift, boxes2 + shift, kind), expected, rtol=1e-6, atol=1e-9)
    turned = [boxes[:, [1, 0, 3, 2]] for boxes in (boxes1, boxes2)]
    assert_close(paired_box_iou(*turned, kind), expected)


DEGENERATE = st.sampled_from(
    [0.0, -0.0, 1.0, 1e-8, -1e-8, 1e-30, 0.5, 3.0, -2.0, 640.0, 1e6, -1e6, 1e9, 3e19, 1e30, -1e30]
)
NUMBER = DEGENERATE | st.floats(-1e6, 1e6, width=32)
BOX = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)


@settings(max_examples=150)
@given(pairs=st.lists(st.tuples(BOX, BOX), min_size=1, max_size=8), fmt=st.sampled_from(FORMATS))
def test_finite_value_and_gradient_for_any_boxes(pairs, fmt):
    for kind in SIMILARITIES:
        leaves = [torch.tensor([pair[side] for pair in pairs], requires_grad=True) for side in (0, 1)]
        value = paired_box_iou(*leaves, kind, fmt)
        value.sum().backward()
        assert value.isfinite().all()
        for leaf in leaves:
            assert leaf.grad.isfinite().all()
        assert PAIRWISE.get(kind, box_iou)(*(leaf.detach() for leaf in leaves)).isfinite().all()


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.floats(0, 1000, width=32)] * 8), min_size=1, max_size=8))
def test_ranges_and_order(rows):
    corner1, size1, corner2, size2 = torch.tensor(rows).reshape(-1, 4, 2).unbind(1)
    boxes1, boxes2 = torch.cat((corner1, corner1 + size1), 1), torch.cat((corner2, corner2 + size2), 1)
    value = {kind: paired_box_iou(boxes1, boxes2, kind) for kind in SIMILARITIES}
    slack = 1e-4  # of float32 at coordinates up to 2000
    assert ((value["iou"] >= 0) & (value["iou"] <= 1 + slack)).all()
    for kind in ("giou", "diou"):
        assert ((value[kind] >= -1 - slack) & (value[kind] <= value["iou"] + slack)).all()
    assert (value["ciou"] <= value["diou"] + slack).all()
    assert (value["eiou"] <= value["diou"] + slack).all()


@pytest.mark.parametrize(
    "degenerate",
    [[1, 1, 1, 1], [0, 0, 0, 2], [0, 0, 2, 0], [3, 3, 1, 1], [2, 0, 0, 2], [0, 2, 2, 0]],
    ids=["point", "no width", "no height", "inverted", "inverted x", "inverted y"],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_boxes(degenerate, dtype):
    good = torch.tensor([[0.0, 0, 2, 2]], dtype=dtype)
    bad = torch.tensor([degenerate], dtype=dtype)
    for kind in SIMILARITIES:
        for boxes1, boxes2 in ((bad, good), (good, bad), (bad, bad)):
            leaf = boxes1.clone().requires_grad_()
            value = paired_box_iou(leaf, boxes2, kind)
            value.sum().backward()
            assert value.isfinite().all()
            assert leaf.grad.isfinite().all()
            assert leaf.grad.dtype == dtype
            if kind == "iou":
                assert value.item() == 0
    for function in PAIRWISE.values():
        assert function(bad, good).isfinite().all()
        assert function(bad, bad).isfinite().all()


def test_an_empty_enclosing_box_gives_giou_no_gradient():
    # two lines of length 10: the slope of (hull - union) / (hull + eps) would be 10 / eps = 1e8
    for dtype in (torch.float16, torch.float32):
        line = torch.tensor([[0.0, 0, 0, 10]], dtype=dtype, requires_grad=True)
        value = paired_box_iou(line, line.detach(), "giou")
        value.sum().backward()
        assert value.item() == 0
        assert torch.equal(line.grad, torch.zeros(1, 4, dtype=dtype))


def test_identical_points_have_similarity_zero_and_no_gradient():
    for kind in SIMILARITIES:
        point = torch.tensor([[5.0, 5, 5, 5]], requires_grad=True)
        value = paired_box_iou(point, point.detach(), kind)
        value.sum().backward()
        assert value.item() == 0
        assert torch.equal(point.grad, torch.zeros(1, 4))


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "eiou"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_derivatives(kind, fmt):
    boxes = [box_convert(random_boxes(12, seed), "xyxy", fmt).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(lambda a, b: paired_box_iou(a, b, kind, fmt), boxes)
    assert torch.autograd.gradgradcheck(lambda a, b: paired_box_iou(a, b, kind, fmt), boxes)


def test_the_trade_off_of_ciou_is_a_constant_for_the_gradient():
    boxes1, boxes2 = random_boxes(20).requires_grad_(), random_boxes(20, 1).requires_grad_()

    def aspect(boxes):
        return torch.atan((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]))

    iou, diou = (paired_box_iou(boxes1, boxes2, kind) for kind in ("iou", "diou"))
    v = 4 / math.pi**2 * (aspect(boxes2) - aspect(boxes1)) ** 2
    expected = diou - (v / (1 - iou + v + 1e-7)).detach() * v
    value = paired_box_iou(boxes1, boxes2, "ciou")
    assert_close(value, expected)
    for ours, theirs in zip(
        torch.autograd.grad(value.sum(), (boxes1, boxes2)),
        torch.autograd.grad(expected.sum(), (boxes1, boxes2)),
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16, torch.int64, torch.uint8])
def test_other_dtypes_are_computed_in_float32(dtype):
    boxes1, boxes2 = (random_boxes(6, seed).round().to(dtype) for seed in (0, 1))
    for kind in SIMILARITIES:
        value = paired_box_iou(boxes1, boxes2, kind)
        assert value.dtype == torch.float32
        assert_close(value, paired_box_iou(boxes1.float(), boxes2.float(), kind))
    for function in PAIRWISE.values():
        assert_close(function(boxes1, boxes2), function(boxes1.float(), boxes2.float()))


def test_large_half_precision_boxes_do_not_overflow():
    boxes = torch.tensor([[0.0, 0, 60000, 60000]], dtype=torch.float16)
    assert_close(paired_box_iou(boxes, boxes, "ciou"), torch.ones(1))


def test_relative_coordinates_meet_pixels():
    # eps is negligible also where boxes are fractions of the image
    boxes1, boxes2 = random_boxes(30), random_boxes(30, 1)
    for kind in SIMILARITIES:
        relative = paired_box_iou(boxes1 / 1000, boxes2 / 1000, kind)
        assert_close(relative, paired_box_iou(boxes1, boxes2, kind))
    for function in PAIRWISE.values():
        assert_close(function(boxes1 / 1e6, boxes2 / 1e6), function(boxes1, boxes2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: box_convert(b, "xyxy", "yxyx"), r"out_fmt is 'yxyx'; it may be one of xyxy, xywh, cxcywh"),
        (lambda b: box_convert(b, "ltwh", "xyxy"), r"in_fmt is 'ltwh'"),
        (lambda b: box_convert(b[:, :3], "xywh", "xyxy"), r"boxes has shape \(2, 3\); it must be"),
        (lambda b: paired_box_iou(b, b, "siou"), r"kind is 'siou'; it may be one of iou, giou"),
        (lambda b: paired_box_iou(b, b, fmt="abcd"), r"fmt is 'abcd'"),
        (lambda b: paired_box_iou(b, b[:1]), r"boxes1 has shape \(2, 4\), boxes2 \(1, 4\).*box_iou"),
        (lambda b: paired_box_iou(b[:, 0], b[:, 0]), r"boxes1 has shape \(2,\)"),
        (lambda b: box_iou(b, b[0, 0]), r"boxes2 has shape \(\)"),
        (lambda b: box_iou(b, b, "abcd"), r"fmt is 'abcd'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4))
