import math

import pytest
import torch
from torch.testing import assert_close

from detloss.losses import binary_cross_entropy_with_logits, poly_focal_loss, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, alpha_t, logits_and_targets, poly_focal, value_and_gradient

GAMMAS = [0, 0.5, 1, 2.0, 5]
EPSILONS = [-1.0, -0.3, 0.0, 2.0]


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gamma, epsilon):
    x, t = logits_and_targets(dtype)
    value, gradient = value_and_gradient(poly_focal_loss, x, t, 0.25, gamma, epsilon)
    expected, expected_gradient = value_and_gradient(
        lambda x: alpha_t(t.double(), 0.25) * poly_focal(x, t.double(), gamma, epsilon), x.double()
    )
    # relative errors of the base are multiplied by gamma; at ε < 0 the rounding of two terms is what is left
    tolerance = {"rtol": TOLERANCE[dtype]["rtol"] * max(1, gamma), "atol": TOLERANCE[dtype]["atol"] * 4}
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # p = 1/2: focal's (1/2)^2 log 2, then ε (1/2)^3; alpha is 1/4 on the positive and 3/4 on the negative
    both = torch.zeros(2), torch.tensor([1.0, 0.0])
    for epsilon in (-1, 1):
        term = math.log(2) / 4 + epsilon / 8
        value = poly_focal_loss(*both, epsilon=epsilon)
        assert_close(value, torch.tensor([term / 4, 3 * term / 4]))
    # the wrong side without end: (1-p_t)^2 is 1, BCE is |x|, the second term -1
    assert poly_focal_loss(torch.tensor(-50.0), torch.tensor(1.0), None).item() == 49
    # a soft label, x = 0: p_t is 1/2 for every t, BCE log 2
    assert_close(
        poly_focal_loss(torch.tensor(0.0), torch.tensor(0.3), None), torch.tensor(math.log(2) / 4 - 1 / 8)
    )


@pytest.mark.parametrize("gamma", [0, 1, 2.5])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_is_focal_loss_with_another_first_term_of_its_series(gamma, epsilon):
    # -log p_t = Σ (1-p_t)^j / j; a hundred terms of at most (2/3)^j
    wrong = torch.linspace(1e-3, 2 / 3, 50, dtype=torch.double)
    orders = torch.arange(1.0, 101, dtype=torch.double)
    coefficients = 1 / orders
    coefficients[0] += epsilon
    series = (coefficients * wrong[:, None] ** (orders + gamma)).sum(1)
    for t in (0.0, 1.0):
        x = torch.logit(wrong) * (1 - 2 * t)
        value = poly_focal_loss(x, torch.full_like(x, t), None, gamma, epsilon)
        assert_close(value, series, rtol=1e-8, atol=1e-16)


@pytest.mark.parametrize("epsilon", [0, 0.0, torch.tensor(0.0)])
def test_epsilon_zero_is_exactly_focal_loss(epsilon):
    x, t = logits_and_targets(torch.float32, scale=30)
    index = torch.randint(-1, 6, (64,), generator=torch.Generator().manual_seed(1))
    for targets in (t, index):
        for gamma in (0.0, 1.5, 2.0):
            # eagerly: passes round each in its own way
            arguments = {"alpha": 0.3, "gamma": gamma, "ignore_index": -1, "impl": "eager"}
            value, gradient = value_and_gradient(poly_focal_loss, x, targets, epsilon=epsilon, **arguments)
            expected, expected_gradient = value_and_gradient(sigmoid_focal_loss, x, targets, **arguments)
            assert torch.equal(value, expected)
            assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-12)  # summed in another order


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_falls_with_the_probability_of_the_label_down_to_epsilon_minus_one(gamma):
    x = torch.linspace(-12, 12, 4001, dtype=torch.double)
    for epsilon in (-1, -0.5, 0, 3):
        loss = poly_focal_loss(x, torch.ones_like(x), 0.25, gamma, epsilon)
        assert (loss.diff() < 0).all()
        assert (loss > 0).all()
    # beyond, the answer that costs least is not the right one
    loss = poly_focal_loss(x, torch.ones_like(x), 0.25, gamma, -1.5)
    assert loss.min() < 0
    assert x[loss.argmin()] < 11


def test_epsilon_per_class_and_its_gradient():
    x, t = logits_and_targets(torch.float64, (8, 3))
    per_class = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.double)
    columns = [poly_focal_loss(x[:, i], t[:, i], epsilon=e) for i, e in enumerate(per_class.tolist())]
    assert_close(poly_focal_loss(x, t, epsilon=per_class), torch.stack(columns, 1))
    assert torch.autograd.gradcheck(lambda e: poly_focal_loss(x, t, epsilon=e), per_class.requires_grad_())
    with pytest.raises(ValueError, match=r"epsilon has shape \(2,\), which does not broadcast to \(8, 3\)"):
        poly_focal_loss(x, t, epsilon=torch.ones(2))


def test_at_the_default_easy_answers_weigh_half_of_the_next_power():
    # ε = -1: what is left near p_t = 1 is (1-p_t)^(γ+2) / 2
    wrong = torch.tensor(1e-3, dtype=torch.double)
    loss = poly_focal_loss(-torch.logit(wrong), torch.ones((), dtype=torch.double), None)
    assert loss.item() == pytest.approx(0.5e-12, rel=1e-3)


@pytest.mark.parametrize("epsilon", [-1, 1, torch.tensor(-0.5)])
@pytest.mark.parametrize("gamma", [0, 0.01, 0.5, 1, 2, 5, torch.tensor(0.5)])
def test_finite_when_saturated(gamma, epsilon):
    for x in (0.0, 16.0, -16.0, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4, 1e30, -1e30):
        for t in (0.0, 1e-6, 0.5, 1 - 1e-6, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = poly_focal_loss(leaf, torch.tensor(t), None, gamma, epsilon)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, t)
            assert gradient.isfinite(), (x, t)
            assert second.isfinite(), (x, t)
            if abs(x) > 40 and t == (x < 0):  # all wrong: |x| + ε, of slope 1
                assert_close(value, leaf.detach().abs() + epsilon)
                assert_close(gradient.abs(), torch.ones(()))
                assert second.abs() < 1e-15


@pytest.mark.parametrize("epsilon", [-1, 0.7])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_first_and_second_derivative(gamma, epsilon):
    x, t = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: poly_focal_loss(x, t, 0.25, gamma, epsilon), x)
    assert torch.autograd.gradgradcheck(lambda x: poly_focal_loss(x, t, 0.25, gamma, epsilon), x)


def test_gamma_zero_is_poly_one_cross_entropy():
    x, t = logits_and_targets(torch.float32)
    p = torch.sigmoid(x)
    expected = binary_cross_entropy_with_logits(x, t) + 2 * (1 - p * t - (1 - p) * (1 - t))
    assert_close(poly_focal_loss(x, t, None, 0.0, 2.0), expected)


@pytest.mark.parametrize("form", ["dense", pytest.param("index", marks=pytest.mark.slow)])
def test_compiled_is_eager(form):
    x, targets = logits_and_targets(torch.float32, (50, 7))
    if form == "index":
        targets = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for gamma, epsilon in ((2.0, -1.0), (1.3, 0.5)):
        arguments = {"gamma": gamma, "epsilon": epsilon}
        value, gradient = value_and_gradient(poly_focal_loss, x, targets, impl="compile", **arguments)
        expected, expected_gradient = value_and_gradient(
            poly_focal_loss, x, targets, impl="eager", **arguments
        )
        assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
