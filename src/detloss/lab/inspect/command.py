"""`detloss inspect`: what imbalance is in a data set, and where the loss comes from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import nn

from detloss.balance import ClassWeight
from detloss.lab.cli.arguments import FromFile, Out, Trust, check_trust, given, read, results_folder
from detloss.lab.cli.terminal import counting, interruptible, progress_bar, say, show_table
from detloss.lab.data import Dataset
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DenseDetector
from detloss.lab.detector.inference import predict
from detloss.lab.devices import pick_device
from detloss.lab.inspect.figure4 import HARDEST
from detloss.lab.inspect.inspection import (
    DataTables,
    InspectConfig,
    ModelTables,
    elementwise_losses,
    image_choice,
    measure_data,
    measure_model,
)
from detloss.lab.inspect.objects import ObjectCounts, count_objects
from detloss.lab.inspect.quadrants import QUADRANTS, percent
from detloss.lab.inspect.recommend import Alternative, Recommendation, count_alternatives, recommend
from detloss.lab.inspect.suspects import DRAWN, SUSPECT_COLUMNS, suspects
from detloss.lab.lock import locked
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import read_json, write_csv, write_json, write_tables
from detloss.lab.statistics import points
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.opening import open_splits
from detloss.lab.training.splits import open_split, settled
from detloss.lab.training.train import train
from detloss.lab.training.trained import load_detector


@dataclass(frozen=True)
class Arguments:
    """How imbalanced your data is for a detector, where its loss comes from, and what to try."""

    data: tyro.conf.Positional[str | None] = None
    """A COCO, VOC or YOLO folder, or "embedded", as --data; the default is the checkpoint's own data."""
    settings: Annotated[InspectConfig, tyro.conf.arg(name="")] = field(default_factory=InspectConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
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
        trained = load_config(TrainConfig, Path(first.settings.checkpoint))
        check_trust(trained.detector, Path(first.settings.checkpoint), first.trust)
        config = replace(config, **trained.shared())
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
    from detloss.lab.figures import save_all
    from detloss.lab.inspect import figures

    config = arguments.settings
    losses = elementwise_losses(config.losses)
    device = pick_device(config.device)
    if not config.detector.dense:
        return _inspect_other(arguments, device)
    known = None if config.checkpoint is None else _load(config, device)
    training, validation = _open(config, None if known is None else known[1])
    config = settled(config, training)
    seen, unseen = Letterboxed(training, config.size), Letterboxed(validation, config.size)
    yolo = config.detector.kind == "yolov2"
    softmax = known is not None and known[0].network.softmax and not yolo
    out = results_folder("inspect", arguments.out, config, str(device))
    with locked(out), interruptible(out):
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
            what += "; examined is its objectness, trained with cross entropy against the IoU of its boxes"
        with counting("applying the detector") as progress:
            model = measure_model(config, losses, detector.network, unseen, device, progress)
        tried = recommend(config.detector, data.locations, others, model.curves, softmax, model.doubt)
        _write_model(out, what, model, tried)
        tell_model(config, model, what, "locations, one logit each" if softmax or yolo else "logits")
        tell_recommendations(tried)
        shown = list(dict.fromkeys((losses[0].name, losses[-1].name)))
        names = ("object",) if softmax or yolo else training.names
        drawn = {
            "objects": partial(figures.object_counts, data),
            "levels": partial(figures.level_counts, data),
            "quadrants": partial(figures.quadrant_shares, model.quadrants),
            "figure4": partial(figures.cumulative_loss, model.curves),
            "images": partial(figures.loss_on_images, model.examples, shown, names),
        }
        with counting("drawing") as progress:
            save_all(out, drawn, progress)
        if known is not None:
            _suspect(out, detector, unseen, config, device)
    return out


def _inspect_other(arguments: Arguments, device: torch.device) -> Path:
    """What is known without a detector's logits and locations: objects, and where it contradicts labels."""
    config = arguments.settings
    known = None
    if config.checkpoint is not None:
        _check_run(Path(config.checkpoint))
        detector, _, names = load_detector(Path(config.checkpoint), device)
        known = detector, names
    training, validation = _open(config, known and known[1])
    out = results_folder("inspect", arguments.out, config, str(device))
    objects = count_objects(training, config.size)
    tell_objects(config, objects)
    say(
        "not shown: negatives per positive, where the loss comes from, Figure 4 and what to try; the logits "
        f"and locations of {config.detector.kind} are not known"
    )
    write_tables(out, _object_tables(objects))
    if known is None:
        say("no detector was trained; --checkpoint RUN looks for label errors with a trained one")
    else:
        _suspect(out, known[0], Letterboxed(validation, config.size), config, device)
    return out


def _load(config: InspectConfig, device: torch.device) -> tuple[DenseDetector, tuple[str, ...], str]:
    """The detector, its class names, and how it was trained."""
    folder = Path(str(config.checkpoint))
    _check_run(folder)
    detector, trained, names = load_detector(folder, device)
    assert isinstance(detector, DenseDetector)
    if trained.detector != config.detector:
        raise ValueError(
            f"checkpoint {folder} is of another detector than --detector.* describes; leave --detector.* out"
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
            f"{', '.join(training.names)}; give a checkpoint that was trained on these classes"
        )
    splits = [open_split(config, split, names) for split in (config.train_split, config.val_split)]
    return splits[0], splits[1]


def _train(
    config: InspectConfig, seen: Letterboxed, unseen: Letterboxed, out: Path, device: torch.device
) -> tuple[DenseDetector, str]:
    say(
        f"training a detector to examine, {config.steps} steps of {config.batch} images "
        "(--steps N for another number, --checkpoint RUN for a trained one)"
    )
    with progress_bar() as bar:
        task = bar.add_task("training", total=config.steps, note="")

        def on_step(row: dict[str, float]) -> None:
            bar.update(task, completed=row["step"], note=f"loss {row['loss']:.3f}")

        result = train(TrainConfig(**config.shared()), seen, unseen, out, on_step)
    detector, trained, _ = load_detector(out, device)
    assert isinstance(detector, DenseDetector)
    return detector, (
        f"a detector trained here with {trained.loss} (alpha .25, gamma 2) + {trained.box_loss}, "
        f"{config.steps} steps of {config.batch} images, AP {points(result.evaluation.ap)}"
    )


def tell_objects(config: InspectConfig, objects: ObjectCounts) -> None:
    """What lies in the data, in two lines."""
    per_image = objects.objects / objects.images
    low, middle, high = np.quantile(objects.sizes, (0, 0.5, 1))
    own = ""
    if not np.allclose(objects.sizes, objects.own_sizes):
        a, b, c = np.quantile(objects.own_sizes, (0, 0.5, 1))
        own = f" ({a:.0f} to {c:.0f} px, median {b:.0f}, in their own images)"
    say(
        f"{objects.images} training images ({objects.empty} without objects), {objects.objects} objects "
        f"({per_image:.1f} per image), {objects.ignored} ignored; sizes {low:.0f} to {high:.0f} px, median "
        f"{middle:.0f}, in the {config.size} px square{own}"
    )


def tell_data(config: InspectConfig, tables: DataTables) -> None:
    """What the data asks of any detector, in a few lines."""
    objects, counts = tables.objects, tables.locations
    tell_objects(config, objects)
    strides = ", ".join(str(level.stride) for level in counts.levels)
    ratio = (
        f"{counts.negatives_per_positive:.0f} negatives per positive (location that has to find an object), "
        f"{counts.negatives_per_positive_logits:.0f} by logit"
        if counts.positives
        else f"no positives (locations that have to find an object), {counts.negatives} negatives"
    )
    say(
        f"{counts.locations} locations per image (strides {strides}): {ratio}; {counts.images} images counted"
    )
    say(f"objects without a positive location: {counts.objects_without_positive} of these {counts.objects}")
    if len(objects.per_class) > 1:
        say(_class_weights(objects.per_class))


def _class_weights(per_class: dict[str, int], shown: int = 6) -> str:
    """What weights by the number of objects would be, rarest class first; of many classes both ends."""
    by_name = ("effective:0.999", "inverse:0.5")
    weights = [ClassWeight.parse(name).of(list(per_class.values())).tolist() for name in by_name]
    rows = sorted(zip(per_class.items(), *weights), key=lambda row: row[0][1])
    told = [f"{name} {a:.2f}, {b:.2f} ({count})" for (name, count), a, b in rows]
    if len(told) > shown:
        told[shown // 2 : -shown // 2] = ["..."]
    return (
        f"class weights of class_weight={by_name[0]} and {by_name[1]} (objects): {'; '.join(told)}; "
        f"train and compare take them by name, as in focal,class_weight={by_name[1]}"
    )


def tell_model(config: InspectConfig, tables: ModelTables, what: str, unit: str) -> None:
    """Where the loss comes from, in one table, and Figure 4 in another."""
    say(f"model: {what}")
    if tables.doubt:
        say(f"note: {tables.doubt}; the shares below are not those of a converged model")
    say(
        f"applied to {tables.images} images of split {config.val_split!r}, {tables.logits:,} {unit}; "
        f"easy: p_t ≥ {config.easy:g}; gradient: share of Σ |∂L/∂logit|"
    )
    first = tables.quadrants[:4]
    rows = [["logits", *(f"{row.count:,}" for row in first)]]
    rows.append(["share of logits", *(percent(row.count_share) for row in first)])
    for i in range(0, len(tables.quadrants), 4):
        four = tables.quadrants[i : i + 4]
        rows.append([four[0].loss, *(percent(row.loss_share) for row in four)])
        rows.append(["  its gradient", *(percent(row.gradient_share) for row in four)])
    show_table(["", *(f"{hardness} {label}s" for label, hardness in QUADRANTS)], rows)
    for claim in tables.claims:
        say(f"{'true here' if claim.holds else 'not true here'}: {claim.text} ({claim.evidence})")
    say("\nshare of the loss that comes from the hardest logits, for each gamma of focal loss (its Figure 4)")
    shown = [
        [f"{curve.label}s, gamma {curve.gamma:g}", *(percent(curve.hardest(part)) for part in HARDEST)]
        for curve in tables.curves
    ]
    show_table(["", *(f"hardest {100 * part:g} %" for part in HARDEST)], shown)


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
        **{name: getattr(counts, name) for name in ("classes", "locations", "positives", "negatives")},
        "ignored_locations": counts.ignored,
        "negatives_per_positive": counts.negatives_per_positive,
        "negatives_per_positive_logits": counts.negatives_per_positive_logits,
    }
    counted = [{"quantity": name, "value": value} for name, value in quantities.items()]
    tables = {**_object_tables(objects), "counts": counted}
    write_tables(out, {**tables, "levels": counts.levels, "sizes": data.sizes, "alternatives": others})


def _object_tables(objects: ObjectCounts) -> dict[str, list[dict[str, Any]]]:
    quantities = {name: getattr(objects, name) for name in ("images", "empty", "objects", "ignored")}
    return {
        "counts": [{"quantity": name, "value": value} for name, value in quantities.items()],
        "objects_per_image": [{"objects": k, "images": int(n)} for k, n in enumerate(objects.per_image)],
        "classes": [{"name": name, "objects": count} for name, count in objects.per_class.items()],
    }


def _write_model(out: Path, what: str, model: ModelTables, tried: Sequence[Recommendation]) -> None:
    quantities = {"model": what, "images": model.images, "logits": model.logits, "doubt": model.doubt}
    names = ("label", "gamma", "hardest", "share")
    curves = [(c.label, c.gamma, *at) for c in model.curves for at in zip(c.part.tolist(), c.share.tolist())]
    shares = [(c.label, c.gamma, part, c.hardest(part)) for c in model.curves for part in HARDEST]
    tables = {
        "model": [{"quantity": name, "value": value} for name, value in quantities.items()],
        "figure4": [dict(zip(names, row)) for row in shares],
        "figure4_curves": [dict(zip(names, row)) for row in curves],
    }
    write_tables(out, {**tables, "quadrants": model.quadrants, "claims": model.claims})
    write_json(out / "recommendation.json", [to_dict(one) for one in tried])


def _suspect(
    out: Path, detector: nn.Module, data: Letterboxed, config: InspectConfig, device: torch.device
) -> None:
    """Where a trained detector contradicts the labels."""
    from detloss.lab.figures import save
    from detloss.lab.inspect.figures import suspect_crops

    chosen = image_choice(config, data)
    dataset = data.dataset.select(chosen)
    with counting("looking for label errors") as progress:
        found = predict(detector, Letterboxed(dataset, data.size), config.limits, device, progress)
    listed = suspects(found, dataset)
    write_csv(out / "suspects.csv", SUSPECT_COLUMNS, [asdict(one) for one in listed])
    save(suspect_crops(listed[:DRAWN], dataset), out / "suspects")
    say(
        f"suspected label errors: the {len(listed)} objects and detections of highest loss of {len(chosen)} "
        f"images of split {config.val_split!r} are in suspects.csv and suspects.png"
    )
