"""The text of a loss: where its lines are, which values it throws away, and what is plainly meant instead."""

import ast
import builtins
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined

Function = ast.FunctionDef | ast.AsyncFunctionDef
_ONLY_COMPUTES = {name for name in dir(Tensor) if f"{name}_" in dir(Tensor)} - set(
    "add copy fill put set".split()
)
_ONLY_COMPUTES |= set(
    "mean sum max min view view_as reshape flatten permute expand repeat to type type_as float double half"
    " long int cuda cpu clone contiguous softmax log_softmax logsigmoid softplus norm prod gather where stack"
    " cat maximum minimum amax amin logsumexp zeros_like ones_like one_hot".split()
)
"""Tensor methods and functions that change nothing: what also exists with a `_`, and a few more."""
_OF_SHAPES = {"shape", "size", "dim", "ndim", "dtype", "device", "numel"}


@dataclass(frozen=True)
class Source:
    """A file, and the name in it that is examined ("" where only the file is known)."""

    path: Path
    text: str
    tree: ast.Module
    name: str

    def at(self, line: int) -> str:
        """`loss.py:12: the source of that line`."""
        lines = self.text.splitlines()
        text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        return f"{self.path.name}:{line}: {text}"


def read_source(path: Path, name: str) -> Source:
    """The file, parsed.

    Raises:
        ValueError: no such file, or no such name in it (the nearest is suggested).
        NotExamined: it is not Python.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = ast.parse(text, str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except SyntaxError as error:
        line = f"{path.name}:{error.lineno}: {(error.text or '').strip()}"
        raise NotExamined(found("not python", line, what=f"{type(error).__name__}: {error.msg}")) from None
    source, first = Source(path, text, tree, name), name.split(".")[0]
    known = _bound(tree, scripts=False)
    if first in known or any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in tree.body):
        return source
    if first in _bound(tree, scripts=True):
        raise ValueError(
            f"{path} has {name!r} only when it runs as a script: move it out of `if __name__ == ...`"
        )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    calls = [one.name for one in tree.body if isinstance(one, Function | ast.ClassDef)]
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(calls) or 'none'}"
    raise ValueError(f"{path} has no {name!r}; {hint}")


def _bound(tree: ast.Module, scripts: bool) -> set[str]:
    """Names that the top level binds, with or without what stands under `if __name__ == ...`."""
    kept = [node for node in tree.body if scripts or not _asks_for_a_script(node)]
    return {name for node in kept for name in _stored(node)}


def _asks_for_a_script(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test)
    )


def _stored(node: ast.AST) -> Iterator[str]:
    """Names that a piece of code binds, not looking into functions and classes."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _stored(child)


def reached(source: Source) -> list[Function]:
    """The functions that the name needs: itself and what it names, and what that names."""
    top = {name: node for node in source.tree.body for name in _stored(node)}
    todo, seen = [source.name.split(".")[0]], set[str]()
    while todo:
        name = todo.pop()
        if name in top and name not in seen:
            seen.add(name)
            todo += [n.id for n in ast.walk(top[name]) if isinstance(n, ast.Name)]
    nodes = {id(top[name]): top[name] for name in seen}
    return sorted(
        (n for node in nodes.values() for n in ast.walk(node) if isinstance(n, Function)),
        key=lambda n: n.lineno,
    )


def lost_values(source: Source) -> Iterator[Finding]:
    """Values that are thrown away, names that are never read, helpers without the value asked of them."""
    functions = reached(source)
    nodes = [node for function in functions for node in ast.walk(function)]
    for_effect = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and id(node) not in for_effect]
    asked = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    for function in functions:
        ends = (ast.Return, ast.Yield, ast.YieldFrom, ast.Raise)
        if function.name in asked and not any(isinstance(node, ends) for node in ast.walk(function)):
            yield found("no return", source.at(function.body[-1].lineno), name=function.name)
        read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        read |= {
            name for n in ast.walk(function) if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names
        }
        for node in ast.walk(function):
            match node:
                case ast.Expr(value=value) if _only_computes(value):
                    text = ast.unparse(value)
                    kind = (
                        "thrown away" if isinstance(value, ast.BinOp | ast.Call) else "compared for nothing"
                    )
                    short = text if len(text) <= 60 else text[:57] + "..."
                    yield found(kind, source.at(node.lineno), text=short)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if node is not function.body[-1]:
                    if name not in read and not name.startswith("_") and _is_arithmetic(value):
                        yield found("never used", source.at(node.lineno), name=name)


def _only_computes(value: ast.expr) -> bool:
    match value:
        case ast.Call(keywords=keywords) if {"out", "inplace"} & {keyword.arg for keyword in keywords}:
            return False
        case ast.BinOp() | ast.Compare() | ast.UnaryOp() | ast.Name() | ast.Subscript():
            return True
        case ast.Tuple(elts=elements):
            return all(_only_computes(element) for element in elements)
        case ast.Call(func=ast.Attribute(value=root, attr=name)):
            return name in _ONLY_COMPUTES or (isinstance(root, ast.Name) and root.id in ("F", "math"))
    return False


def _is_arithmetic(value: ast.expr) -> bool:
    names = {n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute)}
    if names & _OF_SHAPES:
        return False
    return any(isinstance(n, ast.BinOp) for n in ast.walk(value)) or bool(names & _ONLY_COMPUTES)


def mend(source: Source) -> tuple[list[Finding], list[str]]:
    """Changes the tree where it is plain what was meant, so that the rest can be examined.

    The entry function that ends with `name = ...` and returns nothing returns it. `ciou - x`, thrown away,
    where `ciou` is bound nowhere and `iou` is, becomes `ciou = iou - x`.

    Returns:
        What is wrong there, and what was done.
    """
    findings, done = [], []
    bound = set(dir(builtins)) | {name for node in ast.walk(source.tree) for name in _stored(node)}
    for function in reached(source):
        own = {name for node in function.body for name in _stored(node)}
        for number, node in enumerate(function.body):
            match node:
                case ast.Expr(value=ast.BinOp(left=ast.Name(id=name) as left)) if name not in bound:
                    near = [one for one in own if name.endswith(one)]
                    if near:
                        left.id = max(near, key=len)
                        assigned = ast.Assign([ast.Name(name, ast.Store())], node.value)
                        function.body[number] = ast.fix_missing_locations(ast.copy_location(assigned, node))
                        findings.append(found("undefined", source.at(node.lineno), name=name))
                        done.append(f"examined as if line {node.lineno} were `{ast.unparse(assigned)}`")
        last, returns = function.body[-1], any(isinstance(n, ast.Return) for n in ast.walk(function))
        entry = function.name in (source.name.split(".")[-1], "forward", "__call__")
        match last:
            case ast.Assign(targets=[ast.Name(id=name)]) if entry and not returns:
                end = ast.Return(ast.Name(name, ast.Load()))
                function.body.append(ast.fix_missing_locations(ast.copy_location(end, last)))
                findings.append(found("no return", source.at(last.lineno), name=function.name))
                done.append(f"examined as if `{function.name}` ended with `return {name}`")
    return findings, done
