"""Between backbone and heads: one map a stride."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.lab.detector.backbone import TimmBackbone, all_maps, convolution, stages
from detloss.lab.detector.config import DetectorConfig


class Pyramid(nn.Module):
    """The backbone and the feature pyramid on its stages (1612.03144): one map a stride.

    Strides beyond the backbone's last are made by further convolutions of its last map, as RetinaNet's P6 and
    P7 (1708.02002, section 4).
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        channels = config.channels
        timm = TimmBackbone(config) if config.backbone.startswith("timm:") else None
        self.backbone: nn.Module = nn.ModuleList() if timm is None else timm
        self.laterals = nn.ModuleList()
        self.smooth = nn.ModuleList()
        self.more = nn.ModuleList()
        self.taken: list[bool] = []
        inputs, stride = 3, 1
        # One after another, so that weights are drawn in the order of the stages.
        for layers, inputs, stride in stages(config) if timm is None else timm.stages():
            if timm is None:
                self.backbone.append(layers)  # type: ignore[operator]
            self.taken.append(stride in config.strides)
            if self.taken[-1]:
                self.laterals.append(nn.Conv2d(inputs, channels, 1))
                self.smooth.append(convolution(channels, channels))
        while stride < config.strides[-1]:
            stride *= 2
            if stride >= config.strides[0]:
                self.more.append(convolution(inputs, channels, stride=2))
                inputs = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features `(B, channels, H / stride, W / stride)` of each stride."""
        found = all_maps(self.backbone, images)
        taken = [x for x, taken in zip(found, self.taken) if taken]
        maps = [lateral(x) for lateral, x in zip(self.laterals, taken)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:])
        maps = [smooth(x) for smooth, x in zip(self.smooth, maps)]
        x = found[-1]
        for convolve in self.more:
            x = convolve(x)
            maps.append(x)
        return maps


class Passthrough(nn.Module):
    """The backbone and YOLOv2's neck (1612.08242, section 2): one map, which also sees the stage before it.

    The finer map is squeezed to an eighth of its channels and each 2x2 of its cells become channels of one.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        timm = TimmBackbone(config, fine=True) if config.backbone.startswith("timm:") else None
        made = list(stages(config) if timm is None else timm.stages())
        if made[-1].stride != config.strides[-1]:
            raise ValueError(
                f"strides is {config.strides}; {config.backbone} goes up to stride {made[-1].stride}"
            )
        of_stages = nn.ModuleList(stage.layers for stage in made)
        self.backbone: nn.Module = of_stages if timm is None else timm
        # Of the smallest stride there may be no stage before: it then stands alone.
        fine = made[-2].channels if len(made) > 1 else 0
        squeezed = max(1, fine // 8) if fine else 0
        self.squeeze = convolution(fine, squeezed, kernel=1) if fine else None
        self.merge = convolution(made[-1].channels + 4 * squeezed, config.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features `(B, channels, H / stride, W / stride)`, in a list of one."""
        *before, x = all_maps(self.backbone, images)
        if self.squeeze is not None:
            fine = self.squeeze(before[-1])
            height, width = fine.shape[-2:]
            fine = F.pixel_unshuffle(F.pad(fine, (0, width % 2, 0, height % 2)), 2)
            x = torch.cat([x, fine], dim=1)
        return [self.merge(x)]
