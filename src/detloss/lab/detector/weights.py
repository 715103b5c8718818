"""What a detector starts from, and which of it training leaves alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detloss.lab.detector.config import DetectorConfig
from detloss.lab.records import first_line

STAGES = (r"\.layer(\d+)\.", r"\bstages[._](\d+)\.", r"\bblocks\.(\d+)\.", r"\bbackbone\.(\d+)\.")
"""How stages are numbered in the names of parameters; torchvision's layers begin at 1."""


def of_backbone(name: str) -> bool:
    """Whether a parameter of this name is the backbone's: not that of a pyramid or of layers added to it."""
    parts = name.split(".")
    return "backbone" in parts and not {"fpn", "extra"} & set(parts)


def freeze(detector: nn.Module, config: DetectorConfig) -> list[nn.Module]:
    """Lets training leave alone what the configuration says; the modules to be kept in evaluation mode.

    Raises:
        ValueError: the detector has no backbone, or no stages of it are known.
    """
    if not config.freeze:
        return []
    mine = {name: p for name, p in detector.named_parameters() if of_backbone(name)}
    if not mine:
        raise ValueError(
            f"freeze is {' '.join(config.freeze)}; kind {config.kind} has nothing with the name `backbone`"
        )
    norms: list[nn.Module] = [
        m for name, m in detector.named_modules() if of_backbone(name) and isinstance(m, _BatchNorm)
    ]
    frozen = norms if "norm" in config.freeze else []
    for module in frozen:
        module.requires_grad_(False)
    first = max((int(word) for word in config.freeze if word != "norm"), default=0)
    stages = {name: _stage(name) for name in mine}
    if first and not any(stages.values()):
        raise ValueError(
            f"freeze is {first}; of kind {config.kind} no stages are known, only norm can be frozen"
        )
    for name, parameter in mine.items():
        if stages[name] < first:
            parameter.requires_grad_(False)
    return frozen


def _stage(name: str) -> int:
    """From 0; what comes before the first stage belongs to it."""
    for pattern in STAGES:
        if found := re.search(pattern, name):
            return int(found[1]) - (pattern == STAGES[0])
    return 0


def start(model: nn.Module, config: DetectorConfig) -> list[str]:
    """Puts the weights of a file into a model; what is to be told of it."""
    if config.weights == "pretrained":
        raise ValueError(f"weights is 'pretrained'; kind {config.kind} has none that are known, give a FILE")
    return put(model, read_weights(config.weights), config.weights)


def read_weights(path: str) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save` or safetensors; of a checkpoint that has more, its model.

    Raises:
        ValueError: no such file, or no state dict in it.
    """
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict"):
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
        if not isinstance(found, Mapping) or not all(isinstance(x, Tensor) for x in found.values()):
            raise TypeError(f"it holds {type(found).__name__}, no state dict")
        return dict(found)
    except Exception as error:
        what = "no such file" if not Path(path).is_file() else f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"weights {path} cannot be read ({what}); give a file with a state dict") from error


def put(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> list[str]:
    """Loads the tensors whose names and shapes fit; the others, such as heads of other classes, stay new.

    Returns:
        What stayed new, in a line, or nothing.

    Raises:
        ValueError: fewer than half of the model's parameters are there.
    """
    mine = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in mine and v.shape == mine[k].shape}
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    new = [name for name in names if name not in fitting]
    if 2 * len(new) > len(names):
        example = next(iter(weights), "nothing")
        raise ValueError(
            f"weights {where} are of another model: {len(names) - len(new)} of its {len(names)} parameters "
            f"are there; they hold {example}, and it has {names[0]}"
        )
    model.load_state_dict(fitting, strict=False)
    if not new:
        return []
    listed = ", ".join(new[:4]) + (f" and {len(new) - 4} more" if len(new) > 4 else "")
    return [f"weights {where}: made anew, as they are not there or of other classes: {listed}"]
