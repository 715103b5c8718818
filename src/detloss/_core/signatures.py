"""The signature of a loss, made from that of its formula: what `elementwise_loss` and `box_loss` share."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor

POSITIONAL = Parameter.POSITIONAL_OR_KEYWORD


def hyperparameters(
    formula: Callable[..., Tensor],
    of: str,
    named: Iterable[str],
    taken: Iterable[str],
    given: Iterable[str] = (),
) -> dict[str, Parameter]:
    """The parameters of a formula after its first two.

    Args:
        formula: a user's function.
        of: what its first two parameters are, for messages.
        named: hyperparameters that it must have.
        taken: names that every loss has or needs.
        given: names without a default, which the loss fills in itself.

    Raises:
        ValueError: it cannot be a formula.
    """
    if not inspect.isfunction(formula):
        raise ValueError(f"formula is {formula!r}; it must be a function, written with def")
    parameters = list(inspect.signature(formula).parameters.values())
    asked = {parameter.name: parameter for parameter in parameters[2:]}
    reason = None
    if len(parameters) < 2 or any(parameter.kind is not POSITIONAL for parameter in parameters[:2]):
        reason = f"does not take {of}"
    for name, parameter in asked.items():
        if name in taken:
            reason = f"has a hyperparameter {name}, a name that every loss has or needs"
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            reason = f"takes *{name}; hyperparameters have names"
        elif parameter.default is parameter.empty and name not in given:
            reason = f"has a hyperparameter {name} without a default"
    for name in named:
        if name not in asked:
            reason = f"has no hyperparameter {name}"
    if reason:
        raise ValueError(f"{formula.__name__} {reason}; a formula is f({of}, hyper=default, ...)")
    return asked


def positional(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Those that may be given without their name."""
    return [parameter for parameter in parameters if parameter.kind is POSITIONAL]


def keyword_only(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Those that are given by name."""
    return [parameter for parameter in parameters if parameter.kind is not POSITIONAL]


def reader(
    signature: Signature,
) -> Callable[[Tensor, Tensor, tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Reads a call's arguments after the first two as `signature.bind` does, a few times faster."""
    defaults = {name: parameter.default for name, parameter in list(signature.parameters.items())[2:]}
    names = [parameter.name for parameter in positional(signature.parameters.values())[2:]]

    def read(first: Tensor, second: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        given = {**dict(zip(names, args)), **kwargs}
        if len(given) < len(args) + len(kwargs) or any(name not in defaults for name in given):
            signature.bind(first, second, *args, **kwargs)  # raises Python's own TypeError
        return {**defaults, **given}

    return read


def become(
    loss: Callable[..., Any], formula: Callable[..., Tensor], signature: Signature, shared: str
) -> None:
    """Give the loss the name, the signature and the documentation of its formula.

    Args:
        loss: the function that is changed.
        formula: a user's function.
        signature: of the loss.
        shared: a docstring of the arguments, the result and the errors that all such losses have.
    """
    # torch.compile counts recompilations per code object: one for each loss
    loss.__code__ = loss.__code__.replace(co_name=formula.__name__)
    loss.__signature__ = signature  # type: ignore[attr-defined]
    loss.__doc__ = documentation(formula.__doc__ or "", shared, signature)


# Where the text of a docstring ends: what follows stands behind the sections of the loss.
_END = re.compile(r"^(Args|Returns|Raises|Examples?|Notes?|References?|Sources?):", re.MULTILINE)
_SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:[ \t]+.*\n|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+)\b.*\n(?:[ \t]+.*\n|\n)*", re.MULTILINE)


def documentation(own: str, shared: str, signature: Signature) -> str:
    """The docstring of a loss: that of its formula, with the shared sections where it has none.

    `Args` are the formula's hyperparameters and the shared arguments, in the order of the signature.
    """
    own, shared = f"{inspect.cleandoc(own)}\n", f"{inspect.cleandoc(shared)}\n"
    end = _END.search(own)
    text, rest = (own, "") if end is None else (own[: end.start()], own[end.start() :])
    sections = {**_sections(shared), **_sections(rest)}
    entries = {**_entries(shared), **_entries(rest)}
    sections["Args"] = "".join(entries[name] for name in signature.parameters if name in entries)
    parts = [text, *(f"{name}:\n{textwrap.indent(body, '    ')}" for name, body in sections.items())]
    return "\n\n".join(part.strip() for part in (*parts, _SECTION.sub("", rest)) if part.strip())


def _sections(text: str) -> dict[str, str]:
    """The sections that every loss has, by their names."""
    return {name: textwrap.dedent(body).strip() for name, body in _SECTION.findall(text)}


def _entries(text: str) -> dict[str, str]:
    """The arguments that the section `Args` describes, by their names."""
    arguments = _sections(text).get("Args", "") + "\n"
    return {entry[1]: entry[0].rstrip() + "\n" for entry in _ENTRY.finditer(arguments)}
