"""`detloss inspect`: what imbalance is in a data set, and what losses make of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.table import Table

from detloss.lab.cli.arguments import FromFile, Out, given, read, refuse_another
from detloss.lab.cli.terminal import console, counting, interruptible, progress_bar, say
from detloss.lab.data import Dataset
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector
from detloss.lab.devices import pick_device
from detloss.lab.inspect import (
    QUADRANTS,
    Alternative,
    DataTables,
    InspectConfig,
    ModelTables,
    Recommendation,
    count_alternatives,
    elementwise_losses,
    hardest_shares,
    measure_data,
    measure_model,
    percent,
    recommend,
)
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import new_folder, read_json, versions, write_csv, write_json
from detloss.lab.statistics import points
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.opening import open_splits
from detloss.lab.training.splits import open_split, settled
from detloss.lab.training.train import train
from detloss.lab.training.trained import load_detector


@dataclass(frozen=True)
class Arguments:
    """What imbalance is in your data, where the loss comes from, and what to try."""

    data: tyro.conf.Positional[str | None] = None
    """A COCO, VOC or YOLO folder, or "embedded", as --data; without it, the checkpoint's own data."""
    settings: Annotated[InspectConfig, tyro.conf.arg(name="")] = field(default_factory=InspectConfig)
    out: Out = None
    config_file: FromFile = None
    quick: bool = False
    """A first look in under a minute: few images, a detector trained for a few steps."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss inspect`: defaults, changed by --config or else by the checkpoint's own settings, by --quick,
    by the other arguments, in this order.
    """
    config = given(InspectConfig, arguments)
    first = read("inspect", Arguments, arguments, Arguments(settings=config))
    if first.settings.checkpoint is not None and first.config_file is None:
        _check_run(Path(first.settings.checkpoint))
        config = replace(config, **load_config(TrainConfig, Path(first.settings.checkpoint)).shared())
    if first.quick:
        config = replace(config.quick(), images=min(config.images, 64))
    found = read("inspect", Arguments, arguments, Arguments(settings=config))
    if found.data is None:
        return found
    return replace(found, settings=replace(found.settings, data=found.data))


def _check_run(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint is {folder}, which is not a folder; it may be a run folder of `detloss train`"
        )
    inside = sorted(folder.glob("runs/*/seed-*"))
    if inside and not (folder / "last.safetensors").is_file():
        raise ValueError(f"checkpoint {folder} is a comparison; name one of its runs, such as {inside[0]}")


def run(arguments: Arguments) -> Path:
    """Runs `detloss inspect`; its folder is returned."""
    config = arguments.settings
    losses = elementwise_losses(config.losses)
    device = pick_device(config.device)
    known = None if config.checkpoint is None else _load(config, device)
    training, validation = _open(config, None if known is None else known[1])
    config = settled(config, training)
    seen, unseen = Letterboxed(training, config.size), Letterboxed(validation, config.size)
    yolo = config.detector.kind == "yolov2"
    softmax = known is not None and known[0].softmax and not yolo
    refuse_another(arguments.out, config)
    out = new_folder("inspect", arguments.out)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "versions.json", versions(str(device)))
    with interruptible(out):
        with counting("counting locations") as progress:
            data = measure_data(config, seen, progress, softmax)
        tell_data(config, data)
        with counting("counting other anchors") as progress:
            others = count_alternatives(config.detector, seen, data.locations, progress)
        _write_data(out, data, others)
        say("")
        if known is None:
            detector, what = _train(config, seen, unseen, out / "trained", device)
        else:
            detector, what = known[0], f"the checkpoint {config.checkpoint} ({known[2]})"
        if yolo:
            what += "; looked at is its objectness, trained with cross entropy against the IoU of its boxes"
        with counting("applying the detector") as progress:
            model = measure_model(config, losses, detector, unseen, device, progress)
        tried = recommend(config.detector, data.locations, others, model.curves, softmax, model.doubt)
        _write_model(out, what, model, tried)
        tell_model(config, model, what, "locations, one logit each" if softmax or yolo else "logits")
        tell_recommendations(tried)
        with counting("drawing") as progress:
            _draw(out, data, model, ("object",) if softmax or yolo else training.names, progress)
    return out


def _load(config: InspectConfig, device: torch.device) -> tuple[Detector, tuple[str, ...], str]:
    """The detector, its class names, and how it was trained."""
    folder = Path(str(config.checkpoint))
    _check_run(folder)
    detector, trained, names = load_detector(folder, device)
    if trained.detector != config.detector:
        raise ValueError(
            f"checkpoint {folder} is of another detector than --detector.* describes; leave these out"
        )
    done = folder / "metrics.json"
    ap = read_json(done).get("ap") if done.exists() else None
    state = "not finished" if ap is None else f"AP {points(ap)}"
    return detector, names, f"{trained.loss} + {trained.box_loss}, {trained.steps} steps, {state}"


def _open(config: InspectConfig, names: tuple[str, ...] | None) -> tuple[Dataset, Dataset]:
    """Both splits, with the checkpoint's labels where there is one."""
    training, validation = open_splits(config)
    if names is None or names == training.names:
        return training, validation
    if config.data == "embedded" or set(training.names) - set(names):
        raise ValueError(
            f"checkpoint {config.checkpoint} knows the classes {', '.join(names)}, and {config.data} has "
            f"{', '.join(training.names)}; give a checkpoint trained on these"
        )
    splits = [open_split(config, split, names) for split in (config.train_split, config.val_split)]
    return splits[0], splits[1]


def _train(
    config: InspectConfig, seen: Letterboxed, unseen: Letterboxed, out: Path, device: torch.device
) -> tuple[Detector, str]:
    say(
        f"training a detector to look at, {config.steps} steps of {config.batch} images "
        "(--steps N for another number, --checkpoint RUN for one that is there)"
    )
    with progress_bar() as bar:
        task = bar.add_task("training", total=config.steps, note="")

        def on_step(row: dict[str, float]) -> None:
            bar.update(task, completed=row["step"], note=f"loss {row['loss']:.3f}")

        result = train(TrainConfig(**config.shared()), seen, unseen, out, on_step)
    detector, trained, _ = load_detector(out, device)
    return detector, (
        f"a detector trained here with {trained.loss} (alpha .25, gamma 2) + {trained.box_loss}, "
        f"{config.steps} steps of {config.batch} images, AP {points(result.evaluation.ap)}"
    )


def tell_data(config: InspectConfig, tables: DataTables) -> None:
    """What the data asks of any detector, in a few lines."""
    objects, counts = tables.objects, tables.locations
    per_image = objects.objects / objects.images
    low, middle, high = np.quantile(objects.sizes, (0, 0.5, 1))
    own = ""
    if not np.allclose(objects.sizes, objects.own_sizes):
        a, b, c = np.quantile(objects.own_sizes, (0, 0.5, 1))
        own = f" ({a:.0f} to {c:.0f} px, median {b:.0f}, in their own images)"
    say(
        f"{objects.images} training images ({objects.empty} without objects), {objects.objects} objects "
        f"({per_image:.1f} an image), {objects.ignored} ignored; sizes {low:.0f} to {high:.0f} px, median "
        f"{middle:.0f}, in the {config.size} px square{own}"
    )
    strides = ", ".join(str(level.stride) for level in counts.levels)
    ratio = (
        f"for each that must find an object {counts.negatives_per_positive:.0f} must find nothing; "
        f"{counts.negatives_per_positive_logits:.0f} negatives per positive by logit"
        if counts.positives
        else f"none must find an object, {counts.negatives} must find nothing"
    )
    say(f"{counts.locations} locations an image (strides {strides}): {ratio} ({counts.images} images)")
    say(f"objects without a positive location: {counts.objects_without_positive} of these {counts.objects}")


def tell_model(config: InspectConfig, tables: ModelTables, what: str, unit: str) -> None:
    """Where the loss comes from, in one table, and Figure 4 in another."""
    say(f"model: {what}")
    if tables.doubt:
        say(f"note: {tables.doubt}; the shares below are its own, not a converged model's")
    say(
        f"applied to {tables.images} images of split {config.val_split!r}, {tables.logits:,} {unit}; "
        f"easy: p_t ≥ {config.easy:g}; gradient: share of Σ |∂L/∂logit|"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", *(f"{hardness} {label}s" for label, hardness in QUADRANTS)):
        table.add_column(name, justify="right" if name else "left")
    first, losses = tables.quadrants[:4], tables.quadrants[::4]
    table.add_row("logits", *(f"{row.count:,}" for row in first))
    table.add_row("of all", *(percent(row.count_share) for row in first))
    for i, loss in enumerate(losses):
        rows = tables.quadrants[4 * i : 4 * i + 4]
        table.add_row(loss.loss, *(percent(row.loss_share) for row in rows))
        table.add_row("  its gradient", *(percent(row.gradient_share) for row in rows))
    console.print(table)
    for claim in tables.claims:
        say(f"{'holds here' if claim.holds else 'does not hold here'}: {claim.text} ({claim.evidence})")
    say("")
    say("share of the loss that the hardest logits make, by gamma of the focal loss (Figure 4 of its paper)")
    shares = hardest_shares(tables.curves)
    table = Table(box=None, pad_edge=False, header_style="bold")
    parts = dict.fromkeys(share.hardest for share in shares)
    for name in ("", "gamma", *(f"hardest {100 * part:g} %" for part in parts)):
        table.add_column(name, justify="right" if name else "left")
    for curve in tables.curves:
        mine = [one for one in shares if (one.label, one.gamma) == (curve.label, curve.gamma)]
        table.add_row(f"{curve.label}s", f"{curve.gamma:g}", *(percent(one.share) for one in mine))
    console.print(table)


def tell_recommendations(recommendations: Sequence[Recommendation]) -> None:
    """What to try, a line each, without the evidence."""
    say("")
    for one in recommendations:
        value = one.value
        if isinstance(value, list):  # losses as --losses takes them, or words
            value = ("; " if any(" " in text for text in value) else " ").join(value)
        say(f"{one.what}: {value}")
        say(f"  {one.why}")


def _write_data(out: Path, data: DataTables, others: Sequence[Alternative]) -> None:
    objects, counts = data.objects, data.locations
    quantities = {
        **{name: getattr(objects, name) for name in ("images", "empty", "objects", "ignored")},
        "measured_images": counts.images,
        "measured_objects": counts.objects,
        "objects_without_positive": counts.objects_without_positive,
        "objects_rescued": int(counts.object_rescued.sum()),
        "classes": counts.classes,
        "locations": counts.locations,
        "positives": counts.positives,
        "negatives": counts.negatives,
        "ignored_locations": counts.ignored,
        "negatives_per_positive": counts.negatives_per_positive,
        "negatives_per_positive_logits": counts.negatives_per_positive_logits,
    }
    per_image = [{"objects": k, "images": int(images)} for k, images in enumerate(objects.per_image)]
    _tables(
        out,
        {
            "counts": [{"quantity": name, "value": value} for name, value in quantities.items()],
            "objects_per_image": per_image,
            "classes": [{"name": name, "objects": count} for name, count in objects.per_class.items()],
            "levels": [dataclasses.asdict(row) for row in counts.levels],
            "sizes": [dataclasses.asdict(row) for row in data.sizes],
            "alternatives": [dataclasses.asdict(row) for row in others],
        },
    )


def _write_model(out: Path, what: str, model: ModelTables, tried: Sequence[Recommendation]) -> None:
    quantities = {"model": what, "images": model.images, "logits": model.logits, "doubt": model.doubt}
    curves = [
        {"label": c.label, "gamma": c.gamma, "hardest": part, "share": share}
        for c in model.curves
        for part, share in zip(c.part.tolist(), c.share.tolist())
    ]
    _tables(
        out,
        {
            "model": [{"quantity": name, "value": value} for name, value in quantities.items()],
            "quadrants": [dataclasses.asdict(row) for row in model.quadrants],
            "claims": [dataclasses.asdict(row) for row in model.claims],
            "figure4": [dataclasses.asdict(row) for row in hardest_shares(model.curves)],
            "figure4_curves": curves,
        },
    )
    write_json(out / "recommendation.json", [dataclasses.asdict(one) for one in tried])


def _tables(out: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", list(rows[0]) if rows else [], rows)


def _draw(out: Path, data: DataTables, model: ModelTables, names: Sequence[str], progress: Any) -> None:
    from detloss.lab.figures import save
    from detloss.lab.inspect.figures import (
        cumulative_loss,
        level_counts,
        loss_on_images,
        object_counts,
        quadrant_shares,
    )

    losses = list(dict.fromkeys(row.loss for row in model.quadrants))
    losses = losses if len(losses) < 3 else [losses[0], losses[-1]]
    figures = {
        "objects": lambda: object_counts(data),
        "levels": lambda: level_counts(data),
        "quadrants": lambda: quadrant_shares(model.quadrants),
        "figure4": lambda: cumulative_loss(model.curves),
        "images": lambda: loss_on_images(model.examples, losses, names),
    }
    for done, (name, draw) in enumerate(figures.items(), 1):
        save(draw(), out / name)
        progress(done, len(figures))
