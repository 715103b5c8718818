"""The table of a comparison fits a terminal of 80 columns, whole."""

import io

import pytest
from rich.console import Console

from detloss.lab.cli.terminal import say
from detloss.lab.compare.command import ap_by_loss, comparison_table
from detloss.lab.compare.comparison import Comparison
from detloss.lab.compare.config import CompareConfig


def shown(state: Comparison) -> list[str]:
    text = io.StringIO()
    console = Console(width=80, file=text)
    console.print(comparison_table(state))
    return [line.replace("\u00a0", " ").rstrip() for line in text.getvalue().splitlines()]


def test_comparison_table_is_whole_in_80_columns(tmp_path):
    state = Comparison(CompareConfig(seeds=3), tmp_path)
    state.chosen = {pair: (0.012, 6.0) for pair in state.config.pairs}
    for i, pair in enumerate(state.config.pairs[:-1]):
        for seed in range(3 if i else 0):  # the baseline has no result
            row = {"classification_loss": pair[0], "box_loss": pair[1], "seed": seed}
            state.results.append(row | {"ap": 0.3 + 0.05 * ((i + seed) % 2), "ece": 0.1})
    lines = shown(state)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    names = [line.split()[0] for line in lines[-5:]]
    assert names == ["bce+giou", "balanced_bce+giou", "focal+giou", "quality_focal+giou", "focal+ciou"]
    assert all(line.endswith("–") for line in lines[-4:-1])
    assert list(ap_by_loss(state).values())[::4] == [{}, {}]

    for seed in range(3):  # a wide one
        row = {"classification_loss": "bce", "box_loss": "giou", "seed": seed, "ece": ""}
        state.results.append(row | {"ap": 0.4 - 0.3 * (seed % 2)})
    lines = shown(state)
    assert max(map(len, lines)) <= 80
    assert lines[-5].endswith("the first")
    assert lines[-4].endswith("undecided")
    assert "0/3" in lines[-1]


def test_names_of_losses_are_shown_as_they_are(capsys):
    say("poly_focal,epsilon=linear:-1:1")
    assert capsys.readouterr().out == "poly_focal,epsilon=linear:-1:1\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 9}, r"seeds is 9, past the last of the planned looks \(3, 5, 8\); let looks end with 9"),
        ({"looks": (5, 3)}, r"looks is \(5, 3\); it must be increasing"),
        ({"looks": ()}, r"looks is \(\)"),
        ({"rope": 0.0}, "rope is 0.0; it must be a number of AP points above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**changes)
    assert CompareConfig(seeds=9, looks=(9,)).looks == (9,)
