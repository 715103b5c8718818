"""`detloss curves`: what losses look like."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro

from detloss.lab.cli.arguments import FromFile, Out, Trust, read_settings, results_folder
from detloss.lab.cli.terminal import counting, say, show_table
from detloss.lab.curves.tables import CurvesConfig, box_gradient, curves, figures, minimisers, rows
from detloss.lab.runs import write_tables

RIGHT = (0.5, 0.9, 0.968)
"""p_t at which losses are compared with cross entropy; the last two are those of the paper's section 3.2."""
DISTANCES = (0.5, 1.5)


@dataclass(frozen=True)
class Arguments:
    """Pictures of losses: value, gradient and weight against p_t, minima on soft targets, moving boxes."""

    settings: Annotated[CurvesConfig, tyro.conf.arg(name="")] = field(default_factory=CurvesConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
    quick: bool = False
    """A quarter of the points."""


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of `detloss curves`, as `read_settings`."""
    return read_settings("curves", Arguments, CurvesConfig, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss curves`; its folder is returned."""
    from detloss.lab.curves.figures import loss_curves
    from detloss.lab.figures import save_all

    config = arguments.settings
    drawn = figures(config)
    places = minimisers(config.soft_losses, config.soft_targets)
    out = results_folder("curves", arguments.out, config)
    points = [row for name, panels in drawn.items() for row in rows(name, panels)]
    write_tables(out, {"curves": points, "minimisers": places})
    with counting("drawing") as progress:
        save_all(out, {name: partial(loss_curves, panels) for name, panels in drawn.items()}, progress)
    say("how many times smaller than cross entropy the loss of a positive is")
    weights = curves(config.losses, of="weight", points=RIGHT)
    times = [(curve.name, *(f"{1 / y:.4g}" if y else "∞" for y in curve.y.tolist())) for curve in weights]
    show_table(["loss", *(f"p_t = {p:g}" for p in RIGHT)], times)
    say("\np where the loss is smallest, for soft targets t")
    smallest = {name: [name] for name in config.soft_losses}
    for place in places:
        smallest[place.loss].append(f"{place.p:.3f}")
    show_table(["loss", *(f"t = {target:g}" for target in config.soft_targets)], smallest.values())
    say("\ngradient norm of a unit box at some distance from its target")
    moved = torch.tensor([[distance, 0, 1, 1] for distance in DISTANCES])
    norms = [(name, *(f"{norm:.3f}" for norm in box_gradient(name, moved)[1])) for name in config.box_losses]
    show_table(["loss", *(f"{distance:g} widths" for distance in DISTANCES)], norms)
    say("\ncurves.csv has every point of every curve, minimisers.csv the minima")
    return out
