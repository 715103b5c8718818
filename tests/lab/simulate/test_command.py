"""`detloss simulate` as a user types it."""

import csv
import math

import numpy as np
import pytest

from detloss.lab.records import load_config
from detloss.lab.runs import read_columns, read_csv
from detloss.lab.simulate.command import _number, parse
from detloss.lab.simulate.simulation import CASES, SimulationConfig
from helpers.commands import detloss, refused

OWN = """
import torch

def mine(predicted, target):
    centre = (predicted[:, 0] + predicted[:, 2]) / 2
    return (predicted - target).square().sum(-1) * torch.where(centre > 10.5, torch.nan, 0.25)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    return f"{path}:mine"


@pytest.fixture(scope="module")
def done(tmp_path_factory, own):
    out = tmp_path_factory.mktemp("simulate") / "run"
    losses = ("--losses", "giou", own, "--published")
    return detloss("simulate", *losses, "--cases", 3 * 343 + 100, "--seed", 2, "--out", out)


def test_a_run_folder_with_tables_and_pictures(done, own):
    assert done.status == 0, done.err
    names = ["giou", own, "giou_published"]
    with (done.folder / "errors.csv").open() as file:
        assert next(csv.reader(file)) == ["loss", "step", "error"]
    errors = read_csv(done.folder / "errors.csv")
    assert [(row["loss"], int(row["step"])) for row in errors] == [(n, k) for n in names for k in range(201)]
    giou = np.array([float(row["error"]) for row in errors if row["loss"] == "giou"])
    assert giou[0] > 5e6  # scaled: three centres alone have about four thousand
    assert giou[200] < 0.1 * giou[0]
    surface = read_csv(done.folder / "surface.csv")
    assert [row["loss"] for row in surface] == [name for name in names for _ in range(3)]
    final = [float(row["error"]) for row in surface if row["loss"] == "giou"]
    assert 5000 / 3 * sum(final) == pytest.approx(giou[200])
    places = read_columns(done.folder / "surface.csv")
    assert (np.hypot(places["x"] - 10, places["y"] - 10) < 3).all()
    for stem in ("error_curves", "error_surface"):
        for form in ("png", "svg"):
            assert (done.folder / f"{stem}.{form}").stat().st_size > 1000
    assert (done.folder / "versions.json").exists()


def test_errors_that_are_not_finite_are_told_and_not_averaged(done, own):
    rows = {row["loss"]: row for row in read_csv(done.folder / "summary.csv")}
    x = {float(row["x"]) for row in read_csv(done.folder / "surface.csv")}
    broken = 343 * sum(place > 10.5 for place in x)
    assert 0 < broken < 3 * 343
    assert int(rows[own]["not_finite"]) == broken
    assert int(rows[own]["first_not_finite_step"]) == 1
    assert rows["giou"]["first_not_finite_step"] == ""
    own_errors = [row["error"] for row in read_csv(done.folder / "errors.csv") if row["loss"] == own]
    assert own_errors[1:] == ["nan"] * 200
    said = " ".join(done.out.split())
    assert f"{broken} of 1029 cases became NaN or infinite, the first after step 1" in said


def test_the_table_on_the_terminal(done):
    said = " ".join(done.out.split())
    assert "1029 cases at 3 anchor centres" in said
    assert "scaled to 1715000 cases" in said
    rows = {row["loss"]: row for row in read_csv(done.folder / "summary.csv")}
    at_50 = float(rows["giou"]["error_50"])
    assert f"{at_50:.2e}".replace("e+0", "e") in said
    assert "overlap: GIoU multiplies overlaps below zero too" in said
    assert "aspect:" not in said


@pytest.mark.parametrize(
    ("error", "spread", "text"),
    [
        (5.861e6, 3.9e4, "5.86e6 ±0.7 %"),
        (2937.2, math.nan, "2.94e3"),  # a single centre
        (0.0, 0.0, "0.00e0"),
        (1.5e12, 1.5e10, "1.50e12 ±1.0 %"),
        (math.nan, math.nan, "nan"),
    ],
)
def test_numbers_are_short_and_have_their_spread(error, spread, text):
    assert _number(error, spread) == text


def test_the_config_of_a_run_goes_back_in(done):
    config = load_config(SimulationConfig, done.folder)
    config_of_run = ["--config", str(done.folder), "--trust"]
    assert parse(config_of_run).settings == config
    assert parse([*config_of_run, "--seed", "4"]).settings.seed == 4
    assert parse([]).settings == SimulationConfig()
    assert parse([]).settings.cases == CASES
    assert parse(["--quick", "--seed", "1"]).settings == SimulationConfig(cases=34_300, seed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "giuo"], "unknown loss 'giuo'; did you mean 'giou'"),
        (["--losses", "iou", "iou"], "each may be there once"),
        (["--losses", "nowhere.py:mine"], "cannot be imported"),
        (["--cases", "342"], "cases is 342; it may be from 343"),
        (["--cases", "many"], "cases"),
        (["--seed", "-1"], "seed is -1"),
        (["--config", "nowhere"], "config nowhere"),
    ],
)
def test_bad_arguments_leave_nothing_behind(here, arguments, message):
    refused(detloss("simulate", "--out", "run", *arguments), message)
    assert not (here / "run").exists()


def test_a_loss_that_raises_is_named(here):
    (here / "own.py").write_text(
        "def mine(predicted, target):\n"
        "    assert len(predicted) < 100, 'too many'\n"
        "    return (predicted - target).abs().sum(-1)\n"
    )
    done = detloss("simulate", "--losses", "own.py:mine", "--cases", 343)
    assert done.status == 1
    assert done.err == "detloss simulate: loss 'own.py:mine': AssertionError: too many\n"
