"""What the detector is made of."""

from dataclasses import dataclass
from typing import Literal

from detloss.lab.records import check_choices, require, require_least


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector is made of; the defaults are small enough to train on two CPU cores."""

    kind: Literal["anchor_free", "retinanet", "yolov2"] = "anchor_free"
    """anchor_free: a point a cell, ATSS, box as l, t, r, b (with bins: GFL). retinanet: anchors, max-IoU
    assignment. yolov2: anchors by k-means, objectness, classes of positives only, one stride."""
    backbone: Literal["small", "darknet19", "resnet50"] = "small"
    """small: one residual block a stride. darknet19: YOLOv2's, the paper's at width 32. resnet50:
    torchvision's (an extra, detloss[vision])."""
    weights: str = ""
    """File with a state dict of torchvision's resnet50 to start from; without it random weights."""
    width: int = 12
    """Channels after the first convolution; each stage doubles them (resnet50 has its own)."""
    channels: int = 32
    """Channels of the feature pyramid and the heads."""
    head_depth: int = 1
    """3x3 convolutions in each head before the last one (the paper's RetinaNet: 4)."""
    strides: tuple[int, ...] = (4, 8, 16)
    """Pixels a cell, per level: consecutive powers of two from 4 or more (the paper's RetinaNet: 8 to 128;
    yolov2: one, the paper's 32)."""
    anchor_size: float = 4.0
    """Side of the base anchor, in strides."""
    anchor_scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Sizes of a cell's anchors, as factors of the base anchor (retinanet only)."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of a cell's anchors (retinanet only)."""
    anchors: tuple[tuple[float, float], ...] = ()
    """Width and height in pixels of a cell's anchors (yolov2 only); without them k-means of the training
    boxes decides."""
    anchor_count: int = 5
    """Anchors that k-means looks for (yolov2 only)."""
    bins: int = 0
    """n: a side's distance is the mean of a distribution over 0..n strides; 0: plain (anchor_free only)."""
    prior: float = 0.01
    """pi: foreground probability of every location before training (1708.02002, section 3.3)."""

    def __post_init__(self) -> None:
        check_choices(self)
        first = self.strides[0] if self.strides else 0
        consecutive = tuple(first * 2**i for i in range(len(self.strides)))
        fit = first >= 4 and not first & (first - 1) and self.strides == consecutive
        series = "(4, 8, 16), (8, 16, 32, 64, 128), ...: consecutive powers of two from 4 or more"
        require(self, "strides", fit, f"it may be {series}")
        single = self.kind != "yolov2" or len(self.strides) == 1
        require(self, "strides", single, "yolov2 has one, such as 8 or 32")
        require_least(self, width=1, channels=1, head_depth=0, anchor_count=1)
        for name in ("anchor_scales", "anchor_ratios"):
            positive = min(getattr(self, name), default=0) > 0
            require(self, name, positive, "it must be one positive number or more")
        positive = all(side > 0 for anchor in self.anchors for side in anchor)
        require(self, "anchors", positive, "widths and heights must be positive, in pixels")
        if self.anchors and self.kind != "yolov2":
            raise ValueError("anchors needs kind yolov2; retinanet's are anchor_size, _scales and _ratios")
        if self.weights and self.backbone != "resnet50":
            raise ValueError(f"weights is {self.weights!r}; only backbone resnet50 starts from a file")
        require(self, "anchor_size", self.anchor_size > 0, "it must be positive, such as 4")
        require(self, "prior", 0 < self.prior < 1, "it must lie between 0 and 1, such as 0.01")
        usable = self.bins == 0 or self.bins >= 2
        require(self, "bins", usable, "it may be 0 (plain distances) or at least 2, such as 16")
        if self.bins and self.kind != "anchor_free":
            raise ValueError(f"bins needs kind anchor_free: {self.kind} regresses offsets, not distances")
