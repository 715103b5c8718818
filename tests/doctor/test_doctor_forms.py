"""Forms in which detection code calls its losses, and what ends an examination."""

import pytest
import torch
from test_doctor_subject import BCE, DENSE, LOGITS, same
from torch.nn import functional as F

from detloss.doctor.probes.gradients import wrong_gradient


def test_a_number_of_classes_with_a_default_follows_the_logits(settled):
    one, _ = settled("""
        def loss(x, labels, num_classes=80):
            t = F.one_hot(labels, num_classes + 1)[:, :-1].to(x.dtype)
            return F.binary_cross_entropy_with_logits(x, t)
    """)
    same(one.call(LOGITS, DENSE), BCE.mean())
    assert one.chosen["num_classes"] == "the number of columns"


def test_background_is_class_0_or_class_c(settled):
    for cut, says in (("[:, 1:]", "from 1"), ("[:, :-1]", "class indices, one")):
        one, _ = settled(f"""
            def loss(x, labels):
                t = F.one_hot(labels, x.shape[1] + 1){cut}.to(x.dtype)
                return F.binary_cross_entropy_with_logits(x, t, reduction="sum")
        """)
        assert says in one.chosen["called with"]
        same(one.call(LOGITS, DENSE), BCE.sum())
        low = torch.full_like(LOGITS, -30)
        assert one.call(low, torch.zeros_like(LOGITS)) < 1e-9


def test_no_background_is_told(settled):
    one, found = settled("""
        def loss(x, labels):
            return F.binary_cross_entropy_with_logits(x, F.one_hot(labels, x.shape[1]).to(x.dtype))
    """)
    assert one.kind == "softmax"  # each row has a class
    assert [f.code for f in found] == ["breaks-empty"]


def test_a_pair_of_labels_and_scores(settled):
    one, _ = settled("""
        def loss(pred, target):
            label, score = target
            t = torch.zeros_like(pred)
            hit = (label < pred.shape[1]).nonzero().squeeze(1)
            t[hit, label[hit]] = score[hit].to(pred.dtype)
            return F.binary_cross_entropy_with_logits(pred, t, reduction="none").sum(1)
    """)
    soft = DENSE * torch.tensor([[0.7], [0.0]], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(LOGITS, soft, reduction="none").sum(1)
    same(one.call(LOGITS, soft), expected)
    with pytest.raises(ValueError, match="one class and its score"):
        one.call(LOGITS, torch.ones_like(LOGITS))


@pytest.mark.parametrize("count", [2, 4])
def test_weights_of_classes_fix_their_number(settled, count):
    weights = torch.arange(1.0, count + 1).tolist()
    one, _ = settled(f"loss = nn.CrossEntropyLoss(weight=torch.tensor({weights}))")
    assert (one.kind, one.classes) == ("softmax", count)
    assert one.chosen["classes"].startswith(str(count))


def test_weights_of_dense_classes_end_it(refused):
    finding = refused("""
        WEIGHTS = torch.tensor([1.0, 2.0, 3.0])

        def loss(logits, targets):
            return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * WEIGHTS).mean()
    """)
    assert finding.level == "note"
    assert "3 classes, not for 5" in finding.message


def test_a_box_loss_by_its_name_alone(settled):
    one, _ = settled(
        """
        class GIoULoss(nn.Module):
            def forward(self, pred, target):
                return (pred[:, 0] - target[:, 0]) ** 2 + (pred[:, 3] - target[:, 3]) ** 2
        """,
        "GIoULoss",
    )
    assert one.kind == "box"


def test_bins_by_a_default(settled):
    for last, expected in (
        ("reg_max - 1", "the number of columns"),
        ("reg_max", "the number of columns less"),
    ):
        one, found = settled(f"""
            class loss:
                def __init__(self, reg_max=16):
                    self.last = {last}

                def __call__(self, dist, target):
                    y = target.clamp(0, self.last - 0.01)
                    left = y.long()
                    first = F.cross_entropy(dist, left, reduction="none") * (left + 1 - y)
                    return first + F.cross_entropy(dist, left + 1, reduction="none") * (y - left)
        """)
        assert (one.kind, found) == ("distribution", [])
        assert one.chosen["reg_max"].startswith(expected)


def test_what_makes_a_loss_is_told(refused):
    finding = refused("""
        def loss(gamma=2.0, alpha=0.25):
            def inner(x, t):
                return x
            return inner
    """)
    assert "makes a loss" in finding.message
    assert "loss = loss()" in finding.remedy


def test_a_tensor_type_of_a_gpu(settled):
    one, found = settled("""
        def loss(logits, targets):
            weight = torch.cuda.FloatTensor(logits.shape).fill_(2)
            return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    """)
    same(one.call(LOGITS, DENSE), 2 * BCE)
    assert [f.code for f in found] == ["device-hardcoded"]


def test_numpy_inside(refused):
    finding = refused("""
        import numpy as np

        def loss(logits, targets):
            return torch.from_numpy(np.log1p(np.exp(-logits.numpy())) * targets.numpy())
    """)
    assert finding.code == "not-differentiable"


def test_random_numbers_do_not_hide_the_kind(settled):
    one, _ = settled("""
        def loss(logits, targets):
            return F.binary_cross_entropy_with_logits(logits, targets - 0.1 * torch.rand_like(targets))
    """)
    assert one.kind == "classification"


def test_predictions_changed_in_place_are_logits(settled):
    one, _ = settled("""
        def loss(x, t):
            p = x.sigmoid_()
            return -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    """)
    assert not one.probabilities


def test_a_name_of_scripts_only(settled):
    with pytest.raises(ValueError, match="only if it runs as a script"):
        settled('if __name__ == "__main__":\n    def loss(x, t):\n        return x\n')


def test_what_is_detached_on_purpose_is_a_warning(settled):
    own, _ = settled("""
        def loss(logits, targets):
            weight = (logits.sigmoid() - targets).abs().detach() + logits.square().detach()
            return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    """)
    (finding,) = wrong_gradient(own, None)
    assert finding.level == "warning"
    assert finding.evidence.endswith("logits.square().detach()")
    own, _ = settled("""
        def loss(logits, targets):
            weight = torch.tensor((1 + logits.square()).tolist(), dtype=logits.dtype)
            return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    """)
    (finding,) = wrong_gradient(own, None)
    assert finding.level == "error"


def test_other_whole_numbers_stay_as_they_are(settled):
    one, _ = settled("""
        def loss(logits, targets, alpha=3, bins=10):
            return alpha * bins * F.binary_cross_entropy_with_logits(logits, targets)
    """)
    same(one.call(LOGITS, DENSE), 30 * BCE.mean())
    assert one.chosen == {}
