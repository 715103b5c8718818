"""`detloss simulate`: the DIoU paper's simulation of box regression."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from detloss.lab.cli.arguments import FromFile, Out, given, read, refuse_another
from detloss.lab.cli.terminal import console, counting, say
from detloss.lab.records import to_dict
from detloss.lab.runs import new_folder, versions, write_csv, write_json
from detloss.lab.simulate import (
    CASES,
    PER_CENTRE,
    PUBLISHED,
    SLIPS,
    STUCK,
    Regression,
    SimulationConfig,
    find_gradient,
    simulate,
)

SHOWN = (50, 100, 200)


@dataclass(frozen=True)
class Arguments:
    """The DIoU paper's simulation: how near 1.7 million boxes come to their targets under each box loss."""

    settings: Annotated[SimulationConfig, tyro.conf.arg(name="")] = field(default_factory=SimulationConfig)
    out: Out = None
    config_file: FromFile = None
    quick: bool = False
    """A first look in seconds: 100 anchor centres."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss simulate`: defaults, changed by --config, by --quick, by other arguments, in this order."""
    config = given(SimulationConfig, arguments)
    if "--quick" in arguments:
        config = replace(config, cases=100 * PER_CENTRE)
    return read("simulate", Arguments, arguments, Arguments(config))


def run(arguments: Arguments) -> Path:
    """Runs `detloss simulate`; its folder is returned."""
    from detloss.lab.figures import save
    from detloss.lab.simulate.figures import error_curves, error_surface

    config = arguments.settings
    for name in config.names:
        find_gradient(name)
    refuse_another(arguments.out, config)
    out = new_folder("simulate", arguments.out)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "versions.json", versions("cpu"))
    with counting("blocks of boxes") as progress:
        found = simulate(config.names, config.cases, config.seed, progress=progress)
    write_csv(out / "errors.csv", ("loss", "step", "error"), _errors(found))
    write_csv(out / "surface.csv", ("loss", "x", "y", "error"), _surface(found))
    summary = [_summary(regression) for regression in found.values()]
    write_csv(out / "summary.csv", tuple(summary[0]), summary)
    with counting("drawing") as progress:
        for done, draw in enumerate((error_curves, error_surface), 1):
            save(draw(found), out / draw.__name__)
            progress(done, 2)
    _print(found)
    return out


def _errors(found: Mapping[str, Regression]) -> Iterator[dict[str, Any]]:
    for name, regression in found.items():
        for step, error in enumerate(regression.error.tolist()):
            yield {"loss": name, "step": step, "error": error}


def _surface(found: Mapping[str, Regression]) -> Iterator[dict[str, Any]]:
    for name, regression in found.items():
        for (x, y), error in zip(regression.centres.tolist(), regression.errors[-1].tolist()):
            yield {"loss": name, "x": x, "y": y, "error": error}


def _summary(regression: Regression) -> dict[str, Any]:
    row: dict[str, Any] = {"loss": regression.loss, "cases": regression.cases}
    for step in SHOWN:
        row[f"error_{step}"] = float(regression.error[step])
        row[f"standard_error_{step}"] = float(regression.spread[step])
    first = regression.first_not_finite
    return row | {
        "stuck": regression.stuck,
        "not_finite": regression.not_finite,
        "first_not_finite_step": "" if first is None else first,
    }


def _print(found: Mapping[str, Regression]) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("loss", overflow="fold")
    for step in SHOWN:
        table.add_column(f"error at {step}", justify="right", no_wrap=True)
    table.add_column("stuck", justify="right", no_wrap=True)
    for name, regression in found.items():
        values = [_number(regression.error[step], regression.spread[step]) for step in SHOWN]
        table.add_row(name, *values, f"{100 * regression.stuck / regression.cases:.2f} %")
    first = next(iter(found.values()))
    say(
        f"{first.cases} cases at {len(first.centres)} anchor centres; error: sum of |Δcx| + |Δcy| + |Δw| + "
        f"|Δh| after so many updates, scaled to {CASES} cases, ± standard error of the choice of centres"
    )
    console.print(table)
    say(f"stuck: cases whose final error is above {STUCK:g}")
    for regression in found.values():
        if regression.not_finite:
            say(
                f"{regression.loss}: {regression.not_finite} of {regression.cases} cases became NaN or "
                f"infinite, the first after step {regression.first_not_finite}: from there no error is given"
            )
    slips = {slip for kind in PUBLISHED if f"{kind}_published" in found for slip in PUBLISHED[kind]}
    if slips:
        say("_published follows what the paper's own script computes, not the loss's gradient:")
        for slip, what in SLIPS.items():
            if slip in slips:
                say(f"  {slip}: {what}")


def _number(error: float, spread: float) -> str:
    """5.86e6 ±0.7 %"""
    if not math.isfinite(error):
        return str(error)
    text = f"{error:.2e}".replace("e+0", "e").replace("e+", "e")
    return text if math.isnan(spread) or not error else f"{text} ±{100 * spread / error:.1f} %"
