"""What every client shares: attributes of instances that are put in, told of, and taken out again."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

_MARK = "detloss_swap"


class _Missing:
    """Stands for an attribute that the instance had not."""


class Swap:
    """The losses that `swap_losses` has put into a model; it ends by `restore()`, or as a context manager.

    Only attributes of this model's instances are set: no class and no module of the client is changed, so
    that other models, and other clients, in the process are as they were. A copy of the model (`deepcopy`,
    pickle) is swapped too, and `swapped(copy)` has a Swap of its own.

    Attributes:
        losses: what stands for each term now, by the term's name.
    """

    def __init__(self, losses: Mapping[str, str]) -> None:
        if not losses:
            raise ValueError("no loss is given; give classification, box or both: nothing would be swapped")
        self.losses = dict(losses)
        self._undo: list[Callable[[], None]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of an instance; `restore` sets the former one, or removes this one."""
        parts = owner._modules if isinstance(owner, nn.Module) else {}
        self._undo.append(partial(_put_back, owner, name, {**vars(owner), **parts}.get(name, _Missing)))
        setattr(owner, name, value)

    def add(self, items: list[Any], item: Any) -> None:
        """Append to a list; `restore` takes it out."""
        self._undo.append(partial(_take_out, items, item))
        items.append(item)

    def mark(self, part: Any) -> None:
        """Let `swapped` find this by the part, and let the part's `repr` tell of it."""
        self.put(part, _MARK, self)
        if isinstance(part, nn.Module):
            self.put(part, "extra_repr", partial(_told, part))

    def restore(self) -> None:
        """Undo all of it; a second time nothing is left to undo."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> "Swap":
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def __repr__(self) -> str:
        terms = ", ".join(f"{term}={name}" for term, name in self.losses.items())
        return f"Swap({terms}{'' if self._undo else '; restored'})"


def swapped(model: Any) -> Swap | None:
    """The Swap that is in a model (also inside DistributedDataParallel), or None.

    So `swapped(model).restore()` needs no variable that was kept.

    Examples:
        >>> print(swapped(nn.Linear(1, 1)))
        None
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else [model]
    parts += [vars(part)["criterion"] for part in parts if "criterion" in vars(part)]
    return next((vars(part)[_MARK] for part in parts if _MARK in getattr(part, "__dict__", ())), None)


def check_free(model: Any) -> None:
    """ValueError if the model has its losses swapped already."""
    there = swapped(model)
    if there is not None:
        raise ValueError(
            f"model has its losses swapped already: {there}; first call "
            "detloss.integrations.swapped(model).restore()"
        )


def check_version(client: str, least: str, below: str) -> None:
    """RuntimeError unless the client's version is one that this was tested with, least ≤ version < below."""
    try:
        found = version(client)
    except PackageNotFoundError:
        raise RuntimeError(
            f"{client} is not installed; this was tested with {client}>={least},<{below}"
        ) from None
    if not _numbers(least) <= _numbers(found) < _numbers(below):
        raise RuntimeError(
            f"{client} is {found}; its losses are swapped in {client}>={least},<{below}, which was tested: "
            f'pip install "{client}>={least},<{below}"'
        )


def _numbers(text: str) -> tuple[int, ...]:
    """0.26.0+cpu → (0, 26, 0); what is not a number ends it."""
    numbers = []
    for part in text.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _put_back(owner: Any, name: str, value: Any) -> None:
    if value is _Missing:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _take_out(items: list[Any], item: Any) -> None:
    if item in items:
        items.remove(item)


def _told(part: nn.Module) -> str:
    own = type(part).extra_repr(part)
    terms = ", ".join(f"{term}={name}" for term, name in vars(part)[_MARK].losses.items())
    return f"{own}{', ' if own else ''}losses swapped by detloss: {terms}"
