"""`detloss COMMAND`: finds the command, and says in one clear line where something went wrong."""

import importlib
import io
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from detloss.lab.cli.arguments import Usage
from detloss.lab.cli.terminal import Interrupted
from detloss.lab.engines import JobFailed
from detloss.lab.runs import WrongFolder, versions

COMMANDS = {
    "compare": "detloss.lab.compare.command",
    "train": "detloss.lab.training.train_command",
    "evaluate": "detloss.lab.training.evaluate_command",
    "predict": "detloss.lab.training.predict_command",
    "scenes": "detloss.lab.data.command",
    "bench": "detloss.lab.bench.command",
    "inspect": "detloss.lab.inspect.command",
    "calibration": "detloss.lab.calibration.command",
    "curves": "detloss.lab.curves.command",
    "simulate": "detloss.lab.simulate.command",
    "doctor": "detloss.lab.doctor.command",
}
"""The module of each command; it has `Arguments`, `parse` and `run`."""


def _module(command: str) -> ModuleType:
    return importlib.import_module(COMMANDS[command])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `detloss` command; exits 0 when all was done, 2 on bad arguments or input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # matplotlib and the forkserver warn about what a user can do nothing about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow is no reason to fail in a terminal without UTF-8
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0)
    if name == "--version":
        print(versions("cpu")["detloss"])
        raise SystemExit(0)
    try:
        if name not in COMMANDS:
            raise Usage(f"unknown command {name!r}; it may be {', '.join(COMMANDS)}")
        command = _module(name)
        out = command.run(command.parse(arguments[1:]))
    except (ValueError, JobFailed) as error:
        hint = "; give another --out" if isinstance(error, WrongFolder) else ""
        who = f"detloss {name}" if name in COMMANDS else "detloss"
        print(f"{who}: {error}{hint}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from None
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"detloss {name}: {what}; what was finished before is kept", file=sys.stderr)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, Interrupted) as error:
        print(str(error) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    print(out)


def _overview() -> str:
    lines = ["detloss: the losses of dense object detection, and which one to use on your data", ""]
    for name in COMMANDS:
        lines.append(f"  detloss {name:<11} {_module(name).Arguments.__doc__.splitlines()[0]}")
    return "\n".join(
        [*lines, "", "`detloss COMMAND --help` lists the arguments of a command; most have --quick."]
    )
