"""`detloss train`: one detector, one pair of losses."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from detloss.lab import ranks
from detloss.lab.cli.arguments import FromFile, Out, Trust, given, read
from detloss.lab.cli.terminal import interruptible, progress_bar, say
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector.objective import find_detector_loss
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import Evaluation
from detloss.lab.lock import locked
from detloss.lab.runs import new_folder, read_columns
from detloss.lab.statistics import points
from detloss.lab.training.by_trainer import train_by
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.opening import check_detector, open_splits
from detloss.lab.training.origin import origin_of
from detloss.lab.training.parallel import check_alike, parts
from detloss.lab.training.splits import settled
from detloss.lab.training.train import train
from detloss.lab.training.trainer import check_trainer
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES


@dataclass(frozen=True)
class Arguments:
    """Train one detector with one pair of losses; under torchrun, over several processes."""

    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False
    quick: bool = False
    """A first look in under a minute."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss train`: defaults, changed by --config, by --quick, by the other arguments, in this order."""
    config = given(TrainConfig, arguments)
    if "--quick" in arguments:
        config = config.quick()
    return read("train", Arguments, arguments, Arguments(config))


def run(arguments: Arguments) -> Path:
    """Runs `detloss train`; its folder is returned."""
    from detloss.lab.figures import save
    from detloss.lab.training.figures import training_curves

    config = arguments.settings
    if config.trainer:
        return _run_trainer(config, arguments.out)
    find_detector_loss(config.loss, CLASSIFICATION_LOSSES, config.detector)
    find_detector_loss(config.box_loss, BOX_LOSSES, config.detector)
    pick_device(config.device)
    parts(config)
    training, validation = open_splits(config)
    config = settled(config, training)
    ranks.first_before_others(
        lambda: check_detector(config, training.names, [(config.loss, config.box_loss)])
    )
    check_alike(config, training, validation)
    out = ranks.from_first(lambda: new_folder("train", arguments.out))
    origin = ranks.from_first(lambda: origin_of(config, {"training": training, "validation": validation}))
    alone = locked(out) if ranks.rank() == 0 else nullcontext()
    with alone, interruptible(out), progress_bar() as bar:
        task = bar.add_task("training", total=config.steps, note="")

        def on_step(row: dict[str, float]) -> None:
            found = row["positives"]
            note = f"loss {row['loss']:.3f}" + (f", {found} positives" if math.isfinite(found) else "")
            bar.update(task, completed=row["step"], note=note)

        def on_evaluation(step: int, evaluation: Evaluation) -> None:
            say(f"step {step}: AP {points(evaluation.ap)}, AP50 {points(evaluation.ap50)}")

        fitted = (Letterboxed(training, config.size), Letterboxed(validation, config.size))
        result = train(config, *fitted, out, on_step, on_evaluation, say, origin)
    if ranks.rank() == 0:
        save(training_curves(read_columns(out / "log.csv")), out / "curves")
    say(f"{result.seconds:.0f} s of training, {result.peak_memory_mb:.0f} MB at most")
    return out


def _run_trainer(config: TrainConfig, given_out: Path | None) -> Path:
    """The same by a trainer of the user's own."""
    if ranks.world() > 1:
        raise ValueError(f"trainer {config.trainer} is called once: start it without torchrun")
    check_trainer(config.trainer, [(config.loss, config.box_loss)])
    pick_device(config.device)
    training, validation = open_splits(config)
    out = new_folder("train", given_out)
    origin = origin_of(config, {"training": training, "validation": validation})
    with locked(out), interruptible(out), progress_bar() as bar:
        task = bar.add_task("training", total=config.steps, note="")

        def on_step(step: int) -> None:
            bar.update(task, completed=step)

        result = train_by(config, training, validation, out, on_step, origin)
    found = result.evaluation
    say(f"AP {points(found.ap)}, AP50 {points(found.ap50)}")
    say(f"{result.seconds:.0f} s of training, {result.peak_memory_mb:.0f} MB at most")
    return out
