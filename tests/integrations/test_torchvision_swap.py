"""The heads of torchvision with their losses swapped: for the same ones, and for others."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss
from detloss.integrations import swapped
from detloss.integrations.torchvision import swap_losses
from helpers.swapping import Counting, backbone, curve, retinanet
from helpers.swapping import retinanet_batch as batch
from helpers.swapping import retinanet_step as step

pytestmark = pytest.mark.clients
detection = pytest.importorskip("torchvision.models.detection")


def fcos():
    anchors = detection.anchor_utils.AnchorGenerator(((8,),), ((1.0,),))
    return detection.FCOS(backbone(32), 4, min_size=64, max_size=64, anchor_generator=anchors)


def ssd(lite=False):
    anchors = detection.anchor_utils.DefaultBoxGenerator([[2]], scales=[0.3, 0.5])
    head = None
    if lite:
        head = detection.ssdlite.SSDLiteHead([8], anchors.num_anchors_per_location(), 4, nn.BatchNorm2d)
    body = backbone(8)
    body.out_channels = [8]
    return detection.ssd.SSD(body, anchors, (64, 64), 4, head=head)


MODELS = {
    "retinanet": retinanet,
    "fcos": fcos,
    "ssd": ssd,
    "ssdlite": partial(ssd, lite=True),
    **{f"retinanet {kind}": partial(retinanet, kind) for kind in ("giou", "diou", "ciou", "smooth_l1")},
}
SAME = {
    "retinanet": ("focal", "l1"),
    "fcos": ("focal", "giou"),
    "ssd": ("softmax_focal,gamma=0", "smooth_l1,beta=1"),
    "ssdlite": (F.cross_entropy, nn.SmoothL1Loss()),
    "retinanet giou": (detloss.SigmoidFocalLoss(), detloss.generalized_box_iou_loss),
    "retinanet diou": (detloss.sigmoid_focal_loss, "diou"),
    "retinanet ciou": (None, detloss.CompleteBoxIoULoss()),
    "retinanet smooth_l1": ("focal", partial(F.smooth_l1_loss, beta=1.0)),
}


def made(name):
    torch.manual_seed(1)
    return MODELS[name]().double().train()


@pytest.mark.parametrize("name", SAME)
def test_the_same_losses_give_the_same_curve(name):
    model = made(name)
    theirs = curve(model, step)
    with swap_losses(model, *SAME[name]):
        mine = curve(model, step)
    assert_close(mine[:3], theirs[:3], rtol=1e-7, atol=1e-9)
    assert_close(mine, theirs, rtol=1e-5, atol=1e-9)
    assert theirs.sum(1)[-1] < theirs.sum(1)[0]


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
@pytest.mark.parametrize("only", ["classification", "box"])
def test_one_of_both_leaves_the_other(name, only):
    model = made(name)
    theirs = step(model)
    softmax = "softmax_focal,gamma=2"
    other = {"classification": softmax if name == "ssd" else "bce", "box": "ciou"}
    with swap_losses(model, **{only: other[only]}):
        mine = step(model)
    assert list(mine) == list(theirs) or set(mine) == set(theirs)
    changed = {"classification": "classification", "box": "bbox_regression"}[only]
    for term in theirs:
        same = torch.isclose(mine[term], theirs[term], rtol=1e-9)
        assert same == (term != changed), term


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_the_loss_that_was_given_is_called_with_class_indices(name):
    model, counting = made(name), Counting()
    with swap_losses(model, counting):
        step(model)
        assert counting.calls == 3  # one per image
        assert counting.targets.dtype == torch.int64
        assert "Counting" in repr(model)
    step(model)
    assert counting.calls == 3


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
@pytest.mark.parametrize("loss", ["quality_focal", "varifocal", "mal"])
def test_quality_is_the_overlap_of_the_decoded_box(name, loss):
    model = made(name)
    qualities = []

    def spying(inputs, targets, reduction="none", *, quality=None, ignore_index=-100, impl="auto"):
        qualities.append((quality, targets))
        return detloss.quality_focal_loss(inputs, targets, reduction=reduction, quality=quality, impl=impl)

    with swap_losses(model, spying):
        step(model)
    quality, labels = qualities[0]
    assert quality.shape == labels.shape
    assert not quality.requires_grad
    assert (quality[labels >= 4] == 0).all()
    positives = quality[labels < 4]
    assert ((positives >= 0) & (positives <= 1)).all()
    assert positives.max() > (0.1 if name == "retinanet" else 0)  # FCOS begins with tiny boxes
    with swap_losses(model, loss, "ciou"):
        assert curve(model, step, 3).isfinite().all()


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_boxes_are_decoded_or_not(name):
    model = made(name)
    terms = {}
    for on in (None, "decoded", "regression"):
        with swap_losses(model, box=F.l1_loss, on=on):
            terms[on] = float(step(model)["bbox_regression"].detach())
    assert terms["decoded"] != terms["regression"]
    assert terms[None] == terms["decoded" if name == "fcos" else "regression"]
    with pytest.raises(ValueError, match="on is 'regression', and box is giou"):
        swap_losses(model, box="giou", on="regression")
    assert swapped(model) is None


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_a_batch_without_objects(name):
    model, images = made(name), batch()[0]
    nothing = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0, dtype=torch.int64)}
    for box in ("ciou", F.l1_loss):
        with swap_losses(model, "softmax_focal" if name == "ssd" else "quality_focal", box):
            terms = model(images, [dict(nothing) for _ in images])
        sum(terms.values()).backward()
        assert terms["bbox_regression"] == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_ssd_without_mining_counts_all_negatives():
    model = made("ssd")
    with swap_losses(model, "softmax_focal"):
        mined = step(model)["classification"]
    with swap_losses(model, "softmax_focal", mining=False):
        assert step(model)["classification"] > mined


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_restore_restores(name):
    model = made(name)
    before, told = step(model), repr(model)
    attributes = {id(part): set(vars(part)) for part in model.modules()}
    swap = swap_losses(model, "softmax_focal" if name == "ssd" else "focal,gamma=1.5", "ciou")
    assert swapped(model) is swap
    assert repr(swap) == f"Swap(classification={swap.losses['classification']}, box=ciou)"
    assert "losses swapped by detloss: classification=" in repr(model)
    assert "box=ciou" in repr(model)
    swap.restore()
    swap.restore()
    assert swapped(model) is None
    assert repr(model) == told
    assert {id(part): set(vars(part)) for part in model.modules()} == attributes
    after = step(model)
    assert all(torch.equal(before[term], after[term]) for term in before)


def test_copies_and_pickles_are_swapped_by_themselves():
    model = made("retinanet")
    swap_losses(model, "focal,gamma=0", "giou")
    copied, file = copy.deepcopy(model), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copied, loaded, pickle.loads(pickle.dumps(model))):
        assert other.head.compute_loss.args[1].part is other.head
        before = step(other)
        swapped(model).restore()
        assert torch.equal(step(other)["classification"], before["classification"])
        swapped(other).restore()
        assert swapped(other) is None
        assert not torch.isclose(step(other)["classification"], before["classification"])
        swap_losses(model, "focal,gamma=0", "giou")
    assert set(model.state_dict()) == set(made("retinanet").state_dict())


def test_two_models_do_not_disturb_each_other():
    first, second, third = made("retinanet"), made("retinanet"), made("fcos")
    theirs = step(second), step(third)
    swap_losses(first, "bce")
    with swap_losses(third, "quality_focal"):
        assert torch.equal(step(second)["classification"], theirs[0]["classification"])
    assert torch.equal(step(third)["classification"], theirs[1]["classification"])
    assert swapped(first).losses == {"classification": "bce"}
    assert swapped(second) is None


def test_what_does_not_fit_is_refused(monkeypatch):
    model = made("retinanet")
    with pytest.raises(ValueError, match=r"model is Conv2d; it may be torchvision's RetinaNet"):
        swap_losses(nn.Conv2d(1, 1, 1), "focal")
    with pytest.raises(
        ValueError, match=r"softmax_focal, a softmax over classes; RetinaNet scores each by a"
    ):
        swap_losses(model, "softmax_focal")
    with pytest.raises(ValueError, match=r"focal, a loss of single classes; SSD scores by a softmax"):
        swap_losses(made("ssd"), "focal")
    with pytest.raises(ValueError, match="unknown loss 'facol'; did you mean 'focal'"):
        swap_losses(model, "facol")
    with pytest.raises(ValueError, match="box is 3; it may be a name"):
        swap_losses(model, box=3)
    with (
        swap_losses(model, "bce"),
        pytest.raises(ValueError, match=r"swapped already: Swap\(classification=bce"),
    ):
        swap_losses(model, "focal")
    monkeypatch.setattr("detloss.integrations._swap.version", lambda client: "0.31.0+cpu")
    with pytest.raises(RuntimeError, match=r"torchvision is 0.31.0\+cpu; .* torchvision>=0.26,<0.27"):
        swap_losses(model, "focal")
    assert swapped(model) is None


def test_bfloat16_autocast():
    model = made("fcos").float()
    images, targets = batch()
    images = [image.float() for image in images]
    targets = [{**target, "boxes": target["boxes"].float()} for target in targets]
    with swap_losses(model, "quality_focal", "ciou"), torch.autocast("cpu", torch.bfloat16):
        sum(model(images, targets).values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
