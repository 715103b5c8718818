"""No command writes over what another has left in --out."""

from pathlib import Path

import pytest
from PIL import Image

from helpers.commands import detloss, refused


@pytest.mark.parametrize(
    "line",
    [
        "curves",
        "simulate --cases 343 --losses iou",
        "inspect --quick",
        "doctor detloss:sigmoid_focal_loss",
        "evaluate {run} --data embedded",
        "predict {run} image.png",
    ],
)
def test_a_run_in_out_is_kept(here: Path, trained: Path, line: str):
    Image.new("RGB", (40, 30)).save("image.png")
    taken = here / "taken"
    taken.mkdir()
    (taken / "config.json").write_text('{"loss": "bce"}')
    refused(detloss(*line.format(run=trained).split(), "--out", taken), "taken")
    assert [file.name for file in taken.iterdir()] == ["config.json"]
    assert (taken / "config.json").read_text() == '{"loss": "bce"}'
