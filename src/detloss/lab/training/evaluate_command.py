"""`detloss evaluate`: AP, calibration and score-IoU correlation of a trained detector."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from detloss.lab.cli.arguments import DataReading, Out, check_trust, read, refuse_another
from detloss.lab.cli.terminal import counting, say
from detloss.lab.data import Reading
from detloss.lab.data.batches import Letterboxed
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import Evaluation, to_coco_results
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import new_folder, write_json
from detloss.lab.statistics import points
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.splits import open_split
from detloss.lab.training.trained import evaluate_on, load_detector


@dataclass(frozen=True)
class Arguments:
    """Evaluate a trained detector: AP by COCO's rules, size and class, calibration, score-IoU correlation."""

    run: tyro.conf.Positional[Path]
    """Run folder of `detloss train`, or a run of a comparison."""
    data: str | None = None
    """Another data set than the one of the run."""
    split: str | None = None
    """Another split than the run's validation split."""
    reading: DataReading = field(default_factory=Reading)
    """How the data are found and read, where that is another way than the run's."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    trust: bool = False
    """Run the code of others that the run names as its detector (FILE.py:build): you have read it."""
    out: Out = None
    quick: bool = False
    """Only the first 64 images."""


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss evaluate`."""
    return read("evaluate", Arguments, arguments)


def run(arguments: Arguments) -> Path:
    """Runs `detloss evaluate`; its folder is returned."""
    from detloss.lab.evaluate.figures import (
        MOST_CLASSES,
        precision_by_class,
        precision_recall,
        reliability,
        score_against_iou,
    )
    from detloss.lab.figures import save

    if arguments.out is not None and arguments.out.resolve() == arguments.run.resolve():
        raise ValueError(f"--out {arguments.out} is the run itself, whose results are kept; give another")
    device = pick_device(arguments.device)
    if (arguments.run / "config.json").is_file():
        check_trust(load_config(TrainConfig, arguments.run).detector, arguments.run, arguments.trust)
    detector, config, names = load_detector(arguments.run, device)
    data, split = arguments.data or config.data, arguments.split or config.val_split
    reading = arguments.reading if arguments.data or arguments.reading != Reading() else config.reading
    config = replace(config, data=data, val_split=split, reading=reading)
    refuse_another(arguments.out, config)
    dataset = open_split(config, split, names)
    for note in dataset.notes:
        say(f"{split}: {note}")
    if arguments.quick:
        dataset = dataset.select(range(min(64, len(dataset))))
    fitted = Letterboxed(dataset, config.size)
    with counting("evaluating") as progress:
        evaluation, detections, _ = evaluate_on(detector, fitted, config.limits, device, progress)
    out = new_folder("evaluate", arguments.out)
    ids = [dataset.annotation(i).id for i in range(len(dataset))]
    write_json(out / "config.json", to_dict(config))
    write_json(out / "detections.json", to_coco_results(detections, ids))
    write_json(out / "metrics.json", evaluation.to_dict())
    for draw in (precision_recall, reliability, score_against_iou):
        save(draw({config.loss: [evaluation]}), out / draw.__name__)
    save(reliability({config.loss: [evaluation]}, localised=True), out / "reliability_iou")
    if len(names) <= MOST_CLASSES:
        save(precision_by_class({config.loss: [evaluation]}, names), out / "precision_by_class")
    print_evaluation(evaluation)
    return out


def print_evaluation(evaluation: Evaluation) -> None:
    """The numbers of an evaluation, a line each."""
    calibration = evaluation.calibration
    for text, names in (
        ("AP, AP50, AP75", ("ap", "ap50", "ap75")),
        ("AP of small, medium, large objects (COCO)", ("ap_small", "ap_medium", "ap_large")),
        ("AR at 1, 10, 100 detections", ("ar1", "ar10", "ar100")),
        ("mAP at IoU 0.5 by VOC's rules of 2007 and 2010", ("voc2007", "voc2010")),
    ):
        say(f"{text}: {', '.join(points(getattr(evaluation, name)) for name in names)}")
    for one in evaluation.size_bins:
        say(f"  AP of objects of {one.low:g} to {one.high:g} px: {points(one.ap)} ({one.objects} objects)")
    for one_class in calibration.per_class:
        say(
            f"  AP of {one_class.name}: {points(one_class.ap)} ({one_class.objects} objects); ECE "
            f"{points(one_class.ece)}, gap {points(one_class.signed_gap, sign=True)}, LaECE "
            f"{points(one_class.laece)} of {one_class.detections} detections, which find "
            f"{points(one_class.recall)} %; score-IoU rank correlation {one_class.score_iou_correlation:.2f}"
        )
    say(
        f"ECE {points(calibration.ece)} of {calibration.detections} detections with a score of at least "
        f"{calibration.threshold:g}, which find {points(calibration.recall)} % of the objects "
        f"(by chance alone {points(calibration.ece_by_chance)})"
    )
    say(
        f"mean score - share right {points(calibration.signed_gap, sign=True)} (above 0 over-confident), "
        f"LaECE {points(calibration.laece)}, D-ECE {points(calibration.dece)} over "
        f"{calibration.dece_detections} of them (by chance alone {points(calibration.dece_by_chance)})"
    )
    say(f"score-IoU rank correlation {evaluation.score_iou_correlation:.2f}")
