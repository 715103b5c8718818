"""What is done before a comparison trains anything: its losses and its folder checked, its data described."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from detloss.calling import Loss
from detloss.lab.compare.comparison import workers_and_threads
from detloss.lab.compare.config import CompareConfig
from detloss.lab.data import Dataset, summary
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector.locations import count_locations
from detloss.lab.devices import pick_device
from detloss.lab.records import load_config, to_dict
from detloss.lab.runs import WrongFolder, read_json, versions, write_json
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss


def check(config: CompareConfig) -> list[Loss]:
    """Finds and tries every loss, so that a wrong one is an error before anything is written.

    Returns:
        The classification losses.
    """
    pick_device(config.device)
    classification, boxes = (dict.fromkeys(names) for names in zip(*config.pairs))
    for name in boxes:
        find_loss(name, BOX_LOSSES, training=True)
    return [find_loss(name, CLASSIFICATION_LOSSES, training=True) for name in classification]


def describe_data(config: CompareConfig, training: Dataset, validation: Dataset) -> dict[str, Any]:
    """What the report says of the data, negatives per positive among it."""
    counts = count_locations(config.detector, Letterboxed(training, config.size))
    return {
        "source": config.data,
        "names": list(training.names),
        "class_map": training.class_map,
        "train": summary(training),
        "val": summary(validation),
        "notes": [*training.notes, *validation.notes],
        "measured_images": counts.images,
        "locations": counts.locations,
        "negatives_per_positive": counts.negatives_per_positive,
        "negatives_per_positive_logits": counts.negatives_per_positive_logits,
        "objects_without_positive": counts.objects_without_positive / max(1, counts.objects),
    }


def prepare(config: CompareConfig, out: Path, training: Dataset, validation: Dataset) -> dict[str, Any]:
    """Writes what is known before training: config.json, versions.json, data.json; the last is returned.

    Raises:
        WrongFolder: `out` holds another comparison (more seeds, other workers or another rope do not make it
            another), or
            one of other data.
    """
    if (out / "config.json").exists():
        before = _config_of(out)
        if replace(before, seeds=config.seeds, workers=config.workers, rope=config.rope) != config:
            raise WrongFolder(f"{out} holds a comparison with another configuration")
    data = describe_data(config, training, validation)
    if (out / "data.json").exists() and read_json(out / "data.json") != data:
        raise WrongFolder(f"the data is not what {out} was begun with")
    write_json(out / "config.json", to_dict(config))
    write_json(out / "data.json", data)
    if not (out / "versions.json").exists():
        workers, threads = workers_and_threads(config)
        device = str(pick_device(config.device))
        write_json(out / "versions.json", {**versions(device), "workers": workers, "threads": threads})
    return data


def _config_of(out: Path) -> CompareConfig:
    try:
        return load_config(CompareConfig, out)
    except ValueError as error:
        raise WrongFolder(f"{out} holds no comparison ({error})") from None
