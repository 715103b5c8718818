import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from detloss.losses import binary_cross_entropy_with_logits, matchability_aware_loss, varifocal_loss
from helpers.definitions import TOLERANCE, logits_and_targets, matchability_aware, value_and_gradient

GAMMAS = [0, 0.5, 1, 1.5, 2.0]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gamma):
    x, q = logits_and_targets(dtype)
    value, gradient = value_and_gradient(matchability_aware_loss, x, q, gamma)
    expected, expected_gradient = value_and_gradient(matchability_aware, x.double(), q.double(), gamma, q > 0)
    # the gradient of a positive is the difference p - q^γ
    tolerance = TOLERANCE[dtype] | ({"atol": 1e-6} if dtype == torch.float32 else {})
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # x = 0: cross entropy log 2 whatever the label is; a negative weighs (1/2)^(3/2), a positive 1
    x, q = torch.zeros(3), torch.tensor([1.0, 0.25, 0.0])
    value, gradient = value_and_gradient(matchability_aware_loss, x, q)
    assert_close(value, torch.tensor([1, 1, 0.5**1.5]) * math.log(2))
    # p - q^γ with q^γ = 1 and 1/8; for the negative p^γ p, its weight being a constant
    assert_close(gradient, torch.tensor([-0.5, 0.375, 0.5**2.5]))


@pytest.mark.parametrize("gamma", [1.0, 1.5, torch.tensor(2.0)])
def test_indices_with_quality_are_the_authors_weighted_cross_entropy(gamma):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(40, 6, generator=generator) * 4
    index = torch.randint(0, 7, (40,), generator=generator)
    quality = torch.rand(40, generator=generator)
    quality[::5] = 0  # matched, but not overlapping
    one_hot = F.one_hot(index, 7)[:, :-1].float()
    label = (one_hot * quality[:, None]) ** gamma
    weight = torch.sigmoid(x) ** gamma * (1 - one_hot) + one_hot
    value, gradient = value_and_gradient(matchability_aware_loss, x, index, gamma, quality=quality)
    expected, expected_gradient = value_and_gradient(
        lambda x: F.binary_cross_entropy_with_logits(x, label, weight=weight, reduction="none"), x
    )
    assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_quality_one_is_bce_on_positives_and_varifocal_loss_in_value():
    x, _ = logits_and_targets(torch.float32)
    hard = (torch.arange(5) == 2).float().expand_as(x)
    value = matchability_aware_loss(x, hard)
    assert_close(value[:, 2], binary_cross_entropy_with_logits(x, hard)[:, 2])
    assert_close(value, varifocal_loss(x, hard, None, 1.5))  # whose weight carries gradient


def test_gamma_zero_is_bce_on_the_classes():
    x, q = logits_and_targets(torch.float32)
    for gamma in (0, torch.tensor(0.0)):
        value, gradient = value_and_gradient(matchability_aware_loss, x, q, gamma)
        expected, expected_gradient = value_and_gradient(binary_cross_entropy_with_logits, x, (q > 0).float())
        assert_close(value, expected)
        assert_close(gradient, expected_gradient)


def test_a_class_of_quality_zero_stays_a_positive_with_class_indices():
    x = torch.zeros(1, 2)
    from_index = matchability_aware_loss(x, torch.tensor([0]), quality=torch.zeros(1))
    assert_close(from_index, torch.tensor([[1, 0.5**1.5]]) * math.log(2))  # weighs 1, learns 0
    assert_close(matchability_aware_loss(x, torch.zeros(1, 2)), torch.full((1, 2), 0.5**1.5 * math.log(2)))


@pytest.mark.parametrize("q", [0.1, 0.3, 0.8])
def test_minimum_is_at_the_power_of_the_quality(q):
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.double)
    for gamma in (1.0, 1.5):
        loss = matchability_aware_loss(torch.logit(p), torch.full_like(p, q), gamma)
        assert p[loss.argmin()].item() == pytest.approx(q**gamma, abs=1e-3)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 1.5, 5, torch.tensor(0.5)])
def test_finite_when_saturated(gamma):
    for x in (0.0, 16.0, -16.0, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4, 1e30, -1e30):
        for q in (0.0, 1e-30, 1e-6, 0.3, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = matchability_aware_loss(leaf, torch.tensor(q), gamma)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, q)
            assert gradient.isfinite(), (x, q)
            assert second.isfinite(), (x, q)
            assert value >= 0


def test_keeps_its_digits_where_it_is_tiny():
    # a negative at x = -16: p^1.5 and -log(1-p) are e^-24 and e^-16 to first order
    value = matchability_aware_loss(torch.tensor(-16.0), torch.tensor(0.0))
    assert_close(value, torch.tensor(math.exp(-40)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_derivatives_of_positives(gamma):
    x, _ = logits_and_targets(torch.float64, (8, 3))
    q = torch.rand(8, 3, dtype=torch.double).clamp(min=0.05)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: matchability_aware_loss(x, q, gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: matchability_aware_loss(x, q, gamma), x)


def test_gamma_gets_a_gradient_also_where_quality_is_zero():
    x, q = logits_and_targets(torch.float64, (8, 3))
    gamma = torch.tensor(1.5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda gamma: matchability_aware_loss(x, q, gamma), gamma)
    index = torch.zeros(8, dtype=torch.long)
    matchability_aware_loss(x, index, gamma, "sum", quality=torch.zeros(8)).backward()
    assert gamma.grad.isfinite()


@pytest.mark.parametrize("form", ["index", pytest.param("dense", marks=pytest.mark.slow)])
def test_compiled_is_eager(form):
    x, targets = logits_and_targets(torch.float32, (50, 7))
    keywords = {}
    if form == "index":
        keywords["quality"] = targets[:, 0].clone()
        targets = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for gamma in (1.5, 0.7, 2.0):
        value, gradient = value_and_gradient(
            matchability_aware_loss, x, targets, gamma, impl="compile", **keywords
        )
        expected, expected_gradient = value_and_gradient(
            matchability_aware_loss, x, targets, gamma, impl="eager", **keywords
        )
        assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
