"""What every elementwise loss shares: both target forms, weights, reductions, dtypes, transforms, errors."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.func import grad, vmap
from torch.testing import assert_close

from detloss._core.private import CAN_FUSE
from detloss.losses import (
    asymmetric_loss,
    binary_cross_entropy_with_logits,
    gaussian_focal_loss,
    iou_aware_bce_loss,
    matchability_aware_loss,
    poly_focal_loss,
    quality_focal_loss,
    sample_dependent_focal_loss,
    sigmoid_focal_loss,
    varifocal_loss,
)
from helpers.definitions import TOLERANCE, logits_and_targets, value_and_gradient

LOSSES = {
    "bce": binary_cross_entropy_with_logits,
    "focal": sigmoid_focal_loss,
    "quality_focal": quality_focal_loss,
    "varifocal": varifocal_loss,
    "poly_focal": poly_focal_loss,
    "asymmetric": asymmetric_loss,
    "mal": matchability_aware_loss,
    "flsd": sample_dependent_focal_loss,
    "ia_bce": iou_aware_bce_loss,
    "gaussian_focal": gaussian_focal_loss,
}
WITH_QUALITY = [quality_focal_loss, varifocal_loss, matchability_aware_loss, iou_aware_bce_loss]
EXPONENT = {
    sigmoid_focal_loss: "gamma",
    quality_focal_loss: "beta",
    varifocal_loss: "gamma",
    poly_focal_loss: "gamma",
    asymmetric_loss: "gamma_neg",
    matchability_aware_loss: "gamma",
    sample_dependent_focal_loss: "gamma_high",
    iou_aware_bce_loss: "gamma",
    gaussian_focal_loss: "gamma",
}
WITH_BALANCE = [
    binary_cross_entropy_with_logits,
    sigmoid_focal_loss,
    quality_focal_loss,
    poly_focal_loss,
    sample_dependent_focal_loss,
]

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)

INDEX = torch.tensor([[0, 3, 1], [2, -100, 3]])  # three classes: 3 is background, -100 left out
ONE_HOT = torch.tensor([[[1, 0, 0], [0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]]).float()
COUNTED = (INDEX != -100).float().unsqueeze(-1)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(3)) * 3


# Two forms of targets


@each_loss
def test_indices_equal_one_hot_targets(loss, logits):
    value, gradient = value_and_gradient(loss, logits, INDEX)
    dense, dense_gradient = value_and_gradient(loss, logits, ONE_HOT)
    assert_close(value, dense * COUNTED)
    assert_close(gradient, dense_gradient * COUNTED)
    assert (value[INDEX != -100].sum(-1) > 0).all()  # asymmetric loss leaves out easy negatives


@each_loss
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_any_integer_dtype(loss, logits, dtype):
    index = torch.tensor([[0, 3, 1], [2, 0, 3]])
    assert_close(loss(logits, index.to(dtype)), loss(logits, index))


@each_loss
def test_uint8_does_not_wrap_the_ignore_index(loss):
    # -100 is 156 modulo 256: with 200 classes that is a class, not a row to leave out.
    logits = torch.zeros(1, 200)
    assert (loss(logits, torch.tensor([156], dtype=torch.uint8)) > 0).all()


@each_loss
def test_ignore_index_is_chosen_freely(loss, logits):
    expected = loss(logits, INDEX)
    for chosen in (-1, 255):
        assert_close(loss(logits, INDEX.where(INDEX != -100, chosen), ignore_index=chosen), expected)


@each_loss
@pytest.mark.parametrize("impl", ["eager", "compile"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_ignored_row_may_hold_anything(loss, impl, bad):
    """Padding is often left as it came: it adds nothing to the value, nor 0 × nan to the gradient."""
    if impl == "compile" and not CAN_FUSE:
        pytest.skip("needs the fused pass")
    logits = torch.tensor([[0.5, -1.0], [bad, 2.0], [1.5, bad]], requires_grad=True)
    clean = torch.tensor([[0.5, -1.0]], requires_grad=True)
    value = loss(logits, torch.tensor([1, -100, -100]), reduction="mean", impl=impl)
    expected = loss(clean, torch.tensor([1]), reduction="mean", impl="eager")
    assert_close(value, expected)
    value.backward()
    expected.backward()
    assert_close(logits.grad, torch.cat([clean.grad, torch.zeros(2, 2)]))


@pytest.mark.parametrize("loss", WITH_QUALITY)
def test_quality_is_the_label_of_the_class(loss, logits):
    quality = torch.tensor([[0.3, 0.9, 1.0], [0.5, 0.2, 0.0]])
    assert_close(
        loss(logits, INDEX, quality=quality),
        loss(logits, ONE_HOT * quality.unsqueeze(-1)) * COUNTED,
    )


@pytest.mark.parametrize("loss", WITH_QUALITY)
def test_no_quality_is_quality_one(loss, logits):
    assert_close(loss(logits, INDEX, quality=torch.ones(2, 3)), loss(logits, INDEX))


# Weights


@each_loss
def test_weight_per_row_and_per_element(loss, logits):
    rows = torch.tensor([[1.0, 0.0, 2.0], [0.5, 3.0, 1.0]])
    value = loss(logits, INDEX)
    assert_close(loss(logits, INDEX, weight=rows), value * rows.unsqueeze(-1))
    assert_close(loss(logits, INDEX, weight=rows.unsqueeze(-1)), value * rows.unsqueeze(-1))
    full = torch.rand(2, 3, 3)
    assert_close(loss(logits, ONE_HOT, weight=full), loss(logits, ONE_HOT) * full)
    classes = torch.tensor([1.0, 2.0, 3.0])
    assert_close(loss(logits, INDEX, weight=classes), value * classes)
    assert_close(loss(logits, INDEX, weight=torch.tensor(2.0)), value * 2)


@each_loss
def test_a_weight_that_fits_the_rows_is_one_per_row(loss):
    logits, index, weight = torch.randn(3, 3), torch.tensor([0, 1, 3]), torch.tensor([1.0, 2.0, 3.0])
    assert_close(loss(logits, index, weight=weight), loss(logits, index) * weight[:, None])
    assert_close(loss(logits, index, weight=weight[None]), loss(logits, index) * weight)


@pytest.mark.parametrize("loss", WITH_BALANCE)
def test_alpha(loss, logits):
    plain = loss(logits, ONE_HOT, alpha=None)
    assert_close(loss(logits, ONE_HOT, alpha=-1), plain)
    assert_close(
        loss(logits, ONE_HOT, alpha=0.001), plain * torch.where(ONE_HOT > 0, 0.001, 0.999), rtol=1e-6, atol=0
    )
    assert_close(loss(logits, ONE_HOT, alpha=torch.tensor(0.25)), loss(logits, ONE_HOT, alpha=0.25))
    for extreme in (0, 1):
        assert_close(loss(logits, ONE_HOT, alpha=extreme), plain * ONE_HOT.eq(extreme))
    per_class = torch.tensor([0.1, 0.5, 0.9])
    assert_close(
        loss(logits, INDEX, alpha=per_class),
        plain * COUNTED * torch.where(ONE_HOT > 0, per_class, 1 - per_class),
    )
    soft = torch.full_like(logits, 0.3)
    assert_close(loss(logits, soft, alpha=0.25), loss(logits, soft, alpha=None) * (0.25 * 0.3 + 0.75 * 0.7))


@pytest.mark.parametrize("loss", WITH_BALANCE)
def test_weight_and_alpha_get_gradients(loss, logits):
    weight, alpha = torch.ones(3, requires_grad=True), torch.full((3,), 0.5, requires_grad=True)
    loss(logits, INDEX, alpha=alpha, weight=weight).sum().backward()
    assert_close(weight.grad, loss(logits, INDEX, alpha=0.5).sum((0, 1)))
    plain = loss(logits, INDEX, alpha=None)
    assert_close(alpha.grad, torch.where(ONE_HOT > 0, plain, -plain).sum((0, 1)))


# Reductions


@each_loss
def test_reductions(loss, logits):
    value = loss(logits, INDEX)
    assert_close(loss(logits, INDEX, reduction="sum"), value.sum())
    assert_close(loss(logits, INDEX, reduction="mean"), value.sum() / 15)  # 6 rows of 3, one row left out
    assert_close(loss(logits, ONE_HOT, reduction="mean"), loss(logits, ONE_HOT).mean())
    weighted = loss(logits, INDEX, reduction="mean", weight=torch.full((2, 3), 2.0))
    assert_close(weighted, value.sum() * 2 / 15)


@each_loss
def test_nothing_counting_gives_zero_and_a_zero_gradient(loss):
    logits = torch.randn(4, 3, requires_grad=True)
    value = loss(logits, torch.full((4,), -100), reduction="mean")
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


@each_loss
@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (0, 0), (2, 0, 3)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_empty_inputs_give_zero_and_a_gradient(loss, shape, reduction):
    targets = [torch.zeros(shape)] + ([torch.zeros(shape[:-1], dtype=torch.long)] if len(shape) > 1 else [])
    for target in targets:
        logits = torch.zeros(shape, requires_grad=True)
        value = loss(logits, target, reduction=reduction)
        value.sum().backward()
        assert value.sum().item() == 0
        assert value.shape == (shape if reduction == "none" else ())
        assert logits.grad.shape == shape


@each_loss
@pytest.mark.parametrize("targets", [ONE_HOT, INDEX], ids=["dense", "index"])
def test_gradient_under_a_non_uniform_grad_output(loss, logits, targets):
    _, gradient = value_and_gradient(loss, logits, targets)
    output_gradient = torch.randn(2, 3, 3)
    leaf = logits.clone().requires_grad_()
    loss(leaf, targets).backward(output_gradient)
    assert_close(leaf.grad, gradient * output_gradient)


# Shapes, memory formats, dtypes


@each_loss
def test_scalar_and_one_dimensional_inputs(loss):
    assert_close(
        loss(torch.tensor(0.7), torch.tensor(1.0)), loss(torch.tensor([0.7]), torch.tensor([1.0]))[0]
    )
    assert_close(
        loss(torch.tensor([0.7, -1.0]), torch.tensor(1)),
        loss(torch.tensor([[0.7, -1.0]]), torch.tensor([1]))[0],
    )


@each_loss
def test_non_contiguous_inputs(loss, logits):
    expected, expected_gradient = value_and_gradient(loss, logits, INDEX)
    leaf = logits.permute(2, 0, 1).contiguous().requires_grad_()
    value = loss(leaf.permute(1, 2, 0), INDEX.t().contiguous().t())
    value.sum().backward()
    assert_close(value, expected)
    assert_close(leaf.grad.permute(1, 2, 0), expected_gradient)
    assert_close(loss(logits.mT, ONE_HOT.mT), loss(logits, ONE_HOT).mT)
    assert_close(loss(logits[:, ::2], INDEX[:, ::2]), expected[:, ::2])


@each_loss
def test_arguments_are_not_changed(loss, logits):
    weight = torch.rand(2, 3, 3)
    for targets in (ONE_HOT.clone(), INDEX.clone()):
        before = [tensor.clone() for tensor in (logits, targets, weight)]
        value_and_gradient(loss, logits, targets, weight=weight)
        for tensor, copy in zip((logits, targets, weight), before):
            assert torch.equal(tensor, copy)


@each_loss
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes_of_results(loss, dtype):
    logits = torch.zeros(5, 3, dtype=dtype, requires_grad=True)
    reduced = torch.float64 if dtype == torch.float64 else torch.float32
    for targets in (torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)):
        assert loss(logits, targets).dtype == dtype
        assert loss(logits, targets, reduction="sum").dtype == reduced
        mean = loss(logits, targets, reduction="mean")
        assert mean.dtype == reduced
        assert torch.autograd.grad(mean, logits)[0].dtype == dtype


@each_loss
@pytest.mark.parametrize("impl", ["eager", pytest.param("compile", marks=pytest.mark.slow)])
def test_a_sum_beyond_the_range_of_fp16(loss, impl):
    logits = torch.full((1000, 100), 10.0, dtype=torch.float16, requires_grad=True)
    value = loss(logits, torch.zeros(1000, 100), reduction="sum", impl=impl)
    value.backward()
    assert value > 65504
    assert value.isfinite()
    assert_close(logits.grad[0, 0].float(), logits.grad.float().mean())


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32(loss, dtype):
    logits, targets = logits_and_targets(dtype)
    with torch.autocast("cpu", dtype):
        value = loss(logits, targets)
    assert value.dtype == torch.float32
    assert_close(value, loss(logits.float(), targets.float()))


@each_loss
def test_float8_and_float64_meet(loss):
    logits = torch.tensor([[-2.0, 0.5, 3.0]])
    assert_close(
        loss(logits.to(torch.float8_e4m3fn), torch.tensor([1])).float(),
        loss(logits, torch.tensor([1])),
        rtol=0.07,
        atol=0.01,
    )
    assert (
        loss(logits.double(), torch.ones(1, 3)).dtype == torch.float64
    )  # targets and weights follow the inputs
    assert loss(logits, torch.ones(1, 3).double(), weight=torch.ones(3).double()).dtype == torch.float32


@each_loss
@settings(max_examples=60)
@given(data=st.data())
def test_any_shape_and_value(loss, data):
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    count = torch.Size(shape).numel()
    number = st.floats(-1e4, 1e4, width=32)
    logits = torch.tensor(data.draw(st.lists(number, min_size=count, max_size=count))).reshape(shape)
    index = torch.tensor(
        data.draw(
            st.lists(
                st.integers(0, shape[-1]),
                min_size=count // max(shape[-1], 1),
                max_size=count // max(shape[-1], 1),
            )
        ),
        dtype=torch.long,
    )
    if shape[-1]:
        dense = torch.nn.functional.one_hot(index, shape[-1] + 1)[..., :-1].reshape(shape).float()
        # 3, not -1: (2, 4, 4, 4) may be channels-first
        more = {"class_dim": 3} if len(shape) == 4 else {}
        value, gradient = value_and_gradient(loss, logits, index.reshape(shape[:-1]), **more)
        assert_close(value, loss(logits, dense))
    else:
        value, gradient = value_and_gradient(loss, logits, torch.zeros(shape))
    assert value.shape == shape
    assert value.isfinite().all()
    assert (value >= -1e-25).all()  # the two terms of poly focal cancel up to rounding
    assert gradient.isfinite().all()


# Transforms


@each_loss
@pytest.mark.parametrize("targets", [ONE_HOT, INDEX], ids=["dense", "index"])
def test_compiles_without_a_graph_break(loss, logits, targets):
    weight = torch.rand(2, 3, 3)

    def step(leaf):
        return loss(leaf, targets, reduction="mean", weight=weight)

    torch._dynamo.reset()  # one `step` for all losses: it would run into the limit of recompilations
    leaf = logits.clone().requires_grad_()
    value = torch.compile(step, fullgraph=True, backend="aot_eager")(leaf)
    value.backward()
    expected, gradient = value_and_gradient(step, logits)
    assert_close(value.detach(), expected)
    assert_close(leaf.grad, gradient)


@pytest.mark.skipif(not CAN_FUSE, reason="torch before 2.11 does not trace the check")
@each_loss
def test_a_wrong_index_is_an_error_when_compiled_too(loss, logits):
    torch.compiler.reset()  # one lambda, compiled anew for each loss: more than eight times is an error
    compiled = torch.compile(lambda x, t: loss(x, t), fullgraph=True, backend="aot_eager")
    assert_close(compiled(logits, INDEX), loss(logits, INDEX))
    with pytest.raises(RuntimeError, match=r"other than classes 0\.\.2, 3 \(background\) and -100"):
        compiled(logits, INDEX.where(INDEX != 2, 4))
    per_row = torch.compile(vmap(lambda x, t: loss(x, t)), fullgraph=True, backend="aot_eager")
    assert_close(per_row(logits, INDEX), loss(logits, INDEX))


@pytest.mark.parametrize(("loss", "name"), EXPONENT.items())
def test_a_tensor_exponent_changes_without_recompiling(loss, name, logits):
    torch.compiler.reset()  # one lambda, compiled anew for each loss: more than eight times is an error
    counter = CompileCounter()
    compiled = torch.compile(
        lambda value: loss(logits, ONE_HOT, **{name: value}), fullgraph=True, backend=counter
    )
    for exponent in (0.0, 0.5, 2.0):
        assert_close(compiled(torch.tensor(exponent)), loss(logits, ONE_HOT, **{name: exponent}))
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="Inductor needs a C++ compiler")
@each_loss
def test_inductor_keeps_value_and_gradient(loss):
    torch.compiler.reset()  # one lambda, compiled anew for each loss: more than eight times is an error
    logits, targets = logits_and_targets(torch.float32, (300, 7), scale=20)
    compiled = torch.compile(lambda x: loss(x, targets), fullgraph=True)
    value, gradient = value_and_gradient(compiled, logits)
    expected, expected_gradient = value_and_gradient(loss, logits, targets)
    assert_close(value, expected, rtol=1e-5, atol=1e-7)
    assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


@each_loss
def test_vmap(loss, logits):
    assert_close(vmap(lambda x, t: loss(x, t))(logits, INDEX), loss(logits, INDEX))
    assert_close(vmap(lambda x, t: loss(x, t))(logits, ONE_HOT), loss(logits, ONE_HOT))
    per_sample = vmap(grad(lambda x, t: loss(x, t, reduction="sum")))(logits, ONE_HOT)
    assert_close(per_sample, value_and_gradient(loss, logits, ONE_HOT)[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_loss
def test_no_synchronisation_on_a_gpu(loss, logits):
    weight, inputs = torch.rand(2, 3, 3).cuda(), logits.cuda().requires_grad_()
    for targets in (ONE_HOT.cuda(), INDEX.cuda()):
        torch.cuda.set_sync_debug_mode("error")
        try:
            value = loss(inputs, targets, reduction="mean", weight=weight)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert_close(value.cpu(), loss(logits, targets.cpu(), reduction="mean", weight=weight.cpu()))


# Errors

ROWS = torch.tensor([0, 1, 2, 3])


@each_loss
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 1, 7, 3])}, r"targets\[2\] is 7; .* 0\.\.2, 3 \(background\) or -100"),
        ({"targets": torch.tensor([0, -1, 7, 3])}, r"targets\[1\] is -1;"),
        ({"targets": torch.tensor([0, 1, -100, 3]), "ignore_index": 255}, r"targets\[2\] is -100;.*255"),
        ({"targets": torch.zeros(4)}, r"targets have shape \(4,\), inputs \(4, 3\)"),
        ({"targets": torch.zeros(4, 1)}, r"targets have shape \(4, 1\), inputs \(4, 3\)"),
        ({"targets": torch.zeros(3)}, r"soft labels need the shape of the inputs"),
        ({"targets": torch.zeros(4, 3, dtype=torch.long)}, r"need shape \(4,\).*targets\.float\(\)"),
        ({"targets": torch.zeros(1, dtype=torch.long)}, r"integer targets have shape \(1,\)"),
        ({"targets": torch.zeros(4, dtype=torch.bool)}, r"targets is bool; pass targets\.float\(\)"),
        ({"targets": torch.full((4, 3), 255.0)}, r"holds values from 255 to 255; it must be in \[0, 1\]"),
        ({"targets": torch.full((4, 3), -1.0)}, r"must be in \[0, 1\]"),
        ({"targets": torch.full((4, 3), float("nan"))}, r"targets holds values from nan"),
        ({"targets": torch.zeros(4, 3, requires_grad=True)}, r"targets requires grad.*targets\.detach\(\)"),
        ({"inputs": torch.zeros(4, 3, dtype=torch.long)}, r"inputs are torch\.int64; they must"),
        ({"reduction": "average"}, r"reduction is 'average'; it may be one of 'none', 'mean', 'sum'"),
        ({"weight": torch.zeros(2, 3)}, r"weight has shape \(2, 3\), which does not broadcast to \(4, 3\)"),
        ({"weight": torch.zeros(2, 4, 3)}, r"weight has shape \(2, 4, 3\)"),
        ({"targets": torch.zeros(4, 3), "weight": torch.zeros(4)}, r"weight has shape \(4,\)"),
        ({"inputs": torch.tensor(1.0), "targets": torch.tensor(1)}, r"integer targets have shape \(\)"),
        ({"inputs": [0.0]}, r"inputs is a list; it must be a tensor"),
        ({"targets": [0, 1, 2, 3]}, r"targets is a list; it must be a tensor"),
        ({"weight": 2.0}, r"weight is 2\.0; it must be a tensor"),
    ],
)  # fmt: skip
def test_errors(loss, change, message):
    arguments = {"inputs": torch.zeros(4, 3), "targets": ROWS} | change
    with pytest.raises(ValueError, match=message) as error:
        loss(**arguments)
    assert "\n" not in str(error.value)


@each_loss
def test_the_place_of_a_wrong_index_in_several_dimensions(loss):
    index = torch.zeros(2, 3, dtype=torch.long)
    index[1, 2] = 9
    with pytest.raises(ValueError, match=r"targets\[1, 2\] is 9;"):
        loss(torch.zeros(2, 3, 4), index)


@each_loss
@pytest.mark.parametrize("exponent", [0, 0.01, 0.5, 1, 1.5, 2, 5, torch.tensor(1.5)])
def test_rounding_of_soft_targets_is_no_error(loss, exponent):
    logits = torch.tensor([50.0, 10.0, 3.0, 0.0, -3.0, -10.0, -50.0])
    name = EXPONENT.get(loss)
    hyper = {name: exponent} if name else {}
    for value in (1 + 1e-6, -1e-6):
        result, gradient = value_and_gradient(loss, logits, torch.full((7,), value), **hyper)
        expected, expected_gradient = value_and_gradient(
            loss, logits, torch.full((7,), float(round(value))), **hyper
        )
        # the labels are apart by 1e-6, and nothing is divided by it
        assert_close(result, expected, rtol=1e-4, atol=1e-4)
        assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


@each_loss
@pytest.mark.parametrize("value", [1.002, -0.002])
def test_more_than_rounding_is_an_error(loss, value):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        loss(torch.zeros(3), torch.full((3,), value))


@pytest.mark.parametrize("loss", WITH_QUALITY)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": torch.zeros(4, 3)}, r"quality has shape \(4, 3\); it must be \(4,\), one value per row"),
        ({"quality": torch.ones(4, dtype=torch.bool)}, r"quality is bool; pass quality\.float\(\)"),
        ({"quality": 0.5}, r"quality is 0\.5; it must be a tensor"),
        ({"quality": torch.full((4,), 2.0)}, r"quality holds values from 2 to 2; it must be in \[0, 1\]"),
        ({"quality": torch.zeros(4, requires_grad=True)}, r"quality requires grad.*quality\.detach\(\)"),
        ({"quality": torch.zeros(4), "targets": torch.zeros(4, 3)}, r"quality is for class indices"),
    ],
)
def test_errors_about_quality(loss, change, message):
    with pytest.raises(ValueError, match=message):
        loss(**{"inputs": torch.zeros(4, 3), "targets": ROWS} | change)


@pytest.mark.parametrize("loss", [binary_cross_entropy_with_logits, sigmoid_focal_loss])
def test_pos_weight_may_be_a_number(loss, logits):
    assert_close(
        loss(logits, INDEX, pos_weight=2.0), loss(logits, INDEX, pos_weight=torch.tensor([2.0, 2.0, 2.0]))
    )


@pytest.mark.parametrize("loss", WITH_BALANCE)
@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (1.5, r"alpha is 1\.5; it must be in \[0, 1\]"),
        (float("nan"), r"alpha is nan"),
        (torch.ones(4), r"alpha has shape \(4,\); it must be a number, or \(3,\), one per class"),
        (torch.ones(1, 3), r"alpha has shape \(1, 3\)"),
        (torch.tensor([0.5, 1.5, 0.2]), r"alpha holds values from 0\.2 to 1\.5; .*in \[0, 1\]"),
        (torch.tensor([-1.0, 0.5, 0.2]), r"alpha holds values from -1 to 0\.5; .*in \[0, 1\]"),
        (torch.tensor(-1.0), r"alpha is -1\.0; it must be in \[0, 1\] .*negative number .*; a tensor cannot"),
        (torch.tensor([0.5, float("nan"), 0.2]), r"alpha holds values from nan"),
    ],
)
def test_errors_about_alpha(loss, alpha, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(4, 3), ROWS, alpha=alpha)


@pytest.mark.parametrize(("loss", "name"), EXPONENT.items())
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "is -1.0; it must be at least 0"),
        (float("nan"), "is nan"),
        (torch.ones(3), r"has shape \(3,\); it must be"),
        (torch.tensor(-0.5), "is -0.5; it must be at least 0"),
        (None, "is None; it must be a number"),
        ("2", "is '2'; it must be a number"),
    ],
)
def test_errors_about_exponents(loss, name, value, message):
    with pytest.raises(ValueError, match=name + " " + message):
        loss(torch.zeros(4, 3), ROWS, **{name: value})
