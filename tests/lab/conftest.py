from pathlib import Path

import pytest

from helpers.commands import SCENES, TINY, detloss


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of three steps."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = detloss("train", "--out", out, "--loss", "focal,gamma=1.5", *TINY)
    assert done.status == 0, done.err
    assert done.folder == out
    return out


@pytest.fixture
def voc(here) -> Path:
    """The scenes as a user's own VOC folder."""
    assert detloss("scenes", "--out", "voc", "--format", "voc", *SCENES).status == 0
    return here / "voc"
