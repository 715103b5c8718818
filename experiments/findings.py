"""From `results/<name>.csv` to what was found: differences with a verdict, a figure, a page, a row.

Everything here is computed from that table and the experiment's own file, so that a page can be written again
where the runs are long gone.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from figures import Difference, differences

from detloss.lab.compare.config import CompareConfig
from detloss.lab.figures import save
from detloss.lab.runs import read_csv, write_text
from detloss.lab.statistics import Verdict, contrast, mean_interval, points

RULE = (
    "Planned differences are those of which the header expected something before the runs, exploratory ones "
    "were thought of later; the intervals of each kind hold together on 95 % of such pages. Better, worse, "
    "equivalent (the whole interval within ± 1 point, of ρ within ± .05) and undecided are the words of "
    "[the verdict](../../docs/compare.md#the-verdict), by the contrast of means that is described there. All "
    "seeds share the images, learning rate and box weight, and no interval is over those."
)
MEASURES: dict[str, tuple[str, int, str]] = {
    "ap": ("AP", 100, "higher"),
    "ap50": ("AP50", 100, "higher"),
    "ap75": ("AP75", 100, "higher"),
    "voc2007": ("VOC 2007 mAP", 100, "higher"),
    "voc2010": ("VOC 2010 mAP", 100, "higher"),
    "ece": ("ECE", 100, "lower"),
    "ece_by_chance": ("ECE by chance", 100, ""),
    "dece": ("D-ECE", 100, "lower"),
    "laece": ("LaECE", 100, "lower"),
    "signed_gap": ("signed gap", 100, ""),
    "ece_recall": ("recall", 100, "higher"),
    "score_iou_correlation": ("score-IoU ρ", 1, "higher"),
}
"""Column → its name, the factor it is shown with, and which way is better."""
EQUIVALENT = {"score_iou_correlation": 0.05}
"""The difference that does not matter, where it is not .01."""
Key = tuple[str, str]
"""Setting and loss."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of mean results; above zero the first side is the higher one.

    Attributes:
        label: what is compared, in words.
        weights: of each setting and loss.
        column: of the results.
        planned: whether something was expected of it before the runs.
        words: for a verdict of better and of worse, where those would mislead.
    """

    label: str
    weights: Mapping[Key, float]
    column: str = "ap"
    planned: bool = False
    words: Mapping[str, str] = field(default_factory=dict)


def planned(*contrasts: Contrast) -> tuple[Contrast, ...]:
    """The same, marked as expected before the runs."""
    return tuple(replace(one, planned=True) for one in contrasts)


def difference(
    label: str, first: Key | Sequence[Key], second: Key | Sequence[Key], column: str = "ap"
) -> Contrast:
    """The first minus the second; of several, their mean."""
    weights: dict[Key, float] = {}
    for sign, side in ((1, first), (-1, second)):
        keys: Any = [side] if isinstance(side[0], str) else side
        for key in keys:
            weights[key] = weights.get(key, 0) + sign / len(keys)
    return Contrast(label, weights, column)


def change(label: str, gap: Contrast, before: Contrast) -> Contrast:
    """How much larger one difference is than another."""
    keys = [*gap.weights, *before.weights]
    weights = {key: gap.weights.get(key, 0) - before.weights.get(key, 0) for key in keys}
    return Contrast(label, weights, gap.column, words={"better": "larger", "worse": "smaller"})


@dataclass(frozen=True)
class Experiment:
    """A question, the comparisons that answer it, and what is read from them.

    Attributes:
        file: the experiment's own file.
        header: its docstring: the question, then paragraphs Source, Command, Duration, Expected.
        comparisons: by setting; those on real data come last.
        contrasts: the first is the answer's effect in README.md.
        columns: shown in the table of means.
        plot: draws a figure beside that of the contrasts.
        more: what else is computed, as a paragraph.
        found: what was found, in prose, written after the runs.
        answer: the same in a few words for README.md; without it, the verdict on the first contrast.
    """

    file: str
    header: str
    comparisons: Mapping[str, CompareConfig]
    contrasts: Sequence[Contrast]
    columns: Sequence[str] = ("ap", "ap50", "ap75", "voc2007")
    plot: "Callable[[Results], Any] | None" = None
    more: "Callable[[Results], str] | None" = None
    found: str = ""
    answer: str = ""

    @property
    def name(self) -> str:
        """The file's stem."""
        return Path(self.file).stem

    def said(self, what: str) -> str:
        """The paragraph of the header that begins with this word; "Question" is the first."""
        paragraphs = [" ".join(part.split()) for part in self.header.strip().split("\n\n")]
        if what == "Question":
            return paragraphs[0]
        fields = re.split(r"(?:^| )(Source|Command|Duration|Expected): ", " ".join(paragraphs[1:]))
        found = {name: text for (i, name), (_, text) in pairwise(enumerate(fields)) if i % 2}
        if what not in found:
            raise ValueError(f"{self.file}: its header has no paragraph {what!r}")
        return found[what]


@dataclass(frozen=True)
class Results:
    """The rows of `results/<name>.csv`."""

    rows: Sequence[Mapping[str, str]]

    def settings(self) -> list[str]:
        """In their order."""
        return list(dict.fromkeys(row["setting"] for row in self.rows))

    def losses(self, setting: str) -> list[str]:
        """Of a setting, in their order."""
        return list(dict.fromkeys(row["loss"] for row in self.rows if row["setting"] == setting))

    def of(self, key: Key, column: str = "ap") -> dict[int, float]:
        """Seed → value; a run that diverged has none."""
        mine = [row for row in self.rows if (row["setting"], row["loss"]) == key]
        return {int(row["seed"]): float(row[column]) for row in mine if row[column] != ""}

    def runs(self, key: Key) -> int:
        """How many, with those that diverged."""
        return sum((row["setting"], row["loss"]) == key for row in self.rows)

    def shown(self, setting: str, loss: str, column: str = "ap") -> list[float]:
        """The seeds' values as they are shown, AP in points."""
        return [MEASURES[column][1] * value for value in self.of((setting, loss), column).values()]

    def mean(self, key: Key, column: str) -> float:
        """Over the seeds of a column that is no measure."""
        return mean_interval(self.of(key, column).values())[0]

    def negatives(self, setting: str) -> float:
        """Negatives per positive location, as measured."""
        return next(float(r["negatives_per_positive"]) for r in self.rows if r["setting"] == setting)


@dataclass(frozen=True)
class Found:
    """What a contrast came to: the verdict in the units of the results, better being what is better there."""

    contrast: Contrast
    verdict: Verdict
    seeds: str

    @property
    def word(self) -> str:
        """The verdict in the contrast's own words."""
        return self.contrast.words.get(self.verdict.verdict, self.verdict.verdict)

    def text(self) -> str:
        """The difference and its interval."""
        one, column = self.verdict, self.contrast.column
        bounds = "" if math.isnan(one.low) else f" [{show(one.low, column)}, {show(one.high, column)}]"
        return show(one.difference, column) + bounds


def findings(experiment: Experiment, results: Results) -> list[Found]:
    """Every contrast whose runs are all there; the planned ones first."""
    there = {(setting, loss) for setting in results.settings() for loss in results.losses(setting)}
    contrasts = [one for one in experiment.contrasts if set(one.weights) <= there]
    contrasts.sort(key=lambda one: not one.planned)
    found = []
    for one in contrasts:
        alike = sum(other.planned == one.planned for other in contrasts)
        settings = {setting for setting, _ in one.weights}
        runs = {
            (setting, loss): list(results.of((setting, loss), one.column).values())
            for setting, loss in sorted(there)
            if setting in settings
        }
        rope = EQUIVALENT.get(one.column, 0.01)
        verdict = contrast(runs, one.weights, rope, alike)
        if MEASURES[one.column][2] == "lower":
            opposite: dict[str, Any] = {"better": "worse", "worse": "better"}
            verdict = replace(verdict, verdict=opposite.get(verdict.verdict, verdict.verdict))
        counts = [len(runs[key]) for key in one.weights]
        made = max(results.runs(key) for key in one.weights)
        seeds = f"{min(counts)} of {made}" if min(counts) < made else str(made)
        found.append(Found(one, verdict, seeds))
    return found


def show(value: float, column: str, half_width: float = math.nan, sign: bool = True) -> str:
    """A value as its column is shown: points of 100, or two decimals."""
    if MEASURES[column][1] == 100:
        return points(value, half_width, sign=sign)
    text = points(value / 100, sign=sign) if math.isnan(value) else f"{value:{'+' if sign else ''}.2f}"
    return text.replace("-", "−") + ("" if math.isnan(half_width) else f"\u00a0±\u00a0{half_width:.2f}")


def draw_differences(found: Sequence[Found]) -> Any:
    """The contrasts as a figure."""
    drawn = []
    for one in found:
        name, scale, _ = MEASURES[one.contrast.column]
        numbers = [scale * value for value in (one.verdict.difference, one.verdict.low, one.verdict.high)]
        unit = f"{name}, points" if scale == 100 else name
        drawn.append(
            Difference(one.contrast.label, *numbers, one.verdict.verdict, one.contrast.planned, unit)
        )
    return differences(drawn)


def write_page(experiment: Experiment, folder: Path, note: str = "") -> Path:
    """`<name>.md`, `<name>.png`, `<name>_differences.png` beside `<name>.csv`; the page is returned."""
    results = Results(read_csv(folder / f"{experiment.name}.csv"))
    tried = read_csv(folder / f"{experiment.name}_rates.csv")
    found = findings(experiment, results)
    shown = {"_differences": draw_differences(found)}
    if experiment.plot:
        shown[""] = experiment.plot(results)
    for suffix, figure in shown.items():
        save(figure, folder / f"{experiment.name}{suffix}", ("png",))
    question = experiment.said("Question")
    parts = [
        f"# {question}",
        f"Written by `{experiment.said('Command')}` from [{experiment.name}.csv]({experiment.name}.csv) and "
        f"the header of [{experiment.name}.py](../{experiment.name}.py).",
        *([note] if note else []),
        f"**Source.** {experiment.said('Source')}",
        f"**Expected.** {experiment.said('Expected')}",
        f"**What was found.** {experiment.found.strip() or 'Not written yet; the numbers stand below.'}",
        *([f"![{question}]({experiment.name}.png)"] if experiment.plot else []),
        "## Differences",
        f"![Differences and their intervals]({experiment.name}_differences.png)",
        difference_table(found),
        RULE,
        *filter(None, [experiment.more(results) if experiment.more else ""]),
        "## Means",
        mean_table(experiment, results),
        "Mean over seeds with Student's 95 % interval, in points of 100. Each loss has the learning rate, "
        "and where several were tried the box weight, that was best for it in one run each at full length, "
        "judged on a part of the training set held out for that. Intervals are over seeds, not over other "
        "outcomes of that choice.",
        *rate_table(tried),
        "## How it was made",
        how_it_was_made(experiment, results, tried),
    ]
    page = folder / f"{experiment.name}.md"
    write_text(page, "\n\n".join(parts) + "\n")
    return page


def difference_table(found: Sequence[Found]) -> str:
    """Markdown."""
    if not found:
        return "No comparison has finished runs on both sides."
    lines = ["| difference | | measure | seeds | mean [from, to] | verdict |", "|---|---|---|---|---|---|"]
    for one in found:
        name = MEASURES[one.contrast.column][0]
        kind = "planned" if one.contrast.planned else "exploratory"
        lines.append(_row((one.contrast.label, kind, name, one.seeds, one.text(), one.word)))
    return "\n".join(lines)


def mean_table(experiment: Experiment, results: Results) -> str:
    """Markdown: a line for each setting and loss."""
    names = [MEASURES[column][0] for column in experiment.columns]
    lines = [
        f"| setting | loss | lr | box weight | runs | {' | '.join(names)} |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for setting in results.settings():
        for loss in results.losses(setting):
            rows = [r for r in results.rows if (r["setting"], r["loss"]) == (setting, loss)]
            diverged = sum(row["diverged"] != "" for row in rows)
            runs = f"{len(rows)}, {diverged} diverged" if diverged else len(rows)
            cells = [setting, loss, *(f"{float(rows[0][name]):g}" for name in ("lr", "box_weight")), runs]
            for column in experiment.columns:
                mean, width = mean_interval(results.of((setting, loss), column).values())
                cells.append(show(mean, column, width, sign=False))
            lines.append(_row(cells))
    return "\n".join(lines)


def rate_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Markdown: what each rate came to; nothing where none was chosen."""
    tried: dict[Key, list[str]] = {}
    for row in rows:
        ap = points(float(row["ap"])) if row["ap"] else "diverged"
        rate = f"{float(row['lr']):g}" + (f" × {float(row['box_weight']):g}" if row["box_weight"] else "")
        name = f"{loss_name(row['classification_loss'])}+{loss_name(row['box_loss'])}"
        cell = f"{rate}: {ap}"
        tried.setdefault((row["setting"], name), []).append(f"**{cell}**" if row["chosen"] == "1" else cell)
    if not tried:
        return []
    lines = ["| setting | losses | learning rate × box weight: AP on the part held out |", "|---|---|---|"]
    lines += [_row((*key, ", ".join(cells))) for key, cells in tried.items()]
    return ["## Rates", "\n".join(lines), "The one in bold was taken for all seeds."]


def loss_name(name: str) -> str:
    """A loss in tables and contrasts: of one of the experiments' own, the function alone."""
    return re.sub(r"experiments/\w+\.py:", "", name)


def how_it_was_made(experiment: Experiment, results: Results, tried: Sequence[Mapping[str, str]]) -> str:
    """Markdown: command, commit, hardware, duration, and each setting."""
    made = [row for row in (*results.rows, *tried) if row["seconds"]]
    minutes = {name: _minutes([row for row in made if row["setting"] == name]) for name in results.settings()}
    total = _minutes(made)
    lines = [
        f"- Command: `{experiment.said('Command')}`",
        f"- Commit: {_all(results, 'commit')}",
        f"- Hardware: {_all(results, 'hardware')}",
        f"- Duration: {total:.0f} minutes of training in all runs and sweeps, {total / 2:.0f} with two "
        f"at a time, as on two cores ({', '.join(f'{name} {part:.0f}' for name, part in minutes.items())}). "
        "A run's start and evaluation take some seconds more.",
    ]
    for setting in results.settings():
        data = next(row["data"] for row in results.rows if row["setting"] == setting)
        ratio = results.negatives(setting)
        lines.append(f"- {setting}: {data}; {ratio:.0f} negatives per positive location")
    return "\n".join(lines)


def _minutes(made: Sequence[Mapping[str, str]]) -> float:
    """Of these runs, whoever made them; one that two settings share counts once."""
    spent = {(row["classification_loss"], row["box_loss"], row["lr"], row["seconds"]) for row in made}
    return sum(float(seconds) for *_, seconds in spent) / 60


def _all(results: Results, column: str) -> str:
    return "; ".join(dict.fromkeys(row[column] for row in results.rows))


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def readme_row(experiment: Experiment, folder: Path) -> str:
    """The experiment's line of the table in README.md."""
    question = f"[{experiment.name[0]}]({experiment.name}.py) {experiment.said('Question')}"
    rows = read_csv(folder / f"{experiment.name}.csv")
    found = findings(experiment, Results(rows)) if rows else []
    if not found:
        return _row((question, "not run yet", "", ""))
    first = found[0]
    measure, _, better = MEASURES[first.contrast.column]
    note = " (lower is better)" if better == "lower" else ""
    effect = f"{first.contrast.label}: {first.text()} {measure}{note}"
    figure = experiment.name if experiment.plot else f"{experiment.name}_differences"
    links = f"[figure]({folder.name}/{figure}.png), [page]({folder.name}/{experiment.name}.md)"
    return _row((question, experiment.answer or first.word, effect, links))


OWN_WEIGHT = {
    "c_mining": ("own box weight",),
    "h_calibration": ("embedded", "bccd"),
    "i_imbalance": ("1:10 long", "1:20 long", "1:70 long", "1:300 long", "1:2200 long"),
}
"""Settings in which focal loss and cross entropy each have the better of two box weights."""


def at_its_own_weight(folder: Path) -> str:
    """The row of README.md on focal loss and cross entropy over several experiments."""
    runs: dict[Any, list[float]] = {}
    for name, settings in OWN_WEIGHT.items():
        results = Results(read_csv(folder / f"{name}.csv"))
        for key in ((setting, loss) for setting in settings for loss in ("focal", "bce")):
            runs[name, *key] = list(results.of(key).values())
    share = 2 / len(runs)
    one = contrast(runs, {key: share if key[-1] == "focal" else -share for key in runs})
    low, high = (points(end, sign=True) for end in (one.low, one.high))
    effect = f"mean of {len(runs) // 2} settings: {points(one.difference, sign=True)} [{low}, {high}] AP"
    question = (
        "Over c, h and i: is focal loss above cross entropy when each has the better of two box weights?"
    )
    return f"| {question} | {one.verdict} | {effect} | |"
