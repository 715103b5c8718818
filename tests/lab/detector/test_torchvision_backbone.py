"""RetinaNet at full size, on torchvision's ResNet-50."""

import pytest
import torch

from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector, DetectorConfig
from detloss.lab.records import to_dict
from detloss.lab.runs import write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.state import Training
from detloss.lab.training.trained import load_detector

pytestmark = pytest.mark.clients
PAPER = {
    "kind": "retinanet",
    "backbone": "resnet50",
    "channels": 256,
    "head_depth": 4,
    "strides": (8, 16, 32, 64, 128),
}


def test_retinanet_of_the_paper():
    detector = Detector(DetectorConfig(**PAPER), 80).eval()
    with torch.no_grad():
        output = detector(torch.rand(1, 3, 200, 136))
    grid = detector.grid(200, 136)
    cells = [25 * 17, 13 * 9, 7 * 5, 4 * 3, 2 * 2]
    assert [n // 9 for n in grid.level_sizes] == cells
    assert output.logits.shape == (1, 9 * sum(cells), 80)
    # Areas 32² to 512² at scale 1, as in section 4 of 1708.02002.
    square = grid.anchors[1::9]
    sides = (square[:, 2:] - square[:, :2]).prod(-1).sqrt()
    assert sides.unique().tolist() == pytest.approx([32, 64, 128, 256, 512])


def test_weights_from_a_file(tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(1)
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "r50.pt")
    config = DetectorConfig(backbone="resnet50", weights=str(tmp_path / "r50.pt"), strides=(8, 16))
    torch.manual_seed(2)
    detector = Detector(config, 3)
    assert torch.equal(detector.pyramid.backbone[0][0][0].weight, network.conv1.weight)
    assert torch.equal(detector.pyramid.backbone[2][5].conv3.weight, network.layer3[5].conv3.weight)


@pytest.mark.parametrize("content", [None, b"no tensor", {"conv1.weight": torch.zeros(3)}])
def test_bad_weights(tmp_path, content):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights .*w\.pt (cannot be read|are of another model)"):
        Detector(DetectorConfig(backbone="resnet50", weights=str(path), strides=(8, 16)), 3)


def test_a_run_is_read_when_the_file_it_began_from_is_gone(tmp_path):
    from torchvision.models import resnet50

    torch.save(resnet50(weights=None).state_dict(), tmp_path / "r50.pt")
    detector = DetectorConfig(
        backbone="resnet50", weights=str(tmp_path / "r50.pt"), strides=(8, 16), channels=8
    )
    config = TrainConfig(size=64, detector=detector)
    images = scenes(SceneConfig(size=64, object_size=(8.0, 20.0), train=2, val=2), "train")
    state = Training(config, Letterboxed(images, 64))
    write_json(tmp_path / "run" / "config.json", to_dict(config))
    state.save(tmp_path / "run")
    (tmp_path / "r50.pt").unlink()
    found, _, names = load_detector(tmp_path / "run", torch.device("cpu"))
    assert names == images.names
    weights = state.average.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())
