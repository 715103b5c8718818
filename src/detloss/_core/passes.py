"""A compiled pass: what it depends on, and how a formula and its gradient become one loop.

`make_fx` traces the formula together with its gradient, with symbols for sizes; Inductor compiles the graph.
torch's Dynamo has no part in it: a call has no guards to pass, and nothing makes it compile again.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detloss._core.dtypes import arithmetic_dtype
from detloss._core.private import compile_graph


class Form(NamedTuple):
    """What a compiled pass depends on: all but sizes and numbers."""

    name: str
    formula: Callable[..., Tensor]
    fixed: tuple[tuple[str, object], ...]
    inputs: tuple[tuple[str, torch.dtype, bool], ...]
    constants: tuple[tuple[str, str, torch.dtype, torch.device], ...]
    dtype: torch.dtype
    device: torch.device
    usual: tuple[tuple[str, float], ...]
    unit: str | None


MEAN_SCALE = "mean scale"
"""The constant that a sum is multiplied with; no hyperparameter of a formula has a name with a space."""
SIZES = {"N": 8192, "C": 80, "L": 48}
"""Sizes that stand for any other while a pass is traced; equal ones would be taken for the same size."""


def build(form: Form) -> Callable[..., Any]:
    """The compiled pass: tensors in, in the order of the form, value and gradients out; seconds of work.

    The imports are here: they take seconds too, and eager calls need none of them.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, *_ in form.constants]
    wanted = [index for index, (*_, needed) in enumerate(form.inputs) if needed]
    compute = arithmetic_dtype(form.inputs[0][1])

    def joint(*tensors: Tensor) -> tuple[Tensor, ...]:
        """The value, how far from 1/2 the constant in [0, 1] goes, the gradients."""
        inputs = [tensor.to(compute) for tensor in tensors[: len(form.inputs)]]
        tensor_of = dict(zip(names, tensors[len(inputs) :]))
        scale = tensor_of.pop(MEAN_SCALE, None)
        given: dict[str, Any] = {**tensor_of, **dict(form.usual), **dict(form.fixed)}

        def loss_of(*changing: Tensor) -> Tensor:
            values = dict(enumerate(inputs)) | dict(zip(wanted, changing))
            return form.formula(*values.values(), **given)

        if wanted:
            loss, pull = torch.func.vjp(loss_of, *(inputs[index] for index in wanted))[:2]
            one = torch.ones_like(loss) if scale is None else torch.ones_like(loss) * scale
            gradients = [_keep(gradient, form.inputs[index][1]) for gradient, index in zip(pull(one), wanted)]
        else:
            loss, gradients = loss_of(), []
        # float32 loses digits in sums of millions; on a GPU they are summed as a tree
        wide = torch.float64 if form.device.type == "cpu" else compute
        value = loss if scale is None else loss.sum(dtype=wide) * scale
        far = [] if form.unit is None else [(tensor_of[form.unit].to(compute) - 0.5).abs().amax()]
        return value.to(form.dtype), *far, *gradients

    operands = [(dims, dtype, form.device) for dims, dtype, _ in form.inputs]
    operands += [(dims, dtype, device) for _, dims, dtype, device in form.constants]
    # Numbers are nan: of another one torch 2.14 assumes, in float64, that Python code asks for its value
    examples = [
        torch.full(
            [int(dim) if dim.isdigit() else SIZES[dim] for dim in dims],
            0 if dims or not dtype.is_floating_point else math.nan,
            dtype=dtype,
            device=device,
        )
        for dims, dtype, device in operands
    ]
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(False):
        warnings.simplefilter("ignore")  # torch's own, about its own code
        graph = make_fx(joint, tracing_mode="symbolic", decomposition_table=DECOMPOSITIONS)(*examples)
        _even(graph)
        _check_sizes(graph)
        placeholders = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        return compile_graph(graph, placeholders, "from_graph", **OPTIONS)


def _check_sizes(graph: torch.fx.GraphModule) -> None:
    """ValueError if the formula uses a size: the pass would keep the size it was traced with."""
    first = next(node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
    sizes = first.fake_mode.shape_env
    if sizes.guards or sizes.replacements:
        raise ValueError("it depends on the number of rows or classes")


OPTIONS = {
    "cpp.enable_floating_point_contract_flag": "fast",  # one rounding for a product and a sum
    "cpp.dynamic_threads": True,  # else memory for as many threads as there were when it was compiled
}


def _keep(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient as kept: float16 would lose small values before the loss scale has multiplied them."""
    return gradient if dtype == torch.float16 else gradient.to(dtype)


# Inductor's own sigmoid, log-sigmoid and their derivatives take four exponentials and a slow logarithm. These
# share one exponential, e^-|x|, which is found once in a pass.


def _sigmoid(x: Tensor) -> Tensor:
    small = torch.exp(-x.abs())
    inverse = 1 / (1 + small)
    return torch.where(x >= 0, inverse, small * inverse)


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    small = torch.exp(-x.abs())
    return x.clamp(max=0) - _log1p(small), small


def _log_sigmoid_backward(gradient: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    return gradient * _sigmoid(-x)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    x = x * beta
    return (x.clamp(min=0) + _log1p(torch.exp(-x.abs()))) / beta


def _softplus_backward(gradient: Tensor, x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return gradient * _sigmoid(x * beta)


def _even(graph: torch.fx.GraphModule) -> None:
    """|-x| is |x|: the exponential of a logit and of its negative is the same one."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.abs.default):
        inner = node.args[0]
        if inner.target is torch.ops.aten.neg.default:
            node.args = inner.args
    graph.recompile()


def _log1p(x: Tensor) -> Tensor:
    """log(1+x) for x in [0, 1]: 2 artanh(x / (2+x)), in float32 to two units in the last place."""
    if x.dtype == torch.float64:
        return torch.log1p(x)
    ratio = x / (2 + x)
    square = ratio * ratio
    series = torch.full_like(x, 0.23239050535068312)
    for coefficient in (0.2170331500852329, 0.2859258341443817, 0.3999970135629409, 0.6666666733761366):
        series = series * square + coefficient
    return 2 * ratio + ratio * square * series


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.sigmoid.default: _sigmoid,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.softplus_backward.default: _softplus_backward,
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid,
    torch.ops.aten.log_sigmoid_backward.default: _log_sigmoid_backward,
}
