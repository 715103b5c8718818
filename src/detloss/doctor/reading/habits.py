"""Lines of a loss that do nothing, tie it to a device or a dtype, or go through a tensor in Python."""

import ast
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from detloss.doctor.findings import Finding, Level
from detloss.doctor.reading.scopes import Function, arguments, own_nodes

At = Callable[[int], str]
"""Line number → its evidence."""

_PURE = {name for name in dir(Tensor) if f"{name}_" in dir(Tensor)} - {
    "add",
    "copy",
    "fill",
    "put",
    "set",
} | {
    *("mean", "sum", "max", "min", "view", "view_as", "reshape", "flatten", "permute", "expand", "repeat"),
    *(
        "to",
        "type",
        "type_as",
        "float",
        "double",
        "half",
        "long",
        "int",
        "cuda",
        "cpu",
        "clone",
        "contiguous",
    ),
    *("softmax", "log_softmax", "logsigmoid", "softplus", "norm", "prod", "gather", "where", "stack", "cat"),
    *("maximum", "minimum", "amax", "amin", "logsumexp", "zeros_like", "ones_like", "one_hot"),
}
"""Tensor methods and functions that only compute: what also exists with a `_`, and a few more."""
_INTEGERS = {"long", "int", "int64", "int32", "LongTensor", "IntTensor"}
_FLOATS = {"float", "double", "half", "bfloat16"}
_DTYPES = {"float32", "float64", "float16", "float", "double", "half", "FloatTensor", "DoubleTensor"}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite"}
_FACTORIES = {"zeros", "ones", "full", "arange", "eye", "linspace", "rand", "randn", "empty"}


def dead_code(at: At, function: Function) -> Iterator[Finding]:
    """Values that are computed and thrown away, and names that are computed and never read."""
    for node in own_nodes(function.body):
        if isinstance(node, ast.Expr) and _only_computes(node.value):
            text = ast.unparse(node.value)
            short = text if len(text) <= 60 else text[:57] + "..."
            yield Finding(
                "dead-expression",
                "error" if isinstance(node.value, ast.BinOp | ast.Call) else "warning",
                f"the value of `{short}` is thrown away",
                at(node.lineno),
                f"assign or return it: {_assigned(node.value)}",
            )
    read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    outer = {name for n in ast.walk(function) if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
    last = function.body[-1]
    for node in own_nodes(function.body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                whole = node is last  # that one is a missing return
                if name not in read | outer and not name.startswith("_") and _computes(value) and not whole:
                    yield Finding(
                        "dead-expression",
                        "warning",
                        f"`{name}` is computed and never used",
                        at(node.lineno),
                        f"use `{name}`, or delete the line",
                    )


def _assigned(value: ast.expr) -> str:
    match value:
        case ast.BinOp(left=ast.Name(id=name)) | ast.Call(func=ast.Attribute(value=ast.Name(id=name))):
            if name not in ("torch", "F", "math", "np"):
                return f"{name} = ..."
    return "return ..., or name = ..."


def _only_computes(value: ast.expr) -> bool:
    match value:
        case ast.Call(keywords=keywords) if {"out", "inplace"} & {keyword.arg for keyword in keywords}:
            return False
        case ast.BinOp() | ast.Compare() | ast.UnaryOp() | ast.Name() | ast.Subscript() | ast.IfExp():
            return True
        case ast.Tuple(elts=elements):
            return all(_only_computes(element) for element in elements)
        case ast.Call(func=ast.Attribute(value=root, attr=name)):
            return name in _PURE or (isinstance(root, ast.Name) and root.id in ("F", "math"))
    return False


def _computes(value: ast.expr) -> bool:
    """Arithmetic on tensors, not a look at a shape."""
    names = {n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute)}
    if names & {"shape", "size", "dim", "ndim", "dtype", "device", "numel"}:
        return False
    return any(isinstance(n, ast.BinOp) for n in ast.walk(value)) or bool(names & _PURE)


def hardcoded(at: At, statements: Iterable[ast.stmt]) -> Iterator[Finding]:
    """Devices and dtypes that the text fixes."""
    for statement in statements:
        yield from _devices(at, statement, guarded=False)
        for function in ast.walk(statement):
            if isinstance(function, Function):
                yield from _dtypes(at, function)
                if function.name != "__init__":
                    yield from _left_on_cpu(at, function)


def _devices(at: At, node: ast.AST, guarded: bool) -> Iterator[Finding]:
    if isinstance(node, ast.If | ast.IfExp):
        asks = {n.attr for n in ast.walk(node.test) if isinstance(n, ast.Attribute)}
        guarded = guarded or bool(asks & {"is_cuda", "is_available", "device", "device_count"})
    what = _device_of(node)
    if what:
        level: Level = "note" if guarded else "error"
        where = "where the condition around it holds" if guarded else "it stops where there is no GPU"
        yield Finding(
            "device-hardcoded",
            level,
            f"`{what}` fixes the device: {where}",
            at(getattr(node, "lineno", 0)),
            "create it with device=inputs.device, or register_buffer in __init__",
        )
        return
    for child in ast.iter_child_nodes(node):
        yield from _devices(at, child, guarded)


def _device_of(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Attribute(attr="cuda"), args=[]):
            return ".cuda()"
        case ast.Call(func=ast.Attribute(attr="cuda"), args=[ast.Constant(value=number)]):
            return f".cuda({number!r})"
        case ast.Call(func=ast.Attribute(attr="to" | "device"), args=[ast.Constant(value=str(text)), *_]):
            return f'"{text}"' if text.startswith("cuda") else ""
        case ast.keyword(arg="device", value=ast.Constant(value=str(text))):
            return f'device="{text}"' if text.startswith("cuda") else ""
        case ast.arguments():
            names = [argument.arg for argument in node.args[-len(node.defaults) :]] if node.defaults else []
            pairs = [*zip(names, node.defaults), *zip((a.arg for a in node.kwonlyargs), node.kw_defaults)]
            for name, default in pairs:
                if isinstance(default, ast.Constant) and str(default.value).startswith("cuda"):
                    return f'{name}="{default.value!s}"'
        case ast.Attribute(value=ast.Attribute(value=ast.Name("torch"), attr="cuda"), attr=name):
            return f"torch.cuda.{name}" if name.endswith("Tensor") else ""
    return ""


def _dtypes(at: At, function: Function) -> Iterator[Finding]:
    """Casts to a fixed floating dtype; casts of soft labels to integers."""
    own = {argument.arg for argument in arguments(function)}
    dense = _dense_targets(function)
    for node in own_nodes(function.body):
        found = _cast(node)
        if not found:
            continue
        root, dtype = found
        if dtype in _INTEGERS and root in dense:
            yield Finding(
                "dtype-hardcoded",
                "warning",
                f"`{root}` is cast to integers: a soft label between 0 and 1 becomes 0",
                at(node.lineno),  # type: ignore[attr-defined]
                f"keep `{root}` floating: alpha * {root} + (1 - alpha) * (1 - {root})",
            )
        elif dtype in (_DTYPES | _FLOATS) - {"float", "float32", "FloatTensor"} and root in own:
            yield Finding(
                "dtype-hardcoded",
                "note",
                f"`{root}` is cast to {dtype}, whatever it comes in",
                at(node.lineno),  # type: ignore[attr-defined]
                f"cast half precision only, or use {root}.to(inputs.dtype)",
            )


def _cast(node: ast.AST) -> tuple[str, str] | None:
    """(name cast, dtype)."""
    match node:
        case ast.Call(func=ast.Attribute(value=root, attr=name), args=[]) if name in _INTEGERS | _FLOATS:
            return _root(root), name
        case ast.Call(func=ast.Attribute(value=root, attr="type" | "to"), args=[first, *_]):
            named = isinstance(first, ast.Attribute) and first.attr in _INTEGERS | _FLOATS | _DTYPES
            return (_root(root), first.attr) if named else None  # type: ignore[attr-defined]
    return None


def _root(node: ast.expr) -> str:
    """`x` of `x`, `x.data` and `x.view(-1)`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in _COMPARISONS:  # a mask, which has no dtype of its own to keep
                return ""
            node = node.func
        else:
            return ""
    return node.id


def _dense_targets(function: Function) -> set[str]:
    """Arguments that are the targets of a binary cross entropy: floating, in [0, 1]."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if "bce" in called.lower() or "binary_cross_entropy" in called:
                found.add(_root(node.args[1]))
    return found & {argument.arg for argument in arguments(function)}


def _left_on_cpu(at: At, function: Function) -> Iterator[Finding]:
    """Tensors made in a call without saying where: on the CPU, wherever the inputs are."""
    moved = {
        id(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in ("to", "type_as", "cuda")
    }
    later = {
        _root(node.func.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("to", "type_as", "cuda")
    }
    for statement in own_nodes(function.body):
        names = {t.id for t in getattr(statement, "targets", ()) if isinstance(t, ast.Name)}
        if not isinstance(statement, ast.Assign) or names & later:
            continue
        for node in ast.walk(statement.value):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("torch"), attr=name)) if name in _FACTORIES:
                    if id(node) not in moved and all(keyword.arg != "device" for keyword in node.keywords):
                        yield Finding(
                            "device-hardcoded",
                            "warning",
                            f"`torch.{name}` makes a tensor on the CPU, wherever the inputs are",
                            at(node.lineno),
                            "add device=inputs.device",
                        )


def python_loops(at: At, function: Function, entry: bool) -> Iterator[Finding]:
    """Loops whose length is that of a tensor.

    The arguments of the entry, which is what is called with predictions and targets, are tensors; those of
    other functions may be anything, and a loop over one of them says nothing.
    """
    tensors, sizes = _tensors(function)

    def is_size(node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name in sizes
            case ast.Call(func=ast.Name("len"), args=[inner]):
                return _first_name(inner) in tensors
            case ast.Call(func=ast.Attribute(value=inner, attr="size" | "numel" | "item")):
                return _first_name(inner) in tensors
            case ast.Subscript(value=ast.Attribute(value=inner, attr="shape")):
                return _first_name(inner) in tensors
        return False

    def goes_through(node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return entry and name in tensors
            case ast.Call(func=ast.Name("range"), args=bounds) if len(bounds) < 3:  # with a step: blocks
                return any(is_size(inner) for bound in bounds for inner in ast.walk(bound))
            case ast.Call(func=ast.Name("zip" | "enumerate"), args=parts):
                return any(goes_through(part) for part in parts)
            case ast.Call(func=ast.Attribute(value=inner, attr="tolist" | "nonzero")):
                return _first_name(inner) in tensors
        return False

    for node in own_nodes(function.body):
        over: list[ast.expr] = []
        if isinstance(node, ast.For):
            over = [node.iter]
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            over = [generator.iter for generator in node.generators]
        found = [part for part in over if goes_through(part)]
        if isinstance(node, ast.While) and _counts(node.test):
            found = [node.test] if any(is_size(inner) for inner in ast.walk(node.test)) else []
        for part in found:
            yield Finding(
                "python-loop",
                "warning",
                f"a Python loop over `{ast.unparse(part)}`: its time grows with the elements",
                at(part.lineno),
                "index or mask the whole tensor at once, such as torch.where(targets > 0, a, b)",
            )


def _counts(test: ast.expr) -> bool:
    """Whether it compares by size, as `i < len(x)` does."""
    less = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
    return any(isinstance(n, ast.Compare) and isinstance(n.ops[0], less) for n in ast.walk(test))


def _tensors(function: Function) -> tuple[set[str], set[str]]:
    """Names that hold tensors made of the arguments, and names that hold their sizes."""
    defaults = function.args.defaults
    plain = function.args.args[: len(function.args.args) - len(defaults)]
    tensors = {argument.arg for argument in [*function.args.posonlyargs, *plain]} - {"self", "cls", "ctx"}
    sizes: set[str] = set()
    for node in own_nodes(function.body):
        if not isinstance(node, ast.Assign):
            continue
        names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        used = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
        asked = {n.attr for n in ast.walk(node.value) if isinstance(n, ast.Attribute)}
        if "len" in used or asked & {"shape", "size", "numel"}:
            sizes |= names if used & tensors else set()
        elif used & tensors and not isinstance(node.value, ast.List | ast.Tuple | ast.ListComp):
            tensors |= names if not asked & {"unbind", "chunk", "split"} or len(names) > 1 else set()
    return tensors, sizes


def _first_name(node: ast.AST) -> str:
    """`x` of `x`, `x[0]`, `x.view(-1)[0]`."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
