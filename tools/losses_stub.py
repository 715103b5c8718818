"""Writes src/detloss/losses/__init__.pyi: the losses for type checkers, editors and the site of docs/.

A loss is made from its formula by a decorator, which a tool that only reads the code cannot follow. Its
signature and its docstring are known when the package is imported: `make stub` writes them down, and a test
says when the file is out of date.
"""

import inspect
import textwrap
from pathlib import Path

from detloss import losses

FILE = Path(losses.__file__).with_suffix(".pyi")
HEAD = '''"""Signatures and docstrings of the losses, written by tools/losses_stub.py: do not edit."""

from collections.abc import Sequence

from torch import Tensor, nn
'''


def stub() -> str:
    """The text of the file."""
    public = {name: getattr(losses, name) for name in losses.__all__}
    functions = [function(name, value) for name, value in public.items() if inspect.isfunction(value)]
    modules = [module(name, value) for name, value in public.items() if inspect.isclass(value)]
    names = ", ".join(f'"{name}"' for name in public)
    return "\n".join([HEAD, *functions, *modules, f"__all__ = [{names}]\n"])


def module(name: str, of: type) -> str:
    """One Module: how it is made, and how it is called."""
    made = signature("__init__", of.__init__, "None")
    called = signature("__call__", of.forward) + function("forward", of.forward)
    others = [key for key, value in vars(of).items() if isinstance(value, classmethod)]
    others = ["@classmethod\n" + function(key, vars(of)[key].__func__, name) for key in others]
    body = f"{docstring(of)}\n" + "".join([made, called, *others])
    return f"class {name}(nn.Module):\n" + textwrap.indent(body, "    ")


def function(name: str, of: object, result: str = "Tensor") -> str:
    """One function: its signature and its docstring."""
    text = textwrap.indent(docstring(of), "    ")
    return signature(name, of, result).replace(" ...\n", f"\n{text}")


def docstring(of: object) -> str:
    """The docstring of a function or a class, as it is written."""
    text = inspect.getdoc(of) or ""
    return f'"""{text}"""\n' if "\n" not in text else f'"""{text}\n"""\n'


def signature(name: str, function: object, result: str = "Tensor") -> str:
    """One function, a parameter a line."""
    lines, named = [], False
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and not named:
            named = True
            lines.append("    *,\n")
        lines.append(
            f"    {parameter},\n".replace("torch.Tensor", "Tensor")
            .replace("torch.nn.modules.loss", "nn")
            .replace("collections.abc.", "")
        )
    return f"def {name}(\n{''.join(lines)}) -> {result}: ...\n".replace("detloss.losses.bce.", "")


if __name__ == "__main__":
    FILE.write_text(stub(), encoding="utf-8")
