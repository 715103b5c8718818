import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.losses import (
    BCEWithLogitsLoss,
    SigmoidFocalLoss,
    binary_cross_entropy_with_logits,
    sigmoid_focal_loss,
)
from helpers.definitions import TOLERANCE, alpha_t, focal, logits_and_targets, value_and_gradient

GAMMAS = [0, 0.5, 1, 1.5, 2.0, 5]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gamma):
    x, t = logits_and_targets(dtype)
    value, gradient = value_and_gradient(sigmoid_focal_loss, x, t, 0.25, gamma)
    expected, expected_gradient = value_and_gradient(
        lambda x: alpha_t(t.double(), 0.25) * focal(x, t.double(), gamma), x.double()
    )
    # relative errors of the base are multiplied by gamma
    tolerance = {"rtol": TOLERANCE[dtype]["rtol"] * max(1, gamma), "atol": TOLERANCE[dtype]["atol"]}
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # p = 1/2: -log p = log 2, (1/2)^2 = 1/4, alpha 1/4 on the positive and 3/4 on the negative.
    value = sigmoid_focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert_close(value, torch.tensor([math.log(2) / 16, 3 * math.log(2) / 16]))
    # p_t = .9 (paper, section 3.2): at gamma = 2 a hundred times below cross entropy.
    well_classified = torch.tensor(math.log(9))
    ratio = sigmoid_focal_loss(well_classified, torch.tensor(1.0), -1) / -math.log(0.9)
    assert_close(ratio, torch.tensor(0.01))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_papers_derivative(gamma):
    # App. B: dFL/dx = y (1-p_t)^γ (γ p_t log p_t + p_t - 1), y = ±1
    x = torch.linspace(-12, 12, 97, dtype=torch.double)
    for y in (-1, 1):
        _, gradient = value_and_gradient(sigmoid_focal_loss, x, torch.full_like(x, (y + 1) / 2), None, gamma)
        p_t = torch.sigmoid(y * x)
        expected = y * torch.sigmoid(-y * x) ** gamma * (gamma * p_t * torch.log(p_t) - torch.sigmoid(-y * x))
        assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_gamma_zero_is_exactly_bce(as_tensor):
    x, t = logits_and_targets(torch.float32, scale=100)
    gamma = torch.tensor(0.0) if as_tensor else 0.0
    for alpha in (None, 0.3):  # eagerly: passes round each in its own way
        value, gradient = value_and_gradient(sigmoid_focal_loss, x, t, alpha, gamma, impl="eager")
        expected, expected_gradient = value_and_gradient(
            binary_cross_entropy_with_logits, x, t, alpha=alpha, impl="eager"
        )
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("gamma", [0, 0.01, 0.5, 1, 1.5, 2, 5, torch.tensor(0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_when_saturated(gamma, dtype):
    for x in (0.0, 9.39, -9.39, 40.0, -43.7, 87.0, -88.5, 100.0, -100.0, 104.0, 1e4, -1e4, 1e30, -1e30):
        for t in (0.0, 1e-6, 0.5, 1 - 1e-6, 1.0):
            leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
            value = sigmoid_focal_loss(leaf, torch.tensor(t, dtype=dtype), None, gamma)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, t)
            assert gradient.isfinite(), (x, t)
            assert second.isfinite(), (x, t)
            assert value >= 0
            if abs(x) >= 100 and t == (x < 0):  # as wrong as can be: the loss is |x|, the slope ±1
                assert_close(value, leaf.detach().abs())
                assert_close(gradient.abs(), torch.ones_like(gradient))
            if abs(x) >= 100 and t == (x > 0):
                assert value < 1e-30
                assert abs(gradient) < 1e-30


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_when_saturated_in_half_precision(dtype):
    x = torch.tensor([9.39, -9.39, 100.0, -100.0, 1e4, -1e4], dtype=dtype).repeat(3, 1)
    t = torch.tensor([[0.0], [0.5], [1.0]], dtype=dtype).expand_as(x)
    for gamma in (0, 0.5, 2):
        value, gradient = value_and_gradient(sigmoid_focal_loss, x, t, gamma=gamma)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_keeps_its_digits_where_it_is_tiny(gamma):
    # For t = 0, x = -k both p and -log(1-p) are e^-k to first order; mirrored for t = 1.
    x = torch.tensor([-16.0, 16.0])
    value = sigmoid_focal_loss(x, torch.tensor([0.0, 1.0]), None, gamma)
    assert_close(value, torch.full((2,), math.exp(-16) ** (gamma + 1)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_first_and_second_derivative(gamma):
    x, t = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    pos_weight = torch.tensor([1.0, 2, 0.5]).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, t, 0.25, gamma, pos_weight=pos_weight), x)
    assert torch.autograd.gradgradcheck(
        lambda x: sigmoid_focal_loss(x, t, 0.25, gamma, pos_weight=pos_weight), x
    )


def test_gamma_gets_a_gradient():
    x, t = logits_and_targets(torch.float64, (8, 3))
    gamma = torch.tensor(1.5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda gamma: sigmoid_focal_loss(x, t, 0.25, gamma), gamma)


@settings(max_examples=200)
@given(
    st.floats(-50, 50, width=32), st.floats(0, 1, width=32), st.floats(0, 5), st.floats(0, 5),
)  # fmt: skip
def test_never_above_bce_and_falling_with_gamma(x, t, gamma, more):
    x, t = torch.tensor(x), torch.tensor(t)
    bce = binary_cross_entropy_with_logits(x, t)
    loss = sigmoid_focal_loss(x, t, None, gamma)
    assert 0 <= loss <= bce * (1 + 1e-6)
    assert sigmoid_focal_loss(x, t, None, gamma + more) <= loss * (1 + 1e-5)
    p, t = torch.sigmoid(x.double()), t.double()
    p_t = p * t + (1 - p) * (1 - t)
    # the ratio to BCE is the modulating factor
    assert_close(loss.double(), bce.double() * (1 - p_t) ** gamma, rtol=1e-4, atol=1e-9)


def test_soft_targets_do_not_have_their_minimum_at_the_target():
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.double)
    loss = sigmoid_focal_loss(torch.logit(p), torch.full_like(p, 0.3), None, 2.0)
    assert p[loss.argmin()].item() == pytest.approx(0.122, abs=1e-3)


def test_pos_weight_is_inside_the_cross_entropy():
    x, t = logits_and_targets(torch.float32)
    pos_weight = torch.rand(5) * 3
    value = sigmoid_focal_loss(x, t, None, 1.5, pos_weight=pos_weight)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    ratio = sigmoid_focal_loss(x, t, None, 1.5) / cross_entropy(x, t, reduction="none")
    assert_close(
        value, ratio * cross_entropy(x, t, reduction="none", pos_weight=pos_weight), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("bce", [torch.nn.BCEWithLogitsLoss, BCEWithLogitsLoss])
def test_from_bce_keeps_weight_pos_weight_and_reduction(bce):
    weight, pos_weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5])
    source = bce(weight=weight, pos_weight=pos_weight, reduction="sum")
    loss = SigmoidFocalLoss.from_bce(source, alpha=-1, gamma=1.5)
    x, t = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    assert_close(loss(x, t), sigmoid_focal_loss(x, t, -1, 1.5, "sum", weight=weight, pos_weight=pos_weight))
    assert_close(SigmoidFocalLoss.from_bce(source, -1, 0.0)(x, t), source(x, t))
    assert source.reduction == "sum"
    default = SigmoidFocalLoss.from_bce(bce())
    assert (default.alpha, default.gamma, default.reduction) == (0.25, 2.0, "mean")


def test_from_bce_keeps_ignore_index_and_refuses_a_second_alpha():
    loss = SigmoidFocalLoss.from_bce(BCEWithLogitsLoss(ignore_index=255))
    x, t = torch.randn(4, 3), torch.tensor([0, 255, 3, 1])
    assert_close(loss(x, t), sigmoid_focal_loss(x, t, reduction="mean", ignore_index=255))
    with pytest.raises(ValueError, match=r"bce has an alpha; build it without"):
        SigmoidFocalLoss.from_bce(BCEWithLogitsLoss(alpha=0.75))
