"""RetinaNet at full size, on torchvision's ResNet-50."""

import pytest
import torch

from detloss.detector import Detector, DetectorConfig

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
    assert torch.equal(detector.pyramid.stages[0][0][0].weight, network.conv1.weight)
    assert torch.equal(detector.pyramid.stages[2][5].conv3.weight, network.layer3[5].conv3.weight)


@pytest.mark.parametrize("content", [None, b"no tensor", {"conv1.weight": torch.zeros(3)}])
def test_bad_weights(tmp_path, content):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights .*w\.pt cannot be read"):
        Detector(DetectorConfig(backbone="resnet50", weights=str(path), strides=(8, 16)), 3)
