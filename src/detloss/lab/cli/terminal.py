"""What the commands show while they work: lines, progress with time left, what Ctrl-C leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

# Names of losses hold colons, "epsilon=linear:-1:1": rich would make a picture of ":-1:".
console = Console(highlight=False, emoji=False)


class Interrupted(Exception):
    """Ctrl-C; the message says how to go on."""


@contextmanager
def interruptible(out: Path) -> Iterator[None]:
    """Says on Ctrl-C how the work in `out` is continued."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command with --out {out} continues") from None


def say(text: str) -> None:
    """A line of plain text, whole on a plain stream."""
    console.print(text, soft_wrap=not console.is_terminal, markup=False)


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
