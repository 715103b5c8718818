import math

import pytest
import torch
from torch.testing import assert_close

from detloss.losses import binary_cross_entropy_with_logits, varifocal_loss
from helpers.definitions import TOLERANCE, logits_and_targets, value_and_gradient, varifocal

GAMMAS = [0, 0.5, 1, 2.0, 3]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gamma):
    x, y = logits_and_targets(dtype)
    value, gradient = value_and_gradient(varifocal_loss, x, y, 0.75, gamma)
    expected, expected_gradient = value_and_gradient(varifocal, x.double(), y.double(), 0.75, gamma)
    assert_close(value.double(), expected, **TOLERANCE[dtype])
    assert_close(gradient.double(), expected_gradient, **TOLERANCE[dtype])


def test_hand_calculated():
    # p = 1/2: positive of quality 1/2: log 2 / 2; negative: 3/4 (1/2)^2 log 2.
    value = varifocal_loss(torch.zeros(2), torch.tensor([0.5, 0.0]))
    assert_close(value, torch.tensor([math.log(2) / 2, 3 * math.log(2) / 16]))


def test_alpha_scales_the_negatives_only():
    x, y = logits_and_targets(torch.float32)
    plain = varifocal_loss(x, y, None)
    for off in (-1, 1.0, torch.tensor(1.0)):
        assert_close(varifocal_loss(x, y, off), plain)
    per_class = torch.rand(5) * 3
    for alpha in (0.75, 2.0, per_class):
        assert_close(varifocal_loss(x, y, alpha), torch.where(y > 0, plain, plain * alpha))
    with pytest.raises(ValueError, match=r"alpha has shape \(4,\)"):
        varifocal_loss(x, y, torch.ones(4))
    with pytest.raises(ValueError, match=r"alpha is -1\.0; it must be at least 0"):
        varifocal_loss(x, y, torch.tensor(-1.0))


def test_gamma_zero_weighs_negatives_evenly():
    x, y = logits_and_targets(torch.float32)
    assert_close(
        varifocal_loss(x, y, None, 0.0), binary_cross_entropy_with_logits(x, y) * torch.where(y > 0, y, 1.0)
    )


def test_a_class_of_quality_zero_is_no_negative():
    x = torch.zeros(1, 2)
    from_index = varifocal_loss(x, torch.tensor([0]), quality=torch.zeros(1))
    dense = varifocal_loss(x, torch.zeros(1, 2))
    assert from_index[0, 0] == 0
    assert_close(from_index[0, 1], dense[0, 1])
    assert dense[0, 0] > 0


@pytest.mark.parametrize("y", [0.1, 0.3, 0.8])
def test_minimum_is_at_the_label(y):
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.double)
    loss = varifocal_loss(torch.logit(p), torch.full_like(p, y))
    assert p[loss.argmin()].item() == pytest.approx(y, abs=1e-3)


def test_the_weight_of_negatives_carries_gradient():
    # d(p² softplus(x))/dx = 2p²(1-p) softplus + p³, and not p³ alone
    x = torch.tensor([0.0])
    _, gradient = value_and_gradient(varifocal_loss, x, torch.zeros(1), None)
    assert_close(gradient, torch.tensor([0.25 * math.log(2) + 0.125]))


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5, torch.tensor(0.5)])
def test_finite_when_saturated(gamma):
    for x in (0.0, 44.0, -44.0, -88.5, 100.0, -100.0, 1e4, -1e4):
        for y in (0.0, 1e-6, 0.3, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = varifocal_loss(leaf, torch.tensor(y), gamma=gamma)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, y)
            assert gradient.isfinite(), (x, y)
            assert second.isfinite(), (x, y)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_first_and_second_derivative(gamma):
    x, y = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: varifocal_loss(x, y, gamma=gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: varifocal_loss(x, y, gamma=gamma), x)
