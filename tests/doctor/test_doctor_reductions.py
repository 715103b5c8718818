"""What a batch is reduced to, by which divisor, and a weight that is put on too late."""

import torch
from doctor_subjects import subject
from test_doctor_probes import bce
from torch.nn import functional as F

from detloss.doctor.matching.identify import identify
from detloss.doctor.probes.state import reduction
from detloss.doctor.samples import without_float64


def at_least_one(mask):
    return mask.sum().clamp(min=1)


REDUCTIONS = {
    "none": ("none", lambda each, t: each),
    "mean over all elements": ("mean", lambda each, t: each.mean()),
    "sum": ("sum", lambda each, t: each.sum()),
    "mean over classes, sum over rows": ("other", lambda each, t: each.mean(1).sum()),
    "sum over classes, mean over rows": ("other", lambda each, t: each.sum(1).mean()),
    "none, sum over classes": ("other", lambda each, t: each.sum(1)),
    "sum divided by the number of positives": ("other", lambda each, t: each.sum() / at_least_one(t > 0)),
    "sum divided by the sum of targets": ("other", lambda each, t: each.sum() / t.sum()),
}


def test_reductions():
    for name, (kind, reduce) in REDUCTIONS.items():
        match = identify(subject(lambda x, t, reduce=reduce: reduce(bce(x, t), t), reduction=kind))
        assert (match.name, match.convention["reduction"]) == ("bce", name)
    match = identify(subject(lambda x, t: bce(x, t).sum() / 7.3, reduction="other"))
    assert match.name == "bce" or match.convention["reduction"].startswith("other")


def test_class_indices_have_one_positive_a_row():
    def indexed(x, t):  # as a form of class indices, C for background, is called
        if (t.sum(1) > 1).any() or not ((t == 0) | (t == 1)).all():
            raise ValueError("no class index says that")
        return bce(x, t).sum() / len(x)

    match = identify(subject(indexed, reduction="mean"))
    assert match.name == "bce"
    assert match.convention["reduction"] == "sum over classes, mean over rows"
    assert match.convention["soft_targets"].startswith("refused")


def test_weights_of_classes_in_a_mean():
    weight = torch.tensor([1.0, 4.0, 2.0, 0.5])
    match = identify(subject(lambda x, t: F.cross_entropy(x, t, weight.to(x.dtype)), "softmax", "other"))
    assert match.convention["reduction"] == "mean weighted by class, 1 : 4 : 2 : 0.5"
    # in float32 only, as a Module with weights is
    own = subject(lambda x, t: F.cross_entropy(x, t, weight), "softmax", "other")
    assert identify(own) is None
    narrow = identify(without_float64(own))
    assert (narrow.name, narrow.convention["reduction"]) == (match.name, match.convention["reduction"])


def test_a_weight_after_the_mean():
    def late(x, t):
        cross = F.binary_cross_entropy_with_logits(x, t)
        return 0.8 * (1 - torch.exp(-cross)) ** 2 * cross

    def late_softmax(x, t):
        cross = F.cross_entropy(x, t, reduction="sum")
        return (1 - torch.exp(-cross)) ** 2 * cross

    for loss, kind, word in ((late, "classification", "mean of"), (late_softmax, "softmax", "sum of")):
        own = subject(loss, kind, "mean" if kind == "classification" else "other")
        match = identify(own)
        assert match.convention["reduction"].startswith(word)
        (finding,) = reduction(own, match)
        assert (finding.code, finding.level) == ("reduction", "error")
