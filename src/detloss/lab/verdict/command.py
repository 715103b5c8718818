"""`detloss verdict`: which loss, by detections that are there already?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from detloss.lab.cli.arguments import (
    CategoryIds,
    DataReading,
    FromFile,
    Out,
    Trust,
    given,
    read,
    refuse_another,
    results_folder,
)
from detloss.lab.cli.terminal import counting, say
from detloss.lab.compare.command import VERDICT_COLUMNS
from detloss.lab.data import Reading
from detloss.lab.evaluate.interpret import AUTO, said_ids
from detloss.lab.records import require
from detloss.lab.runs import write_csv
from detloss.lab.statistics import LOOKS, check_looks, mean_interval, points
from detloss.lab.training.config import Recipe
from detloss.lab.verdict.files import files_of, judge, rows
from detloss.lab.verdict.files import read as read_files


@dataclass(frozen=True)
class VerdictConfig:
    """Whose detections are judged, and on what."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]FILE,...")] = ()
    """COCO results (.json) of any trainer, at least two losses: bce=a.json,b.json has the seeds of one loss;
    a file alone is a loss named by its stem."""
    data: str = ""
    """The COCO, VOC or YOLO folder that they are of."""
    split: str = "val"
    """Name of the split that they are of."""
    reading: DataReading = field(default_factory=Reading)
    """How the data are found and read."""
    category_ids: CategoryIds = AUTO
    rope: float = 1.0
    """The difference that does not matter, in points of AP: losses closer than that are equivalent."""
    looks: tuple[int, ...] = LOOKS
    """The numbers of seeds at which you look at the results, as in `detloss compare`."""
    allow_empty: bool = False
    """A file may have no result on images where others have: nothing was found there."""

    def __post_init__(self) -> None:
        require(self, "rope", 0 < self.rope < 100, "it must be a number of AP points above 0, such as 1")
        check_looks(self.looks, 1)


@dataclass(frozen=True)
class Arguments:
    """Which loss, by COCO results of any trainer? The verdict and report of compare, nothing trained."""

    settings: Annotated[VerdictConfig, tyro.conf.arg(name="")] = field(default_factory=VerdictConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
    quick: bool = False
    """100 draws of the images in place of 1,000: a coarser interval over images."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss verdict`: defaults, changed by --config, by the other arguments."""
    return read("verdict", Arguments, arguments, Arguments(given(VerdictConfig, arguments)))


def run(arguments: Arguments) -> Path:
    """Runs `detloss verdict`; its folder is returned."""
    from detloss.lab.compare.page import write_report

    config = arguments.settings
    if not config.data:
        raise ValueError("data is empty; --data FOLDER is the data set that the results are of")
    files = files_of(config.files)
    check_looks(config.looks, max(map(len, files.values())))
    refuse_another(arguments.out, config)
    recipe = Recipe(data=config.data, val_split=config.split, reading=config.reading)
    with counting("reading results") as progress:
        dataset, found, ids = read_files(files, recipe, config.allow_empty, config.category_ids, progress)
    for line in said_ids(ids.items()):
        say(line)
    out = results_folder("verdict", arguments.out, config)
    with counting("resampling the images") as progress:
        source, resamples = f"{config.data}, {config.split}", 100 if arguments.quick else 1000
        results = judge(config, files, dataset, found, source, resamples, progress)
    table = rows(results, files)
    write_csv(out / "results.csv", list(table[0]), table)
    write_csv(out / "verdicts.csv", VERDICT_COLUMNS, [asdict(one) for one in results.verdicts])
    with counting("drawing the report") as progress:
        write_report(out, results, progress)
    for name, ap in results.column("ap").items():
        ece = mean_interval(results.column("ece")[name].values())
        say(f"{name}: AP {points(*mean_interval(ap.values()))}, ECE {points(*ece)}, {_count(len(ap))}")
    say(results.answer)
    say(f"report: {out / 'report.html'}")
    return out


def _count(files: int) -> str:
    return "one file: how its runs differ is not known from it" if files == 1 else f"{files} files"
