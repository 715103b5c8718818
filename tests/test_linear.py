"""The head and its loss in one: equal to `loss(F.linear(...))`, without its memory."""

import itertools
import shutil
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.testing import assert_close

import detloss.linear
from detloss.linear import LinearLoss, block_rows, linear_loss
from detloss.losses import (
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)
from helpers.linear_cases import (
    ELEMENTWISE,
    EPS,
    LOSSES,
    C,
    K,
    N,
    Watch,
    check_equal,
    head,
    labels,
    run,
    unfused,
)

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True, params=[7])
def rows(request, monkeypatch) -> int:
    """Blocks of seven rows, the last of 40 being shorter, unless a test asks for other sizes."""
    monkeypatch.setattr(detloss.linear, "block_rows", lambda *_: request.param)
    return request.param


# Equal to the unfused computation


@each_loss
@pytest.mark.parametrize("form", ["index", "soft"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 20, 1000], indirect=True)
def test_equals_the_unfused_loss(loss, form, reduction, dtype):
    check_equal(loss, head(dtype), labels(form), reduction=reduction)


@pytest.mark.parametrize("needed", [n for n in itertools.product([False, True], repeat=3) if any(n)])
def test_only_what_requires_grad_gets_a_gradient(needed):
    mine, theirs = (
        run(function, sigmoid_focal_loss, head(), labels(), needed) for function in (linear_loss, unfused)
    )
    for ours, expected in zip(mine, theirs):
        assert (ours is None) == (expected is None)
        if ours is not None:
            assert_close(ours, expected)


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_is_no_less_precise_than_the_unfused_loss(dtype):
    parts = head(dtype, shape=(500,))
    exact = run(unfused, sigmoid_focal_loss, [part.double() for part in parts], labels(shape=(500,)))
    mine, theirs = (
        run(function, sigmoid_focal_loss, parts, labels(shape=(500,))) for function in (linear_loss, unfused)
    )
    for ours, expected, true in zip(mine, theirs, exact):
        error, allowed = ((result.double() - true).norm() for result in (ours, expected))
        assert error <= 4 * allowed + 1e-15 * true.norm()


@settings(max_examples=60)
@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 40), st.booleans(), st.data())
def test_any_size(count, classes, size, bias, data):
    mask = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    index = torch.randint(0, classes + 1, (count,), generator=torch.Generator().manual_seed(0))
    index[torch.tensor(mask, dtype=torch.bool)] = -100
    parts = head(torch.float64, shape=(count,), classes=classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detloss.linear, "block_rows", lambda *_: size)
        for reduction in ("sum", "mean"):
            if bias:
                check_equal(sigmoid_focal_loss, parts, index, reduction=reduction)
            else:
                values = [
                    function(sigmoid_focal_loss, parts[0], parts[1], index, reduction=reduction)
                    for function in (linear_loss, unfused)
                ]
                assert_close(*values)


@each_loss
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_row_one_row_and_nothing_counting(loss, reduction):
    check_equal(loss, head(shape=(0,)), torch.zeros(0, dtype=torch.long), reduction=reduction)
    check_equal(loss, head(shape=(1,)), torch.tensor([2]), reduction=reduction)
    check_equal(loss, head(shape=()), torch.tensor(2), reduction=reduction)
    check_equal(loss, head(shape=(20,)), torch.full((20,), -100), reduction=reduction)
    check_equal(loss, head(classes=1), torch.zeros(N, dtype=torch.long), reduction=reduction)


@pytest.mark.parametrize("loss", ELEMENTWISE)
@pytest.mark.parametrize("form", ["index", "soft"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_several_dimensions_of_rows(loss, form, reduction):
    shape = (2, 4, 5)
    check_equal(loss, head(shape=shape), labels(form, shape), reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_several_dimensions_of_rows_of_a_softmax(reduction):
    # whose own logits are (N, C, ...): the classes go second
    parts, index = head(shape=(2, 20)), labels(shape=(2, 20))
    value = linear_loss(
        softmax_focal_loss, parts[0], parts[1], index, linear_bias=parts[2], reduction=reduction
    )
    assert_close(value, softmax_focal_loss(F.linear(*parts).movedim(-1, 1), index, reduction=reduction))


def test_non_contiguous_inputs_and_targets():
    parts = [part.t().contiguous().t() if part.ndim == 2 else part for part in head()]
    index = torch.stack((labels(), labels(seed=4)), -1)[:, 0]
    assert not any(tensor.is_contiguous() for tensor in (*parts[:2], index))
    check_equal(sigmoid_focal_loss, parts, index)
    check_equal(sigmoid_focal_loss, [part[..., ::2] if part.ndim == 2 else part for part in head()], labels())
    check_equal(sigmoid_focal_loss, [head()[0][:1].expand(N, K), *head()[1:]], labels("soft"))


def test_a_pointwise_convolution():
    features, conv = torch.randn(2, K, 4, 5), nn.Conv2d(K, C, 1)
    index = labels(shape=(2, 4, 5))
    logits = conv(features).movedim(1, -1)
    expected = torch.autograd.grad(
        sigmoid_focal_loss(logits, index, reduction="sum"), list(conv.parameters())
    )
    value = linear_loss(
        sigmoid_focal_loss, features.movedim(1, -1), conv.weight.flatten(1), index, linear_bias=conv.bias
    )
    assert_close(value, sigmoid_focal_loss(logits, index, reduction="sum"))
    for ours, theirs in zip(torch.autograd.grad(value, list(conv.parameters())), expected):
        assert_close(ours, theirs)


# Arguments of the loss


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("form", ["index", "soft"])
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (C,), (1, C), (5, 1), (5, C), (4, 1, 1), (4, 5, 1), (4, 5, C), (2, 1, 1, C), (2, 4, 5, C)],
    ids=str,
)
def test_weights_that_broadcast(shape, form, reduction):
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    parts, targets = head(shape=(2, 4, 5)), labels(form, (2, 4, 5))
    check_equal(sigmoid_focal_loss, parts, targets, reduction=reduction, weight=weight, pos_weight=weight)


@pytest.mark.parametrize("shape", [(N,), (2, 20)], ids=str)
def test_one_weight_and_one_quality_per_row(shape):
    weight, quality = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2))
    parts, index = head(shape=shape), labels(shape=shape)
    check_equal(varifocal_loss, parts, index, reduction="mean", weight=weight, quality=quality)
    check_equal(quality_focal_loss, parts, index, quality=quality, alpha=torch.rand(C), beta=1.5)


@pytest.mark.parametrize("rows", [2, C], indirect=True)
@pytest.mark.parametrize("count", [C, 2 * C, 4 * C])
@pytest.mark.parametrize("form", ["index", "soft"])
def test_as_many_rows_as_classes(count, form):
    # a weight (C,) is one per class, but for C rows of indices; and a block may have as many rows as classes
    parts, targets = head(shape=(count,)), labels(form, (count,))
    if form == "index":
        targets = torch.arange(count) % (C + 1)
    per_class = torch.rand(C, generator=torch.Generator().manual_seed(2))
    for name in ("weight", "pos_weight", "alpha"):
        check_equal(sigmoid_focal_loss, parts, targets, **{name: per_class})
    check_equal(sigmoid_focal_loss, parts, targets, weight=per_class[None])


def test_other_arguments_are_passed_on():
    check_equal(sigmoid_focal_loss, head(), labels(), alpha=None, gamma=torch.tensor(0.5))
    index = labels().where(labels() >= 0, 255)
    check_equal(sigmoid_focal_loss, head(), index, reduction="mean", ignore_index=255)
    check_equal(softmax_focal_loss, head(), index, reduction="mean", ignore_index=255, label_smoothing=0.1)
    check_equal(softmax_focal_loss, head(), labels("index"), alpha=torch.rand(C), gamma=1.0)
    check_equal(F.cross_entropy, head(), labels().clamp(min=0), reduction="mean", label_smoothing=0.1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_any_integer_dtype(dtype):
    check_equal(sigmoid_focal_loss, head(), labels().clamp(min=0).to(dtype), reduction="mean")


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_blocks_go_through_the_fused_pass(reduction):
    check_equal(sigmoid_focal_loss, head(), labels(), reduction=reduction, impl="compile")


def test_uint8_does_not_wrap_the_ignore_index():
    # -100 is 156 modulo 256: with 200 classes that is a class, not a row to leave out
    index = torch.full((N,), 156, dtype=torch.uint8)
    check_equal(sigmoid_focal_loss, head(classes=200), index, reduction="mean")


def squared_error(logits, targets, *, reduction, iou, scale=1.0):
    loss = (scale * (logits.sigmoid() - targets) ** 2).sum(-1) * iou
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_function_of_ones_own(reduction):
    check_equal(
        squared_error, head(), labels("soft"), reduction=reduction, iou=torch.rand(N), scale=torch.rand(C)
    )


def positives_only(logits, targets, *, reduction):
    positive = (targets >= 0) & (targets < C)
    if not positive.any():
        return torch.zeros(())
    return sigmoid_focal_loss(logits[positive], targets[positive], reduction=reduction)


def test_a_function_that_is_constant_on_some_blocks():
    index = labels()
    index[7:14] = C
    check_equal(positives_only, head(), index)


# What it costs


@each_loss
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_all_logits_never_exist(loss, reduction):
    parts, index = head(shape=(300,), classes=64), labels(shape=(300,))
    largest = {}
    for function in (linear_loss, unfused):
        with Watch() as watch:
            run(function, loss, parts, index, reduction=reduction)
        largest[function] = watch.largest
    assert largest[unfused] >= 300 * 64
    assert largest[linear_loss] == 300 * K  # the gradient of the input; 7 rows of logits are 448


@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=3)))
def test_one_product_for_each_thing_asked_for(needed):
    parts = [part.requires_grad_(need) for part, need in zip(head(), needed)]
    with Watch() as watch:
        value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2])
        if any(needed):
            value.backward()
    names = [name for name, _ in watch.operations]
    products = sum(name in ("mm", "addmm", "addmm_", "bmm", "matmul", "linear") for name in names)
    assert products == (1 + needed[0] + needed[1]) * 6  # blocks of 7 rows
    if not any(needed):
        assert not value.requires_grad
        assert "sigmoid_backward" not in names


def test_kept_for_backward():
    kept = []
    parts = [part.requires_grad_() for part in head(shape=(300,), classes=64)]
    index = labels(shape=(300,))
    with saved_tensors_hooks(
        lambda tensor: kept.append(weakref.ref(tensor)) or tensor, lambda tensor: tensor
    ):
        value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], index, linear_bias=parts[2])
    given = {tensor.data_ptr() for tensor in (*parts, index)}
    elements = sum(ref().numel() for ref in kept if ref() is not None and ref().data_ptr() not in given)
    assert elements == sum(part.numel() for part in parts)
    value.backward()


def test_without_gradients_there_is_only_a_value():
    parts = [part.requires_grad_() for part in head()]
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = linear_loss(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2])
        assert not value.requires_grad
        assert_close(
            value, unfused(sigmoid_focal_loss, parts[0], parts[1], labels(), linear_bias=parts[2]).detach()
        )


def test_arguments_are_not_changed():
    parts, targets, weight = head(), labels("soft"), torch.rand(N, C)
    before = [tensor.clone() for tensor in (*parts, targets, weight)]
    run(linear_loss, sigmoid_focal_loss, parts, targets, weight=weight)
    for tensor, copy in zip((*parts, targets, weight), before):
        assert torch.equal(tensor, copy)


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_block_rows(count, classes):
    size = block_rows(count, classes, torch.float32, torch.device("cpu"))
    assert min(count, 256) <= size <= count
    budget = torch.get_num_threads() * 2**21
    if classes and 256 < size < count:
        assert size * classes * 4 <= budget < (size + 1) * classes * 4
    half = block_rows(count, classes, torch.bfloat16, torch.device("cpu"))
    assert half >= size


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": [0.0]}, r"input is a list; it must be a tensor"),
        ({"input": torch.zeros(N, K).long()}, r"input has shape \(40, 6\) and torch\.int64; .*floating"),
        ({"input": torch.tensor(1.0)}, r"input has shape \(\) and torch\.float32; it must be \(\.\.\., K\)"),
        ({"linear_weight": torch.zeros(K, C)}, r"linear_weight has shape \(6, 5\); .* must be \(C, 6\)"),
        ({"linear_weight": torch.zeros(C, K, 1, 1)}, r"linear_weight has shape .*1×1.*weight\.flatten\(1\)"),
        ({"linear_weight": torch.zeros(C, K).double()}, r"linear_weight is torch\.float64"),
        ({"linear_bias": torch.zeros(K)}, r"linear_bias has shape \(6,\); it must be \(5,\)"),
        ({"linear_bias": torch.zeros(C).half()}, r"linear_bias is torch\.float16, input torch\.float32"),
        ({"linear_bias": 0.0}, r"linear_bias is 0\.0; it must be a tensor"),
        ({"targets": torch.zeros(N, device="meta")}, r"targets is on meta, input on cpu; move one"),
        ({"targets": torch.zeros(9).long()}, r"targets have shape \(9,\); .* \(40,\) or .*\(40, 5\)"),
        ({"targets": torch.zeros(N)}, r"targets have shape \(7,\), inputs \(7, 5\)"),
        ({"targets": torch.full((N,), C + 1)}, r"targets\[0\] is 6; it may be classes 0\.\.4"),
        ({"reduction": "average"}, r"reduction is 'average'; it may be one of"),
        ({"weight": torch.zeros(3)}, r"weight has shape \(3,\), which does not broadcast to \(40, 5\)"),
        ({"weight": 2.0}, r"weight is 2\.0; it must be a tensor"),
        ({"gamma": -1.0}, r"gamma is -1\.0; it must be at least 0"),
        ({"loss": squared_error, "targets": torch.zeros(N, C), "iou": torch.zeros(3)}, None),
    ],
)  # fmt: skip
def test_errors(change, message):
    arguments = {"loss": sigmoid_focal_loss, "targets": labels()} | dict(
        zip(["input", "linear_weight"], head())
    )
    with pytest.raises(ValueError if message else RuntimeError, match=message):
        linear_loss(**arguments | change)


def test_the_place_of_an_error_among_all_rows():
    index = labels()
    index[17] = 99
    with pytest.raises(ValueError, match=r"targets\[3\] is 99") as error:
        linear_loss(sigmoid_focal_loss, *head()[:2], index)
    assert error.value.__notes__ == ["linear_loss: this counts rows from row 14 of the input"]


def test_a_loss_that_does_not_reduce():
    def loss(logits, targets, reduction):
        return sigmoid_focal_loss(logits, targets)

    with pytest.raises(ValueError, match=r"loss returned shape \(7, 5\) with reduction='sum'; .* a number"):
        linear_loss(loss, *head()[:2], labels())


# The Module


def test_module_of_a_linear_layer():
    layer = nn.Linear(K, C)
    module = LinearLoss(layer, varifocal_loss, "sum", alpha=0.5)
    assert [name for name, _ in module.named_parameters()] == ["linear.weight", "linear.bias"]
    assert module.linear is layer
    assert "varifocal_loss, reduction=sum, alpha=0.5" in repr(module)
    x, quality = torch.randn(N, K), torch.rand(N)
    module(x, labels(), quality=quality).backward()
    expected = varifocal_loss(layer(x), labels(), quality=quality, reduction="sum", alpha=0.5)
    assert_close(
        [layer.weight.grad, layer.bias.grad], list(torch.autograd.grad(expected, layer.parameters()))
    )
    assert LinearLoss(layer, varifocal_loss).reduction == "mean"


@pytest.mark.parametrize("form", ["index", "soft"])
@pytest.mark.parametrize("bias", [False, True])
def test_module_of_a_pointwise_convolution(form, bias):
    conv, features = nn.Conv2d(K, C, 1, bias=bias), torch.randn(2, K, 4, 5)
    module = LinearLoss(conv, sigmoid_focal_loss)
    targets = labels(form, (2, 4, 5))
    expected = sigmoid_focal_loss(conv(features).movedim(1, -1), targets, reduction="mean")
    value = module(features, targets)
    assert_close(value, expected)
    parameters = list(conv.parameters())
    assert_close(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters))
    assert_close(module(features[0], targets[0]), module(features[:1], targets[:1]))


def test_module_keeps_tensors_and_learns_parameters():
    weight, gamma = torch.rand(C), nn.Parameter(torch.tensor(1.5))
    module = LinearLoss(nn.Linear(K, C), sigmoid_focal_loss, weight=weight, gamma=gamma).double()
    assert set(module.state_dict()) == {"linear.weight", "linear.bias", "gamma"}
    assert module.weight.dtype == torch.float64
    x, index = torch.randn(N, K, dtype=torch.float64), labels()
    module(x, index).backward()
    assert module.gamma.grad.abs() > 0
    assert module.linear.weight.grad is not None
    with pytest.raises(TypeError, match="multiple values for keyword argument 'weight'"):
        module(x, index, weight=weight)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(K, C, 3), nn.Conv2d(K, C, 1, stride=2), nn.Conv2d(K, K, 1, groups=2),
     nn.Conv2d(K, C, 1, padding=1), nn.Conv1d(K, C, 1), torch.zeros(C, K)],
)  # fmt: skip
def test_module_of_no_linear_head(layer):
    with pytest.raises(ValueError, match=r"it must be an nn\.Linear or a plain 1×1 nn\.Conv2d"):
        LinearLoss(layer, sigmoid_focal_loss)


def test_module_refuses_what_no_loss_takes():
    for wrong in ({"impl": "fast"}, {"reduction": "avg"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* it may be one of"):
            LinearLoss(nn.Linear(K, C), sigmoid_focal_loss, **wrong)


def test_module_trains():
    torch.manual_seed(0)
    module = LinearLoss(nn.Linear(K, C), softmax_focal_loss)
    x = torch.randn(200, K)
    index = nn.Linear(K, C)(x).argmax(-1)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = module(x, index)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
