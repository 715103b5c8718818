"""Damaged annotations: whatever is in a file, reading ends in data or in a ValueError that names the file."""

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detloss.lab.data import Dataset, Sample, load, save

FILES = {
    "coco": "annotations/instances_train.json",
    "voc": "Annotations/a.xml",
    "voc list": "ImageSets/Main/train.txt",
    "yolo": "labels/train/a.txt",
    "yaml": "data.yaml",
    "labelme": "a.json",
    "datumaro": "annotations/train.json",
    "darknet": "obj.data",
}
TOKENS = [
    *(
        "0",
        "-1",
        "1e999",
        "-1e308",
        "nan",
        "inf",
        "9" * 400,
        "0x1",
        "1.5",
        "true",
        "null",
        "None",
        '""',
        "[]",
    ),
    *(
        "{}",
        "[[[[",
        "]]]",
        '"',
        "'",
        "\\",
        "\\u0000",
        "\0",
        "\x1b[2J",
        "\n",
        "\r\n",
        "\t",
        "\ufeff",
        "\ud7ff",
    ),
    *(
        "<",
        ">",
        "&",
        "&a;",
        "<!DOCTYPE a>",
        "<![CDATA[",
        "</object>",
        "<object>",
        "../../etc/passwd",
        "/dev/zero",
    ),
    *(
        "a.png",
        "C:\\a.png",
        "*a",
        "&a ",
        "!!python/none",
        ": ",
        "- ",
        "|",
        "=cmd()",
        "$x$",
        "猫",
        "%s",
        "{0}",
    ),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        1e308,
        -1e308,
        10**400,
        "",
        " ",
        "a",
        "a.png",
        "\0",
        "../a.png",
        "/dev/zero",
    ),
    *([], {}, [1], [1, 2, 3, 4], [-5, -5, 1e308, 1e308], [[1, 2, 3, 4, 5, 6]], {"id": 1}, ["a"], [[[]]]),
]


def make(kind: str, root: Path) -> Path:
    """A small data set of a kind; the file of it that is damaged."""
    sample = Sample(
        np.zeros((10, 20, 3), np.uint8),
        np.array([[1, 1, 9, 9], [2, 2, 12, 8]], np.float32),
        np.array([0, 1]),
        "a",
        np.zeros(2, bool),
    )
    data = Dataset(("cat", "dog"), [sample.annotation], [sample.image])
    formats = {"coco": "coco", "voc": "voc", "voc list": "voc", "yolo": "yolo", "yaml": "yolo"}
    if kind in formats:
        save({"train": data}, root, formats[kind])
        return root / FILES[kind]
    root.mkdir()
    Image.new("RGB", (20, 10)).save(root / "a.png")
    file = root / FILES[kind]
    file.parent.mkdir(exist_ok=True)
    if kind == "labelme":
        shapes = [{"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}]
        file.write_text(
            json.dumps({"shapes": shapes, "imagePath": "a.png", "imageHeight": 10, "imageWidth": 20})
        )
    if kind == "datumaro":
        item = {"id": "a", "annotations": [{"type": "bbox", "label_id": 0, "bbox": [1, 1, 8, 8]}]}
        item |= {"image": {"path": "a.png", "size": [10, 20]}}
        labels = {"label": {"labels": [{"name": "cat"}]}}
        file.write_text(json.dumps({"categories": labels, "items": [item]}))
    if kind == "darknet":
        file.write_text("classes=2\ntrain=train.txt\nnames=obj.names\n")
        (root / "train.txt").write_text("a.png\n")
        (root / "obj.names").write_text("cat\ndog\n")
        (root / "a.txt").write_text("0 .5 .5 .5 .5\n")
    return file


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with one to three changes, of bytes, of words or of a JSON value."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, to = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        match chance.randrange(7):
            case 0:
                content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + content[min(to, at + 8) :]
            case 2:
                content = content[:at] + content[at : at + 20] + content[at:]
            case 3 | 4:
                token = chance.choice(TOKENS).encode("utf-8", "surrogatepass")
                content = content[:at] + token + content[at + chance.randrange(6) :]
            case 5:
                content = content[:at]
            case 6 if content[:1] == b"{":
                content = changed(content, chance)
            case _:
                content = content.decode("utf-8", "replace").encode(
                    chance.choice(("utf-16", "utf-8-sig", "utf-32"))
                )
    return content


def changed(content: bytes, chance: random.Random) -> bytes:
    """JSON in which one value, somewhere, is another."""
    try:
        table = json.loads(content)
    except ValueError:
        return content
    place = table
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or chance.random() < 0.2:
            break
        place = place[key]
    if chance.random() < 0.2:
        del place[key]
    else:
        place[key] = chance.choice(VALUES)
    return json.dumps(table).encode()


def read_damaged(kind: str, count: int, seed: int) -> set[str]:
    """Reads a data set with so many damages; the ways in which it ended."""
    chance = random.Random(f"{kind} {seed}")
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    ended = set()
    with tempfile.TemporaryDirectory(dir=base) as folder:
        file = make(kind, Path(folder) / "set")
        good = file.read_bytes()
        for _ in range(count):
            content = damaged(good, chance)
            file.write_bytes(content)
            try:
                how = {"lenient": chance.random() < 0.5, "allow_outside": chance.random() < 0.2}
                data = load(Path(folder) / "set", "all-splits", **how)
                for i in range(len(data)):
                    boxes, labels, _, _ = data.annotation(i)
                    assert np.isfinite(boxes).all(), content
                    assert ((labels >= 0) & (labels < len(data.names))).all(), content
                    height, width = data.size(i)
                    assert (boxes.min(0, initial=0) >= 0).all()
                    assert (boxes.max(0, initial=0) <= [width, height, width, height]).all()
                ended.add("read")
            except ValueError as error:
                message = str(error)
                assert folder in message, (content, message)
                assert "\n" not in message, (content, message)
                assert len(message) < 3000, (content, message)
                ended.add("refused")
            except Exception as error:
                raise AssertionError(f"{kind}: {error!r} of {content!r}") from error
        shutil.rmtree(Path(folder) / "set")
    return ended


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(kind):
    assert read_damaged(kind, 150, 0) == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_very_many_damaged_files(kind):
    assert read_damaged(kind, 13_000, 1) == {"read", "refused"}
