"""What a command line asks for, and one clear line where it asks wrongly."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from detloss.lab.records import load_config

T = TypeVar("T")
Out = Annotated[
    Path | None, tyro.conf.arg(help="Folder for the results; otherwise the next number under runs/.")
]
FromFile = Annotated[
    Path | None,
    tyro.conf.arg(
        name="config", help="A run folder or its config.json; other arguments change what it says."
    ),
]


class Usage(ValueError):
    """Bad arguments: one line, exit status 2."""


def read(command: str, kind: type[T], arguments: Sequence[str], default: T | Any = tyro.MISSING_NONPROP) -> T:
    """What the arguments say, with one line for whatever they say wrongly."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                kind,
                prog=f"detloss {command}",
                description=kind.__doc__,
                args=arguments,
                default=default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise Usage(_one_line(told.getvalue())) from None


def _one_line(box: str) -> str:
    """The message inside the frame that tyro draws round it, and the arguments it suggests."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.strip()]
    # Where the terminal has no UTF-8 there is no frame, and the title is underlined.
    lines = lines[1:] if lines[0].startswith("╭") else lines[2:]
    rules = [i for i, line in enumerate(lines) if not line.strip("─-╰╯")] or [len(lines)]
    message = " ".join(lines[: rules[0]])
    near = [line.split()[0] for line in lines[rules[0] :] if line.startswith("--") and line.strip("-")]
    hint = f"; did you mean {near[0]}?" if near and message.startswith("Unrecognized") else ""
    return f"{message}{hint}"


def given(kind: type[T], arguments: Sequence[str]) -> T:
    """The settings that --config names, or the defaults; looked up before the arguments are parsed."""
    file = _value_of(arguments, "--config")
    return load_config(kind, Path(file)) if file else kind()


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value given to a flag, looked up before the arguments are parsed."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


def refuse_another(out: Path | None, config: Any) -> None:
    """Refuses an --out that holds a run of other settings or of another command: its config.json would go."""
    if out is None or not (out / "config.json").exists():
        return
    try:
        before = load_config(type(config), out)
    except ValueError:
        before = None
    if before != config:
        raise ValueError(f"--out {out} holds something else, which is kept; give another folder")
