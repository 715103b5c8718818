import math

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes import paired_box_iou
from detloss.losses import binary_cross_entropy_with_logits, iou_aware_bce_loss, sigmoid_focal_loss
from helpers.definitions import TOLERANCE, iou_aware_bce, logits_and_targets, value_and_gradient

ALPHAS, GAMMAS = [0, 0.25, 0.5, 1], [0, 0.5, 1, 2.0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_definition(dtype, gamma, alpha):
    x, u = logits_and_targets(dtype)
    value, gradient = value_and_gradient(iou_aware_bce_loss, x, u, alpha, gamma)
    expected, expected_gradient = value_and_gradient(
        iou_aware_bce, x.double(), u.double(), alpha, gamma, u > 0
    )
    # the gradient of a positive is the difference p - t, and at alpha = 1 the label is the rounded p
    tolerance = TOLERANCE[dtype] | ({"atol": 1e-6} if dtype != torch.float64 else {})
    assert_close(value.double(), expected, **tolerance)
    assert_close(gradient.double(), expected_gradient, **tolerance)


def test_hand_calculated():
    # x = 0: cross entropy log 2 whatever the label is; a negative weighs (1/2)²
    x, u = torch.zeros(4), torch.tensor([1.0, 0.125, 1e-6, 0.0])
    value, gradient = value_and_gradient(iou_aware_bce_loss, x, u)
    assert_close(value, torch.tensor([1, 1, 1, 0.25]) * math.log(2))
    # p - t with t = (1/2)^(1/4), (1/2)^(1/4) (1/8)^(3/4) = (1/2)^(5/2), and the least label
    of_negative = 2 * 0.5 * 0.25 * math.log(2) + 0.25 * 0.5  # its weight carries gradient
    assert_close(gradient, torch.tensor([0.5 - 0.5**0.25, 0.5 - 0.5**2.5, 0.5 - 0.01, of_negative]))


@pytest.mark.parametrize("u", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("alpha", [0, 0.25, 0.7])
def test_the_gradient_is_zero_where_the_score_is_the_iou(u, alpha):
    below, at, above = torch.tensor([u - 0.05, u, u + 0.05]).logit().unbind()
    slopes = [
        value_and_gradient(iou_aware_bce_loss, x, torch.tensor(u), alpha)[1] for x in (below, at, above)
    ]
    assert slopes[0] < -1e-3
    assert abs(slopes[1]) < 1e-6
    assert slopes[2] > 1e-3


def test_alpha_zero_is_bce_to_the_iou_and_negatives_are_those_of_focal_loss():
    x, u = logits_and_targets(torch.float32)
    value, gradient = value_and_gradient(iou_aware_bce_loss, x, u.clamp(min=0.01), 0)
    expected, expected_gradient = value_and_gradient(binary_cross_entropy_with_logits, x, u.clamp(min=0.01))
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)
    none = torch.zeros_like(x)
    value, gradient = value_and_gradient(iou_aware_bce_loss, x, none, gamma=1.5)
    expected, expected_gradient = value_and_gradient(sigmoid_focal_loss, x, none, None, 1.5)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


def test_a_class_of_quality_zero_stays_a_positive_with_class_indices():
    x = torch.zeros(1, 2)
    _, gradient = value_and_gradient(iou_aware_bce_loss, x, torch.tensor([0]), quality=torch.zeros(1))
    assert_close(gradient[0, 0], torch.tensor(0.49))
    dense, _ = value_and_gradient(iou_aware_bce_loss, x, torch.zeros(1, 2))
    assert_close(dense, torch.full((1, 2), 0.25 * math.log(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0, 0), (1, 0.5), (0.5, torch.tensor(0.5))])
def test_finite_when_saturated(dtype, alpha, gamma):
    for x in (0.0, 6.2, 9.0, 16.6, -16.6, 44.0, -44.0, 88.5, -88.5, 104.0, -104.0, 1e4, -1e4):
        for u in (0.0, 1e-30, 1e-6, 0.3, 1.0):
            leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
            value = iou_aware_bce_loss(leaf, torch.tensor(u), alpha, gamma)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            (second,) = torch.autograd.grad(gradient, leaf)
            assert value.isfinite(), (x, u)
            assert gradient.isfinite(), (x, u)
            assert second.isfinite(), (x, u)
            assert value >= 0
    value, gradient = value_and_gradient(iou_aware_bce_loss, torch.tensor(1e30), torch.tensor(0.0))
    assert_close(value, torch.tensor(1e30))
    assert_close(gradient, torch.tensor(1.0))


def test_keeps_its_digits_where_it_is_tiny():
    # a negative at x = -16: p² and -log(1-p) are e^-32 and e^-16 to first order
    value = iou_aware_bce_loss(torch.tensor(-16.0), torch.tensor(0.0))
    assert_close(value, torch.tensor(math.exp(-48)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_derivatives_of_negatives(gamma):
    x = logits_and_targets(torch.float64, (8, 3))[0].requires_grad_()
    none = torch.zeros(8, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: iou_aware_bce_loss(x, none, gamma=gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: iou_aware_bce_loss(x, none, gamma=gamma), x)


def test_alpha_is_an_exponent_and_not_a_balance():
    x, index = torch.zeros(2, 3), torch.tensor([0, 3])
    for alpha, message in (
        (None, "alpha is None; it must be a number or a 0-dim tensor"),
        (-0.5, r"alpha is -0\.5; it must be at least 0"),
        (1.5, r"alpha is 1\.5; it must be in \[0, 1\]"),
        (torch.ones(3), r"alpha has shape \(3,\); it must be a number or a 0-dim tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            iou_aware_bce_loss(x, index, alpha)


@pytest.mark.parametrize("form", ["index", pytest.param("dense", marks=pytest.mark.slow)])
def test_compiled_is_eager(form):
    x, targets = logits_and_targets(torch.float32, (50, 7))
    keywords = {}
    if form == "index":
        keywords["quality"] = targets[:, 0].clone()
        targets = torch.randint(0, 8, (50,), generator=torch.Generator().manual_seed(2))
    for numbers in ((0.25, 2.0), (0.7, 1.5)):
        value, gradient = value_and_gradient(
            iou_aware_bce_loss, x, targets, *numbers, impl="compile", **keywords
        )
        expected, expected_gradient = value_and_gradient(
            iou_aware_bce_loss, x, targets, *numbers, impl="eager", **keywords
        )
        assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.clients
class TestAgainstTransformers:
    """LW-DETR's loss there, which its RF-DETR has too. It takes matched queries."""

    def theirs(self, logits, predicted, true, classes, rows):
        loss_lw_detr = pytest.importorskip("transformers.loss.loss_lw_detr")
        loss = loss_lw_detr.LwDetrImageLoss(None, logits.shape[-1], 0.25, ["labels"], 1)
        outputs = {"logits": logits[None], "pred_boxes": predicted[None]}
        targets = [{"class_labels": classes, "boxes": true}]
        matched = [(rows, torch.arange(len(rows)))]
        return loss.loss_labels(outputs, targets, matched, len(rows))["loss_ce"]

    def matched(self, dtype=torch.float32):
        """Logits of 30 queries, of which 6 are matched with a box each; their class indices and IoU."""
        generator = torch.Generator().manual_seed(0)
        logits = (torch.randn(30, 5, generator=generator) * 3).to(dtype)
        true = 0.3 + 0.4 * torch.rand(6, 4, generator=generator)
        predicted = 0.3 + 0.4 * torch.rand(30, 4, generator=generator)
        rows, classes = torch.tensor([3, 7, 8, 15, 22, 29]), torch.tensor([0, 4, 2, 2, 1, 3])
        labels, quality = torch.full((30,), 5), torch.ones(30)
        labels[rows] = classes
        quality[rows] = paired_box_iou(predicted[rows], true, fmt="cxcywh")
        return logits, predicted, true, classes, rows, labels, quality

    def test_value_and_gradient(self):
        logits, predicted, true, classes, rows, labels, quality = self.matched()
        ours, gradient = value_and_gradient(
            lambda x: iou_aware_bce_loss(x, labels, reduction="sum", quality=quality) / len(rows), logits
        )
        theirs, expected = value_and_gradient(
            lambda x: self.theirs(x, predicted, true, classes, rows), logits
        )
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert_close(gradient, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(("dtype", "logit"), [(torch.float32, 16.7), (torch.bfloat16, 6.3)])
    def test_theirs_is_infinite_at_a_confident_negative(self, dtype, logit):
        logits, predicted, true, classes, rows, labels, quality = self.matched(dtype)
        logits[0, 0] = logit
        assert self.theirs(logits, predicted, true, classes, rows).isinf()
        assert iou_aware_bce_loss(logits, labels, reduction="sum", quality=quality).isfinite()
