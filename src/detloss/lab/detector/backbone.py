"""Backbones: what turns an image into maps, stage after stage, each at twice the stride of the one before."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss.lab.detector.config import DetectorConfig


class Stage(NamedTuple):
    """One part of a backbone: its layers, the channels and the stride of its map."""

    layers: nn.Module
    channels: int
    stride: int


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
    if config.weights:
        _load(network, Path(config.weights))
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    yield Stage(nn.Sequential(stem, network.layer1), 256, 4)
    yield Stage(network.layer2, 512, 8)
    yield Stage(network.layer3, 1024, 16)
    yield Stage(network.layer4, 2048, 32)


def _load(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"weights {path} cannot be read ({reason}); give a state dict of torchvision's resnet50"
        ) from error
