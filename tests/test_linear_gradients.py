"""Gradients of the head and its loss in one: again and again, twice, of what is hidden, in half precision."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import detloss.linear
from detloss.linear import block_rows, linear_loss
from detloss.losses import (
    binary_cross_entropy_with_logits,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from helpers.linear_cases import EPS, LOSSES, C, K, N, Watch, check_equal, head, labels, run, unfused

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True, params=[7])
def rows(request, monkeypatch) -> int:
    """Blocks of seven rows, the last of 40 being shorter, unless a test asks for other sizes."""
    monkeypatch.setattr(detloss.linear, "block_rows", lambda *_: request.param)
    return request.param


def total(logits, targets, *, reduction):
    return logits.sum()


# Backward


def test_a_factor_and_a_graph_that_is_kept():
    factor = torch.tensor(-2.5)
    check_equal(sigmoid_focal_loss, head(), labels(), factor=factor)
    for factors in ([1.0, 1.0], [3.0, -0.5, 1.0], [1.0, 2.0]):
        parts = [part.requires_grad_() for part in head()]
        value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2])
        expected = run(unfused, sigmoid_focal_loss, parts, labels())[1:]
        for i, factor in enumerate(factors):
            found = torch.autograd.grad(value, parts, torch.tensor(factor), retain_graph=i + 1 < len(factors))
            for ours, theirs in zip(found, expected):
                assert_close(ours, theirs * factor)
                ours.zero_()  # what is handed out is the caller's own
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(value, parts)


def test_several_factors_at_once():
    parts = [part.requires_grad_() for part in head()]
    value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2])
    factors = torch.tensor([1.0, -2.0, 0.5])
    expected = run(unfused, sigmoid_focal_loss, parts, labels())[1:]
    for ours, theirs in zip(torch.autograd.grad(value, parts, factors, is_grads_batched=True), expected):
        assert_close(ours, torch.stack([theirs * factor for factor in factors]))


@pytest.mark.parametrize("change", ["input", "weight", "targets", "gamma"])
def test_a_change_in_place_before_backward_is_an_error(change):
    parts = [part.requires_grad_() for part in head()]
    targets, gamma = labels("soft"), torch.tensor(2.0)
    value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], targets, gamma=gamma)
    changed = {"input": parts[0], "weight": parts[1], "targets": targets, "gamma": gamma}[change]
    with torch.no_grad():
        changed.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_first_and_second_derivative(loss, reduction):
    parts = [part.requires_grad_() for part in head(torch.float64, shape=(9,), classes=3)]
    index = torch.tensor([0, 1, 2, -100, 1, 0, 2, 2, 1])

    def value(input, weight, bias):
        return linear_loss(loss, input, weight, index, linear_bias=bias, reduction=reduction)

    assert torch.autograd.gradcheck(value, parts)
    assert torch.autograd.gradgradcheck(value, parts)


def test_second_derivative_of_parts_that_depend_on_each_other():
    x = torch.randn(C, K, dtype=torch.float64, requires_grad=True)
    index = torch.arange(C)

    def value(function, x):
        weight = x.sin()
        return function(sigmoid_focal_loss, x, weight, index, linear_bias=weight.sum(1))

    results = []
    for function in (linear_loss, unfused):
        (first,) = torch.autograd.grad(value(function, x), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((first, second))
    assert_close(results[0], results[1])


def test_second_derivative_then_a_first_one():
    parts = [part.requires_grad_() for part in head()]
    value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2])
    with_graph = torch.autograd.grad(value, parts, create_graph=True)
    plain = torch.autograd.grad(value, parts)
    for ours, theirs in zip(plain, with_graph):
        assert_close(ours, theirs.detach())
        assert theirs.requires_grad


def test_checkpoint():
    parts = [part.requires_grad_() for part in head()]
    value = checkpoint(
        lambda x, w, b: linear_loss(sigmoid_focal_loss, x * 2, w, labels(), linear_bias=b),
        *parts,
        use_reentrant=False,
    )
    expected = unfused(sigmoid_focal_loss, parts[0] * 2, parts[1], labels(), linear_bias=parts[2])
    for ours, theirs in zip(torch.autograd.grad(value, parts), torch.autograd.grad(expected, parts)):
        assert_close(ours, theirs)


# Tensors of the loss that want a gradient


def test_a_learnt_gamma_and_a_learnt_weight():
    results = []
    for function in (linear_loss, unfused):
        parts = [part.requires_grad_() for part in head()]
        gamma = torch.tensor(1.5, requires_grad=True)
        weight = torch.linspace(0.1, 1, N).requires_grad_()
        value = function(sigmoid_focal_loss, parts[0], parts[1], labels(), gamma=gamma, weight=weight)
        results.append(torch.autograd.grad(value, [*parts[:2], gamma, weight]))
    assert_close(results[0], results[1])


def test_a_tensor_that_wants_a_gradient_and_is_hidden_is_an_error():
    hidden = torch.tensor(2.0, requires_grad=True)

    def loss(logits, targets, reduction):
        return sigmoid_focal_loss(logits, targets, gamma=hidden * 2, reduction=reduction)

    parts = [part.requires_grad_() for part in head()]
    with pytest.raises(
        ValueError, match=r"loss uses a tensor of shape \(\) that requires grad.*as a keyword"
    ):
        linear_loss(loss, parts[0], parts[1], labels())
    with torch.no_grad():
        assert_close(
            linear_loss(loss, parts[0], parts[1], labels()),
            unfused(sigmoid_focal_loss, parts[0], parts[1], labels(), gamma=4.0),
        )


def test_targets_that_want_a_gradient_are_the_losss_error():
    with pytest.raises(ValueError, match=r"targets requires grad"):
        linear_loss(sigmoid_focal_loss, *head()[:2], labels("soft").requires_grad_())


# Transforms


def test_transforms_of_torch_func():
    parts = head(torch.float64)
    index = labels()

    def value(function, x, w, b):
        return function(sigmoid_focal_loss, x, w, index, linear_bias=b)

    def each(function):
        gradients = torch.func.grad(lambda *parts: value(function, *parts), argnums=(0, 1, 2))(*parts)
        many = torch.func.vmap(lambda w: value(function, parts[0], w, parts[2]))(
            torch.stack([parts[1], parts[1] * 2])
        )
        tangent = torch.func.jvp(lambda w: value(function, parts[0], w, parts[2]), (parts[1],), (parts[1],))
        curvature = torch.func.hessian(lambda b: value(function, parts[0], parts[1], b))(parts[2])
        return *gradients, many, *tangent, curvature

    assert_close(each(linear_loss), each(unfused))


def test_forward_mode():
    parts = head(torch.float64)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(parts[1].requires_grad_(), torch.ones_like(parts[1]))
        tangents = [
            forward_ad.unpack_dual(function(sigmoid_focal_loss, parts[0], dual, labels())).tangent
            for function in (linear_loss, unfused)
        ]
    assert tangents[0].abs() > 0
    assert_close(*tangents)


@pytest.mark.parametrize("form", ["index", "soft"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_in_a_callers_compiled_graph(reduction, form):
    parts, targets = [part.requires_grad_() for part in head()], labels(form)

    def step(function):
        value = function(sigmoid_focal_loss, *parts[:2], targets, linear_bias=parts[2], reduction=reduction)
        return value, torch.autograd.grad(value.sum(), parts)

    compiled = torch.compile(linear_loss, backend="eager", fullgraph=True)
    assert_close(step(compiled), step(unfused))


# Half precision


@each_loss
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64, None], ids=str)
def test_autocast(loss, reduction, dtype, stored):
    for form in ("index", "soft"):
        results = []
        for function in (linear_loss, unfused):
            with torch.autocast("cpu", dtype):
                results.append(run(function, loss, head(stored or dtype), labels(form), reduction=reduction))
        for ours, expected in zip(*results):
            eps = EPS[torch.float64 if stored == torch.float64 else dtype]
            assert_close(ours, expected, rtol=0, atol=eps * expected.abs().max().item())


def test_autocast_takes_dtypes_together():
    parts = head()
    mixed = [parts[0].bfloat16(), parts[1], parts[2].half()]
    with torch.autocast("cpu", torch.bfloat16):
        check_equal(sigmoid_focal_loss, mixed, labels())
    with pytest.raises(
        ValueError, match=r"linear_weight is torch\.float32, input torch\.bfloat16; convert one"
    ):
        linear_loss(sigmoid_focal_loss, mixed[0], mixed[1], labels())


def test_autocast_converts_the_weight_once():
    parts = [part.requires_grad_() for part in head(classes=9)]
    with Watch() as watch, torch.autocast("cpu", torch.bfloat16):
        linear_loss(sigmoid_focal_loss, *parts[:2], labels(), linear_bias=parts[2])
    assert watch.operations.count(("_to_copy", 9 * K)) == 1
    assert watch.operations.count(("_to_copy", 7 * K)) == 5  # the features of every full block


def test_second_derivative_under_autocast():
    parts = [part.requires_grad_() for part in head()]
    results = []
    for function in (linear_loss, unfused):
        with torch.autocast("cpu", torch.bfloat16):
            value = function(sigmoid_focal_loss, *parts[:2], labels(), linear_bias=parts[2])
        first = torch.autograd.grad(value, parts, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in first), parts))
    assert_close(results[0], results[1])


@pytest.mark.parametrize("autocast", [False, True])
def test_float16_keeps_small_gradients_for_a_loss_scaler(autocast):
    # Gradients of 1e-9 each are 0 in float16, but not 2^16 times them, which is what reaches an unfused loss.
    parts, targets = head(), torch.full((N,), C)
    arguments = {"weight": torch.full((N,), 1e-7), "factor": torch.tensor(2.0**16)}
    exact = run(unfused, sigmoid_focal_loss, [part.half().double() for part in parts], targets, **arguments)
    if not autocast:
        parts = [part.half() for part in parts]
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        found = run(linear_loss, sigmoid_focal_loss, parts, targets, **arguments)
    for ours, true in zip(found[1:], exact[1:]):
        assert_close(ours.double(), true, rtol=0, atol=3e-3 * true.abs().max().item())


@pytest.mark.parametrize("rows", [301], indirect=True)
def test_bfloat16_blocks_are_summed_in_float32(rows):
    # 301 is no bfloat16, and 7 times what it rounds to, 300, rounds to 2096 instead of 2112
    input, bias = torch.zeros(7 * 301, K).bfloat16(), torch.zeros(C).bfloat16().requires_grad_()
    linear_loss(
        total, input, torch.zeros(C, K).bfloat16(), labels(shape=(7 * 301,)), linear_bias=bias
    ).backward()
    assert_close(bias.grad, torch.full((C,), 7 * 301).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1000], indirect=True)
def test_float16_sums_beyond_its_range(rows):
    # 1000 rows of gradient 1/2 times 1000: the weight's gradient is 5e5 before the factor makes it small
    input, weight = torch.full((1000, K), 1000.0).half(), torch.zeros(C, K).half().requires_grad_()
    value = linear_loss(binary_cross_entropy_with_logits, input, weight, torch.full((1000,), C))
    value.backward(torch.tensor(1e-3))
    assert_close(weight.grad, torch.full((C, K), 500.0).half())


def test_float16_infinities_reach_the_scaler():
    parts = [part.half().requires_grad_() for part in head()]
    value = linear_loss(sigmoid_focal_loss, *parts[:2], labels(), weight=torch.full((N,), float("inf")))
    value.backward()
    assert not parts[1].grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_on_a_gpu(dtype, reduction):
    parts, index = [part.cuda() for part in head(dtype)], labels().cuda()
    check_equal(sigmoid_focal_loss, parts, index, reduction=reduction)
    size = block_rows(10**9, 80, dtype, parts[0].device)
    assert 256 < size * 80 * dtype.itemsize <= torch.cuda.get_device_properties(0).total_memory // 128
