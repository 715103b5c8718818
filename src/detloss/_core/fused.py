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

import atexit
import ctypes
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _device

from detloss._core.dtypes import arithmetic_dtype
from detloss._core.passes import Form, build

IMPLS = ("auto", "eager", "compile")

AUTO_ELEMENTS = {"cpu": 2**15, "cuda": 2**15}
"""From how many elements on "auto" compiles, by device type; never on others.

The fused pass is faster at any size (docs/speed.md), so smaller calls take it too once it is there; but what
it saves them does not pay for the seconds of compiling.
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
    for tensor subclasses the formula itself is run: there it is traced, or has to be seen.
    `constants` are the arguments that get no gradient from the fused pass.
    """
    check_impl(impl)
    if impl == "eager" or torch.compiler.is_compiling():
        return False
    if impl == "auto" and _small(inputs) and name not in _passes:
        return False
    first = inputs[0]
    if first.device.type not in AUTO_ELEMENTS:
        if impl == "compile":
            raise ValueError(f'impl="compile" is for CPU and CUDA tensors, not {first.device}; pass "auto"')
        return False
    if first.dtype not in _DTYPES or not first.numel() or _intercepted(inputs):
        return False
    # Triton indexes what was compiled with 32 bits
    if first.device.type == "cuda" and first.numel() >= 2**31:
        return False
    if impl == "auto" and first.device.type in _broken and not _passes:
        return False
    for name, values in constants.items():
        if isinstance(values, Tensor) and values.requires_grad and torch.is_grad_enabled():
            if impl == "compile":
                raise ValueError(
                    f'{name} requires grad and the fused pass gives it none: pass impl="eager", or '
                    f"{name}.detach()"
                )
            return False
    return True


def _small(inputs: tuple[Tensor, ...]) -> bool:
    least = AUTO_ELEMENTS.get(inputs[0].device.type, math.inf)
    return sum(tensor.numel() for tensor in inputs) < least


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _intercepted(inputs: tuple[Tensor, ...]) -> bool:
    """Whether tensors are of a subclass, or a transform, forward-mode derivative or mode is active."""
    return (
        any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in inputs)
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > (_device.CURRENT_DEVICE is not None)  # a default device
    )


def fused(
    name: str,
    formula: Callable[..., Tensor],
    inputs: Sequence[Operand],
    constants: Mapping[str, Operand],
    *,
    fixed: Mapping[str, object],
    again: Callable[[], Tensor],
    arguments: tuple[Tensor, ...],
    others: Iterable[object],
    shape: torch.Size,
    dtype: torch.dtype,
    scale: float | Tensor | None,
    reduced: int | None = None,
    exponents: Mapping[str, float | Tensor] | None = None,
    usual: Mapping[str, float] | None = None,
    unit: str | None = None,
    check: Callable[[], None] | None = None,
    impl: str = "auto",
) -> Tensor | None:
    """`formula(*inputs, **constants, **exponents, **fixed)` in one pass, with the gradients of `inputs`.

    Args:
        name: what the loss is called in messages.
        formula: a pure function of tensors, its `inputs` in float32 (float64); gives one loss per element or
            per row.
        inputs: what gets a gradient, contiguous.
        constants: all other tensors.
        fixed: arguments that are no tensors, hashable; for each choice of them another pass is compiled.
        again: the eager expression of the whole result, for second derivatives with respect to `arguments`.
        arguments: the caller's tensors that `inputs` are views of, in the same order.
        others: what else `again` depends on; may hold tensors.
        shape: of the loss where `scale` is None.
        dtype: of the result.
        scale: None for the loss of each element, a number for their sum times this number.
        reduced: the dimension of the arguments that the loss does not have, if there is one.
        exponents: hyperparameters whose defaults, `usual`, have a loop of their own.
        unit, check: a constant that must lie in [0, 1], looked at on the way on a CPU; where it does not,
            `check` is called to say so.
        impl: "auto" or "compile".

    Returns:
        The loss; None where impl is "auto" and there is no way to compile, which is said once.

    Raises:
        RuntimeError: impl is "compile" and there is no way to compile.
    """
    exponents, usual = exponents or {}, usual or {}
    with_gradient = torch.is_grad_enabled()
    needed = tuple(with_gradient and argument.requires_grad for argument in arguments)
    first = arguments[0]
    compute = arithmetic_dtype(first.dtype)
    constants = dict(constants)
    if scale is not None:
        constants["scale"] = scalar(scale, compute, first.device)
    as_usual = bool(usual) and all(type(value) is not Tensor for value in exponents.values())
    as_usual = as_usual and first.device.type == "cpu" and exponents == usual
    if not as_usual:
        constants |= {key: scalar(value, compute, first.device) for key, value in exponents.items()}
    if first.device.type != "cpu":
        unit = None
    _check_sizes((*inputs, *constants.values()))
    form = Form(
        name,
        formula,
        tuple(fixed.items()),
        tuple((dims, values.dtype, grad) for (values, dims), grad in zip(inputs, needed)),
        tuple((key, dims, values.dtype, values.device) for key, (values, dims) in constants.items()),
        dtype,
        first.device,
        tuple(usual.items()) if as_usual else (),
        unit,
    )
    run = _passes.get(name, {}).get(form)
    if run is None:
        if impl == "auto" and _small(arguments):
            return None
        run = _compile(form, usual, impl)
        if run is None:
            return None
    tensors = [operand.values.detach().resolve_neg() for operand in (*inputs, *constants.values())]

    serial = first.device.type == "cpu" and _small(arguments)

    def once() -> tuple[Tensor, ...]:
        value, *rest = _alone(run, tensors) if serial else run(*tensors)
        if unit and check and not rest.pop(0) <= 0.5 + 1e-3:
            check()
        return value, *rest

    if any(needed):
        watched = (*arguments, *(value for value in others if isinstance(value, Tensor)))
        value = _Fused.apply(once, again, watched, needed, reduced, *arguments)
    else:
        value = once()[0]
    # Outside of the function: autograd brings the upstream gradient back to the shape that the pass has, and
    # the result may be changed in place, which a view made inside may not.
    return value if scale is not None or value.shape == shape else value.view(shape)


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
    def forward(
        ctx: Any,
        once: Callable,
        again: Callable,
        watched: tuple[Tensor, ...],
        needed: tuple[bool, ...],
        reduced: int | None,
        *arguments: Tensor,
    ) -> Tensor:
        value, *gradients = once()
        ctx.save_for_backward(*gradients)
        ctx.again, ctx.arguments, ctx.reduced = again, arguments, reduced
        ctx.versions = [(tensor, tensor._version) for tensor in watched if not tensor.is_inference()]
        ctx.kept = [
            (argument.shape, argument.dtype) if need else None for argument, need in zip(arguments, needed)
        ]
        return value

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        if torch.is_grad_enabled():
            return None, None, None, None, None, *_second(ctx, output_gradient)
        shared = torch._C._autograd._get_current_graph_task_keep_graph()
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(
            output_gradient
        ) or torch._C._functorch.is_legacy_batchedtensor(output_gradient)
        if ctx.reduced is not None and output_gradient.ndim:
            output_gradient = output_gradient.unsqueeze(ctx.reduced)
        # A look at a number on the CPU is free and spares a pass over the gradient.
        is_one = (
            not wrapped
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
            elif shared or wrapped:
                # expanded to the gradient, so that a product can never be larger than it
                gradient = gradient * output_gradient.expand(gradient.shape)
            else:
                gradient = gradient.mul_(output_gradient)
            results.append(gradient.to(dtype).view(shape))
        if not shared:
            ctx.again = ctx.arguments = ctx.versions = None
        return None, None, None, None, None, *results


def _second(ctx: Any, output_gradient: Tensor) -> list[Tensor | None]:
    """The gradients as functions of the arguments, for derivatives of derivatives."""
    if any(tensor._version != version for tensor, version in ctx.versions):
        raise RuntimeError(
            "an argument of the loss was changed in place since: its second derivative cannot be taken; "
            "pass a clone to the loss"
        )
    loss = ctx.again()
    output_gradient = output_gradient.reshape(loss.shape)
    wanted = [argument for argument, kept in zip(ctx.arguments, ctx.kept) if kept is not None]
    found = iter(
        torch.autograd.grad(loss, wanted, output_gradient, create_graph=True, materialize_grads=True)
    )
    return [None if kept is None else next(found) for kept in ctx.kept]


_passes: dict[str, dict[Form, Callable[..., Any]]] = {}  # by the name of the loss
_broken: dict[str | Form, str] = {}  # device types without a compiler, forms that cannot be compiled: why
_lock = threading.Lock()


class _Worker:
    """Compiles in a thread of its own, where none of the caller's modes are (autocast, inference, hooks).

    Always the same one, or torch 2.11 crashes. A daemon, unlike those of an executor: a program that is
    interrupted, or ends, does not wait for a compiler.
    """

    SECONDS_AT_EXIT = 1.0

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Future[Any], Form]] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.idle = threading.Event()

    def build(self, form: Form) -> Callable[..., Any]:
        if self.thread is None:
            self.thread = threading.Thread(target=self._serve, name="detloss compiles", daemon=True)
            self.thread.start()
            atexit.register(self._stop)
        done: Future[Any] = Future()
        self.idle.clear()
        self.jobs.put((done, form))
        return done.result()

    def _serve(self) -> None:
        while True:
            self.idle.set()
            done, form = self.jobs.get()
            try:
                done.set_result(build(form))
            except BaseException as error:
                done.set_exception(error)

    def _stop(self) -> None:
        """End what is being compiled: a daemon that still runs torch's code while Python ends aborts it."""
        if self.thread is not None and self.thread.is_alive() and not self.idle.is_set():
            thread, error = ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
            self.idle.wait(self.SECONDS_AT_EXIT)


_worker = _Worker()


def _after_fork() -> None:
    """A lock and a thread of the parent's may never come back; and what it compiled, its child cannot."""
    global _lock, _worker
    _lock, _worker = threading.Lock(), _Worker()
    if _passes:
        reason = "this process was forked after its parent had compiled; start it with spawn or forkserver"
        _broken.update({device: reason for device in AUTO_ELEMENTS})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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


def _compile(form: Form, usual: Mapping[str, float], impl: str) -> Callable[..., Any] | None:
    """The pass for a form, and the one for its other exponents, so that no later call has to wait."""
    with _lock:
        run = _passes.get(form.name, {}).get(form)
        if run is not None:
            return run
        reason = _broken.get(form.device.type) or _broken.get(form)
        if reason is None:
            siblings = _siblings(form, usual)
            try:
                built = {each: _worker.build(each) for each in siblings}
            except Exception as error:
                reason, ours = _why(error, form)
                said = any(isinstance(known, Form) and _written(known) is _written(form) for known in _broken)
                _broken.update(dict.fromkeys([form.device.type] if ours else siblings, reason))
                if impl == "auto" and not said:
                    warnings.warn(f'{reason}; the loss runs eagerly. impl="eager" says nothing', stacklevel=5)
            else:
                _passes.setdefault(form.name, {}).update(built)
                return built[form]
    if impl == "auto":
        return None
    raise RuntimeError(f'{reason}; or pass impl="eager"')


def _written(form: Form) -> Callable[..., Tensor]:
    """The formula as somebody wrote it."""
    return dict(form.fixed).get("formula", form.formula)  # type: ignore[return-value]


def _siblings(form: Form, usual: Mapping[str, float]) -> list[Form]:
    if not usual or form.device.type != "cpu":
        return [form]
    compute = arithmetic_dtype(form.inputs[0][1])
    numbers = tuple((name, "", compute, form.device) for name in usual)
    fixed = tuple(constant for constant in form.constants if constant[0] not in usual)
    return [
        form._replace(constants=fixed, usual=tuple(usual.items())),
        form._replace(constants=fixed + numbers, usual=()),
    ]


def _why(error: Exception, form: Form) -> tuple[str, bool]:
    """Why a pass could not be compiled, and whether none can be on this device: there is no compiler."""
    from torch._inductor.exc import InvalidCxxCompiler

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InvalidCxxCompiler):
            return (
                "no C++ compiler was found to compile the loss: install one (Debian and Ubuntu: apt install "
                "g++; conda: conda install gxx) or name it in the environment variable CXX"
            ), True
        cause = cause.__cause__ or cause.__context__
    first_line = str(error).strip().split("\n")[0]
    where = f"on {form.device.type}"
    return f"{form.name} could not be compiled {where} ({type(error).__name__}: {first_line})", False
