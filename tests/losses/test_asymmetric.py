import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.losses import asymmetric_loss, binary_cross_entropy_with_logits, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, asymmetric, logits_and_targets, value_and_gradient

GAMMAS = [(4.0, 1.0), (0, 0), (0.5, 0.5), (2, 0), (1.5, 3)]  # of negatives, of positives
CLIPS = [0, 0.05, 0.3]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("gammas", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gammas, clip):
    x, t = logits_and_targets(dtype)
    value, gradient = value_and_gradient(asymmetric_loss, x, t, *gammas, clip)
    expected, expected_gradient = value_and_gradient(asymmetric, x.double(), t.double(), *gammas, clip)
    # p - m is a difference: where it is small its rounding shows
    tolerance = TOLERANCE[dtype] | ({"rtol": 1e-5, "atol": 2e-6} if dtype == torch.float32 else {})
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # p = 1/2: positive (1/2) log 2; negative p_m = .45, .45^4 = .04100625, -log .55 = .59783700
    value, gradient = value_and_gradient(asymmetric_loss, torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert_close(value, torch.tensor([math.log(2) / 2, 0.04100625 * 0.59783700]))
    # dp/dx = 1/4: -(log 2 + 1) / 4; 4 .45^3 .597837 / 4 + .04100625 / .55 / 4 = .05447790 + .01863920
    assert_close(gradient, torch.tensor([-(math.log(2) / 2 + 0.5) / 2, 0.0544779 + 0.0186392]))
    # soft labels mix the two
    assert_close(asymmetric_loss(torch.tensor(0.0), torch.tensor(0.25)), value[0] / 4 + value[1] * 0.75)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2.0, 4])
def test_equal_gammas_without_clip_are_focal_loss(gamma):
    x = torch.linspace(-120, 120, 961)
    for t in (0.0, 1.0):
        target = torch.full_like(x, t)
        value, gradient = value_and_gradient(asymmetric_loss, x, target, gamma, gamma, 0)
        expected, expected_gradient = value_and_gradient(sigmoid_focal_loss, x, target, None, gamma)
        assert_close(value, expected, rtol=2e-6, atol=0)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-37)


def test_gammas_zero_without_clip_are_bce_on_any_label():
    x, t = logits_and_targets(torch.float32, scale=30)
    value, gradient = value_and_gradient(asymmetric_loss, x, t, 0, 0, 0)
    expected, expected_gradient = value_and_gradient(binary_cross_entropy_with_logits, x, t)
    assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 4.0, torch.tensor(0.5)])
@pytest.mark.parametrize("clip", [0.05, 0.3, torch.tensor(0.05)])
def test_easy_negatives_are_left_out(clip, gamma):
    # p < m, down to logits whose p is 0
    threshold = math.log(float(clip) / (1 - float(clip)))
    x = threshold - torch.tensor([1e-3, 0.1, 1, 10, 100, 1e4, 1e30])
    value, gradient = value_and_gradient(asymmetric_loss, x, torch.zeros_like(x), gamma, 1.0, clip)
    assert torch.equal(value, torch.zeros_like(x))
    assert torch.equal(gradient, torch.zeros_like(x))
    above, slope = value_and_gradient(
        asymmetric_loss, torch.tensor([threshold + 0.1]), torch.zeros(1), gamma, 1.0, clip
    )
    assert above > 0
    assert slope > 0


def test_hopeless_negatives_have_an_end():
    # p = 1: p_m = .95, .95^4 = .81450625, -log(1 - .95) = -log .05 = 2.99573227
    x = torch.tensor([40.0, 1e4, 1e30])
    value, gradient = value_and_gradient(asymmetric_loss, x, torch.zeros(3))
    assert_close(value, torch.full((3,), 0.81450625 * 2.99573227))
    assert (gradient.abs() < 1e-15).all()
    # without a margin they have none, as in BCE
    value, gradient = value_and_gradient(asymmetric_loss, x, torch.zeros(3), clip=0)
    assert_close(value, x)
    assert_close(gradient, torch.ones(3))


def test_clip_changes_the_negatives_only():
    x, _ = logits_and_targets(torch.float32)
    ones = torch.ones_like(x)
    assert torch.equal(asymmetric_loss(x, ones, clip=0.2), asymmetric_loss(x, ones, clip=0))
    zeros = torch.zeros_like(x)
    assert (asymmetric_loss(x, zeros, 0, clip=0.2) < asymmetric_loss(x, zeros, 0, clip=0)).all()


def test_clip_per_class():
    x, t = logits_and_targets(torch.float32, (8, 3))
    clips = torch.tensor([0.0, 0.05, 0.4])
    columns = [asymmetric_loss(x[:, i], t[:, i], clip=m) for i, m in enumerate(clips.tolist())]
    assert_close(asymmetric_loss(x, t, clip=clips), torch.stack(columns, 1))


@settings(max_examples=200)
@given(
    st.floats(-1e4, 1e4, width=32),
    st.floats(0, 1, width=32),
    st.floats(0, 5),
    st.floats(0, 5),
    st.floats(0, 0.9),
)
def test_between_zero_and_bce(x, t, gamma_neg, gamma_pos, clip):
    x, t = torch.tensor([x]), torch.tensor([t])
    value, gradient = value_and_gradient(asymmetric_loss, x, t, gamma_neg, gamma_pos, clip)
    assert 0 <= value <= binary_cross_entropy_with_logits(x, t) * (1 + 1e-5) + 1e-6
    assert gradient.isfinite()


@pytest.mark.parametrize("clip", [0, 1e-10, 0.05, torch.tensor(0.0), torch.tensor(0.05)])
@pytest.mark.parametrize(
    "gammas", [(4, 1), (0, 0), (0.5, 0.01), (1, 1.5), (torch.tensor(0.5), torch.tensor(0.0))]
)
def test_finite_when_saturated(gammas, clip):
    edge = -2.9444389  # p = .05
    for x in (0.0, edge, 9.39, -9.39, 16.7, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4, 1e30, -1e30):
        for t in (0.0, 1e-6, 0.5, 1.0):
            leaf = torch.tensor(x, requires_grad=True)
            value = asymmetric_loss(leaf, torch.tensor(t), *gammas, clip)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, t)
            assert gradient.isfinite(), (x, t)
            assert second.isfinite(), (x, t)
            assert value >= 0


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("gammas", GAMMAS)
def test_first_and_second_derivative(gammas, clip):
    x, t = logits_and_targets(torch.float64, (8, 3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: asymmetric_loss(x, t, *gammas, clip), x)
    assert torch.autograd.gradgradcheck(lambda x: asymmetric_loss(x, t, *gammas, clip), x)


def test_the_exponents_are_checked_by_name():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"gamma_pos is -1"):
        asymmetric_loss(x, x, gamma_pos=-1)
    with pytest.raises(ValueError, match=r"gamma_neg has shape \(2,\)"):
        asymmetric_loss(x, x, gamma_neg=torch.ones(2))


@pytest.mark.parametrize("form", ["dense", pytest.param("index", marks=pytest.mark.slow)])
def test_compiled_is_eager(form):
    x, targets = logits_and_targets(torch.float32, (50, 7))
    x[0] = torch.tensor([1e4, -1e4, 1e30, -1e30, 100, -100, 0])
    if form == "index":
        targets = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for hyper in ((4.0, 1.0, 0.05), (4.0, 1.0, 0), (1.3, 0.0, 0.2)):
        value, gradient = value_and_gradient(asymmetric_loss, x, targets, *hyper, impl="compile")
        expected, expected_gradient = value_and_gradient(asymmetric_loss, x, targets, *hyper, impl="eager")
        assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
