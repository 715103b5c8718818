"""What a command line asks for, and one clear line where it asks wrongly."""

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro import _errors  # private, but its one way to say in other words what is wrong

from detloss.lab.data.find import Reading
from detloss.lab.own_code import named_code
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import new_folder, versions, write_json

T = TypeVar("T")
OUT = "Folder for the results; otherwise the next number under runs/."
CONFIG = "A run folder or its config.json; other arguments change what it says."
CATEGORY_IDS = (
    "What category_id means in COCO results: auto (what fits the objects; it is printed), own (the ids of "
    "the annotations), 0 or 1 (classes in order, from there), coco (the 80 ids from 1 to 90), or NAME=ID "
    "for each class."
)
TRUST = "Run the code of others that --config names (FILE.py:function, module:function): you have read it."
Out = Annotated[Path | None, tyro.conf.arg(help=OUT)]
DataReading = Annotated[Reading, tyro.conf.arg(name="")]
MostImages = Annotated[int, tyro.conf.arg(name="most-images")]
"""A number of images; --images is their folder."""
FromFile = Annotated[Path | None, tyro.conf.arg(name="config", help=CONFIG)]
CategoryIds = Annotated[tuple[str, ...], tyro.conf.arg(help=CATEGORY_IDS)]
Trust = Annotated[bool, tyro.conf.arg(help=TRUST)]


class Usage(ValueError):
    """Bad arguments: one line, exit status 2."""


def read(command: str, kind: type[T], arguments: Sequence[str], default: T | Any = tyro.MISSING_NONPROP) -> T:
    """What the arguments say, with one line for whatever they say wrongly."""
    how: Any = {
        "prog": f"detloss {command}",
        "description": inspect.getdoc(kind),
        "default": default,
        "config": (tyro.conf.FlagCreatePairsOff,),
    }

    def refuse(event: _errors.ParseErrorEvent) -> None:
        message = _one_line(event)
        if isinstance(event, _errors.UnrecognizedArgs):
            flags = tyro.extras.get_parser(kind, **how)._option_string_actions
            near = [flag for token in event.tokens for flag in difflib.get_close_matches(token, flags, n=1)]
            message += f"; did you mean {near[0]}?" if near else ""
        raise Usage(message)

    with _errors.on_parse_error(refuse):
        return tyro.cli(kind, args=arguments, **how)


def _one_line(event: _errors.ParseErrorEvent) -> str:
    match event:
        case _errors.UnrecognizedArgs():
            return f"Unrecognized options: {', '.join(event.tokens)}"
        case _errors.MissingArgs():
            names = ", ".join(one.arg.display_name() for one in event.missing_arguments)
            return f"{names} is missing; `{event.prog} --help` says what it is"
        case _errors.BadValue():
            count = event.argument.lowered.nargs
            return f"{event.argument.display_name()} takes {f'{count} values' if count != 1 else 'a value'}"
        case _errors.InvalidChoice():
            choices = ", ".join(event.choices)
            return f"{event.argument.display_name()} is {event.value!r}; it may be {choices}"
        case _errors.InstantiationFailure():
            return f"{event.argument.display_name()}: {event.message}" if event.argument else event.message
    return f"bad arguments; `{event.prog} --help` lists them"


def given(kind: type[T], arguments: Sequence[str]) -> T:
    """The settings that --config names, or the defaults; looked up before the arguments are parsed.

    Raises:
        ValueError: no such file, or it names code, which is run only with --trust.
    """
    for argument, after in zip(arguments, [*arguments[1:], ""]):
        flag, equals, value = argument.partition("=")
        if flag == "--config" and (file := value if equals else after):
            config = load_config(kind, Path(file))
            check_trust(config, Path(file), "--trust" in arguments)
            return config
    return kind()


def check_trust(config: Any, file: Path, trust: bool) -> None:
    """ValueError where a configuration from a file names code, and the user has not said yes."""
    if (named := named_code(config)) and not trust:
        raise ValueError(
            f"{file} names code that would be run: {', '.join(named)}; read it, and add --trust to run it"
        )


def read_settings(command: str, kind: type[T], settings: type, arguments: Sequence[str]) -> T:
    """What the arguments say of a command with settings: defaults, changed by --config, by --quick (the
    settings' own `quick`), by the other arguments, in this order.
    """
    config: Any = given(settings, arguments)
    if "--quick" in arguments:
        config = config.quick()
    return read(command, kind, arguments, kind(config))  # type: ignore[call-arg]


def results_folder(command: str, out: Path | None, config: Any, device: str = "cpu") -> Path:
    """The folder for a command's results, with config.json and versions.json in it.

    Raises:
        ValueError: `out` holds results of other settings; WrongFolder where it cannot be a folder.
    """
    refuse_another(out, config)
    folder = new_folder(command, out)
    write_json(folder / "config.json", to_dict(config))
    write_json(folder / "versions.json", versions(device))
    return folder


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
