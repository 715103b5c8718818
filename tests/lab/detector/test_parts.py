"""Backbones, necks, YOLOv2's anchors, cells and objectness."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.data import SceneConfig, scenes
from detloss.lab.detector import (
    Detector,
    DetectorConfig,
    Output,
    decode_cells,
    fit_anchors,
    kmeans_anchors,
)
from detloss.lab.detector.assign import IGNORED, centre_cell
from detloss.lab.detector.backbone import stages

ANCHORS = ((8.0, 8.0), (20.0, 10.0))


def yolo(**more) -> DetectorConfig:
    return DetectorConfig(
        **{
            "kind": "yolov2",
            "backbone": "darknet19",
            "strides": (8,),
            "width": 2,
            "channels": 4,
            "anchors": ANCHORS,
            **more,
        }
    )


class TestBackbones:
    def test_darknet19_is_the_papers(self):
        # Table 6 of 1612.08242 without the classifier: 18 convolutions, 1024 channels at stride 32.
        made = list(stages(DetectorConfig(backbone="darknet19", width=32, strides=(32,))))
        convolutions = [m for s in made for m in s.layers.modules() if isinstance(m, torch.nn.Conv2d)]
        assert [c.out_channels for c in convolutions] == [
            *(32, 64, 128, 64, 128, 256, 128, 256, 512, 256, 512, 256, 512),
            *(1024, 512, 1024, 512, 1024),
        ]
        assert [c.kernel_size[0] for c in convolutions][2:8] == [3, 1, 3, 3, 1, 3]
        assert [(s.channels, s.stride) for s in made][-1] == (1024, 32)

    @pytest.mark.parametrize("backbone", ["small", "darknet19"])
    @pytest.mark.parametrize("strides", [(4, 8), (8, 16), (8, 16, 32, 64, 128), (64, 128)])
    def test_one_map_a_stride(self, backbone: str, strides: tuple[int, ...]):
        config = DetectorConfig(backbone=backbone, strides=strides, width=2, channels=4)
        detector = Detector(config, 3).eval()
        with torch.no_grad():
            maps = detector.pyramid(torch.rand(1, 3, 150, 131))
        sides = [(math.ceil(150 / stride), math.ceil(131 / stride)) for stride in strides]
        assert [tuple(m.shape[-2:]) for m in maps] == sides
        assert [size for size in detector.grid(150, 131).level_sizes] == [h * w for h, w in sides]

    def test_no_stage_is_made_that_no_stride_asks_for(self):
        made = list(stages(DetectorConfig(backbone="darknet19", strides=(4, 8), width=2)))
        assert made[-1].stride == 8

    def test_resnet50_without_torchvision_says_what_to_do(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
        with pytest.raises(ValueError, match="resnet50 needs torchvision"):
            Detector(DetectorConfig(backbone="resnet50", strides=(8, 16, 32)), 3)


class TestYolo:
    @pytest.mark.parametrize("backbone", ["small", "darknet19"])
    @pytest.mark.parametrize("size", [(64, 64), (33, 47)])
    @pytest.mark.parametrize("stride", [4, 8, 32])
    def test_outputs_and_grid_agree(self, backbone: str, size: tuple[int, int], stride: int):
        detector = Detector(yolo(backbone=backbone, strides=(stride,)), 3).eval()
        grid = detector.grid(*size)
        with torch.no_grad():
            output = detector(torch.rand(2, 3, *size))
        count = math.ceil(size[0] / stride) * math.ceil(size[1] / stride) * len(ANCHORS)
        assert output.logits.shape == (2, count, 3)
        assert output.regression.shape == (2, count, 4)
        assert output.objectness.shape == (2, count)
        assert len(grid.anchors) == count
        assert (grid.anchors[:2, 2:] - grid.anchors[:2, :2]).tolist() == [list(a) for a in ANCHORS]

    def test_every_weight_gets_a_gradient(self):
        detector = Detector(yolo(), 3)
        sum(x.square().sum() for x in detector(torch.rand(2, 3, 32, 32))).backward()
        assert [name for name, p in detector.named_parameters() if p.grad is None] == []

    def test_before_training_objects_are_as_rare_as_the_prior(self):
        torch.manual_seed(0)
        detector = Detector(yolo(prior=0.05), 4, softmax=True)
        scores = detector.scores(detector(torch.rand(2, 3, 64, 64)))
        assert scores.shape[-1] == 4  # a softmax has no background: that is the objectness
        assert scores.sum(-1).mean().item() == pytest.approx(0.05, rel=0.1)

    def test_scores_by_hand(self):
        half, third = torch.zeros(1, 1), torch.tensor([[[0.0, math.log(2)]]])
        output = Output(third, torch.zeros(1, 1, 4), half)
        found = Detector(yolo(), 2, softmax=True).scores(output)
        assert found.flatten().tolist() == pytest.approx([1 / 6, 2 / 6])
        assert Detector(yolo(), 2).scores(output).flatten().tolist() == pytest.approx([1 / 4, 2 / 6])

    def test_no_anchors(self):
        with pytest.raises(ValueError, match="anchors is empty"):
            Detector(yolo(anchors=()), 3)

    def test_a_stride_the_backbone_does_not_reach(self):
        with pytest.raises(ValueError, match="darknet19 goes up to stride 32"):
            Detector(yolo(strides=(64,)), 3)


coordinate = st.floats(-20, 60, width=32)
side = st.floats(2, 60, width=32)


class TestCells:
    @given(x=st.floats(0.01, 0.99), y=st.floats(0.01, 0.99), w=side, h=side, left=coordinate, top=coordinate)
    @settings(max_examples=60)
    def test_there_and_back(self, x, y, w, h, left, top):
        anchor = torch.tensor([left, top, left + 12, top + 7], dtype=torch.float64)
        stride = torch.tensor(8.0, dtype=torch.float64)
        corner = (anchor[:2] + anchor[2:]) / 2 - 4
        centre = corner + 8 * torch.tensor([x, y])
        half = torch.tensor([w, h], dtype=torch.float64) / 2
        box = torch.cat([centre - half, centre + half])
        raw = [math.log(x / (1 - x)), math.log(y / (1 - y)), math.log(w / 12), math.log(h / 7)]
        torch.testing.assert_close(
            decode_cells(torch.tensor(raw).double(), anchor, stride), box, rtol=1e-6, atol=1e-5
        )

    def test_by_hand(self):
        # Cell (8..16, 0..8); tx = ty = 0 is its middle (12, 4); width e^log2 · 20, height 10.
        anchor = torch.tensor([2.0, -1, 22, 9])
        found = decode_cells(torch.tensor([0.0, 0, math.log(2), 0]), anchor, torch.tensor(8.0))
        assert found.tolist() == pytest.approx([-8, -1, 32, 9])

    def test_a_centre_never_leaves_its_cell(self):
        anchor, stride = torch.tensor([2.0, -1, 22, 9]), torch.tensor(8.0)
        for t in (-1e4, 1e4):
            box = decode_cells(torch.full((4,), t), anchor, stride)
            assert box.isfinite().all()
            x, y = (box[:2] + box[2:]) / 2
            assert 8 <= x <= 16
            assert 0 <= y <= 8


def reference(anchors, strides, boxes, labels, classes):
    """One object after another, in plain Python."""
    label, shape = [classes] * len(anchors), [0.0] * len(anchors)
    for box, name in zip(boxes, labels):
        if name < 0:
            continue
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        w, h = box[2] - box[0], box[3] - box[1]
        best, where = 0.0, None
        for i, (a, s) in enumerate(zip(anchors, strides)):
            ax, ay, aw, ah = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2, a[2] - a[0], a[3] - a[1]
            if ax - s / 2 <= x < ax + s / 2 and ay - s / 2 <= y < ay + s / 2:
                shared = min(w, aw) * min(h, ah)
                iou = shared / (w * h + aw * ah - shared)
                if iou > best:
                    best, where = iou, i
        if where is not None and best > shape[where]:
            label[where], shape[where] = name, best
    return label


class TestCentreCell:
    @given(seed=st.integers(0, 10**6), count=st.integers(0, 7))
    @settings(max_examples=40)
    def test_as_object_after_object(self, seed: int, count: int):
        rng = np.random.default_rng(seed)
        grid = Detector(yolo(strides=(16,), width=1), 3).grid(48, 48)
        corner, size = rng.uniform(0, 40, (count, 2)), rng.uniform(3, 30, (count, 2))
        boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
        labels = rng.integers(-1, 3, count)
        found = centre_cell(
            grid.anchors, grid.strides, torch.from_numpy(boxes)[None], torch.from_numpy(labels)[None], 3
        )
        wanted = reference(grid.anchors.tolist(), grid.strides.tolist(), boxes.tolist(), labels.tolist(), 3)
        mine = found.labels[0]
        assert torch.where(mine == IGNORED, 3, mine).tolist() == wanted
        assert found.positives[0].tolist() == [name < 3 for name in wanted]

    def test_what_overlaps_but_is_not_chosen_is_ignored(self):
        anchors = torch.tensor([[0.0, 0, 16, 16], [1, 1, 15, 15], [6, 6, 10, 10]])
        boxes, labels = torch.tensor([[[0.0, 0, 16, 16]]]), torch.tensor([[2]])
        found = centre_cell(anchors, torch.full((3,), 16.0), boxes, labels, 3)
        assert found.labels.tolist() == [[2, IGNORED, 3]]  # IoU 1, 196/256 > .6, 16/256
        assert found.boxes[0, 0].tolist() == [0, 0, 16, 16]

    def test_without_objects(self):
        anchors = torch.tensor([[0.0, 0, 16, 16]])
        found = centre_cell(
            anchors, torch.tensor([16.0]), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), 3
        )
        assert found.labels.tolist() == [[3], [3]]
        assert not found.positives.any()


class TestKMeans:
    def test_finds_groups_that_are_there(self):
        rng = np.random.default_rng(0)
        centres = np.array([[10, 10], [40, 20], [30, 90]])
        sizes = np.concatenate([c * rng.uniform(0.95, 1.05, (50, 2)) for c in centres])
        found = np.array(kmeans_anchors(sizes, 3))
        np.testing.assert_allclose(found, centres, rtol=0.03)

    def test_one_anchor_is_the_median_box(self):
        assert kmeans_anchors(np.array([[1.0, 5], [2, 6], [9, 70]]), 1) == ((2.0, 6.0),)

    def test_more_anchors_fit_better_and_a_seed_decides(self):
        sizes = np.random.default_rng(1).uniform(4, 60, (300, 2))

        def fit(anchors) -> float:
            shared = np.minimum(sizes[:, None], np.array(anchors)).prod(2)
            union = sizes.prod(1)[:, None] + np.array(anchors).prod(1) - shared
            return float((shared / union).max(1).mean())

        fits = [fit(kmeans_anchors(sizes, k)) for k in (1, 3, 5, 9)]
        assert fits == sorted(fits)
        assert kmeans_anchors(sizes, 5) == kmeans_anchors(sizes, 5)

    def test_of_a_data_set_in_the_detectors_pixels(self):
        data = scenes(SceneConfig(train=24, val=4), "train")
        config = fit_anchors(yolo(anchors=(), anchor_count=3), data, 48)
        boxes = np.concatenate([data.annotation(i).boxes for i in range(len(data))])
        wanted = (boxes[:, 2:] - boxes[:, :2]) * 48 / data.size(0)[0]
        assert config.anchors == kmeans_anchors(wanted, 3)
        assert fit_anchors(config, data, 96) == config  # given ones stay
        assert fit_anchors(DetectorConfig(), data, 96) == DetectorConfig()

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            (np.ones((4, 2)), "boxes of 1 sizes"),
            (np.zeros((4, 2)), "positive"),
            (np.ones((4, 3)), "shape"),
            (np.ones((0, 2)), "boxes of 0 sizes"),
        ],
    )
    def test_errors(self, sizes: np.ndarray, message: str):
        with pytest.raises(ValueError, match=message):
            kmeans_anchors(sizes, 2)
