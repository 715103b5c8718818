import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from detloss.losses import BCEWithLogitsLoss, binary_cross_entropy_with_logits
from helpers.definitions import TOLERANCE, ce, logits_and_targets, value_and_gradient


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype):
    x, t = logits_and_targets(dtype)
    value, gradient = value_and_gradient(binary_cross_entropy_with_logits, x, t)
    expected, expected_gradient = value_and_gradient(ce, x.double(), t.double())
    assert_close(value.double(), expected, **TOLERANCE[dtype])
    assert_close(gradient.double(), expected_gradient, **TOLERANCE[dtype])


@pytest.mark.parametrize("scale", [1, 100])
def test_equals_torch(scale):
    x, t = logits_and_targets(torch.float32, scale=scale)
    weight, pos_weight = torch.rand(5), torch.rand(5) * 4
    for arguments in (
        {},
        {"weight": weight},
        {"pos_weight": pos_weight},
        {"weight": weight, "pos_weight": pos_weight},
    ):
        for reduction in ("none", "sum", "mean"):
            ours = value_and_gradient(binary_cross_entropy_with_logits, x, t, reduction, **arguments)
            torchs = value_and_gradient(
                F.binary_cross_entropy_with_logits, x, t, reduction=reduction, **arguments
            )
            # torch's own are up to 1.5e-5 from float64's at logits of hundreds, ours 2e-7
            assert_close(ours[0], torchs[0], rtol=3e-5, atol=3e-5)
            assert_close(ours[1], torchs[1], rtol=3e-5, atol=3e-5)


def test_keeps_its_digits_where_it_is_tiny():
    # log(1 + e^-k) = e^-k to first order; torch's own loses it to cancellation on negatives.
    x = torch.tensor([-16.0, 16.0, -30.0, 30.0])
    t = torch.tensor([0.0, 1.0, 0.0, 1.0])
    value, gradient = value_and_gradient(binary_cross_entropy_with_logits, x, t)
    small = torch.exp(-x.abs())
    assert_close(value, small, rtol=1e-6, atol=0)
    assert_close(gradient, small * (1 - 2 * t), rtol=1e-6, atol=0)


def test_gradient_is_exact_at_zero_and_where_softplus_turns_linear():
    for x in (0.0, 40.0, 40.001, -40.0):
        for t in (0.0, 0.3, 1.0):
            leaf = torch.tensor(x, dtype=torch.double, requires_grad=True)
            (gradient,) = torch.autograd.grad(
                binary_cross_entropy_with_logits(leaf, leaf.new_tensor(t)), leaf
            )
            assert_close(gradient, torch.sigmoid(leaf.detach()) - t, rtol=1e-12, atol=1e-15)


def test_derivatives():
    x, t = logits_and_targets(torch.float64, (4, 3))
    x.requires_grad_()
    arguments = {"pos_weight": torch.tensor([1.0, 2, 0.5]).double(), "alpha": 0.25}
    assert torch.autograd.gradcheck(lambda x: binary_cross_entropy_with_logits(x, t, **arguments), x)
    assert torch.autograd.gradgradcheck(lambda x: binary_cross_entropy_with_logits(x, t, **arguments), x)


def test_pos_weight_gets_a_gradient_and_is_checked():
    pos_weight = torch.ones(3, requires_grad=True)
    binary_cross_entropy_with_logits(
        torch.zeros(2, 3), torch.ones(2, 3), pos_weight=pos_weight
    ).sum().backward()
    assert_close(pos_weight.grad, torch.full((3,), 2 * 0.6931472))
    with pytest.raises(
        ValueError, match=r"pos_weight has shape \(2,\), which does not broadcast to \(2, 3\)"
    ):
        binary_cross_entropy_with_logits(torch.zeros(2, 3), torch.ones(2, 3), pos_weight=torch.ones(2))


def test_module_equals_torchs():
    x, t = logits_and_targets(torch.float32)
    weight, pos_weight = torch.rand(5), torch.rand(5)
    ours, theirs = (
        BCEWithLogitsLoss(weight, pos_weight=pos_weight),
        torch.nn.BCEWithLogitsLoss(weight, pos_weight=pos_weight),
    )
    assert_close(ours(x, t), theirs(x, t))
    assert dict(ours.named_buffers()).keys() == dict(theirs.named_buffers()).keys()
    assert not ours.state_dict()  # torch's keeps weights in checkpoints, which then fit no other loss
