"""Frozen dataclasses as plain JSON and back: the configurations and the results of runs."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")


def to_dict(record: Any) -> dict[str, Any]:
    """Plain JSON types of a dataclass; nan and infinity become None."""
    return {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(inner) for inner in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """The inverse of `to_dict`; None where a number is due is nan, and what is left out has its default.

    A field added later may mean something else where an older file leaves it out: `metadata={"before": ...}`.

    Raises:
        ValueError: an unknown name (the nearest is suggested), a missing one, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {shorten(values)}; it must be an object of names and values")
    hints = typing.get_type_hints(kind)
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = {f.name: f.metadata["before"] for f in fields if "before" in f.metadata} | dict(values)
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it may have {', '.join(hints)}"
            raise ValueError(f"{where} has no {name!r}{hint}")
    nothing = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is nothing and f.default_factory is nothing]
    if missing := [repr(name) for name in needed if name not in values]:
        raise ValueError(f"{where} has no {', '.join(missing)}; if an older version wrote it, make it again")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), list(typing.get_args(kind))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_dict(kind, value, where)
    if origin is Literal:
        if value in inner:
            return value
        raise ValueError(f"{where} is {shorten(value)}; it may be {', '.join(map(str, inner))}")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = [inner[0]] * len(value)
        if len(inner) == len(value):
            return tuple(_value(k, v, where) for k, v in zip(inner, value))
    if origin is dict and isinstance(value, dict):
        return {key: _value(inner[1], v, f"{where}: {key}") for key, v in value.items()}
    if kind is np.ndarray and isinstance(value, list):
        return np.array([v if type(v) is int else _value(float, v, where) for v in value])
    if kind is float and value is None:
        return math.nan
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {shorten(value)}; it must be {getattr(kind, '__name__', kind)}")


def difference(found: Any, wanted: Any) -> str:
    """In what two records of one kind that are not equal differ first: "lr is 0.1, not 0.2"."""
    for f in dataclasses.fields(wanted):
        one, other = getattr(found, f.name), getattr(wanted, f.name)
        if f.compare and one != other:
            if dataclasses.is_dataclass(other) and type(one) is type(other):
                return f"{f.name}.{difference(one, other)}"
            return f"{f.name} is {shorten(one)}, not {shorten(other)}"
    return "nothing"


def check_choices(record: Any) -> None:
    """ValueError where a field has a value that its `Literal` does not allow."""
    for name, kind in typing.get_type_hints(type(record)).items():
        if typing.get_origin(kind) is Literal:
            _value(kind, getattr(record, name), name)


def first_line(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def require(record: Any, name: str, holds: bool, words: str) -> None:
    """ValueError "NAME is VALUE; WORDS" where what must hold of a record's field does not."""
    if not holds:
        raise ValueError(f"{name} is {getattr(record, name)!s}; {words}")


def require_least(record: Any, **least: float) -> None:
    """ValueError where a field is below the least that is given for its name."""
    for name, low in least.items():
        require(record, name, getattr(record, name) >= low, f"it must be at least {low}")


def require_distinct(record: Any, *names: str) -> None:
    """ValueError where a list among a record's fields is empty or has a value twice."""
    for name in names:
        values = getattr(record, name)
        if not values:
            raise ValueError(f"{name} is empty; name at least one")
        if len(set(values)) < len(values):
            raise ValueError(f"{name} is {' '.join(map(str, values))}; each may be there once")


def load_config(kind: type[T], path: Path) -> T:
    """Reads a configuration from its file, or from the `config.json` of a run folder.

    Raises:
        ValueError: no such file, not JSON, or not a configuration of this kind.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"config {path} is not JSON: {error}") from None
    return from_dict(kind, values, str(path))
