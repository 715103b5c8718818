"""A type checker and an editor see every loss exactly as it is called."""

import inspect
import re
import sys
from pathlib import Path

import pytest

import detloss
from detloss import losses

ROOT = Path(__file__).parents[1]
CALLS = Path(__file__).parent / "typing" / "calls.py"


def test_the_stub_is_what_the_signatures_say():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import losses_stub
    finally:
        sys.path.pop(0)
    assert losses_stub.FILE.read_text(encoding="utf-8") == losses_stub.stub(), "run `make stub`"


def test_each_function_in_the_stub_has_the_signature_that_python_shows():
    found: dict = {}
    text = Path(losses.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    exec(text[: text.index("\nclass ")], found)
    functions = [name for name in losses.__all__ if inspect.isfunction(getattr(detloss, name))]
    assert len(functions) >= 15
    for name in functions:
        # distribution_integral and others are written out: their annotations are the same objects
        assert inspect.signature(found[name]) == inspect.signature(getattr(detloss, name)), name


@pytest.mark.slow
def test_mypy_accepts_right_calls_and_refuses_wrong_ones():
    api = pytest.importorskip("mypy.api")
    out, _, _ = api.run([str(CALLS), "--no-incremental", "--config-file", str(ROOT / "pyproject.toml")])
    refused = {int(line) for line in re.findall(r"calls\.py:(\d+): error", out)}
    lines = CALLS.read_text(encoding="utf-8").splitlines()
    assert refused == {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}, out
