"""`detloss compare`: which loss?"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table

from detloss.lab.cli.arguments import FromFile, Out, given, read
from detloss.lab.cli.terminal import console, counting, interruptible, progress_bar, say
from detloss.lab.compare.comparison import Comparison, compare
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import Pair, hold_out
from detloss.lab.compare.prepare import check, prepare
from detloss.lab.compare.sentences import answer, still_learning
from detloss.lab.data import Dataset
from detloss.lab.detector.criterion import check_classes
from detloss.lab.engines import JobFailed
from detloss.lab.runs import new_folder, write_csv, write_json
from detloss.lab.statistics import (
    Verdict,
    between,
    by_loss,
    decide,
    mean_interval,
    measured,
    points,
)
from detloss.lab.training.opening import open_splits
from detloss.lab.training.splits import settled

VERDICT_COLUMNS = tuple(column.name for column in fields(Verdict))


@dataclass(frozen=True)
class Arguments:
    """Which classification loss, which box loss? Same data, seeds and batches, each loss tuned on its own."""

    settings: Annotated[CompareConfig, tyro.conf.arg(name="")] = field(default_factory=CompareConfig)
    out: Out = None
    config_file: FromFile = None
    quick: bool = False
    """A first look in under a minute: two seeds, few steps, no verdict worth trusting."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss compare`: defaults, changed by --config, by --quick, by the other arguments, in this order."""
    config = given(CompareConfig, arguments)
    if "--quick" in arguments:
        config = config.quick()
    return read("compare", Arguments, arguments, Arguments(config))


def run(arguments: Arguments) -> Path:
    """Runs `detloss compare`; its folder is returned."""
    from detloss.lab.compare.page import write_report
    from detloss.lab.compare.results import read_results, save_samples

    config = arguments.settings
    config, training, validation = open_comparison(config)
    out = new_folder("compare", arguments.out)
    data = prepare(config, out, training, validation)
    save_samples(out, validation)
    say(
        f"{data['negatives_per_positive']:.0f} negatives per positive location, "
        f"{data['negatives_per_positive_logits']:.0f} per positive logit "
        f"({data['locations']} locations an image, {data['measured_images']} images)"
    )
    state = Comparison(config, out)
    with interruptible(out):
        train_shown(state)
    console.print(comparison_table(state))
    with counting("drawing the images anew") as progress:
        results = read_results(out, progress)
    write_csv(out / "verdicts.csv", VERDICT_COLUMNS, [asdict(one) for one in results.verdicts])
    with counting("drawing the report") as progress:
        write_report(out, results, progress)
    say(answer(results.column("ap"), config.rope / 100, config.looks, results.images, results.curves))
    if warning := still_learning(results.curves):
        say(warning)
    if state.diverged:
        raise JobFailed(
            f"{len(state.diverged)} runs diverged; the report in {out} says which: {state.diverged[0]}"
        )
    say(f"report: {out / 'report.html'}")
    return out


def open_comparison(config: CompareConfig) -> tuple[CompareConfig, Dataset, Dataset]:
    """The comparison as its data settles it, and the splits; errors come before anything is written."""
    found = check(config)
    training, validation = open_splits(config)
    for loss in found:
        check_classes(loss, config.detector.kind, len(training.names))
    if len(config.candidates) > 1:
        hold_out(training, config.held_out)
    return settled(config, training), training, validation


def train_shown(state: Comparison) -> None:
    """Runs what is not finished yet with the live table; `diverged.json` says which runs have no result.

    Raises:
        JobFailed: no run has a result.
    """
    with CompareDisplay(state) as display:
        for _ in compare(state):
            display.show()
    if state.diverged:
        write_json(state.out / "diverged.json", state.diverged)
        if not state.results:
            raise JobFailed(f"all {len(state.diverged)} runs diverged: {state.diverged[0]}")


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
    ap, ece = measured(ap_by_loss(state)), by_loss(state.config.pairs, state.results, "ece")
    found = _verdicts(state)
    for pair, (name, values) in zip(state.config.pairs, ap.items()):
        lr, weight = state.chosen.get(pair, (None, None))
        calibration = [value for value in ece[name].values() if not math.isnan(value)]
        table.add_row(
            name,
            "…" if lr is None else f"{lr:g}",
            "…" if weight is None else f"{weight:g}",
            f"{len(ece[name])}/{state.config.seeds}",
            points(*mean_interval(values.values())),
            points(mean_interval(calibration)[0]),
            _activity(state, pair) or (_against(found, name, next(iter(ap))) if values else ""),
        )
    return table


def _verdicts(state: Comparison) -> list[Verdict]:
    return decide(ap_by_loss(state), state.config.rope / 100, state.config.looks)


def _activity(state: Comparison, pair: Pair) -> str:
    running = [(job, step) for job, step in state.active.values() if job.pair == pair]
    if not running:
        return ""
    job, step = running[0]
    what = f"seed {job.config.seed}" if job.rung is None else "sweep"
    return f"{what}: {step}/{job.config.steps}"


def _against(found: list[Verdict], name: str, first: str) -> str:
    if name == first:
        return "the first"
    one = between(found, name, first)
    return f"{one.shown} {one.verdict if not math.isnan(one.low) else ''}".rstrip()


class CompareDisplay:
    """The live table and bar of a comparison; on a plain stream, a line for each finished run instead."""

    def __init__(self, state: Comparison) -> None:
        self.state = state
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

    def show(self) -> None:
        """Brings the display up to date."""
        state = self.state
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
