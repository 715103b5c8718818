"""What the commands show while they work: lines, progress with time left, what Ctrl-C leaves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from detloss.lab.signals import and_then

# Names of losses hold colons, "epsilon=linear:-1:1": rich would make a picture of ":-1:".
console = Console(highlight=False, emoji=False)


@contextmanager
def interruptible(out: Path) -> Iterator[None]:
    """Says, where Ctrl-C or another signal ends the work in `out`, how it is continued."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise and_then(error, f"; the same command with --out {out} continues") from None


def say(text: str) -> None:
    """A line of plain text, whole on a plain stream."""
    console.print(text, soft_wrap=not console.is_terminal, markup=False)


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1, **style: Any) -> None:
    """Prints a table: the first `names` columns are text, folded where it is long; the others are numbers."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **style)
    for i, head in enumerate(heads):
        named = i < names
        table.add_column(head, justify="left" if named else "right", overflow="fold", no_wrap=not named)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def progress_bar() -> Progress:
    """Description, bar, count, time gone and time left."""
    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        "{task.fields[note]}",
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
