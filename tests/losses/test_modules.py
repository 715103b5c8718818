"""The Modules: each is its function with the hyperparameters kept."""

import inspect

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detloss import losses
from detloss.losses import (
    AsymmetricLoss,
    BCEWithLogitsLoss,
    BoxIoULoss,
    CompleteBoxIoULoss,
    DistanceBoxIoULoss,
    DistributionFocalLoss,
    EfficientBoxIoULoss,
    GaussianFocalLoss,
    GeneralizedBoxIoULoss,
    IoUAwareBCELoss,
    L1BoxLoss,
    MatchabilityAwareLoss,
    PolyFocalLoss,
    QualityFocalLoss,
    SampleDependentFocalLoss,
    SigmoidFocalLoss,
    SmoothL1BoxLoss,
    SoftmaxFocalLoss,
    VarifocalLoss,
)

LOGITS, INDEX = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 2, -100])
BOXES = torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 9]]), torch.tensor([[1.0, 1, 4, 4], [1, 2, 6, 8]])
ROWS, CLASSES = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.2, 0.5, 0.9])

PER_ROW = {"quality": ROWS / 4, "weight": ROWS}
CASES = [
    # Module, its function, hyperparameters, arguments and keywords of the call
    (
        BCEWithLogitsLoss,
        losses.binary_cross_entropy_with_logits,
        {"alpha": 0.3, "pos_weight": CLASSES},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (
        SigmoidFocalLoss,
        losses.sigmoid_focal_loss,
        {"alpha": CLASSES, "gamma": 1.5},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (QualityFocalLoss, losses.quality_focal_loss, {"beta": 1.5, "alpha": 0.4}, (LOGITS, INDEX), PER_ROW),
    (VarifocalLoss, losses.varifocal_loss, {"alpha": 0.5, "gamma": 1.0}, (LOGITS, INDEX), PER_ROW),
    (
        PolyFocalLoss,
        losses.poly_focal_loss,
        {"alpha": CLASSES, "gamma": 1.0, "epsilon": 0.5},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (
        SampleDependentFocalLoss,
        losses.sample_dependent_focal_loss,
        {"alpha": CLASSES, "gamma_low": 4.0, "gamma_high": 1.0, "threshold": 0.3},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (
        AsymmetricLoss,
        losses.asymmetric_loss,
        {"gamma_neg": 2.0, "gamma_pos": 0.0, "clip": CLASSES / 4},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (MatchabilityAwareLoss, losses.matchability_aware_loss, {"gamma": 1.0}, (LOGITS, INDEX), PER_ROW),
    (IoUAwareBCELoss, losses.iou_aware_bce_loss, {"alpha": 0.5, "gamma": 1.0}, (LOGITS, INDEX), PER_ROW),
    (
        GaussianFocalLoss,
        losses.gaussian_focal_loss,
        {"alpha": 1.0, "gamma": 3.0},
        (LOGITS, INDEX),
        {"weight": ROWS},
    ),
    (
        SoftmaxFocalLoss,
        losses.softmax_focal_loss,
        {"alpha": CLASSES, "gamma": 1.0, "label_smoothing": 0.1},
        (LOGITS, INDEX.where(INDEX != 3, 1)),
        {"weight": ROWS},
    ),
    (DistributionFocalLoss, losses.distribution_focal_loss, {}, (LOGITS, ROWS / 2), {"weight": ROWS}),
    (BoxIoULoss, losses.box_iou_loss, {"eps": 1e-3}, BOXES, {}),
    (GeneralizedBoxIoULoss, losses.generalized_box_iou_loss, {"eps": 1e-3}, BOXES, {"weight": ROWS[:2]}),
    (DistanceBoxIoULoss, losses.distance_box_iou_loss, {"fmt": "cxcywh"}, BOXES, {}),
    (CompleteBoxIoULoss, losses.complete_box_iou_loss, {"fmt": "xywh"}, BOXES, {}),
    (EfficientBoxIoULoss, losses.efficient_box_iou_loss, {"eps": 1e-3}, BOXES, {}),
    (L1BoxLoss, losses.l1_box_loss, {"relative": True, "fmt": "cxcywh"}, BOXES, {"weight": ROWS[:2]}),
    (SmoothL1BoxLoss, losses.smooth_l1_box_loss, {"beta": 0.5}, BOXES, {}),
]
each_module = pytest.mark.parametrize(
    ("module", "function", "hyper", "arguments", "keywords"), CASES, ids=[case[0].__name__ for case in CASES]
)


@each_module
def test_is_its_function(module, function, hyper, arguments, keywords):
    for reduction in ("none", "sum", "mean"):
        built = module(reduction=reduction, **hyper)
        assert_close(
            built(*arguments, **keywords), function(*arguments, reduction=reduction, **hyper, **keywords)
        )
    assert_close(
        module(**hyper)(*arguments, **keywords), function(*arguments, reduction="mean", **hyper, **keywords)
    )


@each_module
def test_defaults_are_those_of_the_function(module, function, hyper, arguments, keywords):
    of_function = inspect.signature(function).parameters
    for name, parameter in inspect.signature(module).parameters.items():
        assert parameter.default == ("mean" if name == "reduction" else of_function[name].default), name
    keep_out = set(inspect.signature(module.forward).parameters)
    assert set(of_function) <= set(inspect.signature(module).parameters) | keep_out


@each_module
def test_hyperparameters_show_in_repr(module, function, hyper, arguments, keywords):
    text = repr(module(**hyper))
    assert text.startswith(module.__name__ + "(")
    assert "reduction=mean" in text
    for name, value in hyper.items():
        shown = value.tolist() if isinstance(value, torch.Tensor) else value
        assert f"{name}={shown}" in text


@each_module
def test_unknown_reduction(module, function, hyper, arguments, keywords):
    with pytest.raises(ValueError, match="reduction is 'avg'"):
        module(reduction="avg", **hyper)


@each_module
def test_unknown_impl(module, function, hyper, arguments, keywords):
    with pytest.raises(ValueError, match="impl is 'fast'; it may be one of 'auto', 'eager', 'compile'"):
        module(impl="fast", **hyper)


def test_every_loss_has_a_module():
    modules = {name for name in losses.__all__ if name[0].isupper()}
    assert modules == {case[0].__name__ for case in CASES}
    functions = {name for name in losses.__all__ if name.endswith(("_loss", "_logits"))} - {
        "elementwise_loss"
    }
    assert functions == {case[1].__name__ for case in CASES}


@each_module
def test_no_hyperparameter_is_in_the_state_dict(module, function, hyper, arguments, keywords):
    """A checkpoint of a model loads whatever loss trained it."""
    tensors = {name: torch.tensor(value) if type(value) is float else value for name, value in hyper.items()}
    loss = module(**tensors)
    assert not loss.state_dict()
    module().load_state_dict(loss.state_dict())


def test_tensors_move_with_the_module():
    loss = SigmoidFocalLoss(alpha=CLASSES, pos_weight=torch.ones(3))
    assert not loss.state_dict()
    assert set(dict(loss.named_buffers())) == {"alpha", "pos_weight"}
    assert loss.double().alpha.dtype == torch.float64
    assert loss.to("meta").alpha.device.type == "meta"
    assert repr(SoftmaxFocalLoss(alpha=torch.ones(80))).startswith(
        "SoftmaxFocalLoss(alpha=tensor(80,), gamma=2.0"
    )


def test_hyperparameters_can_change_and_be_learnt():
    loss = SigmoidFocalLoss(gamma=2.0)
    loss.gamma = 0.0
    assert_close(loss(LOGITS, INDEX), BCEWithLogitsLoss(alpha=0.25)(LOGITS, INDEX))
    learnt = SigmoidFocalLoss(gamma=nn.Parameter(torch.tensor(2.0)))
    learnt(LOGITS, INDEX).backward()
    assert [name for name, _ in learnt.named_parameters()] == ["gamma"]
    assert learnt.gamma.grad.isfinite()


def test_weight_is_given_in_one_place():
    for module in (BCEWithLogitsLoss, SigmoidFocalLoss):
        kept, none = module(weight=CLASSES), module()
        assert_close(kept(LOGITS, INDEX), none(LOGITS, INDEX, weight=CLASSES))
        with pytest.raises(ValueError, match="in one place"):
            kept(LOGITS, INDEX, weight=ROWS)


def test_exponents_are_checked_at_once():
    for build in (
        lambda: SigmoidFocalLoss(gamma=-1),
        lambda: VarifocalLoss(gamma=-1),
        lambda: SoftmaxFocalLoss(gamma=-1),
        lambda: PolyFocalLoss(gamma=-1),
        lambda: MatchabilityAwareLoss(gamma=-1),
        lambda: IoUAwareBCELoss(gamma=-1),
        lambda: GaussianFocalLoss(gamma=-1),
    ):
        with pytest.raises(ValueError, match="gamma is -1"):
            build()
    for module in (QualityFocalLoss, SmoothL1BoxLoss):
        with pytest.raises(ValueError, match="beta is -1"):
            module(beta=-1)
    for name in ("gamma_neg", "gamma_pos"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            AsymmetricLoss(**{name: -1})


def test_alpha_and_weights_are_checked_at_once():
    for module in (BCEWithLogitsLoss, SigmoidFocalLoss, QualityFocalLoss, PolyFocalLoss):
        with pytest.raises(ValueError, match=r"alpha is 1\.5; it must be in \[0, 1\]"):
            module(alpha=1.5)
        with pytest.raises(ValueError, match=r"alpha holds values from 0\.5 to 1\.5"):
            module(alpha=torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"alpha is nan"):
        VarifocalLoss(alpha=float("nan"))
    assert VarifocalLoss(alpha=1.5).alpha == 1.5
    with pytest.raises(ValueError, match=r"alpha is 0\.25; it must be a tensor"):
        SoftmaxFocalLoss(alpha=0.25)
    for module in (BCEWithLogitsLoss, SigmoidFocalLoss):
        for name in ("weight", "pos_weight"):
            with pytest.raises(ValueError, match=rf"^{name} is 2\.0; it must be a tensor"):
                module(**{name: 2.0})


def test_a_weight_assigned_later_moves_with_the_module():
    for module in (BCEWithLogitsLoss, SigmoidFocalLoss):
        loss = module()
        loss.weight, loss.pos_weight = CLASSES, torch.ones(3)
        assert set(dict(loss.named_buffers())) == {"weight", "pos_weight"}
        assert not loss.state_dict()
        assert loss.double().weight.dtype == loss.pos_weight.dtype == torch.float64


def test_modules_compile():
    loss = SigmoidFocalLoss(alpha=CLASSES)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(compiled(LOGITS, INDEX), loss(LOGITS, INDEX))
