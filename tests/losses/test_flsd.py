"""Sample-dependent focal loss: two focal losses, one on either side of the threshold."""

import math

import pytest
import torch
from torch.testing import assert_close

from detloss.losses import sample_dependent_focal_loss, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, alpha_t, focal, logits_and_targets, value_and_gradient

GAMMAS = [(5.0, 3.0), (3.0, 5.0), (2.5, 0.5), (0, 1)]


def flsd(x, t, low, high, threshold):
    """As the paper prints it, with its p_t in the place of p of the label."""
    p = 1 / (1 + torch.exp(-x))
    p_t = p * t + (1 - p) * (1 - t)
    return torch.where(p_t < threshold, focal(x, t, low), focal(x, t, high))


@pytest.mark.parametrize(("low", "high"), GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, low, high):
    x, t = logits_and_targets(dtype)
    value, gradient = value_and_gradient(sample_dependent_focal_loss, x, t, 0.25, low, high)
    expected, expected_gradient = value_and_gradient(
        lambda x: alpha_t(t.double(), 0.25) * flsd(x, t.double(), low, high, 0.2), x.double()
    )
    tolerance = {"rtol": TOLERANCE[dtype]["rtol"] * max(1, low, high), "atol": TOLERANCE[dtype]["atol"]}
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # p of the label .1 and .5: γ 5 and 3; alpha is 1/4 on positives, 3/4 on negatives
    x = torch.tensor([math.log(1 / 9), 0.0])
    hard, half = 0.9**5 * -math.log(0.1), 0.5**3 * math.log(2)
    assert_close(sample_dependent_focal_loss(x, torch.ones(2)), torch.tensor([hard, half]) / 4)
    assert_close(sample_dependent_focal_loss(-x, torch.zeros(2)), torch.tensor([hard, half]) * 3 / 4)


@pytest.mark.parametrize("gamma", [0, 0.5, 2.0, torch.tensor(1.5)])
def test_equal_gammas_are_exactly_focal_loss(gamma):
    x, t = logits_and_targets(torch.float32, scale=30)
    index = torch.randint(-1, 6, (64,), generator=torch.Generator().manual_seed(1))
    for targets in (t, index):
        # eagerly: passes round each in its own way
        arguments = {"alpha": 0.3, "ignore_index": -1, "impl": "eager"}
        value, gradient = value_and_gradient(
            sample_dependent_focal_loss, x, targets, gamma_low=gamma, gamma_high=gamma, **arguments
        )
        expected, expected_gradient = value_and_gradient(
            sigmoid_focal_loss, x, targets, gamma=gamma, **arguments
        )
        assert torch.equal(value, expected)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(("threshold", "side"), [(0.0, "gamma_high"), (1.0, "gamma_low")])
def test_threshold_at_either_end_leaves_one_gamma(threshold, side):
    x, t = logits_and_targets(torch.float32)
    gamma = {"gamma_low": 5.0, "gamma_high": 3.0}[side]
    inside = (x.sigmoid() * t + (1 - x.sigmoid()) * (1 - t)) < 1 - 1e-6  # at p_t = 1 no p_t is below 1
    value = sample_dependent_focal_loss(x, t, threshold=threshold)
    assert_close(value[inside], sigmoid_focal_loss(x, t, gamma=gamma)[inside])


def test_the_value_jumps_at_the_threshold_as_documented():
    x = torch.logit(torch.tensor([0.2 - 1e-5, 0.2 + 1e-5]))
    below, above = sample_dependent_focal_loss(x, torch.ones(2), None).tolist()
    assert below == pytest.approx(0.527, abs=1e-3)
    assert above == pytest.approx(0.824, abs=1e-3)


@pytest.mark.parametrize(("low", "high"), [*GAMMAS, (0.01, torch.tensor(0.5))])
def test_finite_when_saturated(low, high):
    for x in (0.0, 16.0, -16.0, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4, 1e30, -1e30):
        for t in (0.0, 1e-6, 0.5, 1 - 1e-6, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = sample_dependent_focal_loss(leaf, torch.tensor(t), None, low, high)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, t)
            assert gradient.isfinite(), (x, t)
            assert second.isfinite(), (x, t)


def test_first_and_second_derivative():
    x, t = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sample_dependent_focal_loss(x, t), x)
    assert torch.autograd.gradgradcheck(lambda x: sample_dependent_focal_loss(x, t), x)


@pytest.mark.slow  # the quick one is in test_schedule.py
@pytest.mark.parametrize("form", ["dense", "index"])
def test_compiled_is_eager(form):
    x, targets = logits_and_targets(torch.float32, (50, 7))
    if form == "index":
        targets = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for low, high, threshold in ((5.0, 3.0, 0.2), (1.3, torch.tensor(0.5), 0.6)):
        arguments = {"gamma_low": low, "gamma_high": high, "threshold": threshold}
        compiled, eager = (
            value_and_gradient(sample_dependent_focal_loss, x, targets, impl=impl, **arguments)
            for impl in ("compile", "eager")
        )
        assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_errors():
    x, t = torch.zeros(3), torch.ones(3)
    for arguments, message in (
        ({"gamma_low": -1}, "gamma_low is -1"),
        ({"gamma_high": -0.5}, "gamma_high is -0.5"),
        ({"threshold": 1.5}, r"threshold is 1.5; it must be in \[0, 1\]"),
        ({"alpha": 2.0}, "alpha is 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_dependent_focal_loss(x, t, **arguments)
