import math

import pytest
import torch
from torch.testing import assert_close

from detloss.losses import binary_cross_entropy_with_logits, quality_focal_loss, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, alpha_t, logits_and_targets, quality_focal, value_and_gradient

BETAS = [0, 0.5, 1, 2.0, 2.5]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, beta):
    x, y = logits_and_targets(dtype)
    value, gradient = value_and_gradient(quality_focal_loss, x, y, beta)
    expected, expected_gradient = value_and_gradient(quality_focal, x.double(), y.double(), beta)
    # y - p is a difference: where it is small its float32 rounding shows
    tolerance = TOLERANCE[dtype] | ({"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {})
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # p = 1/2, y = 3/4: |y-p| = 1/4, cross entropy log 2 whatever y is.
    assert_close(quality_focal_loss(torch.tensor(0.0), torch.tensor(0.75)), torch.tensor(math.log(2) / 16))
    assert_close(
        quality_focal_loss(torch.tensor(0.0), torch.tensor(0.75), alpha=0.25),
        torch.tensor(math.log(2) / 16 * (0.25 * 0.75 + 0.75 * 0.25)),
    )


@pytest.mark.parametrize("beta", BETAS)
def test_is_focal_loss_on_hard_labels(beta):
    x = torch.linspace(-30, 30, 121)
    for y in (0.0, 1.0):
        ours = value_and_gradient(quality_focal_loss, x, torch.full_like(x, y), beta)
        focal = value_and_gradient(sigmoid_focal_loss, x, torch.full_like(x, y), None, beta)
        assert_close(ours[0], focal[0])
        assert_close(ours[1], focal[1])


def test_beta_zero_is_exactly_bce():
    x, y = logits_and_targets(torch.float32, scale=100)
    y[3, :] = torch.sigmoid(x[3, :])  # also where the label is met
    for beta in (0.0, torch.tensor(0.0)):
        value, gradient = value_and_gradient(quality_focal_loss, x, y, beta)
        expected, expected_gradient = value_and_gradient(binary_cross_entropy_with_logits, x, y)
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("y", [0.1, 0.3, 0.5, 0.8])
def test_minimum_is_at_the_label(y):
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.double)
    for beta in (0.5, 1.0, 2.0):
        loss = quality_focal_loss(torch.logit(p), torch.full_like(p, y), beta)
        assert p[loss.argmin()].item() == pytest.approx(y, abs=1e-3)


@pytest.mark.parametrize("beta", [0, 0.1, 0.5, 1, 1.5, 2, 3, torch.tensor(0.5)])
def test_gradient_is_zero_where_the_label_is_met(beta):
    x = torch.tensor([0.0], requires_grad=True)
    value = quality_focal_loss(x, torch.tensor([0.5]), beta)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient, x)
    assert gradient.item() == 0
    assert second.isfinite()
    if beta == 2:
        assert value.item() == pytest.approx(0, abs=1e-30)


def test_curvature_where_the_label_is_met():
    # (p-y)^2 BCE: the second derivative at p = y is 2 (p(1-p))^2 BCE
    x = torch.tensor([-3.0, -0.5, 0.0, 0.7, 2.0], dtype=torch.double, requires_grad=True)
    p = torch.sigmoid(x.detach())
    (gradient,) = torch.autograd.grad(quality_focal_loss(x, p).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert_close(second, 2 * (p * (1 - p)) ** 2 * binary_cross_entropy_with_logits(x.detach(), p))


@pytest.mark.parametrize("beta", [0, 0.5, 1, 2, 5])
def test_finite_when_saturated(beta):
    for x in (0.0, 16.0, -44.0, 88.5, 100.0, -100.0, 1e4, -1e4):
        for y in (0.0, 1e-6, 0.3, 1 - 1e-6, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = quality_focal_loss(leaf, torch.tensor(y), beta)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, y)
            assert gradient.isfinite(), (x, y)
            assert second.isfinite(), (x, y)


def test_keeps_its_digits_where_it_is_tiny():
    # y = 1, x = k: |y-p| and -log p are e^-k to first order; 1 - σ(k) in float32 would be 0 from 17 on.
    x = torch.tensor([18.0, -18.0])
    assert_close(
        quality_focal_loss(x, torch.tensor([1.0, 0.0]), 1.0),
        torch.full((2,), math.exp(-36)),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("beta", BETAS)
def test_first_and_second_derivative(beta):
    x, y = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, y, beta, alpha=0.25), x)
    assert torch.autograd.gradgradcheck(lambda x: quality_focal_loss(x, y, beta, alpha=0.25), x)


def test_alpha_weighs_by_the_label():
    x, y = logits_and_targets(torch.float32)
    assert_close(quality_focal_loss(x, y, alpha=0.25), quality_focal_loss(x, y) * alpha_t(y, 0.25))
