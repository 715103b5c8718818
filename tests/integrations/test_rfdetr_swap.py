"""RF-DETR's criterion with its losses swapped: for the same ones, and for others."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss
from detloss.integrations import swapped
from detloss.integrations.rfdetr import swap_losses
from helpers.swapping import Counting, curve

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
GROUPS, QUERIES, CLASSES = 2, 6, 3


@pytest.fixture(scope="module", autouse=True)
def rfdetr():
    return pytest.importorskip("rfdetr")


class Detector(nn.Module):
    """What the criterion sees of a detector: logits and boxes of three layers, and the criterion."""

    def __init__(self, ia_bce=True):
        from rfdetr.models.criterion import SetCriterion
        from rfdetr.models.matcher import HungarianMatcher

        super().__init__()
        torch.manual_seed(1)
        self.logits = nn.Parameter(torch.randn(3, 2, QUERIES * GROUPS, CLASSES, dtype=torch.float64) - 2)
        self.boxes = nn.Parameter(torch.randn(3, 2, QUERIES * GROUPS, 4, dtype=torch.float64))
        weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
        self.criterion = SetCriterion(
            CLASSES,
            HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2),
            {name + layer: weight for name, weight in weights.items() for layer in ("", "_0", "_enc")},
            0.25,
            ["labels", "boxes", "cardinality"],
            group_detr=GROUPS,
            ia_bce_loss=ia_bce,
        )

    def forward(self, targets):
        boxes = self.boxes.sigmoid()
        layers = [{"pred_logits": logits, "pred_boxes": box} for logits, box in zip(self.logits, boxes)]
        return self.criterion({**layers[0], "aux_outputs": [layers[1]], "enc_outputs": layers[2]}, targets)


def targets(padded=False):
    objects = [
        {"labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.3, 0.3, 0.2, 0.4]])},
        {"labels": torch.tensor([1, 0]), "boxes": torch.tensor([[0.6, 0.4, 0.3, 0.5], [0.5, 0.5, 0.5, 0.5]])},
    ]
    for each in objects:
        each["boxes"] = each["boxes"].double()
    if padded:
        objects[0]["valid"], objects[1]["valid"] = torch.tensor([True, True]), torch.tensor([True, False])
    return objects


def terms(model, padded=False):
    return model(targets(padded))


def total(model, padded=False):
    weights = model.criterion.weight_dict
    return sum(value * weights[name] for name, value in terms(model, padded).items() if name in weights)


@pytest.mark.parametrize("padded", [False, True])
def test_the_same_losses_give_the_same_curve(padded):
    model = Detector()
    theirs = curve(model, partial(total, padded=padded), lr=0.1)
    with swap_losses(model, "ia_bce", "giou", l1=detloss.l1_box_loss):
        mine = curve(model, partial(total, padded=padded), lr=0.1)
        found = terms(model, padded)
    assert_close(mine, theirs, rtol=1e-7, atol=1e-7)
    assert theirs[-1] < theirs[0]
    assert_close(
        found["class_error"].double(), terms(model, padded)["class_error"].double(), rtol=1e-5, atol=0
    )


def test_the_focal_criterion_too():
    model = Detector(ia_bce=False)
    theirs = curve(model, total, lr=0.1)
    with swap_losses(model, "focal,alpha=0.25"):
        assert_close(curve(model, total, lr=0.1), theirs, rtol=1e-7, atol=1e-7)


def test_every_output_gets_what_was_given_and_nothing_else_changes():
    model = Detector()
    theirs = terms(model)
    for given, changed in (
        ({"classification": "quality_focal"}, "loss_ce"),
        ({"box": "ciou"}, "loss_giou"),
        ({"l1": F.smooth_l1_loss}, "loss_bbox"),
    ):
        with swap_losses(model, **given):
            mine = terms(model)
        assert set(mine) == set(theirs)
        for term in theirs:
            same = bool(torch.isclose(mine[term].double(), theirs[term].double(), rtol=1e-6))
            assert same != term.startswith(changed), term


def test_the_loss_that_was_given_is_called_and_restore_restores():
    model, counting = Detector(), Counting()
    before, told, attributes = terms(model), repr(model), set(vars(model.criterion))
    swap = swap_losses(model, counting, "ciou", matcher=copy.deepcopy(model.criterion.matcher))
    terms(model)
    assert counting.calls == 3
    assert "losses swapped by detloss: classification=Counting, box=ciou, matcher=HungarianMatcher" in repr(
        model
    )
    assert swapped(model) is swap
    assert not model.criterion._can_batch_detection_losses([], [])
    model.criterion.enable_compiled_detection_losses()
    with pytest.raises(ValueError, match="swapped already"):
        swap_losses(model, "focal")
    swap.restore()
    assert (repr(model), swapped(model)) == (told, None)
    assert set(vars(model.criterion)) == attributes
    assert all(torch.equal(before[term], after) for term, after in terms(model).items())
    assert counting.calls == 3


def test_copies_and_pickles_are_swapped_by_themselves():
    model = Detector()
    swap_losses(model, "focal", "ciou")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = total(other)
        assert torch.equal(total(model), before)
        swapped(other).restore()
        assert not torch.isclose(total(other), before)
    assert swapped(model).losses == {"classification": "focal", "box": "ciou"}


def test_what_does_not_fit_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="model is Linear; it may be an RFDETRModelModule or a SetCriterion"):
        swap_losses(nn.Linear(1, 1), "focal")
    model = Detector()
    with pytest.raises(ValueError, match="softmax_focal, a softmax over classes"):
        swap_losses(model, "softmax_focal")
    monkeypatch.setattr("detloss.integrations._swap.version", lambda client: "1.12.0")
    with pytest.raises(RuntimeError, match=r"rfdetr is 1.12.0; .* rfdetr>=1.11,<1.12"):
        swap_losses(model, "focal")
