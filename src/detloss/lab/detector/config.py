"""What the detector is made of."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from detloss.lab.detector.settings import parse_settings
from detloss.lab.records import check_choices, require, require_least

DENSE = ("anchor_free", "retinanet", "yolov2")
"""The kinds of the dense detector; all others were written by somebody else."""
CLIENTS = ("torchvision", "transformers")
BACKBONES = ("small", "darknet19", "resnet50")
KINDS = (
    f"{', '.join(DENSE)}, torchvision:NAME (a RetinaNet, FCOS, SSD or SSDlite), transformers:NAME (rt_detr, "
    "rt_detr_v2, d_fine), or your own FILE.py:FUNCTION"
)


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector is made of; the defaults are small enough to train on two CPU cores."""

    kind: str = "anchor_free"
    """anchor_free: a point a cell, ATSS, box as l, t, r, b (with bins: GFL). retinanet: anchors, max-IoU
    assignment. yolov2: anchors by k-means, objectness, classes of positives only, one stride.
    torchvision:retinanet_resnet50_fpn_v2 (fcos_resnet50_fpn, ssdlite320_mobilenet_v3_large, ...),
    transformers:rt_detr_v2 (rt_detr, d_fine), or your own FILE.py:build: detectors of others, made with
    settings, weights and freeze; all else here is of the first three."""
    settings: tuple[str, ...] = ()
    """Arguments key=value of a detector of others, such as min_size=320, d_model=64 or
    backbone_config.depths=[1,1,1,1]."""
    weights: str = ""
    """What to start from: a FILE with a state dict (of transformers a folder); pretrained: the weights that
    its makers publish, which are downloaded; none or nothing: random. Of the dense detector they are those
    of the backbone, resnet50 or timm:NAME."""
    freeze: tuple[str, ...] = ()
    """norm: the backbone's batch normalisation keeps its statistics and weights. A number N: so do the
    weights of its first N stages."""
    backbone: str = "small"
    """small: one residual block a stride. darknet19: YOLOv2's, the paper's at width 32. resnet50:
    torchvision's. timm:NAME: timm's (both: an extra, detloss[vision])."""
    width: int = 12
    """Channels after the first convolution; each stage doubles them (resnet50 has its own)."""
    channels: int = 32
    """Channels of the feature pyramid and the heads."""
    head_depth: int = 1
    """3x3 convolutions in each head before the last one (the paper's RetinaNet: 4)."""
    norm: Literal["batch", "group"] = "batch"
    """batch: by the statistics of the batch, over all processes. group: of each image by its own
    (1803.08494), so that a batch in parts trains as the whole (accumulate)."""
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
        client, _, name = self.kind.rpartition(":")
        known = self.dense or (bool(name) and (client in CLIENTS or client.endswith(".py")))
        if not known:
            raise ValueError(f"kind is {self.kind!r}; it may be {KINDS}")
        parse_settings(self.settings)
        words = all(word == "norm" or word.isdecimal() for word in self.freeze)
        require(self, "freeze", words, "it may be norm, a number of stages, or both")
        if not self.dense:
            self._check_others()
            return
        if self.settings:
            raise ValueError(f"settings is {' '.join(self.settings)}; kind {self.kind} has its own arguments")
        client, _, name = self.backbone.rpartition(":")
        known = self.backbone in BACKBONES or (client == "timm" and bool(name))
        if not known:
            raise ValueError(f"backbone is {self.backbone!r}; it may be {', '.join(BACKBONES)} or timm:NAME")
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
        if self.start and self.backbone in ("small", "darknet19"):
            raise ValueError(
                f"weights is {self.weights!r}; only resnet50 and timm:NAME have weights to start from"
            )
        if self.start and self.norm != "batch":
            raise ValueError(
                f"norm is {self.norm!r}; the backbone's weights were made with batch, and need it"
            )
        require(self, "anchor_size", self.anchor_size > 0, "it must be positive, such as 4")
        require(self, "prior", 0 < self.prior < 1, "it must lie between 0 and 1, such as 0.01")
        usable = self.bins == 0 or self.bins >= 2
        require(self, "bins", usable, "it may be 0 (plain distances) or at least 2, such as 16")
        if self.bins and self.kind != "anchor_free":
            raise ValueError(f"bins needs kind anchor_free: {self.kind} regresses offsets, not distances")

    @property
    def dense(self) -> bool:
        """Whether it is the dense detector, of which logits and locations are known."""
        return self.kind in DENSE

    @property
    def start(self) -> str:
        """`weights`, empty where they are random."""
        return "" if self.weights == "none" else self.weights

    def _check_others(self) -> None:
        """ValueError where something is set that only the dense detector has."""
        shared = ("kind", "settings", "weights", "freeze")
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name not in shared and value != field.default:
                raise ValueError(
                    f"{field.name} is {value}; it is of the dense detector ({', '.join(DENSE)}): for "
                    f"{self.kind} give its builder's arguments as settings"
                )
