"""The command `detloss`.

It stands outside of the package, whose import takes seconds: Ctrl-C is one line in these, too.
"""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the laboratory's command line; without the extra that it needs, say what to install."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        from detloss.lab.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "detloss":
            raise
        message = (
            f"detloss: the command needs the laboratory ({error.name} is missing): pip install 'detloss[lab]'"
        )
        print(message, file=sys.stderr)
        raise SystemExit(2) from None
    run()


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: before it begins, and after its end, there is nothing to save."""
    name = signal.Signals(number).name
    os.write(2, b"interrupted\n" if name == "SIGINT" else f"ended by {name}\n".encode())
    os._exit(128 + number)
