"""What a run on another machine is given: own files, the way to the data; and what comes back."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from detloss.lab.engines.kept import Kept, read_files, write_files
from detloss.lab.engines.own_files import OwnFiles, pack, unpack


@dataclass(frozen=True)
class Settings:
    loss: str = "focal,gamma=1.5"
    box_loss: str = "giou"
    weights: str = ""
    strides: tuple[int, ...] = (4, 8)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    config: Settings
    data: str = ""
    folder: Path = field(default=Path("out"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Where the command is started; working folder and import path are as before when the test ends."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return place


def test_named_files_are_found_however_they_are_named(here):
    for name in ("mine.py", "box.py", "state.pt", "of/two.py", "not_named.py"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(name)
    (here / "set.yaml").write_text("names: [a]")
    own = pack(
        [
            Job(Settings("mine.py:loss,tau=2", "giou+0.4*box.py:loss", "state.pt"), data="set.yaml"),
            Job(Settings(names=("of/two.py:build", "absent.py:loss", "here.is:nothing"))),
        ]
    )
    assert own.files == {name: name.encode() for name in ("mine.py", "box.py", "state.pt", "of/two.py")}
    assert own.data == ("set.yaml",)
    assert own.here == here


def test_imported_modules_below_the_working_folder_go_along(here, monkeypatch):
    (here / "mine_for_test").mkdir()
    (here / "mine_for_test/__init__.py").write_text("from mine_for_test import part\n")
    (here / "mine_for_test/part.py").write_text("VALUE = 3\n")
    (here / "lib/site-packages").mkdir(parents=True)
    (here / "lib/site-packages/installed_for_test.py").write_text("")
    monkeypatch.syspath_prepend(here)
    monkeypatch.syspath_prepend(here / "lib/site-packages")
    import installed_for_test  # noqa: F401
    import mine_for_test  # noqa: F401

    try:
        assert set(pack([Job(Settings())]).files) == {"mine_for_test/__init__.py", "mine_for_test/part.py"}
    finally:
        for name in ("mine_for_test", "mine_for_test.part", "installed_for_test"):
            del sys.modules[name]


def test_the_other_machine_looks_like_this_one(here, tmp_path):
    (here / "data").mkdir()
    (tmp_path / "beside.py").write_text("")
    files = {"mine.py": b"loss", "of/two.py": b"two", "../beside.py": b"beside"}
    unpack(OwnFiles(here, files, ("data", str(here))), tmp_path / "root")
    assert Path.cwd() == tmp_path / "root" / here.relative_to("/")
    assert {name: Path(name).read_bytes() for name in files} == files
    assert (tmp_path / "beside.py").read_bytes() == b""  # what is there is not written to
    assert Path("data").resolve() == here / "data"
    assert sys.path[0] == str(Path.cwd())


def test_what_is_not_there_is_named(here, tmp_path):
    absolute = str(tmp_path / "mine.py")
    for content in (None, "another"):
        if content:
            Path(absolute).write_text(content)
        with pytest.raises(ValueError, match=r"mine.py is not the same file here; name it relative"):
            unpack(OwnFiles(here, {absolute: b"loss"}, ()), tmp_path / "root")
    Path(absolute).write_bytes(b"loss")
    unpack(OwnFiles(here, {absolute: b"loss"}, ()), tmp_path / "root")
    with pytest.raises(ValueError, match=rf"the data {here}/coco is not here, and data is not sent: copy it"):
        unpack(OwnFiles(here, {}, ("coco",)), tmp_path / "other")


def test_a_folder_is_kept_as_it_is_there(tmp_path):
    there, copy = tmp_path / "there", tmp_path / "copy"
    write_files(copy, {"log.csv": b"1"})
    kept = Kept(there, shared=False, files=read_files(copy))
    assert read_files(there) == {"log.csv": b"1"}
    assert kept.changed() == {}
    # the order in which they were written, since a later one may speak of an earlier
    for name, content in (("log.csv", b"12"), ("last.pt", b"state"), ("metrics.json", b"{}")):
        write_files(there, {name: content})
    (there / "half.part").write_bytes(b"half")
    changed = kept.changed()
    assert set(changed) == {"log.csv", "last.pt", "metrics.json"}
    write_files(copy, changed)
    assert kept.changed() == {}
    (there / "last.pt").unlink()
    changed = kept.changed()
    assert changed == {"last.pt": None}
    write_files(copy, changed)
    assert read_files(copy) == {"log.csv": b"12", "metrics.json": b"{}"}


def test_a_shared_folder_is_not_copied(tmp_path):
    kept = Kept(tmp_path, shared=True, files={"log.csv": b"1"})
    (tmp_path / "last.pt").write_bytes(b"state")
    assert kept.changed() == {}
    assert not (tmp_path / "log.csv").exists()
