"""Calling a command as a user types it."""

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from detloss.lab.cli.main import main

SCENES = shlex.split("--scenes.size 32 --scenes.object-size 8 16 --scenes.train 8 --scenes.val 4")
NETWORK = shlex.split(
    "--size 32 --batch 2 --evaluations 1 --detector.width 8 --detector.channels 8 --device cpu"
)
TINY = [*SCENES, *NETWORK, "--steps", "3"]


@dataclass
class Done:
    """What a command came to."""

    status: object
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The last line of output."""
        return Path(self.out.splitlines()[-1])


def detloss(*arguments: object) -> Done:
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code or 0
    return Done(status, out.getvalue(), err.getvalue())


def refused(done: Done, message: str) -> None:
    """Exit status 2 and one clear line."""
    assert done.status == 2, done.out
    assert done.err.count("\n") == 1, done.err
    assert re.fullmatch(f"detloss.*{message}.*\n", done.err), done.err
