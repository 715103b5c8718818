"""Every use of private parts of torch, in one place: only this file changes with a release of torch.

All of it is there in torch 2.6; the fused pass alone needs torch `FUSED_TORCH`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _device

FUSED_TORCH = (2, 11)
"""The first release whose `standalone_compile` makes the fused passes of this package."""


CAN_FUSE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= FUSED_TORCH
"""Whether this torch is new enough for a fused pass."""


def is_transformed(values: Tensor) -> bool:
    """Whether the tensor is a batch of several, under `vmap` or another transform of `torch.func`."""
    if torch.compiler.is_compiling():  # which traces this function, but not the other; before 2.11 neither
        return not CAN_FUSE or torch._C._functorch.is_batchedtensor(values)
    return torch._C._functorch.is_functorch_wrapped_tensor(values)


def is_batched_gradient(gradient: Tensor) -> bool:
    """Whether an upstream gradient is a batch of several: `torch.func`, or `is_grads_batched`."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(gradient)
    return wrapped or torch._C._functorch.is_legacy_batchedtensor(gradient)


def is_watched() -> bool:
    """Whether operations are traced, by a transform of `torch.func` or forward-mode differentiation."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_intercepted(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are of a subclass, or a transform, a forward-mode derivative or a mode is active."""
    return (
        any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors)
        or is_watched()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > (_device.CURRENT_DEVICE is not None)  # a default device
    )


def graph_is_kept() -> bool:
    """Whether the backward pass that runs now was called with `retain_graph=True`."""
    return torch._C._autograd._get_current_graph_task_keep_graph()


def assert_on_device(condition: Tensor, message: str) -> None:
    """Fail where the condition is false, without waiting for a GPU."""
    torch._assert_async(condition, message)


def compile_graph(graph: torch.fx.GraphModule, inputs: list[Any], shapes: Any, **patches: Any) -> Callable:
    """The compiled function of a graph, by Inductor alone; `patches` change its settings."""
    from torch._inductor import standalone_compile

    return standalone_compile(graph, inputs, dynamic_shapes=shapes, options={"config_patches": patches})


def is_missing_compiler(error: BaseException) -> bool:
    """Whether an error says that there is no C++ compiler."""
    from torch._inductor.exc import InvalidCxxCompiler

    return isinstance(error, InvalidCxxCompiler)
