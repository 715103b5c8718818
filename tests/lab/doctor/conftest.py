"""A working folder, and losses in files of it, for the tests beside this one."""

import textwrap
import warnings

import pytest

from detloss.lab.doctor.diagnose import Seen
from detloss.lab.doctor.examine import examine
from detloss.lab.doctor.loading import load
from detloss.lab.doctor.settle import settle

HEAD = "import functools\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def written(tmp_path):
    """Writes a file; the target that names a loss in it."""

    def write(text, name="loss", head=HEAD):
        path = tmp_path / "mine.py"
        path.write_text(head + textwrap.dedent(text))
        return f"{path}:{name}"

    return write


@pytest.fixture
def settled(written):
    """The subject that a loss is, and what came out on the way."""

    def settle_it(text, name="loss", head=HEAD, kind="auto"):
        findings = {}
        return settle(load(written(text, name, head), findings), kind), list(findings)

    return settle_it


@pytest.fixture
def examined(written):
    """All that an examination in this process says of a loss, by name or by its text."""

    def run(text, name="loss", head=HEAD, kind="auto", like=None, skip=(), call=None):
        seen = Seen()
        target = text if ":" in text and "\n" not in text else written(text, name, head)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            examine({"target": target, "kind": kind, "like": like, "skip": skip, "call": call}, seen.take)
        return seen

    return run
