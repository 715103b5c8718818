"""The process that a user's own trainer is called in: its output is a log, its results are left as a file.

It is no child of a pool: a trainer may start processes, take all memory or end the process as it likes.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from detloss.lab.files import replacing
from detloss.lab.records import first_line, load_config
from detloss.lab.runs import write_json
from detloss.lab.training.config import TrainConfig
from detloss.lab.training.train import peak_memory_mb
from detloss.lab.training.trainer import find_trainer, make_run

RESULTS, SPENT = "results.json", "spent.json"
"""What the trainer returned; what it cost, which is there when the results are whole."""
PAUSE = 0.2  # seconds between two messages


class NoResults(ValueError):
    """A trainer returned what cannot be COCO results."""


def main(spec: dict[str, Any]) -> None:
    """Calls the trainer of a run folder.

    What happens is told on the pipe, as JSON lines: {"step": n}; at last {"done": true}, {"failed": reason}
    or {"diverged": reason}.

    Args:
        spec: `folder`, `device`, `threads` of PyTorch, `pipe`.
    """
    _end_with(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(spec["threads"])
    folder, told = Path(spec["folder"]), [0.0]

    def say(event: dict[str, Any]) -> None:
        sys.stdout.flush()
        os.write(spec["pipe"], json.dumps(event).encode() + b"\n")

    config = load_config(TrainConfig, folder)

    def progress(step: int) -> None:
        now = time.monotonic()
        if now - told[0] >= PAUSE:
            told[0] = now
            say({"step": min(int(step), config.steps)})

    try:
        train = find_trainer(config.trainer)
        if spec["device"].startswith("cuda"):
            torch.cuda.set_device(spec["device"])
        run = make_run(config, folder, spec["device"], progress)
        began = time.perf_counter()
        results = train(run)
        seconds = time.perf_counter() - began
        keep(results, folder / RESULTS)
        memory = peak_memory_mb(torch.device(spec["device"]))
        write_json(folder / SPENT, {"seconds": seconds, "peak_memory_mb": memory})
        say({"done": True})
    except FloatingPointError as error:
        traceback.print_exc()
        say({"diverged": first_line(error)})
    except NoResults as error:
        say({"failed": str(error)})
    except BaseException as error:  # sys.exit() is no result either
        traceback.print_exc()
        say({"failed": traceback.format_exception_only(error)[-1].splitlines()[0]})


def keep(results: Any, file: Path) -> None:
    """Writes what a trainer returned to a file; numbers of NumPy and torch are numbers.

    Raises:
        NoResults: neither a list nor the path of a file.
    """
    if isinstance(results, str | os.PathLike):
        if not Path(results).is_file():
            raise NoResults(f"it returned the path {str(results)!r}, where there is no file")
        replacing(file, lambda part: shutil.copyfile(results, part))
    elif isinstance(results, list):
        try:
            text = json.dumps(results, default=lambda value: value.tolist())
        except (AttributeError, TypeError, ValueError) as error:
            raise NoResults(f"it returned a list that cannot be JSON ({first_line(error)})") from None
        replacing(file, lambda part: part.write_text(text, encoding="utf-8"))
    else:
        raise NoResults(
            f"it returned {type(results).__name__}; it must return COCO results, a list of dicts with "
            "image_id, category_id, bbox and score, or the path of a JSON file with them"
        )


def _end_with(parent: int) -> None:
    """Ends this process and all that it started when who holds the other end of a pipe is gone."""

    def wait() -> None:
        while os.read(parent, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
