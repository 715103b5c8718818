"""How losses are put into somebody else's instances and taken out again, and how they may be given."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss
from detloss.integrations import Swap, _swap, swapped
from detloss.integrations._losses import box_loss, classification_loss, each_box, each_row, sum_classes


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Linear(1, 1)
        self.kept = "before"

    def compute(self):
        return "theirs"

    def extra_repr(self):
        return "own"


def ours():
    return "ours"


def test_attributes_are_put_and_put_back():
    head, other = Head(), Head()
    part, items = head.part, ["x"]
    swap = Swap({"classification": "focal"})
    swap.put(head, "compute", ours)
    swap.put(head, "kept", "after")
    swap.put(head, "part", nn.ReLU())
    swap.add(items, "y")
    swap.mark(head)
    assert (head.compute(), head.kept, items) == ("ours", "after", ["x", "y"])
    assert (other.compute(), swapped(other)) == ("theirs", None)
    assert swapped(nn.Sequential(head)) is swap
    assert "Head(\n  own, losses swapped by detloss: classification=focal" in repr(head)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(head)))
    with swap:
        pass
    assert (head.compute(), head.kept, head.part, items, swapped(head)) == (
        "theirs",
        "before",
        part,
        ["x"],
        None,
    )
    assert "swapped" not in repr(head)
    assert repr(swap) == "Swap(classification=focal; restored)"
    assert swapped(copied) is not swap
    swapped(copied).restore()
    assert (copied.compute(), copied.kept, swapped(copied)) == ("theirs", "before", None)


@pytest.mark.parametrize(
    ("found", "known"),
    [("1.2.0", True), ("1.4.9+cpu", True), ("1.1.9", False), ("1.5.0rc1", False), ("2", False)],
)
def test_versions(monkeypatch, found, known):
    monkeypatch.setattr(_swap, "version", lambda client: found)
    if known:
        _swap.check_version("client", "1.2", "1.5")
    else:
        with pytest.raises(RuntimeError, match=r"client is .* client>=1.2,<1.5, which was tested: pip"):
            _swap.check_version("client", "1.2", "1.5")


def test_no_loss_at_all_is_refused():
    with pytest.raises(ValueError, match="no loss is given; give classification, box or both"):
        Swap({})


def test_a_client_that_is_not_there():
    with pytest.raises(RuntimeError, match=r"no_such_client is not installed; .* no_such_client>=1,<2"):
        _swap.check_version("no_such_client", "1", "2")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("focal,gamma=1.5", "focal,gamma=1.5"),
        (partial(detloss.sigmoid_focal_loss, gamma=1.5), "sigmoid_focal_loss(gamma=1.5)"),
        (detloss.SigmoidFocalLoss(gamma=1.5), "SigmoidFocalLoss(alpha=0.25, gamma=1.5, reduction=mean, "),
    ],
)
def test_every_way_to_give_a_loss_is_the_same(given, name):
    loss = classification_loss(given, "eager")
    assert loss.name.startswith(name)
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 3), torch.tensor([[0, 3, -100, 1, 2], [3, 3, 3, 2, -100]])
    expected = detloss.sigmoid_focal_loss(logits, labels, gamma=1.5, reduction="sum")
    assert_close(sum_classes(loss, logits, labels, None), expected)
    assert not loss.softmax
    assert not loss.wants_quality


@pytest.mark.parametrize("given", [nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits])
def test_losses_written_elsewhere_get_the_rows_that_count_as_0_and_1(given):
    logits, labels = torch.randn(2, 5, 3), torch.tensor([[0, 3, -100, 1, 2], [3, 3, 3, 2, -100]])
    expected = detloss.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    assert_close(sum_classes(classification_loss(given, "eager"), logits, labels, None), expected)
    assert getattr(given, "reduction", "mean") == "mean"


def test_a_loss_of_ones_own_may_take_a_quality():
    seen = {}

    def own(inputs, targets, quality):
        seen.update(targets=targets, quality=quality)
        return inputs * 0

    labels, quality = torch.tensor([0, 3, -100]), torch.tensor([0.5, 0, 0])
    sum_classes(classification_loss(own, "eager"), torch.randn(3, 3), labels, quality)
    assert seen["targets"].tolist() == [0, 3]
    assert seen["quality"].tolist() == [0.5, 0]


def test_a_loss_that_returns_its_mean_is_refused():
    loss = classification_loss(lambda inputs, targets: inputs.mean(), "eager")
    with pytest.raises(ValueError, match="must return one value per element, or have an argument reduction"):
        sum_classes(loss, torch.randn(3, 3), torch.tensor([0, 1, 3]), None)
    with pytest.raises(ValueError, match="impl is 'fast'; it may be"):
        classification_loss("focal", "fast")


def test_boxes():
    true = torch.tensor([[0.5, 0.5, 0.4, 0.2]])
    predicted = torch.tensor([[0.6, 0.5, 0.4, 0.2]])
    giou = box_loss("giou", "eager")
    corners = [detloss.box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, true)]
    expected = detloss.generalized_box_iou_loss(*corners)
    assert_close(each_box(giou, predicted, true, "cxcywh"), expected)
    plain = box_loss(lambda first, second: detloss.generalized_box_iou_loss(first, second), "eager")
    assert_close(each_box(plain, predicted, true, "cxcywh"), expected)
    assert giou.of_boxes
    distance = box_loss(nn.L1Loss(), "eager")
    assert_close(each_row(distance, predicted, true), torch.tensor([0.1]))
    assert not distance.of_boxes


def test_heads_in_the_manner_of_mmdetection():
    """What a loss there returns, written out: each element weighed by its row, the sum by avg_factor."""
    torch.manual_seed(0)
    pred, labels, weight, avg_factor = torch.randn(6, 3), torch.tensor([0, 3, 1, 3, 2, 3]), torch.rand(6), 2.5
    target = F.one_hot(labels, 4)[:, :3].float()
    p = pred.sigmoid()
    wrong = (1 - p) * target + p * (1 - target)
    bce = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    each = bce * (0.25 * target + 0.75 * (1 - target)) * wrong**2
    mine = detloss.sigmoid_focal_loss(pred, labels, 0.25, 2.0, weight=weight, reduction="sum") / avg_factor
    assert_close(mine, (each * weight[:, None]).sum() / avg_factor)

    score = torch.where(labels < 3, torch.rand(6), 0.0)
    soft = target * score[:, None]
    each = F.binary_cross_entropy_with_logits(pred, soft, reduction="none") * (p - soft).abs() ** 2
    mine = detloss.quality_focal_loss(pred, labels, 2.0, quality=score, weight=weight, reduction="sum")
    assert_close(mine, (each.sum(1) * weight).sum())
