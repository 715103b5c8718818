"""How figures look: one style a loss, one palette, one scale of text; and what all figures share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from anyascii import anyascii
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogFormatter, ScalarFormatter

from detloss.lab.cli.terminal import printable
from detloss.lab.cli.terminal import say as tell

Table = Mapping[str, np.ndarray]
"""Column name → array."""
Runs = Mapping[str, Sequence[Table]]
"""For each loss, one table a seed."""


class Style(NamedTuple):
    """How a loss is drawn."""

    color: str
    marker: str
    line: Any


LOSS_STYLES = {
    "bce": Style("#0072B2", "o", "-"),
    "balanced_bce": Style("#56B4E9", "s", "--"),
    "focal": Style("#D55E00", "^", "-"),
    "softmax_focal": Style("#E69F00", "v", "--"),
    "quality_focal": Style("#009E73", "D", "-."),
    "varifocal": Style("#CC79A7", "P", (0, (1, 1))),
}
_OTHERS = [Style("#000000", "X", "-"), Style("#7F7F7F", "*", "--"), Style("#8C5A2B", "h", "-.")]
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C5A2B", "#000000")
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
INK, FAINT = "#222222", "#9a9a9a"
_RC: Any = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "detloss",
}
WIDTH = 6.0  # inches, all figures but the samples: one scale of text, legible on a phone
drawing: Callable[..., Any] = matplotlib.rc_context(_RC)


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A fixed style for each known classification loss ("focal", "focal,gamma=1.5", "focal+ciou").

    A second name of the same loss and unknown ones take the next free style.
    """
    listed = list(names)
    chosen: dict[str, Style] = {}
    for name in listed:
        style = LOSS_STYLES.get(name.split("+")[0].split(",")[0])
        if style is not None and style not in chosen.values():
            chosen[name] = style
    free = [style for style in (*LOSS_STYLES.values(), *_OTHERS) if style not in chosen.values()] or _OTHERS
    rest = [name for name in listed if name not in chosen]
    chosen |= {name: free[i % len(free)] for i, name in enumerate(rest)}
    return {name: chosen[name] for name in listed}


def broken(name: str, width: int = 27) -> str:
    """A long name of a loss on several lines, each but the last ending in its comma or plus."""
    lines = [""]
    for part in re.split(r"(?<=[,+])", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def save(figure: Figure, path: Path, formats: Iterable[str] = ("png", "svg")) -> None:
    """Writes ``path``.png (180 dpi) and ``path``.svg, or other formats; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _make_legible(figure)
    with matplotlib.rc_context(_RC):
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
    # Laid out once, for all formats: an engine, be it one that does nothing, has every file drawn twice.
    with matplotlib.rc_context({**_RC, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        for name in formats:
            metadata = {"Date": None} if name == "svg" else None
            figure.savefig(path.with_name(f"{path.name}.{name}"), dpi=180, metadata=metadata)


def _make_legible(figure: Figure) -> None:
    """Shows the names of users' classes, files and losses as they are: in any script, `$` and all."""
    ticks: list[Text] = []
    for axis in [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]:
        formatter = axis.get_major_formatter()
        labels = axis.get_ticklabels()
        if not isinstance(formatter, ScalarFormatter | LogFormatter):  # those write numbers, as formulas
            axis.set_major_formatter(partial(_tick, formatter))
            for label in labels:
                label.set_fontfamily(["DejaVu Sans", legible(label.get_text())[0]])
        ticks += [*labels, *axis.get_ticklabels(minor=True), axis.get_offset_text()]
    for text in figure.findobj(Text):
        if not any(text is tick for tick in ticks):
            family, shown = legible(text.get_text())
            text.set_text(shown)
            text.set_parse_math(False)
            if family != "DejaVu Sans":
                text.set_fontfamily(["DejaVu Sans", family])


def _tick(formatter: Formatter, value: float, position: int | None) -> str:
    return legible(formatter(value, position))[1].replace("$", r"\$")


def legible(text: str) -> tuple[str, str]:
    """The family of a font that has what DejaVu Sans lacks of a text, and the text as it can be shown.

    Where no font of this machine has all of it, what is missing is written in Latin letters, with a note.
    """
    text = "\n".join(printable(line) for line in text.split("\n"))
    missing = frozenset(text) - _characters(font_file("DejaVu Sans")) - {"\n"}
    if not missing:
        return "DejaVu Sans", text
    family, lacking = _family_with(missing)
    if lacking:
        _tell_lacking()
    return family, "".join(anyascii(c) or "?" if c in lacking else c for c in text)


def font_file(family: str) -> str:
    """The file of a font family."""
    return str(findfont(family))


@cache
def _characters(file: str) -> frozenset[str]:
    font = get_font(file)
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


@cache
def _family_with(wanted: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The font that has most of these characters, upright and regular if it can be; what it lacks."""
    found = "DejaVu Sans", wanted
    # Last Resort has a box for every character.
    fonts = [f for f in fontManager.ttflist if "Last Resort" not in f.name and f.name != "DejaVu Sans"]
    for font in sorted(fonts, key=lambda f: (f.style != "normal", f.weight != 400, f.name)):
        try:
            lacking = wanted - _characters(font.fname)
        except (OSError, RuntimeError):  # a damaged file among a machine's fonts
            continue
        if len(lacking) < len(found[1]):
            found = font.name, lacking
        if not lacking:
            break
    return found


@cache
def _tell_lacking() -> None:
    """Once in a process."""
    tell(
        "No font on this machine has all characters of the names: pictures show Latin letters instead. "
        "Install a font that has them, such as Noto Sans CJK (Debian: apt install fonts-noto-cjk)."
    )


def save_all(
    out: Path, figures: Mapping[str, Callable[[], Figure]], progress: Callable[[int, int], Any]
) -> None:
    """Draws each figure and saves it in the folder under its name; `progress` is called with (done, all)."""
    for done, (name, draw) in enumerate(figures.items(), 1):
        save(draw(), out / name)
        progress(done, len(figures))


def one(title: str, x: str, y: str, height: float = 3.3) -> tuple[Figure, Axes]:
    """A figure of one axes."""
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.subplots()
    ax.set(title=title, xlabel=x, ylabel=y)
    return figure, ax


def panels(count: int, height: float, x: str, y: str) -> tuple[Figure, list[Axes]]:
    """That many axes, two in a row, with labels at the outer ones."""
    rows = math.ceil(count / 2) or 1
    figure = Figure(figsize=(WIDTH, height * rows + 0.3))
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    for i, ax in enumerate(axes[:count]):
        ax.set(xlabel=x if i + 2 >= count else "", ylabel=y if i % 2 == 0 else "")
    return figure, axes[:count]


def band(
    ax: Axes, seeds: Sequence[tuple[np.ndarray, np.ndarray]], name: str, style: Style, marked: bool = False
) -> None:
    """Mean over the seeds where all have a value, and the range from the lowest to the highest."""
    if not seeds:
        return
    x = seeds[0][0]
    for steps, _ in seeds[1:]:
        x = np.intersect1d(x, steps)
    values = np.array([y[np.isin(steps, x)] for steps, y in seeds])
    if len(values) > 1:
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=style.color, alpha=0.16, linewidth=0)
    marker = style.marker if marked else None
    ax.plot(x, values.mean(axis=0), color=style.color, linestyle=style.line, marker=marker, label=name)


def thinned(x: np.ndarray, y: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over consecutive stretches; nan values are left out."""
    good = ~np.isnan(y)
    x, y = x[good], y[good]
    if not len(x):
        return x, y
    pieces = np.array_split(np.arange(len(x)), min(parts, len(x)))
    return np.array([x[p].mean() for p in pieces]), np.array([y[p].mean() for p in pieces])


def legend_below(figure: Figure, lines: Sequence[Any], names: Sequence[str], **style: Any) -> None:
    """One legend for all axes, in as many columns as fit; nothing where there are no lines."""
    if lines:
        rows = math.ceil(len(names) * (0.6 + 0.0725 * max(map(len, names))) / figure.get_figwidth())
        columns = math.ceil(len(names) / rows)
        figure.legend(lines, names, loc="outside lower center", ncols=columns, **style)


def finish(ax: Axes, empty: str, legend: bool = True) -> None:
    """A legend, or a word where nothing could be drawn."""
    if not ax.lines and not ax.patches:
        say(ax, empty)
    elif legend:
        ax.legend()


def say(ax: Axes, text: str) -> None:
    """The text in the middle of empty axes."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT, style="italic")
