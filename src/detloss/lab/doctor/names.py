"""Names that a snippet uses and nowhere defines: bound in their usual meaning when running it meets one."""

import traceback
from dataclasses import dataclass, field
from typing import Any

from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.source import Source

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
"""The line that is missing, by name."""


@dataclass
class Names:
    """The names of one file: its module's, and those that were bound for it.

    Attributes:
        source: of the file; None for a module that was imported by name, in which nothing is bound.
        space: the names of the module.
        constants: names that stand for a number here, such as eps.
        findings: one for each name.
    """

    source: Source | None
    space: dict[str, Any] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    bound: dict[str, Any] = field(default_factory=dict)

    def bind(self, error: NameError) -> bool:
        """Binds the name that was not defined; False where its meaning is not known."""
        frames = list(traceback.walk_tb(error.__traceback__))
        name, source = error.name, self.source
        if (
            isinstance(error, UnboundLocalError)
            or not name
            or source is None
            or not frames
            or name in self.bound
        ):
            return False
        frame, line = frames[-1]
        if frame.f_globals is not self.space:
            return False
        own = frame.f_locals.get("self")
        if name in USUAL:
            made: dict[str, Any] = {}
            exec(USUAL[name], made)
            value, finding = (
                made[name],
                found("undefined, usual", source.at(line), name=name, line=USUAL[name]),
            )
            if "=" in USUAL[name]:
                self.constants.append(name)
        elif own is not None and f"super({name}" in source.at(line):
            value = type(own)
            finding = found("wrong super", source.at(line), name=name, owner=value.__name__)
        else:
            return False
        self.bound[name] = self.space[name] = value
        self.findings.append(finding)
        return True
