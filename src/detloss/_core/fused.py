"""How a formula is run: eagerly under autograd, or as one fused pass for value and gradient.

A loss is a function of tensors, written once. `impl="eager"` calls it and lets autograd do the rest: a dozen
passes over memory and as many buffers kept. `impl="compile"` traces the function together with its gradient,
compiles both into one loop (Inductor: C++ on a CPU, Triton on a GPU) and keeps nothing but the gradient for
the backward pass (of boxes also their columns, which it is made of). `impl="auto"` takes the fused pass from
`AUTO_ELEMENTS` elements on.

One pass is compiled per function, dtypes, form of the arguments and reduction, never per size or
hyperparameter: sizes are symbols, numbers are 0-dim tensors. Only exponents have a second loop, for the
loss's own default, compiled along with the first: a constant square costs a product, any other power costs
more than all the rest of the loss.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detloss._core import compiler
from detloss._core.dtypes import arithmetic_dtype
from detloss._core.passes import MEAN_SCALE, Form
from detloss._core.private import graph_is_kept, is_batched_gradient, is_intercepted
from detloss._core.reductions import mean_scale

IMPLS = ("auto", "eager", "compile")

AUTO_ELEMENTS = {"cpu": 2**15, "cuda": 2**15}
"""From how many elements on "auto" compiles, by device type; never on others.

The fused pass is faster at any size (docs/speed.md), so smaller calls use it once it exists; for them alone
it would not be worth the seconds of compiling.
"""


class Operand(NamedTuple):
    """A tensor and the names of its dimensions: a letter for each size, a digit for a fixed one."""

    values: Tensor
    dims: str


def check_impl(impl: str) -> None:
    """ValueError unless impl is "auto", "eager" or "compile"."""
    if impl not in IMPLS:
        raise ValueError(f"impl is {impl!r}; it may be one of {', '.join(map(repr, IMPLS))}")


def fusable(impl: str, name: str, inputs: tuple[Tensor, ...], constants: Mapping[str, object]) -> bool:
    """Whether the loss of this name may take the fused pass; ValueError where that would be wrong.

    Inside the caller's `torch.compile`, `torch.func` transforms, forward-mode derivatives, dispatch modes and
    for tensor subclasses the formula itself is run: there it is traced, or must not be hidden.
    `constants` are the arguments that get no gradient from the fused pass.
    """
    check_impl(impl)
    if impl == "eager" or torch.compiler.is_compiling():
        return False
    if impl == "auto" and _small(inputs) and name not in compiler.passes:
        return False
    first = inputs[0]
    if first.device.type not in AUTO_ELEMENTS:
        if impl == "compile":
            raise ValueError(
                f'impl is "compile", which is for CPU and CUDA tensors, not {first.device}; pass "auto"'
            )
        return False
    if first.dtype not in _DTYPES or not first.numel() or is_intercepted(inputs):
        return False
    # Triton indexes what was compiled with 32 bits
    if first.device.type == "cuda" and first.numel() >= 2**31:
        return False
    if impl == "auto" and first.device.type in compiler.broken and not compiler.passes:
        return False
    for name, values in constants.items():
        if isinstance(values, Tensor) and values.requires_grad and torch.is_grad_enabled():
            if impl == "compile":
                raise ValueError(
                    f'{name} requires grad, and the fused pass gives it none; pass impl="eager", or '
                    f"{name}.detach()"
                )
            return False
    return True


def _small(inputs: tuple[Tensor, ...]) -> bool:
    least = AUTO_ELEMENTS.get(inputs[0].device.type, math.inf)
    return sum(tensor.numel() for tensor in inputs) < least


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(slots=True)
class Call:
    """A call of a loss, as the fused pass needs it: `formula(*inputs, **constants, **exponents, **fixed)`.

    Attributes:
        name: what the loss is called in messages.
        formula: a pure function of tensors, its `inputs` in float32 (float64); gives one loss per element or
            per row.
        inputs: what gets a gradient, contiguous.
        constants: all other tensors.
        fixed: arguments that are not tensors, hashable; for each choice of them another pass is compiled.
        arguments: the caller's tensors that `inputs` are views of, in the same order.
        again: the eager expression of the whole result, for second derivatives with respect to `arguments`.
        others: what else `again` depends on; may hold tensors.
        shape: of the loss for the reduction "none".
        dtype: of the result.
        reduction: "none", "sum" or "mean".
        count: what a mean divides by.
        reduced: the dimension of the inputs that the loss does not have, if there is one.
        exponents: hyperparameters whose defaults, `usual`, have a loop of their own.
        unit: a constant that must lie in [0, 1], which the pass itself checks on a CPU.
        check: called where it does not; it raises.
        impl: "auto" or "compile".
    """

    name: str
    formula: Callable[..., Tensor]
    inputs: Sequence[Operand]
    constants: dict[str, Operand]
    fixed: Mapping[str, object]
    arguments: tuple[Tensor, ...]
    again: Callable[[], Tensor]
    others: Iterable[object]
    shape: torch.Size
    dtype: torch.dtype
    reduction: str
    count: int | Tensor
    impl: str
    reduced: int | None = None
    exponents: Mapping[str, float | Tensor] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)
    unit: str | None = None
    check: Callable[[], None] = lambda: None


def fused(call: Call) -> Tensor | None:
    """The loss of a call in one pass, with the gradients of its inputs.

    Returns:
        The loss; None where impl is "auto" and nothing can be compiled here; a warning says so once.

    Raises:
        RuntimeError: impl is "compile" and nothing can be compiled here.
    """
    first, constants, exponents, usual = call.arguments[0], call.constants, call.exponents, call.usual
    on_cpu = first.device.type == "cpu"
    with_gradient = torch.is_grad_enabled()
    needed = tuple(with_gradient and argument.requires_grad for argument in call.arguments)
    compute = arithmetic_dtype(first.dtype)
    scale = mean_scale(call.reduction, call.count, first)
    if scale is not None:
        constants[MEAN_SCALE] = scalar(scale, compute, first.device)
    as_usual = bool(usual) and all(type(value) is not Tensor for value in exponents.values())
    as_usual = as_usual and on_cpu and exponents == usual
    if not as_usual:
        constants |= {key: scalar(value, compute, first.device) for key, value in exponents.items()}
    unit = call.unit if on_cpu else None
    _check_sizes((*call.inputs, *constants.values()))
    form = Form(
        call.name,
        call.formula,
        tuple(call.fixed.items()),
        tuple((dims, values.dtype, grad) for (values, dims), grad in zip(call.inputs, needed)),
        tuple((key, dims, values.dtype, values.device) for key, (values, dims) in constants.items()),
        call.dtype,
        first.device,
        tuple(usual.items()) if as_usual else (),
        unit,
    )
    run = compiler.passes.get(call.name, {}).get(form)
    if run is None:
        if call.impl == "auto" and _small(call.arguments):
            return None
        run = compiler.find_pass(form, usual, call.impl)
        if run is None:
            return None
    tensors = [operand.values.detach().resolve_neg() for operand in (*call.inputs, *constants.values())]
    serial = on_cpu and _small(call.arguments)

    def once() -> tuple[Tensor, ...]:
        value, *rest = _alone(run, tensors) if serial else run(*tensors)
        if unit and not rest.pop(0) <= 0.5 + 1e-3:
            call.check()
        return value, *rest

    value = _Fused.apply(once, call, needed, *call.arguments) if any(needed) else once()[0]
    # Outside of the function: autograd brings the upstream gradient back to the shape that the pass has, and
    # the result may be changed in place, which a view made inside may not.
    return value if scale is not None or value.shape == call.shape else value.view(call.shape)


def _check_sizes(operands: Iterable[Operand]) -> None:
    """ValueError where a letter stands for two sizes: the pass would read beyond the end of one of them."""
    sizes: dict[str, int] = {}
    for values, dims in operands:
        for dim, size in zip(dims, values.shape, strict=True):
            if sizes.setdefault(dim, int(dim) if dim.isdigit() else size) != size:
                raise ValueError(f"dimension {dim} of a compiled pass has the sizes {sizes[dim]} and {size}")


def _alone(run: Callable[..., Any], tensors: list[Tensor]) -> Any:
    """Run a small pass in this thread: waking the others takes longer, and they then spin for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(*tensors)
    finally:
        torch.set_num_threads(threads)


class _Fused(torch.autograd.Function):
    """The value now, the gradient kept for the backward pass: that and nothing else.

    The arguments of the call are referred to, not copied, until the backward pass: a second derivative, which
    the kept gradient does not have, is taken from the eager expression.
    """

    @staticmethod
    def forward(ctx: Any, once: Callable, call: Call, needed: tuple[bool, ...], *arguments: Tensor) -> Tensor:
        value, *gradients = once()
        ctx.save_for_backward(*gradients)
        ctx.again, ctx.arguments, ctx.reduced = call.again, arguments, call.reduced
        watched = (*arguments, *(other for other in call.others if isinstance(other, Tensor)))
        ctx.versions = [(tensor, tensor._version) for tensor in watched if not tensor.is_inference()]
        ctx.kept = [
            (argument.shape, argument.dtype) if need else None for argument, need in zip(arguments, needed)
        ]
        return value

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        if torch.is_grad_enabled():
            return None, None, None, *_second(ctx, output_gradient)
        shared, batched = graph_is_kept(), is_batched_gradient(output_gradient)
        if ctx.reduced is not None and output_gradient.ndim:
            output_gradient = output_gradient.unsqueeze(ctx.reduced)
        # A look at a number on the CPU is free and spares a pass over the gradient.
        is_one = (
            not batched
            and not output_gradient.ndim
            and output_gradient.device.type == "cpu"
            and output_gradient.item() == 1
        )
        results: list[Tensor | None] = []
        for kept in ctx.kept:
            if kept is None:
                results.append(None)
                continue
            shape, dtype = kept
            gradient = next(gradients)
            if is_one:
                # whoever keeps the graph may come back for it, and the caller may change what it gets
                gradient = gradient.clone() if shared and gradient.dtype == dtype else gradient
            elif shared or batched:
                # expanded to the gradient, so that a product can never be larger than it
                gradient = gradient * output_gradient.expand(gradient.shape)
            else:
                gradient = gradient.mul_(output_gradient)
            results.append(gradient.to(dtype).view(shape))
        if not shared:
            ctx.again = ctx.arguments = ctx.versions = None
        return None, None, None, *results


def _second(ctx: Any, output_gradient: Tensor) -> list[Tensor | None]:
    """The gradients as functions of the arguments, for derivatives of derivatives."""
    if any(tensor._version != version for tensor, version in ctx.versions):
        raise RuntimeError(
            "an argument of the loss was changed in place after the call, so its second derivative cannot be "
            "computed; pass a clone to the loss"
        )
    loss = ctx.again()
    output_gradient = output_gradient.reshape(loss.shape)
    wanted = [argument for argument, kept in zip(ctx.arguments, ctx.kept) if kept is not None]
    found = iter(
        torch.autograd.grad(loss, wanted, output_gradient, create_graph=True, materialize_grads=True)
    )
    return [None if kept is None else next(found) for kept in ctx.kept]


def scalar(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Operand:
    """A number, or a tensor of no dimensions as it is now, as an operand."""
    if isinstance(value, Tensor):
        return Operand(value.to(device, dtype, non_blocking=True), "")
    return Operand(_number(value, dtype, device), "")


@lru_cache(1024)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a 0-dim tensor, which a compiled pass takes without being compiled again."""
    # filled there: a copy to a GPU would synchronise
    return torch.full((), value, dtype=dtype, device=device)
