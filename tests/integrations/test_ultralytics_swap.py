"""Ultralytics' detectors with their losses swapped: for the same ones, in their own training, and refused."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

import detloss
from detloss.formula import cross_entropy, elementwise_loss
from detloss.integrations import swapped
from detloss.integrations.ultralytics import OnPretrainRoutineEnd, swap_losses
from helpers.swapping import curve

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
YAMLS = {"v8": "yolo11n.yaml", "end to end": "yolo26n.yaml"}


@pytest.fixture(scope="module", autouse=True)
def ultralytics(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        patch.setenv("YOLO_OFFLINE", "true")
        yield pytest.importorskip("ultralytics")


@pytest.fixture
def double():
    """Float64 everywhere: curves of the same losses differ by its rounding only."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name, dtype=None, **attributes):
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(1)
    config = yaml_model_load(YAMLS[name])
    config["scales"]["n"] = [0.33, 0.125, 1024]
    model = DetectionModel(config, nc=3, verbose=False).to(dtype or torch.get_default_dtype()).train()
    model.args = get_cfg()
    for attribute, value in attributes.items():
        setattr(model, attribute, value)
    return model


def batch():
    generator = torch.Generator().manual_seed(2)
    return {
        "img": torch.rand(3, 3, 64, 64, generator=generator),
        "batch_idx": torch.tensor([0.0, 0, 2]),  # the second image has no objects
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.3, 0.5], [0.6, 0.4, 0.5, 0.5]]),
    }


def terms(model):
    return model.loss(batch())[0]


def total(model):
    return terms(model).sum()


def their_ciou(predicted, true):
    """CIoU with their eps: in heights, in the union and in the diagonal."""
    eps = 1e-7
    (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = predicted.unbind(-1), true.unbind(-1)
    width1, height1, width2, height2 = (
        right1 - left1,
        bottom1 - top1 + eps,
        right2 - left2,
        bottom2 - top2 + eps,
    )
    across = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    shared = across * (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    overlap = shared / (width1 * height1 + width2 * height2 - shared + eps)
    hull_width = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    hull_height = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    centres = (left1 + right1 - left2 - right2) ** 2 + (top1 + bottom1 - top2 - bottom2) ** 2
    v = 4 / torch.pi**2 * (torch.atan(width2 / height2) - torch.atan(width1 / height1)) ** 2
    trade = (v / (v - overlap + 1 + eps)).detach()
    return 1 - overlap + centres / 4 / (hull_width**2 + hull_height**2 + eps) + trade * v


@pytest.mark.parametrize("name", YAMLS)
def test_the_same_losses_give_the_same_curve(name, double):
    model = made(name)
    theirs = curve(model, total, lr=1e-3)
    with swap_losses(model, "bce", their_ciou):
        mine = curve(model, total, lr=1e-3)
    assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    with swap_losses(model, nn.BCEWithLogitsLoss(), "ciou"):
        assert_close(curve(model, total, 3, lr=1e-3), theirs[:3], rtol=1e-3, atol=0)


class Spy:
    """BCE that counts its calls and keeps its targets."""

    def __init__(self):
        self.calls, self.targets = 0, None

    def __call__(self, inputs, targets, reduction="none"):
        self.calls, self.targets = self.calls + 1, targets
        return nn.functional.binary_cross_entropy_with_logits(inputs, targets, reduction=reduction)


@pytest.mark.parametrize("name", YAMLS)
def test_the_loss_that_was_given_is_called_with_soft_labels(name):
    model, spy = made(name), Spy()
    theirs = terms(model)
    with swap_losses(model, spy):
        spy.calls = 0  # it was tried on soft labels
        assert torch.equal(terms(model), theirs)
        assert spy.calls == (2 if name == "end to end" else 1)
        assert spy.targets.is_floating_point()
        assert "swapped by detloss: Spy" in repr(getattr(model.criterion, "one2one", model.criterion).bce)
    terms(model)
    assert spy.calls == (2 if name == "end to end" else 1)


@pytest.mark.parametrize("name", YAMLS)
@pytest.mark.parametrize("loss", ["quality_focal", "varifocal", "mal"])
def test_other_losses_change_their_term_only(name, loss):
    model = made(name)
    theirs = terms(model)
    with swap_losses(model, loss):
        mine = terms(model)
    assert torch.isclose(mine, theirs).tolist() == [True, False, True]
    with swap_losses(model, box="diou"):
        mine = terms(model)
    assert torch.isclose(mine, theirs).tolist() == [False, True, True]
    with swap_losses(model, loss, "giou"):
        assert curve(model, total, 3, lr=1e-3).isfinite().all()


def test_restore_restores():
    model = made("end to end")
    theirs = terms(model)
    before = vars(model.criterion.one2one).copy()
    swap = swap_losses(model, "quality_focal", "giou")
    assert swapped(model) is swap
    assert repr(swap) == "Swap(classification=quality_focal, box=giou)"
    copied = copy.deepcopy(model)
    with pytest.raises(ValueError, match="swapped already"):
        swap_losses(model, "bce")
    swap.restore()
    assert vars(model.criterion.one2one) == before
    assert swapped(model) is None
    assert torch.equal(terms(model), theirs)
    assert swapped(copied).losses == {"classification": "quality_focal", "box": "giou"}
    swapped(copied).restore()
    assert torch.equal(terms(copied), theirs)


@elementwise_loss
def exponential(logits, targets):
    """Its last operation keeps its result for the gradient."""
    return torch.exp(cross_entropy(logits, targets)) - 1 + 0 * logits


def test_class_weights_are_written_into_the_loss():
    model = made("v8", class_weights=torch.tensor([1.0, 2.0, 0.5]))
    theirs = terms(model)
    with swap_losses(model, "bce"):
        assert_close(terms(model), theirs)
    with swap_losses(model, lambda inputs, targets: torch.exp(inputs - targets), force=True):
        total(model).backward()


def test_losses_that_miss_soft_labels_are_refused(ultralytics):
    model, yolo = made("v8"), ultralytics.YOLO("yolo11n.yaml")
    reason = r"focal; labels are soft here, and for one of 0.3 it is least at a score of 0.1[0-9]"
    for one in (model, yolo):
        with pytest.raises(ValueError, match=reason):
            swap_losses(one, "focal")
        assert swapped(one) is None
    with pytest.raises(ValueError, match="pos_weight"):
        swap_losses(model, partial(detloss.binary_cross_entropy_with_logits, pos_weight=torch.tensor(4.0)))
    with swap_losses(model, "focal", force=True) as swap:
        assert swap.losses == {"classification": "focal"}
        assert terms(model).isfinite().all()
    for loss in ("bce", "balanced_bce", detloss.QualityFocalLoss()):
        swap_losses(model, loss).restore()


def test_what_does_not_fit_is_refused(ultralytics, monkeypatch):
    with pytest.raises(ValueError, match="model is Linear; it may be a YOLO or a DetectionModel"):
        swap_losses(nn.Linear(1, 1), "bce")
    with pytest.raises(ValueError, match="model is YOLO; it may be a YOLO or a DetectionModel that detects"):
        swap_losses(ultralytics.YOLO("yolo11n-cls.yaml"), "bce")
    with pytest.raises(ValueError, match="model is SegmentationModel; it may be a YOLO or"):
        swap_losses(ultralytics.YOLO("yolo11n-seg.yaml").model, "bce")
    model = made("v8")
    with pytest.raises(ValueError, match="softmax_focal, a softmax over classes"):
        swap_losses(model, "softmax_focal")
    monkeypatch.setattr("detloss.integrations._swap.version", lambda client: "9.0.1")
    with pytest.raises(RuntimeError, match=r"ultralytics is 9.0.1; .* ultralytics>=8.4.95,<8.5"):
        swap_losses(model, "bce")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four noisy images with a bright square each."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 90, (64, 64, 3), np.uint8)
        image[16:48, 8 * index : 8 * index + 32] += 120
        Image.fromarray(image).save(folder / f"images/{index}.png")
        (folder / f"labels/{index}.txt").write_text(f"{index % 2} {(8 * index + 16) / 64} 0.5 0.5 0.5\n")
    file = folder / "data.yaml"
    file.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: [a, b]\n")
    return file


def settings(data, folder, epochs=2):
    sizes = {"epochs": epochs, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu"}
    return {**sizes, "data": str(data), "amp": False, "plots": False, "project": str(folder), "name": "run"}


class Interrupted(Exception):
    pass


def interrupt(trainer):
    raise Interrupted


@pytest.mark.parametrize("name", YAMLS)
def test_training_validation_saving_and_resuming(ultralytics, name, data, tmp_path):
    seen = []

    def look(trainer):
        seen.append([swapped(model) for model in (trainer.model, trainer.ema.ema)])

    yolo = ultralytics.YOLO(YAMLS[name])
    swap_losses(yolo, "quality_focal", "giou")
    assert "losses swapped by detloss: classification=quality_focal, box=giou" in repr(yolo)
    yolo.add_callback("on_train_epoch_end", look)
    yolo.add_callback("on_fit_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        yolo.train(**settings(data, tmp_path))
    last = tmp_path / "run/weights/last.pt"
    assert b"detloss" not in last.read_bytes()
    ema = torch.load(last, weights_only=False)["ema"]
    assert getattr(ema, "criterion", None) is None

    yolo = ultralytics.YOLO(last)
    swap = swap_losses(yolo, "quality_focal", "giou")
    yolo.add_callback("on_train_epoch_end", look)
    yolo.train(resume=True)
    assert len(seen) == 2
    for both in seen:
        assert [one.losses for one in both] == [{"classification": "quality_focal", "box": "giou"}] * 2
    assert b"detloss" not in (tmp_path / "run/weights/best.pt").read_bytes()
    swap.restore()
    assert swapped(yolo) is None
    assert "on_pretrain_routine_end" not in yolo.callbacks or not any(
        isinstance(callback, OnPretrainRoutineEnd) for callback in yolo.callbacks["on_pretrain_routine_end"]
    )


def test_the_callback_is_pickled_as_for_several_processes():
    callback = OnPretrainRoutineEnd("quality_focal", partial(detloss.complete_box_iou_loss, eps=1e-6))
    loaded = pickle.loads(pickle.dumps(callback))
    model = made("v8")
    with loaded.swap(model) as swap:
        assert swap.losses == {"classification": "quality_focal", "box": "complete_box_iou_loss(eps=1e-06)"}
        assert terms(pickle.loads(pickle.dumps(model))).isfinite().all()
