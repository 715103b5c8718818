"""The loss of YOLOv2: classes of the positives, objectness of every location, mining of the latter."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.boxes import paired_box_iou
from detloss.lab.detector import Detector, DetectorConfig, Output
from detloss.lab.detector.assign import IGNORED, Assignment
from detloss.lab.detector.criterion import Criterion, Terms
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

CLASSES = 3


def run(
    name: str = "softmax_focal,gamma=0", objects: bool = True
) -> tuple[Terms, Output, Assignment, Tensor]:
    """Two images of 32 pixels, one object each, an ignored region in the second; the positives' IoUs too."""
    loss = find_loss(name, CLASSIFICATION_LOSSES, training=True)
    config = DetectorConfig(
        kind="yolov2", width=2, channels=4, strides=(8,), anchors=((8.0, 10.0), (20.0, 18.0))
    )
    detector = Detector(config, CLASSES, loss.softmax)
    grid = detector.grid(32, 32)
    generator = torch.Generator().manual_seed(1)
    count = len(grid.anchors)
    output = Output(
        *((torch.randn(shape, generator=generator) * 0.5).requires_grad_() for shape in
          ((2, count, CLASSES), (2, count, 4), (2, count)))
    )  # fmt: skip
    boxes = torch.tensor([[[4.0, 4, 22, 20], [0.0, 0, 0, 0]], [[8.0, 10, 30, 30], [0.0, 0, 12, 9]]])
    labels = torch.tensor([[1, -1], [2, IGNORED]]) if objects else torch.full((2, 2), -1)
    assignment = detector.assign(grid, boxes, labels)
    terms = Criterion(detector, grid, loss, find_loss("giou", BOX_LOSSES))(output, assignment)
    where = assignment.positives.nonzero(as_tuple=True)
    predicted = detector.decode(output.regression[where], grid.anchors[where[1]], grid.strides[where[1]])
    return terms, output, assignment, paired_box_iou(predicted, assignment.boxes[where]).detach()


def test_terms_one_by_one():
    terms, output, assignment, iou = run()
    rows = assignment.positives.nonzero().tolist()
    assert len(rows) == 2
    labels = assignment.labels
    classes = sum(F.cross_entropy(output.logits[b, p], labels[b, p]) for b, p in rows) / 2
    torch.testing.assert_close(terms.classification, classes)
    objectness, quality = torch.zeros(()), dict(zip(map(tuple, rows), iou))
    for b in range(2):
        for p in range(labels.shape[1]):
            if labels[b, p] != IGNORED:
                target = quality.get((b, p), torch.zeros(()))
                objectness = objectness + F.binary_cross_entropy_with_logits(output.objectness[b, p], target)
    torch.testing.assert_close(terms.objectness, objectness / 2)
    torch.testing.assert_close(terms.total, classes + 2 * terms.box + objectness / 2)
    assert (terms.positives, terms.normalizer) == (2, 2)


def test_what_gets_a_gradient():
    terms, output, assignment, _ = run("quality_focal")
    terms.total.backward()
    positives, ignored = assignment.positives, assignment.labels == IGNORED
    assert ignored.any()
    assert output.logits.grad[positives].all()
    assert not output.logits.grad[~positives].any()  # the background has no class
    assert output.regression.grad[positives].any()
    assert not output.regression.grad[~positives].any()
    assert output.objectness.grad[~ignored].all()
    assert not output.objectness.grad[ignored].any()


def test_class_weights_are_those_of_the_class_term():
    weights = torch.tensor([0.2, 0.5, 2.3])
    plain, output, assignment, _ = run("bce")
    config = DetectorConfig(
        kind="yolov2", width=2, channels=4, strides=(8,), anchors=((8.0, 10.0), (20.0, 18.0))
    )
    detector = Detector(config, CLASSES, False)
    loss = find_loss("bce,class_weight=inverse", CLASSIFICATION_LOSSES, training=True)
    box = find_loss("giou", BOX_LOSSES)
    weighed = Criterion(detector, detector.grid(32, 32), loss, box, class_weights=weights)(output, assignment)
    where = assignment.positives
    targets = F.one_hot(assignment.labels[where], CLASSES).float()
    each = F.binary_cross_entropy_with_logits(output.logits[where], targets, reduction="none").sum(1)
    expected = (each * weights[assignment.labels[where]]).sum() / 2
    torch.testing.assert_close(weighed.classification, expected)
    assert weighed.objectness == plain.objectness


@pytest.mark.parametrize("name", ["bce", "focal", "softmax_focal", "varifocal", "mal"])
def test_any_loss_of_the_classes(name: str):
    terms, output, _, _ = run(name)
    terms.total.backward()
    assert all(term.isfinite() for term in terms)
    assert all(x.grad.isfinite().all() for x in output)


def test_softmax_focal_is_the_published_experiments():
    # alpha 1: the mean over the objects of (1 - p)^2 times the cross entropy of their class.
    plain, output, assignment, _ = run("softmax_focal,gamma=0")
    focal = run("softmax_focal,gamma=2")[0]
    rows = assignment.positives
    p = output.logits[rows].softmax(-1).gather(1, assignment.labels[rows][:, None])[:, 0]
    torch.testing.assert_close(focal.classification, ((1 - p) ** 2 * -p.log()).mean())
    torch.testing.assert_close(focal.objectness, plain.objectness)


def test_without_objects():
    terms, output, _, _ = run(objects=False)
    terms.total.backward()
    assert (terms.classification, terms.box, terms.positives, terms.normalizer) == (0, 0, 0, 1)
    wanted = F.binary_cross_entropy_with_logits(
        output.objectness, torch.zeros_like(output.objectness), reduction="sum"
    )
    torch.testing.assert_close(terms.objectness, wanted)
    assert terms.positive_share == 0


@pytest.mark.parametrize("mining", ["hard:3", "random:3", "ohem3:0.7:8"])
def test_mining_chooses_by_objectness(mining: str):
    terms, output, assignment, _ = run(f"bce,mining={mining}")
    terms.objectness.backward()
    chosen = output.objectness.grad != 0
    negatives = chosen & ~assignment.positives
    assert negatives.sum(1).tolist() == [3, 3]
    if mining == "hard:3":
        free = (assignment.labels == CLASSES) & ~negatives
        for b in range(2):
            assert output.objectness[b, negatives[b]].min() > output.objectness[b, free[b]].max()
    # The classes are those of the positives, whatever is mined.
    torch.testing.assert_close(terms.classification, run("bce")[0].classification)


def test_share_of_the_positives_is_that_of_the_objectness():
    terms, output, assignment, iou = run()
    mine = F.binary_cross_entropy_with_logits(output.objectness[assignment.positives], iou, reduction="sum")
    assert terms.positive_share.item() == pytest.approx((mine / (2 * terms.objectness)).item(), rel=1e-5)
    assert not math.isclose(terms.positive_share.item(), 1)
