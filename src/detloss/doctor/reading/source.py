"""What the text of a loss says about it: found in its syntax tree, without running it."""

import ast
import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from detloss.doctor.findings import Finding, Level
from detloss.doctor.reading.habits import dead_code, hardcoded, python_loops
from detloss.doctor.reading.scopes import Function, own_nodes, partly_bound, undefined_names

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
"""What names mean that snippets use without saying so: the line that is missing."""


@dataclass(frozen=True)
class Source:
    """A file and the part of it that one name reaches.

    Attributes:
        path: of the file.
        text: of the file.
        tree: of the text.
        name: of the function, class or object examined, "" where only the file is known.
    """

    path: Path
    text: str
    tree: ast.Module
    name: str
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", self.text.splitlines())

    def at(self, line: int) -> str:
        """`loss.py:12: the source of that line`."""
        text = self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""
        return f"{self.path.name}:{line}: {text}"


def read_source(path: Path, name: str) -> Source:
    """The file, parsed.

    Raises:
        ValueError: no such file, or no such name in it (the nearest is suggested).
        SyntaxError: it is no Python.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    source = Source(path, text, ast.parse(text, str(path)), name)
    known = bound_names(source.tree)
    star = any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in source.tree.body)
    if _is_for_scripts(known.get(name.split(".")[0], []), source.tree):
        raise ValueError(
            f"{path} has {name!r} only if it runs as a script: move it out of `if __name__ == ...`"
        )
    if name.split(".")[0] not in known and not star:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        callable_ones = [k for k, nodes in known.items() if isinstance(nodes[-1], Function | ast.ClassDef)]
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(callable_ones) or 'none'}"
        raise ValueError(f"{path} has no {name!r}; {hint}")
    return source


def _is_for_scripts(statements: list[ast.stmt], tree: ast.Module) -> bool:
    """Whether all of them stand under `if __name__ == "__main__"`."""
    scripts = [
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    ]
    under = {id(inner) for node in scripts for inner in ast.walk(node)}
    return bool(statements) and all(id(one) in under for one in statements)


def bound_names(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Names that the top level of a file binds, also under `if` and `try`, with the statements that do."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _top_level(tree.body):
        if isinstance(node, Function | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found.setdefault((alias.asname or alias.name).split(".")[0], []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    found.setdefault(inner.id, []).append(node)
    return found


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _top_level(node.body)
            yield from _top_level(getattr(node, "orelse", []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


def reached(source: Source) -> list[ast.stmt]:
    """The top-level statements that the name needs: itself and what it names, and what that names."""
    bound = bound_names(source.tree)
    todo, seen, found = [source.name.split(".")[0]], set[str](), list[ast.stmt]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for statement in bound.get(name, ()):
            if statement not in found and not isinstance(statement, ast.Import | ast.ImportFrom):
                found.append(statement)
                todo += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return sorted(found, key=lambda node: node.lineno)


def source_findings(source: Source) -> list[Finding]:
    """Undefined names, lost values, missing returns, fixed devices and dtypes, Python loops."""
    statements = reached(source)
    findings = list(_undefined(source, statements))
    for function in _functions(statements):
        findings += _partly(source, function)
        findings += _no_return(source, function, statements)
        findings += dead_code(source.at, function)
        if function.name not in ("__init__", "extra_repr", "__repr__"):
            findings += python_loops(source.at, function, _is_entry(source, function))
    findings += hardcoded(source.at, statements)
    return findings


def detached_at(source: Source) -> str:
    """The first line that takes something out of the gradient on purpose, "" where there is none."""
    for node in (node for one in reached(source) for node in ast.walk(one)):
        if isinstance(node, ast.Attribute) and node.attr in ("detach", "no_grad", "set_grad_enabled", "data"):
            return source.at(node.lineno)
    return ""


def _functions(statements: list[ast.stmt]) -> list[Function]:
    return [node for one in statements for node in ast.walk(one) if isinstance(node, Function)]


def _undefined(source: Source, statements: list[ast.stmt]) -> Iterator[Finding]:
    inside = {id(node) for one in statements for node in ast.walk(one)}
    for name, uses in undefined_names(source.tree, source.text).items():
        uses = [node for node in uses if id(node) in inside]
        if not uses:
            continue
        owner = _owner_in_super(statements, name)
        lines = sorted({node.lineno for node in uses})
        more = (
            f" (and line {', '.join(map(str, lines[1:4]))}{', ...' * (len(lines) > 4)})" if lines[1:] else ""
        )
        message, remedy = f"`{name}` is defined nowhere", f"define `{name}`, or correct its name"
        if owner:
            message = f"`{name}` is defined nowhere: the class is called `{owner}`"
            remedy = "write super().__init__()"
        elif name in USUAL:
            remedy = f"add `{USUAL[name]}`" + (
                ", better as an argument" if USUAL[name].endswith("1e-7") else ""
            )
        yield Finding("undefined-name", "error", message, source.at(lines[0]) + more, remedy)


def _owner_in_super(statements: list[ast.stmt], name: str) -> str:
    """The class in which `super(name, self)` stands, "" where there is none."""
    for owner in (node for one in statements for node in ast.walk(one) if isinstance(node, ast.ClassDef)):
        for node in ast.walk(owner):
            match node:
                case ast.Call(func=ast.Name("super"), args=[ast.Name(id=first), *_]) if first == name:
                    return owner.name
    return ""


def owners_in_super(source: Source) -> dict[str, str]:
    """Undefined names in `super(name, self)` → the class that they stand for."""
    statements = list(source.tree.body)
    pairs = {n: _owner_in_super(statements, n) for n in undefined_names(source.tree, source.text)}
    return {name: owner for name, owner in pairs.items() if owner}


def _partly(source: Source, function: Function) -> Iterator[Finding]:
    for one in partly_bound(function):
        names = ", ".join(f"`{name}`" for name in one.names[:4])
        names += f" and {len(one.names) - 4} more" if len(one.names) > 4 else ""
        if not one.condition:
            message = f"{names} is used before it has a value"
            level: Level = "error"
            remedy = f"give {names} a value first, or correct the name"
        else:
            has, is_ = ("has a value", "is") if len(one.names) == 1 else ("have values", "are")
            where = f"only if {one.condition} (line {one.bound})"
            message = f"{names} {has} {where}, but {is_} used in any case"
            level, remedy = "warning", "bind on the other path too, or raise there"
        yield Finding("undefined-name", level, message, source.at(one.used), remedy)


def _no_return(source: Source, function: Function, statements: list[ast.stmt]) -> Iterator[Finding]:
    if not _used_for_its_value(source, function, statements):
        return
    own = list(own_nodes(function.body))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own) or not reaches_end(function.body):
        return
    last = function.body[-1]
    if any(isinstance(node, ast.Return) and node.value is not None for node in own):
        yield Finding(
            "no-return",
            "warning",
            f"a path through `{function.name}` ends without a value",
            source.at(last.lineno),
            "return a value there, or raise a ValueError that names the argument",
        )
    elif not _is_stub(function):
        name = last_assigned(function)
        what = f"add `return {name}`" if name else "return the value"
        yield Finding(
            "no-return",
            "error",
            f"`{function.name}` returns None",
            source.at(last.lineno),
            f"{what} at its end",
        )


def _is_entry(source: Source, function: Function) -> bool:
    """Whether it is what is called with predictions and targets."""
    return function.name in (source.name.split(".")[-1], "forward", "__call__")


def _used_for_its_value(source: Source, function: Function, statements: list[ast.stmt]) -> bool:
    if _is_entry(source, function):
        return True
    thrown = {
        id(node.value)
        for one in statements
        for node in ast.walk(one)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    for one in statements:
        for node in ast.walk(one):
            if isinstance(node, ast.Call) and id(node) not in thrown:
                called = node.func
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                if name == function.name:
                    return True
    return False


def _is_stub(function: Function) -> bool:
    """An empty body, which stands for another's."""
    return all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in function.body
    )


def last_assigned(function: Function) -> str:
    """The name that the last statement assigns, "" where it is no assignment to a name."""
    match function.body[-1]:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AugAssign(target=ast.Name(id=name)):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def mend(source: Source) -> list[str]:
    """Changes the tree where it is plain what was meant, so that the rest can be examined; what was done.

    A function that ends with `name = ...` and returns nothing returns it. `ciou - x`, thrown away, where
    `iou` has a value and `ciou` has none, becomes `ciou = iou - x`.
    """
    statements = reached(source)
    unknown = undefined_names(source.tree, source.text)
    done = []
    for function in _functions(statements):
        name = last_assigned(function)
        returns = any(isinstance(node, ast.Return) for node in own_nodes(function.body))
        if name and not returns and _used_for_its_value(source, function, statements):
            end = ast.Return(ast.Name(name, ast.Load()))
            function.body.append(ast.fix_missing_locations(ast.copy_location(end, function.body[-1])))
            done.append(f"examined as if `{function.name}` ended with `return {name}`")
        done += _assign_thrown_away(function, unknown)
    return done


def _assign_thrown_away(function: Function, unknown: Collection[str]) -> Iterator[str]:
    bound = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for number, node in enumerate(function.body):
        match node:
            case ast.Expr(value=ast.BinOp(left=ast.Name(id=name) as left)) if name in unknown:
                near = [one for one in bound if name.endswith(one)]
                if near:
                    left.id = max(near, key=len)
                    assigned = ast.Assign([ast.Name(name, ast.Store())], node.value)
                    function.body[number] = ast.fix_missing_locations(ast.copy_location(assigned, node))
                    yield f"examined as if line {node.lineno} were `{ast.unparse(assigned)}`"


def reaches_end(body: list[ast.stmt]) -> bool:
    """Whether control can get past the last of the statements."""
    return all(_passes(node) for node in body)


def _passes(node: ast.stmt) -> bool:
    match node:
        case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
            return False
        case ast.Assert(test=ast.Constant(value=False | 0)):
            return False
        case ast.Expr(value=ast.Call(func=ast.Name("exit") | ast.Attribute(attr="exit"))):
            return False
        case ast.If():
            return reaches_end(node.body) or reaches_end(node.orelse)
        case ast.While(test=ast.Constant(value=True | 1)):
            return any(isinstance(inner, ast.Break) for inner in ast.walk(node))
        case ast.With() | ast.AsyncWith():
            return reaches_end(node.body)
        case ast.Try():
            whole = reaches_end([*node.body, *node.orelse])
            return (whole or any(reaches_end(h.body) for h in node.handlers)) and reaches_end(node.finalbody)
        case ast.Match():
            total = any(isinstance(c.pattern, ast.MatchAs) and c.pattern.pattern is None for c in node.cases)
            return not total or any(reaches_end(case.body) for case in node.cases)
    return True
