"""One training run that a user's own function makes, and the laboratory measures."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from detloss.lab.data import Dataset
from detloss.lab.data.sample import Detections
from detloss.lab.devices import pick_device
from detloss.lab.engines import JobFailed
from detloss.lab.evaluate import from_coco_results, to_coco_results
from detloss.lab.evaluate.detections import check, read_coco_results
from detloss.lab.files import replacing
from detloss.lab.processes import ended, events
from detloss.lab.runs import read_json, write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.state import NonFiniteLoss
from detloss.lab.training.train import TrainResult, claim
from detloss.lab.training.trained import evaluate_found
from detloss.lab.training.trainer import DATA, write_images
from detloss.lab.training.trainer_process import RESULTS, SPENT

LOG = "trainer.log"
# The path as it is here, without an environment variable that a trainer's own processes would inherit.
START = (
    "import json, sys; spec = json.loads(sys.argv[1]); sys.path[:] = spec['path']; "
    "from detloss.lab.training.trainer_process import main; main(spec)"
)


class TrainerFailed(JobFailed):
    """A trainer raised, ended its process, or returned what are no results.

    Attributes:
        why: that.
    """

    def __init__(self, why: str, out: Path) -> None:
        super().__init__(f"{why}; what it printed is in {out / LOG}")
        self.why = why


def train_by(
    config: TrainConfig,
    training: Dataset,
    validation: Dataset,
    out: Path,
    on_step: Callable[[int], None] = lambda step: None,
    origin: Mapping[str, str] | None = None,
) -> TrainResult:
    """Calls the trainer of a configuration in a process of its own, and evaluates what it returns.

    Leaves in `out` what `detloss.lab.training.train.train` leaves, but for tables and weights, of which it
    knows nothing; and trainer.log, what the trainer printed. A run that is finished, or only not evaluated
    yet, is not trained again.

    Raises:
        WrongFolder: `out` holds a run with another configuration or origin.
        NonFiniteLoss: the trainer says that its loss is not finite.
        TrainerFailed: it has no results.
    """
    device = pick_device(config.device)
    if finished := claim(out, config, device, origin):
        return finished
    if not (out / SPENT).exists():
        write_images(training, validation, out.absolute())
        _call(config, out, device, on_step)
    try:
        found = read_returned(out / RESULTS, validation)
    except ValueError as error:
        (out / SPENT).unlink()
        raise TrainerFailed(f"trainer {config.trainer}: {error}", out) from None
    evaluation, matches = evaluate_found(found, validation)
    ids = [validation.annotation(i).id for i in range(len(validation))]
    write_json(out / "detections.json", to_coco_results(found, ids))
    replacing(out / "matches.npz", matches.save)
    spent = read_json(out / SPENT)
    # Last: a folder with metrics.json is a finished run.
    write_json(out / "metrics.json", spent | {"clipped": None} | evaluation.to_dict())
    for name in (SPENT, RESULTS):
        (out / name).unlink()
    shutil.rmtree(out / DATA, ignore_errors=True)  # lists and drawn images that can be made again
    return TrainResult(evaluation, spent["seconds"], spent["peak_memory_mb"], None)


def _call(config: TrainConfig, out: Path, device: torch.device, on_step: Callable[[int], None]) -> None:
    """Runs the process of the trainer to its end."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    threads = torch.get_num_threads()
    spec = {"folder": str(out.absolute()), "device": str(device), "threads": threads}
    spec |= {"path": [os.path.abspath(place) for place in sys.path]}
    read_end, write_end = os.pipe()
    with (out / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", START, json.dumps({**spec, "pipe": write_end})],
            stdin=subprocess.PIPE,  # when this process is gone its end is closed, and the trainer ends
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # ended with all that it started
        )
    os.close(write_end)
    last: dict[str, Any] = {}
    try:
        for event in events(process, read_end):
            last = event or last
            if "step" in event:
                on_step(event["step"])
            elif event:
                break
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        assert process.stdin is not None
        process.stdin.close()
        os.close(read_end)
    who = f"trainer {config.trainer}"
    if "diverged" in last:
        raise NonFiniteLoss(f"{config.loss} + {config.box_loss}: {who}: {last['diverged']}", {})
    if "failed" in last:
        raise TrainerFailed(f"{who}: {last['failed']}", out)
    if "done" not in last:
        raise TrainerFailed(f"{who}: its process ended {ended(code)}", out)


def read_returned(file: Path, validation: Dataset) -> list[Detections]:
    """The results of a trainer, image by image.

    Raises:
        ValueError: they are no COCO results on these images.
    """
    images = range(1, len(validation) + 1)
    try:
        found = from_coco_results(read_coco_results(file), images, range(1, len(validation.names) + 1))
    except ValueError as error:
        words = f"ids are those of validation.json: images 1 to {len(images)}, categories 1 to "
        raise ValueError(f"{error}; {words}{len(validation.names)}") from None
    truths = [validation.annotation(i) for i in range(len(validation))]
    check(found, truths, len(validation.names))
    return found
