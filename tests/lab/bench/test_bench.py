"""The benchmark: what it counts is right on known cases, and whatever it cannot measure it says."""

import importlib.util
import io
import itertools
import math
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from detloss import sigmoid_focal_loss
from detloss.lab.bench import COLUMNS, LOSSES, BenchConfig, bench, line, notes, peers, tables
from detloss.lab.bench.cases import variants, work
from detloss.lab.bench.command import parse as parse_bench
from detloss.lab.bench.figures import bench_times
from detloss.lab.bench.measure import (
    Memory,
    Work,
    available,
    copy_rate,
    interleave,
    memory,
)
from detloss.lab.bench.run import Cell, measure, reason
from detloss.lab.bench.table import short
from detloss.lab.runs import read_csv, read_json
from helpers.commands import detloss, refused

CPU = torch.device("cpu")
N = 4096
BYTES = 4 * N
NUMBERS = 64  # bytes: a tensor for each number in a formula, a few of them at a time
ROOT = Path(__file__).parents[3]


def config(**changed) -> BenchConfig:
    """One small cell; nothing here is large enough to be compiled."""
    settings = {
        "losses": ("focal",),
        "sizes": (800,),
        "variants": ("eager", "snippet"),
        "targets": ("dense",),
    }
    return BenchConfig(**{**settings, "seconds": 0.01, "rounds": 2, **changed})


def cells_of(asked: BenchConfig) -> list[dict]:
    return [row for cell in asked.cells for row in measure(cell, asked, CPU)]


@pytest.fixture
def no_torchvision(monkeypatch):
    def absent(module):
        raise peers.Missing(f"{module.partition('.')[0]} is not installed")

    peers.torchvision_loss.cache_clear()
    monkeypatch.setattr(peers, "imported", absent)
    yield
    peers.torchvision_loss.cache_clear()


# Memory


def test_memory_of_known_functions():
    x = torch.randn(N)
    assert 0 <= memory(Work(lambda: x.exp() + 1), CPU).peak - 2 * BYTES <= NUMBERS
    assert memory(Work(lambda: x.exp().exp_().log_()), CPU) == Memory(BYTES, BYTES)
    assert memory(Work(lambda: (x.exp(), x.exp(), x.exp())), CPU).peak == 3 * BYTES
    assert memory(Work(lambda: x.exp().exp().exp()), CPU) == Memory(2 * BYTES, BYTES)
    assert memory(Work(lambda: x.view(2, -1)), CPU) == Memory(0, 0)


def test_memory_of_forward_and_backward():
    x = torch.randn(N, requires_grad=True)
    # exp(x) is kept, exp(x) + 1 is not; backward adds the gradient. The sum is one number.
    found = memory(Work(lambda: (x.exp() + 1).sum(), [x]), CPU)
    assert 0 <= found.kept - BYTES <= NUMBERS
    assert 0 <= found.peak - 2 * BYTES <= NUMBERS
    assert x.grad is None
    for _ in range(2):  # an old gradient is no memory of the next call
        assert memory(Work(lambda: x.sum(), [x]), CPU).peak <= 2 * BYTES + NUMBERS


@pytest.mark.slow
def test_memory_of_compiled_code():
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    x = torch.randn(N)
    compiled = torch.compile(lambda x: x.exp() + 1)
    compiled(x)
    assert memory(Work(lambda: compiled(x)), CPU) == Memory(BYTES, BYTES)


def test_available_memory_is_that_of_this_machine():
    assert 10**8 < available(CPU) < 10**14


# Time


def test_rounds_are_interleaved():
    order = []
    works = {name: Work(lambda name=name: order.append(name)) for name in "abc"}
    times, failed = interleave(works, CPU, budget=0, least=3)
    assert order == list("abc" * 3)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys("abc", 3)
    assert not failed
    order.clear()
    interleave(works, CPU, budget=60, least=1, most=4)
    assert order == list("abc" * 4)


def test_what_fails_in_a_round_drops_out():
    calls = []

    def fail_late():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")

    times, failed = interleave({"a": Work(lambda: None), "b": Work(fail_late)}, CPU, budget=0, least=5)
    assert len(times["a"]) == 5
    assert "b" not in times
    assert str(failed["b"]) == "out of memory"
    assert len(calls) == 2


def test_gradients_are_new_each_time():
    x = torch.ones(3, requires_grad=True)
    one = Work(lambda: (2 * x).sum(), [x])
    for _ in range(2):
        one.run()
        assert x.grad.tolist() == [2, 2, 2]


# What is measured


@pytest.mark.parametrize(
    ("loss", "targets", "elements", "bytes_moved"),
    [
        ("focal", "dense", 800, 3 * 3200),
        ("focal", "index", 800, 2 * 3200 + 8 * 10),
        ("bce", "index", 800, 2 * 3200 + 8 * 10),
        ("varifocal", "dense", 800, 3 * 3200),
        ("quality_focal", "index", 800, 2 * 3200 + (8 + 4) * 10),
        ("softmax_focal", "index", 810, 2 * 3240 + 8 * 10),
        ("softmax_focal", "dense", 810, 3 * 3240),
        ("dfl", "distance", 170, 2 * 680 + 4 * 10),
        ("ciou", "box", 10, 3 * 160),
        ("linear", "index", 1203 * 5, 2 * 4 * (5 * 256 + 1203 * 256) + 8 * 5),
    ],
)
def test_bytes_that_must_move(loss, targets, elements, bytes_moved):
    assert LOSSES[loss].arguments(elements, targets, torch.float32, CPU).must_move == bytes_moved


def test_bytes_of_half_precision():
    given = LOSSES["focal"].arguments(800, "dense", torch.bfloat16, CPU)
    assert (given.must_move, given.unit_bytes) == (3 * 1600, 1600)
    assert LOSSES["linear"].arguments(2406, "index", torch.float32, CPU).unit_bytes == 4 * 2406


@pytest.mark.parametrize("loss", LOSSES)
def test_arguments_follow_the_seed_and_hold_positives(loss):
    form = LOSSES[loss].targets[-1]
    first, second = (LOSSES[loss].arguments(10**5, form, torch.float32, CPU) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, second.tensors))
    if form == "index" and loss != "linear":
        positive = (first.targets < first.targets.max()).float().mean()
        assert 0.001 < positive < 0.05


@pytest.mark.parametrize("targets", ["dense", "index", "distance", "box"])
def test_snippets_compute_what_our_losses_do(targets):
    tried = 0
    for name, loss in LOSSES.items():
        if targets not in loss.targets or name == "linear":
            continue
        given = loss.arguments(40_000, targets, torch.float64, CPU)
        expected = loss.ours(given, "eager")
        (gradient,) = torch.autograd.grad(expected, given.inputs)
        for variant in {"snippet", "torch"} & set(loss.peers):
            if (name, variant) == ("softmax_focal", "torch"):  # cross entropy
                continue
            if (name, variant, targets) == ("softmax_focal", "snippet", "dense"):
                with pytest.raises(peers.Missing, match="takes class indices only"):
                    work(name, variant, given)
                continue
            value = work(name, variant, given).forward()
            tried += 1
            assert_close(value, expected)
            assert_close(torch.autograd.grad(value, given.inputs)[0], gradient)
    assert tried or targets == "box"


def test_last_layer_variants_agree():
    given = LOSSES["linear"].arguments(1203 * 20, "index", torch.float64, CPU)
    gradients = []
    for variant in ("eager", "unfused"):
        value = work("linear", variant, given).forward()
        gradients.append((value, *torch.autograd.grad(value, given.leaves)))
    assert_close(*gradients)
    products = work("linear", "gemm", given).forward()
    logits = torch.nn.functional.linear(given.inputs, given.weight).detach()
    assert_close(products, (logits @ given.weight.detach(), logits.T @ given.inputs.detach()))


@pytest.mark.clients
@pytest.mark.parametrize(
    ("loss", "targets"),
    [("focal", "dense"), ("focal", "index"), *((box, "box") for box in ("giou", "diou", "ciou"))],
)
def test_torchvision_computes_what_our_losses_do(loss, targets):
    given = LOSSES[loss].arguments(8000, targets, torch.float32, CPU)
    value, expected = (work(loss, variant, given).forward() for variant in ("torchvision", "eager"))
    assert_close(value, expected)
    assert_close(*(torch.autograd.grad(v, given.inputs)[0] for v in (value, expected)), rtol=1e-4, atol=1e-5)


def test_cuda_operations_are_for_cuda():
    assert not {"mmcv", "apex"} & set(variants("focal", CPU))
    assert {"mmcv", "apex"} <= set(variants("focal", torch.device("cuda")))


# Rows


def test_rows_are_complete(tmp_path):
    asked = config(losses=("focal", "ciou"), sizes=(1600, 800), targets=("dense", "index"))
    cells = list(bench(asked, CPU, tmp_path))
    # the variants asked for that a loss has, and always the copy
    assert [[row["variant"] for row in rows] for rows in cells] == [["eager", "snippet", "clone"]] * 4 + [
        ["eager", "clone"]
    ] * 2
    rows = read_csv(tmp_path / "results.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["loss"], row["targets"], row["size"]) for row in rows[::3]][:4] == [
        *[("focal", "dense", "800"), ("focal", "dense", "1600")],
        *[("focal", "index", "800"), ("focal", "index", "1600")],
    ]
    for row in rows:
        empty = {name for name, value in row.items() if value == ""}
        allowed = {"note", "failed", "torchvision", "commit"} | (
            {"limit_share"} if row["variant"] == "clone" else set()
        )
        assert empty <= allowed, (row["variant"], empty)
        assert float(row["q10_s"]) <= float(row["median_s"]) <= float(row["q90_s"])
        assert float(row["peak_bytes"]) >= float(row["kept_bytes"]) > 0
        assert int(row["rounds"]) >= 2


def test_limit_is_the_bytes_over_the_bandwidth():
    (row, copy) = cells_of(config(variants=("eager",)))
    assert copy["variant"] == "clone"
    assert row["copy_bytes_per_s"] == copy["copy_bytes_per_s"] <= 4 * 3200 / (0.99 * 1e-9)
    assert row["limit_s"] == 3 * 3200 / row["copy_bytes_per_s"]
    assert row["limit_share"] == row["limit_s"] / row["median_s"]
    # logits and targets are read and written: 4 × 3200 bytes in the best of these seconds
    assert copy_rate(2 * 3200, [4e-6, 2e-6, 3e-6]) == 4 * 3200 / 2e-6


def test_limit_of_a_last_layer_is_its_matrix_products():
    rows = {row["variant"]: row for row in cells_of(config(losses=("linear",), sizes=(2406,)))}
    assert rows["eager"]["limit_s"] == rows["gemm"]["median_s"]
    assert rows["gemm"]["limit_share"] == ""


def test_a_missing_library_is_said(no_torchvision):
    rows = cells_of(config(variants=("torchvision", "eager"), sizes=(800, 1600)))
    missing = [row for row in rows if row["variant"] == "torchvision"]
    assert len(missing) == 2
    assert all(row["median_s"] == "" and row["cpu"] for row in missing)
    assert notes(rows) == ["torchvision: torchvision is not installed (2 times)"]


def test_an_error_loses_one_row(monkeypatch):
    def broken(inputs, targets):
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: no working compiler\nmore lines")

    monkeypatch.setattr(peers, "focal_snippet", broken)
    eager, snippet, _ = cells_of(config())
    assert eager["median_s"] > 0
    assert (snippet["median_s"], snippet["peak_bytes"]) == ("", "")
    assert snippet["note"] == (
        "failed: RuntimeError: backend='inductor' raised: InvalidCxxCompiler: no working compiler"
    )
    assert reason(ValueError()) == "failed: ValueError: "


def test_too_large_is_left_out(monkeypatch):
    monkeypatch.setattr("detloss.lab.bench.run.PROBE", 800)
    cell = Cell("focal", "dense", "float32", 80_000)
    monkeypatch.setattr("detloss.lab.bench.run.available", lambda device: 3_200_000)
    eager, snippet, copy = measure(cell, config(), CPU)
    for row in (eager, snippet):
        # at least two arguments and the gradient of 320,000 bytes, and more than one buffer beside them
        needed = float(row["note"].removeprefix("left out: needs about ").split()[0])
        assert 0.001 <= needed < 0.01
        assert (row["median_s"], row["peak_bytes"]) == ("", "")
    assert copy["note"] == ""
    assert copy["median_s"] > 0

    monkeypatch.setattr("detloss.lab.bench.run.available", lambda device: 10**12)
    rows = measure(cell, config(slowest=0), CPU)
    assert all(row["note"].endswith("a call, more than slowest, 0") for row in rows)
    assert all(row["note"] == "" for row in measure(cell, config(slowest=1000), CPU))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"losses": ("focl",)}, "losses has 'focl'; it may hold focal"),
        ({"variants": ("fast",)}, "variants has 'fast'"),
        ({"sizes": (1e3, 0.5)}, "sizes has 0.5"),
        ({"sizes": (math.inf,)}, "sizes has inf"),
        ({"sizes": ()}, "sizes is empty"),
        ({"sizes": (10, 10)}, "sizes is 10 10; each may be there once"),
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"seconds": -1.0}, "seconds is -1"),
    ],
)
def test_bad_settings(changed, message):
    with pytest.raises(ValueError, match=message):
        config(**changed)


# Table and figure


def row(variant, size, seconds, **more):
    return {
        **{"loss": "focal", "targets": "dense", "dtype": "float32", "variant": variant, "size": size},
        **{"median_s": seconds, "peak_units": 2.0, "kept_units": 1.0, "limit_share": "", "limit_s": 1e-4},
        **{"note": "", **more},
    }


ROWS = [
    row("auto", 1000, 0.002, limit_share=0.05),
    row("auto", 10**6, 0.02, limit_share=0.5, peak_units=1.0),
    row("torchvision", 1000, 0.001),
    row("torchvision", 10**6, 3.0),
    row("eager", 1000, 0.003),
    row("eager", 10**6, "", note="left out: needs about 3 GB, 1 GB are there"),
]


def printed(table) -> list[str]:
    text = io.StringIO()
    Console(width=80, file=text).print(table)
    return [" ".join(found.split()) for found in text.getvalue().splitlines()]


def test_table_holds_ratios():
    ((title, table),) = tables(ROWS)
    assert title == "focal, dense targets, float32: times as fast as torchvision"
    head, _, *lines = printed(table)
    assert head == "variant 1e3 1e6 peak kept limit"
    assert lines == ["auto 0.5 150 1.00 1.00 50 %", "torchvision 1 1 2.00 1.00", "eager 0.33 – 2.00 1.00"]
    assert notes(ROWS) == ["eager: left out: needs about 3 GB, 1 GB are there (focal dense float32 1e6)"]
    assert line(ROWS[:4:2]) == "focal dense float32 1e3, as fast as torchvision: auto 0.5×"


def test_table_without_torchvision_compares_to_eager():
    ((title, _),) = tables([row("auto", 1000, 0.002), row("eager", 1000, 0.003)])
    assert title.endswith("times as fast as eager")


def test_all_default_sizes_fit_80_columns():
    rows = [row("torchvision_compiled", int(size), 0.1, limit_share=1.0) for size in BenchConfig().sizes]
    rows += [row("torchvision", int(size), 0.001234) for size in BenchConfig().sizes]
    text = io.StringIO()
    console = Console(width=80, file=text)
    for _, table in tables(rows):
        console.print(table)
    assert "…" not in text.getvalue()
    assert "1e8" in text.getvalue()


@pytest.mark.parametrize(("size", "text"), [(1000, "1e3"), (25_000, "2.5e4"), (10**8, "1e8"), (960, "960")])
def test_sizes_in_a_few_letters(size, text):
    assert short(size) == text


def test_figure_shows_the_rows():
    figure = bench_times([*ROWS, *(r | {"loss": "giou", "targets": "box"} for r in ROWS)])
    assert [ax.get_title("left") for ax in figure.axes] == ["focal, dense targets, float32", "giou, float32"]
    ax = figure.axes[0]
    found = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert found["auto"] == [[1000, 0.002], [10**6, 0.02]]
    assert found["eager"] == [[1000, 0.003]]
    assert found["limit"] == [[1000, 1e-4], [10**6, 1e-4]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert {text.get_text() for text in ax.texts} == set(found)


def test_labels_do_not_meet():
    rows = [
        row(name, 1000, 1 + i * 1e-3) for i, name in enumerate(("auto", "compile", "eager", "torch", "apex"))
    ]
    heights = sorted(text.get_position()[1] for text in bench_times(rows).axes[0].texts)
    assert all(above - below > 0.07 for below, above in itertools.pairwise(heights))
    assert 0 <= heights[0] <= heights[-1] <= 1


@pytest.mark.parametrize("rows", [[], [row("auto", 1000, "", limit_s="")]])
def test_figure_of_nothing(rows):
    (ax,) = bench_times(rows).axes
    assert [text.get_text() for text in ax.texts] == ["nothing measured"]


# The command

SMALL = shlex.split("--sizes 800 --targets dense --seconds 0.01 --rounds 2 --device cpu")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help():
    done = detloss("bench", "--help")
    assert done.status == 0
    assert all(f"--{name}" in done.out for name in ("losses", "sizes", "variants", "dtype", "out", "quick"))
    assert "  detloss bench " in detloss("--help").out


def test_command(here, no_torchvision):
    done = detloss("bench", *SMALL, "--losses", "focal", "giou", "--variants", "eager", "torchvision")
    assert done.status == 0, done.err
    assert done.folder == Path("runs/bench-001")
    files = {"results.csv", "config.json", "versions.json", "times.png", "times.svg"}
    assert {file.name for file in done.folder.iterdir()} == files
    assert [r["variant"] for r in read_csv(done.folder / "results.csv")] == [
        "eager",
        "torchvision",
        "clone",
    ] * 2
    assert "focal, dense targets, float32: times as fast as eager" in done.out
    assert done.out.count("torchvision is not installed") == 1
    assert done.out.count("50 %: ") == 1

    again = detloss("bench", "--config", done.folder, "--losses", "giou")
    assert again.status == 0, again.err
    assert read_json(again.folder / "config.json") == read_json(done.folder / "config.json") | {
        "losses": ["giou"]
    }
    refused(detloss("bench", *SMALL, "--out", again.folder), "holds results already, which are kept")


def test_quick_and_what_else_is_said():
    quick = parse_bench(["--quick", "--variants", "eager"]).settings
    assert (quick.losses, quick.variants, max(quick.sizes)) == (("focal",), ("eager",), 1e6)
    assert parse_bench(["--quick", "--losses", "ciou"]).settings.losses == ("ciou",)
    assert parse_bench(["--sizes", "1e3", "2e5"]).settings.sizes == (1000, 200_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--losses focl", "losses has 'focl'"),
        ("--sizes many", "--sizes.*'many'"),
        ("--dtype int8", "'int8'.*float32"),
        ("--device gpu", "device is 'gpu'"),
        ("--config nothere.json", "nothere.json: No such file"),
    ],
)
def test_mistakes(here, arguments, message):
    refused(detloss("bench", *arguments.split()), message)
    assert not any(here.iterdir())


def test_a_failure_is_the_exit_status(here, monkeypatch):
    def broken(inputs, targets):
        raise RuntimeError("no")

    monkeypatch.setattr(peers, "focal_snippet", broken)
    done = detloss("bench", *SMALL, "--losses", "focal", "--variants", "snippet", "eager")
    assert done.status == 1
    assert "1 of 3 measurements failed; runs/bench-001/results.csv says why" in done.err
    assert "snippet: failed: RuntimeError: no" in done.out


def test_interrupted(here, monkeypatch):
    told = []

    def stop(self, *arguments, **more):
        told.append(1)
        if len(told) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **more)

    original = measure
    monkeypatch.setattr("detloss.lab.bench.run.measure", stop)
    done = detloss("bench", *SMALL, "--losses", "focal", "giou", "--variants", "eager")
    assert done.status == 130
    assert done.err == "interrupted; what was measured before is in runs/bench-001/results.csv\n"
    assert [r["loss"] for r in read_csv(here / "runs/bench-001/results.csv")] == ["focal", "focal"]


# benchmarks/bars.py


@pytest.fixture(scope="module")
def bars():
    spec = importlib.util.spec_from_file_location("bars", ROOT / "benchmarks" / "bars.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_c_loop_is_the_focal_loss(bars, tmp_path):
    loop = bars.c_loop(tmp_path)
    for count in (1, 80, 4096, 10_007):
        x = (torch.randn(count, generator=torch.Generator().manual_seed(count)) * 5).requires_grad_()
        t = torch.rand(count, generator=torch.Generator().manual_seed(0))
        value, gradient = loop(x.detach(), t)
        wide = x.detach().double().requires_grad_()
        expected = sigmoid_focal_loss(wide, t.double(), reduction="sum")
        assert value == pytest.approx(expected.item(), rel=1e-5)
        assert_close(gradient.double(), torch.autograd.grad(expected, wide)[0], rtol=1e-4, atol=1e-6)


def test_a_bar_is_met_or_not(bars):
    assert bars.Bar("", 20.0, at_least=20).met == "yes"
    assert bars.Bar("", 19.9, at_least=20).met == "no"
    assert bars.Bar("", 1.05, at_most=1.05).met == "yes"
    assert bars.Bar("", 1.06, at_most=1.05).met == "no"
    assert bars.Bar("", math.nan, at_most=1.05).met == "not measured"
    assert (bars.Bar("", 1, at_most=1.05).bar, bars.Bar("", 1, at_least=20).bar) == ("≤ 1.05", "≥ 20")


def test_bars_that_cannot_be_measured_say_why(bars, tmp_path, monkeypatch, no_torchvision):
    out = tmp_path / "bars.csv"
    monkeypatch.setattr("sys.argv", ["bars.py", "--quick", "--only", "gpu_focal", "boxes", "--out", str(out)])
    bars.main()
    rows = read_csv(out)
    assert [(r["what"], r["met"], r["note"]) for r in rows] == [
        ("gpu_focal", "not measured", "needs a GPU: --device cuda"),
        ("boxes", "not measured", "torchvision is not installed"),
    ]
    assert all(r["torch"] and r["cpu"] for r in rows)


@pytest.mark.parametrize(("name", "count"), [("gpu_focal", 2), ("gpu_large", 2), ("gpu_linear", 1)])
def test_bars_of_a_gpu_can_be_counted(bars, name, count, monkeypatch):
    """Their code, at sizes for a CPU: nothing in it needs a GPU but what it measures."""
    monkeypatch.setattr(bars, "_needs_cuda", lambda setting: None)
    monkeypatch.setattr(
        peers, "imported", lambda module: SimpleNamespace(sigmoid_focal_loss=sigmoid_focal_loss)
    )
    peers.torchvision_loss.cache_clear()
    found = list(bars.GROUPS[name](bars.Setting(CPU, 0.0, 1, part=1e-5)))
    peers.torchvision_loss.cache_clear()
    assert len(found) == count
    if name == "gpu_large":
        assert [bar.met for bar in found] == ["yes", "yes"]
