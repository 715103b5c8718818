"""The command line: `detloss compare | train | evaluate | predict | scenes | bench`."""

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detloss.arguments import (
    Bench,
    Compare,
    Evaluate,
    Predict,
    Scenes,
    Train,
    Usage,
    parse_bench,
    parse_compare,
    parse_train,
    parser,
)
from detloss.bench import bench, line, notes, tables
from detloss.compare import Comparison, check, compare, hold_out, open_data, open_split, prepare
from detloss.config import Recipe, to_dict
from detloss.criterion import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss
from detloss.data import Dataset, read_image, save, scenes, summary
from detloss.data.batches import Letterboxed
from detloss.evaluate import Evaluation, to_coco_results
from detloss.parallel import JobFailed
from detloss.predict import find_images, predict_files
from detloss.runs import new_folder, read_columns, versions, write_json
from detloss.statistics import answer, points
from detloss.terminal import (
    CompareDisplay,
    ap_by_loss,
    comparison_table,
    console,
    counting,
    print_evaluation,
    progress_bar,
    say,
)
from detloss.train import NonFiniteLoss, evaluate_on, load_detector, pick_device, train


class Interrupted(Exception):
    """Ctrl-C; the message says how to go on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `detloss` command; exits 0 when all was done, 2 on bad arguments or input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # matplotlib and the forkserver warn about what a user can do nothing about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow is no reason to fail in a terminal without UTF-8
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0)
    if name == "--version":
        print(versions("cpu")["detloss"])
        raise SystemExit(0)
    try:
        if name not in COMMANDS:
            raise Usage(f"unknown command {name!r}; it may be {', '.join(COMMANDS)}")
        parse, run = COMMANDS[name]
        out = run(parse(arguments[1:]))
    except (ValueError, NonFiniteLoss, JobFailed) as error:
        print(f"detloss {name}: {error}" if name in COMMANDS else f"detloss: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from None
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"detloss {name}: {what}; what was finished before is kept", file=sys.stderr)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, Interrupted) as error:
        print(str(error) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    print(out)


@contextlib.contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Says on Ctrl-C how the work in `out` is continued."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command with --out {out} continues") from None


def _overview() -> str:
    lines = ["detloss: the losses of dense object detection, and which one to use on your data", ""]
    for name, kind in (
        ("compare", Compare),
        ("train", Train),
        ("evaluate", Evaluate),
        ("predict", Predict),
        ("scenes", Scenes),
        ("bench", Bench),
    ):
        lines.append(f"  detloss {name:<9} {(kind.__doc__ or '').splitlines()[0]}")
    return "\n".join(
        [*lines, "", "`detloss COMMAND --help` lists the arguments of a command; most have --quick."]
    )


def _open(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Both splits, every image decoded once so that a damaged one is an error before anything is written."""
    with counting("drawing scenes") as progress:
        both = open_data(recipe, progress)
    if recipe.data != "embedded":
        for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
            with counting(f"reading {name} images") as progress:
                dataset.check_images(progress)
            for note in dataset.notes:
                say(f"{name}: {note}")
    for dataset, name in zip(both, (recipe.train_split, recipe.val_split)):
        if not summary(dataset)["objects"]:
            raise ValueError(f"split {name!r} of {recipe.data} has no objects, so nothing can be measured")
    classes = ", ".join(f"{name} → {label}" for name, label in both[0].class_map.items())
    say(f"{len(both[0])} training and {len(both[1])} validation images; classes: {classes}")
    return both


def run_compare(command: Compare) -> Path:
    """Runs `detloss compare`; its folder is returned."""
    from detloss.report import save_samples, write_report

    config = command.compare
    check(config)
    training, validation = _open(config.recipe)
    if len(config.candidates) > 1:
        hold_out(training, config.held_out)
    out = new_folder("compare", command.out)
    data = prepare(config, out, training, validation)
    save_samples(out, validation)
    say(
        f"{data['negatives_per_positive']:.0f} negatives per positive location, "
        f"{data['negatives_per_positive_logits']:.0f} per positive logit "
        f"({data['locations']} locations an image, {data['measured_images']} images)"
    )
    state = Comparison(config, out)
    with _interruptible(out), CompareDisplay(state) as display:
        for state in compare(config, out):
            display.show(state)
    if state.diverged:
        write_json(out / "diverged.json", state.diverged)
        if not state.results:
            raise JobFailed(f"all {len(state.diverged)} runs diverged: {state.diverged[0]}")
    console.print(comparison_table(state))
    with counting("drawing the report") as progress:
        write_report(out, progress)
    say(answer(ap_by_loss(state)))
    if state.diverged:
        raise JobFailed(
            f"{len(state.diverged)} runs diverged; the report in {out} says which: {state.diverged[0]}"
        )
    say(f"report: {out / 'report.html'}")
    return out


def run_train(command: Train) -> Path:
    """Runs `detloss train`; its folder is returned."""
    from detloss import plots

    config = command.train
    recipe = config.recipe
    find_loss(config.loss, CLASSIFICATION_LOSSES)
    find_loss(config.box_loss, BOX_LOSSES)
    device = pick_device(recipe.device)
    training, validation = _open(recipe)
    out = new_folder("train", command.out)
    write_json(out / "versions.json", versions(str(device)))
    with _interruptible(out), progress_bar() as bar:
        task = bar.add_task("training", total=recipe.steps, note="")

        def on_step(row: dict[str, float]) -> None:
            bar.update(
                task, completed=row["step"], note=f"loss {row['loss']:.3f}, {row['positives']} positives"
            )

        def on_evaluation(step: int, evaluation: Evaluation) -> None:
            say(f"step {step}: AP {points(evaluation.ap)}, AP50 {points(evaluation.ap50)}")

        size = recipe.size
        result = train(
            config, Letterboxed(training, size), Letterboxed(validation, size), out, on_step, on_evaluation
        )
    plots.save(plots.training_curves(read_columns(out / "log.csv")), out / "curves")
    say(f"{result.seconds:.0f} s of training, {result.peak_memory_mb:.0f} MB at most")
    return out


def run_evaluate(command: Evaluate) -> Path:
    """Runs `detloss evaluate`; its folder is returned."""
    from detloss import plots

    if command.out is not None and command.out.resolve() == command.run.resolve():
        raise ValueError(f"--out {command.out} is the run itself, whose results are kept; give another")
    device = pick_device(command.device)
    detector, config, names = load_detector(command.run, device)
    recipe = replace(config.recipe, data=command.data or config.recipe.data)
    recipe = replace(recipe, val_split=command.split or recipe.val_split)
    dataset = open_split(recipe, recipe.val_split, names)
    if command.quick:
        dataset = dataset.select(range(min(64, len(dataset))))
    data = Letterboxed(dataset, recipe.size)
    with counting("evaluating") as progress:
        evaluation, detections = evaluate_on(detector, data, recipe, device, progress)
    out = new_folder("evaluate", command.out)
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    write_json(out / "config.json", to_dict(replace(config, recipe=recipe)))
    write_json(out / "detections.json", to_coco_results(detections, ids))
    write_json(out / "metrics.json", evaluation.to_dict())
    for draw in (plots.precision_recall, plots.reliability, plots.score_against_iou):
        plots.save(draw({config.loss: [evaluation]}), out / draw.__name__)
    print_evaluation(evaluation)
    return out


def run_predict(command: Predict) -> Path:
    """Runs `detloss predict`; its folder is returned."""
    device = pick_device(command.device)
    detector, config, names = load_detector(command.run, device)
    files = find_images(command.images)
    if command.quick:
        files = files[:8]
    if command.out and any(file.resolve().parent == command.out.resolve() for file in files):
        raise ValueError(f"--out {command.out} is where the images are; drawn ones would replace them")
    with counting("reading images") as progress:
        for i, file in enumerate(files, 1):
            read_image(file)  # a damaged one is an error before anything is written
            progress(i, len(files))
    out = new_folder("predict", command.out)
    with counting("detecting") as progress:
        ids, found = predict_files(detector, config, names, files, out, device, command.score, progress)
    write_json(out / "detections.json", to_coco_results(found, ids))
    shown = sum(int((one.scores >= command.score).sum()) for one in found)
    say(f"{len(files)} images, {shown} boxes with a score of at least {command.score:g}")
    return out


def run_scenes(command: Scenes) -> Path:
    """Runs `detloss scenes`; its folder is returned."""
    config = command.scenes
    if command.quick:
        config = replace(config, train=min(config.train, 64), val=min(config.val, 16))
    out = new_folder("scenes", command.out)
    with counting("drawing scenes") as progress:
        splits = {split: scenes(config, split, progress=progress) for split in ("train", "val")}
    with console.status(f"writing {config.train + config.val} images"):
        save(splits, out, format=command.format)
    say(f"{config.train} training and {config.val} validation images as {command.format}")
    return out


def run_bench(command: Bench) -> Path:
    """Runs `detloss bench`; its folder is returned."""
    from detloss import plots

    config = command.bench
    device = pick_device(config.device)
    if command.out is not None and (command.out / "results.csv").exists():
        raise ValueError(f"--out {command.out} holds results already, which are kept; give another folder")
    out = new_folder("bench", command.out)
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
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; what was measured before is in {out / 'results.csv'}") from None
    for title, table in tables(rows):
        say(title)
        console.print(table)
        console.print()
    say("peak, kept for backward: memory in units of the inputs; limit: share of it reached; largest size")
    for note in notes(rows):
        say(note)
    one = rows[0]
    say(f"{one['cpu']}, {one['threads']} threads, {one['simd']}; on {one['device']}, torch {one['torch']}")
    plots.save(plots.bench_times(rows), out / "times")
    failed = sum(row["note"].startswith("failed") for row in rows)
    if failed:
        raise JobFailed(f"{failed} of {len(rows)} measurements failed; {out / 'results.csv'} says why")
    return out


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], Any], Callable[[Any], Path]]] = {
    "compare": (parse_compare, run_compare),
    "train": (parse_train, run_train),
    "evaluate": (parser("evaluate", Evaluate), run_evaluate),
    "predict": (parser("predict", Predict), run_predict),
    "scenes": (parser("scenes", Scenes), run_scenes),
    "bench": (parse_bench, run_bench),
}
