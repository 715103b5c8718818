import json
import math
from functools import partial

import pytest
import torch
from doctor_subjects import subject
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import detloss
from detloss.boxes import box_convert, paired_box_iou
from detloss.doctor.matching.identify import identify
from detloss.doctor.matching.known import PEERS
from detloss.doctor.matching.regression import sample_boxes


def bce(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def focal_by_exp(x, t, alpha=0.25, gamma=2.0):
    ce = bce(x, t)
    return (alpha * t + (1 - alpha) * (1 - t)) * (1 - torch.exp(-ce)) ** gamma * ce


def focal_by_where(x, t, alpha=0.25, gamma=2.0):
    p = x.sigmoid()
    positive = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    return torch.where(t == 1, positive, negative)


def focal_by_clamp(x, t, alpha=0.25, gamma=2.0):
    p = x.sigmoid().clamp(1e-7, 1 - 1e-7)
    p_t = p * t + (1 - p) * (1 - t)
    return -(alpha * t + (1 - alpha) * (1 - t)) * (1 - p_t) ** gamma * p_t.log()


def focal_of_probabilities(p, t, alpha=0.25, gamma=2.0):
    eps = 1e-8
    positive = -alpha * (1 - p) ** gamma * t * torch.log(p + eps)
    return positive - (1 - alpha) * p**gamma * (1 - t) * torch.log(1 - p + eps)


@settings(max_examples=10, derandomize=True)
@given(
    alpha=st.floats(0.05, 0.95),
    gamma=st.one_of(st.just(0.0), st.floats(0.1, 5.0)),
    reduction=st.sampled_from(["none", "mean", "sum"]),
)
def test_focal_of_any_alpha_gamma_and_reduction(alpha, gamma, reduction):
    loss = partial(detloss.sigmoid_focal_loss, alpha=alpha, gamma=gamma, impl="eager", reduction=reduction)
    match = identify(subject(loss, reduction=reduction))
    assert match.name == ("balanced_bce" if gamma == 0 else "focal")
    assert match.convention["alpha"] == pytest.approx(alpha, abs=1e-5)
    assert match.convention["gamma"] == pytest.approx(gamma, abs=1e-5)
    assert match.convention["reduction"].split()[0] == reduction
    assert match.error < 1e-5


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize(
    ("loss", "soft"),
    [
        (focal_by_exp, "p_t = exp(-BCE)"),
        (focal_by_where, None),
        (focal_by_clamp, None),
    ],
)
def test_rewritten_focal(loss, soft, alpha):
    given = partial(loss, alpha=0.5 if alpha is None else alpha, gamma=1.5)
    match = identify(subject((lambda x, t: 2 * given(x, t)) if alpha is None else given))
    assert match.name == "focal"
    assert match.convention["gamma"] == 1.5
    assert match.convention["alpha"] == alpha
    if soft is not None:
        assert match.convention["soft_targets"] == soft


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_probabilities(reduction):
    loss = focal_of_probabilities if reduction == "none" else lambda p, t: focal_of_probabilities(p, t).mean()
    match = identify(subject(loss, reduction=reduction, probabilities=True))
    assert match.name == "focal"
    assert match.convention["takes"] == "probabilities"
    assert match.convention["soft_targets"] == "each term its own weight"
    assert (match.convention["alpha"], match.convention["gamma"]) == (0.25, 2)


def test_alpha_on_either_side():
    def loss(x, t, alpha=0.25):
        return bce(x, t) * x.sigmoid().sub(t).abs() ** 2 * ((1 - alpha) * t + alpha * (1 - t))

    def only_positives(x, t, alpha=0.25):
        return bce(x, t) * (alpha * t + (1 - t))

    def flat(x, t, alpha=0.25):
        return alpha * bce(x, t)

    for one, side in ((loss, "negatives"), (only_positives, "positives only"), (flat, "both")):
        match = identify(subject(one, takes=("alpha",)))
        assert match.convention["alpha_on"] == side
        assert match.convention["alpha"] == 0.25
    # its default tells as well; without either, the weights alone are told
    assert identify(subject(loss)).convention["alpha_on"] == "negatives"
    words = identify(subject(lambda x, t: loss(x, t))).convention
    assert (words["weight_of_positives"], words["weight_of_negatives"]) == (0.75, 0.25)
    assert words["alpha_known"] is False


@pytest.mark.parametrize("takes", [(), ("alpha",)])
def test_weights_of_one_are_no_alpha(takes):
    def own(x, t, alpha=None):
        return bce(x, t) * (1 if alpha is None else alpha * t + (1 - alpha) * (1 - t))

    match = identify(subject(own, takes=takes))
    assert match.name == "bce"
    assert (match.convention["alpha"], match.convention["alpha_on"]) == (None, "off")
    assert "weight_of_positives" not in match.convention

    def inverted(x, t, alpha=None):
        return bce(x, t) * (1 if alpha is None else (1 - alpha) * t + alpha * (1 - t))

    words = identify(subject(inverted, takes=takes)).convention
    assert words["alpha_on"] == ("negatives" if takes else "off")


def test_label_smoothing():
    match = identify(subject(lambda x, t: bce(x, 0.9 * t + 0.05)))
    assert (match.name, match.convention["label_smoothing"]) == ("bce", 0.1)
    assert identify(subject(lambda x, t: bce(x, 0.9 * t))).name is None  # to one side only


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("bce", detloss.binary_cross_entropy_with_logits),
        ("flsd", partial(detloss.sample_dependent_focal_loss, gamma_low=4.0, gamma_high=2.5, threshold=0.3)),
        ("flsd", partial(detloss.sample_dependent_focal_loss, alpha=None)),
        ("quality_focal", partial(detloss.quality_focal_loss, beta=1.5)),
        ("varifocal", partial(detloss.varifocal_loss, alpha=0.6, gamma=1.5)),
        ("poly_focal", partial(detloss.poly_focal_loss, alpha=0.3, gamma=1.3, epsilon=-0.7)),
        ("poly_focal", partial(detloss.poly_focal_loss, alpha=None, epsilon=2.0)),
        ("asymmetric", partial(detloss.asymmetric_loss, gamma_neg=3.0, clip=0.1)),
        ("asymmetric", partial(detloss.asymmetric_loss, clip=0.0)),
        ("mal", partial(detloss.matchability_aware_loss, gamma=2.0)),
    ],
)
def test_losses_of_logits(name, loss, reduction):
    match = identify(subject(partial(loss, reduction=reduction), reduction=reduction))
    assert match.name == name
    assert match.error < 1e-6
    for key, value in loss.keywords.items() if isinstance(loss, partial) else ():
        assert match.convention["gamma" if key == "beta" else key] == (
            pytest.approx(value) if value is not None else None
        )
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    t = torch.full_like(x, 0.4)
    torch.testing.assert_close(match.reference(x, t), loss(x, t), rtol=1e-5, atol=1e-8)


def test_poly_with_alpha_on_the_first_term():
    def loss(x, t):
        ce = bce(x, t)
        return focal_by_exp(x, t) + 1.5 * (1 - torch.exp(-ce)) ** 3

    def hard(x, t):
        return loss(x, t.round())

    match = identify(subject(hard))
    assert match.name == "poly_focal"
    assert match.convention["alpha_in"] == "the first term only"
    assert match.convention["epsilon"] == pytest.approx(1.5)


def detached_varifocal(x, t):
    weight = torch.where(t > 0, t, 0.75 * x.sigmoid().detach() ** 2)
    return weight * bce(x, t)


def test_detached_weights():
    assert identify(subject(detached_varifocal)).convention["gradient"] == "weight detached"
    assert identify(subject(detloss.varifocal_loss)).convention["gradient"] == "full"

    def focal(x, t):
        p = x.detach().sigmoid()
        return bce(x, t) * (p * (1 - t) + (1 - p) * t) ** 2

    words = identify(subject(focal)).convention
    assert words["gradient"] == "weight detached"
    assert words["soft_targets"] == "p_t = p t + (1-p)(1-t)"


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_detached_weight_of_asymmetric_loss(clip):
    def asymmetric(x, t):  # as its authors have it by default
        right, wrong = x.sigmoid(), (1 - x.sigmoid() + clip).clamp(max=1)
        cross = t * right.log() + (1 - t) * wrong.log()
        with torch.no_grad():
            p_t = right * t + wrong * (1 - t)
            weight = (1 - p_t) ** (t + 4 * (1 - t))
        return -weight * cross

    match = identify(subject(asymmetric))
    assert (match.name, match.convention["gradient"]) == ("asymmetric", "weight detached")
    assert (match.convention["gamma_neg"], match.convention["gamma_pos"]) == (4, 1)


def test_nothing_known():
    match = identify(subject(lambda x, t: (x.sigmoid() - t) ** 2))
    assert match.name is None
    assert match.nearest in ("bce", "focal", "quality_focal", "varifocal", "poly_focal", "asymmetric", "mal")
    assert match.error > 0.1
    assert identify(subject(lambda x, t: x.no_such_thing())) is None
    boxes = identify(subject(lambda a, b: (a - b).abs().sum(-1), "box"))
    assert boxes.name is None
    assert boxes.error > 0.1
    assert "form" not in boxes.convention  # the nearest one's says nothing of it
    # weights that a single row does not show, and that are not taken for one-hot targets
    balanced = subject(lambda x, t: (bce(x, t) * (1 - t) * t.mean()).sum(), reduction="other")
    assert "targets" not in identify(balanced).convention


def test_negative_of_a_loss():
    match = identify(subject(lambda x, t: -bce(x, t)))
    assert match.name == "bce"
    assert match.convention["form"] == "-x"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing):
    loss = partial(F.cross_entropy, label_smoothing=smoothing)
    match = identify(subject(loss, "softmax", "mean"))
    assert match.name == "cross_entropy"
    assert match.convention.get("label_smoothing", 0.0) == smoothing


def test_softmax_focal():
    def loss(x, t):
        p = (x.softmax(1) * F.one_hot(t, x.shape[1])).sum(1)
        return -((1 - p) ** 1.5) * p.log()

    assert identify(subject(loss, "softmax")).convention["gamma"] == 1.5
    weighted = partial(detloss.softmax_focal_loss, alpha=torch.tensor([0.1, 0.4, 0.4, 0.4]))
    match = identify(subject(weighted, "softmax"))
    assert match.name == "softmax_focal"
    assert match.convention["alpha"] == [0.1, 0.4, 0.4, 0.4]

    def one_hot(x, t):
        return -(t * (1 - x.softmax(-1)) ** 2 * x.log_softmax(-1)).sum(-1)

    match = identify(subject(one_hot, reduction="other"))
    assert match.name == "softmax_focal"
    assert "one-hot" in match.convention["targets"]


KINDS = ["iou", "giou", "diou", "ciou", "eiou"]


@pytest.mark.parametrize("fmt", ["xyxy", "cxcywh", "xywh"])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes(kind, fmt):
    match = identify(subject(lambda a, b: 1 - paired_box_iou(a, b, kind, fmt, eps=1e-6), "box"))
    assert match.name == kind
    assert match.convention["fmt"] == fmt
    assert match.convention["form"] == "1 - x"
    assert match.convention["eps"] == 1e-6


@pytest.mark.parametrize(
    ("form", "of"),
    [
        ("x", lambda s: s),
        ("-log x", lambda s: -s.clamp(min=1e-6).log()),
        ("1 - x²", lambda s: 1 - s**2),
        ("1 - x³", lambda s: 1 - s**3),
        ("-x", lambda s: -s),
        ("1 - x", lambda s: 5 * (1 - s)),
    ],
)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_forms_of_iou(form, of, reduction):
    reduce = {"none": lambda v: v, "mean": torch.mean, "sum": torch.sum}[reduction]
    match = identify(subject(lambda a, b: reduce(of(paired_box_iou(a, b))), "box", reduction))
    assert match.name == "iou"
    assert match.convention["form"] == form
    assert match.convention.get("scale", 1) == (5 if form == "1 - x" else 1)
    assert match.convention["reduction"].split()[0] == reduction


def ciou(a, b, detach):
    """Complete IoU, written out."""
    w, h = (a[:, 2:] - a[:, :2]).unbind(1)
    v, g = (b[:, 2:] - b[:, :2]).unbind(1)
    aspect = 4 / math.pi**2 * (torch.atan(v / g) - torch.atan(w / h)) ** 2
    iou = paired_box_iou(a, b)
    alpha = aspect / (1 - iou + aspect)
    alpha = alpha.detach() if detach else alpha
    return 1 - (paired_box_iou(a, b, "diou") - alpha * aspect)


def test_alpha_of_ciou():
    words = [identify(subject(partial(ciou, detach=d), "box")).convention for d in (True, False)]
    assert words[0]["gradient"] == "alpha of the aspect term detached"
    assert words[1]["gradient"] == "full, also through alpha of the aspect term"


def test_every_box_with_every_other():
    match = identify(subject(lambda a, b: 1 - detloss.box_iou(a, b), "box", "other"))
    assert match.name == "iou"
    assert match.convention["reduction"] == "none, every box with every other"


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_distribution(reduction):
    def loss(x, y):
        left = y.long()
        value = F.cross_entropy(x, left, reduction="none") * (left + 1 - y)
        value = value + F.cross_entropy(x, left + 1, reduction="none") * (y - left)
        return value if reduction == "none" else value.mean()

    match = identify(subject(loss, "distribution", reduction))
    assert match.name == "distribution_focal"
    assert match.convention["bins"] == 9


def test_like_a_peer():
    own = subject(partial(detloss.sigmoid_focal_loss, reduction="mean"), reduction="mean")
    match = identify(own, like="torchvision")
    assert [finding.code for finding in match.findings] == ["reduction"]
    assert set(match.convention["unlike torchvision"]) == {"reduction"}
    match = identify(subject(lambda a, b: 1 - detloss.paired_box_iou(a, b)), like=None)
    assert match is None or match.findings == ()
    linear = identify(subject(detloss.box_iou_loss, "box"), like="mmdet")
    assert [finding.code for finding in linear.findings] == ["similarity-not-loss", "no-eps"]
    with pytest.raises(ValueError, match="like is 'nobody'; it may be detloss, torchvision"):
        identify(own, like="nobody")


@pytest.mark.parametrize("peer", PEERS)
def test_each_peer_can_be_compared_with(peer):
    match = identify(subject(detloss.sigmoid_focal_loss), like=peer)
    assert f"unlike {peer}" in match.convention


def test_sampled_boxes_are_boxes_in_every_format():
    for fmt in ("cxcywh", "xywh"):
        for boxes in sample_boxes(36):
            corners = box_convert(boxes, fmt, "xyxy")
            assert (corners[:, 2:] > corners[:, :2]).all()
    overlap = paired_box_iou(*sample_boxes(36))
    assert (overlap > 0).sum() >= 18
    assert (overlap == 0).sum() >= 2


def test_conventions_are_json():
    for loss, kind in ((detloss.sigmoid_focal_loss, "classification"), (lambda a, b: -iou_log(a, b), "box")):
        json.dumps(identify(subject(loss, kind)).convention, allow_nan=False)


def iou_log(a, b):
    return paired_box_iou(a, b).log()


def test_error_in_float32():
    words = identify(subject(detloss.sigmoid_focal_loss)).convention
    ours = words["float32_error"]["value"]
    assert 1e-9 < ours < 1e-6
    # 1 - exp(-BCE) cancels where the prediction is right
    assert identify(subject(focal_by_exp)).convention["float32_error"]["value"] > 10 * ours
