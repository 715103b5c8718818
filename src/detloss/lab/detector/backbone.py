"""Backbones: what turns an image into maps, stage after stage, each at twice the stride of the one before."""

from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.lab.detector.config import DetectorConfig
from detloss.lab.detector.weights import put, read_weights
from detloss.lab.records import first_line


class Stage(NamedTuple):
    """One part of a backbone: its layers, the channels and the stride of its map."""

    layers: nn.Module
    channels: int
    stride: int


def all_maps(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of all stages of a backbone."""
    if not isinstance(backbone, nn.ModuleList):
        found: list[Tensor] = backbone(images)
        return found
    maps = [images]
    for stage in backbone:
        maps.append(stage(maps[-1]))
    return maps[1:]


def stages(config: DetectorConfig) -> Iterator[Stage]:
    """The backbone's stages, made one at a time, up to the largest stride asked for that it has."""
    make = {"small": _small, "darknet19": _darknet19, "resnet50": _resnet50}[config.backbone]
    for stage in make(config):
        yield stage
        if stage.stride >= config.strides[-1]:
            return


def convolution(
    inputs: int, outputs: int, stride: int = 1, kernel: int = 3, then: nn.Module | None = None
) -> nn.Sequential:
    """Convolution, normalisation, and ReLU or what is to come then."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), then or nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def _small(config: DetectorConfig) -> Iterator[Stage]:
    width, stride = config.width, 2
    before = [convolution(3, width, stride=2)]
    while True:
        stride *= 2
        layers = nn.Sequential(*before, convolution(width, 2 * width, stride=2), _Residual(2 * width))
        before, width = [], 2 * width
        yield Stage(layers, width, stride)


_DARKNET19 = ((1,), (2,), (4, 2, 4), (8, 4, 8), (16, 8, 16, 8, 16), (32, 16, 32, 16, 32))
"""Channels between two poolings, in widths; 3x3 and 1x1 convolutions take turns (1612.08242, table 6)."""


def _darknet19(config: DetectorConfig) -> Iterator[Stage]:
    channels = 3
    for i, plan in enumerate(_DARKNET19):
        # Rounded up, as strided convolutions do, so that maps of any image size fit the grid.
        layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if i else []
        for j, factor in enumerate(plan):
            outputs, kernel = factor * config.width, 1 if j % 2 else 3
            layers += convolution(channels, outputs, kernel=kernel, then=nn.LeakyReLU(0.1))
            channels = outputs
        yield Stage(nn.Sequential(*layers), channels, 2**i)


def _resnet50(config: DetectorConfig) -> Iterator[Stage]:
    try:
        from torchvision.models import resnet50
    except Exception as error:
        # A torchvision of another build than torch fails with a RuntimeError while it is imported.
        raise ValueError(
            f"backbone resnet50 needs torchvision, which cannot be imported here ({error}); "
            "pip install detloss[vision], or take backbone darknet19"
        ) from error
    network = resnet50(weights=None)
    if config.start:
        put(
            network,
            _published() if config.weights == "pretrained" else read_weights(config.weights),
            config.weights,
        )
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    yield Stage(nn.Sequential(stem, network.layer1), 256, 4)
    yield Stage(network.layer2, 512, 8)
    yield Stage(network.layer3, 1024, 16)
    yield Stage(network.layer4, 2048, 32)


def _published() -> Any:
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        raise ValueError(
            f"weights 'pretrained' of resnet50 cannot be downloaded ({first_line(error)}); fetch "
            f"{weights.url} elsewhere and give the file"
        ) from error


class TimmBackbone(nn.Module):
    """A backbone of timm: its maps at those of the strides asked for that it has, up to its last.

    With `fine` also the one before the first stride, which YOLOv2's neck looks at.

    Images come as the detector scales them, and are scaled as the backbone's own weights were trained.

    Attributes:
        channels, strides: of the maps.

    Raises:
        ValueError: no timm, no such backbone, other strides than those asked for, weights that cannot be had.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: DetectorConfig, fine: bool = False) -> None:
        super().__init__()
        name = config.backbone.partition(":")[2]
        try:
            import timm
        except Exception as error:
            raise ValueError(
                f"backbone {config.backbone} needs timm, which cannot be imported here "
                f"({first_line(error)}); pip install detloss[vision]"
            ) from error
        try:
            strides = timm.create_model(name, features_only=True).feature_info.reduction()
        except Exception as error:
            raise ValueError(f"backbone {config.backbone} cannot be made ({first_line(error)})") from error
        wanted = (config.strides[0] // 2, *config.strides) if fine else config.strides
        chosen = [i for i, stride in enumerate(strides) if wanted[0] <= stride <= wanted[-1]]
        self.strides = tuple(strides[i] for i in chosen)
        if not chosen or self.strides != wanted[: len(chosen)]:
            raise ValueError(
                f"strides is {config.strides}; {config.backbone} has maps of stride "
                f"{', '.join(map(str, strides))}: begin with one of these"
            )
        try:
            pretrained = config.weights == "pretrained"
            network = timm.create_model(name, pretrained, features_only=True, out_indices=chosen)
        except Exception as error:
            raise ValueError(
                f"weights 'pretrained' of {config.backbone} cannot be downloaded ({first_line(error)}); "
                "give a file with its state dict"
            ) from error
        if config.start and not pretrained:
            put(network, read_weights(config.weights), config.weights)
        self.network, self.channels = network, tuple(network.feature_info.channels())
        self.name, trained = config.backbone, network.pretrained_cfg
        for attribute, key in (("mean", "mean"), ("spread", "std")):
            value = torch.tensor(trained.get(key) or (0.5, 0.5, 0.5)).view(1, -1, 1, 1)
            self.register_buffer(attribute, value, persistent=False)

    def stages(self) -> Iterator[Stage]:
        """Channels and strides of the maps."""
        yield from (Stage(self, *of) for of in zip(self.channels, self.strides))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps `(B, channels, H / stride, W / stride)`, rounded up."""
        maps: list[Tensor] = self.network((images * 0.25 + 0.5 - self.mean) / self.spread)
        for x, stride in zip(maps, self.strides):
            if x.shape[-2:] != tuple(ceil(side / stride) for side in images.shape[-2:]):
                raise ValueError(
                    f"size is {images.shape[-1]}; {self.name} rounds down at stride {stride}: give a "
                    f"multiple of {self.strides[-1]}"
                )
        return maps
