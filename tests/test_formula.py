"""A user's own formula, and what `elementwise_loss` makes of it."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.testing import assert_close

from detloss._core.private import CAN_FUSE
from detloss.formula import box_loss, elementwise_loss
from detloss.linear import linear_loss
from detloss.losses import asymmetric_loss, matchability_aware_loss, poly_focal_loss
from detloss.names import CLASSIFICATION_LOSSES, find_loss
from helpers.definitions import value_and_gradient

INDEX = torch.tensor([0, 3, 1, -100, 2])  # three classes: 3 is background, -100 left out
ONE_HOT = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
COUNTED = (INDEX != -100).float()[:, None]
QUALITY = torch.tensor([0.3, 0.9, 1.0, 0.5, 0.0])


@elementwise_loss
def tempered_bce(logits, targets, tau=1.0):
    """Binary cross entropy of logits divided by a temperature."""
    return F.softplus(logits / tau) - targets * logits / tau


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(3)) * 3


def plain(logits, targets, tau=1.0):
    return F.binary_cross_entropy_with_logits(logits / tau, targets, reduction="none")


# What every formula gets


SHARED = ["weight", "ignore_index", "label_smoothing", "class_dim", "impl"]


def test_name_docstring_and_signature():
    assert tempered_bce.__name__ == "tempered_bce"
    assert tempered_bce.__doc__.startswith("Binary cross entropy of logits divided by a temperature.")
    for name in ("inputs:", "targets:", "weight:", "ignore_index:", "impl:", "Raises:"):
        assert name in tempered_bce.__doc__
    assert "quality:" not in tempered_bce.__doc__
    assert "\n\nArgs:\n" in tempered_bce.__doc__
    parameters = inspect.signature(tempered_bce).parameters
    assert list(parameters) == ["inputs", "targets", "tau", "reduction", *SHARED]
    defaults = {name: p.default for name, p in parameters.items()}
    assert (defaults["tau"], defaults["reduction"], defaults["impl"]) == (1.0, "none", "auto")


def test_keyword_only_parameters_come_after_the_reduction(logits):
    @elementwise_loss(quality=True)
    def loss(logits, targets, tau=1.0, *, shift=0.0):
        return plain(logits + shift, targets, tau)

    parameters = inspect.signature(loss).parameters
    names = ["inputs", "targets", "tau", "reduction", "shift", "quality", *SHARED]
    assert list(parameters) == names
    assert parameters["shift"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "quality:" in loss.__doc__
    assert_close(loss(logits, ONE_HOT, 2.0, "sum", shift=1.0), plain(logits + 1, ONE_HOT, 2.0).sum())


def test_both_target_forms_weights_ignored_rows_and_reductions(logits):
    expected = plain(logits, ONE_HOT, 2.0)
    assert_close(tempered_bce(logits, ONE_HOT, 2.0), expected)
    assert_close(tempered_bce(logits, INDEX, 2.0), expected * COUNTED)
    soft = torch.rand(5, 3)
    assert_close(tempered_bce(logits, soft), plain(logits, soft))
    assert_close(tempered_bce(logits, INDEX, tau=2.0, reduction="sum"), (expected * COUNTED).sum())
    assert_close(tempered_bce(logits, INDEX, tau=2.0, reduction="mean"), (expected * COUNTED).sum() / 12)
    rows = torch.arange(5.0)
    assert_close(tempered_bce(logits, INDEX, 2.0, weight=rows), expected * COUNTED * rows[:, None])
    assert_close(tempered_bce(logits, INDEX.where(INDEX != -100, 9), 2.0, ignore_index=9), expected * COUNTED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_formula_sees_float32_or_float64(logits, dtype):
    seen = []

    @elementwise_loss
    def loss(logits, targets, scale=1.0):
        seen.append((logits.dtype, targets.dtype, getattr(scale, "dtype", None)))
        return plain(logits, targets) * scale

    compute = torch.float64 if dtype == torch.float64 else torch.float32
    x = logits.to(dtype).requires_grad_()
    assert loss(x, INDEX).dtype == dtype
    loss(x, ONE_HOT, torch.ones(3), "sum").backward()
    assert x.grad.dtype == dtype
    assert seen == [(compute, compute, None), (compute, compute, compute)]


def test_derivatives_and_transforms(logits):
    x = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tempered_bce(x, INDEX, 2.0), x)
    assert torch.autograd.gradgradcheck(lambda x: tempered_bce(x, INDEX, 2.0), x)
    per_row = vmap(grad(lambda x, t: tempered_bce(x, t, 2.0, "sum")))(logits, ONE_HOT)
    assert_close(per_row, value_and_gradient(tempered_bce, logits, ONE_HOT, 2.0)[1])
    compiled = torch.compile(lambda x: tempered_bce(x, INDEX, 2.0), fullgraph=True, backend="aot_eager")
    assert_close(compiled(logits), tempered_bce(logits, INDEX, 2.0))


def test_tensors_as_hyperparameters(logits):
    tau = torch.tensor([0.5, 1.0, 2.0])
    assert_close(tempered_bce(logits, ONE_HOT, tau), plain(logits, ONE_HOT, tau))
    learnt = tau.double().requires_grad_()
    x = logits.double()
    assert torch.autograd.gradcheck(lambda tau: tempered_bce(x, INDEX, tau), learnt)
    with pytest.raises(ValueError, match=r"tau has shape \(5,\), which does not broadcast to \(5, 3\)"):
        tempered_bce(logits, INDEX, torch.ones(5))


# What a formula may ask for


def test_alpha_is_a_number_one_per_class_or_off(logits):
    seen = []

    @elementwise_loss
    def loss(logits, targets, alpha=0.25):
        seen.append(alpha)
        return plain(logits, targets) * (1 if alpha is None else alpha)

    per_class = torch.tensor([0.1, 0.5, 1.0])
    assert_close(loss(logits, INDEX, per_class), plain(logits, ONE_HOT) * COUNTED * per_class)
    for off in (None, -1, -0.5):
        assert_close(loss(logits, INDEX, off), plain(logits, ONE_HOT) * COUNTED)
    assert seen[1:] == [None, None, None]
    with pytest.raises(ValueError, match=r"alpha is 1\.5; it must be in \[0, 1\]"):
        loss(logits, INDEX, 1.5)
    with pytest.raises(ValueError, match=r"alpha has shape \(4,\)"):
        loss(logits, INDEX, torch.ones(4))


def test_the_limits_of_alpha_are_the_authors_choice(logits):
    @elementwise_loss(limits={"alpha": (0.5, 4)})
    def loss(logits, targets, alpha=2.0):
        return plain(logits, targets) * alpha

    assert_close(loss(logits, ONE_HOT, 3.0), plain(logits, ONE_HOT) * 3)
    assert_close(
        loss(logits, ONE_HOT, torch.tensor([0.5, 1, 4])), plain(logits, ONE_HOT) * torch.tensor([0.5, 1, 4])
    )
    for wrong in (5.0, 0.25, torch.tensor(0.25)):
        with pytest.raises(ValueError, match=rf"alpha is {float(wrong)}; it must be in \[0\.5, 4\]"):
            loss(logits, ONE_HOT, wrong)
    with pytest.raises(ValueError, match=r"alpha holds values from -1 to 1; it must be in \[0\.5, 4\]"):
        loss(logits, ONE_HOT, torch.tensor([-1.0, 1, 1]))


def test_positive_is_a_mask_of_the_rows_classes(logits):
    @elementwise_loss(quality=True)
    def loss(logits, targets, *, positive):
        assert positive.dtype == torch.bool
        return positive + targets + 0 * logits

    assert "positive" not in inspect.signature(loss).parameters
    soft = torch.tensor([[0.0, 1e-6, 0.4]]).expand(5, 3)
    assert_close(loss(logits, soft), soft + (soft > 0))
    assert_close(loss(logits, INDEX), 2 * ONE_HOT)
    # the class of the last row is one also at quality 0
    expected = ONE_HOT * (1 + QUALITY[:, None])
    assert expected[4, 2] == 1
    assert_close(loss(logits, INDEX, quality=QUALITY), expected)


def test_quality_is_the_label_of_the_rows_class(logits):
    @elementwise_loss(quality=True)
    def loss(logits, targets):
        return plain(logits, targets)

    expected = plain(logits, ONE_HOT * QUALITY[:, None]) * COUNTED
    assert_close(loss(logits, INDEX, quality=QUALITY), expected)
    with pytest.raises(TypeError, match="unexpected keyword argument 'quality'"):
        tempered_bce(logits, INDEX, quality=QUALITY)


def test_booleans_come_from_class_indices_without_quality(logits):
    seen = []

    @elementwise_loss(bool_targets=True, quality=True)
    def loss(logits, targets):
        seen.append(targets.dtype)
        return plain(logits, targets.to(logits.dtype))

    assert_close(loss(logits, INDEX), plain(logits, ONE_HOT) * COUNTED)
    loss(logits, ONE_HOT)
    loss(logits, INDEX, quality=QUALITY)
    assert seen == [torch.bool, torch.float32, torch.float32]


def test_exponents_are_checked(logits):
    @elementwise_loss(exponents=("power",))
    def loss(logits, targets, power=2.0):
        return plain(logits, targets) ** power

    assert_close(loss(logits, ONE_HOT, torch.tensor(3)), plain(logits, ONE_HOT) ** 3)
    for power, message in (
        (-1, "power is -1; it must be at least 0"),
        (torch.ones(3), r"power has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(logits, ONE_HOT, power)


def strings(logits, targets, tau=1.0, kind="bce", signed=False, shift=None):
    shifted = logits if shift is None else logits + shift
    loss = F.softplus(-shifted / tau) if kind == "positive" else plain(shifted, targets, tau)
    return -loss if signed else loss


def test_strings_booleans_and_none_reach_the_formula(logits):
    loss = elementwise_loss(strings)
    for kind in ("bce", "positive"):
        for signed in (True, False):
            for shift in (None, 0.5):
                more = {"kind": kind, "signed": signed, "shift": shift}
                assert_close(loss(logits, ONE_HOT, 2.0, **more), strings(logits, ONE_HOT, 2.0, **more))


# What is refused


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda logits, targets, tau: logits, "has a hyperparameter tau without a default"),
        (lambda logits, targets, *, tau: logits, "has a hyperparameter tau without a default"),
        (lambda logits, targets, **hyper: logits, r"takes \*hyper; hyperparameters have names"),
        (lambda logits, targets, weight=None: logits, "hyperparameter weight, a name that every loss has"),
        (
            lambda logits, targets, reduction="none": logits,
            "hyperparameter reduction, a name that every loss has",
        ),
        (lambda logits, targets, impl=None: logits, "hyperparameter impl, a name that every loss has"),
        (lambda logits, targets, hard=True: logits, "hyperparameter hard, a name that every loss has"),
        (lambda logits, targets, inputs=None: logits, "hyperparameter inputs, a name that every loss has"),
        (lambda logits: logits, "does not take logits, targets"),
    ],
)
def test_errors_about_the_formulas_signature(formula, message):
    with pytest.raises(ValueError, match=message):
        elementwise_loss(formula)


@pytest.mark.parametrize("more", [{"exponents": ("beta",)}, {"limits": {"beta": (0, 1)}}])
def test_errors_about_the_decorators_names(more):
    with pytest.raises(ValueError, match="<lambda> has no hyperparameter beta"):
        elementwise_loss(lambda logits, targets, tau=1.0: logits, **more)


def test_a_formula_returns_one_value_an_element(logits):
    summing = elementwise_loss(lambda logits, targets: logits.sum(-1))
    with pytest.raises(ValueError, match=r"<lambda> returned shape .* for logits"):
        summing(logits, INDEX)


def test_limits_are_checked(logits):
    clipped = elementwise_loss(lambda logits, targets, clip=0.1: logits - clip, limits={"clip": (0, 1)})
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"clip is {wrong}; it must be in \[0, 1\]"):
            clipped(logits, INDEX, wrong)
    with pytest.raises(ValueError, match=r"clip holds values from -1 to 0.5; it must be in \[0, 1\]"):
        clipped(logits, INDEX, torch.tensor([-1.0, 0.0, 0.5]))
    for wrong in (torch.tensor(1.5), np.float32(1.5)):
        with pytest.raises(ValueError, match=r"clip is 1\.5; it must be in \[0, 1\]"):
            clipped(logits, INDEX, wrong)


def test_errors_about_the_call_are_pythons_own(logits):
    with pytest.raises(TypeError, match="unexpected keyword argument 'gamma'"):
        tempered_bce(logits, INDEX, gamma=1.0)
    with pytest.raises(TypeError, match="multiple values for argument 'tau'"):
        tempered_bce(logits, INDEX, 1.0, tau=1.0)
    with pytest.raises(TypeError, match="too many positional arguments"):
        tempered_bce(logits, INDEX, 1.0, "sum", torch.ones(5))


# Where it goes


@pytest.mark.parametrize("form", ["index", "soft"])
def test_with_the_head_in_one(form):
    features = torch.randn(300, 8, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    targets = torch.randint(0, 6, (300,)) if form == "index" else torch.rand(300, 5)
    per_row = torch.rand(300) if form == "index" else torch.rand(300, 1)
    value = linear_loss(tempered_bce, features, weight, targets, tau=2.0, weight=per_row)
    gradients = torch.autograd.grad(value, (features, weight))
    whole = tempered_bce(features @ weight.T, targets, 2.0, "sum", weight=per_row)
    assert_close(value, whole)
    for gradient, expected in zip(gradients, torch.autograd.grad(whole, (features, weight))):
        assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_on_the_command_line(tmp_path: Path, logits):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from detloss.formula import elementwise_loss\n"
        "@elementwise_loss(quality=True)\n"
        "def soft(logits, targets, tau=1.0):\n"
        "    return torch.nn.functional.softplus(logits / tau) - targets * logits / tau\n"
    )
    found = find_loss(f"{tmp_path / 'mine.py'}:soft,tau=2", CLASSIFICATION_LOSSES)
    assert found.own
    assert found.takes_quality
    expected = plain(logits, ONE_HOT * QUALITY[:, None], 2.0) * COUNTED
    assert_close(found.function(logits, INDEX, quality=QUALITY), expected)
    with pytest.raises(ValueError, match=r"has no setting 'gamma'; it has tau"):
        find_loss(f"{tmp_path / 'mine.py'}:soft,gamma=2", CLASSIFICATION_LOSSES)


def test_names_of_the_new_losses():
    for name, loss in (
        ("poly_focal", poly_focal_loss),
        ("asymmetric", asymmetric_loss),
        ("mal", matchability_aware_loss),
    ):
        assert find_loss(name, CLASSIFICATION_LOSSES).function is loss


def test_the_page_shows_the_sources_of_the_three():
    page = (Path(__file__).parents[1] / "docs" / "own_loss.md").read_text(encoding="utf-8")
    for loss in (poly_focal_loss, asymmetric_loss, matchability_aware_loss):
        body = inspect.getsource(loss.__wrapped__).rpartition('"""\n')[2]
        assert body.count("\n") >= 3
        assert body.replace("isinstance(clip, Tensor)", "isinstance(clip, torch.Tensor)") in page


# Fused


@pytest.mark.skipif(not CAN_FUSE, reason="this torch has no fused pass")
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_hyperparameter_may_be_called_scale(logits, reduction):
    @elementwise_loss
    def scaled_bce(logits, targets, scale=2.0):
        return scale * torch.nn.functional.softplus(logits) - targets * logits

    @box_loss
    def scaled_corners(first, second, scale=2.0):
        return sum((a - b).abs() for a, b in zip(first[:4], second[:4])) / scale

    boxes = torch.rand(2, 7, 4, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    for loss, arguments in ((scaled_bce, (logits, INDEX)), (scaled_corners, boxes.unbind(0))):
        found = value_and_gradient(loss, *arguments, reduction=reduction, scale=3.0, impl="compile")
        expected = value_and_gradient(loss, *arguments, reduction=reduction, scale=3.0, impl="eager")
        assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_compiled_is_eager_for_other_values_too(logits):
    for tau in (1.0, 2.0, 0.3):
        value, gradient = value_and_gradient(tempered_bce, logits, INDEX, tau, impl="compile")
        expected, expected_gradient = value_and_gradient(tempered_bce, logits, INDEX, tau, impl="eager")
        assert_close(value, expected)
        assert_close(gradient, expected_gradient)


@pytest.mark.skipif(not CAN_FUSE, reason="this torch has no fused pass")
def test_a_branch_on_a_value_runs_eagerly_and_says_so_when_compiled(logits):
    @elementwise_loss
    def branching(logits, targets):
        return plain(logits, targets) * (2 if logits.max() > 0 else 1)

    assert_close(branching(logits, ONE_HOT), plain(logits, ONE_HOT) * 2)
    assert_close(branching(logits - 100, ONE_HOT), plain(logits - 100, ONE_HOT))
    large, targets = logits.repeat(20_000, 1), ONE_HOT.repeat(20_000, 1)
    with pytest.warns(UserWarning, match=r"branching could not be compiled.*runs eagerly"):
        assert_close(branching(large, targets), plain(large, targets) * 2)
    assert_close(branching(large - 100, targets), plain(large - 100, targets))  # and says so once
    with pytest.raises(RuntimeError, match=r'branching could not be compiled on cpu.*impl="eager"'):
        branching(logits, ONE_HOT, impl="compile")


@pytest.mark.slow
def test_strings_and_none_have_a_compiled_pass_each(logits):
    loss = elementwise_loss(strings)
    for more in ({"kind": "bce"}, {"kind": "positive"}, {"signed": True}, {"shift": 0.5}, {"shift": 0.7}):
        value, gradient = value_and_gradient(loss, logits, ONE_HOT, 2.0, impl="compile", **more)
        expected, expected_gradient = value_and_gradient(strings, logits, ONE_HOT, 2.0, **more)
        assert_close(value, expected)
        assert_close(gradient, expected_gradient)


@pytest.mark.slow
def test_formulas_of_one_name_do_not_share_a_compiled_pass(logits):
    def build(factor):
        @elementwise_loss
        def loss(logits, targets):
            return plain(logits, targets) * factor

        return loss

    for factor in (1, 3):
        assert_close(build(factor)(logits, ONE_HOT, impl="compile"), plain(logits, ONE_HOT) * factor)


@pytest.mark.slow
def test_alpha_positive_and_quality_compiled(logits):
    @elementwise_loss(exponents=("gamma",), quality=True, bool_targets=True)
    def loss(logits, targets, alpha=0.25, gamma=2.0, *, positive):
        weight = torch.where(positive, targets.to(logits.dtype), torch.sigmoid(logits) ** gamma)
        return plain(logits, targets.to(logits.dtype)) * weight * (1 if alpha is None else alpha)

    for alpha, keywords in ((0.3, {}), (torch.tensor([0.1, 0.5, 0.9]), {"quality": QUALITY})):
        for gamma in (2.0, 1.3):
            arguments = (logits, INDEX, alpha, gamma)
            value, gradient = value_and_gradient(loss, *arguments, impl="compile", **keywords)
            expected, expected_gradient = value_and_gradient(loss, *arguments, impl="eager", **keywords)
            assert_close(value, expected)
            assert_close(gradient, expected_gradient)
