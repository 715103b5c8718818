"""Every bar that the losses are held to: what it is, what was measured, met or not.

Command: python benchmarks/bars.py [--device cuda] [--only focal linear ...] [--quick], in an environment with
torchvision (`make clients` makes one), with g++ for the C loop. Each bar's variants run in interleaved rounds
of one process; ratios are of medians. The table goes to benchmarks/results/bars.csv, or where --out says.
Duration: some minutes on two cores, most of it torchvision at large sizes and compiling.
"""

import argparse
import ctypes
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detloss import sigmoid_focal_loss
from detloss.lab.bench.cases import LOSSES, Arguments, work
from detloss.lab.bench.measure import Memory, Work, copy_rate, interleave, memory
from detloss.lab.bench.peers import ALPHA, Missing
from detloss.lab.bench.run import environment, reason
from detloss.lab.cli.terminal import console, say
from detloss.lab.memory import kept_by_hooks
from detloss.lab.runs import write_csv

HERE = Path(__file__).parent
COLUMNS = ("what", "memory", "bar", "measured", "met", "note")
BOTH = ("focal", "boxes", "softmax", "linear")  # measured with new and with reused memory


@dataclass(frozen=True)
class Bar:
    """One row: `measured` must be at least, or at most, `bound`."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""
    memory: str = ""

    @property
    def bar(self) -> str:
        """What is asked for."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    @property
    def met(self) -> str:
        """Yes, no, or that nothing was measured."""
        if math.isnan(self.measured):
            return "not measured"
        below = self.measured < (-math.inf if self.at_least is None else self.at_least)
        above = self.measured > (math.inf if self.at_most is None else self.at_most)
        return "no" if below or above else "yes"


@dataclass(frozen=True)
class Setting:
    """Where it runs, how long a group of variants is measured, and by how much sizes are cut for a trial."""

    device: torch.device
    seconds: float
    rounds: int
    part: float = 1.0
    new_memory: bool = False

    def arguments(
        self, loss: str, elements: float, targets: str = "dense", dtype: torch.dtype = torch.float32
    ) -> Arguments:
        """A loss's arguments, with `part` of the elements."""
        return LOSSES[loss].arguments(max(1, round(elements * self.part)), targets, dtype, self.device)

    def medians(self, works: dict[str, Work], part: float = 1.0) -> dict[str, float]:
        """Median seconds of each, all warmed up before."""
        for one in works.values():
            for _ in range(4):
                one.run()
        times, failed = interleave(
            works, self.device, part * self.seconds, self.rounds, new_memory=self.new_memory
        )
        for error in failed.values():
            raise error
        return {name: median(found) for name, found in times.items()}

    def memory(self, one: Work) -> Memory:
        """Bytes of one call, the second."""
        one.run()
        return memory(one, self.device)


def works_of(loss: str, arguments: Arguments, *names: str) -> dict[str, Work]:
    """Variants of a loss, side by side."""
    return {name: work(loss, name, arguments) for name in names}


def milliseconds(times: dict[str, float]) -> str:
    """Times in a few words."""
    return ", ".join(f"{name} {1000 * value:.3g} ms" for name, value in times.items())


# The C loop


def c_loop(folder: Path) -> Callable[[Tensor, Tensor], tuple[float, Tensor]]:
    """focal.cpp, compiled: sum and gradient, the gradient in new memory each time as autograd's is.

    Linked without -fopenmp, so that it shares torch's threads: those of a second pool would wait in a loop
    while the others work. Linked without -ffast-math, which would change how the process treats denormals.
    """
    flags = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
    try:
        subprocess.run(["g++", *flags, "-c", HERE / "focal.cpp", "-o", folder / "focal.o"], check=True)
        library = folder / "focal.so"
        subprocess.run(["g++", "-shared", folder / "focal.o", "-o", library, "-lmvec", "-lm"], check=True)
    except FileNotFoundError:
        raise Missing("g++ is not installed") from None
    function = ctypes.CDLL(str(library)).focal
    function.restype = ctypes.c_float
    function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64, ctypes.c_float]

    def loss(logits: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        gradient = torch.empty_like(logits)
        pointers = (tensor.data_ptr() for tensor in (logits, targets, gradient))
        return function(*pointers, logits.numel(), ALPHA), gradient

    return loss


# The bars


def focal(setting: Setting) -> Iterator[Bar]:
    """Sigmoid focal loss, dense targets and class indices."""
    dense = setting.arguments("focal", 8e6)
    index = setting.arguments("focal", 8e6, "index")
    works = works_of("focal", dense, "torchvision", "torchvision_compiled", "auto")
    works["index"] = work("focal", "auto", index)
    with tempfile.TemporaryDirectory() as folder:
        loop = c_loop(Path(folder))
    works["C loop"] = Work(lambda: loop(dense.inputs.detach(), dense.targets))
    times = setting.medians(works)
    note, what = milliseconds(times), f"focal, {dense.rows}×80 dense"
    yield Bar(f"{what}: torchvision / ours", times["torchvision"] / times["auto"], at_least=20, note=note)
    yield Bar(
        f"{what}: compiled torchvision / ours", times["torchvision_compiled"] / times["auto"], at_least=1.6
    )
    yield Bar(f"{what}: ours / C loop", times["auto"] / times["C loop"], at_most=1.35)
    yield Bar("focal: class indices / dense", times["index"] / times["auto"], at_most=1.15)
    peaks = [setting.memory(works[name]).peak / dense.unit_bytes for name in ("index", "auto")]
    yield Bar(
        "focal: peak memory of class indices over that of dense targets, N×C",
        peaks[0] - peaks[1],
        at_most=0.05,
        note=f"{peaks[0]:.2f} and {peaks[1]:.2f}",
    )


def kept(setting: Setting) -> Iterator[Bar]:
    """What is kept for backward, counted in two ways."""
    for loss in ("focal", "quality_focal", "varifocal"):
        for targets in ("dense", "index"):
            given = setting.arguments(loss, 8e6, targets)
            one = work(loss, "auto", given)
            by_allocator = setting.memory(one).kept / given.unit_bytes
            by_hooks = kept_by_hooks(one.forward, given.tensors) / given.unit_bytes
            note = f"by the allocator {by_allocator:.2f}, by saved tensors {by_hooks:.2f}"
            if loss == "focal":
                peer = work(loss, "torchvision", given)
                note += f"; torchvision {setting.memory(peer).kept / given.unit_bytes:.2f}, "
                note += f"{kept_by_hooks(peer.forward, given.tensors) / given.unit_bytes:.2f}"
            yield Bar(
                f"{loss} {targets}: kept for backward, N×C",
                max(by_allocator, by_hooks),
                at_most=1.05,
                note=note,
            )


def boxes(setting: Setting) -> Iterator[Bar]:
    """Box losses."""
    for loss, least in (("ciou", 50), ("giou", 15)):
        given = setting.arguments(loss, 1e6, "box")
        times = setting.medians(works_of(loss, given, "torchvision", "auto", "clone"))
        what = f"{loss}, {given.rows} pairs"
        ratio = times["torchvision"] / times["auto"]
        yield Bar(f"{what}: torchvision / ours", ratio, at_least=least, note=milliseconds(times))
        yield Bar(f"{what}: ours / cloning both boxes", times["auto"] / times["clone"], at_most=6)


def softmax(setting: Setting) -> Iterator[Bar]:
    """Softmax focal loss."""
    given = setting.arguments("softmax_focal", 200_000 * 81, "index")
    times = setting.medians(works_of("softmax_focal", given, "snippet", "torch", "auto"))
    what = f"softmax focal, {given.rows}×81"
    yield Bar(
        f"{what}: snippet / ours", times["snippet"] / times["auto"], at_least=1.5, note=milliseconds(times)
    )
    yield Bar(f"{what}: ours / F.cross_entropy", times["auto"] / times["torch"], at_most=1.1)


def linear(setting: Setting) -> Iterator[Bar]:
    """Last layer and focal loss in one."""
    given = setting.arguments("linear", 33_600 * 1203, "index")
    works = works_of("linear", given, "torchvision", "auto", "gemm")
    times = setting.medians(works)
    what = f"linear_loss focal, {given.rows}×256→1203"
    ratio = times["torchvision"] / times["auto"]
    yield Bar(f"{what}: unfused torchvision / ours", ratio, at_least=4.5, note=milliseconds(times))
    yield Bar(f"{what}: ours / bare matrix products", times["auto"] / times["gemm"], at_most=1.15)
    peaks = {name: setting.memory(works[name]).peak for name in ("torchvision", "auto")}
    yield Bar(
        f"{what}: peak memory of unfused torchvision / ours",
        peaks["torchvision"] / peaks["auto"],
        at_least=8,
        note=", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in peaks.items()),
    )


def small(setting: Setting) -> Iterator[Bar]:
    """Sizes where the fixed costs of a call decide, in a process that has compiled the passes."""
    for targets in ("dense", "index"):
        work("focal", "compile", setting.arguments("focal", 1e5, targets)).run()
    worst = {name: (0.0, "") for name in ("torchvision", "eager")}
    for rows in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000):
        for targets in ("dense", "index"):
            given = LOSSES["focal"].arguments(rows * 80, targets, torch.float32, setting.device)
            times = setting.medians(works_of("focal", given, "torchvision", "eager", "auto"), part=0.2)
            for name in worst:
                note = f"worst at N = {rows}, {targets}: {milliseconds(times)}"
                worst[name] = max(worst[name], (times["auto"] / times[name], note))
    for name, (ratio, note) in worst.items():
        yield Bar(f"focal, N = 1 … 10,000 × 80: ours / {name}", ratio, at_most=1, note=note)


def slope(setting: Setting) -> Iterator[Bar]:
    """Whether time grows as size does."""
    times = {}
    for size in (1e5, 1e6, 1e7, 1e8):
        given = setting.arguments("focal", size)
        times[given.inputs.numel()] = setting.medians(works_of("focal", given, "auto"))["auto"]
        del given
    x, y = np.log(list(times)), np.log(list(times.values()))
    note = milliseconds({f"{size:.0e}".replace("e+0", "e"): value for size, value in times.items()})
    yield Bar(
        "focal dense: log-log slope of time against size", np.polyfit(x, y, 1)[0], at_most=1.05, note=note
    )


def gpu_focal(setting: Setting) -> Iterator[Bar]:
    """Half precision against the bandwidth of the GPU."""
    _needs_cuda(setting)
    given = setting.arguments("focal", 1e8, "index", torch.bfloat16)
    works = works_of("focal", given, "torchvision", "auto", "clone")
    for one in works.values():
        one.run()
    times, _ = interleave(works, setting.device, setting.seconds, setting.rounds)
    rate = copy_rate(given.inputs.nbytes, times["clone"])
    medians = {name: median(found) for name, found in times.items()}
    what = f"focal bf16, class indices, {given.rows}×80"
    share = given.must_move / rate / medians["auto"]
    note = f"{milliseconds(medians)}; copying at {rate / 1e12:.2f} TB/s"
    yield Bar(f"{what}: share of the copy bandwidth", share, at_least=0.85, note=note)
    yield Bar(f"{what}: torchvision / ours", medians["torchvision"] / medians["auto"], at_least=10)


def gpu_large(setting: Setting) -> Iterator[Bar]:
    """More elements than 32-bit numbers count: the whole against the sum of its parts."""
    _needs_cuda(setting)
    given = setting.arguments("focal", 2**31 + 80 * 1000, "index", torch.bfloat16)
    work("focal", "auto", given).run()
    whole = sigmoid_focal_loss(given.inputs, given.targets, reduction="sum")
    (gradient,) = torch.autograd.grad(whole, given.inputs)
    total, worst = torch.zeros((), dtype=torch.float64, device=setting.device), 0.0
    for rows in torch.arange(given.rows).split(1_000_000):
        cut = slice(int(rows[0]), int(rows[-1]) + 1)
        logits = given.inputs.detach()[cut].float().requires_grad_()
        part = sigmoid_focal_loss(logits, given.targets[cut], reduction="sum", impl="eager")
        (expected,) = torch.autograd.grad(part, logits)
        total += part.detach()
        worst = max(worst, (gradient[cut].float() - expected).abs().max().item())
    what = f"focal bf16, {given.inputs.numel():.3g} elements"
    relative = abs(whole.item() / total.item() - 1)
    yield Bar(f"{what}: relative error of the sum", relative, at_most=1e-4)
    yield Bar(f"{what}: largest error of the gradient", worst, at_most=2**-8)  # half a step of bf16 at 1


def gpu_linear(setting: Setting) -> Iterator[Bar]:
    """Ten thousand classes."""
    _needs_cuda(setting)
    rows, features, classes = max(1, round(33_600 * setting.part)), 256, 10_000
    make = torch.Generator(setting.device).manual_seed(0)
    options = {"generator": make, "device": setting.device, "dtype": torch.bfloat16}
    inputs = torch.randn(rows, features, **options).requires_grad_()
    weight = (torch.randn(classes, features, **options) / 50).requires_grad_()
    labels = torch.randint(classes + 1, (rows,), generator=make, device=setting.device)
    given = Arguments(inputs, labels, weight=weight)
    times = setting.medians(works_of("linear", given, "auto", "gemm"))
    what = f"linear_loss focal bf16, {rows}×{features}→{classes}"
    ratio = times["auto"] / times["gemm"]
    yield Bar(f"{what}: ours / matrix products", ratio, at_most=1.15, note=milliseconds(times))


def _needs_cuda(setting: Setting) -> None:
    if setting.device.type != "cuda":
        raise Missing("needs a GPU: --device cuda")


GROUPS: dict[str, Callable[[Setting], Iterator[Bar]]] = {
    one.__name__: one
    for one in (focal, kept, boxes, softmax, linear, small, slope, gpu_focal, gpu_large, gpu_linear)
}


def main() -> None:
    """Measures the groups asked for, prints and writes their bars."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=15.0, help="for the rounds of a group of variants")
    parser.add_argument("--rounds", type=int, default=11, help="at least")
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of the sizes; its verdicts mean nothing"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bars.csv")
    given = parser.parse_args()
    seconds, rounds, part = (0.5, 3, 0.05) if given.quick else (given.seconds, given.rounds, 1.0)
    setting = Setting(torch.device(given.device), seconds, rounds, part)
    found: list[Bar] = []
    for name in given.only:
        kinds = ("new", "reused") if name in BOTH and setting.device.type == "cpu" else ("",)
        try:
            for kind in kinds:
                for bar in GROUPS[name](replace(setting, new_memory=kind == "new")):
                    say(f"{bar.what}: {bar.measured:.3g} ({bar.bar}) {bar.met} {kind}")
                    found.append(replace(bar, memory=kind))
        except Exception as error:  # one bar that cannot be measured says why; the others go on
            found.append(Bar(name, math.nan, at_least=0, note=reason(error)))
            say(f"{name}: {reason(error)}")
    rows = [
        {column: getattr(bar, column) for column in COLUMNS} | environment(setting.device) for bar in found
    ]
    for row, bar in zip(rows, found):
        row["measured"] = "" if math.isnan(bar.measured) else f"{bar.measured:.4g}"
        row["bar"] = "" if math.isnan(bar.measured) else bar.bar
    table = Table("what", "memory", "bar", "measured", "met")
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS[:5]))
    console.print(table)
    if given.quick and given.out == HERE / "results" / "bars.csv":
        say("a trial: nothing is written without --out")
        return
    write_csv(given.out, list(rows[0]), rows)
    say(str(given.out))


if __name__ == "__main__":
    main()
