"""`detloss bench`: speed and memory of the losses."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from detloss.lab.bench import BenchConfig, bench, line, notes, tables
from detloss.lab.cli.arguments import FromFile, Out, Trust, given, read
from detloss.lab.cli.terminal import console, progress_bar, say
from detloss.lab.devices import pick_device
from detloss.lab.engines import JobFailed
from detloss.lab.records import to_dict
from detloss.lab.runs import new_folder, versions, write_json
from detloss.lab.signals import and_then


@dataclass(frozen=True)
class Arguments:
    """Speed and memory of the losses, beside torchvision, torch and the usual snippets."""

    settings: Annotated[BenchConfig, tyro.conf.arg(name="")] = field(default_factory=BenchConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
    quick: bool = False
    """A first look in under a minute: focal loss, dense targets, three sizes."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss bench`: defaults, changed by --config, by --quick, by the other arguments, in this order."""
    config = given(BenchConfig, arguments)
    if "--quick" in arguments:
        config = replace(config, losses=("focal",), sizes=(1e3, 1e5, 1e6), targets=("dense",), seconds=1.0)
    return read("bench", Arguments, arguments, Arguments(config))


def run(arguments: Arguments) -> Path:
    """Runs `detloss bench`; its folder is returned."""
    from detloss.lab.bench.figures import bench_times
    from detloss.lab.figures import save

    config = arguments.settings
    device = pick_device(config.device)
    if arguments.out is not None and (arguments.out / "results.csv").exists():
        raise ValueError(f"--out {arguments.out} holds results already, which are kept; give another folder")
    out = new_folder("bench", arguments.out)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "versions.json", versions(str(device)))
    rows: list[dict[str, Any]] = []
    bar = progress_bar()
    bar.live.auto_refresh = False  # no thread draws while another measures
    with bar:
        task = bar.add_task("losses and sizes", total=len(config.cells), note="")

        def tell(text: str) -> None:
            bar.update(task, note=text, refresh=True)

        try:
            for done, found in enumerate(bench(config, device, out, tell), 1):
                rows += found
                bar.update(task, completed=done)
                if not console.is_terminal:
                    say(f"{100 * done / len(config.cells):3.0f} %: {line(found)}")
        except KeyboardInterrupt as error:
            raise and_then(error, f"; what was measured before is in {out / 'results.csv'}") from None
    for title, table in tables(rows):
        say(title)
        console.print(table)
        console.print()
    say("peak, kept for backward: memory in units of the inputs; limit: share of it reached; largest size")
    for note in notes(rows):
        say(note)
    one = rows[0]
    say(f"{one['cpu']}, {one['threads']} threads, {one['simd']}; on {one['device']}, torch {one['torch']}")
    save(bench_times(rows), out / "times")
    failed = sum(bool(row["failed"]) for row in rows)
    if failed:
        raise JobFailed(f"{failed} of {len(rows)} measurements failed; {out / 'results.csv'} says why")
    return out
