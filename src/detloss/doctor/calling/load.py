"""From the name of anybody's loss to something that can be called."""

import contextlib
import difflib
import functools
import importlib
import inspect
import linecache
import sys
import traceback
import types
import unittest.mock
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detloss.doctor.calling.arguments import BCE, Guess, by_annotation, guesses, parameters, required
from detloss.doctor.findings import Finding
from detloss.doctor.reading.scopes import undefined_names
from detloss.doctor.reading.source import USUAL, Source, mend, owners_in_super, read_source

COLUMNS = 3  # of the first trial calls
IMPORTING = "importing it"
NO_GPU = ("not compiled with CUDA", "NVIDIA driver", "No CUDA GPUs", "CUDA unknown error")


class CannotExamine(Exception):
    """The examination ends here, with this finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class OnCpu(TorchFunctionMode):
    """Takes every request for a GPU as one for the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls `func` with devices that are there."""
        kwargs = {key: _cpu(value) for key, value in (kwargs or {}).items()}
        if getattr(func, "__name__", "") == "cuda" and args and isinstance(args[0], Tensor):
            return args[0]
        return func(*(_cpu(argument) for argument in args), **kwargs)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """`OnCpu`, and `torch.cuda.FloatTensor` and its like are those of the CPU."""
    types = {name: getattr(torch, name) for name in dir(torch.cuda) if name.endswith("Tensor")}
    with OnCpu(), unittest.mock.patch.multiple(torch.cuda, **types):
        yield


def _cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.split(":")[0] == "cuda" else value


@dataclass(frozen=True)
class Loaded:
    """Anybody's loss, ready to be called as `(predictions, targets)`.

    Attributes:
        name: as the user named it.
        object: what the name stands for.
        source: where it is written; None where there is no Python source.
        given: arguments that were chosen, by name.
        swapped: it takes targets first.
        on_cpu: requests for a GPU are taken as requests for the CPU.
        columns: of the logits that it is tried with.
        constants: module globals that the file lacks and the doctor bound, such as eps.
        mended: what was changed in it so that it could run.
    """

    name: str
    object: Any
    source: Source | None
    given: Mapping[str, Guess] = field(default_factory=dict)
    hyper: Mapping[str, Any] = field(default_factory=dict)
    swapped: bool = False
    on_cpu: bool = False
    columns: int = COLUMNS
    constants: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    built: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of its arguments beside predictions and targets."""
        if inspect.isclass(self.object):
            return tuple(parameters(self.object))
        return tuple(list(parameters(self.object))[2:])

    @property
    def defaults(self) -> dict[str, Any]:
        """What those are that have a default; of an object that is built, its attributes."""
        if isinstance(self.object, nn.Module):
            return dict(vars(self.object))
        found = parameters(self.object)
        return {name: found[name].default for name in self.takes if name not in required(self.object)}

    def __call__(self, predictions: Tensor, targets: Tensor) -> Any:
        """Its own result."""
        if not self.on_cpu:
            return self._call(predictions, targets)
        with on_cpu():
            return self._call(predictions, targets)

    def _call(self, predictions: Tensor, targets: Tensor) -> Any:
        given = {name: guess.make(predictions, targets) for name, guess in self.given.items()}
        function = self.object
        if inspect.isclass(function):
            follows = any(guess.follows for guess in self.given.values())
            key = predictions.shape[-1] if follows else None
            if key not in self.built:
                self.built[key] = function(**given | dict(self.hyper))
            function = self.built[key]
            given = {name: guess.make(predictions, targets) for name, guess in self.given_to_forward.items()}
        else:
            given |= self.hyper
        pair = (targets, predictions) if self.swapped else (predictions, targets)
        return function(*pair, **given)

    @property
    def given_to_forward(self) -> dict[str, Guess]:
        """What the `forward` of a class asks for beside predictions and targets."""
        if not inspect.isclass(self.object):
            return {}
        names = required(getattr(self.object, "forward", self.object.__call__))[3:]
        return {name: guesses(name)[0] for name in names if guesses(name)}

    def with_hyper(self, **hyper: Any) -> "Loaded":
        """The same loss with other hyperparameters."""
        return replace(self, hyper={**self.hyper, **hyper}, built={})


def load(target: str) -> Loaded:
    """What `PATH.py:NAME` or `module:NAME` stands for, arguments not chosen yet.

    Raises:
        ValueError: no such file, module or name, or nothing that can be called.
        CannotExamine: the file is no Python, or fails when it is imported.
    """
    path, module_name, name = split_target(target)
    source, constants, mended = None, tuple[str, ...](), tuple[str, ...]()
    if path is not None:
        source = parse(path, name)
        module, constants, mended = _import_file(source)
    else:
        module = _import_module(module_name, target)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1, cutoff=0.4)
            raise ValueError(
                f"{target}: there is no {part!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        owner, found = found, getattr(found, part)
        if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, part)):
            found = _bound(target, owner, part)
    if inspect.isclass(found) and issubclass(found, torch.autograd.Function):
        found = found.apply
    if not callable(found):
        raise ValueError(f"{target} is {type(found).__name__}, not a function or a Module")
    if inspect.isclass(found) and not any("__call__" in vars(base) for base in found.__mro__):
        raise ValueError(f"{target} is a class whose objects cannot be called; name a method of it")
    if source is None:
        source = _source_of(found)
    swapped = _targets_first(found)
    return Loaded(target, found, source, swapped=swapped, constants=constants, mended=mended)


def _bound(target: str, owner: type, method: str) -> Any:
    """The method of an object made without arguments."""
    try:
        return getattr(owner(), method)
    except Exception as error:
        raise ValueError(
            f"{target} is a method, and {owner.__name__}() fails ({error}); name an object's: obj.{method}"
        ) from None


def split_target(target: str) -> tuple[Path | None, str, str]:
    """(path, "", name) or (None, module, name).

    Raises:
        ValueError: neither.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not name or not place or name.endswith(".py"):
        raise ValueError(f"{target!r} names no loss; write PATH.py:NAME or module:NAME")
    if place.endswith(".py") or Path(place).is_file():
        return Path(place), "", name
    if any(not part.isidentifier() for part in place.split(".")):
        raise ValueError(f"{place!r} is neither a file nor a module; write PATH.py:NAME or module:NAME")
    return None, place, name


def parse(path: Path, name: str) -> Source:
    """`read_source`; a syntax error ends the examination."""
    try:
        return read_source(path, name)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise CannotExamine(
            Finding(
                "crashes",
                "error",
                f"the file is no Python: {type(error).__name__}: {error.msg}",
                f"{path.name}:{error.lineno}: {line}",
                "correct the line; code copied from a page often lost its indentation",
            )
        ) from None


def _import_module(name: str, target: str) -> types.ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            raise ValueError(
                f"{target}: there is no module {error.name!r}; the path is searched for it"
            ) from None
        raise CannotExamine(crash(error, IMPORTING, None)) from None
    except BaseException as error:
        raise CannotExamine(crash(error, IMPORTING, None)) from None


def _import_file(source: Source) -> tuple[types.ModuleType, tuple[str, ...], tuple[str, ...]]:
    """Runs the file as a module. What it leaves undefined is bound in the usual meaning first."""
    path = source.path.resolve()
    root, package = path.parent, list[str]()
    while (root / "__init__.py").is_file():
        package.insert(0, root.name)
        root = root.parent
    for folder in (root, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    module = types.ModuleType(path.stem)
    module.__file__, module.__package__ = str(path), ".".join(package)
    sys.modules.setdefault(path.stem, module)
    missing = undefined_names(source.tree, source.text)
    constants = tuple(name for name in missing if name in USUAL and "=" in USUAL[name])
    for name in missing:
        if name in USUAL:
            exec(USUAL[name], module.__dict__)
    mended = tuple(mend(source))
    linecache.checkcache(str(path))
    try:
        with on_cpu():  # a GPU that is asked for in the file itself is told by reading it
            exec(compile(source.tree, str(path), "exec"), module.__dict__)
    except BaseException as error:
        raise CannotExamine(crash(error, IMPORTING, source)) from None
    for name, owner in owners_in_super(source).items():
        module.__dict__.setdefault(name, module.__dict__.get(owner))
    return module, constants, mended


def _source_of(found: Any) -> Source | None:
    """The file that an imported object is written in."""
    inner = found
    while isinstance(inner, functools.partial):
        inner = inner.func
    if isinstance(inner, nn.Module):
        inner = type(inner)
    try:
        inner = inspect.unwrap(inner)
        path = inspect.getsourcefile(inner)
        name = inner.__qualname__.removesuffix(".forward")
        return read_source(Path(path), name) if path and "<" not in name else None
    except (TypeError, AttributeError, ValueError, SyntaxError, OSError):
        return None


def crash(error: BaseException, doing: str, source: Source | None) -> Finding:
    """The finding that an exception is, with the line of the user's that raised it."""
    path = None if source is None else str(source.path.resolve())
    lines = traceback.extract_tb(error.__traceback__)
    ours = [one for one in lines if path is not None and one.filename == path]
    frames = ours or [
        one for one in lines if not one.filename.startswith((str(Path(__file__).parents[1]), "<"))
    ]
    text = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
    if isinstance(error, SystemExit):
        what = f"it calls sys.exit({error.code})"
    where = (
        f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}"
        if frames
        else "no line known"
    )
    remedy = "run it on a few numbers and correct the line"
    if isinstance(error, ModuleNotFoundError):
        remedy = (
            f"install {error.name}, or move the loss to a file that does without; it must take torch tensors"
        )
    elif doing == IMPORTING:
        remedy = 'correct the line; what a script does belongs under `if __name__ == "__main__":`'
    return Finding("crashes", "error", f"{doing}: {what}", where, remedy)


def first_two(found: Any) -> list[str]:
    """The names of predictions and targets in its own words."""
    if inspect.isclass(found) or isinstance(found, nn.Module):
        forward = getattr(found, "forward", None) or found.__call__
        names = [name for name in parameters(forward) if name != "self"]
    else:
        names = list(parameters(found))
    return [name.lower() for name in names[:2]]


_TARGET_WORDS = ("target", "true", "label", "gt", "ground")
_PREDICTION_WORDS = ("pred", "input", "logit", "output", "score", "prob")


def _targets_first(found: Any) -> bool:
    names = first_two(found)
    return (
        len(names) == 2
        and any(word in names[0] for word in _TARGET_WORDS)
        and not any(word in names[0] for word in _PREDICTION_WORDS)
        and any(word in names[1] for word in _PREDICTION_WORDS)
    )


def with_arguments(loaded: Loaded) -> Iterator[Loaded]:
    """The loss with the arguments that it cannot do without, in the ways that come to mind, likeliest first.

    Raises:
        CannotExamine: an argument that nothing comes to mind for.
    """
    own = required(loaded.object) if inspect.isclass(loaded.object) else required(loaded.object)[2:]
    ways: list[dict[str, Guess]] = [{}]
    for name in loaded.takes:  # a number of classes, or of bins, that is not the one of the trial calls
        likely = () if "bins" in name else guesses(name)
        counts = bool(likely) and all(guess.follows for guess in likely)
        if counts and type(parameters(loaded.object)[name].default) is int:
            ways = [*({**way, name: guess} for way in ways for guess in likely), *ways]
    for name in own:
        likely = guesses(name) or by_annotation(loaded.object, name)
        if not likely:
            raise CannotExamine(
                Finding(
                    "crashes",
                    "error",
                    f"`{name}` must be given, and nothing says what it is",
                    f"{loaded.name}{inspect.signature(loaded.object)}",
                    "name a function without required arguments, such as functools.partial(...)",
                )
            )
        ways = [{**way, name: guess} for guess in likely for way in ways]
    for way in ways:
        yield replace(loaded, given=way, built={})


def changed_criterion(loaded: Loaded) -> Finding | None:
    """Whether building it changes the reduction of the loss that it is given."""
    for name, guess in loaded.given.items():
        if guess is BCE and inspect.isclass(loaded.object):
            given = nn.BCEWithLogitsLoss()
            others = {
                key: one.make(torch.zeros(2, 3), torch.zeros(2, 3)) for key, one in loaded.given.items()
            }
            try:
                loaded.object(**{**others, name: given, **loaded.hyper})
            except Exception:
                return None
            if given.reduction != "mean":
                line = next(
                    (
                        loaded.source.at(number)
                        for number, text in enumerate(loaded.source.lines, 1)
                        if ".reduction =" in text
                        and text.split("#")[0].rstrip().endswith(("'none'", '"none"'))
                    )
                    if loaded.source
                    else iter(()),
                    "",
                )
                return Finding(
                    "mutates-input",
                    "warning",
                    f"building it sets the reduction of the {name} given to it to {given.reduction!r}: who "
                    "else uses it gets another loss",
                    line or f"{name}.reduction was 'mean', is {given.reduction!r}",
                    "call F.binary_cross_entropy_with_logits(..., reduction='none') instead",
                )
    return None
