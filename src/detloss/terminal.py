"""What the commands show while they work: progress with time left, the live table of a comparison."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from detloss.compare import Comparison, Pair
from detloss.evaluate import Evaluation
from detloss.statistics import (
    NO_DIFFERENCE,
    NO_SEED,
    NO_VERDICT,
    Standing,
    by_loss,
    mean_interval,
    points,
    standings,
)

console = Console(highlight=False)


def say(text: str) -> None:
    """A line of plain text, whole on a plain stream."""
    console.print(text, soft_wrap=not console.is_terminal, markup=False)


def progress_bar() -> Progress:
    """Description, bar, count, time gone and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar driven by calls with (done, total); it appears with the first of them."""
    with progress_bar() as bar:
        task = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(description, total=total, note="")
            bar.update(task, completed=done)

        yield update


def ap_by_loss(state: Comparison) -> dict[str, dict[int, float]]:
    """{"focal": {seed: AP}} in the order asked for; a loss without results has an empty one."""
    return by_loss(state.config.pairs, state.results)


def comparison_table(state: Comparison) -> Table:
    """Each pair of losses: what was chosen, AP so far, its difference to the first, what is running.

    Whole in 80 columns; a long name is folded before a number is cut.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("loss", overflow="fold")
    for name in ("lr", "box\nweight", "runs", "AP", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("AP against the first", no_wrap=True)
    ece = by_loss(state.config.pairs, state.results, "ece")
    for pair, standing in zip(state.config.pairs, standings(ap_by_loss(state))):
        lr, weight = state.chosen.get(pair, (None, None))
        calibration = [value for value in ece[standing.name].values() if not math.isnan(value)]
        table.add_row(
            standing.name,
            "…" if lr is None else f"{lr:g}",
            "…" if weight is None else f"{weight:g}",
            f"{len(ece[standing.name])}/{state.config.seeds}",
            points(standing.mean, standing.half_width),
            points(mean_interval(calibration)[0]),
            _activity(state, pair) or _against(standing),
        )
    return table


def _activity(state: Comparison, pair: Pair) -> str:
    running = [(job, step) for job, step in state.active.values() if job.pair == pair]
    if not running:
        return ""
    job, step = running[0]
    what = f"seed {job.config.seed}" if job.rung is None else "sweep"
    return f"{what}: {step}/{job.config.recipe.steps}"


def _against(standing: Standing) -> str:
    if not standing.seeds:
        return ""
    if standing.difference is None or standing.difference_half_width is None:
        return "the first"
    short = {NO_DIFFERENCE: "no diff.", NO_VERDICT: "one seed", NO_SEED: "no seed shared"}
    word = short.get(standing.verdict or "", standing.verdict)
    return f"{points(standing.difference, standing.difference_half_width, sign=True)} {word}"


def print_evaluation(evaluation: Evaluation) -> None:
    """The numbers of an evaluation, a line each."""
    calibration = evaluation.calibration
    lines: list[tuple[str, Any]] = [
        ("AP, AP50, AP75", (evaluation.ap, evaluation.ap50, evaluation.ap75)),
        (
            "AP of small, medium, large objects (COCO)",
            (evaluation.ap_small, evaluation.ap_medium, evaluation.ap_large),
        ),
        ("AR at 1, 10, 100 detections", (evaluation.ar1, evaluation.ar10, evaluation.ar100)),
    ]
    for text, values in lines:
        say(f"{text}: {', '.join(points(v) for v in values)}")
    for one in evaluation.size_bins:
        say(f"  AP of objects of {one.low:g} to {one.high:g} px: {points(one.ap)} ({one.objects} objects)")
    for name, value in evaluation.per_class.items():
        say(f"  AP of {name}: {points(value)}")
    say(
        f"ECE {points(calibration.ece)} of {calibration.detections} detections with a score of at least "
        f"{calibration.threshold:g}, which find {points(calibration.recall)} % of the objects"
    )
    say(f"score-IoU rank correlation {evaluation.score_iou_correlation:.2f}")


class CompareDisplay:
    """The live table and bar of a comparison; on a plain stream, a line for each finished run instead."""

    def __init__(self, state: Comparison) -> None:
        self.bar = progress_bar()
        self.task = self.bar.add_task("training steps", total=state.steps_planned, note="")
        self.live = Live(console=console, transient=True, refresh_per_second=4)
        self.told: dict[str, Any] | None = None
        self.shown = 0.0

    def __enter__(self) -> "CompareDisplay":
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self.live.stop()

    def show(self, state: Comparison) -> None:
        """Brings the display up to date."""
        if console.is_terminal:
            if time.monotonic() - self.shown > 0.25:
                self.bar.update(self.task, completed=state.steps_done)
                self.live.update(Group(comparison_table(state), self.bar))
                self.shown = time.monotonic()
            return
        if state.latest is not self.told:
            self.told = state.latest
            part = 100 * state.steps_done / max(1, state.steps_planned)
            say(f"{part:3.0f} % of all steps; {describe(state.latest)}")


def describe(row: dict[str, Any] | None) -> str:
    """A finished run in a few words."""
    if row is None:
        return "starting"
    what = f"lr {row['lr']:g} box weight {row['box_weight']:g}, {row['steps']} steps"
    which = f"sweep, {what}" if "rung" in row else f"seed {row['seed']}, {what}"
    losses = f"{row['classification_loss']}+{row['box_loss']}"
    return f"{losses}, {which}: AP {points(float(row['ap'] if row['ap'] != '' else 'nan'))}"
