"""Prints the table of docs/speed.md: what the first calls in a process take, with and without a cache.

A row is a call, forward and backward, and they are made in this order; a column is a process of its own.
"""

import os
import subprocess
import sys
import tempfile
import time

import torch

from detloss.lab.runs import versions
from detloss.losses import sigmoid_focal_loss

ROWS, CLASSES = 10_000, 80
CALLS = (
    ("the first, dense targets", False, ROWS, 2.0),
    ("another size and gamma", False, ROWS // 2, 1.5),
    ("class indices", True, ROWS, 2.0),
)


def child() -> None:
    """Print the seconds of every call."""
    for _, index, rows, gamma in CALLS:
        logits = torch.randn(rows, CLASSES, requires_grad=True)
        targets = torch.randint(0, CLASSES, (rows,)) if index else torch.zeros(rows, CLASSES)
        start = time.perf_counter()
        sigmoid_focal_loss(logits, targets, gamma=gamma, reduction="sum", impl="compile").backward()
        print(time.perf_counter() - start)


def main() -> None:
    """Print a line for every call: its seconds with an empty cache, and twice with what that left."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}
        command = [sys.executable, __file__, "child"]
        columns = [
            subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout.split()
            for _ in range(3)
        ]
    print("| call | empty cache | second process | third |\n|---|---|---|---|")
    for (name, *_), *times in zip(CALLS, *columns, strict=True):
        print(f"| {name} | {' | '.join(f'{float(seconds):.1f} s' for seconds in times)} |")
    print(versions("cpu"))


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
