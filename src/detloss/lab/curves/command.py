"""`detloss curves`: what losses look like."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from detloss.lab.cli.arguments import FromFile, Out, given, read, refuse_another
from detloss.lab.cli.terminal import console, counting, say
from detloss.lab.curves.tables import COLUMNS, CurvesConfig, box_gradient, curves, figures, minimisers, rows
from detloss.lab.records import to_dict
from detloss.lab.runs import new_folder, versions, write_csv, write_json

RIGHT = (0.5, 0.9, 0.968)
"""p_t at which losses are compared with cross entropy; the last two are those of the paper's section 3.2."""
DISTANCES = (0.5, 1.5)


@dataclass(frozen=True)
class Arguments:
    """Pictures of losses: value, gradient and weight over p_t, minima on soft targets, moving boxes."""

    settings: Annotated[CurvesConfig, tyro.conf.arg(name="")] = field(default_factory=CurvesConfig)
    out: Out = None
    config_file: FromFile = None
    quick: bool = False
    """A quarter of the points."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss curves`: defaults, changed by --config, by --quick, by the other arguments, in this order."""
    config = given(CurvesConfig, arguments)
    if "--quick" in arguments:
        config = replace(config, points=max(10, config.points // 4))
    return read("curves", Arguments, arguments, Arguments(config))


def run(arguments: Arguments) -> Path:
    """Runs `detloss curves`; its folder is returned."""
    from detloss.lab.curves.figures import loss_curves
    from detloss.lab.figures import save

    config = arguments.settings
    refuse_another(arguments.out, config)
    drawn = figures(config)
    places = minimisers(config.soft_losses, config.soft_targets)
    out = new_folder("curves", arguments.out)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "versions.json", versions("cpu"))
    write_csv(out / "curves.csv", COLUMNS, (row for name in drawn for row in rows(name, drawn[name])))
    write_csv(out / "minimisers.csv", ("loss", "soft_target", "p", "value"), map(asdict, places))
    with counting("drawing") as progress:
        for done, (name, panels) in enumerate(drawn.items(), 1):
            save(loss_curves(panels), out / name)
            progress(done, len(drawn))
    weights = [curve.y.tolist() for curve in curves(config.losses, of="weight", points=RIGHT)]
    _print(
        "times below cross entropy, of a positive",
        [f"p_t = {p:g}" for p in RIGHT],
        [
            (name, [f"{1 / value:.4g}" if value else "∞" for value in row])
            for name, row in zip(config.losses, weights)
        ],
    )
    width = len(config.soft_targets)
    _print(
        "p where the loss is smallest",
        [f"t = {target:g}" for target in config.soft_targets],
        [
            (name, [f"{place.p:.3f}" for place in places[i * width : (i + 1) * width]])
            for i, name in enumerate(config.soft_losses)
        ],
    )
    slid = torch.tensor([[distance, 0, 1, 1] for distance in DISTANCES])
    _print(
        "gradient norm of a unit box that has slid away",
        [f"by {distance:g}" for distance in DISTANCES],
        [(name, [f"{norm:.3f}" for norm in box_gradient(name, slid)[1]]) for name in config.box_losses],
    )
    say("curves.csv holds every curve, minimisers.csv the minima")
    return out


def _print(title: str, columns: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("loss", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, values in lines:
        table.add_row(name, *values)
    say(title)
    console.print(table)
    console.print()
