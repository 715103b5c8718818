"""The command line: one module a command, each with its `Arguments`, `parse` and `run`."""

import io
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from detloss.cli import (
    bench,
    calibration,
    compare,
    curves,
    evaluate,
    inspect,
    predict,
    scenes,
    simulate,
    train,
)
from detloss.cli.arguments import Usage
from detloss.cli.terminal import Interrupted
from detloss.lab.doctor import command as doctor
from detloss.parallel import JobFailed
from detloss.runs import versions
from detloss.train import NonFiniteLoss

COMMANDS: dict[str, ModuleType] = {
    "compare": compare,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "scenes": scenes,
    "bench": bench,
    "inspect": inspect,
    "calibration": calibration,
    "curves": curves,
    "simulate": simulate,
    "doctor": doctor,
}


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
        out = COMMANDS[name].run(COMMANDS[name].parse(arguments[1:]))
    except (ValueError, NonFiniteLoss, JobFailed) as error:
        print(f"detloss {name}: {error}" if name in COMMANDS else f"detloss: {error}", file=sys.stderr)
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
    for name, command in COMMANDS.items():
        lines.append(f"  detloss {name:<11} {command.Arguments.__doc__.splitlines()[0]}")
    return "\n".join(
        [*lines, "", "`detloss COMMAND --help` lists the arguments of a command; most have --quick."]
    )
