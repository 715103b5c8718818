import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.testing import assert_close

from detloss.losses import distribution_focal_loss, distribution_integral
from helpers.definitions import TOLERANCE, value_and_gradient


def definition(x, y):
    """Eq. 6 for every row: (i+1-y) to bin i, (y-i) to bin i+1."""
    log_p = torch.log(torch.exp(x) / torch.exp(x).sum(-1, keepdim=True))
    rows = []
    for row, target in zip(log_p, y):
        low = min(math.floor(target), len(row) - 2)
        rows.append(-((low + 1 - target) * row[low] + (target - low) * row[low + 1]))
    return torch.stack(rows)


TARGETS = torch.tensor([0.0, 0.25, 1.0, 2.75, 6.5, 7.0])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype):
    x = (torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    value, gradient = value_and_gradient(distribution_focal_loss, x, TARGETS)
    expected, expected_gradient = value_and_gradient(definition, x.double(), TARGETS.double())
    assert value.dtype == gradient.dtype == dtype
    tolerance = TOLERANCE[dtype] | {"atol": 1e-6}
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # Equal logits over four bins: log 4, wherever the target is.
    assert_close(
        distribution_focal_loss(torch.zeros(3, 4), torch.tensor([0.0, 1.3, 3.0])),
        torch.full((3,), math.log(4)),
    )
    # p = (1/2, 1/4, 1/4), y = 1/4: 3/4 log 2 + 1/4 log 4.
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    assert_close(distribution_focal_loss(logits, torch.tensor(0.25)), torch.tensor(1.25 * math.log(2)))
    assert_close(distribution_integral(logits), torch.tensor(0.75))


@settings(max_examples=100)
@given(y=st.floats(0, 15, width=32), bins=st.integers(2, 16))
def test_smallest_where_the_integral_gives_the_target_back(y, bins):
    y = torch.tensor(min(y, bins - 1.0), dtype=torch.double)
    low = min(int(y), bins - 2)
    shares = torch.full((bins,), 1e-12, dtype=torch.double)
    shares[low], shares[low + 1] = (low + 1 - y).clamp(min=1e-12), (y - low).clamp(min=1e-12)
    x = torch.log(shares)
    value, gradient = value_and_gradient(distribution_focal_loss, x, y)
    assert gradient.abs().max() < 1e-9
    assert_close(distribution_integral(x), y, rtol=0, atol=1e-8)
    for _ in range(3):
        assert distribution_focal_loss(x + torch.randn(bins), y) >= value - 1e-9


def test_targets_are_clamped_and_left_alone():
    x, y = torch.randn(5, 4), torch.tensor([-3.0, 0.0, 3.0, 3.5, 1e6])
    before = y.clone()
    value = distribution_focal_loss(x, y)
    assert_close(value, distribution_focal_loss(x, torch.tensor([0.0, 0.0, 3.0, 3.0, 3.0])))
    assert_close(value[:2], -x[:2].log_softmax(-1)[:, 0])
    assert_close(value[2:], -x[2:].log_softmax(-1)[:, 3])
    assert torch.equal(y, before)


def test_reductions_and_weight():
    x, y = torch.randn(2, 3, 4, 8), torch.rand(2, 3, 4) * 7
    value = distribution_focal_loss(x, y)
    assert value.shape == (2, 3, 4)
    assert_close(distribution_focal_loss(x, y, "sum"), value.sum())
    assert_close(distribution_focal_loss(x, y, "mean"), value.mean())
    weight = torch.rand(2, 3, 1)
    assert_close(distribution_focal_loss(x, y, weight=weight), value * weight)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_empty(reduction):
    x = torch.zeros(0, 4, 8, requires_grad=True)
    value = distribution_focal_loss(x, torch.zeros(0, 4), reduction)
    value.sum().backward()
    assert value.sum().item() == 0
    assert x.grad.shape == (0, 4, 8)


def test_finite_when_saturated():
    x = torch.tensor([[1e4, -1e4, 0.0], [-100.0, 100.0, 0.0]])
    for y in (0.0, 0.5, 2.0):
        value, gradient = value_and_gradient(distribution_focal_loss, x, torch.full((2,), y))
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert distribution_integral(x).isfinite().all()


def test_derivatives():
    x = torch.randn(6, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, TARGETS), x)
    assert torch.autograd.gradgradcheck(lambda x: distribution_focal_loss(x, TARGETS), x)
    assert torch.autograd.gradcheck(distribution_integral, x)
    assert torch.autograd.gradgradcheck(distribution_integral, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_integral_of_half_precision_logits_is_float32(dtype):
    x = torch.randn(5, 16).to(dtype).requires_grad_()
    value = distribution_integral(x)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == dtype
    assert_close(value, distribution_integral(x.float()))


def test_compile_and_vmap():
    x, y = torch.randn(6, 8), TARGETS
    compiled = torch.compile(
        lambda x: distribution_focal_loss(x, y, "mean"), fullgraph=True, backend="aot_eager"
    )
    ours, plain = value_and_gradient(compiled, x), value_and_gradient(distribution_focal_loss, x, y, "mean")
    assert_close(ours[0], plain[0])
    assert_close(ours[1], plain[1])
    assert_close(vmap(grad(distribution_focal_loss))(x, y), plain[1] * 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(5)}, r"targets have shape \(5,\); for inputs \(6, 8\) they must be \(6,\)"),
        ({"targets": torch.zeros(6, 1)}, r"targets have shape \(6, 1\)"),
        ({"targets": torch.zeros(6, requires_grad=True)}, r"targets requires grad"),
        ({"inputs": torch.zeros(6, 1)}, r"the last dimension holds n\+1 ≥ 2 bins"),
        ({"inputs": torch.tensor(1.0)}, r"the last dimension holds n\+1 ≥ 2 bins"),
        ({"targets": torch.zeros(6, dtype=torch.bool)}, r"targets is bool; pass targets\.float\(\)"),
        ({"targets": 1.5}, r"targets is 1\.5; it must be a tensor"),
        ({"weight": 2.0}, r"weight is 2\.0; it must be a tensor"),
        ({"reduction": "avg"}, r"reduction is 'avg'"),
        ({"weight": torch.zeros(5)}, r"weight has shape \(5,\), which does not broadcast to \(6,\)"),
    ],
)
def test_errors(change, message):
    arguments = {"inputs": torch.zeros(6, 8), "targets": torch.zeros(6)} | change
    with pytest.raises(ValueError, match=message):
        distribution_focal_loss(**arguments)


def test_errors_of_the_integral():
    for inputs in (torch.tensor(1.0), torch.zeros(6, 1), torch.zeros(6, 0)):
        with pytest.raises(ValueError, match=r"the last dimension holds n\+1 ≥ 2 bins"):
            distribution_integral(inputs)
    with pytest.raises(ValueError, match=r"inputs are torch\.int64; they must"):
        distribution_integral(torch.zeros(6, 8, dtype=torch.long))
