"""What `make torture` tries, a little of each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "torture.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals, mounts and limits of POSIX")
def test_nothing_is_lost():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, TOOL, "--short", "--no-ray"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| all | " in done.stdout
