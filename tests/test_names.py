"""Losses found by name: what a name means, and what is said where it means nothing."""

import re
from dataclasses import replace

import pytest
import torch

from detloss.losses import sigmoid_focal_loss
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
            ("focal,ignore_index=1", "focal has no setting 'ignore_index'"),
            ("focal,reduction=1", "focal has no setting 'reduction'"),
            ("focal,gamma=linear:0:2", "a schedule is for training; write gamma=number here"),
            ("focal,mining=hard:3", "mining is for training; leave it out here"),
        ],
    )
    def test_errors(self, name: str, message: str):
        with pytest.raises(ValueError, match="^.*" + re.escape(message)) as caught:
            find_loss(name, CLASSIFICATION_LOSSES)
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

    def test_schedule_and_mining_are_read(self):
        loss = find_loss(
            "focal, gamma=stages:0:2 ,mining=ohem:0.7:64,alpha=0.5", CLASSIFICATION_LOSSES, training=True
        )
        assert loss.schedules == {"gamma": Schedule("stages", (0, 2))}
        assert loss.mining == Mining("ohem", nms=0.7, keep=64)
        assert loss.function.keywords == {"alpha": 0.5}
        assert len({loss, replace(loss, name="other")}) == 2  # hashable
