import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.testing import assert_close

from detloss.losses import DistributionFocalLoss, distribution_focal_loss, distribution_integral
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


class TestBins:
    """Bins at other positions than 0 to n."""

    POSITIONS = torch.tensor([-4.0, -1.0, -0.25, 0.0, 0.5, 3.0, 3.5, 9.0])

    def by_hand(self, x, y):
        rows = []
        for row, target in zip(x.log_softmax(-1), y.clamp(-4, 9)):
            low = min(int((target >= self.POSITIONS).sum()) - 1, 6)
            left, right = self.POSITIONS[low], self.POSITIONS[low + 1]
            part = (target - left) / (right - left)
            rows.append(-((1 - part) * row[low] + part * row[low + 1]))
        return torch.stack(rows)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("impl", ["eager", "compile"])
    def test_definition(self, dtype, impl):
        generator = torch.Generator().manual_seed(0)
        y = torch.cat((self.POSITIONS, torch.rand(40, generator=generator) * 16 - 5))
        x = (torch.randn(48, 8, generator=generator) * 3).to(dtype)
        bins = self.POSITIONS.to(dtype)
        found = value_and_gradient(distribution_focal_loss, x, y, bins=bins, impl=impl)
        expected = value_and_gradient(lambda x: self.by_hand(x, y.to(dtype)), x)
        assert_close(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("impl", ["eager", "compile"])
    def test_the_usual_positions_change_nothing(self, impl):
        x, usual = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8.0)
        for bins in (usual, usual.long(), usual.bfloat16()):
            found = value_and_gradient(distribution_focal_loss, x, TARGETS, bins=bins, impl=impl)
            assert_close(found, value_and_gradient(distribution_focal_loss, x, TARGETS))
            assert_close(distribution_integral(x, bins=bins), distribution_integral(x))

    def test_smallest_where_the_integral_gives_the_target_back(self):
        for y in (-9.0, -4.0, -0.6, 0.0, 2.9, 3.2, 8.99, 9.0, 30.0):
            inside = min(max(y, -4.0), 9.0)
            low = min(int((inside >= self.POSITIONS).sum()) - 1, 6)
            left, right = self.POSITIONS[low].item(), self.POSITIONS[low + 1].item()
            shares = torch.full((8,), 1e-12, dtype=torch.double)
            shares[low], shares[low + 1] = (
                (right - inside + 1e-12) / (right - left),
                (inside - left + 1e-12) / (right - left),
            )
            bins = self.POSITIONS.double()
            _, gradient = value_and_gradient(
                distribution_focal_loss, shares.log(), torch.tensor(y, dtype=torch.double), bins=bins
            )
            assert gradient.abs().max() < 1e-9
            assert distribution_integral(shares.log(), bins=bins) == pytest.approx(inside, abs=1e-8)

    def test_positions_may_be_learnt(self):
        x = torch.randn(6, 8, dtype=torch.double)
        bins = self.POSITIONS.double().requires_grad_()
        y = torch.tensor([-3.0, -0.5, 0.2, 1.0, 3.3, 8.0], dtype=torch.double)
        assert torch.autograd.gradcheck(lambda bins: distribution_focal_loss(x, y, bins=bins), bins)
        assert torch.autograd.gradcheck(lambda bins: distribution_integral(x, bins=bins), bins)
        distribution_focal_loss(x, y, "sum", bins=bins).backward()  # "auto" gives it a gradient too
        assert bins.grad.abs().sum() > 0

    def test_a_module_keeps_them(self):
        loss = DistributionFocalLoss(bins=self.POSITIONS)
        x, y = torch.randn(6, 8), torch.zeros(6)
        assert_close(loss(x, y), distribution_focal_loss(x, y, "mean", bins=self.POSITIONS))
        assert dict(loss.double().named_buffers())["bins"].dtype == torch.float64

    def test_compile_and_vmap(self):
        x, y = torch.randn(6, 8), TARGETS
        compiled = torch.compile(
            lambda x, bins: distribution_focal_loss(x, y, "mean", bins=bins),
            fullgraph=True,
            backend="aot_eager",
        )
        expected = distribution_focal_loss(x, y, "mean", bins=self.POSITIONS)
        assert_close(compiled(x, self.POSITIONS), expected)
        per_row = vmap(lambda x, y: distribution_focal_loss(x, y, bins=self.POSITIONS))(x, y)
        assert_close(per_row.mean(), expected)

    @pytest.mark.parametrize(
        ("bins", "message"),
        [
            ([0.0, 1.0], "bins is a list; it must be a tensor"),
            (torch.arange(7.0), r"bins has shape \(7,\); it must be \(8,\)"),
            (torch.arange(8.0)[None], r"bins has shape \(1, 8\); it must be \(8,\)"),
            (
                torch.tensor([0.0, 1, 2, 2, 3, 4, 5, 6]),
                "bins has 2 before 2; each number must be finite and above",
            ),
            (torch.tensor([0.0, 1, 2, 1, 3, 4, 5, 6]), "bins has 2 before 1"),
            (torch.tensor([0.0, 1, 2, math.nan, 3, 4, 5, 6]), "bins has a number that is not finite"),
            (torch.tensor([-math.inf, 1, 2, 3, 4, 5, 6, 7]), "bins has a number that is not finite"),
        ],
    )
    def test_errors(self, bins, message):
        for call in (
            lambda: distribution_focal_loss(torch.zeros(6, 8), torch.zeros(6), bins=bins),
            lambda: distribution_integral(torch.zeros(6, 8), bins=bins),
        ):
            with pytest.raises(ValueError, match=message):
                call()


@pytest.mark.clients
def test_bins_of_d_fine_in_transformers():
    d_fine = pytest.importorskip("transformers.loss.loss_d_fine")
    scale, up, n = 4.0, torch.tensor([0.5]), 32
    bins = d_fine.weighting_function(n, up, scale)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, n + 1, generator=generator) * 2, torch.randn(200, generator=generator) * 3
    index, right, left = d_fine.translate_gt(y, n, scale, up)
    of_loss = d_fine.DFineLoss.unimodal_distribution_focal_loss

    def theirs(x):
        return of_loss(None, x, index, right, left, reduction="none")

    found = value_and_gradient(distribution_focal_loss, x, y, bins=bins)
    assert_close(found, value_and_gradient(theirs, x), rtol=1e-4, atol=1e-5)
    assert (y.abs() > bins[-1]).any()
    modeling = pytest.importorskip("transformers.models.d_fine.modeling_d_fine")
    config = type("Config", (), {"max_num_bins": n})
    boxes = modeling.DFineIntegral(config)(x.view(50, 1, -1).unflatten(-1, (4, -1)).flatten(1, 2), bins)
    assert_close(distribution_integral(x, bins=bins), boxes.flatten())
