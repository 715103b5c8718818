"""`detloss compare`: which loss?"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.live import Live

from detloss.lab.cli.arguments import FromFile, Out, Trust, given, read
from detloss.lab.cli.terminal import console, counting, interruptible, make_table, progress_bar, say
from detloss.lab.compare.comparison import Comparison, compare, fail_if_died
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import Pair, hold_out
from detloss.lab.compare.prepare import check, prepare
from detloss.lab.data import Dataset
from detloss.lab.engines import JobFailed
from detloss.lab.lock import locked
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
from detloss.lab.training.opening import check_detector, open_splits
from detloss.lab.training.splits import open_data, settled

VERDICT_COLUMNS = tuple(column.name for column in fields(Verdict))


@dataclass(frozen=True)
class Arguments:
    """Which classification loss, which box loss? Same data, seeds and batches, each loss tuned on its own."""

    settings: Annotated[CompareConfig, tyro.conf.arg(name="")] = field(default_factory=CompareConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
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
    config = arguments.settings
    config, training, validation = open_comparison(config)
    out = new_folder("compare", arguments.out)
    with locked(out), interruptible(out):
        config, data = prepare(config, out, training, validation)
        say(_imbalance(config, data))
        state = Comparison(config, out)
        train_shown(state)
        _report(state)
    fail_if_died(state)
    if state.diverged:
        raise JobFailed(
            f"{len(state.diverged)} runs diverged; the report in {out} says which: {state.diverged[0]}"
        )
    say(f"report: {out / 'report.html'}")
    return out


def _report(state: Comparison) -> None:
    """Says what the runs came to, and writes it down."""
    from detloss.lab.compare.disagreements import disagreement
    from detloss.lab.compare.page import write_report
    from detloss.lab.compare.results import read_results, save_samples

    config, out = state.config, state.out
    console.print(comparison_table(state))
    with counting("resampling the images") as progress:
        results = read_results(out, progress)
    if apart := disagreement(results):
        _, images = open_data(config.first_data.of_seed(apart.seed))
        results = replace(results, samples=save_samples(out, images, apart.f1))
    write_csv(out / "verdicts.csv", VERDICT_COLUMNS, [asdict(one) for one in results.verdicts])
    with counting("drawing the report") as progress:
        write_report(out, results, progress)
    say(results.answer)
    for warning in results.warnings:
        say(warning)


def _imbalance(config: CompareConfig, data: dict[str, Any]) -> str:
    if "negatives_per_positive" not in data:
        who = config.trainer or config.detector.kind
        return f"negatives per positive: not measured, the locations of {who} are not known"
    return (
        f"{data['negatives_per_positive']:.0f} negatives per positive location, "
        f"{data['negatives_per_positive_logits']:.0f} per positive logit "
        f"({data['locations']} locations an image, {data['measured_images']} images)"
    )


def open_comparison(config: CompareConfig) -> tuple[CompareConfig, Dataset, Dataset]:
    """The comparison as its data settles it, and the splits; errors come before anything is written."""
    check(config)
    training, validation = open_splits(config.first_data)
    if config.trainer:
        say(f"{config.trainer} trains; detector, augment and how to train are handed to it")
    else:
        check_detector(settled(config, training), training.names, config.pairs)
    if config.trials:
        hold_out(training, config.held_out)
    if config.new_scenes and config.engine == "local":
        # Here, once: runs of one seed begin at the same time, and each would draw them.
        for seed in range(1, config.seeds):
            with counting(f"drawing scenes of seed {seed}") as progress:
                open_data(config.of_seed(seed), progress)
    return settled(config, training), training, validation


def train_shown(state: Comparison) -> None:
    """Runs what is not finished yet with a live table; on a plain stream, a line for each finished run.

    `diverged.json` says which runs have no result.

    Raises:
        JobFailed: no run has a result.
    """
    bar, told, notes, shown = progress_bar(), None, 0, 0.0
    task = bar.add_task("training steps", total=state.steps_planned, note="")
    live = Live(console=console, transient=True, refresh_per_second=4)
    with live if console.is_terminal else nullcontext():
        for _ in compare(state):
            for note in state.notes[notes:]:
                say(note)
            notes = len(state.notes)
            if console.is_terminal and time.monotonic() - shown > 0.25:
                bar.update(task, completed=state.steps_done)
                live.update(Group(comparison_table(state), bar))
                shown = time.monotonic()
            elif not console.is_terminal and state.latest is not told:
                told = state.latest
                part = 100 * state.steps_done / max(1, state.steps_planned)
                say(f"{part:3.0f} % of all steps; {describe(state.latest)}")
    if not state.results:
        fail_if_died(state)
    if state.diverged:
        write_json(state.out / "diverged.json", state.diverged)
        if not state.results:
            raise JobFailed(f"all {len(state.diverged)} runs diverged: {state.diverged[0]}")


def ap_by_loss(state: Comparison) -> dict[str, dict[int, float]]:
    """{"focal": {seed: AP}} in the order asked for; a loss without results has an empty one."""
    return by_loss(state.config.pairs, state.results)


def comparison_table(state: Comparison) -> RenderableType:
    """Each pair of losses: what was chosen, AP so far, its difference to the first, what is running.

    Whole in 80 columns; a long name is folded before a number is cut.
    """
    rows = []
    ap, ece = measured(ap_by_loss(state)), by_loss(state.config.pairs, state.results, "ece")
    found = decide(ap, state.config.rope / 100, state.config.looks)
    # A word on runs that are not all there would be one more look at them.
    whole = len(state.results) + len(state.diverged) == state.config.seeds * len(ap)
    for pair, (name, values) in zip(state.config.pairs, ap.items()):
        lr, weight = state.chosen.get(pair, (None, None))
        calibration = [value for value in ece[name].values() if not math.isnan(value)]
        rows.append(
            [
                name,
                "…" if lr is None else f"{lr:g}",
                "…" if weight is None else f"{weight:g}",
                f"{len(ece[name])}/{state.config.seeds}",
                points(*mean_interval(values.values())),
                points(mean_interval(calibration)[0]),
                _activity(state, pair) or (_against(found, name, next(iter(ap)), whole) if values else ""),
            ]
        )
    heads = ["loss", "lr", "box\nweight", "runs", "AP", "ECE", "AP against the first"]
    return make_table(heads, rows, ends_in_words=True, padding=0)


def _activity(state: Comparison, pair: Pair) -> str:
    for job, step in state.active.values():
        if job.pair == pair:
            what = f"seed {job.config.seed}" if job.held_out is None else "sweep"
            return f"{what}: {step}/{job.config.steps}"
    return ""


def _against(found: list[Verdict], name: str, first: str, whole: bool) -> str:
    if name == first:
        return "the first"
    one = between(found, name, first)
    return f"{one.shown} {one.verdict if whole and not math.isnan(one.low) else ''}".rstrip()


def describe(row: dict[str, Any] | None) -> str:
    """A finished run in a few words."""
    if row is None:
        return "starting"
    what = f"lr {row['lr']:g} box weight {row['box_weight']:g}, {row['steps']} steps"
    which = f"sweep, {what}" if "seed" not in row else f"seed {row['seed']}, {what}"
    losses = f"{row['classification_loss']}+{row['box_loss']}"
    return f"{losses}, {which}: AP {points(float(row['ap'] if row['ap'] != '' else 'nan'))}"
