import math

import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.testing import assert_close

from detloss._core.private import CAN_FUSE
from detloss.losses import sigmoid_focal_loss, softmax_focal_loss
from helpers.definitions import TOLERANCE, softmax_focal, value_and_gradient

SHAPES = [(7, 4), (2, 4, 3), (2, 4, 3, 2)]


def case(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * 3).to(dtype)
    index = torch.randint(shape[1], shape[:1] + shape[2:], generator=generator)
    probabilities = torch.rand(shape, generator=generator).to(dtype)
    return x, index, probabilities / probabilities.sum(1, keepdim=True)


def one_hot(index, classes):
    return F.one_hot(index, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2.0, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, shape, gamma):
    x, index, probabilities = case(shape, dtype)
    tolerance = TOLERANCE[dtype] | (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"atol": 1e-6}
    )
    for target, dense in ((index, one_hot(index, shape[1])), (probabilities, probabilities.double())):
        value, gradient = value_and_gradient(softmax_focal_loss, x, target, None, gamma)
        expected, expected_gradient = value_and_gradient(softmax_focal, x.double(), dense, gamma)
        assert value.dtype == gradient.dtype == dtype
        assert_close(value.double(), expected, **tolerance)
        assert_close(gradient.double(), expected_gradient, **tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gamma_zero_equals_cross_entropy(shape, smoothing, reduction):
    x, index, probabilities = case(shape)
    with_ignored = index.clone()
    with_ignored[0] = -100
    for target in (index, with_ignored, probabilities):
        ours = value_and_gradient(
            softmax_focal_loss, x, target, None, 0.0, reduction, label_smoothing=smoothing
        )
        theirs = value_and_gradient(
            F.cross_entropy, x, target, reduction=reduction, label_smoothing=smoothing
        )
        assert_close(ours[0], theirs[0])
        assert_close(ours[1], theirs[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_alpha_is_the_weight_of_cross_entropy(shape, smoothing):
    x, index, probabilities = case(shape)
    alpha = torch.rand(4, dtype=torch.double)
    for target in (index, probabilities):
        ours = softmax_focal_loss(x, target, alpha, 0.0, label_smoothing=smoothing)
        assert_close(ours, F.cross_entropy(x, target, alpha, reduction="none", label_smoothing=smoothing))
    assert_close(
        softmax_focal_loss(x, index, alpha, 2.0), softmax_focal_loss(x, index, None, 2.0) * alpha[index]
    )


def test_mean_divides_by_the_targets_that_count():
    x, index, _ = case((6, 4))
    index[2:4] = 255
    alpha = torch.tensor([1.0, 2, 3, 4]).double()
    value = softmax_focal_loss(x, index, alpha, ignore_index=255)
    assert (value[2:4] == 0).all()
    assert_close(softmax_focal_loss(x, index, alpha, reduction="mean", ignore_index=255), value.sum() / 4)
    x.requires_grad_()
    nothing = softmax_focal_loss(x, torch.full((6,), -100), reduction="mean")
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_two_classes_are_one_sigmoid():
    x = torch.linspace(-30, 30, 61)
    two = torch.stack((torch.zeros_like(x), x), 1)
    for target in (0, 1):
        for gamma in (0.5, 2.0):
            value = softmax_focal_loss(two, torch.full((61,), target), None, gamma)
            assert_close(value, sigmoid_focal_loss(x, torch.full((61,), float(target)), None, gamma))


def test_hand_calculated():
    # Three equal logits: p = 1/3, FL = (2/3)^2 log 3.
    value = softmax_focal_loss(torch.zeros(3), torch.tensor(1))
    assert_close(value, torch.tensor(4 / 9 * math.log(3)))
    # Probabilities (1/2, 1/2, 0): the same number, as every class has it.
    assert_close(softmax_focal_loss(torch.zeros(3), torch.tensor([0.5, 0.5, 0.0])), value)


@pytest.mark.parametrize("gamma", [0, 0.01, 0.5, 1, 2, 5, torch.tensor(0.5)])
def test_finite_when_saturated(gamma):
    for size in (0.0, 17.0, 44.0, 88.5, 100.0, 1e4, 1e30):
        for target in (torch.tensor([0]), torch.tensor([2]), torch.tensor([[0.2, 0.3, 0.5]])):
            leaf = torch.tensor([[size, 0.0, -size]], requires_grad=True)
            value = softmax_focal_loss(leaf, target, None, gamma)
            (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            assert second.isfinite().all()
            assert (value >= 0).all()


def test_gradient_keeps_its_digits_where_the_prediction_is_right():
    # 1-p = e^-k in float32 needs the sum of the others: 1 - σ(k) is 0 from k = 17 on.
    x = torch.tensor([[20.0, 0.0]])
    _, gradient = value_and_gradient(softmax_focal_loss, x, torch.tensor([1]), None, 0.5)
    _, expected = value_and_gradient(softmax_focal_loss, x.double(), torch.tensor([1]), None, 0.5)
    assert_close(gradient.double(), expected, rtol=1e-6, atol=0)
    _, gradient = value_and_gradient(softmax_focal_loss, x.repeat(1, 1), torch.tensor([0]), None, 0.5)
    assert gradient.abs().max() < 1e-9


def test_equal_largest_logits():
    # Ties: only one class may be read as the sum of the others.
    x = torch.zeros(1, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, torch.tensor([0])), x)
    assert_close(softmax_focal_loss(x, torch.tensor([0])).item(), math.log(2) / 4)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2.0, 5])
def test_first_and_second_derivative(gamma):
    x, index, probabilities = case((5, 4))
    x.requires_grad_()
    for target in (index, probabilities):
        for smoothing in (0.0, 0.1):

            def loss(x, target=target, smoothing=smoothing):
                return softmax_focal_loss(x, target, None, gamma, label_smoothing=smoothing)

            assert torch.autograd.gradcheck(loss, x)
            assert torch.autograd.gradgradcheck(loss, x)


def test_one_dimension_single_class_and_empty():
    x, index, probabilities = case((1, 4))
    assert_close(softmax_focal_loss(x[0], index[0]), softmax_focal_loss(x, index)[0])
    assert_close(softmax_focal_loss(x[0], probabilities[0]), softmax_focal_loss(x, probabilities)[0])
    one = torch.randn(3, 1, requires_grad=True)
    value = softmax_focal_loss(one, torch.zeros(3, dtype=torch.long), None, 0.5, "sum")
    value.backward()
    assert value.item() == 0
    assert torch.equal(one.grad, torch.zeros(3, 1))
    for reduction in ("none", "sum", "mean"):
        empty = torch.zeros(0, 4, requires_grad=True)
        for target in (torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)):
            value = softmax_focal_loss(empty, target, reduction=reduction)
            value.sum().backward()
            assert value.sum().item() == 0
        assert empty.grad.shape == (0, 4)


def test_half_precision_and_autocast():
    x, index, _ = case((5, 4), torch.bfloat16)
    assert softmax_focal_loss(x, index).dtype == torch.bfloat16
    assert softmax_focal_loss(x, index, reduction="mean").dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert softmax_focal_loss(x, index).dtype == torch.float32


def test_non_contiguous_and_unchanged():
    x, index, _ = case((2, 4, 3))
    before = x.clone(), index.clone()
    strided = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert_close(softmax_focal_loss(strided, index), softmax_focal_loss(x, index))
    assert torch.equal(x, before[0])
    assert torch.equal(index, before[1])


def test_compile_and_vmap():
    x, index, probabilities = case((3, 5, 2), torch.float32)
    for target in (index, probabilities):

        def loss(x, target=target):
            return softmax_focal_loss(x, target, torch.ones(5), reduction="mean", label_smoothing=0.1)

        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        ours, plain = value_and_gradient(compiled, x), value_and_gradient(loss, x)
        assert_close(ours[0], plain[0])
        assert_close(ours[1], plain[1])
    scheduled = torch.tensor(0.1, dtype=x.dtype)
    compiled = torch.compile(softmax_focal_loss, fullgraph=True, backend="aot_eager")
    for smoothing in (0.1, 0.3, 0.0):
        scheduled.fill_(smoothing)
        ours = compiled(x, index, label_smoothing=scheduled)
        assert_close(ours, softmax_focal_loss(x, index, label_smoothing=smoothing))
    rows, labels, _ = case((6, 4))
    per_row = vmap(grad(softmax_focal_loss))(rows, labels)
    assert_close(per_row, value_and_gradient(softmax_focal_loss, rows, labels)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 3, 1])}, r"targets\[1\] is 3; it may be classes 0\.\.2 or -100"),
        (
            {"targets": torch.tensor([0, 1])},
            r"targets have shape \(2,\).*class indices must have shape \(3,\)",
        ),
        ({"targets": torch.zeros(3)}, r"class probabilities must have shape \(3, 3\)"),
        ({"targets": torch.full((3, 3), 2.0)}, r"it must be in \[0, 1\]"),
        ({"targets": torch.zeros(3, 3, requires_grad=True)}, r"targets requires grad"),
        ({"alpha": torch.ones(4)}, r"alpha has shape \(4,\); it must be \(3,\), one per class"),
        ({"alpha": 0.25}, r"alpha is 0\.25; it must be a tensor"),
        ({"gamma": -1}, r"gamma is -1"),
        ({"gamma": torch.tensor(-1.0)}, r"gamma is -1"),
        ({"targets": torch.tensor([True, False, True])}, r"targets is bool; pass targets\.float\(\)"),
        ({"targets": [0, 1, 2]}, r"targets is a list; it must be a tensor"),
        ({"reduction": "avg"}, r"reduction is 'avg'"),
        ({"label_smoothing": 2.0}, r"label_smoothing is 2\.0; it must be in \[0, 1\]"),
        ({"inputs": torch.zeros(3, 0)}, r"inputs have shape \(3, 0\)"),
        ({"inputs": torch.tensor(0.0)}, r"inputs have shape \(\)"),
    ],
)
def test_errors(change, message):
    arguments = {"inputs": torch.zeros(3, 3), "targets": torch.tensor([0, 1, 2])} | change
    with pytest.raises(ValueError, match=message):
        softmax_focal_loss(**arguments)


@pytest.mark.parametrize("impl", ["eager", "compile"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_ignored_target_may_have_any_logits(impl, smoothing, bad):
    if impl == "compile" and not CAN_FUSE:
        pytest.skip("needs the fused pass")
    logits = torch.tensor([[0.5, -1.0], [bad, 2.0], [1.5, bad]], requires_grad=True)
    clean = torch.tensor([[0.5, -1.0]], requires_grad=True)
    given = {"reduction": "mean", "label_smoothing": smoothing}
    value = softmax_focal_loss(logits, torch.tensor([1, -100, -100]), **given, impl=impl)
    expected = softmax_focal_loss(clean, torch.tensor([1]), **given, impl="eager")
    assert_close(value, expected)
    value.backward()
    expected.backward()
    assert_close(logits.grad, torch.cat([clean.grad, torch.zeros(2, 2)]))
