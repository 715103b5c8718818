"""A comparison from the command to its folder: fair, continued where it stopped, honest about failures."""

import csv
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detloss.lab.compare import comparison as module
from detloss.lab.compare.command import open_comparison
from detloss.lab.compare.comparison import Comparison, compare
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.jobs import SWEEP_SEED, Job, Outcome, hold_out, run_job
from detloss.lab.compare.prepare import prepare
from detloss.lab.data import SceneConfig, fingerprint
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.records import load_config
from detloss.lab.runs import WrongFolder, read_csv, read_json, write_json
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.splits import open_data
from detloss.lab.training.state import Training
from helpers.commands import TINY, Done, detloss, refused

HEADER = "classification_loss,box_loss,seed,ap,ap50,ap75,ece,seconds,peak_memory_mb"
PAIRS = (("bce", "giou"), ("focal,gamma=1.5", "ciou"))
COMMAND = [
    "--losses",
    "bce",
    "focal,gamma=1.5+ciou",
    "--seeds",
    "2",
    "--workers",
    "2",
    *TINY,
]
RECIPE = Recipe(
    scenes=SceneConfig(size=32, object_size=(8, 16), train=8, val=4),
    size=32,
    batch=2,
    steps=3,
    evaluations=1,
    detector=DetectorConfig(width=8, channels=8),
    device="cpu",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Done:
    """What a whole comparison printed: a sweep and two seeds of two pairs."""
    return detloss("compare", "--out", tmp_path_factory.mktemp("compare") / "out", *COMMAND)


@pytest.fixture(scope="module")
def out(told) -> Path:
    """Its folder."""
    assert told.status == 0, told.err
    return told.folder


def run_folders(out: Path) -> dict[tuple[str, int], Path]:
    return {
        ("+".join(pair), seed): out / "runs" / "+".join(pair) / f"seed-{seed}"
        for pair, seed in itertools.product(PAIRS, (0, 1))
    }


# What is asked


def test_pairs():
    config = CompareConfig(
        losses=("bce", "focal+ciou", "bce", "focal,gamma=1.5"), box_losses=("giou", "eiou")
    )
    assert config.pairs == [
        ("bce", "giou"),
        ("bce", "eiou"),
        ("focal", "ciou"),
        ("focal,gamma=1.5", "giou"),
        ("focal,gamma=1.5", "eiou"),
    ]
    summed = CompareConfig(losses=("focal+giou+0.4*l1", "bce"), box_losses=("giou+0.4*l1",))
    assert summed.pairs == [("focal", "giou+0.4*l1"), ("bce", "giou+0.4*l1")]


def test_what_is_tried():
    config = CompareConfig(lrs=(0.1, 0.2), box_weights=(1.0, 2.0))
    assert (config.axes, config.trials) == (((0.1, 0.2), (1.0, 2.0)), 3)
    fixed = replace(config, lr=0.3)
    assert (fixed.axes, fixed.trials) == (((0.3,), (1.0, 2.0)), 2)
    fixed = replace(fixed, box_weight=4.0)
    assert (fixed.axes, fixed.trials) == (((0.3,), (4.0,)), 0)
    assert all(len(values) == 3 for values in CompareConfig().axes)


# What it leaves


def test_results(out):
    assert (out / "results.csv").read_text().startswith(HEADER + ",")
    rows = read_csv(out / "results.csv")
    assert [(r["classification_loss"], r["box_loss"], r["seed"]) for r in rows] == [
        (*pair, seed) for pair, seed in itertools.product(PAIRS, "01")
    ]
    for row, folder in zip(rows, run_folders(out).values()):
        metrics, config = read_json(folder / "metrics.json"), load_config(TrainConfig, folder)
        assert float(row["ap"]) == metrics["ap"]
        assert 0 <= metrics["ap"] <= metrics["ap50"] <= 1
        assert float(row["seconds"]) == metrics["seconds"] > 0
        assert float(row["peak_memory_mb"]) > 50
        assert (float(row["lr"]), float(row["box_weight"])) == (config.lr, config.box_weight)
        assert (config.loss, config.box_loss, str(config.seed)) == tuple(row.values())[:3]


def test_folder(told, out):
    assert read_json(out / "data.json")["negatives_per_positive"] > 1
    assert {"torch", "detloss", "workers", "threads"} <= read_json(out / "versions.json").keys()
    assert "negatives per positive" in " ".join(told.out.split())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "focal,gamma=1.5" in page
    assert any((out / "figures").glob("*.png"))


def test_sweep_is_written(out):
    rows = read_csv(out / "sweep.csv")
    config = load_config(CompareConfig, out)
    for pair in PAIRS:
        mine = [r for r in rows if (r["classification_loss"], r["box_loss"]) == pair]
        tried = [(float(r["lr"]), float(r["box_weight"])) for r in mine]
        assert len(tried) == len(set(tried)) == config.trials == 5
        assert all({*axis} == {*values} for axis, values in zip(config.axes, zip(*tried)))
        chosen = [(float(r["lr"]), float(r["box_weight"])) for r in mine if r["chosen"] == "1"]
        used = load_config(TrainConfig, out / "runs" / "+".join(pair) / "seed-0")
        assert chosen == [(used.lr, used.box_weight)]
        best = max(float(r["ap"]) for r in mine)
        assert [float(r["ap"]) for r in mine if r["chosen"] == "1"] == [best]
    # a candidate's weights are of no use
    assert not list((out / "sweep").rglob("*.pt"))


def test_config_makes_the_same_comparison(out):
    assert load_config(CompareConfig, out) == CompareConfig(
        losses=("bce", "focal,gamma=1.5+ciou"), seeds=2, workers=2, **RECIPE.shared()
    )


# Fair


def test_only_the_loss_differs(out):
    configs = {key: read_json(folder / "config.json") for key, folder in run_folders(out).items()}
    for config in configs.values():
        for name in ("loss", "box_loss", "lr", "box_weight"):
            del config[name]
    assert configs["bce+giou", 0] == configs["focal,gamma=1.5+ciou", 0]
    assert configs["bce+giou", 1] == configs["focal,gamma=1.5+ciou", 1] != configs["bce+giou", 0]


def test_a_seed_has_the_same_batches_for_every_loss(out):
    # ATSS assigns by boxes alone, so that positives tell the batches
    positives = {
        key: [row["positives"] for row in read_csv(folder / "log.csv")]
        for key, folder in run_folders(out).items()
    }
    assert positives["bce+giou", 0] == positives["focal,gamma=1.5+ciou", 0]
    assert positives["bce+giou", 1] == positives["focal,gamma=1.5+ciou", 1] != positives["bce+giou", 0]


def test_a_seed_has_the_same_initial_weights_for_every_loss():
    data = Letterboxed(open_data(RECIPE)[0], RECIPE.size)

    def weights(loss: str, box_loss: str, seed: int) -> dict[str, torch.Tensor]:
        config = TrainConfig(loss, box_loss, seed=seed, **RECIPE.shared())
        return Training(config, data).detector.state_dict()

    first = weights("bce", "giou", 3)
    for loss, box_loss in (("focal", "ciou"), ("quality_focal", "iou"), ("softmax_focal", "giou")):
        other = weights(loss, box_loss, 3)
        assert other.keys() == first.keys()
        # a softmax has one logit more, for the background
        same = [name for name in first if first[name].shape == other[name].shape]
        assert len(first) - len(same) == (2 if loss == "softmax_focal" else 0)
        assert all(torch.equal(first[name], other[name]) for name in same), loss
    different = weights("bce", "giou", 4)
    assert not all(torch.equal(first[name], different[name]) for name in first)


def test_the_sweep_never_sees_the_validation_split(tmp_path, monkeypatch):
    seen = []

    def spy(config, training, validation, out, *callbacks):
        ids = [{d.dataset.annotation(i).id for i in range(len(d))} for d in (training, validation)]
        seen.append((config.seed, *ids))
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text('{"ap": 0.5}')

    monkeypatch.setattr("detloss.lab.compare.jobs.train", spy)
    state = Comparison(CompareConfig(losses=("bce", "focal"), held_out=0.25, **RECIPE.shared()), tmp_path)
    state.chosen = dict.fromkeys(state.config.pairs, (0.01, 2.0))
    for job in [*state.trials_of(("bce", "giou"), [(0.1, 2.0), (0.2, 2.0)]), *state.final_jobs()[:1]]:
        run_job(job, lambda value: None)
    training, validation = ({s.id for s in split} for split in open_data(RECIPE))
    (seed, learned, judged), second, final = seen
    assert (seed, learned, judged) == second
    assert seed == SWEEP_SEED not in range(state.config.seeds)
    assert learned | judged == training
    assert not learned & judged
    assert len(judged) == 2
    assert final == (0, training, validation)
    assert not training & validation


def test_a_trial_of_the_sweep_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def die_at_step_5(message: tuple[str, float]) -> None:
        if message == ("step", 5):
            raise Killed

    made, step = [], Training.step
    monkeypatch.setattr(Training, "step", lambda self: made.append(self.step_count) or step(self))
    recipe = replace(RECIPE, steps=6, checkpoint_minutes=1e-9)
    job = Job(TrainConfig(**recipe.shared()), tmp_path / "trial", 0.25)
    with pytest.raises(Killed):
        run_job(job, die_at_step_5)
    assert (job.folder / "last.pt").exists()
    outcome = run_job(job, lambda message: None)
    assert made == [0, 1, 2, 3, 4, 4, 5]
    assert outcome.ap == run_job(replace(job, folder=tmp_path / "whole"), lambda message: None).ap
    assert not list(job.folder.glob("*.pt"))


def test_hold_out_of_too_few_images():
    one = open_data(RECIPE)[0].select([0])
    with pytest.raises(ValueError, match="has 1 images; a sweep needs 2: fix lr and box_weight"):
        hold_out(one, 0.2)


@pytest.mark.parametrize(
    ("weights", "one_rate", "tried"),
    [
        ((1.0, 3.0, 9.0), None, [(0.1, 3), (0.2, 3), (0.3, 3), ("best", 1), ("best", 9)]),
        ((3.0, 1.0), None, [(0.1, 1), (0.2, 1), (0.3, 1), ("best", 3)]),
        ((1.0,), None, [(0.1, 1), (0.2, 1), (0.3, 1)]),
        ((9.0, 1.0, 3.0), 0.2, [("best", 9), ("best", 1), ("best", 3)]),
    ],
)
def test_rates_are_tried_at_the_middle_weight_and_weights_at_the_best_rate(
    tmp_path, monkeypatch, weights, one_rate, tried
):
    """AP by a formula: bce wants the largest rate and weight, focal the smallest."""

    def measured(pair: tuple[str, str], lr: float, weight: float) -> float:
        return (lr + weight) / 10 if pair[0] == "bce" else 1 - (lr + weight) / 10

    def fake(state: Comparison, jobs: list[Job]):
        for job in jobs:
            ap = measured(job.pair, job.config.lr, job.config.box_weight)
            yield job, Outcome({"ap": ap, "seconds": 1.0})

    monkeypatch.setattr(module, "_run", fake)
    monkeypatch.setattr(module, "_add_result", lambda *arguments: None)
    config = CompareConfig(
        losses=("bce", "focal"), lr=one_rate, lrs=(0.2, 0.1, 0.3), box_weights=weights, **RECIPE.shared()
    )
    state = Comparison(config, tmp_path)
    list(compare(state))
    rates = {"bce": one_rate or 0.3, "focal": one_rate or 0.1}
    largest, smallest = max(weights), min(weights)
    assert state.chosen == {
        ("bce", "giou"): (rates["bce"], largest),
        ("focal", "giou"): (rates["focal"], smallest),
    }
    rows = read_csv(tmp_path / "sweep.csv")
    for loss, best in rates.items():
        mine = [(float(r["lr"]), float(r["box_weight"])) for r in rows if r["classification_loss"] == loss]
        assert sorted(mine) == sorted((best if lr == "best" else lr, weight) for lr, weight in tried)
    assert sum(r["chosen"] == "1" for r in rows) == 2
    assert state.steps_planned == 2 * (len(tried) + 3) * RECIPE.steps


# Scenes


def scenes_of(state: Comparison) -> dict[int, list[set[bytes]]]:
    """The training and validation images of each seed, the same for all its losses."""
    found: dict[int, list[set[bytes]]] = {}
    for job in state.final_jobs():
        images = [{sample.image.tobytes() for sample in split} for split in open_data(job.config)]
        assert found.setdefault(job.config.seed, images) == images
    return found


@pytest.mark.parametrize("same", [False, True])
def test_scenes_of_the_seeds(tmp_path, monkeypatch, same):
    monkeypatch.setenv("DETLOSS_CACHE", str(tmp_path))
    recipe = replace(RECIPE, scenes=replace(RECIPE.scenes, same=same))
    asked = CompareConfig(losses=("bce", "focal"), seeds=3, **recipe.shared())
    config, training, validation = open_comparison(asked)
    assert config == asked
    state = Comparison(config, tmp_path)
    state.chosen = dict.fromkeys(config.pairs, (0.01, 2.0))
    # All are drawn by now, none is drawn by a run.
    monkeypatch.setattr("detloss.lab.data.synthetic.draw_scene", None)
    images = scenes_of(state)
    assert len(list(tmp_path.glob("*.npy"))) == (2 if same else 6)
    assert images[0] == [{sample.image.tobytes() for sample in split} for split in (training, validation)]
    sets = [split for seed in images.values() for split in seed]
    if same:
        assert images[0] == images[1] == images[2]
    else:
        assert len(set().union(*sets)) == sum(map(len, sets)) == 3 * (8 + 4)
    for job in state.trials_of(("bce", "giou"), [(0.01, 2.0)]):
        assert {sample.image.tobytes() for sample in open_data(job.config)[0]} == images[0][0]


def test_a_folder_from_before_each_seed_had_scenes_of_its_own_goes_on(tmp_path):
    command = [*COMMAND, "--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--out", tmp_path / "old"]
    old = detloss("compare", *command, "--scenes.same").folder
    for file in old.rglob("config.json"):
        content = read_json(file)
        assert content["scenes"].pop("same") in (True, False)
        write_json(file, content)
    before = stamps(old)
    refused(detloss("compare", *command), "another configuration")
    done = detloss("compare", "--out", old, "--config", old, "--seeds", "2")
    assert done.status == 0, done.err
    assert before.items() <= stamps(old).items()
    first, second = (load_config(TrainConfig, old / "runs" / "bce+giou" / f"seed-{k}") for k in (0, 1))
    assert first.scenes == second.scenes


# Continued, not repeated


def stamps(out: Path) -> dict[str, int]:
    return {
        str(f.relative_to(out)): f.stat().st_mtime_ns
        for f in out.rglob("*")
        if "seed-" in str(f) or "lr-" in str(f)
    }


@pytest.fixture
def copy(out, tmp_path) -> Path:
    """A copy of the comparison that a test may damage."""
    shutil.copytree(out, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_second_call_repeats_nothing(copy):
    before, results = stamps(copy), (copy / "results.csv").read_bytes()
    assert detloss("compare", "--out", copy, *COMMAND).status == 0
    assert stamps(copy) == before
    assert (copy / "results.csv").read_bytes() == results


def test_only_what_is_missing_is_repeated(copy):
    before, rows = stamps(copy), read_csv(copy / "results.csv")
    lost = copy / "runs" / "bce+giou" / "seed-1"
    shutil.rmtree(lost)
    assert detloss("compare", "--out", copy, "--config", copy).status == 0
    changed = {name for name, stamp in stamps(copy).items() if before[name] != stamp}
    assert changed
    assert all(name.startswith(str(lost.relative_to(copy))) for name in changed), changed
    # ... and comes to the same
    timing = ("seconds", "peak_memory_mb")
    for old, new in zip(rows, read_csv(copy / "results.csv"), strict=True):
        assert {k: v for k, v in old.items() if k not in timing} == {
            k: v for k, v in new.items() if k not in timing
        }


def test_an_interrupted_comparison_continues(tmp_path):
    config = CompareConfig(losses=("bce",), seeds=2, lr=0.01, box_weight=2.0, workers=1, **RECIPE.shared())
    state = Comparison(config, tmp_path)
    running = compare(state)
    next(None for _ in running if state.results)
    running.close()
    first = tmp_path / "runs" / "bce+giou" / "seed-0" / "metrics.json"
    stamp = first.stat().st_mtime_ns
    state = Comparison(config, tmp_path)
    list(compare(state))
    assert [row["seed"] for row in state.results] == [0, 1]
    assert first.stat().st_mtime_ns == stamp
    assert state.steps_done == state.steps_planned == 6
    # both given: there is nothing to tune
    assert not (tmp_path / "sweep").exists()
    assert read_csv(tmp_path / "sweep.csv") == []
    assert {(row["lr"], row["box_weight"]) for row in state.results} == {(0.01, 2.0)}


def test_another_comparison_is_refused(copy):
    before = {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()}
    refused(detloss("compare", "--out", copy, *COMMAND, "--steps", "5"), "another configuration")
    assert {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()} == before


def test_a_comparison_of_other_data_is_refused(copy):
    data = read_json(copy / "data.json")
    write_json(copy / "data.json", {**data, "val": {**data["val"], "objects": 1000}})
    refused(detloss("compare", "--out", copy, *COMMAND), "the data is not what")


@pytest.mark.parametrize("content", ["", "[]", '{"ap": 0.5}'])
def test_metrics_that_are_none_are_named_and_made_anew_when_removed(copy, content):
    rows = read_csv(copy / "results.csv")
    file = copy / "runs" / "bce+giou" / "seed-1" / "metrics.json"
    file.write_text(content)
    why = "(is damaged .*|holds no metrics of a run); remove it, and the same command makes it anew"
    refused(detloss("compare", "--out", copy, *COMMAND), rf"seed-1/metrics\.json {why}")
    file.unlink()
    assert detloss("compare", "--out", copy, *COMMAND).status == 0
    cost = {"seconds": 0, "peak_memory_mb": 0}
    assert [r | cost for r in read_csv(copy / "results.csv")] == [r | cost for r in rows]


def test_more_seeds_and_other_workers_go_on(copy):
    kept = copy / "runs" / "bce+giou" / "seed-0" / "metrics.json"
    before = kept.stat().st_mtime_ns
    done = detloss("compare", "--out", copy, *COMMAND, "--seeds", "3", "--workers", "1")
    assert done.status == 0, done.err
    assert kept.stat().st_mtime_ns == before
    assert {r["seed"] for r in read_csv(copy / "results.csv")} == {"0", "1", "2"}


def test_a_folder_of_another_command_is_refused(tmp_path):
    write_json(tmp_path / "config.json", {"loss": "focal"})
    refused(detloss("compare", "--out", tmp_path, *COMMAND), "holds no comparison")


def test_no_object_to_find(tmp_path):
    refused(detloss("compare", "--out", tmp_path / "out", *TINY, "--scenes.empty", "1"), "has no objects")
    assert not (tmp_path / "out").exists()


def test_all_runs_diverge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def nan_when_trained(logits, targets):\n"
        "    return (logits - targets) ** 2 * (1 if len(logits) == 1 else float('nan'))\n"
    )
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--out", "out"]
    done = detloss("compare", "--losses", "mine.py:nan_when_trained", *fixed, *TINY)
    assert done.status == 1
    assert "all 1 runs diverged" in done.err
    assert "not finite at step 1" in Path("out/diverged.json").read_text()


# A user's own loss, and one that fails


def test_a_diverging_loss_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def squared(logits, targets):\n"
        "    return (logits.sigmoid() - targets) ** 2\n"
        "def nan_when_trained(logits, targets):\n"
        "    return squared(logits, targets) * (1 if len(logits) == 1 else float('nan'))\n"
    )
    losses = ["bce", "mine.py:squared", "mine.py:nan_when_trained"]
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--out", "out"]
    done = detloss("compare", "--losses", *losses, *fixed, *TINY)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "nan_when_trained" in done.err
    with Path("out/results.csv").open(newline="") as file:
        assert [row["classification_loss"] for row in csv.DictReader(file)] == losses[:2]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "nan_when_trained" in page
    # a second call does not try again, and says the same
    again = detloss("compare", "--losses", *losses, *fixed, *TINY)
    assert (again.status, again.err) == (1, done.err)


def test_a_candidate_that_diverges_is_not_chosen(tmp_path, monkeypatch):
    def fake(state: Comparison, jobs: list[Job]):
        for job in jobs:
            diverged = job.config.lr == 0.2
            yield job, Outcome(None, "not finite") if diverged else Outcome({"ap": 0.1, "seconds": 1.0})

    monkeypatch.setattr(module, "_run", fake)
    monkeypatch.setattr(module, "_add_result", lambda *arguments: None)
    config = CompareConfig(losses=("bce",), lrs=(0.2, 0.1), box_weights=(2.0,), **RECIPE.shared())
    state = Comparison(config, tmp_path)
    list(compare(state))
    assert state.chosen == {("bce", "giou"): (0.1, 2.0)}
    assert [(r["lr"], r["ap"], r["seconds"]) for r in read_csv(tmp_path / "sweep.csv")] == [
        ("0.1", "0.1", "1.0"),
        ("0.2", "", ""),
    ]


def test_a_run_that_fails_for_another_reason(tmp_path, monkeypatch):
    """A loss that raises in training, not when it is tried: the reason is told, finished runs are kept."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def fails(logits, targets):\n"
        "    if len(logits) > 1:\n"
        "        raise RuntimeError('no such kernel')\n"
        "    return (logits - targets) ** 2\n"
    )
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--workers", "1", "--out", "out"]
    done = detloss("compare", "--losses", "bce", "mine.py:fails", *fixed, *TINY)
    assert done.status == 1
    assert "mine.py:fails" in done.err
    assert "no such kernel" in done.err
    assert done.err.count("\n") == 1
    assert len(read_csv(Path("out/results.csv"))) == 1


DIES = (
    "import os, signal\n"
    "from pathlib import Path\n"
    "def dies(logits, targets):\n"
    "    if len(logits) > 1 and len(list(Path().glob('died-*'))) < TIMES:\n"
    "        Path(f'died-{os.getpid()}').touch()\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
    "    return (logits - targets) ** 2\n"
)


@pytest.mark.slow
def test_a_run_whose_process_dies_is_run_once_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DIES.replace("TIMES", "1"))
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--devices", "cpu", "--out", "out"]
    done = detloss("compare", "--losses", "bce", "mine.py:dies", *fixed, *TINY)
    assert done.status == 0, done.err
    assert "mine.py:dies+giou, out/runs/mine.py_dies+giou/seed-0: its process was killed" in done.out
    assert done.out.count("it goes on from its last checkpoint") == 1
    assert len(read_csv(Path("out/results.csv"))) == 2


@pytest.mark.slow
def test_a_run_that_dies_twice_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DIES.replace("TIMES", "2"))
    fixed = ["--lr", "0.01", "--box-weight", "2", "--seeds", "1", "--devices", "cpu", "--out", "out"]
    command = ["compare", "--losses", "mine.py:dies", "bce", *fixed, *TINY]
    done = detloss(*command)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "mine.py_dies+giou/seed-0: its process was killed" in done.err
    assert "for the second time. The others are kept; the same command with --out out goes on" in done.err
    assert [row["classification_loss"] for row in read_csv(Path("out/results.csv"))] == ["bce"]
    assert "mine.py" in Path("out/report.html").read_text(encoding="utf-8")
    kept = stamps(Path("out/runs/bce+giou"))
    assert detloss(*command).status == 0
    assert len(read_csv(Path("out/results.csv"))) == 2
    assert kept
    assert stamps(Path("out/runs/bce+giou")) == kept


@pytest.mark.slow
def test_of_a_trial_that_dies_twice_the_loss_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    """No rate can be chosen for it."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DIES.replace("TIMES", "2"))
    fixed = ["--lrs", "0.01", "0.02", "--box-weight", "2", "--seeds", "1", "--devices", "cpu", "--out", "out"]
    done = detloss("compare", "--losses", "mine.py:dies", "bce", *fixed, *TINY)
    assert done.status == 1
    assert "sweep/mine.py_dies+giou/lr-0.01-box-2: its process was killed" in done.err
    rows = read_csv(Path("out/sweep.csv"))
    assert [(row["classification_loss"], row["chosen"]) for row in rows if row["chosen"] == "1"] == [
        ("bce", "1")
    ]
    assert len(rows) == 3
    assert [row["classification_loss"] for row in read_csv(Path("out/results.csv"))] == ["bce"]
    assert [folder.name for folder in Path("out/runs").iterdir()] == ["bce+giou"]
    assert "mine.py" in Path("out/report.html").read_text(encoding="utf-8")


def test_data_that_is_not_the_commands_is_refused_where_the_run_is_made(voc, tmp_path):
    recipe = replace(RECIPE, data=str(voc))
    data = open_data(recipe)
    job = Job(TrainConfig(**recipe.shared()), tmp_path / "run", 0.2, fingerprint(*data))
    assert run_job(job, lambda value: None).ap >= 0
    other = replace(job, folder=tmp_path / "other", fingerprint=fingerprint(data[0]))
    with pytest.raises(ValueError, match="is not what it is where the command runs: other images or other"):
        run_job(other, lambda value: None)
    assert not other.folder.exists()


@pytest.mark.parametrize("folds", [0, 2])
def test_the_fingerprint_of_the_data_is_that_of_each_run(voc, tmp_path, folds):
    config = CompareConfig(folds=folds, **replace(RECIPE, data=str(voc)).shared())
    config, data = prepare(config, tmp_path, *open_data(config.first_data))
    state = Comparison(config, tmp_path)
    state.chosen = dict.fromkeys(config.pairs, (0.01, 2.0))
    jobs = [*state.final_jobs(), *state.trials_of(config.pairs[0], [(0.01, 2.0)])]
    assert {fingerprint(*open_data(job.config)) for job in jobs} == {data["fingerprint"]}


def test_a_folder_from_before_data_had_a_fingerprint_goes_on(voc, tmp_path, monkeypatch):
    config = CompareConfig(**replace(RECIPE, data=str(voc)).shared())
    data = open_data(config)
    prepare(config, tmp_path / "out", *data)
    known = read_json(tmp_path / "out/data.json")
    assert known["fingerprint"] == fingerprint(*data)
    write_json(tmp_path / "out/data.json", {k: v for k, v in known.items() if k != "fingerprint"})
    prepare(config, tmp_path / "out", *data)
    assert read_json(tmp_path / "out/data.json") == known
    write_json(tmp_path / "out/data.json", known | {"fingerprint": "of other images"})
    with pytest.raises(WrongFolder, match="the data is not what"):
        prepare(config, tmp_path / "out", *data)
