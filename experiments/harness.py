"""Runs an experiment: its comparisons by `detloss compare`'s own functions, then table, figures and page.

    python experiments/a_alpha_gamma.py [--quick] [--seeds N] [--only SETTING] [--data FOLDER] [--device cuda]
                                       [--devices cuda:0 cuda:1] [--engine ray] [--address HOST:PORT]
    python experiments/harness.py    writes the table of experiments/README.md from the results that exist

Runs lie in `runs/<experiment>/<setting>`, as folders of `detloss compare`; those that are finished are not
repeated. Results lie in `results/`: `<experiment>.csv`, `.png`, `.md`,
`<experiment>_rates.csv`, `<experiment>_differences.png`.
"""

import contextlib
import importlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from findings import (
    Contrast,
    Experiment,
    Key,
    Results,
    at_its_own_weight,
    change,
    difference,
    loss_name,
    planned,
    readme_row,
    write_page,
)

from detloss.lab.cli.terminal import progress_bar, say
from detloss.lab.compare.command import describe
from detloss.lab.compare.comparison import (
    RESULT_COLUMNS,
    SWEEP_COLUMNS,
    Comparison,
    compare,
    fail_if_died,
)
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import Job
from detloss.lab.compare.prepare import check, prepare
from detloss.lab.data import SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.engines import JobFailed
from detloss.lab.records import load_config
from detloss.lab.runs import WrongFolder, read_csv, read_json, write_csv, write_json, write_text
from detloss.lab.statistics import short_names
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.splits import open_data, settled

__all__ = [
    "ADAPTIVE",
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
    "planned",
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
    "class_to_box",
    "diverged",
    "commit",
    "hardware",
)
RATES = ("setting", *SWEEP_COLUMNS)
RETINANET = DetectorConfig(kind="retinanet", anchor_scales=(1.0,))
"""RetinaNet with three of the paper's nine anchors a cell: 182 negatives per positive, of nine it is 140."""


AS_BEFORE: dict[str, Any] = {
    "clip_quantile": 1.0,
    "clip": 10.0,
    "weigh_boxes": "alike",
    "distribution_weight": 0.5,
}
"""How most of the experiments were made: by what were then the defaults of `detloss compare`."""
ADAPTIVE: dict[str, Any] = {"clip_quantile": 0.9, "clip": 0.0}
"""Of what clips all losses alike: today's defaults."""


def embedded(
    losses: tuple[str, ...],
    seeds: int = 3,
    lrs: tuple[float, ...] = (0.003, 0.008),
    box_weights: tuple[float, ...] = (2.0,),
    **recipe: Any,
) -> CompareConfig:
    """A comparison on the embedded scenes, each loss with the best of the rates and box weights.

    1400 steps, since after a quarter of them losses differ by how fast they learn (see c_mining). One box
    weight for all is what papers have; several are for what depends on the balance of classes and boxes. All
    seeds have the same scenes, as when the results beside this file were made.
    """
    scenes = SceneConfig(val=256, same=True)
    shared: Any = {"evaluations": 1, "steps": 1400, "scenes": scenes, **AS_BEFORE, **recipe}
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
    only: tuple[str, ...] = ()
    """Settings to run, such as embedded; the others keep their earlier results."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU when there is one."""
    devices: tuple[str, ...] = ()
    """cuda:0 cuda:1 ...: one run at a time on each."""
    engine: Literal["local", "ray"] = "local"
    """Where runs are made: processes of this machine, or tasks of a Ray cluster."""
    address: str = ""
    """Of the Ray cluster; without it one that Ray finds, or else this machine."""


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
        if setting in (options.only or absent):
            say(f"{setting} is left out: it needs --data FOLDER, the images of BCCD")
    with contextlib.chdir(ROOT):  # own losses are named relative to it
        states = prepared(experiment, comparisons, runs)
        train_all(experiment.name, states, runs)
        rows = [row for setting, state in states.items() for row in gather(setting, state)]
        tried = [{**row, "setting": setting} for setting, state in states.items() for row in state.sweep]
    for stem, columns, new in ((experiment.name, COLUMNS, rows), (f"{experiment.name}_rates", RATES, tried)):
        table = results / f"{stem}.csv"
        # What an earlier call found in settings that are left out now stays.
        every = [*new, *(row for row in read_csv(table) if row["setting"] in absent)]
        order = list(experiment.comparisons)
        write_csv(table, columns, sorted(every, key=lambda row: order.index(row["setting"])))
    return write_page(
        experiment, results, "**A quick run: nothing here is a result.**" if options.quick else ""
    )


def chosen(experiment: Experiment, options: Options) -> tuple[dict[str, CompareConfig], list[str]]:
    """The comparisons as the options want them, and those left out: not named, or their data is not here."""
    for setting in options.only:
        if setting not in experiment.comparisons:
            raise ValueError(f"only is {setting!r}; it may be {', '.join(experiment.comparisons)}")
    comparisons, absent = {}, []
    for setting, config in experiment.comparisons.items():
        if options.only and setting not in options.only:
            absent.append(setting)
            continue
        if config.data == REAL:
            if options.quick or options.data is None:
                absent.append(setting)
                continue
            if not options.data.is_dir():
                raise ValueError(f"data is {options.data}, which is not a folder")
            config = replace(config, data=str(options.data.resolve()))
        where = {name: getattr(options, name) for name in ("device", "devices", "engine", "address")}
        config = replace(config, seeds=options.seeds or config.seeds, **where)
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
            config, data = prepare(config, folder, training, validation)
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
            told, adopted, notes = None, False, 0
            config = state.config
            if config.trials:
                grid = list(itertools.product(*config.axes))
                adopt([job for pair in config.pairs for job in state.trials_of(pair, grid)], runs)
            with recorded(state.out) as record:
                for _ in compare(state):
                    for note in state.notes[notes:]:
                        say(note)
                    notes = len(state.notes)
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
            fail_if_died(state)
            before += costs[setting] * state.steps_planned


def adopt(jobs: Sequence[Job], runs: Path) -> None:
    """Copies runs that some experiment has finished with the same settings: they would come out equal."""

    made = {}
    for part, held_out in (("runs", None), ("sweep", jobs[0].held_out)):
        for path in sorted(runs.glob(f"*/*/{part}/**/metrics.json")):
            made[held_out, load_config(TrainConfig, path.parent)] = path.parent
    for job in jobs:
        source = made.get((job.held_out, job.config))
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

    before, by = finished(), commit()

    def record() -> None:
        for run_folder in finished() - before:
            if not (run_folder / "made.json").exists():
                write_json(run_folder / "made.json", {"commit": by, "hardware": hardware(run_folder)})

    try:
        yield record
    finally:
        record()


def hardware(run_folder: Path) -> str:
    """What a run was made on, in a line."""
    known = read_json(run_folder / "versions.json")
    device = known["cpu"] if known["device"] == "cpu" else known["device"]
    return f"{device}, {known['cores']} cores, torch {known['torch']}"


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
        if row:
            shared["class_to_box"] = class_to_box(job)
        why = "" if row else read_json(job.folder / "diverged.json")
        loss = loss_name(names[job.pair])
        yield {**dict.fromkeys(COLUMNS, ""), **measured, **shared, **more, "loss": loss, "diverged": why}


def class_to_box(job: Job) -> float:
    """The class term of a run over its weighted box term, of the second half of its steps."""
    if job.config.balance == "guided":
        return 1 / job.config.box_weight
    log = read_csv(job.folder / "log.csv")
    half = log[len(log) // 2 :]
    of_classes, of_boxes = (
        sum(float(row[name]) for row in half) for name in ("classification_loss", "box_loss")
    )
    return of_classes / (job.config.box_weight * of_boxes)


def words(config: CompareConfig) -> str:
    """A comparison's data and detector in a line."""
    detector = config.detector
    data = "embedded scenes" if config.data == "embedded" else "BCCD"
    kind = detector.kind + (f" with {detector.bins} bins" if detector.bins else "")
    prior = "" if detector.kind == "yolov2" else f", prior {detector.prior:g}"
    rates, weights = (", ".join(f"{one:g}" for one in values) for values in config.axes)
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
    rows = ["| question | answer | effect and its interval | |", "|---|---|---|---|"]
    rows += [readme_row(experiment, HERE / "results") for experiment in experiments()]
    rows.append(at_its_own_weight(HERE / "results"))
    table = "\n".join(rows)
    write_text(page, f"{start}<!-- table -->\n{table}\n<!-- end of table -->{end}")


if __name__ == "__main__":
    for one in experiments():
        if (HERE / "results" / f"{one.name}.csv").exists():
            write_page(one, HERE / "results")
    write_readme()
