"""What is done before a comparison trains anything: its losses and its folder checked, its data described."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.engine import WHERE, check_engine, workers_and_threads
from detloss.lab.data import Dataset, fingerprint, summary
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector.locations import count_locations
from detloss.lab.detector.objective import find_detector_loss
from detloss.lab.devices import pick_device
from detloss.lab.records import difference, load_config, to_dict
from detloss.lab.runs import WrongFolder, read_json, versions, write_json
from detloss.lab.training.origin import claim_origin, origin_of
from detloss.lab.training.trainer import check_trainer
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES

FREE = ("seeds", "rope", "looks", "checkpoint_minutes")
"""What of a configuration may change while a comparison goes on, beside where its runs are made."""
SCENES = "Each seed has scenes of its own, of the same kind; counted are those of seed 0."


FOLDS = "{} folds: all images are validated, each once; the training images are those of the first fold."


def _notes(config: CompareConfig) -> list[str]:
    return [SCENES] if config.new_scenes else [FOLDS.format(config.folds)] if config.folds else []


def check(config: CompareConfig) -> None:
    """Finds the trainer and tries every loss: a wrong one is an error before anything is written."""
    check_engine(config)
    if config.trainer:
        check_trainer(config.trainer, config.pairs)
        return
    classification, boxes = (dict.fromkeys(names) for names in zip(*config.pairs))
    for name in boxes:
        find_detector_loss(name, BOX_LOSSES, config.detector)
    for name in classification:
        find_detector_loss(name, CLASSIFICATION_LOSSES, config.detector)


def describe_data(config: CompareConfig, training: Dataset, validation: Dataset) -> dict[str, Any]:
    """What the report says of the data, negatives per positive among it."""
    drawn = config.data == "embedded"
    # Of the images of a run, which with folds are all.
    images = (validation,) if config.folds else (training, validation)
    described = {
        **({} if drawn else {"fingerprint": fingerprint(*images)}),
        "source": config.data,
        "names": list(training.names),
        "class_map": training.class_map,
        "train": summary(training),
        "val": summary(validation),
        "notes": [*training.notes, *validation.notes, *_notes(config)],
    }
    if not config.dense:  # which of its locations must find an object is not known
        return described
    counts = count_locations(config.detector, Letterboxed(training, config.size))
    return described | {
        "measured_images": counts.images,
        "locations": counts.locations,
        "negatives_per_positive": counts.negatives_per_positive,
        "negatives_per_positive_logits": counts.negatives_per_positive_logits,
        "objects_without_positive": counts.objects_without_positive / max(1, counts.objects),
    }


def prepare(
    config: CompareConfig, out: Path, training: Dataset, validation: Dataset
) -> tuple[CompareConfig, dict[str, Any]]:
    """Writes what is known before training: config.json, versions.json, data.json.

    Returns:
        The configuration, with all looks that the folder has had, and what data.json says.

    Raises:
        WrongFolder: `out` holds another comparison (other seeds, rope or looks, with the same last one, and
            another place to run do not make it another), or one of other data, own files or versions.
    """
    if (out / "config.json").exists():
        try:
            before = load_config(CompareConfig, out)
        except ValueError as error:
            raise WrongFolder(f"{out} holds no comparison ({error})") from None
        if before.looks[-1] != config.looks[-1]:
            raise WrongFolder(
                f"{out} was planned with looks at {' '.join(map(str, before.looks))} seeds: the last of them "
                f"cannot become {config.looks[-1]} after the results were looked at"
            )
        # A look that was not planned may be added (Lan and DeMets), if none is forgotten.
        config = replace(config, looks=tuple(sorted({*before.looks, *config.looks})))
        free = {name: getattr(config, name) for name in (*FREE, *WHERE)}
        before = replace(before, **free)
        if to_dict(before) != to_dict(config):
            raise WrongFolder(
                f"{out} holds a comparison with another configuration: {difference(before, config)}"
            )
    claim_origin(out, origin_of(config, {"training": training, "validation": validation}))
    data = describe_data(config, training, validation)
    # Folders of older versions have no fingerprint.
    if (out / "data.json").exists() and data | read_json(out / "data.json") != data:
        raise WrongFolder(f"the data is not what {out} was begun with")
    write_json(out / "config.json", to_dict(config))
    write_json(out / "data.json", data)
    if not (out / "versions.json").exists():
        workers, threads = workers_and_threads(config)
        ray = config.engine == "ray"
        device = "cpu" if ray else str(pick_device((config.devices or (config.device,))[0]))
        made = {**versions(device), "workers": workers, "threads": threads}
        # On many machines: each run says what its own was.
        write_json(out / "versions.json", made | ({"engine": "ray", "device": "of each run"} if ray else {}))
    return config, data
