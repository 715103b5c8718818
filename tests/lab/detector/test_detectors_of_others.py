"""Detectors of torchvision and transformers: the lab trains them as their makers' own code does."""

from pathlib import Path

import pytest
import torch

from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed, training_batch
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.build import build_detector
from detloss.lab.detector.inference import predict, to_torchvision
from detloss.lab.detector.postprocess import Limits
from detloss.lab.runs import read_csv
from detloss.lab.training import state as state_of_training
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.optimizer import learning_rate
from detloss.lab.training.state import Training
from helpers.bccd import small_bccd
from helpers.commands import SCENES, detloss, refused

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the clients' own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
torchvision = pytest.importorskip("torchvision", exc_type=Exception)
CPU = torch.device("cpu")
RT_DETR = (
    "d_model=32", "encoder_hidden_dim=32", "encoder_in_channels=[16,32,64]", "encoder_ffn_dim=32",
    "encoder_attention_heads=2", "decoder_in_channels=[32,32,32]", "decoder_ffn_dim=32", "decoder_layers=2",
    "decoder_attention_heads=2", "num_queries=30", "num_denoising=10", "backbone_config.embedding_size=8",
    "backbone_config.hidden_sizes=[8,16,32,64]", "backbone_config.depths=[1,1,1,1]",
    "backbone_config.layer_type=basic",
)  # fmt: skip
D_FINE = (
    *(setting for setting in RT_DETR if not setting.startswith("backbone_config.")),
    "decoder_n_points=[2,2,2]", "backbone_config.stem_channels=[3,8,8]",
    "backbone_config.stage_in_channels=[8,8,16,32]", "backbone_config.stage_mid_channels=[4,4,8,8]",
    "backbone_config.stage_out_channels=[8,16,32,64]", "backbone_config.stage_num_blocks=[1,1,1,1]",
    "backbone_config.stage_numb_of_layers=[1,1,1,1]", "backbone_config.hidden_sizes=[8,16,32,64]",
)  # fmt: skip
KINDS = {
    "torchvision:retinanet_resnet50_fpn": ((), "focal", "l1"),
    "torchvision:retinanet_resnet50_fpn_v2": ((), "focal", "giou"),
    "torchvision:fcos_resnet50_fpn": ((), "focal", "giou"),
    "transformers:rt_detr": (RT_DETR, "varifocal,detach_weight=true", "giou"),
    "transformers:rt_detr_v2": (RT_DETR, "varifocal,detach_weight=true", "giou"),
    "transformers:d_fine": (D_FINE, "varifocal,detach_weight=true", "giou"),
}
"""Settings, and the names of the losses that each comes with."""


def config(kind: str, loss: str = "default", box_loss: str = "default", **more) -> TrainConfig:
    of_detector = {name: more.pop(name) for name in ("settings", "freeze", "weights") if name in more}
    of_detector = {"settings": KINDS.get(kind, ((),))[0], **of_detector}
    common = {"steps": 20, "optimizer": "sgd", "weight_decay": 0.0, "clip_quantile": 1.0, "amp": "off"}
    return TrainConfig(
        loss, box_loss, 0.002, 1.0, size=64, batch=2, device="cpu", **{**common, **more},
        detector=DetectorConfig(kind=kind, **of_detector),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Letterboxed:
    chosen = SceneConfig(size=64, object_size=(14.0, 30.0), train=12, val=4, classes=3, empty=0.3)
    return Letterboxed(scenes(chosen, "train"), 64)


# D-FINE's own code is for float32 alone; tests/integrations has its curve.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith(("fpn_v2", "d_fine"))])
def test_the_same_losses_swapped_in_follow_the_makers_own_curve(data, monkeypatch, kind: str):
    _, loss, box_loss = KINDS[kind]
    for family in ("retinanet", "fcos"):  # a smaller body, for twenty steps in float64
        monkeypatch.setattr(f"torchvision.models.detection.{family}.resnet50", torchvision.models.resnet18)
    own, swapped = Training(config(kind), data), Training(config(kind, loss, box_loss), data)
    assert all(map(torch.equal, own.detector.parameters(), swapped.detector.parameters()))
    for state in (own, swapped):  # in float32 normalisation over a few cells magnifies the last digit
        state.detector.double()

    def in_float64(batch, device):
        images, targets = to_torchvision(batch, device)
        return [image.double() for image in images], [{**t, "boxes": t["boxes"].double()} for t in targets]

    monkeypatch.setattr(state_of_training, "to_torchvision", in_float64)
    rows = [(own.step(), swapped.step()) for _ in range(20)]
    for name in ("loss", "classification_loss", "box_loss"):
        first, second = ([row[k][name] for row in rows] for k in (0, 1))
        assert second == pytest.approx(first, rel=1e-5), name
    assert rows[-1][0]["loss"] != rows[0][0]["loss"]


@pytest.mark.parametrize("kind", ["torchvision:retinanet_resnet50_fpn", "torchvision:fcos_resnet50_fpn"])
def test_the_lab_trains_as_a_loop_by_hand(data, kind: str):
    from torchvision.models import detection

    chosen = config(kind)
    state = Training(chosen, data)
    torch.manual_seed(0)
    build = getattr(detection, kind.partition(":")[2])
    model = build(weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True)
    for step in range(6):
        images, targets = to_torchvision(training_batch(data, step, 2, 0, chosen.augment), CPU)
        optimizer.param_groups[0]["lr"] = learning_rate(step, chosen, chosen.lr)
        losses = model(images, [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets])
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert state.step()["loss"] == pytest.approx(total.item(), rel=1e-4)


def test_torchvisions_labels_begin_behind_the_background(data):
    model = build_detector(config("torchvision:fcos_resnet50_fpn").detector, ("a", "b", "c"), 64).eval()
    inner = model.model.model
    image = torch.rand(3, 64, 64)

    def found(images):
        boxes = torch.tensor([[0.0, 0, 9, 9]] * 4)
        return [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]), "labels": torch.arange(4)}]

    inner.forward = found
    (one,) = model([image])
    assert one["labels"].tolist() == [0, 1, 2]
    assert one["scores"].tolist() == pytest.approx([0.8, 0.7, 0.6])


@pytest.mark.parametrize(
    "kind", ["torchvision:ssdlite320_mobilenet_v3_large", "transformers:rt_detr_v2", "transformers:d_fine"]
)
def test_it_is_saved_and_read_and_resumes_exactly(data, tmp_path, kind: str):
    from detloss.lab.records import to_dict
    from detloss.lab.runs import write_json
    from detloss.lab.training.trained import load_detector

    chosen = config(kind, steps=4)
    whole, first = Training(chosen, data), Training(chosen, data)
    for _ in range(4):
        row = whole.step()
    first.step(), first.step()
    write_json(tmp_path / "config.json", to_dict(chosen))
    first.save(tmp_path)
    again = Training(chosen, data)
    again.restore(tmp_path)
    again.step()
    assert again.step()["loss"] == row["loss"]
    assert all(map(torch.equal, whole.detector.state_dict().values(), again.detector.state_dict().values()))
    again.save(tmp_path)
    model, _, _ = load_detector(tmp_path, CPU)
    limits = Limits(score=0.0)
    before, after = (predict(m, data, limits, CPU) for m in (again.average.model, model))
    assert sum(len(one.scores) for one in before) > 0
    for one, other in zip(before, after, strict=True):
        assert one.scores.tolist() == other.scores.tolist()
        assert set(one.labels) <= {0, 1, 2}


def test_freezing_and_a_slow_backbone(data):
    chosen = config("torchvision:retinanet_resnet50_fpn_v2", freeze=("norm", "2"), backbone_lr=0.1)
    state = Training(chosen, data)
    body = state.detector.model.model.backbone.body
    trained = {name for name, p in body.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"layer3", "layer4"}
    assert not any("bn" in name for name in trained)
    statistics = body.layer4[0].bn1.running_mean.clone()
    state.step()
    assert torch.equal(statistics, body.layer4[0].bn1.running_mean)
    slow = {
        id(p) for group in state.optimizer.param_groups if group["factor"] == 0.1 for p in group["params"]
    }
    assert slow == {id(p) for name, p in body.named_parameters() if name in trained}


def test_weights_of_a_backbone_and_of_another_number_of_classes(tmp_path):
    from torchvision.models import resnet50

    kind = "torchvision:retinanet_resnet50_fpn_v2"
    torch.manual_seed(1)
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "r50.pt")
    found = build_detector(DetectorConfig(kind=kind, weights=str(tmp_path / "r50.pt")), ("a",), 64)
    assert torch.equal(found.model.model.backbone.body.layer4[2].conv3.weight, network.layer4[2].conv3.weight)
    torch.save(found.model.model.state_dict(), tmp_path / "whole.pt")
    start = DetectorConfig(kind=kind, weights=str(tmp_path / "whole.pt"))
    other = build_detector(start, ("a", "b"), 64)
    assert "made anew" in other.notes[0]
    assert "head.classification_head.cls_logits.weight" in other.notes[0]
    same = build_detector(start, ("a",), 64)
    assert not same.notes


def test_weights_of_transformers_from_a_folder(data, tmp_path):
    first = build_detector(config("transformers:rt_detr_v2").detector, ("a", "b"), 64)
    first.model.model.save_pretrained(tmp_path / "saved")
    start = DetectorConfig(kind="transformers:rt_detr_v2", weights=str(tmp_path / "saved"))
    same = build_detector(start, ("a", "b"), 64)
    mine = first.model.model.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in same.model.model.state_dict().items())
    more = build_detector(start, ("a", "b", "c"), 64)
    assert "made anew, as they are of other classes" in more.notes[0]
    assert more.model.model.config.num_labels == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--detector.kind torchvision:yolo", "of torchvision it may be fcos_resnet50_fpn, retinanet"),
        ("--detector.kind transformers:yolo", "of transformers it may be rt_detr, rt_detr_v2, d_fine"),
        ("--detector.kind torchvision:fcos_resnet50_fpn --detector.settings num_classes=4", "num_classes"),
        ("--detector.kind torchvision:fcos_resnet50_fpn --detector.settings deep=4", "deep"),
        ("--detector.kind transformers:d_fine --detector.settings deep=4", "no setting deep"),
        ("--detector.kind transformers:d_fine --detector.weights here", "no folder with a config.json"),
        ("--detector.kind torchvision:ssdlite320_mobilenet_v3_large", "scores by a softmax"),
        ("--detector.kind torchvision:fcos_resnet50_fpn --loss softmax_focal", "scores each by a sigmoid"),
        (
            "--detector.kind torchvision:ssdlite320_mobilenet_v3_large --loss default --detector.freeze 1",
            "no stages are known",
        ),
    ],
)
def test_what_does_not_fit_is_said_early(here, arguments: str, message: str):
    refused(detloss("train", *arguments.split(), *SCENES, "--size", "64", "--out", "run"), message)
    assert not Path("run").exists()


def test_no_network(monkeypatch):
    from torchvision.models._api import WeightsEnum

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    start = DetectorConfig(kind="torchvision:fcos_resnet50_fpn", weights="pretrained")
    with pytest.raises(ValueError, match=r"cannot be downloaded \(no network\); fetch https://"):
        build_detector(start, ("a",), 64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "torchvision:retinanet_resnet50_fpn"])
def test_bccd_from_the_command_line_to_the_report(here, kind: str):
    small_bccd(here / "cells")
    settings, loss, box_loss = KINDS[kind]
    more = ["--detector.settings", *settings] if settings else []
    done = detloss(
        "compare", "--data", "cells", "--detector.kind", kind, *more, "--losses", f"{loss}+{box_loss}",
        "default+default", "--seeds", "1", "--lr", ".001", "--box-weight", "1", "--size", "64",
        "--batch", "2", "--steps", "4", "--evaluations", "1", "--device", "cpu", "--workers", "1",
        "--out", "all",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert len(read_csv(Path("all/results.csv"))) == 2
    assert "Not measured: which locations of" in Path("all/report.html").read_text()
    run = f"all/runs/{loss}+{box_loss}/seed-0"
    for command in (f"evaluate {run} --out seen", f"calibration {run} --out scores"):
        assert detloss(*command.split()).status == 0, command
    assert "not shown" in detloss("inspect", "--checkpoint", run, "--out", "looked").out
