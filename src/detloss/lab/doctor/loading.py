"""From the name of anybody's loss to something that can be called."""

import functools
import importlib
import inspect
import itertools
import math
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detloss.lab.doctor.arguments import COUNTS, REQUIRED, Guess, guesses, parameters
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.running import Names, OnCpu, in_a_line, line_of_error
from detloss.lab.doctor.source import Source, lost_values, mend, nearest, options, read_source

COLUMNS = 3  # of the first trial calls
_TARGETS = re.compile("target|true|label|gt|ground")
_PREDICTIONS = re.compile("pred|input|logit|output|score|prob")


@dataclass(frozen=True)
class Loaded:
    """Anybody's loss, ready to be called as `(predictions, targets)`.

    Attributes:
        name: as the user named it.
        object: what the name stands for.
        names: those of its file.
        given: arguments that were chosen, by name; `given_to_forward` those of a class's forward.
        hyper: hyperparameters that the doctor sets.
        columns: of the logits that it is tried with.
        fresh: it keeps a state, and is built anew for each call.
        mended: what was changed in it so that it could run.
        called: the user says how.
        built: objects of a class, by the number of columns where one of its arguments follows that.
    """

    name: str
    object: Any
    names: Names
    given: dict[str, Guess] = field(default_factory=dict)
    given_to_forward: dict[str, Guess] = field(default_factory=dict)
    hyper: dict[str, Any] = field(default_factory=dict)
    columns: int = COLUMNS
    fresh: bool = False
    mended: tuple[str, ...] = ()
    called: bool = False
    built: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def takes(self) -> dict[str, Any]:
        """Its arguments beside predictions and targets, with their defaults."""
        own = list(parameters(self.object).items())[0 if inspect.isclass(self.object) else 2 :]
        return {name: one.default for name, one in own}

    @property
    def first_two(self) -> list[str]:
        """The names of predictions and targets in its own words, in small letters."""
        return [name.lower() for name in parameters(_called(self.object)) if name != "self"][:2]

    @functools.cached_property
    def swapped(self) -> bool:
        """Whether it takes targets first, as the names say."""
        first, second, *_ = *self.first_two, "", ""
        return bool(_TARGETS.search(first) and not _PREDICTIONS.search(first) and _PREDICTIONS.search(second))

    def __call__(self, predictions: Tensor, targets: Tensor) -> Any:
        """Its own result, on a machine without a GPU."""
        findings = self.names.findings
        with OnCpu(findings):
            function, given = self.object, _made(self.given, predictions, targets) | self.hyper
            if inspect.isclass(function):
                key = predictions.shape[-1] if any(guess.follows for guess in self.given.values()) else None
                if key not in self.built or self.fresh:
                    self.built[key] = function(**given)
                    findings |= dict.fromkeys(_changed(given))
                function, given = self.built[key], _made(self.given_to_forward, predictions, targets)
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
        own = self._choices(self.object, 0 if is_class else 2)
        rest = self._choices(_called(self.object), 3) if is_class else {}
        for chosen in itertools.product(*own.values(), *rest.values()):
            given, to_forward = (
                {name: guess for name, guess in zip(names, some) if guess is not None}
                for names, some in ((own, chosen), (rest, chosen[len(own) :]))
            )
            yield replace(self, given=given, given_to_forward=to_forward, built={})

    def _choices(self, function: Any, skipped: int) -> dict[str, tuple[Guess | None, ...]]:
        choices: dict[str, tuple[Guess | None, ...]] = {}
        balanced = any(guesses(name) == (COUNTS,) for name in parameters(function))
        for name, one in list(parameters(function).items())[skipped:]:
            likely = guesses(name, one.annotation, options(self.names.source, name))
            if name == "beta" and balanced:  # of the effective number of samples
                likely = guesses("balance")
            if one.default is REQUIRED and not likely:
                what = f"{self.name.rpartition(':')[2]}{inspect.signature(function)}"
                built = "loss(...)" if inspect.isclass(self.object) else "loss"
                call = (
                    f"{built}(logits, labels, {name}=...)"
                    if skipped > 1
                    else f"loss({name}=...)(logits, labels)"
                )
                raise NotExamined(found("needs an argument", what, name=name, call=call))
            if one.default is REQUIRED:
                choices[name] = likely
            elif type(one.default) is int and "bins" not in name and all(guess.follows for guess in likely):
                choices[name] = (*likely, None)  # a number of classes that is not the one of the trial calls
        return choices


def _made(chosen: dict[str, Guess], predictions: Tensor, targets: Tensor) -> dict[str, Any]:
    return {name: guess.make(predictions, targets) for name, guess in chosen.items()}


def _changed(given: dict[str, Any]) -> Iterator[Finding]:
    """Criteria of which the building of an object has changed the reduction."""
    for name, value in given.items():
        if isinstance(value, nn.BCEWithLogitsLoss) and value.reduction != "mean":
            seen = f"{name}.reduction was 'mean', is {value.reduction!r}"
            yield found("changes criterion", seen, name=name, what=value.reduction)


def _called(thing: Any) -> Any:
    """What is called with predictions and targets: of a class a method of its objects."""
    return getattr(thing, "forward", thing.__call__) if inspect.isclass(thing) else thing


def load(target: str, findings: dict[Finding, None], call: str | None = None) -> Loaded:
    """What `PATH.py:NAME` or `module:NAME` stands for: called as `call` says, or arguments not chosen yet.

    What is wrong with the file is added to the findings, and later what comes out while it is called.

    Raises:
        ValueError: no such file, module or name, or nothing that can be called.
        NotExamined: the file is not Python, or fails when it is imported.
    """
    path, module_name, name = split_target(target)
    mended: dict[Finding, str] = {}
    if path is not None:
        source = read_source(path, name)
        findings |= dict.fromkeys(lost_values(source))
        mended = dict(mend(source))
        findings |= dict.fromkeys(mended)
        names = Names(source, findings)
        place = _import_file(source, names)
    else:
        names, place = Names(None, findings), _import_module(module_name, target)
    *owners, last = name.split(".")
    try:
        owner: Any = functools.reduce(getattr, owners, place)
        thing = getattr(owner, last)
    except AttributeError as error:
        near = nearest(str(error.name), dir(error.obj))
        raise ValueError(f"{target}: there is no {error.name!r}{near and '; ' + near}") from None
    if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, last)):
        try:
            thing = getattr(owner(), last)
        except Exception as error:
            why = f"{owner.__name__}() fails ({error}); name an object's: obj.{last}"
            raise ValueError(f"{target} is a method, and {why}") from None
    if call is not None:
        usual = {"torch": torch, "nn": nn, "F": torch.nn.functional, "math": math}
        as_written = eval(call.strip(), usual | vars(place))
        held = {None: thing} if isinstance(thing, nn.Module) else {}
        return Loaded(target, lambda x, t: as_written(thing, x, t), names, called=True, built=held)
    if inspect.isclass(thing) and issubclass(thing, torch.autograd.Function):
        thing = thing.apply
    if not callable(thing):
        raise ValueError(f"{target} is {type(thing).__name__}, not a function or a Module")
    if inspect.isclass(thing) and not any("__call__" in vars(base) for base in thing.__mro__):
        raise ValueError(f"{target} is a class whose objects cannot be called; name a method of it")
    if names.source is None and (written := _source_of(thing)) is not None:
        names.source = written
        findings |= dict.fromkeys(lost_values(written))
    return Loaded(target, thing, names, mended=tuple(mended.values()))


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
    _search(Path.cwd())
    try:
        return importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == name.split(".")[0]:
            why = f"there is no module {error.name!r}; the path is searched for it"
            raise ValueError(f"{target}: {why}") from None
        raise _failed_import(error) from None


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failed_import(error: BaseException) -> NotExamined:
    kind = "import lacks" if isinstance(error, ModuleNotFoundError) else "import fails"
    kind = "undefined" if isinstance(error, NameError) and error.name else kind
    name = getattr(error, "name", "")
    return NotExamined(found(kind, line_of_error(error), what=in_a_line(error), name=name))


def _import_file(source: Source, names: Names) -> types.ModuleType:
    """The file as a module."""
    path = source.path.resolve()
    root, package = path.parent, list[str]()
    while (root / "__init__.py").is_file():
        package.insert(0, root.name)
        root = root.parent
    _search(root)
    _search(Path.cwd())
    module = types.ModuleType(path.stem)
    module.__file__, module.__package__ = str(path), ".".join(package)
    sys.modules.setdefault(path.stem, module)
    vars(module)["__builtins__"] = names
    try:
        with OnCpu(names.findings):
            exec(compile(source.tree, str(path), "exec"), vars(module))
    except BaseException as error:
        raise _failed_import(error) from None
    return module


def _source_of(thing: Any) -> Source | None:
    """The file that an imported object is written in."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    try:
        thing = inspect.unwrap(type(thing) if isinstance(thing, nn.Module) else thing)
        path, name = inspect.getsourcefile(thing), thing.__qualname__.removesuffix(".forward")
        return read_source(Path(path), name) if path and "<" not in name else None
    except (TypeError, AttributeError, ValueError, NotExamined):
        return None
