"""Heads whose rows have several anchors, and pyramids whose levels share a head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss.linear
from detloss.linear import LinearLoss, linear_loss
from detloss.losses import quality_focal_loss, sigmoid_focal_loss, softmax_focal_loss

A, C, K = 3, 4, 5
LOSSES = [sigmoid_focal_loss, quality_focal_loss, softmax_focal_loss]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(detloss.linear, "block_rows", lambda *_: 7)


def parts(*rows, anchors=A):
    generator = torch.Generator().manual_seed(0)
    shape = (*rows, anchors) if anchors > 1 else rows
    features = torch.randn(*rows, K, generator=generator)
    weight, bias = (
        torch.randn(anchors * C, K, generator=generator),
        torch.randn(anchors * C, generator=generator),
    )
    return features, weight, bias, torch.randint(0, C, shape, generator=generator)


def gradients(value, *leaves):
    return torch.autograd.grad(value.sum(), leaves)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("rows", [(20,), (2, 3, 5), ()], ids=str)
def test_anchors(loss, soft, reduction, rows):
    features, weight, bias, targets = (t.requires_grad_(t.is_floating_point()) for t in parts(*rows))
    if soft:
        targets = torch.rand(*rows, A, C).softmax(-1)
    else:
        targets.view(-1)[::5] = -100
    value = linear_loss(loss, features, weight, targets, linear_bias=bias, reduction=reduction, anchors=A)
    logits = F.linear(features, weight, bias).reshape(-1, C)
    flat = targets.reshape(-1, C) if soft else targets.reshape(-1)
    expected = loss(logits, flat, reduction=reduction)
    assert_close(value, expected.reshape(value.shape))
    if reduction == "none":
        assert value.shape == ((*rows, A) if loss is softmax_focal_loss else (*rows, A, C))
    leaves = (features, weight, bias)
    for ours, theirs in zip(gradients(value, *leaves), gradients(expected, *leaves)):
        assert_close(ours, theirs)


def test_anchors_lie_as_torchvision_has_them():
    """RetinaNet's head: channels a * C + c, and logits (B, H * W * A, C)."""
    conv = nn.Conv2d(K, A * C, 1)
    features, targets = torch.randn(2, K, 3, 4), torch.randint(0, C + 1, (2, 3, 4, A))
    logits = conv(features).view(2, A, C, 3, 4).permute(0, 3, 4, 1, 2).reshape(2, -1, C)
    expected = sigmoid_focal_loss(logits, targets.reshape(2, -1), reduction="mean")
    assert_close(LinearLoss(conv, sigmoid_focal_loss, anchors=A)(features, targets), expected)


def test_what_holds_one_value_per_anchor_is_cut_too():
    features, weight, _, targets = parts(20)
    quality, factor = torch.rand(20, A), torch.rand(20, A)
    value = linear_loss(
        quality_focal_loss, features, weight, targets, anchors=A, quality=quality, weight=factor
    )
    logits = F.linear(features, weight).reshape(20, A, C)
    assert_close(value, quality_focal_loss(logits, targets, reduction="sum", quality=quality, weight=factor))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("anchors", [1, A])
def test_levels(loss, reduction, anchors):
    levels = [parts(2, side, side, anchors=anchors) for side in (4, 2, 1)]
    _, weight, bias, _ = levels[0]
    features = [level[0].requires_grad_() for level in levels]
    targets = [level[3] for level in levels]
    targets[0].view(-1)[::3] = -100
    leaves = (*features, weight.requires_grad_(), bias.requires_grad_())
    given = {"linear_bias": bias, "reduction": reduction, "anchors": anchors}
    value = linear_loss(loss, features, weight, targets, **given)
    logits = torch.cat([F.linear(level, weight, bias).reshape(-1, C) for level in features])
    expected = loss(logits, torch.cat([level.flatten() for level in targets]), reduction=reduction)
    assert_close(value, expected.reshape(value.shape))
    for ours, theirs in zip(gradients(value, *leaves), gradients(expected, *leaves)):
        assert_close(ours, theirs)


def test_levels_of_a_convolution_with_their_qualities():
    conv = nn.Conv2d(K, C, 1)
    levels = [torch.randn(2, K, side, side) for side in (4, 2)]
    targets = [torch.randint(0, C + 1, (2, side, side)) for side in (4, 2)]
    quality = [torch.rand(2, side, side) for side in (4, 2)]
    module = LinearLoss(conv, quality_focal_loss, reduction="sum")
    expected = sum(module(x, t, quality=q) for x, t, q in zip(levels, targets, quality))
    assert_close(module(levels, targets, quality=quality), expected)
    dense = [F.one_hot(level, C + 1)[..., :C].bool() for level in targets]
    assert_close(module(levels, dense), module(levels, targets))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": 5}, r"anchors is 5; .* the 12 rows of linear_weight are a multiple"),
        ({"anchors": 0}, "anchors is 0"),
        (
            {"anchors": 2},
            r"targets have shape \(20, 3\); .* class indices \(20, 2\) or soft labels \(20, 2, 6\)",
        ),
        ({"input": [torch.zeros(20, K)]}, "input is a list of 1 levels; targets must be a list of as many"),
        (
            {"input": [torch.zeros(4, K)], "targets": [torch.zeros(5, A)]},
            r"targets\[0\] has shape \(5, 3\); for input\[0\] of shape \(4, 5\)",
        ),
    ],
)
def test_errors(change, message):
    features, weight, _, targets = parts(20)
    given = {"input": features, "linear_weight": weight, "targets": targets, "anchors": A} | change
    with pytest.raises(ValueError, match=message):
        linear_loss(sigmoid_focal_loss, **given)


def test_one_hot_integers_are_not_taken_for_anchors():
    features, weight, _, _ = parts(20)
    with pytest.raises(ValueError, match="targets"):
        linear_loss(sigmoid_focal_loss, features, weight, torch.zeros(20, A * C, dtype=torch.long))
