"""The dense detector by torchvision's detection API: the same numbers as its parts give by themselves."""

import numpy as np
import pytest
import torch

from detloss.lab.data.batches import Batch
from detloss.lab.detector import DenseDetector, Detector, DetectorConfig
from detloss.lab.detector.criterion import Criterion
from detloss.lab.detector.inference import to_torchvision
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.postprocess import Limits, detect
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

CPU = torch.device("cpu")
CONFIGS = {
    "anchor_free": DetectorConfig(width=4, channels=8, strides=(4, 8)),
    "bins": DetectorConfig(width=4, channels=8, strides=(4, 8), bins=4),
    "retinanet": DetectorConfig(kind="retinanet", width=4, channels=8, strides=(4, 8)),
    "yolov2": DetectorConfig(kind="yolov2", width=4, channels=8, strides=(8,), anchors=((8, 8), (16, 12))),
}


def batch() -> Batch:
    """Three images: two objects and an ignored region between them, none at all, one."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    boxes = np.zeros((3, 3, 4), np.float32)
    boxes[0] = [[2, 2, 12, 14], [0, 20, 30, 32], [16, 4, 28, 12]]
    boxes[2, 0] = [8, 8, 24, 24]
    labels = np.array([[1, -100, 0], [-1, -1, -1], [1, -1, -1]])
    return Batch(images, boxes, labels, ("a", "b", "c"))


def objective(**more) -> Objective:
    loss = find_loss("focal", CLASSIFICATION_LOSSES, training=True)
    return Objective(loss, find_loss("giou", BOX_LOSSES, training=True), **more)


def detector(name: str, goal: Objective | None = None) -> DenseDetector:
    torch.manual_seed(0)
    return DenseDetector(Detector(CONFIGS[name], 2), goal)


@pytest.mark.parametrize("balance", ["fixed", "guided"])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_the_weighted_terms_of_the_criterion(name: str, balance: str):
    model = detector(name, objective(box_weight=3.0, distribution_weight=0.5, balance=balance))
    images, targets = to_torchvision(batch(), CPU)
    losses = model(images, targets)
    network, grid = detector(name).network.train(), model.network.grid(32, 32)
    padded = torch.from_numpy(batch().boxes), torch.from_numpy(batch().labels)
    loss, box = model.objective.classification, model.objective.box
    criterion = Criterion(network, grid, loss, box, 3.0, 0.5, balance)
    terms = criterion(network(torch.stack(images)), network.assign(grid, *padded))
    torch.testing.assert_close(sum(losses.values()), terms.total)
    assert model.terms["positives"] == terms.positives > 0
    torch.testing.assert_close(model.terms["box_loss"], terms.box)
    assert {"objectness" in losses, "distribution" in losses} == {name == "yolov2", name == "bins"}
    sum(losses.values()).backward()
    terms.total.backward()
    for mine, other in zip(model.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_ignored_regions_are_neither_objects_nor_background():
    images, targets = to_torchvision(batch(), CPU)
    assert [len(target["boxes"]) for target in targets] == [2, 0, 1]
    assert [len(target.get("ignored", ())) for target in targets] == [1, 0, 0]
    model = detector("anchor_free", objective())
    with_region = model(images, targets)["classification"].item()
    for target in targets:
        target.pop("ignored", None)
    assert model(images, targets)["classification"].item() > with_region


@pytest.mark.parametrize("name", CONFIGS)
def test_detections_are_those_of_the_network(name: str):
    model = detector(name).eval()
    model.limits = Limits(0.0, 50, 0.5, 20)
    images, _ = to_torchvision(batch(), CPU)
    with torch.no_grad():
        found = model(images)
        output = model.network(torch.stack(images))
        expected = detect(model.network, model.network.grid(32, 32), output, (32, 32), model.limits)
    for one, other in zip(found, expected, strict=True):
        assert 10 < len(one["scores"]) <= 20
        np.testing.assert_allclose(one["boxes"], other.boxes, atol=1e-4)
        np.testing.assert_allclose(one["scores"], other.scores, atol=1e-6)
        assert one["labels"].dtype == torch.int64


def test_training_after_detecting_and_what_is_missing():
    model = detector("anchor_free", objective())
    images, targets = to_torchvision(batch(), CPU)
    with torch.inference_mode():
        model.eval()(images)
    sum(model.train()(images, targets).values()).backward()
    with pytest.raises(ValueError, match="targets or the objective is None"):
        model(images)
    with pytest.raises(ValueError, match="targets or the objective is None"):
        detector("anchor_free")(images, targets)
