"""Probes of values, gradients and arguments: a faulty loss for each, and a sound one beside it."""

import re
from functools import partial

import pytest
import torch
from doctor_subjects import codes, findings, subject
from torch.nn import functional as F

import detloss
from detloss.doctor.findings import CODES
from detloss.doctor.matching.identify import identify
from detloss.doctor.matching.known import ON_SOFT_TARGETS
from detloss.doctor.probes import PROBES, gradients, state, values

LOGIT_LOSSES = [
    detloss.binary_cross_entropy_with_logits,
    detloss.sigmoid_focal_loss,
    detloss.quality_focal_loss,
    detloss.varifocal_loss,
    detloss.poly_focal_loss,
    detloss.asymmetric_loss,
    detloss.matchability_aware_loss,
    detloss.sample_dependent_focal_loss,
]
BOX_LOSSES = [
    detloss.box_iou_loss,
    detloss.generalized_box_iou_loss,
    detloss.distance_box_iou_loss,
    detloss.complete_box_iou_loss,
    detloss.efficient_box_iou_loss,
]
AFTER_FOCAL = (
    detloss.sigmoid_focal_loss,
    detloss.poly_focal_loss,
    detloss.asymmetric_loss,
    detloss.sample_dependent_focal_loss,
)
OURS = (
    [(loss, "classification") for loss in LOGIT_LOSSES]
    + [(loss, "box") for loss in BOX_LOSSES]
    + [(detloss.distribution_focal_loss, "distribution"), (detloss.softmax_focal_loss, "softmax")]
)


def bce(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


@pytest.mark.parametrize(("loss", "kind"), OURS, ids=lambda value: getattr(value, "__name__", value))
def test_nothing_false_about_this_package(loss, kind):
    own = subject(loss, kind, takes=("gamma",) if loss is detloss.sigmoid_focal_loss else ())
    match = identify(own)
    found = findings(own, match)
    expected = set()  # focal loss on soft labels is what it is, and so are those made after it
    if loss in AFTER_FOCAL:
        expected.add("soft-target-minimiser")
    codes = {f.code for f in found if f.level != "note"}
    if loss is detloss.asymmetric_loss:
        codes.discard("memory")  # of the eager loss; none where another test has compiled its pass
    assert codes == expected, found


@pytest.mark.parametrize("loss", [detloss.sigmoid_focal_loss, detloss.generalized_box_iou_loss])
def test_nothing_false_about_its_means(loss):
    kind = "box" if loss is detloss.generalized_box_iou_loss else "classification"
    own = subject(partial(loss, reduction="mean"), kind, "mean")
    assert codes(own, identify(own), level="error") == set()
    assert codes(own, identify(own), level="warning") <= {"soft-target-minimiser"}


def raises(x, t):
    raise RuntimeError("always")


def at_large_logits(x, t):
    assert (x.abs() < 5).all(), "logits are too large"
    return bce(x, t)


@pytest.mark.parametrize("kind", ["classification", "softmax", "box", "distribution"])
@pytest.mark.parametrize(
    "loss", [raises, lambda x, t: None, lambda x, t: x.sum() * torch.nan, lambda x, t: x[:0]]
)
def test_no_probe_crashes(loss, kind):
    for reduction in ("none", "mean"):
        own = subject(loss, kind, reduction, takes=("alpha", "gamma", "reduction"))
        found = findings(own, identify(own))
        assert all(f.code in CODES and f.message and f.evidence and f.remedy for f in found)


def test_probes_have_names():
    assert all((name == name.strip() and " " in name) or name.islower() for name in PROBES)


# values


def log_of_softmax(x, t):
    return -x.softmax(1).gather(1, t[:, None])[:, 0].log()


def log_of_sigmoid(x, t):
    p = x.sigmoid()
    return -(t * p.log() + (1 - t) * (1 - p).log())


def test_values_that_are_not_finite():
    (finding,) = values.not_finite_value(subject(log_of_softmax, "softmax"), None)
    assert (finding.code, finding.level) == ("not-finite-value", "error")
    assert "inf" in finding.message
    begins = float(finding.message.split("-")[-1].split(",")[0])
    assert 87 < begins < 105  # float32's smallest number is e^-103.3
    (finding,) = values.not_finite_value(subject(log_of_sigmoid), None)
    assert "logit 17, target 1" not in finding.message
    assert "NaN" in finding.message
    assert values.not_finite_value(subject(bce), None) == []
    assert values.not_finite_value(subject(partial(F.cross_entropy, reduction="none"), "softmax"), None) == []


def test_where_it_raises():
    (finding,) = values.not_finite_value(subject(at_large_logits), None)
    assert "logits are too large" in finding.evidence
    assert "logit 5" in finding.message


def test_logarithm_of_a_probability_without_eps():
    def of_probabilities(p, t):
        return -(t * p.log() + (1 - t) * (1 - p).log())

    own = subject(of_probabilities, probabilities=True)
    assert codes(own, only=values.not_finite_value) == {"not-finite-value", "no-eps"}

    def with_eps(p, t):
        p = p.clamp(1e-7, 1 - 1e-7)
        return -(t * p.log() + (1 - t) * (1 - p).log())

    assert codes(subject(with_eps, probabilities=True), only=values.not_finite_value) == set()


def iou(a, b, eps):
    w = (torch.minimum(a[:, 2], b[:, 2]) - torch.maximum(a[:, 0], b[:, 0])).clamp(min=0)
    h = (torch.minimum(a[:, 3], b[:, 3]) - torch.maximum(a[:, 1], b[:, 1])).clamp(min=0)
    area = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    return w * h / (area[0] + area[1] - w * h + eps)


def test_boxes_without_area():
    own = subject(lambda a, b: 1 - iou(a, b, 0.0), "box")
    found = {f.code: f for f in values.not_finite_value(own, identify(own))}
    assert set(found) == {"not-finite-value", "no-eps"}
    assert "two equal points" in found["no-eps"].evidence
    sound = subject(lambda a, b: 1 - iou(a, b, 1e-7), "box")
    assert values.not_finite_value(sound, identify(sound)) == []


def test_logarithm_of_an_iou_of_nothing():
    own = subject(lambda a, b: -iou(a, b, 1e-7).log(), "box")
    match = identify(own)
    assert (match.name, match.convention["form"]) == ("iou", "-log x")
    found = {f.code: f for f in values.not_finite_value(own, match)}
    assert "logarithm of 0" in found["no-eps"].message
    assert "boxes apart" in found["not-finite-value"].message


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (lambda a, b: iou(a, b, 1e-7), "box"),
        (lambda x, t: -bce(x, t), "classification"),
        (lambda x, t: x.log_softmax(1).gather(1, t[:, None])[:, 0], "softmax"),
        (lambda x, y: -detloss.distribution_focal_loss(x, y), "distribution"),
    ],
)
def test_similarities(loss, kind):
    own = subject(loss, kind)
    (finding,) = values.similarity_not_loss(own, identify(own))
    assert (finding.code, finding.level) == ("similarity-not-loss", "error")
    opposite = subject(lambda x, t: -loss(x, t), kind)
    assert values.similarity_not_loss(opposite, identify(opposite)) == []


def test_soft_targets():
    (finding,) = values.soft_target_minimiser(subject(partial(detloss.sigmoid_focal_loss, alpha=None)), None)
    assert "t = 0.3: smallest at p = 0.122" in finding.evidence  # a number of the field
    assert values.soft_target_minimiser(subject(detloss.quality_focal_loss), None) == []
    field = {"each term its own weight": 0.421, "p_t = σ(x (2t-1))": 0.0, "p_t = exp(-BCE)": 0.3}
    for name, p in field.items():
        own = subject(partial(ON_SOFT_TARGETS[name], gamma=2.0))
        assert identify(own).convention["soft_targets"] == name
        found = values.soft_target_minimiser(own, None)
        assert len(found) == (p != 0.3)
        for finding in found:
            assert float(re.search(r"p = ([\d.]+)", finding.evidence)[1]) == pytest.approx(p, abs=2e-3)
    for name in ("targets cut to 0", "targets rounded", "1 - p_t from t > 0"):
        own = subject(partial(ON_SOFT_TARGETS[name], gamma=2.0))
        assert codes(own, only=values.soft_target_minimiser) == {"soft-target-minimiser"}

    def cut(x, t):
        return bce(x, t.long().to(x.dtype))

    (finding,) = values.soft_target_minimiser(subject(cut), None)
    assert "t = 0.8: smallest at p = 0.000" in finding.evidence


def test_alpha_inverted():
    def pair(x, t, alpha=0.25):
        weights = torch.tensor([alpha, 1 - alpha], dtype=x.dtype)
        return weights[t.long()] * bce(x, t)

    own = subject(pair, takes=("alpha",))
    (finding,) = values.alpha_inverted(own, identify(own))
    assert finding.level == "error"
    assert "with alpha = 0.25 a target of 1 weighs 0.75" in finding.evidence
    right = subject(lambda x, t, alpha=0.25: pair(x, t, 1 - alpha), takes=("alpha",))
    assert values.alpha_inverted(right, identify(right)) == []
    unnamed = subject(lambda x, t: pair(x, t))
    (finding,) = values.alpha_inverted(unnamed, identify(unnamed))
    assert finding.level == "note"


# gradients


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, t):
        ctx.save_for_backward(x, t)
        return bce(x, t)

    @staticmethod
    def backward(ctx, outer):
        x, t = ctx.saved_tensors
        return outer * (t - x.sigmoid()), None  # the sign


def test_wrong_gradient():
    own = subject(WrongBackward.apply)
    (finding,) = gradients.wrong_gradient(own, identify(own))
    assert (finding.code, finding.level) == ("wrong-gradient", "error")
    assert gradients.wrong_gradient(subject(bce), identify(subject(bce))) == []


def test_detached_weight():
    def focal(x, t):
        return bce(x, t) * (1 - torch.exp(-bce(x, t))).detach() ** 2

    own = subject(focal)
    (finding,) = gradients.wrong_gradient(own, identify(own))
    assert finding.level == "warning"
    assert "weight" in finding.message
    own = subject(detloss.matchability_aware_loss)
    (finding,) = gradients.wrong_gradient(own, identify(own))
    assert finding.level == "note"


def test_gradient_of_boxes_is_checked():
    def half(a, b):
        return detloss.generalized_box_iou_loss(a.detach() + (a - a.detach()) / 2, b)

    own = subject(half, "box")
    assert codes(own, identify(own), gradients.wrong_gradient) == {"wrong-gradient"}
    for loss in BOX_LOSSES:
        own = subject(loss, "box")
        assert gradients.wrong_gradient(own, identify(own)) == []


def test_gradients_that_are_not_finite():
    def root(x, t):
        p_t = x.sigmoid() * t + (1 - x.sigmoid()) * (1 - t)
        return (1 - p_t) ** 0.5 * bce(x, t)

    (finding,) = gradients.not_finite_gradient(subject(root), None)
    assert (finding.code, finding.level) == ("not-finite-gradient", "error")

    def focal(x, t, gamma=2.0):
        p_t = x.sigmoid() * t + (1 - x.sigmoid()) * (1 - t)
        return (1 - p_t) ** gamma * bce(x, t)

    (finding,) = gradients.not_finite_gradient(subject(focal, takes=("gamma",)), None)
    assert finding.level == "warning"
    assert "with gamma = 0.5" in finding.message
    assert gradients.not_finite_gradient(subject(focal), None) == []
    ours = subject(detloss.sigmoid_focal_loss, takes=("gamma",))
    assert gradients.not_finite_gradient(ours, None) == []


def test_gradients_of_boxes_without_height():
    def aspect(a, b):
        angles = [torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1])) for box in (a, b)]
        return 1 - iou(a, b, 1e-7) + (angles[0] - angles[1]) ** 2

    (finding,) = gradients.not_finite_gradient(subject(aspect, "box"), None)
    assert "a prediction without height" in finding.message
    sound = subject(detloss.complete_box_iou_loss, "box")
    assert gradients.not_finite_gradient(sound, None) == []


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, t: bce(x.detach(), t),
        lambda x, t: torch.from_numpy(bce(x, t).numpy()),
        lambda x, t: ((x > 0).to(x.dtype) - t).abs(),
        lambda x, t: bce(x, t).detach().requires_grad_(),
    ],
)
def test_not_differentiable(loss):
    (finding,) = gradients.not_differentiable(subject(loss), None)
    assert (finding.code, finding.level) == ("not-differentiable", "error")
    assert gradients.not_differentiable(subject(bce), None) == []


# arguments and state


def scale_in_place(x, t):
    return bce(x.mul_(2), t)


def clamp_targets(x, t):
    return bce(x, t.clamp_(0.01, 0.99))


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, t):
        self.calls += 1
        return bce(x, t) * self.calls


def narrow_default(x, t):
    torch.set_default_dtype(torch.float64)
    return bce(x, t)


def test_what_it_changes():
    for loss, word in ((scale_in_place, "predictions"), (clamp_targets, "targets")):
        (finding,) = state.mutates_input(subject(loss), None)
        assert (finding.code, finding.level) == ("mutates-input", "error")
        assert word in finding.message
        assert " was " in finding.evidence
    (finding,) = state.mutates_input(subject(Counting()), None)
    assert "second time" in finding.message
    (finding,) = state.mutates_input(subject(narrow_default), None)
    assert "torch's settings" in finding.message
    assert torch.get_default_dtype() == torch.float32
    assert state.mutates_input(subject(bce), None) == []
    # in place, but on a tensor of its own
    assert state.mutates_input(subject(lambda x, t: (x * 2).mul_(t)), None) == []


def test_distances_clamped_in_place_show_at_the_last_bin():
    def clamping(x, y):
        return detloss.distribution_focal_loss(x, y.clamp_(0, x.shape[-1] - 1.01))

    (finding,) = state.mutates_input(subject(clamping, "distribution"), None)
    assert "targets[0] was 8" in finding.evidence


def test_dtypes():
    for loss in (
        lambda x, t: bce(x.float(), t.float()),
        lambda x, t: bce(x, t).to(torch.float32),
        lambda x, t: torch.zeros(x.shape).copy_(x) * 1.0,
    ):
        assert codes(subject(loss), only=state.dtype_hardcoded) == {"dtype-hardcoded"}
    matrix = subject(lambda x, t: (x @ torch.eye(x.shape[-1])) * t)
    assert codes(matrix, only=state.dtype_hardcoded) == {"dtype-hardcoded"}
    assert codes(subject(bce), only=state.dtype_hardcoded) == set()


def test_reduction():
    mean = subject(lambda x, t: bce(x, t).mean(), reduction="mean")
    (finding,) = state.reduction(mean, identify(mean))
    assert finding.level == "note"
    assert "background" in finding.message

    def ignoring(x, t, reduction="mean"):
        return bce(x, t).mean()

    own = subject(ignoring, reduction="mean", takes=("reduction",))
    assert codes(own, None, state.reduction, "warning") == {"reduction"}
    ours = subject(detloss.sigmoid_focal_loss, takes=("reduction",))
    assert codes(ours, identify(ours), state.reduction) == set()
