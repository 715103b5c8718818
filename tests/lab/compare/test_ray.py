"""Comparisons on a Ray cluster of two nodes: the same results, a node lost, Ctrl-C. All on this machine."""

import importlib.util
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detloss.lab.compare.command import open_comparison
from detloss.lab.compare.comparison import Comparison, compare
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.prepare import prepare
from detloss.lab.data import SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.engines import JobFailed
from detloss.lab.runs import read_csv, read_json, table_rows
from detloss.lab.training.config import Recipe
from helpers import own_trainer
from helpers.commands import SCENES, TINY, detloss, refused

RECIPE = Recipe(
    scenes=SceneConfig(size=32, object_size=(8, 16), train=8, val=4),
    size=32,
    batch=2,
    steps=6,
    evaluations=3,
    detector=DetectorConfig(width=8, channels=8),
    device="cpu",
)
OWN = """
import os, time
from pathlib import Path

def told(logits, targets):
    if len(logits) > 1:  # in training, not where it is tried
        with Path("TRACE").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        for file in Path("TRACE").parent.glob("slow"):
            time.sleep(0.3)
        for file in Path("TRACE").parent.glob("kill-*"):
            file.unlink()
            os.kill(os.getpid(), 9)
    return (logits - targets) ** 2
"""


def test_without_ray_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "detloss.lab.engines.ray_tasks", raising=False)
    monkeypatch.delitem(sys.modules, "detloss.lab.engines.ray_worker", raising=False)
    done = detloss("compare", "--engine", "ray", "--out", tmp_path / "out", *TINY)
    refused(done, r"engine ray needs Ray .* detloss\[ray\]")
    assert not (tmp_path / "out").exists()


def on_ray(test: Callable[..., Any]) -> Callable[..., Any]:
    """A slow test that needs Ray."""
    absent = importlib.util.find_spec("ray") is None
    return pytest.mark.slow(pytest.mark.skipif(absent, reason="Ray is not installed: the extra ray")(test))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, where the command runs; `two_nodes` gives it nodes. Open to this machine alone."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray's switch for systems without clusters makes it listen on 127.0.0.1; read when it is imported.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        assert made.address.startswith("127.0.0.1:")
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def two_nodes(cluster: Any) -> Any:
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)
    return cluster


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder, which no node is in, with a loss that tells when it is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(OWN.replace("TRACE", str(tmp_path / "trace")))
    return tmp_path


@pytest.fixture
def not_shared(monkeypatch) -> None:
    """As if no node saw the driver's folders."""
    from detloss.lab.engines import ray_tasks

    @contextmanager
    def nowhere(folders: Any) -> Iterator[Path]:
        yield Path("/nowhere/at/all")

    monkeypatch.setattr(ray_tasks, "_mark", nowhere)


def asked(address: str = "", **changes: Any) -> CompareConfig:
    """Two losses, one seed, without a sweep; on Ray where an address is given."""
    fixed: dict[str, Any] = {"losses": ("bce", "mine.py:told"), "seeds": 1, "lr": 0.01, "box_weight": 2.0}
    where = {"engine": "ray", "address": address} if address else {"devices": ("cpu", "cpu"), "threads": 1}
    return CompareConfig(**{**RECIPE.shared(), **fixed, **where, **changes})


def made(config: CompareConfig, out: Path) -> Comparison:
    """A comparison run to its end."""
    config, *splits = open_comparison(config)
    config, _ = prepare(config, out, *splits)
    state = Comparison(config, out)
    list(compare(state))
    return state


def assert_same(found: Path, wanted: Path) -> None:
    """Every file of every run, bit for bit but for the time and memory it took."""
    names, others = (
        {p.relative_to(out) for p in out.glob("*/*/**/*") if p.is_file()} for out in (found, wanted)
    )
    assert names == others
    assert names
    for name in names:
        one, other = (content(out / name) for out in (found, wanted))
        assert repr(one) == repr(other), name


def content(file: Path) -> Any:
    """What must be equal of a file."""
    if file.suffix == ".pt":
        state = torch.load(file, weights_only=True)
        log = [{**row, "seconds": 0} for row in table_rows(state["log"])]
        return to_bytes(state | {"seconds": 0, "log": log})
    if file.suffix == ".csv":
        return [{**row, "seconds": 0} for row in read_csv(file)]
    if file.name == "metrics.json":
        return read_json(file) | {"seconds": 0, "peak_memory_mb": 0}
    return file.read_bytes()


def to_bytes(value: Any) -> Any:
    """The same with the bytes of tensors in their place."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: to_bytes(inner) for name, inner in value.items()}
    return [to_bytes(inner) for inner in value] if isinstance(value, list | tuple) else value


def calls(here: Path) -> list[str]:
    """The processes that trained with the own loss, one for each of its steps."""
    return (here / "trace").read_text().split() if (here / "trace").exists() else []


@on_ray
def test_results_are_the_local_engines_bit_for_bit(two_nodes, here, not_shared):
    """A sweep and its runs, on a data folder named by a relative path, without a folder that is shared."""
    assert detloss("scenes", "--out", "voc", "--format", "voc", *SCENES).status == 0
    changes: dict[str, Any] = {"data": "voc", "lr": None, "lrs": (0.01, 0.02), "steps": 3, "evaluations": 1}
    local = made(asked(**changes), here / "local")
    found = made(asked(two_nodes.address, **changes), here / "ray")
    assert found.chosen == local.chosen
    assert_same(here / "ray", here / "local")
    assert not list((here / "ray").rglob("*.part"))
    assert not list(here.rglob(".detloss-*"))


@on_ray
def test_a_shared_folder_is_used(two_nodes, here, monkeypatch):
    """Then nothing is sent back."""
    from detloss.lab.engines import ray_tasks

    monkeypatch.setattr(ray_tasks, "write_files", lambda folder, files: None if not files else 1 / 0)
    config = {"losses": ("bce",), "steps": 3, "evaluations": 1}
    made(asked(**config), here / "local")
    made(asked(two_nodes.address, **config), here / "ray")
    assert_same(here / "ray", here / "local")


@on_ray
def test_a_lost_node_costs_its_run_the_steps_since_the_checkpoint(two_nodes, here, not_shared):
    config = asked(two_nodes.address, losses=("mine.py:told", "bce"))
    config, *splits = open_comparison(config)
    config, _ = prepare(config, here / "ray", *splits)
    (here / "slow").touch()
    state = Comparison(config, here / "ray")
    folder, lost = here / "ray/runs/mine.py_told+giou/seed-0", None
    for _ in compare(state):
        if lost is None and (folder / "last.pt").exists():
            saved = torch.load(folder / "last.pt", weights_only=True)["step"]
            (process,) = set(calls(here))
            lost = next(n for n in two_nodes.worker_nodes if runs_on(int(process), n))
            two_nodes.remove_node(lost, allow_graceful=False)
            (here / "slow").unlink()
    assert lost is not None
    assert saved in (2, 4)
    assert len(state.notes) == 1
    assert "its node was lost; it goes on from its last checkpoint" in state.notes[0]
    assert len(state.results) == 2
    assert not state.died
    assert state.steps_done == state.steps_planned
    # The second process did what was left after the checkpoint, and no third was there.
    first, second = dict.fromkeys(calls(here))
    assert first == process
    assert calls(here).count(second) == 6 - saved
    made(replace(asked(), losses=config.losses), here / "local")
    assert_same(here / "ray", here / "local")


def runs_on(process: int, node: Any) -> bool:
    """Whether a task's process is of this node: its parent is the node's raylet."""
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    raylets = [one.process.pid for one in node.all_processes["raylet"]]
    return parent in raylets


@on_ray
def test_a_run_that_is_killed_twice_is_named_and_the_others_go_on(two_nodes, here):
    (here / "kill-1").touch()
    (here / "kill-2").touch()
    state = made(asked(two_nodes.address, losses=("mine.py:told", "bce")), here / "ray")
    assert [row["classification_loss"] for row in state.results] == ["bce"]
    assert len(state.died) == 1
    assert "mine.py_told+giou/seed-0: its process was killed" in state.died[0]
    assert len(set(calls(here))) == 2
    # the same command goes on with it
    state = made(state.config, here / "ray")
    assert len(state.results) == 2


@on_ray
def test_what_a_run_raises_is_told_with_its_node(two_nodes, here):
    (here / "mine.py").write_text(
        "def told(logits, targets):\n"
        "    if len(logits) > 1:\n"
        "        raise RuntimeError('no such kernel')\n"
        "    return (logits - targets) ** 2\n"
    )
    with pytest.raises(JobFailed, match=r"mine.py:told.*: no such kernel \(on node 127.0.0.1\)"):
        made(asked(two_nodes.address), here / "ray")


@on_ray
def test_ctrl_c_stops_the_tasks_which_leave_checkpoints(two_nodes, here):
    import ray

    (here / "slow").touch()
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--out", "out", "--engine", "ray"]
    what = ["--losses", "mine.py:told", "bce", "--address", two_nodes.address, *TINY, "--steps", "500"]
    command = [sys.executable, "-m", "detloss", "compare", *fixed, *what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: calls(here) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted; the same command with --out out continues"
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in calls(here)))
    states = [torch.load(file, weights_only=True) for file in Path("out").rglob("last.pt")]
    assert len(states) == 2
    assert all(0 < state["step"] == len(table_rows(state["log"])) < 500 for state in states)
    ray.init(two_nodes.address, ignore_reinit_error=True, logging_level="ERROR")
    until(lambda: ray.available_resources().get("CPU") == 2)


def until(holds: Callable[[], Any], seconds: float = 90) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@on_ray
def test_no_cluster_at_the_address(here, monkeypatch):
    import ray

    ray.shutdown()
    for address in ("127.0.0.1:1", "head"):
        done = detloss("compare", "--engine", "ray", "--address", address, "--out", "out", *TINY)
        refused(done, f"address is '{address}', where no Ray cluster answers .* must be HOST:PORT")
    assert not Path("out").exists()


@on_ray
def test_a_trainer_of_the_users_own_travels(two_nodes, here, not_shared, monkeypatch):
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (here / "own.py").write_text(own_trainer.OWN)
    (here / "beside.py").write_text("SCORE = 0.75\n")
    config = asked(two_nodes.address, losses=("bce", "focal"), trainer="own.py:train")
    state = made(config, here / "out")
    assert [(row["classification_loss"], row["ap"]) for row in state.results] == [("bce", 1), ("focal", 1)]
    for folder in (here / "out" / "runs").glob("*/seed-0"):
        assert "a word of the trainer" in (folder / "trainer.log").read_text()
        left = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        wanted = {"config.json", "detections.json", "matches.npz", "metrics.json", "seen.json"}
        assert left == wanted | {"trainer.log", "versions.json"}
    assert not (here / "calls.txt").exists()  # the file that ran was another one
