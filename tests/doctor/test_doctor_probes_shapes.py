"""Probes of shapes, half precision, devices and cost: a faulty loss for each, and a sound one beside it."""

import re
from functools import partial

import pytest
import torch
from doctor_subjects import codes, subject
from torch.nn import functional as F

import detloss
from detloss.doctor.matching.identify import identify
from detloss.doctor.probes import cost, shapes
from detloss.doctor.probes.devices import device_hardcoded
from detloss.doctor.probes.modes import Elsewhere, TwoDevices


def bce(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def test_empty():
    mean = subject(lambda x, t: bce(x, t).mean(), reduction="mean")
    (finding,) = shapes.breaks_empty(mean, None)
    assert "nan" in finding.evidence
    assert finding.level == "warning"
    summed = subject(lambda x, t: bce(x, t).sum(), reduction="sum")
    assert shapes.breaks_empty(summed, None) == []
    largest = subject(lambda x, t: bce(x - x.max(), t))
    (finding,) = shapes.breaks_empty(largest, None)
    assert "N = 0" in finding.message

    def nothing(x, t):
        return bce(x, t).sum() if len(x) else torch.tensor(0.0)

    (finding,) = shapes.breaks_empty(subject(nothing, reduction="sum"), None)
    assert "no gradient" in finding.message


def test_no_positives():
    def per_positive(x, t):
        return bce(x, t).sum() / t.sum()

    found = shapes.breaks_empty(subject(per_positive, reduction="other"), None)
    assert {f.level for f in found if "no positives" in f.message} == {"error"}

    def at_least_one(x, t):
        return bce(x, t).sum() / t.sum().clamp(min=1)

    assert shapes.breaks_empty(subject(at_least_one, reduction="other"), None) == []


def test_one_class():
    def squeezed(x, t):
        return bce(x, t).squeeze().sum(1)

    (finding,) = [f for f in shapes.breaks_empty(subject(squeezed), None) if "C = 1" in f.message]
    assert finding.code == "breaks-empty"


def test_not_contiguous():
    (finding,) = shapes.breaks_noncontiguous(subject(lambda x, t: bce(x.view(-1), t.view(-1))), None)
    assert "view" in finding.evidence

    def by_storage(x, t):
        return bce(x.as_strided(x.shape, (x.shape[1], 1)), t)

    (finding,) = shapes.breaks_noncontiguous(subject(by_storage), None)
    assert "another value" in finding.message
    for kind, loss in (("classification", bce), ("box", detloss.generalized_box_iou_loss)):
        assert shapes.breaks_noncontiguous(subject(loss, kind), None) == []


def test_half_precision():
    def log_of_sigmoid(x, t):
        p = x.sigmoid()
        return -(t * p.log() + (1 - t) * (1 - p).log())

    (finding,) = shapes.breaks_half(subject(log_of_sigmoid), None)
    assert finding.message.endswith("float16 and bfloat16")
    refusing = subject(lambda x, t: bce(x, t) + x @ torch.ones(x.shape[-1], 1))
    assert codes(refusing, only=shapes.breaks_half) == {"breaks-half"}

    def areas(a, b):
        return 1 - detloss.box_iou(a, b).diagonal() + 0 * (a[:, 2] * a[:, 3])

    (finding, *_) = shapes.breaks_half(subject(areas, "box"), None)
    assert "float16" in finding.message  # areas end at 65504 there
    for loss in (bce, detloss.sigmoid_focal_loss, detloss.quality_focal_loss):
        assert shapes.breaks_half(subject(loss), None) == []
    assert shapes.breaks_half(subject(detloss.complete_box_iou_loss, "box"), None) == []


def squares(x, t):
    return (x.sigmoid() - t) ** 2


def test_broadcast():
    (finding,) = shapes.silent_broadcast(subject(squares), None)
    assert (finding.code, finding.level) == ("silent-broadcast", "warning")
    assert "targets (6, 1)" in finding.evidence
    assert "so do predictions (5, 5), targets (5,)" in finding.evidence
    assert shapes.silent_broadcast(subject(bce), None) == []
    assert shapes.silent_broadcast(subject(detloss.sigmoid_focal_loss), None) == []


def test_broadcast_of_boxes():
    def centres(a, b):
        return (a - b).square().sum(-1)

    (finding,) = shapes.silent_broadcast(subject(centres, "box"), None)
    assert "targets (1, 4)" in finding.evidence
    assert shapes.silent_broadcast(subject(detloss.box_iou_loss, "box"), None) == []
    # every box with every other is no broadcasting
    assert shapes.silent_broadcast(subject(detloss.box_iou, "box", "other"), None) == []

    def columns(a, b):
        assert a.shape == b.shape
        return (a - b).square().sum(-1, keepdim=True)

    (finding,) = shapes.silent_broadcast(subject(columns, "box"), None)
    assert "(N, 1)" in finding.message


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_broadcast_inside(reduction):
    def gathered(x, t):
        assert x.shape == t.shape
        weights = torch.tensor([0.75, 0.25]).gather(0, t.long().view(-1))
        if x.shape[1] > 1:
            weights = weights.view(x.shape)
        loss = weights * bce(x, t)
        return loss if reduction == "none" else loss.mean()

    own = subject(gathered, reduction=reduction)
    assert codes(own, identify(own), shapes.silent_broadcast, "error") == {"silent-broadcast"}


# cost


def per_positive(x, t):
    weight = 0.75 * x.sigmoid() ** 2
    rows, columns = torch.where(t > 0)
    for i in range(len(rows)):
        weight[rows[i], columns[i]] = t[rows[i], columns[i]]
    return weight * bce(x, t)


def test_loops():
    (finding,) = cost.python_loop(subject(per_positive), None)
    assert finding.code == "python-loop"
    assert "positives" in finding.message
    few, many = (
        int(number.replace(",", ""))
        for number in re.findall(r"([\d,]+) (?:operations )?for", finding.evidence)
    )
    assert many - few >= 60

    def per_row(x, t):
        return torch.stack([bce(a, b).sum() for a, b in zip(x, t)])

    (finding,) = cost.python_loop(subject(per_row, reduction="other"), None)
    assert "rows" in finding.message

    def per_pair(a, b):
        return torch.cat([detloss.box_iou_loss(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])

    (finding,) = cost.python_loop(subject(per_pair, "box"), None)
    assert "pairs of boxes" in finding.message
    assert cost.python_loop(subject(bce), None) == []


def test_a_loop_over_classes_is_none_over_positives():
    def per_class(x, t):
        return torch.stack([bce(x[:, c], t[:, c]) for c in range(x.shape[1])], 1)

    assert cost.python_loop(subject(per_class), None) == []


def test_memory():
    def every_pair(x, t):
        return (bce(x, t).sum(1)[:, None] * bce(x, t).sum(1)[None, :]).sum(1)

    def wasteful(x, t):
        for _ in range(20):
            x = (x * 2).tanh()
        return bce(x, t)

    (finding,) = cost.memory(subject(wasteful, reduction="other"), None)
    assert finding.level == "warning"
    kept = float(finding.message.split("keeps ")[1].split()[0])
    assert kept >= 20  # a tanh keeps its result

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, t):
            ctx.save_for_backward(x.sigmoid() - t)
            return bce(x, t)

        @staticmethod
        def backward(ctx, outer):
            return outer * ctx.saved_tensors[0], None

    assert cost.memory(subject(Fused.apply), None) == []  # the gradient, once
    assert codes(subject(every_pair, reduction="other"), only=cost.memory) <= {"memory"}


# devices


class Weighted(torch.nn.Module):
    def __init__(self, buffer):
        super().__init__()
        if buffer:
            self.register_buffer("weights", torch.tensor([0.75, 0.25]))
        else:
            self.weights = torch.tensor([0.75, 0.25])

    def forward(self, x, t):
        return self.weights[t.long()] * bce(x, t)


def with_mask(x, t):
    mask = torch.zeros(x.shape)
    return bce(x, t) * (1 + mask)


def with_own_mask(x, t):
    mask = torch.zeros(x.shape, device=x.device, dtype=x.dtype)
    mask[t > 0] = 1
    chosen = torch.where(t > 0)
    return bce(x, t) * (1 + mask) * torch.tensor(0.5) + 0 * len(chosen[0]) * x[torch.arange(len(x))]


def test_devices():
    for loss in (Weighted(False), with_mask):
        (finding,) = device_hardcoded(subject(loss), None)
        assert finding.code == "device-hardcoded"
    for loss in (Weighted(True), with_own_mask, bce, per_positive, detloss.varifocal_loss):
        assert device_hardcoded(subject(loss), None) == [], loss
    assert device_hardcoded(subject(detloss.softmax_focal_loss, "softmax"), None) == []
    assert device_hardcoded(subject(detloss.distribution_focal_loss, "distribution"), None) == []


def test_played_device_computes():
    x = torch.linspace(-2, 2, 5)
    for device in ("meta", "xla"):
        with TwoDevices(device) as mode:
            there = Elsewhere(x, device)
            assert there.device.type == device
            result = (there * 2 + torch.tensor(1.0)).exp().sum()
            assert isinstance(result, Elsewhere)
        assert mode.mixed == ""
        assert float(result.held) == pytest.approx(float((x * 2 + 1).exp().sum()))
    with TwoDevices("meta") as mode:
        Elsewhere(x, "meta") * x
    assert mode.mixed == "mul"


def test_reduced_losses_are_probed_alike():
    for reduction in ("mean", "sum"):
        loss = partial(F.binary_cross_entropy_with_logits, reduction=reduction)
        assert codes(subject(loss, reduction=reduction), only=cost.python_loop) == set()
        assert codes(subject(loss, reduction=reduction), only=shapes.silent_broadcast) == set()


def test_every_prediction_with_every_target():
    def elements(x, t):  # (N,) against (N, 1)
        return F.binary_cross_entropy_with_logits(*torch.broadcast_tensors(x.view(-1), t.view(-1, 1)))

    def boxes(a, b):
        return (1 - detloss.box_iou(a, b)).mean()

    for loss, kind, columns in ((elements, "classification", False), (boxes, "box", True)):
        own = subject(loss, kind, "mean", columns=columns)
        match = identify(own)
        assert match.convention["reduction"] == "mean over every prediction with every target"
        assert [f.level for f in shapes.silent_broadcast(own, match) if "N × N" in f.message] == ["error"]
    worst = subject(lambda x, t: bce(x, t).view(-1).topk(min(4, x.numel())).values.mean(), reduction="other")
    assert identify(worst).convention["reduction"].startswith("other")


def test_targets_to_ignore():
    def gathered(x, t, ignore_index=-100):
        loss = -x.log_softmax(1).gather(1, t[:, None]).squeeze(1)
        return loss[t != ignore_index].mean()

    def counted(x, t, ignore_index=-100):
        loss = -x.log_softmax(1).gather(1, t.clamp(min=0)[:, None]).squeeze(1)
        return loss.mean()

    def sound(x, t, ignore_index=-100):
        return F.cross_entropy(x, t, ignore_index=ignore_index)

    found = [
        shapes.ignored(subject(one, "softmax", "mean", defaults={"ignore_index": -100}), None)
        for one in (gathered, counted, sound)
    ]
    assert [[f.code for f in one] for one in found] == [["crashes"], ["wrong-gradient"], []]


def test_what_raises_with_a_gradient_is_told_once():
    def in_place(x, t):
        p = x.sigmoid()
        value = p * t
        p.clamp_(0.1, 0.9)
        return value.log()

    own = subject(in_place)
    assert codes(own, only=shapes.breaks_empty) == codes(own, only=shapes.breaks_half) == set()
