"""What the commands show while they work: lines, progress with time left, what Ctrl-C leaves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import category

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from detloss.lab.signals import and_then

# Names of losses hold colons, "epsilon=linear:-1:1": rich would make a picture of ":-1:".
# Names of classes hold brackets, "[red]", which it would take for colours.
console = Console(highlight=False, emoji=False, markup=False)


NARROWEST_NAME = 12
"""Characters of a name that a line of a table holds at least."""
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text behind them."""


@contextmanager
def interruptible(out: Path) -> Iterator[None]:
    """Says, where Ctrl-C or another signal ends the work in `out`, how it is continued."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise and_then(error, f"; the same command with --out {out} continues") from None


def say(text: str) -> None:
    """A line of plain text, whole on a plain stream."""
    console.print("\n".join(map(printable, text.split("\n"))), soft_wrap=not console.is_terminal)


def printable(text: str) -> str:
    """The text with control characters spelt out: a name in somebody's data must not steer a terminal."""
    return "".join(repr(c)[1:-1] if category(c) in ("Cc", "Cs") or c in TURNS else c for c in text)


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1, **style: Any) -> None:
    """Prints `make_table`."""
    console.print(make_table(heads, rows, names, **style))


def make_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: int = 1,
    ends_in_words: bool = False,
    **style: Any,
) -> RenderableType:
    """A table: the first `names` columns are text, folded where it is long; the others are numbers.

    With `ends_in_words` the last column is text, too. Where the terminal is too narrow, each row is a
    paragraph.
    """
    shown = [["\n".join(map(printable, cell.split("\n"))) for cell in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **style)
    least = 0
    for i, head in enumerate(heads):
        width = max(len(line) for row in (heads, *shown) for line in row[i].split("\n"))
        if i < names:
            width = min(width, NARROWEST_NAME)
            table.add_column(head, overflow="fold", min_width=width)
        else:
            words = ends_in_words and i == len(heads) - 1
            table.add_column(head, justify="left" if words else "right", no_wrap=True, min_width=width)
        least += width
    for row in shown:
        table.add_row(*row)
    least += (1 + table.padding[1] + table.padding[3]) * (len(heads) - 1)  # what is between columns
    if least <= console.width:
        return table
    heads = [head.replace("\n", " ") for head in heads]
    lines: list[RenderableType] = []
    for row in shown:
        cells = [f"{head} {cell}".replace("\n", " ") for head, cell in zip(heads[names:], row[names:])]
        lines += [", ".join(row[:names]), Padding(", ".join(cells), (0, 0, 0, 2))]
    return Group(*lines)


def progress_bar() -> Progress:
    """Description, bar, count, time gone and time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar driven by calls with (done, total); it appears with the first of them."""
    with progress_bar() as bar:
        task = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(description, total=total, note="")
            bar.update(task, completed=done)

        yield update
