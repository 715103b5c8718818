"""The compiled passes of this process: made once for each form of the arguments, by a thread of their own."""

import atexit
import ctypes
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from detloss._core.dtypes import arithmetic_dtype
from detloss._core.passes import Form, build
from detloss._core.private import CAN_FUSE, FUSED_TORCH, is_missing_compiler

DEVICES = ("cpu", "cuda")
"""Device types that a pass can be compiled for."""

SECONDS_TOLD = 1.0
"""A first compilation of at least so long is told once, since it stands in the way of a call."""

passes: dict[str, dict[Form, Callable[..., Any]]] = {}
"""What has been compiled, by the name of the loss."""

broken: dict[str | Form, str] = {}
"""Device types without a compiler, and forms that could not be compiled: why."""

_logger = logging.getLogger("detloss")
_lock = threading.Lock()


def find_pass(form: Form, usual: Mapping[str, float], impl: str) -> Callable[..., Any] | None:
    """The pass for a form, compiled if it is not there, with the one for its other exponents.

    Args:
        form: of the arguments.
        usual: the exponents that have a pass of their own: a later call with others must not wait.
        impl: "auto" or "compile".

    Returns:
        The pass; None where impl is "auto" and it cannot be compiled, of which a warning tells once per loss.

    Raises:
        RuntimeError: impl is "compile" and it cannot be compiled.
    """
    with _lock:
        run = passes.get(form.name, {}).get(form)
        if run is not None:
            return run
        reason = broken.get(form.device.type) or broken.get(form)
        if reason is None:
            siblings = _siblings(form, usual)
            began = time.perf_counter()
            try:
                if not CAN_FUSE:
                    raise _TooOld
                built = {each: _worker.build(each) for each in siblings}
            except Exception as error:
                reason, everywhere = _why(error, form)
                said = any(isinstance(known, Form) and _written(known) is _written(form) for known in broken)
                broken.update(dict.fromkeys(DEVICES if everywhere else siblings, reason))
                if impl == "auto" and not said:
                    warnings.warn(
                        f'{reason}; the loss runs eagerly; pass impl="eager" to silence this warning',
                        stacklevel=5,
                    )
            else:
                if impl == "auto" and not passes and time.perf_counter() - began > SECONDS_TOLD:
                    _logger.warning(
                        'compiled %s in %.0f s: each loss is compiled once per process; impl="eager" never '
                        "waits, detloss.precompile does it ahead",
                        form.name,
                        time.perf_counter() - began,
                    )
                passes.setdefault(form.name, {}).update(built)
                return built[form]
    if impl == "auto":
        return None
    raise RuntimeError(f'{reason}; or pass impl="eager"')


class _TooOld(Exception):
    pass


def _why(error: Exception, form: Form) -> tuple[str, bool]:
    """Why a pass could not be compiled, and whether the reason is that no loss can be."""
    if isinstance(error, _TooOld):
        needed = ".".join(map(str, FUSED_TORCH))
        return f"the fused pass needs torch {needed} or newer, and this is torch {torch.__version__}", True
    if any(map(is_missing_compiler, _causes(error))):
        return (
            "no C++ compiler was found to compile the loss: install one (Debian and Ubuntu: apt install "
            "g++; conda: conda install gxx) or name it in the environment variable CXX"
        ), True
    first_line = str(error).strip().split("\n")[0]
    where = f"on {form.device.type}"
    return f"{form.name} could not be compiled {where} ({type(error).__name__}: {first_line})", False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _written(form: Form) -> Callable[..., Tensor]:
    """The formula without the decorators around it."""
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


class _Worker:
    """Compiles in a thread of its own, where none of the caller's modes are (autocast, inference, hooks).

    Always the same one, or torch 2.11 crashes. A daemon, unlike those of an executor: a program that is
    interrupted, or ends, does not wait for a compiler.
    """

    SECONDS_AT_EXIT = 5.0  # on a busy machine; else a fraction of a second

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
                try:
                    built = build(form)
                except Exception as error:
                    # Torch's cache is shared: another process may still be writing the library.
                    if not any(isinstance(cause, ImportError) for cause in _causes(error)):
                        raise
                    time.sleep(1)
                    built = build(form)
                done.set_result(built)
            except BaseException as error:
                done.set_exception(error)

    def _stop(self) -> None:
        """Stop a compilation: a daemon thread that is in torch's code as Python ends would abort it."""
        if self.thread is not None and self.thread.is_alive() and not self.idle.is_set():
            thread, error = ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
            self.idle.wait(self.SECONDS_AT_EXIT)


_worker = _Worker()


def _after_fork() -> None:
    """After a fork: forget the parent's lock and thread, which do not exist in the child."""
    global _lock, _worker
    _lock, _worker = threading.Lock(), _Worker()
    if passes:
        reason = "this process was forked after its parent had compiled; start it with spawn or forkserver"
        broken.update(dict.fromkeys(DEVICES, reason))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
