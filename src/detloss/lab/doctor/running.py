"""Running anybody's code here: a GPU is the CPU, names that it lacks are bound, and its lines are told."""

import builtins
import functools
import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.source import Source, line_at

_PACKAGE, _DOCTOR = str(Path(__file__).parents[2]), str(Path(__file__).parent)
USUAL = {
    **{name: f"import {name}" for name in ("torch", "math", "numpy", "warnings", "functools", "typing")},
    "nn": "import torch.nn as nn",
    "F": "import torch.nn.functional as F",
    "np": "import numpy as np",
    "Variable": "from torch.autograd import Variable",
    "Tensor": "from torch import Tensor",
    "Module": "from torch.nn import Module",
    "Function": "from torch.autograd import Function",
    "partial": "from functools import partial",
    "pi": "from math import pi",
    **{
        name: f"from typing import {name}"
        for name in ("Optional", "Union", "List", "Tuple", "Dict", "Any", "Callable", "Literal", "Sequence")
    },
    **{name: f"{name} = 1e-7" for name in ("eps", "EPS", "epsilon")},
}
"""Names in their usual meaning: the line that is missing."""


class Names(dict[str, Any]):
    """The builtins of a file's module: a name that is defined nowhere else is bound here when it is met.

    Attributes:
        source: of the file; None for a module that was imported by name, in which nothing is bound.
        findings: takes one for each name, and for each line that asks for a GPU.
        constants: names that stand for a number here, such as eps.
    """

    def __init__(self, source: Source | None, findings: dict[Finding, None]) -> None:
        super().__init__(vars(builtins))
        self.source, self.findings, self.constants = source, findings, list[str]()

    def __missing__(self, name: str) -> Any:
        frame = sys._getframe(1)
        line, own = line_at(frame.f_code.co_filename, frame.f_lineno), type(frame.f_locals.get("self"))
        if name in USUAL:
            made: dict[str, Any] = {}
            exec(USUAL[name], made)
            self[name] = made[name]
            if "=" in USUAL[name]:
                self.constants.append(name)
            finding = found("undefined, usual", line, name=name, line=USUAL[name])
        elif f"super({name}" in line:
            self[name] = own
            finding = found("wrong super", line, name=name, owner=own.__name__)
        else:
            raise KeyError(name)
        self.findings.setdefault(finding)
        return self[name]


class OnCpu(TorchFunctionMode):
    """Takes every request for a GPU as one for the CPU, and notes the line that asks."""

    def __init__(self, findings: dict[Finding, None]) -> None:
        super().__init__()
        self.findings = findings

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls `func` with devices that are there."""
        kwargs = kwargs or {}
        if func is Tensor.cuda or any(_is_gpu(value) for value in (*args, *kwargs.values())):
            self.findings.setdefault(found("asks for a gpu", running_line()))
            if func is Tensor.cuda:
                return args[0]
            args = tuple("cpu" if _is_gpu(value) else value for value in args)
            kwargs = {key: "cpu" if _is_gpu(value) else value for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _is_gpu(value: Any) -> bool:
    return isinstance(value, str | torch.device) and str(value).split(":")[0] == "cuda"


def _on_gpu(kind: Any, *args: Any) -> Tensor:
    return kind(*args).cuda()


GPU_TYPES = {
    name: functools.partial(_on_gpu, getattr(torch, name))
    for name in dir(torch.cuda)
    if name.endswith("Tensor")
}
"""What may stand for `torch.cuda.FloatTensor` and the like, where there is no GPU."""


def user_frame(frames: Iterable[tuple[types.FrameType, int]]) -> tuple[str, int]:
    """The first that is neither this package's nor a library's; else the first that is not the doctor's."""
    other = "", 0
    for frame, line in frames:
        file = frame.f_code.co_filename
        if not file.startswith((_PACKAGE, sys.base_prefix, sys.prefix, "<")):
            return file, line
        if not other[0] and not file.startswith((_DOCTOR, "<")) and "_ops" not in file:
            other = file, line
    return other


def frame_of_error(error: BaseException) -> tuple[str, int]:
    """File and line that raised, the user's own where there is one."""
    return user_frame(reversed([*traceback.walk_tb(error.__traceback__)]))


def line_of_error(error: BaseException) -> str:
    """That line, for a finding."""
    file, line = frame_of_error(error)
    return line_at(file, line) if file else "no line known"


def seen_at(error: BaseException) -> str:
    """That line, and the exception in brackets."""
    return f"{line_of_error(error)} ({in_a_line(error)})"


def running_line() -> str:
    """The line of the user's that is running; where there is none, the innermost that is not the doctor's."""
    file, line = user_frame(traceback.walk_stack(sys._getframe(1)))
    return line_at(file, line) if file else "no line known"


def in_a_line(error: BaseException) -> str:
    """An exception as a line of text."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code})"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
