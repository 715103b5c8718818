"""What the figures show is what the tables say, and empty tables are said to be empty."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from figures import Against, against
from matplotlib.colors import to_hex
from PIL import Image

from detloss.lab import figures
from detloss.lab.compare.figures import ap_over_steps, ap_per_seed, cost, loss_share, sweep
from detloss.lab.evaluate import Detections, evaluate
from detloss.lab.evaluate.figures import (
    confusion,
    errors,
    f1_against_score,
    precision_by_class,
    precision_recall,
    reliability,
    sample_detections,
    score_against_iou,
)
from detloss.lab.figures import legible, one, save, styles
from detloss.lab.training.figures import training_curves
from helpers.fake_comparison import LOSSES, NAMES, found, truths


@pytest.fixture(scope="module")
def evaluations():
    samples = truths()
    return {loss: [evaluate(found(loss, k, samples), samples, NAMES) for k in range(2)] for loss in LOSSES}


@pytest.fixture(scope="module")
def nothing_found():
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    samples = truths(images=3)
    return evaluate([empty] * 3, samples, NAMES)


def words(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_each_loss_has_its_own_fixed_style():
    all_six = ["varifocal", "bce", "focal", "quality_focal", "softmax_focal", "balanced_bce"]
    together = styles(all_six)
    assert list(together) == all_six
    assert len({style.color for style in together.values()}) == 6
    assert len({style.marker for style in together.values()}) == 6
    for name in all_six:
        assert styles([name])[name] == together[name]
    assert styles(["focal,gamma=1"])["focal,gamma=1"] == together["focal"]


def test_styles_of_unknown_and_repeated_losses_differ():
    names = ["mine:loss", "focal+giou", "focal+ciou", "giou", "bce"]
    chosen = styles(names)
    assert list(chosen) == names
    assert len({style.color for style in chosen.values()}) == 5
    assert chosen["focal+giou"] == styles(["focal"])["focal"]
    assert len(styles([f"loss-{i}" for i in range(30)])) == 30


def test_ap_over_steps_is_the_mean_over_seeds_in_percent():
    steps = np.array([10.0, 20.0])
    runs = {
        "bce": [{"step": steps, "ap": np.array([0.1, 0.3])}, {"step": steps, "ap": np.array([0.2, 0.5])}],
        "focal": [{"step": np.array([10.0, 20.0, 30.0]), "ap": np.array([0.2, 0.4, 0.6])}],
    }
    ax = ap_over_steps(runs).axes[0]
    np.testing.assert_allclose(lines(ax)["bce"], [15, 40])
    np.testing.assert_allclose(lines(ax)["focal"], [20, 40, 60])
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((10, 50))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["bce", "focal"]
    assert ax.get_xlabel() == "training step"
    assert ax.get_ylabel() == "AP (IoU .50:.95), %"


def test_a_long_name_of_a_loss_is_broken_behind_its_commas():
    long = "focal,gamma=stages:0:1:2,alpha=stages:0.75:0.25:0.25+ciou"
    ax = ap_per_seed({"focal+ciou": {0: 0.1}, long: {0: 0.2}}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "focal+ciou",
        "focal,gamma=stages:0:1:2,\nalpha=stages:0.75:0.25:0.25+\nciou",
    ]


def test_ap_per_seed_shows_seeds_mean_and_interval():
    ax = ap_per_seed({"bce": {0: 0.1, 1: 0.2, 2: 0.3}, "focal": {0: 0.4}}).axes[0]
    dots = [np.sort(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "None"]
    assert any(len(x) == 3 and np.allclose(x, [10, 20, 30]) for x in dots)
    (bar,) = ax.collections[0].get_segments()  # t(2) = 4.303, s = 10, n = 3
    np.testing.assert_allclose(bar[:, 0], [20 - 24.84, 20 + 24.84], atol=0.01)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bce", "focal"]


def test_precision_recall_is_the_mean_over_seeds(evaluations):
    ax = precision_recall(evaluations).axes[0]
    for loss, seeds in evaluations.items():
        np.testing.assert_allclose(lines(ax)[loss], np.mean([e.mean_precision for e in seeds], axis=0))


def test_precision_by_class_is_the_mean_over_seeds(evaluations):
    names = list(next(iter(evaluations.values()))[0].per_class)
    axes = precision_by_class(evaluations, names).axes
    assert [ax.get_title(loc="left") for ax in axes] == names
    for ax, of_class in zip(axes, names):
        for loss, seeds in evaluations.items():
            expected = np.mean([e.precision[of_class] for e in seeds if of_class in e.precision], axis=0)
            np.testing.assert_allclose(lines(ax)[loss], expected)


def test_errors_are_means_over_seeds(evaluations):
    ax = errors(evaluations).axes[0]
    heights = {bars.get_label(): [bar.get_height() for bar in bars.patches] for bars in ax.containers
               if hasattr(bars, "patches")}  # fmt: skip
    for loss, seeds in evaluations.items():
        expected = [100 * np.mean([e.errors[kind] for e in seeds]) for kind in seeds[0].errors]
        np.testing.assert_allclose(heights[loss], expected)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(
        next(iter(evaluations.values()))[0].errors
    )


def test_f1_is_marked_at_its_best(evaluations):
    ax = f1_against_score(evaluations).axes[0]
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    for mark, seeds in zip(marks, evaluations.values(), strict=True):
        assert mark.get_ydata()[0] == pytest.approx(np.mean([e.operating.best_f1 for e in seeds]))


def test_a_row_of_the_confusion_matrix_is_all_objects_of_a_class(evaluations):
    figure = confusion(evaluations, NAMES)
    assert len(figure.axes) == len(evaluations)
    parts = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(parts[:-1].sum(axis=1), 1)
    assert figure.axes[0].get_xticklabels()[-1].get_text() == "nothing"


def test_reliability_pools_the_seeds(evaluations):
    figure = reliability(evaluations)
    assert len(figure.axes) == 8
    top, below = figure.axes[:2]
    calibrations = [e.calibration for e in evaluations["bce"]]
    count = sum(c.count for c in calibrations)
    right = sum(np.nan_to_num(c.accuracy) * c.count for c in calibrations)
    heights = [bar.get_height() for bar in top.patches]
    np.testing.assert_allclose(heights, (right / np.maximum(count, 1))[count > 0])
    assert len(below.patches) == 10
    assert top.get_title(loc="left") == f"bce: ECE {50 * sum(c.ece for c in calibrations):.1f} %"


def test_score_against_iou_has_a_panel_a_loss(evaluations):
    figure = score_against_iou(evaluations)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    rho = np.mean([e.score_iou_correlation for e in evaluations["quality_focal"]])
    assert titles[3] == f"quality_focal: ρ = {rho:.2f}"
    assert len(figure.axes[0].lines[0].get_xdata()) == sum(len(e.scores) for e in evaluations["bce"])


def test_titles_fit_their_panel_and_pass_over_seeds_without_a_value(evaluations, nothing_found):
    name = "my-loss,tau=0.25 (runs/of_another_day)"
    seeds = [nothing_found, *evaluations["bce"]]
    ece = np.mean([one.calibration.ece for one in evaluations["bce"]])
    first, number = reliability({name: seeds}).axes[0].get_title("left").rsplit("\n", 1)
    assert (first.replace("\n", " "), number) == (name, f"ECE {100 * ece:.1f} %")
    rho = np.mean([one.score_iou_correlation for one in evaluations["bce"]])
    title = score_against_iou({"my-loss": seeds}).axes[0].get_title("left")
    assert title == f"my-loss: ρ = {rho:.2f}".replace("= -", "= −")


def test_loss_share_has_the_negatives_on_the_other_scale():
    log = {"step": np.arange(1.0, 81), "positive_loss_share": np.full(80, 0.25)}
    figure = loss_share({"focal": [log, log]})
    ax = figure.axes[0]
    np.testing.assert_allclose(lines(ax)["focal"], 0.25)
    assert len(lines(ax)["focal"]) == 40
    figure.draw_without_rendering()
    (right,) = ax.child_axes
    assert right.get_ylabel() == "negatives' share"
    height, opposite = ax.transData.transform((0, 0.25))[1], right.transData.transform((0, 0.75))[1]
    assert height == pytest.approx(opposite)


def test_cost_bars_are_means():
    table = {"seconds": np.array([10.0, 20.0]), "peak_memory_mb": np.array([np.nan, 700.0])}
    figure = cost({"bce": table})
    assert [ax.patches[0].get_width() for ax in figure.axes] == [15, 700]


def test_sweep_marks_what_was_chosen():
    table = {
        "lr": np.array([0.003, 0.01, 0.03, 0.01]),
        "box_weight": np.array([2.0, 2, 2, 6]),
        "ap": np.array([0.1, 0.3, 0.2, 0.5]),
        "chosen": np.array([0.0, 0, 0, 1]),
    }
    figure = sweep({"focal": table})
    (ax,) = figure.axes
    ring = ax.lines[-1]
    assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == ([0.01], [50])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [10, 30, 20])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["box weight 2", "box weight 6", "chosen"]


def test_sample_detections_are_side_by_side():
    samples = truths()[:2]
    detections = {loss: found(loss, 0, truths())[:2] for loss in LOSSES[:2]}
    f1 = {LOSSES[0]: [0.25, 1.0], LOSSES[1]: [0.5, 0.0]}
    figure = sample_detections(samples, detections, NAMES, f1)
    assert [ax.get_title(loc="center") for ax in figure.axes] == [
        *("truth", "bce: F1 0.25", "balanced_bce: F1 0.50"),
        *("truth", "bce: F1 1.00", "balanced_bce: F1 0.00"),
    ]
    assert len(figure.axes[0].patches) == len(samples[0].boxes)
    shown = detections["balanced_bce"][1]
    drawn = [patch.get_bbox().extents for patch in figure.axes[5].patches]
    np.testing.assert_allclose(np.reshape(drawn, (-1, 4)), shown.boxes, rtol=1e-6)
    labels = {NAMES[i] for i in shown.labels}
    assert {text.split()[0] for text in (t.get_text() for t in figure.axes[5].texts)} == labels


def test_training_curves():
    log = {"step": np.arange(1.0, 101), "lr": np.linspace(0, 1, 100), "loss": np.full(100, 3.0)}
    log |= {"classification_loss": np.full(100, 1.0), "box_loss": np.full(100, 2.0)}
    top, below = training_curves(log).axes
    assert [text.get_text() for text in top.get_legend().get_texts()] == [
        "total",
        "classification loss",
        "box loss",
    ]
    np.testing.assert_allclose(lines(top)["total"], 3)
    np.testing.assert_array_equal(below.lines[0].get_ydata(), log["lr"])


def test_empty_figures_say_so(nothing_found, tmp_path):
    none = {"bce": [nothing_found]}
    figures = {
        "no detections with score ≥ 0.05": reliability(none),
        "no detections matched to an object": score_against_iou(none),
        "no runs": errors({"bce": []}),
        "no objects, or nothing found": f1_against_score({"bce": []}),
        "not measured during training": ap_over_steps({"bce": []}),
        "no results": ap_per_seed({"bce": {}}),
        "no log": loss_share({"bce": []}),
        "not measured": cost({"bce": {"seconds": np.zeros(0), "peak_memory_mb": np.zeros(0)}}),
        "no sample images": sample_detections([], {"bce": []}, NAMES, {"bce": []}),
    }
    for i, (said, figure) in enumerate(figures.items()):
        assert said in words(figure)
        save(figure, tmp_path / str(i), ("png",))
    # nothing found, but objects there: the precision is 0, and that is drawn
    assert not words(precision_recall(none))


def test_nothing_drawn_where_there_are_no_losses():
    for figure in (reliability({}), score_against_iou({}), sweep({})):
        assert figure.axes == []


def test_save_writes_the_same_bytes_twice(tmp_path):
    for name in "ab":
        save(ap_per_seed({"bce": {0: 0.1, 1: 0.2}}), tmp_path / "new folder" / name)
    for suffix in ("png", "svg"):
        first, second = ((tmp_path / "new folder" / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second
    with Image.open(tmp_path / "new folder" / "a.png") as image:
        colors = {to_hex(np.array(c[:3]) / 255) for _, c in image.convert("RGB").getcolors(2**20)}
    assert styles(["bce"])["bce"].color.lower() in colors


def test_a_line_breaks_where_nothing_was_measured():
    series = {"a": {1: [0.5, 0.6], 10: [0.6, 0.7], 100: [0.7, 0.8]}, "b": {100: [0.4], 1: [0.2]}}
    (ax,) = against([Against("title", "x", "y", series, "log")]).axes
    lines = {bars.get_label(): bars[0] for bars in ax.containers}
    assert lines["a"].get_xdata().tolist() == lines["b"].get_xdata().tolist() == [1, 10, 100]
    assert lines["a"].get_ydata() == pytest.approx([0.55, 0.65, 0.75])
    assert lines["b"].get_ydata() == pytest.approx([0.2, np.nan, 0.4], nan_ok=True)


STRANGE = ("$x$", r"$\frac{$", "_cat", "100 % <b>", "猫", "naïve", "bell\x07", "[red]", "")


def test_names_are_shown_as_they_are():
    """Not as formulas, which may not even parse, and not as boxes in place of letters."""
    figure, ax = one("title $\\sqrt{ 猫", "x", "$", 4)
    ax.barh(range(len(STRANGE)), 1 + np.arange(len(STRANGE)))
    ax.set_yticks(range(len(STRANGE)), STRANGE)
    ax.set_xscale("log")
    for name in STRANGE:
        ax.annotate(name, (1, 1))
    buffer = save_to_text(figure)
    shown = [label.get_text().replace(r"\$", "$") for label in ax.get_yticklabels()]
    cat = legible("猫")[1]
    assert shown == [{"猫": cat, "bell\x07": r"bell\x07"}.get(name, name) for name in STRANGE]
    assert ax.get_title() == f"title $\\sqrt{{ {cat}"
    assert "Glyph" not in buffer


def save_to_text(figure) -> str:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as text:
        save(figure, Path(folder) / "figure")
        assert (Path(folder) / "figure.svg").stat().st_size > 1000
    return text.getvalue()


def test_where_no_font_has_a_character_it_is_written_in_latin_letters(monkeypatch, capsys):
    monkeypatch.setattr("detloss.lab.figures.fontManager.ttflist", [])
    figures._family_with.cache_clear()
    figures._tell_lacking.cache_clear()
    assert [legible(name) for name in ("猫", "Привет", "猫 and 狗", "plain")] == [
        ("DejaVu Sans", "Mao"),
        ("DejaVu Sans", "Привет"),
        ("DejaVu Sans", "Mao and Gou"),
        ("DejaVu Sans", "plain"),
    ]
    told = capsys.readouterr().out
    assert told.count("No font on this machine") == 1
    figures._family_with.cache_clear()


def test_a_font_that_has_the_characters_is_found(monkeypatch):
    """Every family is asked for what it has: here one that has what DejaVu Sans is said to lack."""
    known = figures._characters
    monkeypatch.setattr(
        figures,
        "_characters",
        lambda file: known(file) - ({"Ж"} if file == figures.font_file("DejaVu Sans") else set()),
    )
    figures._family_with.cache_clear()
    family, text = legible("Ж")
    figures._family_with.cache_clear()
    assert family != "DejaVu Sans"
    assert text == "Ж"
    assert "Ж" in known(figures.font_file(family))
