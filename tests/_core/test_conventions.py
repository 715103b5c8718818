"""What the elementwise losses take as the field passes it: class_dim, lists, masks, smoothed labels."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from detloss import elementwise_loss, losses
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
    softmax_focal_loss,
    varifocal_loss,
)
from helpers.definitions import value_and_gradient

LOSSES = [
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
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
REFUSED = [varifocal_loss, matchability_aware_loss, iou_aware_bce_loss, gaussian_focal_loss]
SMOOTHED = [loss for loss in LOSSES if loss not in REFUSED]
WITH_ALPHA = [varifocal_loss, *(loss for loss in SMOOTHED if loss is not asymmetric_loss)]
IMPLS = ["eager", pytest.param("compile", marks=pytest.mark.slow)]

N, C, H, W = 2, 3, 4, 5
ALPHA = [0.2, 0.5, 0.9]


def channels_first(classes=C, height=H, width=W):
    """Logits (N, C, H, W), class indices and quality (N, H, W)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(N, classes, height, width, generator=generator) * 2
    labels = torch.randint(0, classes + 2, (N, height, width), generator=generator)
    labels[labels > classes] = -100
    return logits, labels, torch.rand(N, height, width, generator=generator)


# class_dim


@each_loss
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("sizes", [(C, H, W), (4, 4, 4), (1, 4, 5)], ids=str)
@pytest.mark.parametrize("class_dim", [1, -3])
def test_channels_first_logits(loss, reduction, sizes, class_dim):
    logits, labels, _ = channels_first(*sizes)
    value, gradient = value_and_gradient(loss, logits, labels, reduction=reduction, class_dim=class_dim)
    last, last_gradient = value_and_gradient(
        loss, logits.movedim(1, -1), labels, reduction=reduction, class_dim=3
    )
    assert_close(value, last.movedim(-1, 1) if reduction == "none" else last)
    assert_close(gradient, last_gradient.movedim(-1, 1))


WEIGHTS = {
    "per class": torch.tensor([1.0, 2, 3]),
    "per class, broadcast": torch.tensor([1.0, 2, 3]).view(C, 1, 1),
    "per element": torch.rand(N, C, H, W),
    "per image": torch.rand(N, 1, 1, 1),
    "per row": torch.rand(N, H, W),
    "one": torch.tensor(2.0),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("alpha", [ALPHA, 0.3], ids=["alpha per class", "one alpha"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_one_per_class_follows_class_dim(weight, dense, alpha, layout):
    if not (dense and weight == "per row"):
        check_layout(WEIGHTS[weight], dense, alpha, layout, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_the_fused_pass_follows_class_dim(dense):
    check_layout(WEIGHTS["per class"], dense, ALPHA, torch.contiguous_format, "compile")


def check_layout(weight, dense, alpha, layout, impl):
    logits, labels, _ = channels_first()
    logits, targets = logits.to(memory_format=layout), torch.rand(N, C, H, W) if dense else labels
    value, gradient = value_and_gradient(
        sigmoid_focal_loss, logits, targets, weight=weight, alpha=alpha, class_dim=1, impl=impl
    )
    full = weight.view(C, 1, 1) if weight.ndim == 1 else weight
    full = full.unsqueeze(1) if full.shape == (N, H, W) else full
    expected, expected_gradient = value_and_gradient(
        sigmoid_focal_loss,
        logits.movedim(1, -1),
        targets.movedim(1, -1) if dense else targets,
        weight=full.expand(N, C, H, W).movedim(1, -1),
        alpha=alpha,
        impl="eager",
    )
    assert_close(value, expected.movedim(-1, 1))
    assert_close(gradient, expected_gradient.movedim(-1, 1))


@pytest.mark.parametrize("impl", IMPLS)
def test_quality_and_second_derivatives_follow_class_dim(impl):
    logits, labels, quality = channels_first()
    labels = labels.where(labels >= 0, C)
    results = []
    for leaf, dim in ((logits.double(), 1), (logits.double().movedim(1, -1), -1)):
        leaf = leaf.clone().requires_grad_()
        value = quality_focal_loss(
            leaf, labels, reduction="sum", quality=quality.double(), class_dim=dim, impl=impl
        )
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
        results.append((value, *(t if dim == 1 else t.movedim(-1, 1) for t in (gradient, second))))
    for ours, expected in zip(*results):
        assert_close(ours, expected)


def test_dense_targets_need_no_move():
    """Without anything per class the layout does not matter, and no tensor is copied into another."""
    logits, targets = channels_first()[0], torch.rand(N, C, H, W)
    value = sigmoid_focal_loss(logits, targets, class_dim=1)
    assert value.is_contiguous()
    assert torch.equal(value, sigmoid_focal_loss(logits, targets))


@each_loss
def test_a_cube_of_logits_is_not_guessed(loss):
    logits, labels, _ = channels_first(4, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 4\).* by class_dim=1 or class_dim=3"):
        loss(logits, labels)
    loss(logits, torch.rand_like(logits))  # each element its own label: nothing to guess
    loss(logits[0], labels[0])  # rows of three dimensions are (images, locations, classes)
    loss(logits.flatten(0, 1), labels.flatten(0, 1))
    loss(logits[:, :1, :1, :1], labels[:, :1, :1].clamp(max=1))


@pytest.mark.parametrize("loss", WITH_ALPHA)
def test_one_alpha_per_class_is_not_guessed_either(loss):
    logits = torch.zeros(2, 3, 7, 3)
    with pytest.raises(ValueError, match="class_dim=1 or class_dim=3"):
        loss(logits, torch.zeros_like(logits), alpha=ALPHA)
    loss(logits, torch.zeros_like(logits), alpha=ALPHA, class_dim=1)
    loss(logits, torch.zeros_like(logits), alpha=0.5)


@each_loss
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"integer targets have shape \(2, 4, 5\), inputs \(2, 3, 4, 5\).*pass class_dim=1"),
        ({"class_dim": 4}, r"class_dim is 4; for inputs of shape .* an integer from -4 to 3"),
        ({"class_dim": 1.0}, r"class_dim is 1\.0"),
        ({"class_dim": True}, r"class_dim is True"),
        ({"class_dim": 2}, r"need shape \(2, 3, 5\) where the classes are dimension 2 \(pass class_dim=1\)"),
        ({"class_dim": 1, "weight": torch.ones(5)}, r"weight has shape \(5,\)"),
        ({"class_dim": 1, "weight": torch.ones(2, 3, 4)}, r"weight has shape \(2, 3, 4\)"),
    ],
)
def test_errors_of_class_dim(loss, change, message):
    logits, labels, _ = channels_first()
    with pytest.raises(ValueError, match=message):
        loss(logits, labels, **change)


def test_modules_keep_class_dim_and_smoothing():
    logits, labels, _ = channels_first()
    for module in (losses.SigmoidFocalLoss, losses.BCEWithLogitsLoss, losses.QualityFocalLoss):
        given = {"alpha": ALPHA, "class_dim": 1, "label_smoothing": 0.1}
        built = module(**given)
        assert built.alpha.tolist() == torch.tensor(ALPHA).tolist()
        assert_close(built(logits, labels), module.function(logits, labels, reduction="mean", **given))
        assert "class_dim=1" in repr(built)
    bce = losses.BCEWithLogitsLoss(class_dim=1, label_smoothing=0.1)
    focal = losses.SigmoidFocalLoss.from_bce(bce, alpha=None, gamma=0.0)
    assert_close(focal(logits, labels), bce(logits, labels))


# Lists


@pytest.mark.parametrize("loss", WITH_ALPHA)
@pytest.mark.parametrize("kind", [list, tuple, "array"])
def test_a_list_is_one_number_per_class(loss, kind):
    numpy = pytest.importorskip("numpy")
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 3])
    given = numpy.array(ALPHA) if kind == "array" else kind(ALPHA)
    for dtype in (torch.float32, torch.float64):
        assert_close(
            loss(logits.to(dtype), labels, alpha=given),
            loss(logits.to(dtype), labels, alpha=torch.tensor(ALPHA, dtype=dtype)),
        )


def test_lists_for_what_is_one_per_class():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 3])
    for loss, name in (
        (sigmoid_focal_loss, "pos_weight"),
        (binary_cross_entropy_with_logits, "pos_weight"),
        (poly_focal_loss, "epsilon"),
        (asymmetric_loss, "clip"),
    ):
        assert_close(
            loss(logits, labels, **{name: ALPHA}), loss(logits, labels, **{name: torch.tensor(ALPHA)})
        )
    classes = torch.tensor([0, 1, 2, 0])
    assert_close(
        softmax_focal_loss(logits, classes, ALPHA), softmax_focal_loss(logits, classes, torch.tensor(ALPHA))
    )
    module = losses.SoftmaxFocalLoss(alpha=ALPHA).double()
    assert module.alpha.dtype == torch.float64


@pytest.mark.parametrize("loss", WITH_ALPHA)
@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ([0.1, 0.2], r"alpha has shape \(2,\); it must be a number, or \(3,\), one per class"),
        ([], r"alpha has shape \(0,\)"),
        (["a", "b", "c"], r"alpha is \['a', 'b', 'c'\]; it must be None, a number, or one number per class"),
        ("0.25", r"alpha is '0\.25'; it must be None, a number"),
        ([0.5, 0.5, -1.0], r"alpha holds values from -1 to 0\.5"),
    ],
)
def test_lists_that_are_not_one_number_per_class(loss, alpha, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(4, 3), torch.zeros(4, 3), alpha=alpha)


# Masks


@each_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_mask_holds_labels_0_and_1(loss, dtype):
    logits, mask = torch.randn(6, 3), torch.rand(6, 3) < 0.4
    assert_close(loss(logits, mask.to(dtype)), loss(logits, mask.float()))
    assert_close(loss(logits.half(), mask.to(dtype)), loss(logits.half(), mask.half()))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    assert_close(loss(logits, labels, weight=mask.to(dtype)), loss(logits, labels) * mask)
    rows = mask[:, 0].to(dtype)
    assert_close(loss(logits, labels, weight=rows), loss(logits, labels) * mask[:, :1])


@each_loss
def test_a_mask_of_255_is_an_error(loss):
    with pytest.raises(ValueError, match="values from 0 to 255"):
        loss(torch.zeros(2, 2), torch.tensor([[0, 255], [0, 0]], dtype=torch.uint8))


# label_smoothing


@pytest.mark.parametrize("loss", SMOOTHED)
def test_label_smoothing(loss):
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, -100])
    hard = F.one_hot(labels.clamp(min=0), 4)[:, :3].float()
    smooth = hard * 0.8 + 0.1
    counted = (labels >= 0)[:, None]
    for s in (0.2, torch.tensor(0.2)):
        assert_close(loss(logits, hard, label_smoothing=s), loss(logits, smooth))
        assert_close(loss(logits, labels, label_smoothing=s), loss(logits, smooth) * counted)
    assert torch.equal(loss(logits, labels, label_smoothing=0.0), loss(logits, labels))
    soft = torch.rand(5, 3)
    assert_close(loss(logits, soft, label_smoothing=0.5), loss(logits, soft / 2 + 0.25))


def test_label_smoothing_of_a_quality():
    logits, labels, quality = torch.randn(4, 3), torch.tensor([0, 1, 2, 3]), torch.rand(4)
    dense = F.one_hot(labels, 4)[:, :3] * quality[:, None]
    assert_close(
        quality_focal_loss(logits, labels, quality=quality, label_smoothing=0.2),
        quality_focal_loss(logits, dense * 0.8 + 0.1),
    )


@each_loss
@pytest.mark.parametrize("wrong", [1.0, -0.1, float("nan"), "a", torch.tensor(1.0), torch.ones(2)], ids=str)
def test_label_smoothing_out_of_range(loss, wrong):
    with pytest.raises(ValueError, match="label_smoothing"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), label_smoothing=wrong)


@pytest.mark.parametrize("loss", REFUSED)
def test_no_smoothing_where_a_label_is_a_quality(loss):
    for smoothing in (0.1, torch.tensor(0.1)):
        with pytest.raises(ValueError, match=r"label_smoothing is 0\.1; it must be 0: a label "):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), label_smoothing=smoothing)
    with pytest.raises(ValueError, match="it must be 0"):
        losses.VarifocalLoss(label_smoothing=0.1)


def test_a_formula_of_ones_own():
    """It gets smoothed labels, and the positives as they were before; it may refuse smoothing."""

    @elementwise_loss
    def labels_alone(logits, targets, *, positive):
        return 0 * logits + targets + 10 * positive

    expected = torch.tensor([[10.9, 0.1], [0.1, 0.1]])
    for targets in (torch.tensor([0, 2]), torch.tensor([[1.0, 0], [0, 0]])):
        assert_close(labels_alone(torch.zeros(2, 2), targets, label_smoothing=0.2), expected)

    @elementwise_loss(no_smoothing="1 is a peak")
    def peaks(logits, targets):
        return logits * targets

    with pytest.raises(ValueError, match=r"label_smoothing is 0\.2; it must be 0: 1 is a peak"):
        peaks(torch.zeros(2, 2), torch.zeros(2, 2), label_smoothing=0.2)


# detach_weight


def detached_varifocal(x, y, alpha, gamma):
    """RT-DETR's: `weight = alpha * p.detach()^gamma * (1 - label) + target`."""
    weight = alpha * torch.sigmoid(x).detach() ** gamma * (y == 0) + y
    return F.binary_cross_entropy_with_logits(x, y, weight, reduction="none")


def detached_asymmetric(x, t, gamma_neg, gamma_pos, clip):
    p = torch.sigmoid(x)
    p_m = (p - clip).clamp(min=0)
    weight = t * (1 - p).detach() ** gamma_pos + (1 - t) * p_m.detach() ** gamma_neg
    return -weight * (t * torch.log(p) + (1 - t) * torch.log(1 - p_m))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("loss", "definition", "hyper"),
    [
        (varifocal_loss, detached_varifocal, {"alpha": 0.75, "gamma": 2.0}),
        (asymmetric_loss, detached_asymmetric, {"gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05}),
    ],
    ids=["varifocal", "asymmetric"],
)
def test_detach_weight(impl, loss, definition, hyper):
    logits, labels = torch.randn(50, 3).double() * 2, torch.randint(0, 4, (50,))
    dense = F.one_hot(labels, 4)[:, :3].double()
    value, gradient = value_and_gradient(loss, logits, labels, detach_weight=True, impl=impl, **hyper)
    expected, expected_gradient = value_and_gradient(definition, logits, dense, **hyper)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)
    plain, plain_gradient = value_and_gradient(loss, logits, labels, impl=impl, **hyper)
    assert_close(plain, value)
    assert not torch.allclose(plain_gradient, gradient)


def test_detach_weight_is_a_switch():
    for module in (losses.VarifocalLoss, losses.AsymmetricLoss):
        with pytest.raises(ValueError, match=r"detach_weight is 1\.0; it must be True or False"):
            module(detach_weight=1.0)
        assert "detach_weight=True" in repr(module(detach_weight=True))


# The weights of softmax focal loss


@pytest.mark.slow
def test_the_fused_pass_has_a_weight_per_target():
    logits, labels, weight = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5)), torch.rand(2, 4, 5)
    given = {"reduction": "mean", "weight": weight}
    value, gradient = value_and_gradient(softmax_focal_loss, logits, labels, impl="compile", **given)
    expected, eager_gradient = value_and_gradient(softmax_focal_loss, logits, labels, impl="eager", **given)
    assert_close(value, expected)
    assert_close(gradient, eager_gradient)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 5), (3,)], ids=str)
def test_a_weight_per_target_of_a_softmax(shape):
    logits, outer = torch.randn(shape), shape[:1] + shape[2:] if len(shape) > 1 else ()
    labels, weight = torch.randint(0, 3, outer), torch.rand(outer)
    soft = torch.randn(shape).softmax(min(1, len(shape) - 1))
    for targets in (labels, soft):
        plain, gradient = value_and_gradient(softmax_focal_loss, logits, targets)
        value, weighted = value_and_gradient(softmax_focal_loss, logits, targets, weight=weight)
        assert_close(value, plain * weight)
        assert_close(weighted, gradient * (weight.unsqueeze(1) if len(shape) > 1 else weight))
        for reduction in ("sum", "mean"):  # the mean divides by the number of targets
            reduced = softmax_focal_loss(logits, targets, reduction=reduction, weight=weight)
            assert_close(reduced, getattr(plain * weight, reduction)())
    mask = weight > 0.5
    assert_close(
        softmax_focal_loss(logits, labels, weight=mask),
        softmax_focal_loss(logits, labels) * mask,
    )


def test_class_weights_are_not_taken_for_a_weight_per_target():
    with pytest.raises(
        ValueError, match=r"weight has shape \(3,\); .* \(6,\), one per target \(one per class"
    ):
        softmax_focal_loss(torch.zeros(6, 3), torch.zeros(6, dtype=torch.long), weight=torch.ones(3))


def test_a_one_hot_mask_of_a_softmax():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    for dtype in (torch.bool, torch.uint8):
        mask = F.one_hot(labels).to(dtype)
        assert_close(softmax_focal_loss(logits, mask), softmax_focal_loss(logits, labels))


# As mmdetection's heads pass it


def test_quality_focal_loss_of_rows_as_mmdetection_reduces_it():
    """mmdet sums the classes of a row and takes the mean of the rows, or divides their sum by a factor."""
    logits, labels = torch.randn(7, 3), torch.tensor([0, 3, 3, 2, 1, 3, 3])
    score, weight = torch.rand(7) * (labels < 3), torch.rand(7)
    p = torch.sigmoid(logits)
    rows = F.binary_cross_entropy_with_logits(logits, torch.zeros(7, 3), reduction="none") * p**2
    for row, label in enumerate(labels.tolist()):
        if label < 3:
            x, y = logits[row, label], score[row]
            rows[row, label] = F.binary_cross_entropy_with_logits(x, y) * (y - p[row, label]).abs() ** 2
    rows = rows.sum(1) * weight
    given = {"quality": score, "weight": weight}
    assert_close(quality_focal_loss(logits, labels, **given).sum(-1), rows)
    assert_close(quality_focal_loss(logits, labels, reduction="sum", **given) / 7, rows.mean())
    assert_close(quality_focal_loss(logits, labels, reduction="mean", **given) * 3, rows.mean())
