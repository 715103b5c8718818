"""Data, own files and versions that change within a folder are an error that names them."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detloss.lab.own_code import named_code, named_files
from detloss.lab.runs import read_json, write_json
from detloss.lab.training.config import TrainConfig
from helpers.commands import NETWORK, TINY, detloss, refused

MINE = """
from beside import factor

def mine(logits, targets):
    return factor * (logits - targets) ** 2
"""
FIXED = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--workers", "1"]


def pixels(voc: Path) -> str:
    """The same size, also in bytes: no compression."""
    file = sorted((voc / "JPEGImages").glob("train-*"))[3]
    image = np.array(Image.open(file))
    image[5, 5] ^= 1
    Image.fromarray(image).save(file)
    return "the pixels of split training has changed since run was begun"


def boxes(voc: Path) -> str:
    file = next(f for f in sorted((voc / "Annotations").glob("val-*.xml")) if "<object>" in f.read_text())
    start, end = file.read_text().split("<xmax>", 1)
    number, rest = end.split("<", 1)
    file.write_text(f"{start}<xmax>{int(number) - 1}<{rest}")
    return "the objects of split validation has changed since run was begun"


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("change", [pixels, boxes])
def test_data(voc, command, change):
    fixed = FIXED if command == "compare" else []
    arguments = [command, "--data", voc, "--steps", "2", *NETWORK, *fixed, "--out", "run"]
    assert detloss(*arguments).status == 0
    kept = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    shutil.copytree(voc, "before")
    message = change(voc)
    refused(detloss(*arguments), f"{message}.*put it back as it was; give another --out")
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == kept
    shutil.rmtree(voc)
    shutil.copytree("before", voc)
    assert detloss(*arguments).status == 0


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("name", "what"), [("mine.py", "the file mine.py"), ("beside.py", "the module beside")]
)
def test_own_files(here, monkeypatch, command, name, what):
    monkeypatch.delitem(sys.modules, "beside", raising=False)  # of another test's folder
    monkeypatch.syspath_prepend(here)
    (here / "mine.py").write_text(MINE)
    (here / "beside.py").write_text("factor = 1.0\n")
    losses = (
        ["--losses", "mine.py:mine", "bce", *FIXED] if command == "compare" else ["--loss", "mine.py:mine"]
    )
    arguments = [command, *losses, *TINY, "--out", "run"]
    try:
        assert detloss(*arguments).status == 0
        with (here / name).open("a") as file:
            file.write("# changed\n")
        del sys.modules["beside"]
        refused(detloss(*arguments), f"{what} has changed since run was begun")
        # another folder is another matter
        assert detloss(*arguments[:-1], "other").status == 0
    finally:
        sys.modules.pop("beside", None)


def test_versions(here, trained):
    shutil.copytree(trained, "run")
    known = read_json(Path("run/origin.json"))
    write_json(Path("run/origin.json"), known | {"the version of torch": "1.0"})
    now = known["the version of torch"]
    message = f"the version of torch has changed, from 1.0 to {now} since run was begun"
    refused(detloss("train", "--config", "run", "--out", "run"), message)


def test_a_folder_of_before_goes_on(here, trained):
    shutil.copytree(trained, "run")
    known = Path("run/origin.json").read_bytes()
    Path("run/origin.json").unlink()
    assert detloss("train", "--config", "run", "--out", "run").status == 0
    assert Path("run/origin.json").read_bytes() == known


# Which code a configuration names


def config(**changes) -> TrainConfig:
    return TrainConfig(**changes)


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ([], {}),
        ([], {"loss": "focal,gamma=linear:0:2,mining=hard:3,class_weight=effective:0.999"}),
        ([], {"data": "C:/data", "device": "cuda:1"}),
        (["mine.py:loss"], {"loss": "mine.py:loss"}),
        (["of/mine.py:loss"], {"loss": "of/mine.py:loss,tau=2"}),
        (["os:system"], {"loss": "os:system"}),
        (["a.b:c"], {"box_loss": "giou+0.4*a.b:c"}),
        (["own.py:train"], {"trainer": "own.py:train"}),
    ],
)
def test_named_code(named, changes):
    assert named_code(config(**changes)) == named


def test_named_files(here):
    for name in ("mine.py", "set.yaml"):
        (here / name).write_text("")
    assert named_files(config(loss="mine.py:loss,tau=2", data="set.yaml")) == ["mine.py"]


@pytest.mark.parametrize("command", ["train", "compare", "inspect"])
def test_code_that_a_configuration_names_needs_trust(here, command):
    (here / "evil.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef loss(x, t):\n    return (x - t) ** 2\n"
    )
    name = {"train": "loss", "compare": "losses", "inspect": "losses"}[command]
    write_json(here / "config.json", {name: "evil.py:loss" if command == "train" else ["evil.py:loss"]})
    arguments = [command, "--config", "config.json", *TINY, "--out", "out"]
    refused(
        detloss(*arguments),
        "config.json names code that would be run: evil.py:loss; read it, and add --trust",
    )
    assert not (here / "ran").exists()
    fixed = [*FIXED, "--losses", "bce", "evil.py:loss"] if command == "compare" else []
    done = detloss(*arguments, *fixed, "--trust")
    assert done.status == 0, done.err
    assert (here / "ran").exists()


@pytest.mark.parametrize("command", ["evaluate run", "predict run image.png"])
def test_a_detector_that_a_run_names_needs_trust(here, trained, command):
    shutil.copytree(trained, "run")
    (here / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    known = read_json(Path("run/config.json"))
    write_json(Path("run/config.json"), known | {"detector": {"kind": "evil.py:build"}})
    Image.new("RGB", (40, 30)).save("image.png")
    refused(detloss(*command.split(), "--out", "out"), "run names code that would be run: evil.py:build")
    assert not (here / "ran").exists()
    refused(detloss(*command.split(), "--trust", "--out", "out"), "kind evil.py:build")
    assert (here / "ran").exists()
