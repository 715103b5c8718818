"""One dense one-stage detector: backbone, feature pyramid, two heads on every location of a grid.

RetinaNet (k anchors a cell), the anchor-free detector (one point a cell, box as distances to its four sides,
plainly or as distributions) and YOLOv2 (anchors by k-means, objectness) are configurations of it.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.lab.detector.assign import Assignment, atss, centre_cell, max_iou
from detloss.lab.detector.coding import LARGEST_LOG, decode_cells, decode_distances, decode_offsets
from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.neck import Passthrough, Pyramid
from detloss.lab.detector.norms import group_norm, replace_norms
from detloss.losses import distribution_integral


class Output(NamedTuple):
    """What the detector says of a batch.

    Attributes:
        logits: `(B, P, C)`, or `(B, P, C + 1)` with the background last when trained with a softmax.
        regression: `(B, P, 4)` raw, or `(B, P, 4, n + 1)` logits of distributions.
        objectness: `(B, P)` logits of there being an object at all (yolov2; then no class is the background).
    """

    logits: Tensor
    regression: Tensor
    objectness: Tensor | None = None


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


class Detector(nn.Module):
    """The dense detector.

    Args:
        config: its parts.
        num_classes: C, without background.
        softmax: give each location C + 1 logits, the last for background, instead of C independent ones;
            of yolov2 C, since the objectness speaks for the background.
    """

    def __init__(self, config: DetectorConfig, num_classes: int, softmax: bool = False) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.softmax = softmax
        shapes = _shapes(config)
        self.anchors_per_cell = len(shapes)
        yolo = config.kind == "yolov2"
        self.pyramid = Passthrough(config) if yolo else Pyramid(config)
        depth, channels = config.head_depth, config.channels
        levels = len(config.strides)
        self.box_tower = _Tower(channels, depth, levels)
        self.class_tower = _Tower(channels, depth, levels)
        sides = 4 * (config.bins + 1) if config.bins else 4
        self.box_head = _head(channels, self.anchors_per_cell * sides, torch.zeros(()))
        odds = (1 - config.prior) / config.prior
        background = torch.full((self.anchors_per_cell,), -math.log(odds))
        self.objectness_head = _head(channels, len(background), background) if yolo else None
        # Last, so that every other weight is the same for a given seed whatever the classification loss.
        bias = torch.full((num_classes,), -math.log(odds))
        if yolo:  # the classes of an object, which one of them it is being sure
            bias = torch.zeros(num_classes)
        elif softmax:
            bias = torch.tensor([0.0] * num_classes + [math.log(odds * num_classes)])
        bias = bias.repeat(self.anchors_per_cell)
        self.class_head = _head(channels, len(bias), bias)
        if config.norm == "group":
            replace_norms(self, group_norm)

    def forward(self, images: Tensor) -> Output:
        """Logits and raw regression of every location of `(B, 3, H, W)` images with values in [0, 1]."""
        images = (images - 0.5) / 0.25
        logits, regression, objectness = [], [], []
        for level, features in enumerate(self.pyramid(images)):
            logits.append(self._rows(self.class_head(self.class_tower(features, level))))
            features = self.box_tower(features, level)
            regression.append(self._rows(self.box_head(features)))
            if self.objectness_head is not None:
                objectness.append(self._rows(self.objectness_head(features))[..., 0])
        boxes = torch.cat(regression, dim=1)
        if self.config.bins:
            boxes = boxes.unflatten(-1, (4, -1))
        return Output(torch.cat(logits, dim=1), boxes, torch.cat(objectness, dim=1) if objectness else None)

    def _rows(self, x: Tensor) -> Tensor:
        """`(B, A·K, H, W)` to `(B, H·W·A, K)`."""
        batch = x.shape[0]
        return x.permute(0, 2, 3, 1).reshape(batch, x.shape[2] * x.shape[3] * self.anchors_per_cell, -1)

    def grid(self, height: int, width: int, device: torch.device | str = "cpu") -> Grid:
        """The locations of an image of `height` × `width` pixels."""
        config = self.config
        shapes = _shapes(config)
        anchors, strides, sizes = [], [], []
        for stride in config.strides:
            rows, columns = math.ceil(height / stride), math.ceil(width / stride)
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centres = (torch.stack([x, y], dim=-1).float() + 0.5) * stride
            half = shapes / 2 if config.anchors else shapes * (config.anchor_size * stride / 2)
            centres = centres.reshape(-1, 1, 2)
            anchors.append(torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4))
            sizes.append(len(anchors[-1]))
            strides.append(torch.full((sizes[-1],), float(stride)))
        return Grid(torch.cat(anchors).to(device), torch.cat(strides).to(device), tuple(sizes))

    def assign(self, grid: Grid, boxes: Tensor, labels: Tensor) -> Assignment:
        """Which location must find which object: ATSS, max-IoU .5/.4 (retinanet), its cell (yolov2)."""
        if self.config.kind == "retinanet":
            return max_iou(grid.anchors, boxes, labels, self.num_classes)
        if self.config.kind == "yolov2":
            return centre_cell(grid.anchors, grid.strides, boxes, labels, self.num_classes)
        return atss(grid.anchors, grid.level_sizes, boxes, labels, self.num_classes)

    def decode(self, regression: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        """Boxes `(..., 4)` in pixels from raw `regression` at `anchors` `(..., 4)` with `strides` `(...)`."""
        regression = regression.float()
        if self.config.kind == "retinanet":
            return decode_offsets(regression, anchors)
        if self.config.kind == "yolov2":
            return decode_cells(regression, anchors, strides)
        if self.config.bins:
            distances = distribution_integral(regression)
        else:
            distances = regression.clamp(max=LARGEST_LOG).exp() * (self.config.anchor_size / 2)
        return decode_distances(distances * strides[..., None], anchors)

    def scores(self, output: Output) -> Tensor:
        """Class probabilities `(B, P, C)` without the background; of yolov2, times the objectness."""
        logits = output.logits.float()
        if output.objectness is not None:
            of_object = logits.softmax(-1) if self.softmax else logits.sigmoid()
            return of_object * output.objectness.float().sigmoid()[..., None]
        return logits.softmax(-1)[..., :-1] if self.softmax else logits.sigmoid()


def _shapes(config: DetectorConfig) -> Tensor:
    """Width and height of a cell's anchors `(A, 2)`: in base anchors, or in pixels where they are given."""
    if config.kind == "anchor_free":
        return torch.tensor([[1.0, 1.0]])
    if config.kind == "yolov2":
        if not config.anchors:
            raise ValueError(
                "anchors is empty; yolov2 needs some, such as those of detloss.lab.detector.kmeans_anchors"
            )
        return torch.tensor(config.anchors)
    scales = torch.tensor(config.anchor_scales).repeat_interleave(len(config.anchor_ratios))
    ratios = torch.tensor(config.anchor_ratios).repeat(len(config.anchor_scales)).sqrt()
    return torch.stack([scales / ratios, scales * ratios], dim=-1)
