"""The experiments: headers, the rule of the verdict, pages from a table by hand, tiny runs of each."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.runs import read_csv, read_json, write_csv, write_json
from detloss.lab.statistics import mean_interval, short_names

FOLDER = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import findings  # noqa: E402
import harness  # noqa: E402
from findings import Contrast, Experiment, Results, change, difference  # noqa: E402
from l1 import l1  # noqa: E402
from paired import BETTER, NO_DIFFERENCE, NO_SEED, NO_VERDICT, WORSE, bootstrap_interval  # noqa: E402

EXPERIMENTS = harness.experiments()
NAMES = [experiment.name for experiment in EXPERIMENTS]
HEADER = """Is it so?

Source: a paper.

Command: python experiments/x.py

Duration: short.

Expected: that it is."""


def rows(values: dict[str, list[float | None]], setting: str = "embedded") -> list[dict[str, object]]:
    """A table with one AP a seed; None is a run that diverged."""
    return [
        {
            **dict.fromkeys(harness.COLUMNS, ""),
            "setting": setting,
            "loss": loss,
            "seed": seed,
            "ap": "" if ap is None else ap,
            "diverged": "at step 3" if ap is None else "",
            "lr": 0.003,
            "box_weight": 2,
            "negatives_per_positive": 100,
            "classification_loss": loss,
            "seconds": 90 + seed,
            "data": "embedded scenes",
            "commit": "abc",
            "hardware": "two cores",
        }
        for loss, aps in values.items()
        for seed, ap in enumerate(aps)
    ]


def test_there_is_one_experiment_for_each_question():
    assert [name[0] for name in NAMES] == list("abcdefghi")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_headers_are_complete(experiment):
    assert experiment.said("Question").endswith("?")
    assert experiment.said("Command") == f"python experiments/{experiment.name}.py"
    assert all(experiment.said(what) for what in ("Source", "Expected"))
    assert "on a GPU" in experiment.said("Duration")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_contrasts_are_of_runs_that_are_made_and_weigh_as_much_on_both_sides(experiment):
    made = {
        (setting, harness.loss_name(loss))
        for setting, config in experiment.comparisons.items()
        for loss in short_names(config.pairs).values()
    }
    for contrast in experiment.contrasts:
        assert set(contrast.weights) <= made, contrast.label
        assert sum(contrast.weights.values()) == pytest.approx(0, abs=1e-12)
    labels = [(contrast.label, contrast.column) for contrast in experiment.contrasts]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_each_loss_has_three_seeds_and_learning_rates_to_choose_from(experiment):
    assert all(config.seeds >= 3 and len(config.lrs) > 1 for config in experiment.comparisons.values())


def test_the_bootstrap_of_three_reaches_from_the_least_to_the_largest():
    assert bootstrap_interval([0.3, 0.1, 0.2]) == pytest.approx((0.1, 0.3))


def test_the_bootstrap_by_hand():
    # Of two values the means are a, (a+b)/2 twice, b: a tail of .4 leaves out the quarters at the ends.
    assert bootstrap_interval([0.0, 1.0], confidence=0.2) == pytest.approx((0.5, 0.5))
    assert bootstrap_interval([0.0, 1.0], confidence=0.6) == pytest.approx((0.0, 1.0))
    # The mean is the number of fours drawn: 0 in 81 of 256 samples, 4 in one (0.4 %), 3 in twelve (4.7 %).
    assert bootstrap_interval([0.0, 0.0, 0.0, 4.0], 0.95) == pytest.approx((0.0, 3.0))


@pytest.mark.parametrize("values", [[], [1.0]])
def test_no_bootstrap_of_one(values):
    assert all(math.isnan(bound) for bound in bootstrap_interval(values))


def test_the_sampled_bootstrap_agrees_with_the_exact_one():
    values = np.random.default_rng(3).normal(size=6)
    exact = bootstrap_interval(values)
    sampled = bootstrap_interval([*values, values.mean()])  # seven: drawn at random
    assert sampled == pytest.approx(exact, abs=0.35 * values.std())


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(-3, 3), st.floats(0.1, 5))
@settings(max_examples=60)
def test_the_bootstrap_follows_shift_scale_and_mirror(values, shift, scale):
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    moved = bootstrap_interval([scale * value + shift for value in values])
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-9)
    assert bootstrap_interval([-value for value in values]) == pytest.approx((-high, -low), abs=1e-12)


def test_the_rule_is_said_with_the_rates_it_has():
    """How often no effect looks like one: 25 and 16 % by the bootstrap alone, 5 % by Student's t."""
    rng = np.random.default_rng(1)
    seen = {}
    for seeds in (3, 5):
        drawn = rng.standard_normal((1000, seeds))
        seen[seeds] = np.mean([not low <= 0 <= high for low, high in map(bootstrap_interval, drawn)])
        judged = np.mean([findings.judge(list(values)) != NO_DIFFERENCE for values in drawn])
        assert judged == pytest.approx(0.05, abs=0.02)
    assert seen == {3: pytest.approx(0.25, abs=0.04), 5: pytest.approx(0.16, abs=0.04)}
    assert "25 % of cases with three seeds and in 16 % with five" in findings.RULE


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ([0.02, 0.021, 0.019], True, BETTER),
        ([0.02, 0.021, 0.019], False, WORSE),
        ([-0.02, -0.021, -0.019], True, WORSE),
        ([0.01, 0.02, 0.05], True, NO_DIFFERENCE),  # the bootstrap alone would call it better
        ([0.0, 0.0, 0.0], True, NO_DIFFERENCE),
        ([0.02], True, NO_VERDICT),
    ],
)
def test_the_verdict(values, higher, expected):
    assert findings.judge(values, higher) == expected


def test_a_contrast_is_computed_seed_by_seed_where_no_side_diverged():
    table = rows({"a": [0.5, 0.6, 0.7, None], "b": [0.4, 0.5, 0.6, 0.1], "c": [0.1, 0.3, 0.2, 0.3]})
    gap = difference("a - b", ("embedded", "a"), ("embedded", "b"))
    mean = difference("a - (b + c) / 2", ("embedded", "a"), [("embedded", "b"), ("embedded", "c")])
    growth = change("growth", gap, difference("", ("embedded", "b"), ("embedded", "c")))
    absent = difference("other", ("embedded", "a"), ("bccd", "a"))
    experiment = Experiment("x.py", HEADER, {}, (gap, mean, growth, absent))
    found = findings.findings(experiment, Results([{k: str(v) for k, v in row.items()} for row in table]))
    assert [one.contrast.label for one in found] == ["a - b", "a - (b + c) / 2", "growth"]
    assert list(found[0].values) == [0, 1, 2]
    assert found[0].runs == 4
    assert list(found[0].values.values()) == pytest.approx([0.1, 0.1, 0.1])
    assert found[0].word == BETTER
    assert list(found[1].values.values()) == pytest.approx([0.25, 0.2, 0.3])
    assert list(found[2].values.values()) == pytest.approx([-0.2, -0.1, -0.3])
    assert (found[1].mean, found[1].half_width) == pytest.approx(mean_interval([0.25, 0.2, 0.3]))
    assert growth.words == ("larger", "smaller")


def test_strict_is_a_stricter_level():
    table = rows({"a": [0.52, 0.55, 0.57, 0.6], "b": [0.5, 0.5, 0.5, 0.5]})
    one = difference("a - b", ("embedded", "a"), ("embedded", "b"))
    results = Results([{k: str(v) for k, v in row.items()} for row in table])

    def strict(count: int) -> bool:
        contrasts = [Contrast(str(k), one.weights) for k in range(count)]
        found = findings.findings(Experiment("x.py", HEADER, {}, contrasts), results)
        assert found[0].verdict == BETTER
        return found[0].strict

    assert strict(1)
    assert not strict(20)


def test_a_page_says_all_and_a_row_too(tmp_path):
    contrast = difference("focal − bce", ("embedded", "focal"), ("embedded", "bce"))
    absent = Experiment("x.py", HEADER, {}, (contrast,))
    assert "not run yet" in findings.readme_row(absent, tmp_path)
    write_csv(
        tmp_path / "x.csv", harness.COLUMNS, rows({"focal": [0.5, 0.51, 0.52], "bce": [0.4, 0.42, None]})
    )
    experiment = Experiment("x.py", HEADER, {}, (contrast,), columns=("ap",), found="It is not.")
    text = findings.write_page(experiment, tmp_path).read_text()
    for words in (
        "# Is it so?",
        "a paper",
        "that it is",
        "**What was found.** It is not.",
        "| focal − bce | AP | 2 of 3 | +9.5\u00a0±\u00a06.4 [+9.0, +10.0] | better | yes |",
        "| embedded | bce | 0.003 | 2 | 3, 1 diverged | 41.0\u00a0±\u00a012.7 |",
        "Commit: abc",
        "two cores",
        "Duration: 9 minutes of training in all runs and sweeps, 5 with two",
        "python experiments/x.py",
    ):
        assert words in text, words
    assert (tmp_path / "x_differences.png").stat().st_size > 10_000
    row = findings.readme_row(experiment, tmp_path)
    assert "| better | focal − bce: +9.5" in row
    assert (
        findings.readme_row(Experiment("x.py", HEADER, {}, (contrast,), answer="No"), tmp_path).count(
            "| No |"
        )
        == 1
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_every_figure_shows_every_setting(experiment):
    rng = np.random.default_rng(0)
    table = []
    for k, (setting, config) in enumerate(experiment.comparisons.items()):
        losses = map(harness.loss_name, short_names(config.pairs).values())
        made = rows({loss: list(rng.uniform(0.3, 0.5, config.seeds)) for loss in losses}, setting)
        measured = {column: 0.4 for column in findings.MEASURES if column != "ap"}
        table += [{**row, **measured, "negatives_per_positive": 10 * (k + 1)} for row in made]
    results = Results([{k: str(v) for k, v in row.items()} for row in table])
    found = findings.findings(experiment, results)
    assert len(found) == len(experiment.contrasts)
    figures = [findings.draw_differences(found), *([experiment.plot(results)] if experiment.plot else [])]
    for figure in figures:
        assert figure.axes
        assert all(
            ax.lines and "no results" not in [text.get_text() for text in ax.texts] for ax in figure.axes
        )


def test_a_header_without_a_paragraph_is_an_error():
    with pytest.raises(ValueError, match="no paragraph 'Expected'"):
        Experiment("x.py", HEADER.split("Expected")[0], {}, ()).said("Expected")


def test_l1_is_relative_to_the_true_box():
    torch = pytest.importorskip("torch")
    true = torch.tensor([[0.0, 0, 10, 20], [0.0, 0, 100, 200], [5.0, 5, 5, 5]])
    off = torch.tensor([[1.0, 2, 1, 2], [10.0, 20, 10, 20], [1.0, 1, 1, 1]])
    assert l1(true + off, true).tolist() == pytest.approx([0.1, 0.1, 1.0])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One experiment, run quickly."""
    return quickly(tmp_path_factory.mktemp("experiment"), "c_mining")


def quickly(folder: Path, name: str) -> Path:
    experiment = EXPERIMENTS[NAMES.index(name)]
    harness.run(experiment, harness.Options(quick=True, device="cpu"), folder / "runs", folder / "results")
    return folder


def check(folder: Path, name: str) -> None:
    table = read_csv(folder / "results" / f"{name}.csv")
    assert list(table[0]) == list(harness.COLUMNS)
    assert {row["seed"] for row in table} == {"0", "1"}
    for row in table:
        assert not row["diverged"]
        assert float(row["ap"]) >= 0
        assert float(row["negatives_per_positive"]) > 1
        assert 0 <= float(row["voc2007"]) <= 1
        assert row["commit"] != "unknown"
    page = (folder / "results" / f"{name}.md").read_text()
    assert "nothing here is a result" in page
    # Hardly anything is found after three steps, and the calibration of nothing is not known.
    assert any(f"| {word} |" in page for word in (NO_DIFFERENCE, BETTER, WORSE, NO_SEED))
    assert (folder / "results" / f"{name}_differences.png").exists()


def test_a_quick_run_leaves_table_figure_and_page(ran):
    check(ran, "c_mining")


def test_what_is_finished_is_not_repeated(ran):
    before = {path: path.stat().st_mtime_ns for path in (ran / "runs").rglob("*.pt")}
    table = (ran / "results" / "c_mining.csv").read_text()
    quickly(ran, "c_mining")
    assert len(before) == 8  # two settings, two losses, two seeds
    assert {path: path.stat().st_mtime_ns for path in (ran / "runs").rglob("*.pt")} == before
    assert (ran / "results" / "c_mining.csv").read_text() == table


def test_equal_runs_of_two_comparisons_are_made_once(ran):
    # Made short, the two settings are the same.
    first, second = (ran / "runs" / "c_mining" / setting for setting in ("embedded", "own_box_weight"))
    copies = sorted(path.relative_to(second) for path in second.glob("runs/*/*/m*.json"))
    assert len(copies) == 8  # metrics.json and made.json of each
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in copies)


def test_rates_are_shown_and_the_chosen_one_marked():
    rows = [
        {"setting": "s", "classification_loss": "experiments/l1.py:bce", "box_loss": "giou", "lr": lr}
        | {"box_weight": "2.0", "ap": ap, "chosen": chosen}
        for lr, ap, chosen in (("0.003", "0.5", "0"), ("0.008", "0.625", "1"), ("0.02", "", "0"))
    ]
    _, table, _ = findings.rate_table(rows)
    assert table.endswith("| s | bce+giou | 0.003 × 2: 50.0, **0.008 × 2: 62.5**, 0.02 × 2: diverged |")
    assert findings.rate_table([]) == []


def test_runs_of_another_configuration_are_refused(ran):
    experiment = EXPERIMENTS[NAMES.index("c_mining")]
    longer = {
        setting: harness.replace(config, lrs=(0.5, 0.6)) for setting, config in experiment.comparisons.items()
    }
    with pytest.raises(ValueError, match="another configuration; remove that folder"):
        harness.run(
            harness.replace(experiment, comparisons=longer),
            harness.Options(quick=True, device="cpu"),
            ran / "runs",
            ran / "results",
        )


def test_real_data_that_is_not_here_is_left_out_and_keeps_its_rows(tmp_path):
    experiment = EXPERIMENTS[NAMES.index("e_softmax_yolov2")]
    chosen, absent = harness.chosen(experiment, harness.Options())
    assert list(chosen) == ["embedded"]
    assert absent == ["bccd"]
    with pytest.raises(ValueError, match="nowhere, which is not a folder"):
        harness.chosen(experiment, harness.Options(data=tmp_path / "nowhere"))
    chosen, absent = harness.chosen(experiment, harness.Options(data=tmp_path, seeds=7))
    assert chosen["bccd"].data == str(tmp_path)
    assert {config.seeds for config in chosen.values()} == {7}
    assert not absent


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "c_mining"])
def test_every_experiment_runs(tmp_path, name):
    check(quickly(tmp_path, name), name)


def test_a_process_that_is_killed_has_told_how_its_runs_were_made(tmp_path):
    write_json(tmp_path / "config.json", {"device": "cpu"})
    earlier, now = (tmp_path / "runs" / "bce" / name for name in ("seed0", "seed1"))
    write_json(earlier / "metrics.json", {})
    with harness.recorded(tmp_path) as record:
        write_json(now / "metrics.json", {})
        record()
        assert set(read_json(now / "made.json")) == {"commit", "hardware"}
    assert not (earlier / "made.json").exists()
