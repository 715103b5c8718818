"""In which dtype losses and overlaps are computed, and that all tensors of a call are on one device."""

import torch
from torch import Tensor


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64; float32 for all else, half precision and integers among them."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_devices(**tensors: object) -> None:
    """ValueError unless all are where the first one is; those of no dimensions may be on the CPU.

    What is not a tensor is passed over. The device meta is refused: its tensors hold no values.
    """
    (first, values), *others = tensors.items()
    device = values.device  # type: ignore[attr-defined]
    if device.type == "meta":
        raise ValueError(f"{first}: tensors on the device meta hold no values; pass tensors on a real device")
    for name, value in others:
        if (
            isinstance(value, Tensor)
            and value.device != device
            and (value.ndim or value.device.type != "cpu")
        ):
            raise ValueError(f"{name} is on {value.device}, {first} on {device}; move one of them")
