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

from detloss.lab.doctor.arguments import BCE, Guess, guesses, parameters, required
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.names import Names
from detloss.lab.doctor.source import Source, lost_values, mend, read_source

COLUMNS = 3  # of the first trial calls
_PACKAGE, _DOCTOR = str(Path(__file__).parents[2]), str(Path(__file__).parent)


class OnCpu(TorchFunctionMode):
    """Takes every request for a GPU as one for the CPU, and notes the line that asks."""

    def __init__(self, requests: dict[str, None]) -> None:
        super().__init__()
        self.requests = requests

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls `func` with devices that are there."""
        kwargs = kwargs or {}
        asks = func is Tensor.cuda
        if asks or any(_is_gpu(value) for value in (*args, *kwargs.values())):
            self.requests.setdefault(running_line())
            if asks:
                return args[0]
            args = tuple("cpu" if _is_gpu(value) else value for value in args)
            kwargs = {key: "cpu" if _is_gpu(value) else value for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _is_gpu(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and value.split(":")[0] == "cuda"


@contextlib.contextmanager
def gpu_types_on_cpu(requests: dict[str, None]) -> Iterator[None]:
    """The tensor types of `torch.cuda`, such as `torch.cuda.FloatTensor`, are those of the CPU; who asks is
    noted.
    """

    def noting(kind: Any) -> Any:
        def make(*args: Any) -> Any:
            requests.setdefault(running_line())
            return kind(*args)

        return make

    made = {name: noting(getattr(torch, name)) for name in dir(torch.cuda) if name.endswith("Tensor")}
    with unittest.mock.patch.multiple(torch.cuda, **made):
        yield


def _is_foreign(file: str) -> bool:
    """Whether a file is this package's or a library's."""
    return file.startswith((_PACKAGE, sys.base_prefix, sys.prefix, "<"))


def running_line() -> str:
    """The line of the user's that is running; where there is none, the innermost that is not the doctor's."""
    frame: Any = sys._getframe(1)
    other = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not _is_foreign(file):
            return _line(file, frame.f_lineno)
        if other is None and not file.startswith((_DOCTOR, "<")) and "_ops" not in file:
            other = file, frame.f_lineno
        frame = frame.f_back
    return _line(*other) if other else "no line known"


def _line(file: str, line: int) -> str:
    return f"{Path(file).name}:{line}: {linecache.getline(file, line).strip()}"


def frame_of_error(error: BaseException) -> tuple[str, int]:
    """File and line of the user's that raised; without one, the innermost that is not the doctor's."""
    frames = [(one.filename, one.lineno or 0) for one in reversed(traceback.extract_tb(error.__traceback__))]
    ours = [one for one in frames if not _is_foreign(one[0])]
    others = [one for one in frames if not one[0].startswith((_DOCTOR, "<"))]
    return next(iter((*ours, *others)), ("", 0))


def line_of_error(error: BaseException) -> str:
    """That line, for a finding."""
    file, line = frame_of_error(error)
    return _line(file, line) if file else "no line known"


def in_a_line(error: BaseException) -> str:
    """An exception as a line of text."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code})"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@dataclass(frozen=True)
class Loaded:
    """Anybody's loss, ready to be called as `(predictions, targets)`.

    Attributes:
        name: as the user named it.
        object: what the name stands for.
        names: those of its file.
        given: arguments that were chosen, by name; `given_to_forward` those of a class's forward.
        hyper: hyperparameters that the doctor sets.
        swapped: it takes targets first.
        columns: of the logits that it is tried with.
        fresh: it keeps a state, and is built anew for each call.
        mended: what was changed in it so that it could run.
        requests: lines that ask for a GPU.
    """

    name: str
    object: Any
    names: Names
    given: Mapping[str, Guess] = field(default_factory=dict)
    given_to_forward: Mapping[str, Guess] = field(default_factory=dict)
    hyper: Mapping[str, Any] = field(default_factory=dict)
    swapped: bool = False
    columns: int = COLUMNS
    fresh: bool = False
    mended: tuple[str, ...] = ()
    requests: dict[str, None] = field(default_factory=dict)
    built: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def takes(self) -> dict[str, Any]:
        """Its arguments beside predictions and targets, with their defaults."""
        found_ones = list(parameters(self.object).items())
        own = found_ones if inspect.isclass(self.object) else found_ones[2:]
        return {name: one.default for name, one in own}

    @property
    def defaults(self) -> dict[str, Any]:
        """What those are that have a default; of an object that is built, its attributes."""
        if isinstance(self.object, nn.Module):
            return dict(vars(self.object))
        return {
            name: default for name, default in self.takes.items() if default is not inspect.Parameter.empty
        }

    def __call__(self, predictions: Tensor, targets: Tensor) -> Any:
        """Its own result; a name that is not defined is bound, and it is called again."""
        with OnCpu(self.requests):
            while True:
                try:
                    return self._call(predictions, targets)
                except NameError as error:
                    if not self.names.bind(error):
                        raise

    def _call(self, predictions: Tensor, targets: Tensor) -> Any:
        given = {name: guess.make(predictions, targets) for name, guess in self.given.items()}
        function = self.object
        if inspect.isclass(function):
            key = predictions.shape[-1] if any(guess.follows for guess in self.given.values()) else None
            if key not in self.built or self.fresh:
                self.built[key] = function(**given | dict(self.hyper))
            function = self.built[key]
            given = {name: guess.make(predictions, targets) for name, guess in self.given_to_forward.items()}
        else:
            given |= self.hyper
        pair = (targets, predictions) if self.swapped else (predictions, targets)
        return function(*pair, **given)

    def with_hyper(self, **hyper: Any) -> "Loaded":
        """The same loss with other hyperparameters."""
        return replace(self, hyper={**self.hyper, **hyper}, built={})

    def ways(self) -> Iterator["Loaded"]:
        """With the arguments that it cannot do without, in the ways that come to mind, the likeliest first.

        Raises:
            NotExamined: an argument that nothing comes to mind for.
        """
        is_class = inspect.isclass(self.object)
        ways: list[dict[str, Guess]] = [{}]
        for name, default in self.takes.items():  # a number of classes that is not the one of the trial calls
            likely = () if "bins" in name else guesses(name)
            if likely and all(guess.follows for guess in likely) and type(default) is int:
                ways = [*({**way, name: guess} for way in ways for guess in likely), *ways]
        for name in required(self.object)[0 if is_class else 2 :]:
            ways = [{**way, name: guess} for guess in self._guesses(name, self.object) for way in ways]
        forward = getattr(self.object, "forward", self.object.__call__) if is_class else None
        called: list[dict[str, Guess]] = [{}]
        for name in required(forward)[3:] if forward is not None else ():
            called = [{**way, name: guess} for guess in self._guesses(name, forward) for way in called]
        for way in ways:
            for rest in called:
                yield replace(self, given=way, given_to_forward=rest, built={})

    def _guesses(self, name: str, function: Any) -> tuple[Guess, ...]:
        likely = guesses(name, function)
        if not likely:
            what = f"{self.name.rpartition(':')[2]}{inspect.signature(function)}"
            raise NotExamined(found("needs an argument", what, name=name))
        return likely


def load(target: str, requests: dict[str, None]) -> tuple[Loaded, list[Finding]]:
    """What `PATH.py:NAME` or `module:NAME` stands for, arguments not chosen yet; what is wrong with the file.

    Lines that ask for a GPU are added to `requests`.

    Raises:
        ValueError: no such file, module or name, or nothing that can be called.
        NotExamined: the file is not Python, or fails when it is imported.
    """
    path, module_name, name = split_target(target)
    findings: list[Finding] = []
    mended: list[str] = []
    if path is not None:
        source = read_source(path, name)
        findings = list(lost_values(source))
        broken, mended = mend(source)
        findings += broken
        names = _import_file(source, requests)
        thing: Any = types.SimpleNamespace(**names.space)
    else:
        names, thing = Names(None), _import_module(module_name, target)
    for part in name.split("."):
        if not hasattr(thing, part):
            near = difflib.get_close_matches(part, dir(thing), n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{target}: there is no {part!r}{hint}")
        owner, thing = thing, getattr(thing, part)
        if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, part)):
            thing = _bound_method(target, owner, part)
    if inspect.isclass(thing) and issubclass(thing, torch.autograd.Function):
        thing = thing.apply
    if not callable(thing):
        raise ValueError(f"{target} is {type(thing).__name__}, not a function or a Module")
    if inspect.isclass(thing) and not any("__call__" in vars(base) for base in thing.__mro__):
        raise ValueError(f"{target} is a class whose objects cannot be called; name a method of it")
    if names.source is None and (source_of := _source_of(thing)) is not None:
        names.source, findings = source_of, list(lost_values(source_of))
    swapped = _targets_first(first_two(thing))
    return Loaded(target, thing, names, swapped=swapped, mended=tuple(mended), requests=requests), findings


def _bound_method(target: str, owner: type, method: str) -> Any:
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


def _import_module(name: str, target: str) -> types.ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == name.split(".")[0]:
            raise ValueError(
                f"{target}: there is no module {error.name!r}; the path is searched for it"
            ) from None
        raise NotExamined(_failed_import(error)) from None


def _failed_import(error: BaseException) -> Finding:
    if isinstance(error, NameError) and error.name:
        return found("undefined", line_of_error(error), name=error.name)
    lacks = isinstance(error, ModuleNotFoundError)
    kind, what = "import lacks" if lacks else "import fails", in_a_line(error)
    return found(kind, line_of_error(error), what=what, name=getattr(error, "name", ""))


def _import_file(source: Source, requests: dict[str, None]) -> Names:
    """Runs the file as a module, again for each name that it leaves undefined and that is then bound."""
    path = source.path.resolve()
    root, package = path.parent, list[str]()
    while (root / "__init__.py").is_file():
        package.insert(0, root.name)
        root = root.parent
    for folder in (root, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    names, code = Names(source), compile(source.tree, str(path), "exec")
    linecache.checkcache(str(path))
    while True:
        module = types.ModuleType(path.stem)
        module.__file__, module.__package__ = str(path), ".".join(package)
        sys.modules.setdefault(path.stem, module)
        names.space = module.__dict__
        names.space.update(names.bound)
        try:
            with OnCpu(requests):
                exec(code, names.space)
            return names
        except NameError as error:
            if not names.bind(error):
                raise NotExamined(_failed_import(error)) from None
        except BaseException as error:
            raise NotExamined(_failed_import(error)) from None


def _source_of(thing: Any) -> Source | None:
    """The file that an imported object is written in."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    thing = type(thing) if isinstance(thing, nn.Module) else thing
    try:
        thing = inspect.unwrap(thing)
        path, name = inspect.getsourcefile(thing), thing.__qualname__.removesuffix(".forward")
        return read_source(Path(path), name) if path and "<" not in name else None
    except (TypeError, AttributeError, ValueError, NotExamined):
        return None


def first_two(thing: Any) -> list[str]:
    """The names of predictions and targets in its own words."""
    if inspect.isclass(thing) or isinstance(thing, nn.Module):
        forward = getattr(thing, "forward", None) or thing.__call__
        return [name.lower() for name in parameters(forward) if name != "self"][:2]
    return [name.lower() for name in parameters(thing)][:2]


def _targets_first(names: list[str]) -> bool:
    targets = ("target", "true", "label", "gt", "ground")
    predictions = ("pred", "input", "logit", "output", "score", "prob")

    def has(name: str, words: tuple[str, ...]) -> bool:
        return any(word in name for word in words)

    return (
        len(names) == 2
        and has(names[0], targets)
        and not has(names[0], predictions)
        and has(names[1], predictions)
    )


def changed_criterion(loaded: Loaded) -> Finding | None:
    """Whether building it changes the reduction of the criterion that is given to it."""
    for name in (
        name for name, guess in loaded.given.items() if guess is BCE and inspect.isclass(loaded.object)
    ):
        given = nn.BCEWithLogitsLoss()
        others = {key: one.make(torch.zeros(2, 3), torch.zeros(2, 3)) for key, one in loaded.given.items()}
        try:
            loaded.object(**{**others, name: given, **loaded.hyper})
        except Exception:
            return None
        if given.reduction != "mean":
            seen = f"{name}.reduction was 'mean', is {given.reduction!r}"
            return found("changes criterion", seen, name=name, what=given.reduction)
    return None
