"""The fused pass: equal to the eager formula, compiled once, right under every use of autograd."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.func import grad, vmap
from torch.testing import assert_close

from detloss._core import compiler, fused
from detloss._core.private import CAN_FUSE
from detloss.formula import elementwise_loss
from detloss.losses import (
    binary_cross_entropy_with_logits,
    complete_box_iou_loss,
    distribution_focal_loss,
    generalized_box_iou_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)

pytestmark = pytest.mark.skipif(not CAN_FUSE, reason="this torch has no fused pass")
ROWS, CLASSES = 37, 19  # no multiple of a vector's width
RANDOM = torch.Generator().manual_seed(0)


def logits(*shape: int, scale: float = 4.0) -> Tensor:
    return torch.randn(shape, generator=RANDOM) * scale


def boxes(count: int) -> Tensor:
    corner, size = torch.rand(2, count, 2, generator=RANDOM)
    return torch.cat((corner, corner + size), 1) * 20


INDEX = torch.randint(0, CLASSES + 1, (ROWS,), generator=RANDOM)
INDEX[3] = -100
HARD = (torch.rand(ROWS, CLASSES, generator=RANDOM) < 0.1).float()
SOFT = torch.rand(ROWS, CLASSES, generator=RANDOM).round(decimals=3)
QUALITY = torch.rand(ROWS, generator=RANDOM)
X = logits(ROWS, CLASSES)
PROBABILITIES = logits(ROWS, CLASSES).softmax(1)
BOXES = boxes(ROWS)
NEAR = BOXES + torch.randn(ROWS, 4, generator=RANDOM)

# name: loss, inputs, other arguments; each is a pass of its own to compile
CASES = {
    "focal dense": (sigmoid_focal_loss, X, (HARD,), {}),
    "focal index": (sigmoid_focal_loss, X, (INDEX,), {}),
    "quality index": (quality_focal_loss, X, (INDEX,), {"quality": QUALITY}),
    "varifocal soft": (varifocal_loss, X, (SOFT * HARD,), {}),
    "softmax index": (softmax_focal_loss, X, (INDEX.clamp(max=CLASSES - 1),), {}),
    "distribution": (distribution_focal_loss, X, (torch.rand(ROWS, generator=RANDOM) * 20 - 1,), {}),
    "ciou": (complete_box_iou_loss, NEAR, (BOXES,), {}),
}
MORE = {
    "bce dense": (binary_cross_entropy_with_logits, X, (SOFT,), {}),
    "bce alpha pos_weight weight": (
        binary_cross_entropy_with_logits,
        X,
        (INDEX,),
        {"alpha": torch.rand(CLASSES), "pos_weight": torch.rand(CLASSES) * 3, "weight": torch.rand(ROWS)},
    ),
    "focal alpha off": (sigmoid_focal_loss, X, (SOFT,), {"alpha": None, "weight": torch.rand(ROWS, CLASSES)}),
    "focal fraction": (sigmoid_focal_loss, X, (SOFT,), {"gamma": 0.7, "weight": torch.rand(CLASSES)}),
    "focal per class": (sigmoid_focal_loss, X, (INDEX,), {"alpha": torch.rand(CLASSES), "gamma": 1.5}),
    "focal one class": (sigmoid_focal_loss, X[:, :1], (INDEX.clamp(max=1),), {}),
    "focal 3d": (
        sigmoid_focal_loss,
        logits(2, 5, 3),
        (torch.tensor([[0, 1, 2, 3, -100]] * 2),),
        {"weight": torch.rand(2, 1, 1)},
    ),
    "quality dense": (quality_focal_loss, X, (SOFT,), {"alpha": 0.3}),
    "varifocal index": (varifocal_loss, X, (INDEX,), {"quality": QUALITY, "alpha": None}),
    "softmax smoothed": (softmax_focal_loss, X, (INDEX.clamp(max=CLASSES - 1),), {"label_smoothing": 0.1}),
    "softmax soft": (softmax_focal_loss, X, (PROBABILITIES,), {"alpha": torch.rand(CLASSES), "gamma": 1.5}),
    "softmax image": (
        softmax_focal_loss,
        logits(2, 5, 3, 4),
        (torch.randint(0, 5, (2, 3, 4)),),
        {"alpha": torch.rand(5)},
    ),
    "distribution weighed": (
        distribution_focal_loss,
        logits(3, 4, 9),
        (torch.rand(3, 4) * 8,),
        {"weight": torch.rand(4)},
    ),
    "giou cxcywh": (
        generalized_box_iou_loss,
        NEAR.abs(),
        (BOXES,),
        {"fmt": "cxcywh", "weight": torch.rand(ROWS)},
    ),
}


def value_and_gradient(loss, inputs, arguments, options, dtype, output_gradient=None, **more):
    leaf = inputs.to(dtype, copy=True).requires_grad_()
    value = loss(leaf, *arguments, **options, **more)
    value.backward(torch.ones_like(value) if output_gradient is None else output_gradient.to(value.dtype))
    return value.detach(), leaf.grad


def widened(arguments):
    return [a.double() if a.is_floating_point() else a for a in arguments]


def check_case(case, dtype, reduction):
    """Value and gradient as eager's, and no further than 4 times as far from float64."""
    loss, inputs, arguments, options = case
    inputs = inputs.to(dtype)
    shape = loss(inputs, *arguments, **options, reduction=reduction).shape
    output_gradient = torch.rand(shape, generator=RANDOM) + 0.5
    more = {"reduction": reduction, "output_gradient": output_gradient}
    compiled = value_and_gradient(loss, inputs, arguments, options, dtype, impl="compile", **more)
    eager = value_and_gradient(loss, inputs, arguments, options, dtype, impl="eager", **more)
    exact = value_and_gradient(loss, inputs, widened(arguments), options, torch.float64, impl="eager", **more)
    for ours, plain, truth in zip(compiled, eager, exact):
        assert ours.dtype == plain.dtype
        assert ours.shape == plain.shape
        error, allowed = (ours - truth).abs().max(), (plain - truth).abs().max()
        # float64 has no truth beyond eager, which rounds as well: the bound is on two roundings
        resolution = (64 if dtype == torch.float64 else 1) * torch.finfo(dtype).eps * truth.abs().max()
        assert error <= 4 * allowed + resolution


@pytest.mark.parametrize("name", ["focal index", "softmax index", "ciou"])
def test_equals_the_eager_formula_for_each_element(name):
    check_case(CASES[name], torch.float32, "none")


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "reduction"),
    [(name, dtype, reduction) for name in CASES for dtype in DTYPES for reduction in ("none", "sum", "mean")]
    + [(name, dtype, "mean") for name in MORE for dtype in (torch.float32, torch.bfloat16)],
    ids=str,
)
def test_equals_the_eager_formula_everywhere(name, dtype, reduction):
    check_case((CASES | MORE)[name], dtype, reduction)


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [binary_cross_entropy_with_logits, sigmoid_focal_loss, quality_focal_loss, varifocal_loss]
)
@pytest.mark.parametrize("scale", [1, 30, 1e4, 1e30])
@pytest.mark.parametrize("exponent", [0, 0.3, 1, 2, 5])
def test_finite_and_exact_at_saturated_logits(loss, scale, exponent):
    x = torch.linspace(-1, 1, 41).repeat(3, 1) * scale
    t = torch.tensor([0.0, 1.0, 0.3])[:, None].expand(3, 41).contiguous()
    name = {sigmoid_focal_loss: "gamma", varifocal_loss: "gamma", quality_focal_loss: "beta"}.get(loss)
    options = {name: exponent} if name else {}
    ours = value_and_gradient(loss, x, (t,), options, torch.float32, impl="compile")
    plain = value_and_gradient(loss, x, (t,), options, torch.float32, impl="eager")
    exact = value_and_gradient(loss, x, (t.double(),), options, torch.float64, impl="eager")
    # what values grow with, and gradients do not
    for one, other, truth, size in zip(ours, plain, exact, (1 + x.abs(), torch.ones_like(x))):
        assert one.isfinite().all()
        assert_close(one[:2], other[:2], rtol=3e-6, atol=1e-12)
        # a soft label's terms cancel at p = t, in either way of running them
        error, allowed = (((each - truth).abs() / size)[2].max() for each in (one, other))
        assert error <= 4 * allowed + torch.finfo(torch.float32).eps * (truth / size)[2].abs().max()


# Compiled once


@pytest.mark.parametrize("targets", ["dense", "index"])
def test_no_size_and_no_number_compiles_again(targets, builds):
    def call(rows, classes, alpha, gamma, **more):
        x = logits(rows, classes).requires_grad_()
        index = torch.randint(0, classes + 1, (rows,))
        t = index if targets == "index" else (torch.rand(rows, classes) < 0.2).float()
        value = sigmoid_focal_loss(x, t, alpha, gamma, "mean", impl="compile", **more)
        expected = sigmoid_focal_loss(x, t, alpha, gamma, "mean", impl="eager", **more)
        assert_close(value, expected, rtol=1e-5, atol=1e-7)
        assert_close(*(torch.autograd.grad(v, x)[0] for v in (value, expected)), rtol=1e-5, atol=1e-7)

    call(50, 7, 0.25, 2.0)
    assert len(builds) == 2  # the default exponent and any other, together
    for step in range(30):
        gamma = torch.tensor(0.1 * step) if step % 3 == 0 else 2.0 if step % 3 == 1 else 0.5 + 0.2 * step
        call(1 + 7 * step, 2 + step % 5, 0.02 * step, gamma, ignore_index=-step)
    call(8192, 80, 0.5, 0)
    assert len(builds) == 2


def test_auto_compiles_large_calls_and_then_takes_the_pass_for_small_ones(builds):
    small, large = logits(4, 3).requires_grad_(), logits(200, 200).requires_grad_()
    sigmoid_focal_loss(small, torch.zeros(4, 3))
    assert not builds
    sigmoid_focal_loss(large, torch.zeros(200, 200))
    assert builds
    compiled = len(builds)
    value = sigmoid_focal_loss(small, torch.zeros(4, 3))
    assert "Fused" in value.grad_fn.name()
    assert "Fused" not in sigmoid_focal_loss(small, torch.tensor([0, 1, 2, 3])).grad_fn.name()
    assert "Fused" not in sigmoid_focal_loss(large, torch.zeros(200, 200), impl="eager").grad_fn.name()
    assert len(builds) == compiled


# Memory


@pytest.mark.parametrize("name", ["focal dense", "focal index", "quality index", "varifocal soft"])
def test_nothing_but_the_gradient_is_kept(name):
    loss, inputs, arguments, options = CASES[name]
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(inputs.clone().requires_grad_(), *arguments, reduction="sum", impl="compile", **options)
    assert sum(kept.values()) == inputs.nbytes


def test_without_a_gradient_only_the_value_is_computed():
    x = X.clone().requires_grad_()
    expected = sigmoid_focal_loss(x, HARD, reduction="sum", impl="eager").detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = sigmoid_focal_loss(x, HARD, reduction="sum", impl="compile")
        assert not value.requires_grad
        assert_close(value.clone(), expected)
    assert_close(sigmoid_focal_loss(X, HARD, reduction="sum", impl="compile"), expected)


# Every use of autograd

focal = partial(sigmoid_focal_loss, targets=HARD, impl="compile")
eager_focal = partial(sigmoid_focal_loss, targets=HARD, impl="eager")


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_twice_through_a_kept_graph(reduction):
    x = X.clone().requires_grad_()
    value = focal(x, reduction=reduction)
    output_gradient = torch.rand(value.shape) + 0.5
    expected = torch.autograd.grad(eager_focal(x, reduction=reduction), x, output_gradient)[0]
    for _ in range(2):
        found = torch.autograd.grad(value, x, output_gradient, retain_graph=True)[0]
        assert_close(found, expected)
        found.zero_()  # what a caller does with its gradient is its own business
    ones = torch.ones_like(value)
    torch.autograd.grad(value, x, ones, retain_graph=True)[0].zero_()
    assert_close(torch.autograd.grad(value, x, output_gradient)[0], expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, x, output_gradient)


@pytest.mark.parametrize("name", ["focal index", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES)])
def test_second_derivatives(name):
    loss, inputs, arguments, options = CASES[name]

    def curvature(impl):
        x = inputs.clone().requires_grad_()
        scaled = x * 1.1  # what the loss gets is no leaf, and nobody keeps it
        value = loss(scaled, *arguments, reduction="sum", impl=impl, **options)
        (slope,) = torch.autograd.grad(value * 2, x, create_graph=True)
        return slope.detach(), torch.autograd.grad(slope.square().sum(), x)[0]

    for ours, plain in zip(curvature("compile"), curvature("eager")):
        assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_second_derivative_of_what_was_changed_in_place_is_an_error():
    x = X.clone().requires_grad_()
    shifted = x + 1
    value = focal(shifted, reduction="sum")
    with torch.no_grad():
        shifted.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(value, x, create_graph=True)


@pytest.mark.parametrize("name", ["targets", "weight", "gamma"])
def test_second_derivative_after_a_constant_was_changed_in_place_is_an_error(name):
    constants = {"targets": HARD.clone(), "weight": torch.ones(CLASSES), "gamma": torch.tensor(2.0)}
    x = X.clone().requires_grad_()
    value = sigmoid_focal_loss(x, **constants, reduction="sum", impl="compile")
    constants[name].fill_(1)
    torch.autograd.grad(value, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(value, x, create_graph=True)


@pytest.mark.parametrize(
    "read", [lambda x: math.log(x.shape[-1]), lambda x: 2.0 if x.shape[-1] > 30 else 1.0]
)
def test_a_formula_that_reads_a_size_is_not_compiled(read):
    loss = elementwise_loss(lambda logits, targets: (logits - targets) / read(logits))
    x = logits(400, 100)
    with pytest.warns(UserWarning, match="depends on the number of rows or classes.*runs eagerly"):
        value = loss(x, torch.zeros(400, 100), reduction="sum")
    assert_close(value, loss(x, torch.zeros(400, 100), reduction="sum", impl="eager"))


def test_under_anomaly_detection(builds):
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        value_and_gradient(varifocal_loss, X, (SOFT,), {}, torch.float32, impl="compile")
    assert builds


def test_numbers_of_numpy_are_numbers(builds):
    for alpha in (0.1, 0.2, 0.3):
        focal(X, alpha=np.float64(alpha), gamma=np.float32(2 + alpha), reduction="sum")
    assert len(builds) == 2


def test_what_a_pass_cannot_take_runs_eagerly():
    loss = elementwise_loss(lambda logits, targets, scales=(1.0, 2.0): logits * scales[1] - targets)
    assert_close(loss(X, HARD, [1.0, 3.0]), X * 3 - HARD)
    big = torch.ones(400, 100)
    assert_close(loss(big, big, [1.0, 3.0]), big * 2)
    with pytest.raises(ValueError, match=r"scales is \[1.0, 3.0\]; for impl=\"compile\" it must be a number"):
        loss(X, HARD, [1.0, 3.0], impl="compile")


CONSTANTS = [
    (sigmoid_focal_loss, X, {"targets": HARD}),
    (sigmoid_focal_loss, X, {"targets": INDEX, "weight": torch.ones(ROWS), "alpha": torch.ones(CLASSES)}),
    (quality_focal_loss, X, {"targets": INDEX, "quality": QUALITY}),
    (softmax_focal_loss, X, {"targets": INDEX % CLASSES, "alpha": torch.ones(CLASSES)}),
    (distribution_focal_loss, X, {"targets": QUALITY, "weight": QUALITY}),
    (generalized_box_iou_loss, NEAR, {"boxes2": BOXES, "weight": QUALITY}),
]


@pytest.mark.parametrize("impl", ["auto", "compile", "eager"])
@pytest.mark.parametrize(("loss", "inputs", "others"), CONSTANTS)
def test_a_tensor_on_another_device_is_named_and_nothing_else(
    loss, inputs, others, impl, builds, monkeypatch
):
    monkeypatch.setattr(fused, "AUTO_ELEMENTS", {"cpu": 0})
    monkeypatch.setattr(compiler, "broken", {})
    for name, values in others.items():
        moved = others | {name: values.to("meta")}
        with pytest.raises(ValueError, match=f"{name} is on meta, (inputs|boxes1) on cpu; move one of them"):
            loss(inputs, **moved, impl=impl)
    with pytest.raises(ValueError, match="device meta hold no values"):
        loss(inputs.to("meta"), **{name: values.to("meta") for name, values in others.items()}, impl=impl)
    assert not builds
    assert not compiler.broken


def test_what_fails_for_one_form_of_arguments_leaves_the_others_alone(monkeypatch):
    monkeypatch.setattr(fused, "AUTO_ELEMENTS", {"cpu": 0})

    @elementwise_loss
    def scaled(logits, targets, by="two"):
        return (logits - targets) * (len(logits) if by == "rows" else 2.0)

    x = X.clone().requires_grad_()
    with pytest.warns(UserWarning, match="scaled could not be compiled"):
        assert_close(scaled(x, HARD, by="rows"), (x - HARD) * ROWS)
    assert "Fused" in scaled(x, HARD).grad_fn.name()
    assert "Fused" in focal(x).grad_fn.name()


def test_a_complex_weight_is_refused():
    with pytest.raises(ValueError, match=r"weight is torch.complex64; it must be real"):
        focal(X, weight=torch.ones(ROWS, CLASSES, dtype=torch.complex64))


@pytest.mark.parametrize("eps", [torch.tensor([1e-7] * 3), torch.ones(ROWS), "small", -1e-7, math.inf])
@pytest.mark.parametrize("impl", ["eager", "compile"])
def test_eps_is_a_number(eps, impl):
    with pytest.raises(ValueError, match=r"eps (is|has shape) .*; it must be (a number|at least 0)"):
        complete_box_iou_loss(NEAR, BOXES, eps=eps, impl=impl)


@pytest.mark.parametrize("name", ["eps", "label_smoothing"])
def test_a_number_in_a_tensor_is_read_anew_in_every_call(name):
    """It may be changed in place: nothing may be remembered of it by its identity."""
    values = torch.tensor(0.25)
    loss, arguments = complete_box_iou_loss, (NEAR, BOXES)
    if name == "label_smoothing":
        loss, arguments = softmax_focal_loss, (X, INDEX % CLASSES)
    for _ in range(2):
        eager, compiled = (loss(*arguments, **{name: values}, impl=impl) for impl in ("eager", "compile"))
        assert_close(compiled, eager)
        values += 0.5


def test_batched_output_gradients():
    x = X.clone().requires_grad_()
    directions = torch.rand(3, ROWS, CLASSES)
    found = [
        torch.autograd.grad(loss(x), x, directions, is_grads_batched=True)[0] for loss in (focal, eager_focal)
    ]
    assert_close(*found)


def test_gradients_add_up_in_a_larger_graph():
    x = X.clone().requires_grad_()
    (focal(x * 2, reduction="sum") + focal(x, reduction="mean") * 3).backward()
    twin = X.clone().requires_grad_()
    (eager_focal(twin * 2, reduction="sum") + eager_focal(twin, reduction="mean") * 3).backward()
    assert_close(x.grad, twin.grad)


def test_gradients_reach_both_boxes_or_one():
    loss = partial(complete_box_iou_loss, reduction="sum")
    for first, second in ((True, True), (False, True)):
        found = []
        for impl in ("compile", "eager"):
            pair = [NEAR.clone().requires_grad_(first), BOXES.clone().requires_grad_(second)]
            loss(*pair, impl=impl).backward()
            found.append([one.grad for one in pair])
        for ours, plain in zip(*found):
            assert (ours is None) == (plain is None)
            assert ours is None or torch.allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_fp16_gradients_survive_loss_scaling():
    # p^3 of an easy negative is far below the range of fp16 until the scale of a GradScaler lifts it
    x = torch.full((64, 8), -5.0, dtype=torch.float16)
    scale = torch.tensor(2.0**20)
    options = ((torch.zeros(64, 8),), {}, torch.float16)
    ours = value_and_gradient(sigmoid_focal_loss, x, *options, scale, reduction="mean", impl="compile")[1]
    plain = value_and_gradient(sigmoid_focal_loss, x, *options, scale, reduction="mean", impl="eager")[1]
    assert (plain > 0).all()
    assert_close(ours, plain)


def test_non_contiguous_arguments():
    x = logits(CLASSES, ROWS).t().requires_grad_()
    assert not x.is_contiguous()
    weight = torch.rand(CLASSES, ROWS).t()
    for t in (HARD, SOFT.t().contiguous().t(), INDEX.repeat_interleave(2)[::2]):
        found = []
        for impl in ("compile", "eager"):
            value = sigmoid_focal_loss(x, t, weight=weight, reduction="sum", impl=impl)
            found.append((value, torch.autograd.grad(value, x)[0]))
        for ours, plain in zip(*found):
            assert_close(ours, plain)


def test_arguments_are_not_changed():
    before = [tensor.clone() for tensor in (X, HARD, INDEX)]
    for targets in (HARD, INDEX):
        value_and_gradient(sigmoid_focal_loss, X, (targets,), {}, torch.float32, impl="compile")
    for tensor, copy in zip((X, HARD, INDEX), before):
        assert torch.equal(tensor, copy)


def test_autocast_gives_float32():
    x = X.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = focal(x)
    assert value.dtype == torch.float32
    assert_close(value, eager_focal(x.float()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant, builds):
    leaf = X.clone().requires_grad_()
    value = torch.utils.checkpoint.checkpoint(
        lambda x: sigmoid_focal_loss(x.exp(), HARD, reduction="sum", impl="compile"),
        leaf,
        use_reentrant=reentrant,
    )
    value.backward()
    twin = X.clone().requires_grad_()
    sigmoid_focal_loss(twin.exp(), HARD, reduction="sum", impl="eager").backward()
    assert_close(leaf.grad, twin.grad)
    assert builds


def test_a_default_device_changes_nothing():
    torch.set_default_device("cpu")
    try:
        assert "Fused" in focal(X.clone().requires_grad_()).grad_fn.name()
    finally:
        torch.set_default_device(None)


def test_threads_share_a_pass():
    expected = eager_focal(X, reduction="sum")
    found = [None] * 4

    def work(place):
        leaf = X.clone().requires_grad_()
        value = focal(leaf, reduction="sum")
        value.backward()
        found[place] = (value.detach(), leaf.grad.sum())

    workers = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for value, _ in found:
        assert_close(value, expected)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_may_change(threads):
    before = torch.get_num_threads()
    expected = eager_focal(X.repeat(400, 1), targets=HARD.repeat(400, 1), reduction="sum")
    try:
        torch.set_num_threads(threads)
        value = focal(X.repeat(400, 1), targets=HARD.repeat(400, 1), reduction="sum")
    finally:
        torch.set_num_threads(before)
    assert_close(value, expected)


# Where the formula itself is run


def test_transforms_see_the_formula():
    per_row = vmap(grad(lambda x, t: sigmoid_focal_loss(x, t, reduction="sum", impl="compile")))(X, HARD)
    assert_close(per_row, value_and_gradient(sigmoid_focal_loss, X, (HARD,), {}, torch.float32)[1])
    tangent = torch.func.jvp(lambda x: focal(x, reduction="sum"), (X,), (torch.ones_like(X),))[1]
    assert_close(tangent, per_row.sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
        value = torch.autograd.forward_ad.unpack_dual(focal(dual, reduction="sum"))
    assert_close(value.tangent, tangent)


def test_inside_the_callers_compile_the_formula_is_traced():
    for name, (loss, inputs, arguments, options) in CASES.items():
        traced = torch.compile(
            partial(loss, impl="compile", reduction="sum", **options), fullgraph=True, backend="aot_eager"
        )
        leaf = inputs.clone().requires_grad_()
        traced(leaf, *arguments).backward()
        expected = value_and_gradient(loss, inputs, arguments, options, torch.float32, reduction="sum")[1]
        assert torch.allclose(leaf.grad, expected, rtol=1e-5, atol=1e-6), name


def test_gradients_of_other_arguments_come_from_the_formula():
    weight = torch.rand(CLASSES, requires_grad=True)
    big = X.repeat(60, 1)
    value = sigmoid_focal_loss(big, HARD.repeat(60, 1), weight=weight, reduction="sum")
    value.backward()
    expected = eager_focal(big, targets=HARD.repeat(60, 1)).sum(0)
    assert_close(weight.grad, expected)
    with pytest.raises(ValueError, match=r'weight requires grad, .* impl="eager".* weight\.detach\(\)'):
        focal(X, weight=weight)
    gamma = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(ValueError, match="gamma requires grad"):
        focal(X, gamma=gamma)


# Errors


def test_the_choice_of_impl_is_checked():
    for loss, inputs, arguments, options in CASES.values():
        with pytest.raises(ValueError, match="impl is 'fast'; it may be one of 'auto', 'eager', 'compile'"):
            loss(inputs, *arguments, impl="fast", **options)


def test_targets_are_checked_on_the_way():
    with pytest.raises(ValueError, match=r"targets holds values from 0 to 255; it must be in \[0, 1\]"):
        focal(X, targets=HARD * 255)
    with pytest.raises(ValueError, match="holds values from nan"):
        focal(X, targets=HARD * float("nan"))
    with pytest.raises(ValueError, match=r"targets\[2\] is 99"):
        focal(X, targets=INDEX.index_fill(0, torch.tensor(2), 99))


def in_a_new_process(code: str, **environment: str) -> str:
    prelude = "import torch, warnings\nfrom detloss import sigmoid_focal_loss\n"
    run = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        env={"PATH": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
@pytest.mark.parametrize("seconds", [0.5, 2, 4, 6])
def test_an_interrupt_while_compiling_ends_the_process(seconds, tmp_path):
    code = """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        x = torch.randn(400, 100, requires_grad=True)
        print("begun", flush=True)
        asymmetric_loss(x, torch.zeros(400, 100), reduction="sum").backward()
        print("compiled", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal, time, torch; from detloss import *\n" + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(
        timeout=20
    )  # a pass takes longer on an idle machine, from an empty cache
    assert "compiled" not in out or seconds > 2
    assert "KeyboardInterrupt" in error
    assert "terminate called" not in error
    assert process.returncode in (1, -signal.SIGINT)


def test_a_library_that_another_process_is_still_writing_is_read_again(monkeypatch):
    tried = []

    def half_written(form):
        tried.append(form)
        if len(tried) == 1:
            raise RuntimeError("InductorError") from ImportError("main.so: file too short")
        return original(form)

    original = compiler.build
    monkeypatch.setattr(compiler, "build", half_written)
    monkeypatch.setattr(compiler, "passes", {})
    x = torch.randn(4, 3, requires_grad=True)
    found = sigmoid_focal_loss(x, torch.zeros(4, 3), reduction="sum", impl="compile")
    assert_close(found, sigmoid_focal_loss(x, torch.zeros(4, 3), reduction="sum", impl="eager"))
    assert tried[0] == tried[1]


@pytest.mark.slow
def test_without_a_compiler(tmp_path):
    out = in_a_new_process(
        """
        x, t = torch.randn(400, 100, requires_grad=True), torch.zeros(400, 100)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(3):
                sigmoid_focal_loss(x, t, reduction="sum").backward()
                sigmoid_focal_loss(x, torch.zeros(400, dtype=torch.long), reduction="sum").backward()
        print(len([w for w in said if "no C++ compiler" in str(w.message)]))
        print(said[0].filename == "<string>" or said[0].filename)
        try:
            sigmoid_focal_loss(x, t, impl="compile")
        except RuntimeError as error:
            print(error)
        """,
        HOME=str(tmp_path),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path),
    )
    said, place, error = out.strip().split("\n")
    assert said == "1"
    assert place == "True"
    assert "apt install g++" in error
    assert 'impl="eager"' in error


def test_a_formula_that_cannot_be_compiled_runs_eagerly_and_says_so_once():
    @elementwise_loss
    def branching(logits, targets, tau=1.0):
        return logits * tau if logits.sum() > 0 else logits * tau * 2

    x = torch.ones(200, 200, requires_grad=True)
    with pytest.warns(UserWarning, match=r"branching could not be compiled on cpu .*runs eagerly"):
        value = branching(x, torch.zeros(200, 200), reduction="sum")
    assert value == 40000
    assert branching(x, torch.zeros(200, 200), reduction="sum") == 40000  # a second warning would be an error
    with pytest.raises(RuntimeError, match=r"branching could not be compiled"):
        branching(x, torch.zeros(200, 200), impl="compile")


def test_a_formula_without_a_pass_for_every_exponent_has_none():
    @elementwise_loss(exponents=("gamma",))
    def stepped(logits, targets, gamma=2.0):
        return logits.square() if gamma > 1 else logits

    for _ in range(2):
        with pytest.raises(RuntimeError, match="stepped could not be compiled"):
            stepped(X, HARD, impl="compile")
