"""One dense one-stage detector: backbone, feature pyramid, two heads on every location of a grid.

RetinaNet (k anchors a cell) and the anchor-free detector (one point a cell, box as distances to its four
sides, plainly or as distributions) are two configurations of it.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.assign import Assignment, atss, max_iou
from detloss.boxes import box_convert
from detloss.losses import distribution_integral


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector is made of; the defaults are small enough to train on two CPU cores."""

    kind: Literal["anchor_free", "retinanet"] = "anchor_free"
    """anchor_free: a point a cell, ATSS, box as l, t, r, b. retinanet: anchors, max-IoU assignment."""
    width: int = 12
    """Channels after the first convolution; each stage doubles them."""
    channels: int = 32
    """Channels of the feature pyramid and the heads."""
    head_depth: int = 1
    """3x3 convolutions in each head before the last one (the paper's RetinaNet: 4)."""
    strides: tuple[int, ...] = (4, 8, 16)
    """Pixels a cell, per level: consecutive powers of two from 4."""
    anchor_size: float = 4.0
    """Side of the base anchor, in strides."""
    anchor_scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Sizes of a cell's anchors, as factors of the base anchor (retinanet only)."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of a cell's anchors (retinanet only)."""
    bins: int = 0
    """n: a side's distance is the mean of a distribution over 0..n strides; 0: plain (anchor_free only)."""
    prior: float = 0.01
    """pi: foreground probability of every location before training (1708.02002, section 3.3)."""

    def __post_init__(self) -> None:
        if self.kind not in ("anchor_free", "retinanet"):
            raise ValueError(f"kind is {self.kind!r}; it may be anchor_free or retinanet")
        consecutive = tuple(4 * 2**i for i in range(len(self.strides)))
        if not self.strides or self.strides != consecutive:
            raise ValueError(
                f"strides is {self.strides}; it may be (4,), (4, 8), (4, 8, 16), ...: powers of two from 4"
            )
        for name, least in (("width", 1), ("channels", 1), ("head_depth", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("anchor_scales", "anchor_ratios"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be one positive number or more")
        if not self.anchor_size > 0:
            raise ValueError(f"anchor_size is {self.anchor_size}; it must be positive, such as 4")
        if not 0 < self.prior < 1:
            raise ValueError(f"prior is {self.prior}; it must lie between 0 and 1, such as 0.01")
        if self.bins < 0 or self.bins == 1:
            raise ValueError(f"bins is {self.bins}; it may be 0 (plain distances) or at least 2, such as 16")
        if self.bins and self.kind == "retinanet":
            raise ValueError("bins needs kind anchor_free: RetinaNet regresses offsets, not distances")


class Output(NamedTuple):
    """What the detector says of a batch.

    Attributes:
        logits: `(B, P, C)`, or `(B, P, C + 1)` with the background last when trained with a softmax.
        regression: `(B, P, 4)` raw, or `(B, P, 4, n + 1)` logits of distributions.
    """

    logits: Tensor
    regression: Tensor


class Grid(NamedTuple):
    """The locations of an image size, level after level.

    Attributes:
        anchors: `(P, 4)` xyxy in pixels; of an anchor-free detector, the square base anchor round each point.
        strides: `(P,)` pixels.
        level_sizes: number of locations of each level.
    """

    anchors: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class _Tower(nn.Module):
    """Convolutions shared by all levels, each level with its own normalisation (EfficientDet, 1911.09070).

    The levels' statistics differ: one running mean would fit none of them.
    """

    def __init__(self, channels: int, depth: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(depth)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(levels)) for _ in range(depth)
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        for convolution, norms in zip(self.convolutions, self.norms):
            x = F.relu(norms[level](convolution(x)))  # type: ignore[index]
        return x


def _head(channels: int, outputs: int, bias: Tensor) -> nn.Conv2d:
    head = nn.Conv2d(channels, outputs, 3, padding=1)
    nn.init.normal_(head.weight, std=0.01)
    with torch.no_grad():
        cast(Tensor, head.bias).copy_(bias)
    return head


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Pyramid(nn.Module):
    """A small residual network and the feature pyramid on its stages (1612.03144): one map a stride."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, channels = config.width, config.channels
        self.stem = _convolution(3, width, stride=2)
        self.stages = nn.ModuleList()
        self.laterals = nn.ModuleList()
        self.smooth = nn.ModuleList()
        for _ in config.strides:
            self.stages.append(nn.Sequential(_convolution(width, 2 * width, stride=2), _Residual(2 * width)))
            width *= 2
            self.laterals.append(nn.Conv2d(width, channels, 1))
            self.smooth.append(_convolution(channels, channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features `(B, channels, H / stride, W / stride)` of each stride."""
        x = self.stem(images)
        maps = []
        for stage, lateral in zip(self.stages, self.laterals):
            x = stage(x)
            maps.append(lateral(x))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:])
        return [smooth(x) for smooth, x in zip(self.smooth, maps)]


class Detector(nn.Module):
    """The dense detector.

    Args:
        config: its parts.
        num_classes: C, without background.
        softmax: give each location C + 1 logits, the last for background, instead of C independent ones.
    """

    def __init__(self, config: DetectorConfig, num_classes: int, softmax: bool = False) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.softmax = softmax
        self.anchors_per_cell = (
            len(config.anchor_scales) * len(config.anchor_ratios) if config.kind == "retinanet" else 1
        )
        self.pyramid = Pyramid(config)
        depth, channels = config.head_depth, config.channels
        levels = len(config.strides)
        self.box_tower = _Tower(channels, depth, levels)
        self.class_tower = _Tower(channels, depth, levels)
        sides = 4 * (config.bins + 1) if config.bins else 4
        self.box_head = _head(channels, self.anchors_per_cell * sides, torch.zeros(()))
        # Last, so that every other weight is the same for a given seed whatever the classification loss.
        odds = (1 - config.prior) / config.prior
        bias = torch.full((num_classes,), -math.log(odds))
        if softmax:
            bias = torch.tensor([0.0] * num_classes + [math.log(odds * num_classes)])
        bias = bias.repeat(self.anchors_per_cell)
        self.class_head = _head(channels, len(bias), bias)

    def forward(self, images: Tensor) -> Output:
        """Logits and raw regression of every location of `(B, 3, H, W)` images with values in [0, 1]."""
        images = (images - 0.5) / 0.25
        logits, regression = [], []
        for level, features in enumerate(self.pyramid(images)):
            logits.append(self._rows(self.class_head(self.class_tower(features, level))))
            regression.append(self._rows(self.box_head(self.box_tower(features, level))))
        boxes = torch.cat(regression, dim=1)
        if self.config.bins:
            boxes = boxes.unflatten(-1, (4, -1))
        return Output(torch.cat(logits, dim=1), boxes)

    def _rows(self, x: Tensor) -> Tensor:
        """`(B, A·K, H, W)` to `(B, H·W·A, K)`."""
        batch = x.shape[0]
        return x.permute(0, 2, 3, 1).reshape(batch, x.shape[2] * x.shape[3] * self.anchors_per_cell, -1)

    def grid(self, height: int, width: int, device: torch.device | str = "cpu") -> Grid:
        """The locations of an image of `height` × `width` pixels."""
        config = self.config
        if config.kind == "anchor_free":
            shapes = torch.tensor([[1.0, 1.0]])
        else:
            scales = torch.tensor(config.anchor_scales).repeat_interleave(len(config.anchor_ratios))
            ratios = torch.tensor(config.anchor_ratios).repeat(len(config.anchor_scales)).sqrt()
            shapes = torch.stack([scales / ratios, scales * ratios], dim=-1)
        anchors, strides, sizes = [], [], []
        for stride in config.strides:
            rows, columns = math.ceil(height / stride), math.ceil(width / stride)
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centres = (torch.stack([x, y], dim=-1).float() + 0.5) * stride
            half = shapes * (config.anchor_size * stride / 2)
            centres = centres.reshape(-1, 1, 2)
            anchors.append(torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4))
            sizes.append(len(anchors[-1]))
            strides.append(torch.full((sizes[-1],), float(stride)))
        return Grid(torch.cat(anchors).to(device), torch.cat(strides).to(device), tuple(sizes))

    def assign(self, grid: Grid, boxes: Tensor, labels: Tensor) -> Assignment:
        """Which location must find which object: ATSS without anchors, max-IoU .5/.4 with them."""
        if self.config.kind == "retinanet":
            return max_iou(grid.anchors, boxes, labels, self.num_classes)
        return atss(grid.anchors, grid.level_sizes, boxes, labels, self.num_classes)

    def decode(self, regression: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        """Boxes `(..., 4)` in pixels from raw `regression` at `anchors` `(..., 4)` with `strides` `(...)`."""
        regression = regression.float()
        if self.config.kind == "retinanet":
            return decode_offsets(regression, anchors)
        if self.config.bins:
            distances = distribution_integral(regression)
        else:
            distances = regression.clamp(max=_LARGEST_LOG).exp() * (self.config.anchor_size / 2)
        return decode_distances(distances * strides[..., None], anchors)

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities `(..., C)` without the background."""
        logits = logits.float()
        return logits.softmax(-1)[..., :-1] if self.softmax else logits.sigmoid()


_LARGEST_LOG = math.log(1000 / 16)
"""No side grows by more than this in one step of decoding: early in training exp would overflow."""


def encode_offsets(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(dx, dy, log dw, log dh) of `boxes` against `anchors`, both xyxy (Fast R-CNN, 1311.2524 appendix C)."""
    x, y, w, h = box_convert(boxes, "xyxy", "cxcywh").unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    return torch.stack([(x - ax) / aw, (y - ay) / ah, (w / aw).log(), (h / ah).log()], dim=-1)


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_offsets`, with log dw and log dh limited to log(1000 / 16)."""
    dx, dy, dw, dh = offsets.unbind(-1)
    ax, ay, aw, ah = box_convert(anchors, "xyxy", "cxcywh").unbind(-1)
    w, h = dw.clamp(max=_LARGEST_LOG).exp() * aw, dh.clamp(max=_LARGEST_LOG).exp() * ah
    return box_convert(torch.stack([ax + dx * aw, ay + dy * ah, w, h], dim=-1), "cxcywh", "xyxy")


def encode_distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(left, top, right, bottom) pixels from the anchors' centres to the sides of `boxes` (FCOS)."""
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    return torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], dim=-1)


def decode_distances(distances: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_distances`."""
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
