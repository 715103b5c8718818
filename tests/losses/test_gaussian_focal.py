import math

import pytest
import torch
from torch.testing import assert_close

from detloss.losses import gaussian_focal_loss, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, gaussian_focal, logits_and_targets, value_and_gradient

POWERS = [(2.0, 4.0), (0, 0), (0.5, 1.0), (1.0, 0.5), (3, 2)]


def heat_map(sigma=2.0):
    """A Gaussian on 9 × 9 cells, its peak 1 in the middle."""
    off = torch.arange(-4.0, 5.0)
    return torch.exp(-(off[:, None].square() + off.square()) / (2 * sigma**2))


@pytest.mark.parametrize(("alpha", "gamma"), POWERS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, alpha, gamma):
    x, y = logits_and_targets(dtype)
    value, gradient = value_and_gradient(gaussian_focal_loss, x, y, alpha, gamma)
    expected, expected_gradient = value_and_gradient(gaussian_focal, x.double(), y.double(), alpha, gamma)
    assert (y == 1).any()
    assert ((y > 0) & (y < 1)).any()
    assert_close(value.double(), expected, **TOLERANCE[dtype])
    assert_close(gradient.double(), expected_gradient, **TOLERANCE[dtype])


def test_hand_calculated():
    # x = 0: both logarithms are -log 2 and both powers 1/4; a negative at y = 1/2 weighs (1/2)⁴ besides
    value = gaussian_focal_loss(torch.zeros(3), torch.tensor([1.0, 0.0, 0.5]))
    assert_close(value, torch.tensor([1 / 4, 1 / 4, 1 / 64]) * math.log(2))


def test_labels_and_class_indices_are_focal_loss_without_its_alpha():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) * 4
    index = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(2))
    index[::7] = -100
    for gamma in (2.0, 0.5):
        value, gradient = value_and_gradient(gaussian_focal_loss, x, index, gamma)
        expected, expected_gradient = value_and_gradient(sigmoid_focal_loss, x, index, None, gamma)
        assert_close(value, expected)
        assert_close(gradient, expected_gradient)


def test_only_a_target_of_one_is_a_positive():
    _, gradient = value_and_gradient(gaussian_focal_loss, torch.zeros(9, 9), heat_map())
    assert (gradient < 0).nonzero().tolist() == [[4, 4]]
    pushed_down = gradient.clone()
    pushed_down[4, 4] = 0
    assert pushed_down[0, 0] == pushed_down.max()  # least at the centre, most in the corners
    assert 0 < pushed_down[4, 5] < 1e-3 * pushed_down[0, 0]
    nearly = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    assert gaussian_focal_loss(torch.tensor(-5.0), nearly) < 1e-20


@pytest.mark.parametrize(
    ("alpha", "gamma"), [*POWERS, (torch.tensor(0.5), torch.tensor(0.5)), (torch.tensor(2.0), 4)]
)
def test_finite_when_saturated(alpha, gamma):
    for x in (0.0, 16.6, -16.6, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4, 1e30, -1e30):
        for y in (0.0, 1e-6, 0.3, 1 - 1e-7, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = gaussian_focal_loss(leaf, torch.tensor(y), alpha, gamma)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, y)
            assert gradient.isfinite(), (x, y)
            assert second.isfinite(), (x, y)
            assert value >= 0


def test_keeps_its_digits_where_it_is_tiny():
    # a negative at x = -16: p² and -log(1-p) are e^-32 and e^-16 to first order
    value = gaussian_focal_loss(torch.tensor(-16.0), torch.tensor(0.5))
    assert_close(value, torch.tensor(math.exp(-48) / 16), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("alpha", "gamma"), POWERS)
def test_derivatives(alpha, gamma):
    x = logits_and_targets(torch.float64, (8, 3))[0].requires_grad_()
    y = torch.tensor([1.0, 0.0, 0.6], dtype=torch.double).expand(8, 3)
    assert torch.autograd.gradcheck(lambda x: gaussian_focal_loss(x, y, alpha, gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: gaussian_focal_loss(x, y, alpha, gamma), x)


def test_powers_get_gradients():
    x, y = logits_and_targets(torch.float64, (8, 3))
    powers = [torch.tensor(power, dtype=torch.double, requires_grad=True) for power in (2.0, 4.0)]
    assert torch.autograd.gradcheck(lambda a, c: gaussian_focal_loss(x, y.clamp(0.01, 0.99), a, c), powers)
    gaussian_focal_loss(x, y.round(), *powers, "sum").backward()
    assert all(power.grad.isfinite() for power in powers)


def test_powers_are_numbers_from_zero_on():
    for powers, message in (
        ((None, 4.0), "alpha is None; it must be a number or a 0-dim tensor"),
        ((-1, 4.0), "alpha is -1; it must be at least 0"),
        ((2.0, -1), "gamma is -1; it must be at least 0"),
        ((torch.ones(3), 4.0), r"alpha has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            gaussian_focal_loss(torch.zeros(2, 3), torch.zeros(2, 3), *powers)
    assert gaussian_focal_loss(torch.zeros(2, 3), torch.zeros(2, 3), 3.0).isfinite().all()


@pytest.mark.parametrize("form", ["dense", pytest.param("index", marks=pytest.mark.slow)])
def test_compiled_is_eager(form):
    x, y = logits_and_targets(torch.float32, (50, 7))
    if form == "index":
        y = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for powers in ((2.0, 4.0), (0.7, 1.5)):
        value, gradient = value_and_gradient(gaussian_focal_loss, x, y, *powers, impl="compile")
        expected, expected_gradient = value_and_gradient(gaussian_focal_loss, x, y, *powers, impl="eager")
        assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
