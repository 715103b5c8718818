"""A detector that a user wrote, in a file: trained, compared and applied as ours are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.build import build_detector
from detloss.lab.runs import read_csv
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.state import Training
from detloss.lab.training.trained import load_detector
from helpers.commands import SCENES, detloss, refused
from helpers.own_detector import OWN

SMALL = [*SCENES, "--size", "32", "--batch", "2", "--steps", "4", "--evaluations", "1", "--device", "cpu"]


@pytest.fixture
def file(here) -> Path:
    (here / "mine.py").write_text(OWN)
    return here / "mine.py"


def config(file: Path, loss: str = "focal", box_loss: str = "giou", **more) -> TrainConfig:
    of_detector = {name: more.pop(name) for name in ("settings", "freeze", "weights") if name in more}
    return TrainConfig(
        loss, box_loss, 0.01, **{"box_weight": 1.0, **more}, size=32, batch=2, steps=4, amp="off",
        device="cpu", detector=DetectorConfig(kind=f"{file}:build", **of_detector),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Letterboxed:
    return Letterboxed(scenes(SceneConfig(size=32, object_size=(8.0, 16.0), train=8, val=4), "train"), 32)


def test_from_training_to_the_report(file, tmp_path):
    kind = ["--detector.kind", f"{file}:build", "--detector.settings", "width=6", *SMALL]
    done = detloss("train", *kind, "--loss", "default", "--box-loss", "giou", "--out", "run")
    assert done.status == 0, done.err
    rows = read_csv(Path("run/log.csv"))
    assert len(rows) == 4
    for row in rows:
        assert float(row["loss"]) == pytest.approx(
            float(row["classification_loss"]) + 2 * float(row["box_loss"]), rel=1e-5
        )
        assert row["positives"] in ("", "nan")
    for command in ("evaluate run --trust --out seen", "calibration run --out scores"):
        assert detloss(*command.split()).status == 0, command
    assert detloss("scenes", "--out", "voc", "--format", "voc", *SCENES).status == 0
    assert detloss("predict", "run", "voc/JPEGImages", "--trust", "--quick", "--out", "found").status == 0
    assert json.loads(Path("found/detections.json").read_text()) is not None
    seen = detloss("inspect", "--checkpoint", "run", "--trust", "--out", "looked")
    assert seen.status == 0, seen.err
    assert "not shown: negatives per positive, where the loss comes from" in seen.out
    assert Path("looked/suspects.csv").exists()
    losses = ["--losses", "default+default", "focal,gamma=linear:0:2", "--seeds", "2", "--lr", ".01"]
    done = detloss("compare", *kind, *losses, "--box-weight", "1", "--workers", "1", "--out", "all")
    assert done.status == 0, done.err
    assert "negatives per positive: not measured" in done.out
    assert len(read_csv(Path("all/results.csv"))) == 4
    assert "Not measured: which locations of" in Path("all/report.html").read_text()


def test_it_resumes_exactly_and_comes_back(file, data, tmp_path):
    whole, first = Training(config(file), data), Training(config(file), data)
    rows = [whole.step() for _ in range(4)]
    first.step(), first.step()
    first.save(tmp_path / "run")
    second = Training(config(file), data)
    second.restore(tmp_path / "run")
    for row in rows[2:]:
        again = second.step()
        assert {**again, "seconds": 0} == pytest.approx({**row, "seconds": 0}, abs=0, nan_ok=True)
    assert all(map(torch.equal, whole.detector.state_dict().values(), second.detector.state_dict().values()))


def test_losses_box_weight_and_schedule_reach_it(file, data):
    first = {loss: Training(config(file, loss), data).step()["loss"] for loss in ("default", "bce", "focal")}
    assert first["default"] == pytest.approx(first["bce"], rel=1e-5)  # its own is cross entropy
    assert first["focal"] < first["bce"]
    heavy = Training(config(file, box_weight=3.0), data).step()
    assert heavy["loss"] == pytest.approx(heavy["classification_loss"] + 3 * heavy["box_loss"], rel=1e-5)
    state = Training(config(file, "focal,alpha=none,gamma=linear:0:2"), data)
    assert state.step()["classification_loss"] == pytest.approx(
        Training(config(file, "bce"), data).step()["classification_loss"], rel=1e-5
    )
    for _ in range(3):
        state.step()
    assert state.detector.scheduled[0][1].item() == 2


def test_a_users_own_loss_is_reduced(file, data):
    file.with_name("loss.py").write_text(
        "from detloss.losses import sigmoid_focal_loss\n"
        "def mine(logits, targets):\n"
        "    return sigmoid_focal_loss(logits, targets)\n"
    )
    rows = [
        Training(config(file, loss), data).step()["loss"] for loss in ("focal", f"{file.parent}/loss.py:mine")
    ]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


def test_frozen_normalisation_and_a_slow_backbone(file, data):
    state = Training(config(file, freeze=("norm",), backbone_lr=0.1), data)
    before = {name: value.clone() for name, value in state.detector.state_dict().items()}
    state.step()
    after = state.detector.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("model.backbone.1")}
    rates = {group["factor"]: group["lr"] for group in state.optimizer.param_groups}
    assert rates[0.1] == pytest.approx(0.1 * rates[1.0])
    state = Training(config(file, freeze=("1",)), data)
    frozen = {name for name, p in state.detector.named_parameters() if not p.requires_grad}
    assert frozen == {"model.backbone.0.weight", "model.backbone.0.bias"}


def test_weights_from_a_file(file, data, tmp_path):
    names = ("a", "b", "c")
    first = build_detector(config(file).detector, names, 32)
    save_file(first.model.state_dict(), tmp_path / "w.safetensors")
    start = config(file, weights=str(tmp_path / "w.safetensors")).detector
    again = build_detector(start, names, 32)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert not again.notes
    other = build_detector(start, ("a",), 32)
    assert other.notes == [f"weights {tmp_path}/w.safetensors: made anew, as they are not there or of other "
                           "classes: head.weight, head.bias"]  # fmt: skip
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt are of another model: 0 of its 6 parameters"):
        build_detector(replace(start, weights=str(tmp_path / "x.pt")), names, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--detector.kind gone.py:build", "cannot be imported.*no file gone.py"),
        ("--detector.kind mine.py:bild", "cannot be imported.*bild"),
        ("--detector.kind mine.py:nothing", "returned int; it must return a torch.nn.Module"),
        ("--detector.kind mine.py:failing", "failed .KeyError: 'oh'"),
        ("--detector.kind mine.py:build --detector.settings depth=3", "unexpected keyword argument 'depth'"),
        ("--detector.kind mine.py:build --detector.settings depth", "'depth'; write key=value"),
        ("--detector.kind mine.py:build --detector.width 8", "width is 8; it is of the dense detector"),
        ("--detector.kind mine.py:build --balance guided", "balance is guided; it is for the dense detector"),
        ("--detector.kind mine.py:build --loss bce,mining=hard:3", "mining is for the dense detector"),
        ("--detector.kind mine.py:build --loss bce,class_weight=inverse:1", "class_weight is for the dense"),
        ("--detector.kind mine.py:build --box-loss smooth_l1,beta=linear:1:2", "schedule of a box loss"),
        ("--detector.kind mine.py:build --detector.weights gone.pt", "gone.pt cannot be read .no such file"),
        ("--detector.kind mine.py:build --detector.weights pretrained", "has none that are known"),
        ("--detector.kind mine.py:build --detector.freeze all", "freeze is .*it may be norm"),
        ("--detector.settings width=3", "kind anchor_free has its own arguments"),
        (
            "--detector.kind yolo",
            "kind is .yolo.; it may be anchor_free, retinanet, yolov2, torchvision:NAME",
        ),
        ("--loss default", "loss 'default' is the one that a detector of others comes with"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(file, arguments: str, message: str):
    refused(detloss("train", *arguments.split(), *SMALL, "--out", "run"), message)
    assert not Path("run").exists()


def test_a_run_whose_file_is_gone_or_changed(file, data, tmp_path):
    done = detloss("train", "--detector.kind", f"{file}:build", *SMALL, "--out", "run")
    assert done.status == 0, done.err
    detector, found, _ = load_detector(Path("run"), torch.device("cpu"))
    assert not detector.training
    assert found.detector.kind == f"{file}:build"
    file.write_text(OWN.replace("self.head", "self.top"))
    refused(detloss("evaluate", "run", "--trust"), "is of another detector than")
    file.unlink()
    refused(detloss("evaluate", "run", "--trust"), "cannot be imported")


def test_a_detector_without_a_dict_of_losses(file, data):
    file.write_text(
        OWN + "\n\nclass Wrong(nn.Linear):\n    def forward(self, images, targets=None):\n"
        "        return self.weight.sum()\n\n\ndef build(names, a, b):\n    return Wrong(1, 1)\n"
    )
    with pytest.raises(ValueError, match="returned Tensor in training; it must return a dict of losses"):
        Training(config(file), data).step()
