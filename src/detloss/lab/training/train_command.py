"""`detloss train`: one detector, one pair of losses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from detloss.lab.cli.arguments import FromFile, Out, given, read
from detloss.lab.cli.terminal import interruptible, progress_bar, say
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector.criterion import check_classes
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import Evaluation
from detloss.lab.runs import new_folder, read_columns
from detloss.lab.statistics import points
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.opening import open_splits
from detloss.lab.training.splits import settled
from detloss.lab.training.train import train
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss


@dataclass(frozen=True)
class Arguments:
    """Train one detector with one pair of losses."""

    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    out: Out = None
    config_file: FromFile = None
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
    loss = find_loss(config.loss, CLASSIFICATION_LOSSES, training=True)
    find_loss(config.box_loss, BOX_LOSSES, training=True)
    pick_device(config.device)
    training, validation = open_splits(config)
    check_classes(loss, config.detector.kind, len(training.names))
    config = settled(config, training)
    out = new_folder("train", arguments.out)
    with interruptible(out), progress_bar() as bar:
        task = bar.add_task("training", total=config.steps, note="")

        def on_step(row: dict[str, float]) -> None:
            note = f"loss {row['loss']:.3f}, {row['positives']} positives"
            bar.update(task, completed=row["step"], note=note)

        def on_evaluation(step: int, evaluation: Evaluation) -> None:
            say(f"step {step}: AP {points(evaluation.ap)}, AP50 {points(evaluation.ap50)}")

        fitted = (Letterboxed(training, config.size), Letterboxed(validation, config.size))
        result = train(config, *fitted, out, on_step, on_evaluation)
    save(training_curves(read_columns(out / "log.csv")), out / "curves")
    say(f"{result.seconds:.0f} s of training, {result.peak_memory_mb:.0f} MB at most")
    return out
