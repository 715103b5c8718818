"""Watching the operations that a loss asks torch for: how many, and whether tensors of two devices meet."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only


class _Watch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under it; the default imports all of torch._dynamo, which takes seconds."""
        return False


class Operations(_Watch):
    """Counts the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Elsewhere(Tensor):
    """A tensor that says it is on another device, and holds its numbers here; for `TwoDevices` only."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, device: str) -> "Elsewhere":
        """A tensor of the same size, dtype and strides."""
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(device),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuses: `TwoDevices` is not on."""
        raise RuntimeError(f"{func} outside of TwoDevices")


# Operations that tensors on the CPU may go into beside others: copies, and indices.
_ALLOWED = ("copy_", "_to_copy", "index.Tensor", "index_put", "_index_put_impl_")


class TwoDevices(_Watch):
    """Plays a second device, and notes the first operation where tensors of both meet.

    A number as a 0-dim tensor on the CPU may meet any device, as torch has it.

    Attributes:
        mixed: that operation, "" where there was none.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.mixed = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation here, its result where a device would have it."""
        kwargs = dict(kwargs or {})
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [value for value in given if isinstance(value, Elsewhere)]
        name = str(func).removeprefix("aten.")
        if there and any(value.ndim for value in given if not isinstance(value, Elsewhere)):
            allowed = name.startswith(_ALLOWED) and (
                isinstance(args[0], Elsewhere) or name.startswith(_ALLOWED[:2])
            )
            self.mixed = self.mixed or ("" if allowed else name.partition(".")[0])
        device = kwargs.get("device")
        goes = bool(there) if device is None else torch.device(device).type == self.device
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(Elsewhere, lambda value: value.held, (args, kwargs))
        result = func(*args, **kwargs)
        for value in there:
            if result is value.held:  # in place
                return value
        return tree_map_only(Tensor, lambda value: Elsewhere(value, self.device), result) if goes else result
