"""Probes of the way that a loss pushes: faulty losses that match nothing, and sound ones beside them."""

import pytest
import torch
from doctor_subjects import subject
from test_doctor_probes import BOX_LOSSES, LOGIT_LOSSES, bce
from torch.nn import functional as F

import detloss
from detloss.doctor.matching.identify import identify
from detloss.doctor.probes.direction import direction


def told(loss, kind="classification", reduction="none", **more):
    own = subject(loss, kind, reduction, **more)
    return direction(own, identify(own))


def areas(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def test_a_weight_that_falls_for_wrong_negatives():
    def focal(x, t):
        return (1 - x.sigmoid()) ** 2 * bce(x, t)

    assert identify(subject(focal)).name is None
    (finding,) = told(focal)
    assert (finding.code, finding.level) == ("wrong-gradient", "error")
    assert "further away" in finding.message
    assert "target 0" in finding.evidence
    assert told(focal, reduction="mean") == told(focal)
    x = torch.tensor([float(finding.evidence.split()[1].strip(","))], requires_grad=True)
    focal(x, torch.zeros(1)).backward()
    assert x.grad.item() == pytest.approx(float(finding.evidence.split(": ")[1].split()[0]), rel=1e-3)


@pytest.mark.parametrize(("low", "logit"), [(0.02, 3.89), (1e-4, 9.21)])
def test_probabilities_that_are_clamped(low, logit):
    def clamped(x, t):
        p = x.sigmoid().clamp(low, 1 - low)
        p_t = p * t + (1 - p) * (1 - t)
        return -((1 - p_t) ** 2) * p_t.log()

    assert identify(subject(clamped)).name == (None if low > 0.01 else "focal")
    (finding,) = told(clamped)
    assert (finding.code, finding.level) == ("wrong-gradient", "warning")
    assert float(finding.evidence.split("-")[1].split(",")[0]) == pytest.approx(logit, abs=0.05)


def test_what_compares_probabilities_dies_out():
    (finding,) = told(lambda x, t: (x.sigmoid() - t) ** 2)
    assert finding.level == "warning"
    assert "Dice" in finding.remedy


def test_a_side_that_learns_nothing():
    (finding,) = told(lambda x, t: t * bce(x, t) + 0.1 * (1 - t))
    assert finding.level == "error"
    assert "for target 0" in finding.message


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_sigmoid_and_softmax_twice(reduction):
    def sigmoid(x, t):
        cross = bce(x.sigmoid(), t)
        value = (1 - torch.exp(-cross)) ** 2 * cross
        return value if reduction == "none" else value.mean()

    def softmax(x, t):
        return F.cross_entropy(x.softmax(1), t, reduction=reduction)

    for loss, kind in ((sigmoid, "classification"), (softmax, "softmax")):
        (finding,) = told(loss, kind, reduction)
        assert finding.level == "error"
        assert f"{loss.__name__} is applied twice" in finding.message


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        *((loss, "classification") for loss in LOGIT_LOSSES),
        *((loss, "box") for loss in BOX_LOSSES),
        (detloss.softmax_focal_loss, "softmax"),
        (detloss.distribution_focal_loss, "distribution"),
        (lambda x, t: F.softplus(3 * x * (1 - 2 * t)), "classification"),  # steeper than any known one
        (lambda x, t: bce(x, 0.9 * t), "classification"),
        (lambda x, t: torch.relu(1 + x * (1 - 2 * t)), "classification"),
        (lambda a, b: (a - b).abs().sum(-1), "box"),
        (lambda a, b: 1 - detloss.paired_box_iou(a, b, "ciou") + (a - b).square().mean(-1), "box"),
        (lambda a, b: detloss.paired_box_iou(a, b), "box"),  # a similarity: another's finding
    ],
)
def test_sound_losses_push_the_right_way(loss, kind):
    assert told(loss, kind) == []


def test_boxes_of_two_formats():
    def mixed(a, b):
        corners = torch.cat((a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2), 1)
        return 1 - detloss.paired_box_iou(corners, b)

    (finding,) = told(mixed, "box")
    assert finding.level == "error"
    assert "pushed off" in finding.message


def test_an_overlap_that_is_not_clamped():
    def unclamped(a, b):
        sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
        overlap = sides.prod(1)
        return 1 - overlap / (areas(a) + areas(b) - overlap)

    def one_area_twice(a, b):
        lower, upper = torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])
        sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
        overlap, hull = sides.prod(1), (upper - lower).prod(1)
        union = 2 * areas(a) - overlap
        return 1 - overlap / union + (hull - union) / hull

    for loss, word in ((unclamped, "slides off"), (one_area_twice, "grows beyond")):
        (finding,) = told(loss, "box")
        assert finding.level == "error"
        assert word in finding.message
