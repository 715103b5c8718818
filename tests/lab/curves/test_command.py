"""`detloss curves` as a user types it."""

from dataclasses import replace

import pytest
from PIL import Image

from detloss.lab.curves.command import parse
from detloss.lab.curves.tables import CurvesConfig
from detloss.lab.records import load_config
from detloss.lab.runs import read_csv
from helpers.commands import detloss, refused

FIGURES = {"loss", "gradient", "weight", "alpha", "soft_targets", "minimisers", "boxes"}


SOFT = (*CurvesConfig.soft_losses, "mal")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text("def mine(x, t):\n    return (x.sigmoid() - t) ** 2\n")
    return f"{path}:mine"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, own):
    out = tmp_path_factory.mktemp("curves") / "run"
    return detloss("curves", "--quick", "--soft-losses", *SOFT, own, "--out", out)


def test_a_run_folder_with_pictures_and_tables(drawn):
    assert drawn.status == 0, drawn.err
    assert {file.stem for file in drawn.folder.glob("*.svg")} == FIGURES
    for file in drawn.folder.glob("*.png"):
        with Image.open(file) as image:
            assert image.width == 1080  # six inches
    assert {file.stem for file in drawn.folder.glob("*.png")} == FIGURES
    rows = read_csv(drawn.folder / "curves.csv")
    assert {row["figure"] for row in rows} == FIGURES
    over_p = [row for row in rows if row["panel"] == "loss over probability"]
    whole, half = (
        [row for row in over_p if row["curve"] == f"focal,alpha=none,gamma={g}"] for g in ("0", "0.5")
    )
    assert len(whole) == len(half) == 60
    for one, other in zip(whole, half):
        assert float(other["y"]) == pytest.approx((1 - float(one["x"])) ** 0.5 * float(one["y"]), rel=1e-7)


def test_minimisers_as_table_and_in_print(drawn, own):
    table = {(row["loss"], row["soft_target"]): row for row in read_csv(drawn.folder / "minimisers.csv")}
    assert len(table) == 6 * 4
    assert [float(table[own, t]["p"]) for t in ("0.1", "0.8")] == pytest.approx([0.1, 0.8], abs=1e-7)
    assert float(table["mal", "0.5"]["p"]) == pytest.approx(0.5**1.5, abs=1e-7)
    assert float(table["focal,alpha=none", "0.3"]["p"]) == pytest.approx(0.122349, abs=1e-6)
    assert float(table["quality_focal", "0.3"]["value"]) == pytest.approx(0, abs=1e-20)
    (line,) = (line for line in drawn.out.splitlines() if line.startswith("focal,alpha=none "))
    assert line.split()[1:] == ["0.014", "0.122", "0.500", "0.953"]
    (line,) = (line for line in drawn.out.splitlines() if line.startswith("focal,alpha=none,gamma=2"))
    assert line.split()[1:] == ["4", "100", "976.6"]
    (line,) = (line for line in drawn.out.splitlines() if line.startswith("iou"))
    assert line.split()[-1] == "0.000"


def test_another_run_is_kept(here, trained):
    before = {file.name: file.read_bytes() for file in trained.iterdir()}
    refused(detloss("curves", "--quick", "--out", trained), "holds something else, which is kept")
    assert {file.name: file.read_bytes() for file in trained.iterdir()} == before


def test_settings_go_back_in(drawn, own):
    asked = CurvesConfig(points=60, soft_losses=(*SOFT, own))
    assert load_config(CurvesConfig, drawn.folder) == asked
    changed = ["--soft-targets", "0.25", "--box-losses", "giou", "--losses", "focal"]
    again = parse(["--config", str(drawn.folder), "--trust", *changed]).settings
    assert again == replace(asked, soft_targets=(0.25,), box_losses=("giou",), losses=("focal",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "focl"], "unknown loss 'focl'; did you mean 'focal'"),
        (["--losses", "focal,gama=2"], "focal has no setting 'gama'"),
        (["--box-losses", "gio"], "unknown loss 'gio'; did you mean 'giou'"),
        (["--soft-losses", "no_such.py:f"], "loss 'no_such.py:f' cannot be imported"),
        (["--soft-targets", "1.5"], "soft_targets has 1.5"),
        (["--losses"], "losses is empty"),
        (["--points", "3"], "points is 3"),
        (["--config", "nowhere"], "config nowhere"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    refused(detloss("curves", *arguments), message)
    assert not list(tmp_path.iterdir())
