"""What a finding says: where it was seen, the numbers, the way on. The codes are the corpus's."""

import json
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import detloss
from detloss.boxes import paired_box_iou
from detloss.lab.doctor import CODES, known
from detloss.lab.doctor.catalogue import CATALOGUE, found
from detloss.lab.doctor.fit import GRID, fit, inner_weight
from detloss.lab.doctor.forms import Form, Subject
from detloss.lab.doctor.match_boxes import match_box
from detloss.lab.doctor.probe_operations import Elsewhere, TwoDevices


def of(seen, code):
    """The findings of a code."""
    return [finding for finding in seen.findings if finding.code == code]


def bce(x, t):
    return torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")


def test_every_finding_can_be_made():
    assert len(CODES) == 27
    for kind, entry in CATALOGUE.items():
        words = {name: 1 for name in re.findall(r"{(\w+)", entry.message + entry.remedy)}
        finding = found(kind, "seen", **words)
        assert finding.code in CODES
        assert "{" not in finding.message + finding.remedy
        assert "--" not in finding.message + finding.remedy  # flags are the command line's


@pytest.mark.parametrize(
    ("loss", "code", "line"),
    [
        ("w = x.sigmoid() * 2\n    return x - t", "dead-expression", 7),
        ("x = x.cuda()\n    return F.binary_cross_entropy_with_logits(x, t)", "device-hardcoded", 7),
        ("w = torch.ones(5)\n    return w[: x.shape[-1]] * bce(x, t)", "device-hardcoded", 8),
        ("w = t.long()\n    return (1 + w) * bce(x, t)", "dtype-hardcoded", 7),
        ("return torch.stack([bce(a, b).sum() for a, b in zip(x, t)]).sum()", "python-loop", 7),
        ("return bce(x, t) + 0 * nowhere(x)", "undefined-name", 7),
        ("return bce(x, t) + eps", "undefined-name", 7),
    ],
)
def test_a_finding_names_its_line(examined, loss, code, line):
    head = "import torch\nimport torch.nn.functional as F\n\ndef bce(x, t):\n"
    head += "    return F.binary_cross_entropy_with_logits(x, t, reduction='none')\n"
    seen = examined(f"def loss(x, t):\n    {loss}\n", head=head)
    assert of(seen, code)[0].evidence.startswith(f"mine.py:{line}: ")


def test_numbers_in_the_evidence_are_those_of_the_loss(examined):
    seen = examined("""
        def loss(x, t):
            return (1 - x.sigmoid()) ** 2 * F.binary_cross_entropy_with_logits(x, t, reduction="none")
    """)
    (finding,) = of(seen, "wrong-gradient")
    assert "further away" in finding.message
    x = torch.tensor([float(finding.evidence.split()[1].strip(","))], requires_grad=True)
    ((1 - x.sigmoid()) ** 2 * bce(x, torch.zeros(1))).backward()
    assert x.grad.item() == pytest.approx(float(finding.evidence.split(": ")[1].split()[0]), rel=1e-3)


def test_where_a_value_begins_not_to_be_finite(examined):
    seen = examined("def loss(x, t):\n    return -x.softmax(1).gather(1, t[:, None])[:, 0].log()\n")
    (finding,) = of(seen, "not-finite-value")
    begins = float(re.search(r"-([\d.]+)", finding.message)[1])
    assert 87 < begins < 105  # float32's smallest number is e^-103.3


@pytest.mark.parametrize("low", [0.02, 1e-3])
def test_where_a_clamp_ends_the_gradient(examined, low):
    seen = examined(f"""
        def loss(logits, targets):
            p = logits.sigmoid().clamp({low}, 1 - {low})
            p_t = p * targets + (1 - p) * (1 - targets)
            return -((1 - p_t) ** 2) * p_t.log()
    """)
    (finding,) = of(seen, "wrong-gradient")
    logit = torch.tensor(low).logit().abs().item()
    assert float(finding.evidence.split("-")[1].split(",")[0]) == pytest.approx(logit, abs=0.05)


def test_the_soft_minimum_is_the_one_of_the_field(examined):
    seen = examined("""
        def loss(x, t):
            p = x.sigmoid()
            p_t = p * t + (1 - p) * (1 - t)
            return (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(x, t, reduction="none")
    """)
    (finding,) = of(seen, "soft-target-minimiser")
    assert "t = 0.3: smallest at p = 0.122" in finding.evidence


def test_a_state_and_random_numbers_are_told_apart(examined):
    seen = examined("""
        class Mean:
            value = 1.0

        def loss(pred, target):
            wide = torch.min(pred[:, 2:], target[:, 2:]) - torch.max(pred[:, :2], target[:, :2])
            inter, area = wide.clamp(min=0).prod(1), (pred[:, 2:] - pred[:, :2]).prod(1)
            each = 1 - inter / (area + (target[:, 2:] - target[:, :2]).prod(1) - inter + 1e-7)
            Mean.value = 0.99994 * Mean.value + 0.00006 * each.detach().mean().item()
            return each * (each.detach() / Mean.value)
    """)
    (finding,) = of(seen, "mutates-input")
    assert "state between calls" in finding.message
    seen = examined("""
        def loss(logits, targets):
            return F.binary_cross_entropy_with_logits(logits, targets - 0.1 * torch.rand_like(targets))
    """)
    (finding,) = of(seen, "mutates-input")
    assert "random numbers" in finding.message


def test_what_is_not_examined_names_the_way_on(examined):
    for text in (
        "def loss(x, t, priors):\n    return x * priors\n",
        "def loss(x, t):\n    raise RuntimeError('never')\n",
    ):
        seen = examined(text)
        (finding,) = of(seen, "not-examined")
        assert finding.level == "note"
        assert finding.message.startswith("not examined, because")
        assert "call='lambda loss, logits, labels:" in finding.remedy


CALLED = """
    def loss(x, t, priors, anchors):
        assert anchors.shape == (7, 4)
        return F.binary_cross_entropy_with_logits(x, t, reduction="none") * priors
    """


@pytest.mark.parametrize(
    ("call", "matches", "code"),
    [
        ("lambda loss, x, t: loss(x, t, 1.0, torch.ones(7, 4))", "bce", None),
        ("lambda loss, x, t: loss(x, t, 1.0)", None, "not-examined"),
        ("lambda loss, x, t: -loss(x, t, 1.0, torch.ones(7, 4))", "bce", "similarity-not-loss"),
    ],
)
def test_a_loss_is_called_as_the_user_says(examined, call, matches, code):
    seen = examined(CALLED, call=call)
    assert seen.match.get("name") == matches
    assert {finding.code for finding in seen.findings} == ({code} if code else set())


def test_a_class_is_built_in_the_call(examined):
    text = """
        class Loss(nn.Module):
            def __init__(self, priors):
                super().__init__()
                self.register_buffer("priors", torch.tensor(priors))
            def forward(self, x, t):
                return F.binary_cross_entropy_with_logits(x, t, reduction="none") * self.priors
        """
    seen = examined(text, "Loss", call="lambda Loss, x, t: Loss([3.0])(x, t)")
    assert (seen.match["name"], seen.match["convention"]["alpha"]) == ("bce", 3.0)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("(2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1) * -1", ""),
        ("F.binary_cross_entropy_with_logits(x, t, reduction='none').reshape(-1).topk(max(1, x.numel() // 3))"
         ".values.mean()", "what bce has"),
        ("F.binary_cross_entropy_with_logits(x, t)", None),
    ],
)  # fmt: skip
def test_elements_that_are_tied_are_told(examined, text, note):
    seen = examined(f"def loss(x, t):\n    p = x.sigmoid()\n    return {text}\n")
    told = [one for one in seen.notes if "tied to each other" in one]
    assert bool(told) == (note is not None)
    assert note is None or (note in told[0] and seen.match["name"] is None)
    assert not [finding for finding in seen.findings if finding.level == "error"]


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_the_weight_within_the_exponent_is_read_off(weight):
    cross = torch.linspace(0.05, 4, 25, dtype=torch.float64)
    value = 0.7 * (1 - torch.exp(-weight * cross)) ** 2 * cross
    assert inner_weight(cross, value) == pytest.approx(weight, rel=1e-2)
    assert inner_weight(cross, cross) is None  # no focus at all


def test_like_a_peer(examined):
    seen = examined("detloss:SigmoidFocalLoss", like="torchvision")
    assert set(seen.match["convention"]["unlike torchvision"]) == {"reduction"}
    assert [one.level for one in of(seen, "reduction")] == ["note", "note"]
    seen = examined("detloss:box_iou_loss", like="mmdet")
    assert {one.code for one in seen.findings} == {"similarity-not-loss"}  # -log IoU; its eps changes nothing


def test_error_in_float32(examined):
    ours = examined("detloss:sigmoid_focal_loss").match["convention"]["float32_error"]["value"]
    assert 1e-9 < ours < 1e-6
    theirs = examined("""
        def loss(x, t, alpha=0.25, gamma=2.0):
            ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
            return (alpha * t + (1 - alpha) * (1 - t)) * (1 - torch.exp(-ce)) ** gamma * ce
    """).match["convention"]  # 1 - exp(-BCE) cancels where the prediction is right
    assert theirs["float32_error"]["value"] > 10 * ours
    json.dumps(theirs, allow_nan=False)


@settings(max_examples=15, derandomize=True)
@given(
    factor=st.floats(0.05, 3),
    gamma=st.one_of(st.just(0.0), st.floats(0.1, 5.0)),
    epsilon=st.one_of(st.just(0.0), st.floats(0.3, 2.0)),
    clip=st.sampled_from([0.0, 0.01, 0.05, 0.1]),
)
def test_one_fit_finds_factor_gamma_epsilon_and_clip(factor, gamma, epsilon, clip):
    def values(x):
        q = (torch.sigmoid(x) - clip).clamp(min=0)
        return factor * q**gamma * (-torch.log1p(-q) + epsilon * q)

    law = fit(values(GRID), positive=False)
    assert (law.factor, law.gamma, law.epsilon) == pytest.approx((factor, gamma, epsilon), rel=2e-2, abs=2e-2)
    assert law.clip == pytest.approx(clip)
    assert fit(GRID.sigmoid() ** 2, positive=False) is None
    assert len(GRID) == 33


@pytest.mark.parametrize("form", known.BOX_FORMS)
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou", "eiou"])
def test_kinds_and_forms_of_boxes(kind, form):
    def loss(predicted, true):
        return known.BOX_FORMS[form](paired_box_iou(predicted, true, kind))

    match = match_box(Subject(loss, Form("box")))
    if form != "-log x" or kind == "iou":  # the others may be negative
        assert (match.name, match.convention["form"]) == (kind, form)


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
    assert mode.mixed.endswith("mul")


@pytest.mark.parametrize("reading", known.ON_SOFT_TARGETS)
def test_readings_of_soft_targets_agree_on_hard_ones(reading):
    x, t = torch.linspace(-3, 3, 8, dtype=torch.float64), torch.tensor([0.0, 1] * 4, dtype=torch.float64)
    expected = partial(detloss.sigmoid_focal_loss, alpha=None, impl="eager")(x, t)
    torch.testing.assert_close(known.ON_SOFT_TARGETS[reading](x, t, 2.0), expected, rtol=1e-5, atol=1e-7)
