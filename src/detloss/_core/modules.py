"""What the Modules share: keeping a loss's hyperparameters, and showing them in `repr`.

A Module calls its function: `__init__` keeps hyperparameters, `forward` passes them on.
Tensors are kept as buffers, so `.to(device)` and `state_dict` take them along; a Parameter stays one. A
weight that is None is a buffer too, so that one assigned later follows.
"""

from typing import Any

from torch import Tensor, nn

from detloss._core.checks import check_reduction, check_tensor
from detloss._core.fused import check_impl


def keep(module: nn.Module, **hyper: Any) -> None:
    """Store hyperparameters on a Module, for `kept` and `shown`; ValueError for what no loss takes."""
    check_reduction(hyper.get("reduction", "none"))
    check_impl(hyper.get("impl", "auto"))
    module._hyper = tuple(hyper)  # type: ignore[assignment]
    for name, value in hyper.items():
        if name in ("weight", "pos_weight") and value is not None:
            check_tensor(name, value)
        is_buffer = isinstance(value, Tensor) or name in ("weight", "pos_weight")
        if is_buffer and not isinstance(value, nn.Parameter):
            module.register_buffer(name, value)
        else:
            setattr(module, name, value)


def kept(module: nn.Module) -> dict[str, Any]:
    """The hyperparameters by name, with the values they have now."""
    return {name: getattr(module, name) for name in module._hyper}  # type: ignore[union-attr]


def shown(module: nn.Module) -> str:
    """The hyperparameters for `repr`; large tensors by their shape."""
    parts = []
    for name, value in kept(module).items():
        if isinstance(value, Tensor):
            value = value.tolist() if value.numel() <= 8 else f"tensor{tuple(value.shape)}"
        if value is not None:
            parts.append(f"{name}={value}")
    return ", ".join(parts)


def one_weight(module: nn.Module, weight: Tensor | None) -> Tensor | None:
    """The weight of this call or the one kept by the Module; ValueError where there are both."""
    if weight is not None and module.weight is not None:
        raise ValueError(
            "weight is given to forward and to the Module's __init__; it must be given in one place"
        )
    return module.weight if weight is None else weight  # type: ignore[return-value]
