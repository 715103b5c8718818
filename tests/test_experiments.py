"""The experiments: headers, the rule of the verdict, pages from a table by hand, tiny runs of each."""

import sys
from pathlib import Path

import numpy as np
import pytest

from detloss.lab.runs import read_csv, read_json, write_csv, write_json
from detloss.lab.statistics import contrast, short_names

FOLDER = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import findings  # noqa: E402
import harness  # noqa: E402
from findings import Experiment, Results, change, difference, planned  # noqa: E402
from l1 import l1  # noqa: E402

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
    assert [name[0] for name in NAMES] == list("abcdefghij")


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
    for one in experiment.contrasts:
        assert set(one.weights) <= made, one.label
        assert sum(one.weights.values()) == pytest.approx(0, abs=1e-12)
    labels = [(one.label, one.column) for one in experiment.contrasts]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_each_loss_has_three_seeds_and_learning_rates_to_choose_from(experiment):
    assert all(config.seeds >= 3 and len(config.lrs) > 1 for config in experiment.comparisons.values())


def judged(experiment: Experiment, table: list[dict[str, object]]) -> list[findings.Found]:
    return findings.findings(experiment, Results([{k: str(v) for k, v in row.items()} for row in table]))


def test_a_contrast_is_a_difference_of_means_with_its_interval():
    table = rows({"a": [0.5, 0.6, 0.7, None], "b": [0.4, 0.5, 0.6, 0.1], "c": [0.1, 0.3, 0.2, 0.3]})
    gap = difference("a - b", ("embedded", "a"), ("embedded", "b"))
    mean = difference("a - (b + c) / 2", ("embedded", "a"), [("embedded", "b"), ("embedded", "c")])
    growth = change("growth", gap, difference("", ("embedded", "b"), ("embedded", "c")))
    absent = difference("other", ("embedded", "a"), ("bccd", "a"))
    found = judged(Experiment("x.py", HEADER, {}, (gap, *planned(mean), growth, absent)), table)
    assert [one.contrast.label for one in found] == ["a - (b + c) / 2", "a - b", "growth"]  # planned first
    assert [one.verdict.difference for one in found] == pytest.approx([0.2875, 0.2, 0.025])
    assert [one.seeds for one in found] == ["3 of 4", "3 of 4", "3 of 4"]
    ap = {"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6, 0.1], "c": [0.1, 0.3, 0.2, 0.3]}
    alone, pair = contrast(ap, {"a": 1, "b": -0.5, "c": -0.5}), contrast(ap, {"a": 1, "b": -1}, comparisons=2)
    for one, expected in zip(found, (alone, pair)):
        assert (one.verdict.low, one.verdict.high) == pytest.approx((expected.low, expected.high))
        assert one.verdict.verdict == expected.verdict


def test_lower_is_better_where_the_measure_says_so():
    table = rows({"a": [0.2, 0.21, 0.22], "b": [0.4, 0.41, 0.42]})
    table = [{**row, "ece": row["ap"]} for row in table]
    sides = ("embedded", "a"), ("embedded", "b")
    ece, ap = judged(
        Experiment("x.py", HEADER, {}, [difference("", *sides, of) for of in ("ece", "ap")]), table
    )
    assert (ece.verdict.difference, ap.verdict.difference) == pytest.approx((-0.2, -0.2))
    assert (ece.word, ap.word) == ("better", "worse")
    bigger = change(
        "", difference("", *reversed(sides)), difference("", ("embedded", "a"), ("embedded", "a"))
    )
    assert [one.word for one in judged(Experiment("x.py", HEADER, {}, [bigger]), table)] == ["larger"]


def test_a_page_says_all_and_a_row_too(tmp_path):
    gap = difference("focal − bce", ("embedded", "focal"), ("embedded", "bce"))
    absent = Experiment("x.py", HEADER, {}, (gap,))
    assert "not run yet" in findings.readme_row(absent, tmp_path)
    write_csv(
        tmp_path / "x.csv", harness.COLUMNS, rows({"focal": [0.5, 0.51, 0.52], "bce": [0.4, 0.42, None]})
    )
    experiment = Experiment("x.py", HEADER, {}, (gap,), columns=("ap",), found="It is not.")
    text = findings.write_page(experiment, tmp_path).read_text()
    for words in (
        "# Is it so?",
        "a paper",
        "that it is",
        "**What was found.** It is not.",
        "| focal − bce | exploratory | AP | 2 of 3 | +10.0 [+4.0, +16.0] | better |",
        "| embedded | bce | 0.003 | 2 | 3, 1 diverged | 41.0\u00a0±\u00a012.7 |",
        "Commit: abc",
        "two cores",
        "Duration: 9 minutes of training in all runs and sweeps, 5 with two",
        "python experiments/x.py",
    ):
        assert words in text, words
    assert (tmp_path / "x_differences.png").stat().st_size > 10_000
    row = findings.readme_row(experiment, tmp_path)
    assert "| better | focal − bce: +10.0" in row
    assert (
        findings.readme_row(Experiment("x.py", HEADER, {}, (gap,), answer="No"), tmp_path).count("| No |")
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
    assert any(f"| {word} |" in page for word in ("better", "worse", "equivalent", "undecided"))
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
    with pytest.raises(ValueError, match=r"another configuration: .*; remove that folder"):
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
    earlier, now = (tmp_path / "runs" / "bce" / name for name in ("seed0", "seed1"))
    write_json(earlier / "metrics.json", {})
    with harness.recorded(tmp_path) as record:
        write_json(now / "versions.json", {"device": "a GPU", "cpu": "a CPU", "cores": 8, "torch": "2.13.0"})
        write_json(now / "metrics.json", {})
        record()
        # of the machine of the run, which need not be this one
        assert read_json(now / "made.json")["hardware"] == "a GPU, 8 cores, torch 2.13.0"
        assert read_json(now / "made.json")["commit"] == harness.commit()
    assert not (earlier / "made.json").exists()
