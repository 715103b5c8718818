"""`detloss simulate`: the DIoU paper's simulation of box regression."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from detloss.lab.cli.arguments import FromFile, Out, Trust, read_settings, results_folder
from detloss.lab.cli.terminal import counting, say, show_table
from detloss.lab.runs import write_tables
from detloss.lab.simulate.published import PUBLISHED, SLIPS
from detloss.lab.simulate.simulation import (
    CASES,
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
    trust: Trust = False
    quick: bool = False
    """A first look in seconds: 100 anchor centres."""


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of `detloss simulate`, as `read_settings`."""
    return read_settings("simulate", Arguments, SimulationConfig, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss simulate`; its folder is returned."""
    from detloss.lab.figures import save_all
    from detloss.lab.simulate.figures import error_curves, error_surface

    config = arguments.settings
    for name in config.names:
        find_gradient(name)
    out = results_folder("simulate", arguments.out, config)
    with counting("blocks of boxes") as progress:
        found = simulate(config.names, config.cases, config.seed, progress=progress)
    errors, surface = [], []
    for name, one in found.items():
        errors += [{"loss": name, "step": k, "error": error} for k, error in enumerate(one.error.tolist())]
        places = zip(one.centres.tolist(), one.errors[-1].tolist())
        surface += [{"loss": name, "x": x, "y": y, "error": error} for (x, y), error in places]
    summary = [_summary(one) for one in found.values()]
    write_tables(out, {"errors": errors, "surface": surface, "summary": summary})
    figures = {draw.__name__: partial(draw, found) for draw in (error_curves, error_surface)}
    with counting("drawing") as progress:
        save_all(out, figures, progress)
    _print(found)
    return out


def _summary(regression: Regression) -> dict[str, Any]:
    row: dict[str, Any] = {"loss": regression.loss, "cases": regression.cases}
    for step in SHOWN:
        row[f"error_{step}"] = float(regression.error[step])
        row[f"standard_error_{step}"] = float(regression.spread[step])
    return row | {
        "stuck": regression.stuck,
        "not_finite": regression.not_finite,
        "first_not_finite_step": regression.first_not_finite,
    }


def _print(found: Mapping[str, Regression]) -> None:
    first = next(iter(found.values()))
    say(
        f"{first.cases} cases at {len(first.centres)} anchor centres; error: sum of |Δcx| + |Δcy| + |Δw| + "
        f"|Δh| after that many updates, scaled to {CASES} cases, ± its standard error over the centres drawn"
    )
    rows = []
    for name, one in found.items():
        errors = [_number(one.error[step], one.spread[step]) for step in SHOWN]
        rows.append([name, *errors, f"{100 * one.stuck / one.cases:.2f} %"])
    show_table(["loss", *(f"error at {step}" for step in SHOWN), "stuck"], rows)
    say(f"\nstuck: cases whose final error is above {STUCK:g}")
    for one in found.values():
        if one.not_finite:
            say(
                f"{one.loss}: {one.not_finite} of {one.cases} cases became NaN or infinite, the first after "
                f"step {one.first_not_finite}: from that step on the error is not known"
            )
    slips = {slip for kind in PUBLISHED if f"{kind}_published" in found for slip in PUBLISHED[kind]}
    if slips:
        say("_published follows what the paper's own script computes, which is not the loss's gradient:")
    for slip, what in SLIPS.items():
        if slip in slips:
            say(f"  {slip}: {what}")


def _number(error: float, spread: float) -> str:
    """5.86e6 ±0.7 %"""
    if not math.isfinite(error):
        return str(error)
    text = f"{error:.2e}".replace("e+0", "e").replace("e+", "e")
    return text if math.isnan(spread) or not error else f"{text} ±{100 * spread / error:.1f} %"
