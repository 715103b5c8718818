"""Runs an experiment: its comparisons by `detloss compare`'s own functions, then table, figures and page.

    python experiments/a_alpha_gamma.py [--quick] [--seeds N] [--data FOLDER] [--device cuda]
    python experiments/harness.py    writes the table of experiments/README.md from the results that exist

Runs lie in `runs/<experiment>/<setting>`, as folders of `detloss compare`; those that are finished are not
repeated. Results lie in `results/`: `<experiment>.csv`, `.png`, `.md`,
`<experiment>_rates.csv`, `<experiment>_differences.png`.
"""

import contextlib
import importlib
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from findings import (
    Contrast,
    Experiment,
    Key,
    Results,
    change,
    difference,
    loss_name,
    readme_row,
    write_page,
)

from detloss.lab.cli.terminal import progress_bar, say
from detloss.lab.compare.command import describe
from detloss.lab.compare.comparison import RESULT_COLUMNS, SWEEP_COLUMNS, Comparison, compare
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import Job
from detloss.lab.compare.prepare import check, prepare
from detloss.lab.detector import DetectorConfig
from detloss.lab.devices import pick_device
from detloss.lab.engines import JobFailed
from detloss.lab.records import load_config
from detloss.lab.runs import WrongFolder, read_csv, read_json, versions, write_csv, write_json, write_text
from detloss.lab.statistics import short_names
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.splits import open_data, settled

__all__ = [
    "RETINANET",
    "Contrast",
    "Experiment",
    "Key",
    "Results",
    "bccd",
    "change",
    "difference",
    "embedded",
    "main",
]

HERE = Path(__file__).parent
ROOT = HERE.parent
REAL = "bccd"
"""Stands for the folder of the real data in a recipe."""
COLUMNS = (
    *RESULT_COLUMNS,
    "setting",
    "loss",
    "data",
    "negatives_per_positive",
    "diverged",
    "commit",
    "hardware",
)
RATES = ("setting", *SWEEP_COLUMNS)
RETINANET = DetectorConfig(kind="retinanet", anchor_scales=(1.0,))
"""RetinaNet with three of the paper's nine anchors a cell: 182 negatives per positive, of nine it is 140."""


def embedded(
    losses: tuple[str, ...],
    seeds: int = 3,
    lrs: tuple[float, ...] = (0.003, 0.008),
    box_weights: tuple[float, ...] = (2.0,),
    **recipe: Any,
) -> CompareConfig:
    """A comparison on the embedded scenes, each loss with the best of the rates and box weights.

    They are tried at full length: after half of it cross entropy has often not found an object at any rate.
    1400 steps, since after a quarter of them losses differ by how fast they learn (see c_mining). One box
    weight for all is what papers have; several are for what depends on the balance of classes and boxes.
    """
    shared: Any = {"evaluations": 1, "steps": 1400, **recipe}
    return CompareConfig(losses, seeds=seeds, lrs=lrs, box_weights=box_weights, **shared)


def bccd(
    losses: tuple[str, ...], seeds: int = 3, lrs: tuple[float, ...] = (0.004, 0.012), **recipe: Any
) -> CompareConfig:
    """A comparison on BCCD's real images, in about a minute a run."""
    return embedded(losses, seeds, lrs, **{"data": REAL, "size": 160, "steps": 400, **recipe})


@dataclass(frozen=True)
class Options:
    """How an experiment is run."""

    quick: bool = False
    """Tiny budgets on embedded data, results in a temporary folder: shows that it runs, nothing else."""
    seeds: int | None = None
    """Runs of each loss, instead of the experiment's own number; more of them continue earlier ones."""
    data: Path | None = None
    """Folder of BCCD (github.com/Shenggan/BCCD_Dataset); without it that part is left out."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU when there is one."""


def main(experiment: Experiment) -> None:
    """The command line of an experiment's file."""
    options = tyro.cli(Options, description=experiment.header)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        page = run(experiment, options)
    except (ValueError, JobFailed) as error:
        print(f"{experiment.name}: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
    if not options.quick:
        write_readme()
    print(page)


def run(
    experiment: Experiment, options: Options, runs: Path | None = None, results: Path | None = None
) -> Path:
    """Runs what is not finished yet; the page is returned.

    Args:
        experiment: what to run.
        options: of the command line.
        runs, results: other folders than the experiments' own.

    Raises:
        ValueError: a loss that does not exist, or a run folder that holds another configuration.
        JobFailed: a run failed for another reason than a diverging loss; finished runs are kept.
    """
    runs = runs or HERE / "runs" / ("quick" if options.quick else "")
    results = results or (
        Path(tempfile.mkdtemp(prefix="detloss-quick-")) if options.quick else HERE / "results"
    )
    comparisons, absent = chosen(experiment, options)
    for setting in absent:
        say(f"{setting} is left out: it needs --data FOLDER, the images of BCCD")
    with contextlib.chdir(ROOT):  # own losses are named relative to it
        states = prepared(experiment, comparisons, runs)
        train_all(experiment.name, states, runs)
        rows = [row for setting, state in states.items() for row in gather(setting, state)]
        tried = [{**row, "setting": setting} for setting, state in states.items() for row in state.sweep]
    for stem, columns, new in ((experiment.name, COLUMNS, rows), (f"{experiment.name}_rates", RATES, tried)):
        table = results / f"{stem}.csv"
        # What an earlier call found on data that is not here now stays.
        kept = [row for row in read_csv(table) if row["setting"] in absent]
        write_csv(table, columns, [*new, *kept])
    return write_page(
        experiment, results, "**A quick run: nothing here is a result.**" if options.quick else ""
    )


def chosen(experiment: Experiment, options: Options) -> tuple[dict[str, CompareConfig], list[str]]:
    """The comparisons as the options want them, and those whose data is not here."""
    comparisons, absent = {}, []
    for setting, config in experiment.comparisons.items():
        if config.data == REAL:
            if options.quick or options.data is None:
                absent.append(setting)
                continue
            if not options.data.is_dir():
                raise ValueError(f"data is {options.data}, which is not a folder")
            config = replace(config, data=str(options.data.resolve()))
        config = replace(config, device=options.device, seeds=options.seeds or config.seeds)
        comparisons[setting] = quick(config) if options.quick else config
    if options.quick:
        return dict(list(comparisons.items())[:2]), []
    return comparisons, absent


def quick(config: CompareConfig) -> CompareConfig:
    """The same in seconds: two losses, two seeds, three steps on small scenes, no sweep."""
    return replace(
        config,
        scenes=replace(config.scenes, size=48, object_size=(8.0, 20.0), train=24, val=8),
        detector=replace(config.detector, width=4, channels=8),
        size=48,
        steps=3,
        batch=2,
        losses=config.losses[:2],
        box_losses=config.box_losses[:2],
        seeds=2,
        lr=config.lrs[0],
        box_weight=config.box_weights[0],
    )


def prepared(
    experiment: Experiment, comparisons: Mapping[str, CompareConfig], runs: Path
) -> dict[str, Comparison]:
    """Checks everything before anything is trained: the losses, the data, what the folders hold."""
    for config in comparisons.values():
        check(config)
    states = {}
    for setting, config in comparisons.items():
        folder = runs / experiment.name / setting.replace(" ", "_")
        try:
            training, validation = open_data(config)
            config = settled(config, training)
            data = prepare(config, folder, training, validation)
        except WrongFolder as error:
            raise ValueError(
                f"{error}; remove that folder, or use the options and version it was made with"
            ) from None
        say(f"{setting}: {data['negatives_per_positive']:.0f} negatives per positive location")
        states[setting] = Comparison(config, folder)
    return states


def train_all(name: str, states: Mapping[str, Comparison], runs: Path) -> None:
    """Runs the comparisons one after another, with progress over all of them."""
    # A step costs about as much as its image has pixels.
    costs = {setting: (state.config.size / 96) ** 2 for setting, state in states.items()}
    total = sum(costs[setting] * state.steps_planned for setting, state in states.items())
    before, began = 0.0, None
    with progress_bar() as bar:
        task = bar.add_task(name, total=round(total), note="")
        for setting, state in states.items():
            told, adopted = None, False
            config = state.config
            if len(config.candidates) > 1:
                adopt(
                    [job for pair in config.pairs for job in state.jobs_of(pair, 0, config.candidates)], runs
                )
            with recorded(state.out) as record:
                for _ in compare(state):
                    if state.chosen and not adopted:
                        adopt(state.final_jobs(), runs)
                        adopted = True
                    done = before + costs[setting] * state.steps_done
                    if state.active and began is None:
                        began = (time.monotonic(), done)
                    bar.update(task, completed=round(done), note=setting)
                    if state.latest is not told and began is not None and done > began[1]:
                        told = state.latest
                        record()
                        left = (time.monotonic() - began[0]) * (total - done) / (done - began[1])
                        if bar.disable:
                            share = f"{100 * done / total:3.0f} %, about {left / 60:.0f} minutes left"
                            say(f"{share}; {setting}: {describe(state.latest)}")
            before += costs[setting] * state.steps_planned


def adopt(jobs: Sequence[Job], runs: Path) -> None:
    """Copies runs that some experiment has finished with the same settings: they would come out equal."""

    made = {}
    for part, rung in (("runs", None), ("sweep", 0)):
        for path in sorted(runs.glob(f"*/*/{part}/**/metrics.json")):
            made[rung, load_config(TrainConfig, path.parent)] = path.parent
    for job in jobs:
        source = made.get((job.rung, job.config))
        if source is not None and not job.folder.exists():
            shutil.copytree(source, job.folder)


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Callable[[], None]]:
    """Notes by which commit and on what hardware each run of a comparison was made.

    At the end and whenever the function given is called, so that a process that is killed has told too. Runs
    of another experiment bring with them how they were made.
    """

    def finished() -> set[Path]:
        return {
            path.parent for name in ("metrics", "diverged") for path in folder.glob(f"runs/*/*/{name}.json")
        }

    before = finished()
    hardware = versions(str(pick_device(read_json(folder / "config.json")["device"])))
    device = hardware["cpu"] if hardware["device"] == "cpu" else hardware["device"]
    made = {"commit": commit(), "hardware": f"{device}, {hardware['cores']} cores, torch {hardware['torch']}"}

    def record() -> None:
        for run_folder in finished() - before:
            if not (run_folder / "made.json").exists():
                write_json(run_folder / "made.json", made)

    try:
        yield record
    finally:
        record()


def commit() -> str:
    """The checkout's commit, with -dirty where code that decides results differs from it."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)

    found = git("describe", "--always", "--abbrev=12", "--exclude=*").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", "src", "experiments/*.py").returncode
    return (found or "unknown") + ("-dirty" if found and changed else "")


def gather(setting: str, state: Comparison) -> Iterator[dict[str, Any]]:
    """A row for each run of a setting, those that diverged among them."""
    config = state.config
    names = short_names(config.pairs)
    by_run = {(row["classification_loss"], row["box_loss"], int(row["seed"])): row for row in state.results}
    shared = {
        "setting": setting,
        "data": words(config),
        "negatives_per_positive": read_json(state.out / "data.json")["negatives_per_positive"],
    }
    for job in state.final_jobs():
        run = job.config
        row = by_run.get((*job.pair, run.seed))
        made = job.folder / "made.json"
        more = read_json(made) if made.exists() else {"commit": "unknown", "hardware": "unknown"}
        empty = {"classification_loss": job.pair[0], "box_loss": job.pair[1], "seed": run.seed}
        empty |= {"lr": run.lr, "box_weight": run.box_weight, "steps": config.steps}
        measured = row or empty
        why = "" if row else read_json(job.folder / "diverged.json")
        loss = loss_name(names[job.pair])
        yield {**dict.fromkeys(COLUMNS, ""), **measured, **shared, **more, "loss": loss, "diverged": why}


def words(config: CompareConfig) -> str:
    """A comparison's data and detector in a line."""
    detector = config.detector
    data = "embedded scenes" if config.data == "embedded" else "BCCD"
    kind = detector.kind + (f" with {detector.bins} bins" if detector.bins else "")
    prior = "" if detector.kind == "yolov2" else f", prior {detector.prior:g}"
    rates, weights = (
        ", ".join(f"{one:g}" for one in dict.fromkeys(values)) for values in zip(*config.candidates)
    )
    return (
        f"{data}, {config.size} px, {kind}{prior}, {config.steps} steps of {config.batch} images by "
        f"{config.optimizer}, learning rates tried: {rates}, box weights: {weights}"
    )


def experiments() -> list[Experiment]:
    """All of them, by name."""
    return [importlib.import_module(path.stem).EXPERIMENT for path in sorted(HERE.glob("[a-z]_*.py"))]


def write_readme() -> None:
    """Replaces the table of README.md, between its two marks, by what the results say now."""
    page = HERE / "README.md"
    start, rest = page.read_text(encoding="utf-8").split("<!-- table -->\n", 1)
    _, end = rest.split("<!-- end of table -->", 1)
    rows = ["| question | answer | effect, 95 % intervals | |", "|---|---|---|---|"]
    rows += [readme_row(experiment, HERE / "results") for experiment in experiments()]
    table = "\n".join(rows)
    write_text(page, f"{start}<!-- table -->\n{table}\n<!-- end of table -->{end}")


if __name__ == "__main__":
    for one in experiments():
        if (HERE / "results" / f"{one.name}.csv").exists():
            write_page(one, HERE / "results")
    write_readme()
