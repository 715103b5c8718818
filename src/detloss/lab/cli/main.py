"""`detloss COMMAND`: finds the command, and says in one clear line where something went wrong."""

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import NoReturn

from detloss.lab import ranks, signals
from detloss.lab.cli.arguments import Usage
from detloss.lab.cli.terminal import console
from detloss.lab.engines import JobFailed
from detloss.lab.runs import WrongFolder, versions

COMMANDS = {
    "compare": "detloss.lab.compare.command",
    "train": "detloss.lab.training.train_command",
    "evaluate": "detloss.lab.training.evaluate_command",
    "predict": "detloss.lab.training.predict_command",
    "scenes": "detloss.lab.data.command",
    "data": "detloss.lab.data.data_command",
    "bench": "detloss.lab.bench.command",
    "inspect": "detloss.lab.inspect.command",
    "calibration": "detloss.lab.calibration.command",
    "verdict": "detloss.lab.verdict.command",
    "curves": "detloss.lab.curves.command",
    "simulate": "detloss.lab.simulate.command",
    "doctor": "detloss.lab.doctor.command",
}
"""The module of each command; it has `Arguments`, `parse` and `run`."""


_ALONE = {
    "compare": "starts a process for each of its runs: leave torchrun out; --engine and --workers say where "
    "they run and how many at a time"
}
"""Why a command does not go with torchrun, where there is more to say than that it does not."""


def _module(command: str) -> ModuleType:
    return importlib.import_module(COMMANDS[command])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `detloss` command; exits 0 when all was done, 2 on bad arguments or input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # A notebook names its own, which draws into it and is not here; all pictures are files.
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font without a bold face
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
        with signals.caught(), ranks.joined() as one_of_several:
            _run(name, arguments[1:])
    except KeyboardInterrupt as error:
        _end_interrupted(error)
    except Exception:
        if (stopped := signals.came()) is None:
            raise
        _end_interrupted(stopped)
    if one_of_several:
        # All is written. On a busy machine threads of torch's group abort a process that ends as usual.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _run(name: str, arguments: Sequence[str]) -> None:
    """Runs a command; of the processes of one training, that of rank 0 speaks."""
    who = f"detloss {name}" if name in COMMANDS else "detloss"
    console.quiet = ranks.rank() > 0
    try:
        if name not in COMMANDS:
            raise Usage(f"unknown command {name!r}; it may be {', '.join(COMMANDS)}")
        if ranks.world() > 1 and name != "train":
            raise Usage(_ALONE.get(name, "is one process: start it without torchrun, which is for `train`"))
        command = _module(name)
        out = command.run(command.parse(arguments))
    except (ValueError, JobFailed) as error:
        hint = "; give another --out" if isinstance(error, WrongFolder) else ""
        _end(f"{who}: {error}{hint}", 2 if isinstance(error, ValueError) else 1)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _end(f"{who}: {what}; what was finished before is kept", 1)
    except RuntimeError as error:
        if not ranks.lost_another(error):
            raise
        raise SystemExit(1) from None
    except KeyboardInterrupt as error:
        _end_interrupted(error)
    else:
        if ranks.rank() == 0:
            print(out)


def _end_interrupted(error: KeyboardInterrupt) -> NoReturn:
    stopped = signals.and_then(error)
    _end(str(stopped), stopped.status)


def _end(why: str, status: int) -> NoReturn:
    with suppress(OSError):  # a terminal that was closed
        ranks.tell_failure(why)
    raise SystemExit(status) from None


def _overview() -> str:
    lines = ["detloss: the losses of dense object detection, and which one to use on your data", ""]
    for name in COMMANDS:
        lines.append(f"  detloss {name:<11} {_module(name).Arguments.__doc__.splitlines()[0]}")
    return "\n".join(
        [*lines, "", "`detloss COMMAND --help` lists the arguments of a command; most have --quick."]
    )
