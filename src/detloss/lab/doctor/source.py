"""The text of a loss: where its lines are, which values it throws away, and what is plainly meant instead."""

import ast
import builtins
import difflib
import linecache
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined

Function = ast.FunctionDef | ast.AsyncFunctionDef
_CHANGE = {"add", "copy", "fill", "put", "set"}  # methods of a set, a dict or a list as well
_ONLY_COMPUTES = {name for name in dir(Tensor) if f"{name}_" in dir(Tensor)} - _CHANGE | set(
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
    tree: ast.Module
    name: str

    def at(self, line: int) -> str:
        """`loss.py:12: the source of that line`."""
        return line_at(str(self.path), line)


def line_at(file: str, line: int) -> str:
    """`loss.py:12: the source of that line`."""
    return f"{Path(file).name}:{line}: {linecache.getline(file, line).strip()}"


def read_source(path: Path, name: str) -> Source:
    """The file, parsed.

    Raises:
        ValueError: no such file, or no such name in it (the nearest is suggested).
        NotExamined: it is not Python.
    """
    linecache.checkcache()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except SyntaxError as error:
        line = f"{path.name}:{error.lineno}: {(error.text or '').strip()}"
        raise NotExamined(found("not python", line, what=f"{type(error).__name__}: {error.msg}")) from None
    scripts = [
        node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    ]
    known = list(_stored(node for node in tree.body if node not in scripts))
    first = name.split(".")[0]
    if first in known or any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in tree.body):
        return Source(path, tree, name)
    if first in _stored(scripts):
        where = "only when it runs as a script: move it out of `if __name__ == ...`"
        raise ValueError(f"{path} has {name!r} {where}")
    calls = [one.name for one in tree.body if isinstance(one, Function | ast.ClassDef)]
    hint = nearest(name, known) or f"it has {', '.join(calls) or 'none'}"
    raise ValueError(f"{path} has no {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The question whether another name was meant, "" where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else ""


def _stored(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that pieces of code bind, not looking into functions and classes."""
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
                continue
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
            case ast.Name(ctx=ast.Store()):
                yield node.id
        yield from _stored(ast.iter_child_nodes(node))


def reached(source: Source) -> list[Function]:
    """The functions that the name needs: itself and what it names, and what that names."""
    top = {name: node for node in source.tree.body for name in _stored([node])}
    todo, needed = [source.name.split(".")[0]], list[ast.stmt]()
    while todo:
        node = top.get(todo.pop())
        if node is not None and node not in needed:
            needed.append(node)
            todo += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    functions = (n for node in needed for n in ast.walk(node) if isinstance(n, Function))
    return sorted(functions, key=lambda n: n.lineno)


def options(source: Source | None, name: str) -> list[str]:
    """The texts that an argument, or an attribute of its name, is compared with."""
    nodes = (node for function in (reached(source) if source else ()) for node in ast.walk(function))
    texts = list[str]()
    for node in nodes:
        match node:
            case ast.Compare(left=ast.Name(id=own) | ast.Attribute(attr=own), comparators=[other]) if (
                own == name
            ):
                constants = [one.value for one in ast.walk(other) if isinstance(one, ast.Constant)]
                texts += [value for value in constants if isinstance(value, str)]
    return list(dict.fromkeys(texts))


def lost_values(source: Source) -> Iterator[Finding]:
    """Values that are thrown away, names that are never read, helpers without the value asked of them."""
    functions = reached(source)
    nodes = [node for function in functions for node in ast.walk(function)]
    for_effect = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and id(node) not in for_effect]
    asked = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    for function in functions:
        nodes = list(ast.walk(function))
        ends = any(isinstance(n, ast.Return | ast.Yield | ast.YieldFrom | ast.Raise) for n in nodes)
        if function.name in asked and not ends:
            yield found("no return", source.at(function.body[-1].lineno), name=function.name)
        read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        read |= {name for n in nodes if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
        for node in nodes:
            match node:
                case ast.Expr(value=value) if _only_computes(value):
                    text, computed = ast.unparse(value), isinstance(value, ast.BinOp | ast.Call)
                    kind = "thrown away" if computed else "compared for nothing"
                    short = text if len(text) <= 60 else text[:57] + "..."
                    yield found(kind, source.at(node.lineno), text=short)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if node is not function.body[-1]:
                    if name not in read and not name.startswith("_") and _is_arithmetic(value):
                        yield found("never used", source.at(node.lineno), name=name)


def _only_computes(value: ast.expr) -> bool:
    match value:
        case ast.BinOp() | ast.Compare() | ast.UnaryOp() | ast.Name() | ast.Subscript():
            return True
        case ast.Tuple(elts=elements):
            return all(_only_computes(element) for element in elements)
        case ast.Call(func=ast.Attribute(value=root, attr=name), keywords=keywords):
            computes = name in _ONLY_COMPUTES or (isinstance(root, ast.Name) and root.id in ("F", "math"))
            return computes and not {"out", "inplace"} & {keyword.arg for keyword in keywords}
    return False


def _is_arithmetic(value: ast.expr) -> bool:
    nodes = list(ast.walk(value))
    names = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    computes = any(isinstance(n, ast.BinOp) for n in nodes) or names & _ONLY_COMPUTES
    return bool(computes) and not names & _OF_SHAPES


def mend(source: Source) -> Iterator[tuple[Finding, str]]:
    """Changes the tree where it is plain what was meant: what is wrong there, and what was done.

    The entry function that ends with `name = ...` and returns nothing returns it. `ciou - x`, thrown away,
    where `ciou` is bound nowhere and `iou` is, becomes `ciou = iou - x`.
    """
    bound = {*dir(builtins), *_stored(ast.walk(source.tree))}
    for function in reached(source):
        own = set(_stored(function.body))
        for number, node in enumerate(function.body):
            match node:
                case ast.Expr(value=ast.BinOp(left=ast.Name(id=name) as left)) if name not in bound:
                    if near := [one for one in own if name.endswith(one)]:
                        left.id = max(near, key=len)
                        assigned = ast.Assign([ast.Name(name, ast.Store())], node.value)
                        function.body[number] = ast.fix_missing_locations(ast.copy_location(assigned, node))
                        done = f"examined as if line {node.lineno} were `{ast.unparse(assigned)}`"
                        yield found("undefined", source.at(node.lineno), name=name), done
        last, returns = function.body[-1], any(isinstance(n, ast.Return) for n in ast.walk(function))
        entry = function.name in (source.name.split(".")[-1], "forward", "__call__")
        match last:
            case ast.Assign(targets=[ast.Name(id=name)]) if entry and not returns:
                end = ast.Return(ast.Name(name, ast.Load()))
                function.body.append(ast.fix_missing_locations(ast.copy_location(end, last)))
                done = f"examined as if `{function.name}` ended with `return {name}`"
                yield found("no return", source.at(last.lineno), name=function.name), done
