"""Losses found by name: what a name means, and what is said where it means nothing."""

import re
from dataclasses import replace

import pytest
import torch

from detloss.balance import ClassWeight
from detloss.calling import regress
from detloss.losses import generalized_box_iou_loss, l1_box_loss, sigmoid_focal_loss
from detloss.mining import Mining
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss
from detloss.schedule import Schedule


class TestFindLoss:
    def test_hyperparameters_change_the_loss(self):
        logits, targets = torch.tensor([[0.3, -1.0]]), torch.tensor([1])
        found = find_loss("focal,gamma=1.5, alpha=none", CLASSIFICATION_LOSSES)
        torch.testing.assert_close(
            found.function(logits, targets), sigmoid_focal_loss(logits, targets, alpha=None, gamma=1.5)
        )
        assert found.name == "focal,gamma=1.5, alpha=none"
        assert not found.own

    def test_switches_and_smoothing(self):
        logits, targets = torch.tensor([[0.3, -1.0]], requires_grad=True), torch.tensor([1])
        gradients = []
        for name in ("varifocal,detach_weight=true", "varifocal,detach_weight=false", "varifocal"):
            value = find_loss(name, CLASSIFICATION_LOSSES).function(logits, targets)
            gradients.append(torch.autograd.grad(value.sum(), logits)[0])
        assert torch.equal(gradients[1], gradients[2])
        assert not torch.equal(gradients[0], gradients[1])
        found = find_loss("focal,label_smoothing=0.1", CLASSIFICATION_LOSSES)
        torch.testing.assert_close(
            found.function(logits, targets), sigmoid_focal_loss(logits, targets, label_smoothing=0.1)
        )

    def test_only_softmax_is_softmax(self):
        names = [n for n in CLASSIFICATION_LOSSES if find_loss(n, CLASSIFICATION_LOSSES).softmax]
        assert names == ["softmax_focal"]
        assert find_loss("softmax_focal,gamma=1", CLASSIFICATION_LOSSES).softmax

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("focl", "unknown loss 'focl'; did you mean 'focal'? it may be bce, balanced_bce, focal"),
            ("zzz", "unknown loss 'zzz'; it may be bce"),
            ("", "unknown loss ''; it may be bce"),
            ("giou", "unknown loss 'giou'; it is a box loss: name it behind another, as in bce+giou"),
            ("focal,gama=2", "loss 'focal,gama=2': focal has no setting 'gama'; it has alpha, gamma"),
            ("focal,gamma", "loss 'focal,gamma': 'gamma' is not a hyperparameter; write key=number"),
            ("focal,gamma=high", "'gamma=high' is not a hyperparameter"),
            ("focal,gamma=-1", "loss 'focal,gamma=-1': gamma is -1.0; it must be at least 0"),
            ("focal,gamma=1,gamma=2", "loss 'focal,gamma=1,gamma=2': gamma is there twice"),
            ("focal,ohem", "write key=number, as in focal,gamma=1.5, or mining=hard:3"),
            ("focal,gamma=nan", "loss 'focal,gamma=nan': gamma is nan"),
            ("focal,inputs=1", "focal has no setting 'inputs'"),
            ("quality_focal,quality=1", "quality_focal has no setting 'quality'"),
            ("focal,class_dim=1", "focal has no setting 'class_dim'"),
            ("varifocal,detach_weight=1", "detach_weight is 1.0; it must be True or False"),
            ("varifocal,label_smoothing=0.1", "label_smoothing is 0.1; it must be 0: a label is the quality"),
            ("focal,ignore_index=1", "focal has no setting 'ignore_index'"),
            ("focal,reduction=1", "focal has no setting 'reduction'"),
            ("focal,gamma=linear:0:2", "a schedule is for training; write gamma=number here"),
            ("focal,mining=hard:3", "mining is for training; leave it out here"),
            ("focal,class_weight=inverse", "class_weight is for training; leave it out here"),
        ],
    )
    def test_errors(self, name: str, message: str):
        with pytest.raises(ValueError, match="^.*" + re.escape(message)) as caught:
            find_loss(name, CLASSIFICATION_LOSSES)
        assert "\n" not in str(caught.value)

    def test_a_sum_of_box_losses(self, tmp_path):
        own = tmp_path / "mine.py"
        own.write_text("def squares(a, b, scale=1.0):\n    return (a - b).square().sum(-1) / scale\n")
        first, second = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, 0, 11, 20]])
        giou, l1 = generalized_box_iou_loss(first, second), l1_box_loss(first, second, relative=True)
        squares = torch.tensor([2.0])
        for name, expected in (
            ("giou+0.4*l1", giou + 0.4 * l1),
            ("2*giou + 1e-1*l1", 2 * giou + 0.1 * l1),
            ("0.25*l1", 0.25 * l1),
            ("giou,eps=1e-7+l1", giou + l1),
            (f"giou+1e+1*{own}:squares,scale=4", giou + 10 * squares / 4),
        ):
            found = find_loss(name, BOX_LOSSES)
            assert found.name == name
            torch.testing.assert_close(regress(found, first, second), expected)

    def test_a_sum_may_change_during_training(self):
        found = find_loss("giou+0.5*smooth_l1,beta=linear:0:1", BOX_LOSSES, training=True)
        first, second = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, 0, 11, 20]])
        for step, beta in ((0, 0.0), (1, 0.5), (2, 1.0)):
            plain = find_loss(f"giou+0.5*smooth_l1,beta={beta}", BOX_LOSSES)
            expected = regress(plain, first, second)
            torch.testing.assert_close(regress(found.at(step, 3), first, second), expected)
        with pytest.raises(ValueError, match="a schedule is for training"):
            find_loss("giou+0.5*smooth_l1,beta=linear:0:1", BOX_LOSSES)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "giou+",
                "loss 'giou+': '' is not a term of a sum; write loss or number*loss with a number above",
            ),
            ("giou++l1", "'' is not a term of a sum"),
            ("+giou", "'' is not a term of a sum"),
            ("giou*0.4", "'giou*0.4' is not a term of a sum"),
            ("giou+-0.4*l1", "'-0.4*l1' is not a term of a sum"),
            ("giou+0*l1", "'0*l1' is not a term of a sum"),
            ("giou+nan*l1", "'nan*l1' is not a term of a sum"),
            ("giou+0.4*", "'0.4*' is not a term of a sum"),
            ("giou+2*3*l1", "'2*3*l1' is not a term of a sum"),
            ("giou+0.4*l2", "unknown loss 'l2'; did you mean 'l1'? it may be iou, giou"),
            ("giou+0.4", "unknown loss '0.4'; it may be iou, giou"),
            ("giou+0.4*focal", "unknown loss 'focal'; it may be iou, giou"),
            ("giou+0.4*l1,bta=1", "loss 'l1,bta=1': l1 has no setting 'bta'; it has none"),
            ("l1,relative=0", "l1 has no setting 'relative'; it has none"),
            ("giou,fmt=1", "giou has no setting 'fmt'; it has eps"),
        ],
    )
    def test_errors_of_box_losses(self, name: str, message: str):
        with pytest.raises(ValueError, match="^.*" + re.escape(message)) as caught:
            find_loss(name, BOX_LOSSES)
        assert "\n" not in str(caught.value)

    def test_nearest_box_loss(self):
        with pytest.raises(ValueError, match="unknown loss 'gio'; did you mean 'giou'"):
            find_loss("gio", BOX_LOSSES)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "focal,gamma=linear:0",
                "gamma: 'linear:0' is not a schedule (values is (0.0,); linear takes two",
            ),
            ("focal,gamma=line:0:2", "write linear:0:2, cosine:0:2 or stages:0:1:2"),
            (
                "focal,gamma=linear:0:-1",
                "loss 'focal,gamma=linear:0:-1': gamma is -1.0; it must be at least 0",
            ),
            ("focal,gamma=stages:1:-1:2", "gamma is -1.0; it must be at least 0"),
            ("focal,gama=linear:0:2", "focal has no setting 'gama'; it has alpha, gamma"),
            ("softmax_focal,alpha=linear:0:1", "alpha has shape (); it must be (3,), one per class"),
            (
                "focal,mining=hardest",
                "mining: 'hardest' is not a way of mining (unknown kind 'hardest'); write hard:RATIO",
            ),
            ("focal,mining", "mining: '' is not a way of mining"),
            (
                "focal,class_weight=effective:1",
                "class_weight: 'effective:1' is not a choice of class weights (beta is 1.0; it must be",
            ),
            ("focal,class_weight=0.5", "class_weight: '0.5' is not a choice of class weights"),
            ("focal,class_weight=inverse,class_weight=inverse", "class_weight is there twice"),
        ],
    )
    def test_errors_in_training(self, name: str, message: str):
        with pytest.raises(ValueError, match="^.*" + re.escape(message)) as caught:
            find_loss(name, CLASSIFICATION_LOSSES, training=True)
        assert "\n" not in str(caught.value)

    def test_a_box_loss_is_not_mined(self):
        for training, message in ((True, "for classification losses"), (False, "for training")):
            with pytest.raises(ValueError, match=f"'giou,mining=hard': mining is {message}"):
                find_loss("giou,mining=hard", BOX_LOSSES, training)

    def test_class_weights_are_read(self):
        name = "focal,class_weight=inverse:0.5:10,gamma=1,mining=hard"
        loss = find_loss(name, CLASSIFICATION_LOSSES, training=True)
        assert loss.class_weight == ClassWeight("inverse", 0.5, 10.0)
        assert loss.mining == Mining("hard")
        assert loss.function.keywords == {"gamma": 1.0}
        none = find_loss("focal,class_weight=none,mining=none", CLASSIFICATION_LOSSES)
        assert (none.class_weight, none.mining) == (None, None)
        with pytest.raises(ValueError, match="class_weight is for classification losses"):
            find_loss("giou,class_weight=inverse", BOX_LOSSES, training=True)

    def test_schedule_and_mining_are_read(self):
        loss = find_loss(
            "focal, gamma=stages:0:2 ,mining=ohem:0.7:64,alpha=0.5", CLASSIFICATION_LOSSES, training=True
        )
        assert loss.schedules == {"gamma": Schedule("stages", (0, 2))}
        assert loss.mining == Mining("ohem", nms=0.7, keep=64)
        assert loss.function.keywords == {"alpha": 0.5}
        assert len({loss, replace(loss, name="other")}) == 2  # hashable
