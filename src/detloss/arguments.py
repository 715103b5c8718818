"""What a command line asks for: a frozen dataclass a command, and one clear line where it asks wrongly."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from detloss.bench import BenchConfig
from detloss.config import CompareConfig, Recipe, TrainConfig, load_config
from detloss.data import SceneConfig

T = TypeVar("T")
Out = Annotated[
    Path | None, tyro.conf.arg(help="Folder for the results; otherwise the next number under runs/.")
]
FromFile = Annotated[
    Path | None, tyro.conf.arg(help="A run folder or its config.json; other arguments change what it says.")
]


class Usage(ValueError):
    """Bad arguments: one line, exit status 2."""


@dataclass(frozen=True)
class Compare:
    """Which classification loss, which box loss? Same data, seeds and batches, each loss tuned on its own."""

    compare: Annotated[CompareConfig, tyro.conf.arg(name="")] = field(default_factory=CompareConfig)
    out: Out = None
    config: FromFile = None
    quick: bool = False
    """A first look in under a minute: two seeds, few steps, no verdict worth trusting."""


@dataclass(frozen=True)
class Train:
    """Train one detector with one pair of losses."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    out: Out = None
    config: FromFile = None
    quick: bool = False
    """A first look in under a minute."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a trained detector: AP by COCO's rules, size and class, calibration, score-IoU correlation."""

    run: tyro.conf.Positional[Path]
    """Run folder of `detloss train`, or a run of a comparison."""
    data: str | None = None
    """Another data set than the one of the run."""
    split: str | None = None
    """Another split than the run's validation split."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    out: Out = None
    quick: bool = False
    """Only the first 64 images."""


@dataclass(frozen=True)
class Predict:
    """Detect in images or folders of images: drawn boxes and COCO results."""

    run: tyro.conf.Positional[Path]
    """Run folder of `detloss train`, or a run of a comparison."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Images, or folders of images."""
    score: float = 0.3
    """Least score of a box that is drawn; detections.json holds all."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    out: Out = None
    quick: bool = False
    """Only the first 8 images."""


@dataclass(frozen=True)
class Scenes:
    """Write the embedded scenes as a data set of files."""

    format: Literal["coco", "voc", "yolo"] = "coco"
    """Of the annotations."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    """What is drawn."""
    out: Out = None
    quick: bool = False
    """Only 64 training and 16 validation scenes."""


@dataclass(frozen=True)
class Bench:
    """Speed and memory of the losses, beside torchvision, torch and the usual snippets."""

    bench: Annotated[BenchConfig, tyro.conf.arg(name="")] = field(default_factory=BenchConfig)
    out: Out = None
    config: FromFile = None
    quick: bool = False
    """A first look in under a minute: focal loss, dense targets, three sizes."""


def _parse(
    command: str, kind: type[T], arguments: Sequence[str], default: T | Any = tyro.MISSING_NONPROP
) -> T:
    """What the arguments say, with one line for whatever they say wrongly."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                kind,
                prog=f"detloss {command}",
                description=kind.__doc__,
                args=arguments,
                default=default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise Usage(_one_line(told.getvalue())) from None


def _one_line(box: str) -> str:
    """The message inside the frame that tyro draws round it, and the arguments it suggests."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.strip()]
    # Where the terminal has no UTF-8 there is no frame, and the title is underlined.
    lines = lines[1:] if lines[0].startswith("╭") else lines[2:]
    rules = [i for i, line in enumerate(lines) if not line.strip("─-╰╯")] or [len(lines)]
    message = " ".join(lines[: rules[0]])
    near = [line.split()[0] for line in lines[rules[0] :] if line.startswith("--") and line.strip("-")]
    hint = f"; did you mean {near[0]}?" if near and message.startswith("Unrecognized") else ""
    return f"{message}{hint}"


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value given to a flag, looked up before the arguments are parsed."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


def _quick_recipe(recipe: Recipe) -> Recipe:
    few = replace(recipe.scenes, train=min(recipe.scenes.train, 256), val=min(recipe.scenes.val, 48))
    return replace(recipe, steps=min(recipe.steps, 40), batch=min(recipe.batch, 8), evaluations=2, scenes=few)


def parse_compare(arguments: Sequence[str]) -> Compare:
    """`detloss compare`: defaults, changed by --config, by --quick, by the other arguments, in this order."""
    file = _value_of(arguments, "--config")
    config = load_config(CompareConfig, Path(file)) if file else CompareConfig()
    if "--quick" in arguments:
        recipe = _quick_recipe(config.recipe)
        config = replace(config, recipe=recipe, seeds=min(config.seeds, 2), lrs=config.lrs[:2], rungs=(0.5,))
        config = replace(config, box_weights=config.box_weights[:1])
    return _parse("compare", Compare, arguments, Compare(compare=config))


def parse_train(arguments: Sequence[str]) -> Train:
    """`detloss train`: as `parse_compare`."""
    file = _value_of(arguments, "--config")
    config = load_config(TrainConfig, Path(file)) if file else TrainConfig()
    if "--quick" in arguments:
        config = replace(config, recipe=_quick_recipe(config.recipe))
    return _parse("train", Train, arguments, Train(train=config))


def parse_bench(arguments: Sequence[str]) -> Bench:
    """`detloss bench`: as `parse_compare`."""
    file = _value_of(arguments, "--config")
    config = load_config(BenchConfig, Path(file)) if file else BenchConfig()
    if "--quick" in arguments:
        config = replace(config, losses=("focal",), sizes=(1e3, 1e5, 1e6), targets=("dense",), seconds=1.0)
    return _parse("bench", Bench, arguments, Bench(bench=config))


def parser(name: str, kind: type[T]) -> Callable[[Sequence[str]], T]:
    """The parser of a command that has nothing to look up before its arguments are read."""
    return lambda arguments: _parse(name, kind, arguments)
