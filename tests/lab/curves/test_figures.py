"""What lies on one line is said of one line, and legends name every loss once."""

import numpy as np

from detloss.lab.curves.figures import loss_curves
from detloss.lab.curves.tables import Curve, CurvesConfig, Panel, curves, figures

FIGURES = figures(CurvesConfig(points=30))


def legend(one) -> tuple[str, list[str]]:
    return one.get_title().get_text(), [text.get_text() for text in one.get_texts()]


def test_settings_that_all_share_are_the_title_of_the_legend():
    figure = loss_curves(FIGURES["loss"])
    assert legend(figure.legends[0]) == (
        "focal,alpha=none",
        [f"gamma={gamma}" for gamma in (0, 0.5, 1, 2, 5)],
    )
    assert all(ax.get_legend() is None for ax in figure.axes)
    for ax, panel in zip(figure.axes, FIGURES["loss"]):
        for line, curve in zip(ax.lines, panel.curves, strict=True):
            np.testing.assert_array_equal(line.get_xydata().T, (curve.x, curve.y))
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 5
    assert len({line.get_color() for line in ax.lines}) == 5


def test_a_loss_without_settings_is_as_it_is():
    panel = Panel("t", "p", "loss", curves(["bce", "bce,alpha=0.75"], points=20))
    assert legend(loss_curves([panel]).legends[0]) == ("bce", ["as it is", "alpha=0.75"])
    panel = Panel("t", "p", "loss", curves(["bce"], points=20))
    assert legend(loss_curves([panel]).legends[0]) == ("", ["bce"])


def test_folders_of_own_losses_are_left_out_where_names_stay_apart():
    x = np.arange(3.0)

    def shown(*names: str) -> list[str]:
        both = tuple(Curve(name, x, i + x) for i, name in enumerate(names))
        return legend(loss_curves([Panel("t", "x", "y", both)]).legends[0])[1]

    assert shown("/a/own.py:mine,tau=0.5", "focal") == ["own.py:mine,tau=0.5", "focal"]
    assert shown("/a/own.py:mine", "/b/own.py:mine") == ["/a/own.py:mine", "/b/own.py:mine"]


def test_equal_curves_are_one_line_with_both_names():
    slide, slide_norm, shrink, _, ratio, _ = loss_curves(FIGURES["boxes"]).axes
    assert legend(slide.get_legend())[1] == ["iou", "giou", "diou, ciou, eiou"]
    assert slide_norm.get_legend() is None  # the one to its left says the same
    assert legend(shrink.get_legend())[1] == ["iou, giou, diou, ciou", "eiou"]
    (below,) = loss_curves(FIGURES["minimisers"]).legends
    assert legend(below)[1] == ["bce, quality_focal, varifocal", "focal,alpha=none"]
    assert legend(ratio.get_legend())[1] == ["iou, diou", "giou", "ciou", "eiou"]
    assert shrink.lines[1].get_color() == ratio.lines[3].get_color()  # eiou's, wherever others fell together


def test_minima_are_marked_where_they_are():
    figure = loss_curves(FIGURES["soft_targets"])
    ax, panel = figure.axes[1], FIGURES["soft_targets"][1]
    dots = [line for line in ax.lines if line.get_marker() != "None"]
    assert [tuple(dot.get_xydata()[0]) for dot in dots] == [curve.lowest for curve in panel.curves]
    assert len({dot.get_marker() for dot in dots}) == 4
    assert [line.get_color() for line in ax.lines[:4]] == [dot.get_color() for dot in dots]


def test_an_unbounded_curve_leaves_room_for_the_others():
    x = np.linspace(0.001, 1, 400)
    unbounded = Panel("t", "x", "y", (Curve("pole", x, 1 / x), Curve("line", x, x)))
    bounded = Panel("t", "x", "y", (Curve("line", x, -x),))
    low, high = loss_curves([unbounded]).axes[0].get_ylim()
    assert low < 0 < 10 < high < 100
    low, high = loss_curves([bounded]).axes[0].get_ylim()
    assert low < -1
    assert high > 0


def test_nothing_to_draw_is_said():
    nothing = Curve("own", np.arange(3.0), np.full(3, np.nan))
    assert len(loss_curves([Panel("t", "x", "y", (nothing,))]).axes[0].lines) == 1
    (text,) = loss_curves([Panel("t", "x", "y", ())]).axes[0].texts
    assert text.get_text() == "no losses"
