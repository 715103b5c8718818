"""The benchmark: every loss at every size, all its variants in interleaved rounds, one row a variant."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from detloss.lab.bench.cases import DTYPES, LOSSES, TARGETS, VARIANTS, Arguments, variants, work
from detloss.lab.bench.measure import Work, available, copy_rate, interleave, memory, seconds
from detloss.lab.bench.peers import Missing
from detloss.lab.bench.table import short
from detloss.lab.records import require, require_least
from detloss.lab.runs import versions, write_csv

Row = dict[str, Any]
Tell = Callable[[str], None]
PROBE = 10**6
"""Elements of a first try before a larger size, which tells the memory and time that the size will take."""
WARM_UP = 3

ENVIRONMENT = ("device", "cpu", "cores", "threads", "simd", "torch", "torchvision", "detloss", "commit")
COLUMNS = (
    *("loss", "targets", "dtype", "size", "rows", "variant"),
    *("rounds", "median_s", "q10_s", "q90_s", "first_s"),
    *("peak_bytes", "kept_bytes", "peak_units", "kept_units"),
    *("must_move_bytes", "copy_bytes_per_s", "limit_s", "limit_share", "note", "failed"),
    *ENVIRONMENT,
)


@dataclass(frozen=True)
class BenchConfig:
    """What is measured, and how long."""

    losses: tuple[str, ...] = tuple(LOSSES)
    """focal quality_focal varifocal poly_focal asymmetric mal flsd ia_bce gaussian_focal bce softmax_focal
    dfl iou giou diou ciou eiou l1 smooth_l1, and linear: last layer and focal loss in one."""
    sizes: tuple[float, ...] = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
    """Elements: logits (rows × 80 classes; softmax × 81, bins × 17, linear × 1203), or pairs of boxes."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """auto compile eager unfused (ours) torchvision torchvision_compiled torch snippet mmcv apex gemm clone;
    those that a loss has. clone is always measured, for the limit."""
    dtype: tuple[Literal["float32", "bfloat16", "float16", "float64"], ...] = ("float32",)
    """Number type of the inputs and of dense targets."""
    targets: tuple[Literal["dense", "index"], ...] = TARGETS  # type: ignore[assignment]
    """One number per logit, or class indices; for the losses that take both."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    seconds: float = 4.0
    """Rounds of a size go on for as long."""
    rounds: int = 5
    """Least number of rounds."""
    slowest: float = 20.0
    """Seconds: a variant that would take longer for one call is left out."""

    def __post_init__(self) -> None:
        for name, known in (("losses", LOSSES), ("variants", VARIANTS)):
            values = getattr(self, name)
            if wrong := [value for value in values if value not in known]:
                raise ValueError(f"{name} has {wrong[0]!r}; it may hold {', '.join(known)}")
        for name in ("losses", "sizes", "variants", "dtype", "targets"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} is empty; name at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {' '.join(map(str, values))}; each may be there once")
        for size in self.sizes:
            if not (1 <= size < math.inf and size == int(size)):
                raise ValueError(f"sizes has {size:g}; a size is a whole number of elements, such as 1e6")
        for name in ("seconds", "slowest", "rounds"):
            require(self, name, getattr(self, name) < math.inf, "it must be finite")
        require_least(self, seconds=0, slowest=0, rounds=1)

    @property
    def cells(self) -> list["Cell"]:
        """One for each loss, form of targets, dtype and size; small sizes first."""
        return [
            Cell(loss, form, dtype, int(size))
            for loss in self.losses
            for form in (self.targets if LOSSES[loss].targets == TARGETS else LOSSES[loss].targets)
            for dtype in self.dtype
            for size in sorted(self.sizes)
        ]


@dataclass(frozen=True)
class Cell:
    """A loss at a size: its variants are measured side by side."""

    loss: str
    targets: str
    dtype: str
    size: int

    def __str__(self) -> str:
        return f"{self.loss} {self.targets} {self.dtype} {short(self.size)}"

    def arguments(self, size: int, device: torch.device) -> Arguments:
        """The loss's arguments with `size` elements."""
        return LOSSES[self.loss].arguments(size, self.targets, DTYPES[self.dtype], device)


def bench(
    config: BenchConfig, device: torch.device, out: Path, tell: Tell = lambda text: None
) -> Iterator[list[Row]]:
    """Measures cell by cell and gives the rows of each; `out`/results.csv holds all rows so far.

    `tell` hears what is under way.
    """
    rows: list[Row] = []
    for cell in config.cells:
        found = measure(cell, config, device, tell)
        rows += found
        write_csv(out / "results.csv", COLUMNS, rows)
        yield found


def measure(
    cell: Cell, config: BenchConfig, device: torch.device, tell: Tell = lambda text: None
) -> list[Row]:
    """One row a variant; a variant that is not there, is left out or fails has a note and no numbers."""
    loss = LOSSES[cell.loss]
    always = {"clone", loss.limit}  # the limit is stated from them
    rows: dict[str, Row] = {
        name: dict.fromkeys(COLUMNS, "")
        | {"loss": cell.loss, "targets": cell.targets, "dtype": cell.dtype, "size": cell.size}
        | {"variant": name}
        | environment(device)
        for name in variants(cell.loss, device)
        if name in config.variants or name in always
    }
    if cell.size > PROBE:
        _try_small(cell, config, device, rows, tell)
    left = [name for name, row in rows.items() if not row["note"]]
    arguments = cell.arguments(cell.size, device) if left else None
    works: dict[str, Work] = {}
    for name in left:
        assert arguments is not None
        tell(f"{cell}: first calls of {name}")
        row = rows[name] | {"rows": arguments.rows, "must_move_bytes": arguments.must_move}
        with _noted(row):
            one = work(cell.loss, name, arguments)
            row["first_s"] = max(row["first_s"] or 0.0, seconds(one, device))
            found = memory(one, device)
            row |= {"peak_bytes": found.peak, "kept_bytes": found.kept}
            row["peak_units"] = found.peak / arguments.unit_bytes
            row["kept_units"] = found.kept / arguments.unit_bytes
            for _ in range(WARM_UP if cell.size <= PROBE else 0):
                one.run()
            works[name] = one
        rows[name] = row
    tell(f"{cell}: rounds of {len(works)} variants")
    times, failed = interleave(works, device, config.seconds, config.rounds)
    for name, error in failed.items():
        _note(rows[name], error)
    for name, found_times in times.items():
        low, middle, high = np.quantile(found_times, (0.1, 0.5, 0.9)).tolist()
        rows[name] |= {"rounds": len(found_times), "median_s": middle, "q10_s": low, "q90_s": high}
    if arguments is not None and "clone" in times:
        _state_limit(loss.limit, arguments, times["clone"], rows)
    return list(rows.values())


def _state_limit(limit: str, arguments: Arguments, copies: Sequence[float], rows: dict[str, Row]) -> None:
    """Adds the bandwidth of a copy, the limit, and what part of its time a variant could not do without."""
    rate = copy_rate(sum(tensor.nbytes for tensor in arguments.copied), copies)
    least = rows[limit]["median_s"] if limit else arguments.must_move / rate
    for name, row in rows.items():
        row["copy_bytes_per_s"] = rate
        row["limit_s"] = least
        if least and row["median_s"] and name not in ("clone", limit):
            row["limit_share"] = least / row["median_s"]


def _try_small(
    cell: Cell, config: BenchConfig, device: torch.device, rows: dict[str, Row], tell: Tell
) -> None:
    """Notes the variants that would take too long or too much memory, going by a smaller size."""
    arguments, times = cell.arguments(PROBE, device), cell.size / PROBE
    given = sum(tensor.nbytes for tensor in arguments.tensors)
    for name, row in rows.items():
        tell(f"{cell}: trying {name} at {short(PROBE)}")
        with _noted(row):
            one = work(cell.loss, name, arguments)
            row["first_s"] = seconds(one, device)
            needed = (given + memory(one, device).peak) * times
            takes, there = seconds(one, device) * times, available(device)
            if takes > config.slowest:
                row["note"] = f"left out: about {takes:.2g} s a call, more than slowest, {config.slowest:g}"
            elif needed > 0.9 * there:
                row["note"] = f"left out: needs about {needed / 1e9:.3g} GB, {there / 1e9:.3g} GB are there"


@contextlib.contextmanager
def _noted(row: Row) -> Iterator[None]:
    """Whatever goes wrong with one variant is noted, and the others go on."""
    try:
        yield
    except Exception as error:
        _note(row, error)


def _note(row: Row, error: Exception) -> None:
    row |= {"note": reason(error), "failed": "" if isinstance(error, Missing) else 1}


def reason(error: Exception) -> str:
    """What a row says of a variant that gave no numbers."""
    if isinstance(error, Missing):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])  # "backend=... raised:"
    return f"failed: {type(error).__name__}: {text}"[:300]


@cache
def environment(device: torch.device) -> Row:
    """Hardware and versions, for every row."""
    found = versions(str(device)) | {"torchvision": ""}
    found |= {"threads": torch.get_num_threads(), "simd": torch.backends.cpu.get_cpu_capability()}
    with contextlib.suppress(PackageNotFoundError):
        found["torchvision"] = version("torchvision")
    return {name: found[name] for name in ENVIRONMENT}
