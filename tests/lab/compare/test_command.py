"""The table of a comparison fits a terminal of 80 columns, whole."""

import io

import pytest
from rich.console import Console

from detloss.lab.cli.terminal import say
from detloss.lab.compare.command import ap_by_loss, comparison_table
from detloss.lab.compare.comparison import Comparison
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.prepare import prepare
from detloss.lab.records import load_config
from detloss.lab.runs import WrongFolder


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
    assert not any("undecided" in line for line in lines)  # a word now would be one more look
    assert "0/3" in lines[-1]
    state.diverged = ["seed 0", "seed 1", "seed 2"]  # then no run is missing
    assert shown(state)[-4].endswith("undecided")


def test_names_of_losses_are_shown_as_they_are(capsys):
    say("poly_focal,epsilon=linear:-1:1")
    assert capsys.readouterr().out == "poly_focal,epsilon=linear:-1:1\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looks": (5, 3)}, r"looks is \(5, 3\); it must be increasing"),
        ({"looks": ()}, r"looks is \(\)"),
        ({"balance": "guided", "box_weights": (1.0, 4.0)}, "no weight to try; .* one ratio as box_weight"),
        ({"threads": -1}, "threads is -1; it must be 0"),
        ({"devices": ("cuda:0", "cpu")}, "they may be cuda:0 cuda:1 ..., or all cpu"),
        ({"devices": ("cpu", "cpu"), "workers": 3}, "workers is 3; leave it out: each of the 2 devices"),
        ({"devices": ("cpu",), "device": "cuda"}, "device is 'cuda' and devices .*; leave out device"),
        ({"address": "10.0.0.1:6379"}, "address is '10.0.0.1:6379', .* choose engine ray"),
        ({"engine": "ray", "devices": ("cuda:0",)}, "devices is .* with engine ray"),
        ({"engine": "ray", "device": "cuda:1"}, "device is 'cuda:1' with engine ray"),
        ({"rope": 0.0}, "rope is 0.0; it must be a number of AP points above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**changes)
    assert CompareConfig(seeds=9, looks=(9,)).looks == (9,)


def test_guided_balance_has_one_weight():
    def weights(**changes) -> tuple[float, ...]:
        return CompareConfig(**changes).axes[1]

    assert weights() == (2.0, 6.0, 15.0)
    assert weights(balance="guided") == (1.0,)
    assert weights(balance="guided", box_weight=2.0) == (2.0,)
    assert CompareConfig(balance="guided").quick().axes[1] == (1.0,)


def test_the_number_of_seeds_is_a_look():
    """One that is not planned is counted too: between the others, or as the last."""
    for seeds, looks in ((1, (3, 5, 8)), (2, (2, 3, 5, 8)), (5, (3, 5, 8)), (9, (3, 5, 8, 9))):
        assert CompareConfig(seeds=seeds).looks == looks


def test_looks_of_a_folder_are_all_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("detloss.lab.compare.prepare.describe_data", lambda *_: {})
    monkeypatch.setattr("detloss.lab.compare.prepare.origin_of", lambda *_: {})
    first, _ = prepare(CompareConfig(seeds=3), tmp_path, [], [])
    assert first.looks == (3, 5, 8)
    assert prepare(CompareConfig(seeds=4), tmp_path, [], [])[0].looks == (3, 4, 5, 8)
    assert prepare(CompareConfig(seeds=5), tmp_path, [], [])[0].looks == (3, 4, 5, 8)  # 4 was looked at
    assert load_config(CompareConfig, tmp_path).looks == (3, 4, 5, 8)
    with pytest.raises(WrongFolder, match="looks at 3 4 5 8 seeds: the last of them cannot become 9"):
        prepare(CompareConfig(seeds=9), tmp_path, [], [])
    with pytest.raises(WrongFolder, match="another configuration"):
        prepare(CompareConfig(seeds=5, lr=0.1), tmp_path, [], [])
