"""What autograd keeps of a forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def kept_by_hooks(forward: Callable[[], Any], arguments: Sequence[Tensor]) -> int:
    """Bytes that autograd saves for backward by its own hooks, each memory once, without the arguments'."""
    given = {tensor.untyped_storage().data_ptr() for tensor in arguments}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # its graph keeps all memory alive, so that no address comes twice
    del result
    return sum(saved.values())
