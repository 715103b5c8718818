"""Which names of a source file mean nothing, and which mean something on some paths only."""

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef
_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_OF_MODULES = {
    "__name__",
    "__file__",
    "__doc__",
    "__package__",
    "__spec__",
    "__path__",
    "__all__",
    "__class__",
}


def undefined_names(tree: ast.Module, text: str) -> dict[str, list[ast.Name]]:
    """Names that no scope, import or builtin defines, with their uses in the order of lines.

    Empty where a star import may define anything.
    """
    if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(tree)):
        return {}
    tables = list(_tables(symtable.symtable(text, "source", "exec")))
    defined = set(dir(builtins)) | _OF_MODULES
    for table in tables:
        for symbol in table.get_symbols():
            bound = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if bound and (table.get_type() == "module" or symbol.is_declared_global()):
                defined.add(symbol.get_name())
    missing = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced()
        and (symbol.is_global() or table.get_type() == "module")
        and symbol.get_name() not in defined
    }
    unread = _annotations(tree) if _postponed(tree) else set()
    uses: dict[str, list[ast.Name]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in missing and id(node) not in unread:
            uses.setdefault(node.id, []).append(node)
    for nodes in uses.values():
        nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return uses


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _postponed(tree: ast.Module) -> bool:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return any(alias.name == "annotations" for node in imports for alias in node.names)


def _annotations(tree: ast.Module) -> set[int]:
    roots: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        elif isinstance(node, Function):
            roots.append(node.returns)
    return {id(inner) for root in roots if root is not None for inner in ast.walk(root)}


@dataclass(frozen=True)
class PartlyBound:
    """Names that have a value on some paths only, and are used after them.

    Attributes:
        names: in the order of their use.
        condition: the source of the test under which they have one, "" where they never have by then.
        bound: line of that test.
        used: line of the first use.
    """

    names: tuple[str, ...]
    condition: str
    bound: int
    used: int


def partly_bound(function: Function) -> list[PartlyBound]:
    """Local names that a path through the function reads before it binds them.

    A loop counts as running at least once, and a use under the same test as the binding as safe.
    """
    paths = _Paths(function)
    paths.block(function.body, {argument.arg for argument in arguments(function)})
    groups: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for name, (used, condition, bound) in paths.found.items():
        groups.setdefault((condition, bound), []).append((used, name))
    return [
        PartlyBound(tuple(name for _, name in sorted(uses)), condition, bound, min(uses)[0])
        for (condition, bound), uses in groups.items()
    ]


def arguments(function: Function | ast.Lambda) -> list[ast.arg]:
    """All arguments of a function, `*args` and `**kwargs` too."""
    a = function.args
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]


def own_nodes(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of one scope: nested functions and classes are there, what is in them is not."""
    for node in body:
        yield node
        if not isinstance(node, _OWN_SCOPE):
            yield from own_nodes(list(ast.iter_child_nodes(node)))


class _Paths:
    """Follows the statements of a function with the set of names that are bound for sure."""

    def __init__(self, function: Function) -> None:
        elsewhere: set[str] = set()
        self.locals: set[str] = set()
        for node in own_nodes(function.body):
            if isinstance(node, ast.Global | ast.Nonlocal):
                elsewhere.update(node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.locals.add(node.id)
            elif isinstance(node, _COMPREHENSIONS):
                elsewhere.update(_targets(node))
        self.locals -= elsewhere
        self.partly: dict[str, tuple[str, str, int]] = {}
        self.tests: list[str] = []
        self.found: dict[str, tuple[int, str, int]] = {}

    def block(self, body: Sequence[ast.stmt], bound: set[str]) -> set[str] | None:
        """The names bound after the statements; None where control does not get there."""
        now: set[str] | None = set(bound)
        for statement in body:
            if now is None:
                return None
            now = self.statement(statement, now)
        return now

    def statement(self, node: ast.stmt, bound: set[str]) -> set[str] | None:
        match node:
            case ast.Return() | ast.Raise():
                self.read(node, bound)
                return None
            case ast.Break() | ast.Continue():
                return None
            case ast.If():
                self.read(node.test, bound)
                return self.branches(node, bound | _stored(node.test))
            case ast.For() | ast.AsyncFor():
                self.read(node.iter, bound)
                self.block(node.body, bound | _stored(node.target))
                return self.block(node.orelse, bound | _stored(node))
            case ast.While():
                self.read(node.test, bound)
                self.block(node.body, bound | _stored(node.test))
                return self.block(node.orelse, bound | _stored(node))
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self.read(item.context_expr, bound)
                    bound = bound | _stored(item)
                return self.block(node.body, bound)
            case ast.Try():
                return self.attempt(node, bound)
            case ast.Match():
                self.read(node.subject, bound)
                paths = [self.block(case.body, bound | _captured(case.pattern)) for case in node.cases]
                ends = [end for end in paths if end is not None]
                total = any(
                    isinstance(c.pattern, ast.MatchAs) and c.pattern.pattern is None for c in node.cases
                )
                return set.intersection(*ends, *([] if total else [bound])) if ends or not total else None
            case ast.AugAssign():
                self.read(node.value, bound)
                if isinstance(node.target, ast.Name):
                    self.use(node.target.id, node.lineno, bound)
                return bound | _stored(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return bound | {node.name}
            case _:
                self.read(node, bound)
                return bound | _stored(node)

    def branches(self, node: ast.If, bound: set[str]) -> set[str] | None:
        ends = []
        for body, truth in ((node.body, True), (node.orelse, False)):
            keys = _keys(node.test, truth)
            self.tests += keys
            ends.append(self.block(body, bound))
            del self.tests[len(self.tests) - len(keys) :]
        then, other = ends
        if then is None or other is None:
            return other if then is None else then
        for names, truth in ((then - other, True), (other - then, False)):
            condition = ast.unparse(node.test if truth else ast.UnaryOp(ast.Not(), node.test))
            self.partly |= {name: (_keys(node.test, truth)[0], condition, node.lineno) for name in names}
        return then & other

    def attempt(self, node: ast.Try, bound: set[str]) -> set[str] | None:
        whole = self.block([*node.body, *node.orelse], bound)
        ends = [whole, *(self.block(h.body, bound | ({h.name} if h.name else set())) for h in node.handlers)]
        left = [end for end in ends if end is not None]
        after = set.intersection(*left) if left else None
        if whole is not None and after is not None:
            self.partly |= {name: ("", "nothing is raised", node.lineno) for name in whole - after}
        last = self.block(node.finalbody, bound if after is None else after)
        return None if after is None else last

    def read(self, node: ast.AST, bound: set[str]) -> None:
        for inner in own_nodes([node]):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                self.use(inner.id, inner.lineno, bound)

    def use(self, name: str, line: int, bound: set[str]) -> None:
        if name not in self.locals or name in bound or name in self.found:
            return
        key, condition, where = self.partly.get(name, ("", "", 0))
        if key not in self.tests or not key:
            self.found[name] = (line, condition, where)


def _keys(test: ast.expr, truth: bool) -> list[str]:
    """What is known where a test came out so: itself, and each part of an `and`."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _keys(test.operand, not truth)
    keys = [("" if truth else "not ") + ast.unparse(test)]
    if truth and isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        keys += [key for part in test.values for key in _keys(part, True)]
    return keys


def _targets(node: ast.AST) -> set[str]:
    return {name for generator in getattr(node, "generators", ()) for name in _stored(generator.target)}


def _stored(node: ast.AST) -> set[str]:
    """Names that a statement binds, whatever its paths."""
    names = set()
    for inner in own_nodes([node]):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in inner.names}
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(inner.name)
    return names


def _captured(pattern: ast.pattern) -> set[str]:
    nodes = [n for n in ast.walk(pattern) if isinstance(n, ast.MatchAs | ast.MatchStar | ast.MatchMapping)]
    return {name for n in nodes for name in [getattr(n, "name", None) or getattr(n, "rest", None)] if name}
