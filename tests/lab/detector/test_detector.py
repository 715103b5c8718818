"""Encodings there and back, the grid against the network, priors, and what a seed decides."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detloss.boxes import box_convert
from detloss.lab.detector import (
    Detector,
    DetectorConfig,
    Output,
    decode_distances,
    decode_offsets,
    encode_distances,
)
from detloss.lab.detector.assign import atss, max_iou

KINDS = ("anchor_free", "retinanet")


def tiny(kind: str = "anchor_free", **more) -> DetectorConfig:
    return DetectorConfig(
        **{
            "kind": kind,
            "width": 4,
            "channels": 8,
            "head_depth": 1,
            "strides": (4, 8, 16),
            "anchor_size": 4.0,
            "anchor_scales": (1.0, 2.0),
            "anchor_ratios": (0.5, 1.0, 2.0),
            "bins": 0,
            "prior": 0.01,
            **more,
        }
    )


coordinates = st.floats(-200, 600, width=32)
sides = st.floats(1, 400, width=32)


@st.composite
def boxes(draw) -> Tensor:
    x, y, w, h = draw(coordinates), draw(coordinates), draw(sides), draw(sides)
    return torch.tensor([x, y, x + w, y + h], dtype=torch.float64)


def encode_offsets(box: Tensor, anchor: Tensor) -> Tensor:
    """(dx, dy, log dw, log dh), as the paper defines them."""
    (centre, side), (at, base) = (box_convert(b, "xyxy", "cxcywh").split(2, dim=-1) for b in (box, anchor))
    return torch.cat([(centre - at) / base, (side / base).log()], dim=-1)


class TestEncodings:
    @given(box=boxes(), anchor=boxes())
    @settings(max_examples=80)
    def test_offsets_there_and_back(self, box: Tensor, anchor: Tensor):
        torch.testing.assert_close(
            decode_offsets(encode_offsets(box, anchor), anchor),
            # No side grows by more than the documented factor.
            limited(box, anchor),
            rtol=1e-9,
            atol=1e-6,
        )

    @given(box=boxes(), anchor=boxes())
    @settings(max_examples=60)
    def test_distances_there_and_back(self, box: Tensor, anchor: Tensor):
        torch.testing.assert_close(decode_distances(encode_distances(box, anchor), anchor), box)

    def test_offsets_by_hand(self):
        # Anchor: centre (10, 20), 10 x 20. Box: centre (15, 10), 20 x 10.
        anchor, box = torch.tensor([5.0, 10, 15, 30]), torch.tensor([5.0, 5, 25, 15])
        wanted = torch.tensor([0.5, -0.5, math.log(2), -math.log(2)])
        torch.testing.assert_close(decode_offsets(wanted, anchor), box)
        torch.testing.assert_close(decode_offsets(torch.zeros(4), anchor), anchor)

    def test_distances_by_hand(self):
        anchor, box = torch.tensor([5.0, 10, 15, 30]), torch.tensor([4.0, 18, 25, 50])
        assert encode_distances(box, anchor).tolist() == [6, 2, 15, 30]

    @pytest.mark.parametrize(("kind", "bins"), [("retinanet", 0), ("anchor_free", 0), ("anchor_free", 8)])
    def test_decode_is_finite_for_wild_outputs(self, kind: str, bins: int):
        detector = Detector(tiny(kind, bins=bins), 2)
        anchors, strides, _ = detector.grid(32, 32)
        shape = (len(strides), 4, bins + 1) if bins else (len(strides), 4)
        for value in (-1e4, -100.0, 100.0, 1e4):
            regression = torch.full(shape, value, requires_grad=True)
            decoded = detector.decode(regression, anchors, strides)
            decoded.sum().backward()
            assert decoded.isfinite().all()
            assert regression.grad.isfinite().all()
            assert (decoded[:, 2:] >= decoded[:, :2]).all()

    def test_plain_distances_start_at_the_base_anchor(self):
        detector = Detector(tiny(anchor_size=6.0), 2)
        anchors, strides, _ = detector.grid(32, 48)
        torch.testing.assert_close(detector.decode(torch.zeros(len(strides), 4), anchors, strides), anchors)

    def test_plain_distances_are_an_exponential_in_anchors(self):
        detector = Detector(tiny(anchor_size=4.0), 2)
        grid = detector.grid(32, 32)
        wanted = torch.rand(len(grid.strides), 4) * 50 + 0.5  # any distances, pixels
        regression = (wanted / (2 * grid.strides[:, None])).log()
        found = encode_distances(detector.decode(regression, grid.anchors, grid.strides), grid.anchors)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    @given(wanted=st.lists(st.floats(0, 8, width=32), min_size=4, max_size=4), place=st.integers(0, 83))
    @settings(max_examples=60)
    def test_a_distribution_over_two_bins_gives_its_box(self, wanted: list[float], place: int):
        detector = Detector(tiny(bins=8), 2)
        anchors, strides, _ = detector.grid(32, 32)
        shares = torch.zeros(4, 9)
        for side, distance in enumerate(wanted):
            low = min(math.floor(distance), 7)
            shares[side, low], shares[side, low + 1] = low + 1 - distance, distance - low
        box = detector.decode(shares.clamp(min=1e-30).log(), anchors[place], strides[place])
        stride = strides[place].item()
        assert encode_distances(box, anchors[place]).tolist() == pytest.approx(
            [distance * stride for distance in wanted], abs=1e-3
        )

    def test_decode_is_float32_for_half_precision_outputs(self):
        detector = Detector(tiny(), 2)
        anchors, strides, _ = detector.grid(32, 32)
        regression = torch.randn(len(strides), 4).bfloat16()
        decoded = detector.decode(regression, anchors, strides)
        assert decoded.dtype == torch.float32
        torch.testing.assert_close(decoded, detector.decode(regression.float(), anchors, strides))


def limited(box: Tensor, anchor: Tensor) -> Tensor:
    centre_size = box_convert(box, "xyxy", "cxcywh")
    most = (anchor[2:] - anchor[:2]) * 1000 / 16
    return box_convert(torch.cat([centre_size[:2], torch.minimum(centre_size[2:], most)]), "cxcywh", "xyxy")


class _Same(nn.Module):
    def forward(self, x: Tensor, *_: int) -> Tensor:
        return x


class _Places(nn.Module):
    """In the pyramid's place: the centre of each cell and its stride, as features."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stride in self.strides:
            rows, columns = (-(-side // stride) for side in images.shape[-2:])
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            maps.append(torch.stack([x * stride, y * stride, torch.full_like(x, stride)])[None])
        return maps


class _Copies(nn.Module):
    """In a head's place: for anchor a of k the features x, y, stride and the number a."""

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.anchors = anchors

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.cat([x, torch.full_like(x[:, :1], a)], 1) for a in range(self.anchors)], 1)


class TestGrid:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("strides", [(4,), (4, 8, 16), (8, 16), (4, 8, 16, 32)])
    @pytest.mark.parametrize("size", [(33, 47), (17, 65), (64, 16)])
    def test_one_location_an_output(self, kind: str, strides: tuple[int, ...], size: tuple[int, int]):
        detector = Detector(tiny(kind, strides=strides), 3).eval()
        grid = detector.grid(*size)
        with torch.no_grad():
            output = detector(torch.rand(1, 3, *size))
        assert output.logits.shape == (1, len(grid.anchors), 3)
        assert output.regression.shape == (1, len(grid.anchors), 4)
        assert sum(grid.level_sizes) == len(grid.anchors) == len(grid.strides)
        assert len(grid.level_sizes) == len(strides)

    @pytest.mark.parametrize("kind", KINDS)
    def test_outputs_come_in_the_order_of_the_grid(self, kind: str):
        detector = Detector(tiny(kind), 4)
        detector.pyramid = _Places(detector.config.strides)
        detector.box_tower = detector.class_tower = _Same()
        detector.box_head = detector.class_head = _Copies(detector.anchors_per_cell)
        grid = detector.grid(40, 24)
        output = detector(torch.zeros(1, 3, 40, 24))
        for rows in (output.logits, output.regression):
            x, y, stride, anchor = rows[0].unbind(-1)
            torch.testing.assert_close(torch.stack([x, y], 1), centres(grid.anchors))
            torch.testing.assert_close(stride, grid.strides)
            torch.testing.assert_close(
                anchor, (torch.arange(len(anchor)) % detector.anchors_per_cell).float()
            )

    def test_anchors_by_hand(self):
        detector = Detector(tiny("retinanet", strides=(4, 8), anchor_ratios=(1.0, 4.0)), 3)
        grid = detector.grid(8, 8)
        assert grid.level_sizes == (16, 4)
        # First cell of stride 4, centre (2, 2): base side 16; scales 1 and 2, heights 1 and 4 widths.
        wanted = [[-6, -6, 10, 10], [-2, -14, 6, 18], [-14, -14, 18, 18], [-6, -30, 10, 34]]
        torch.testing.assert_close(grid.anchors[:4], torch.tensor(wanted).float())
        # The only cell of stride 8, centre (4, 4): base side 32.
        torch.testing.assert_close(grid.anchors[16], torch.tensor([-12.0, -12, 20, 20]))

    def test_areas_are_the_scale_and_sides_the_ratio(self):
        config = tiny("retinanet", anchor_scales=(1.0, 2 ** (1 / 3), 1.7), anchor_ratios=(0.3, 1.0, 3.0))
        grid = Detector(config, 3).grid(32, 32)
        w, h = (grid.anchors[:, 2:] - grid.anchors[:, :2]).unbind(-1)
        base = (w * h).sqrt() / (4 * grid.strides)
        torch.testing.assert_close(
            base.view(-1, 9), torch.tensor(config.anchor_scales).repeat_interleave(3).expand(84, 9)
        )
        torch.testing.assert_close(
            (h / w).view(-1, 9), torch.tensor(config.anchor_ratios).repeat(3).expand(84, 9)
        )

    def test_a_single_anchor_has_its_scale_and_ratio(self):
        # One anchor a cell is no reason to take the anchor-free detector's square one.
        grid = Detector(tiny("retinanet", anchor_scales=(2.0,), anchor_ratios=(4.0,)), 3).grid(4, 4)
        assert grid.anchors[0].tolist() == [-6, -30, 10, 34]

    def test_anchor_free_anchors_are_the_base_squares(self):
        grid = Detector(tiny(anchor_scales=(3.0,)), 3).grid(8, 8)
        assert grid.anchors[0].tolist() == [-6, -6, 10, 10]
        assert grid.level_sizes == (4, 1, 1)

    def test_kinds_assign_as_they_say(self):
        boxes, labels = torch.tensor([[[3.0, 3, 25, 25], [30.0, 2, 60, 40]]]), torch.tensor([[0, 2]])
        free, retina = Detector(tiny(), 3), Detector(tiny("retinanet"), 3)
        grid = free.grid(64, 64)
        found = free.assign(grid, boxes, labels)
        assert torch.equal(found.labels, atss(grid.anchors, grid.level_sizes, boxes, labels, 3).labels)
        grid = retina.grid(64, 64)
        found = retina.assign(grid, boxes, labels)
        assert torch.equal(found.labels, max_iou(grid.anchors, boxes, labels, 3, 0.5, 0.4, True).labels)


def centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


class TestInitialWeights:
    @pytest.mark.parametrize(("kind", "prior"), [("anchor_free", 0.01), ("retinanet", 0.1)])
    @pytest.mark.parametrize("softmax", [False, True])
    @pytest.mark.parametrize("training", [False, True])
    def test_the_foreground_starts_at_the_prior(self, kind: str, prior: float, softmax: bool, training: bool):
        torch.manual_seed(0)
        detector = Detector(tiny(kind, prior=prior), 7, softmax=softmax).train(training)
        with torch.no_grad():
            scores = detector.scores(detector(torch.rand(2, 3, 64, 64)))
        assert scores.shape[-1] == 7
        foreground = scores.sum(-1) if softmax else scores
        assert foreground.mean().item() == pytest.approx(prior, rel=0.1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_the_class_head_depends_on_the_loss(self, kind: str):
        weights = []
        for softmax in (False, True):
            torch.manual_seed(3)
            weights.append(Detector(tiny(kind), 5, softmax).state_dict())
        sigmoid, softmax = weights
        assert sigmoid.keys() == softmax.keys()
        different = [name for name in sigmoid if not torch.equal(sigmoid[name], softmax[name])]
        assert sorted(different) == ["class_head.bias", "class_head.weight"]

    def test_a_seed_decides(self):
        weights = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            weights.append(Detector(tiny(), 5).state_dict())
        first, same, other = weights
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not torch.equal(first["class_head.weight"], other["class_head.weight"])

    def test_heads_start_near_zero(self):
        torch.manual_seed(0)
        detector = Detector(tiny(channels=32), 5)
        for head in (detector.class_head, detector.box_head):
            assert head.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not detector.box_head.bias.any()


class TestScores:
    def test_sigmoid(self):
        scores = Detector(tiny(), 2).scores(Output(torch.tensor([0.0, math.log(3)]), torch.zeros(4)))
        assert scores.tolist() == pytest.approx([0.5, 0.75])

    def test_softmax_leaves_the_background_out(self):
        scores = Detector(tiny(), 2, softmax=True).scores(
            Output(torch.tensor([0.0, math.log(2), math.log(5)]), torch.zeros(4))
        )
        assert scores.tolist() == pytest.approx([1 / 8, 2 / 8])


def test_every_weight_gets_a_gradient():
    for kind in KINDS:
        detector = Detector(tiny(kind), 3)
        output = detector(torch.rand(2, 3, 32, 32))
        (output.logits.square().sum() + output.regression.square().sum()).backward()
        assert [name for name, p in detector.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (8, 32)}, "strides is (8, 32)"),
        ({"strides": (2, 4)}, "strides is (2, 4)"),
        ({"strides": (12, 24)}, "strides is (12, 24)"),
        ({"strides": (8, 16), "kind": "yolov2"}, "strides is (8, 16); yolov2 has one"),
        ({"kind": "ssd"}, "kind is 'ssd'"),
        ({"backbone": "vgg"}, "backbone is 'vgg'"),
        ({"weights": "a.pt"}, "weights is 'a.pt'; only resnet50 and timm:NAME"),
        ({"anchors": ((4.0, 4.0),)}, "anchors needs kind yolov2"),
        ({"anchors": ((4.0, 0.0),)}, "anchors is ((4.0, 0.0),)"),
        ({"anchor_count": 0}, "anchor_count is 0"),
        ({"bins": 8, "kind": "yolov2", "strides": (8,)}, "bins needs kind anchor_free"),
        ({"strides": ()}, "strides is ()"),
        ({"prior": 0.0}, "prior is 0.0"),
        ({"prior": 1.0}, "prior is 1.0"),
        ({"bins": 1}, "bins is 1"),
        ({"bins": -1}, "bins is -1"),
        ({"bins": 8, "kind": "retinanet"}, "bins needs kind anchor_free"),
        ({"width": 0}, "width is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"head_depth": -1}, "head_depth is -1"),
        ({"anchor_size": 0.0}, "anchor_size is 0.0"),
        ({"anchor_scales": ()}, "anchor_scales is ()"),
        ({"anchor_ratios": (1.0, -2.0)}, "anchor_ratios is (1.0, -2.0)"),
    ],
)
def test_errors_name_the_argument(change: dict, message: str):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        tiny(**change)
