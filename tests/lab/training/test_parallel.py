"""One training over several real processes is that of one process, to rounding; so is a batch in parts."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detloss.lab import ranks
from detloss.lab.data.batches import training_batch
from detloss.lab.runs import read_json
from detloss.lab.training.parallel import parts
from detloss.lab.training.state import Training
from helpers.commands import NETWORK, SCENES, TINY
from helpers.own_detector import OWN
from helpers.rank_program import CASES, RECIPE, case, data, evaluate, in_float64, train_for
from helpers.ranks import PROGRAM, on_ranks, passed, torchrun


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Losses, gradients and weights; in float64, so that 20 steps cannot make a rounding large."""
    for row, same in zip(one["rows"], other["rows"], strict=True):
        assert row == pytest.approx(same, rel=1e-9, abs=1e-12, nan_ok=True)
    for gradient, same in zip(one["gradients"], other["gradients"], strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-9, atol=1e-9 * float(same.norm()))
    for kind in ("weights", "average"):
        assert one[kind].keys() == other[kind].keys()
        for name, value in one[kind].items():
            torch.testing.assert_close(value, other[kind][name], rtol=1e-8, atol=1e-9, msg=name)


def over(world: int, folder: Path, steps: int, *names: str, accumulate: int = 1, resumed: str = "") -> list:
    """What each of several processes ends with."""
    passed(on_ranks(world, [PROGRAM, folder, steps, accumulate, resumed, *names]))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def alone(name: str, steps: int, **changes: Any) -> dict[str, Any]:
    with in_float64():
        return train_for(case(name, **changes), steps)


def positives(step: int, world: int, monkeypatch) -> list[int]:
    """Objects of each process's part of a batch."""
    found = []
    for rank in range(world):
        with monkeypatch.context() as patch:
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            patch.setattr(ranks, "world", lambda: world)
            (part,) = parts(RECIPE)
        batch = training_batch(data(), step, RECIPE.batch, 0, RECIPE.augment, part)
        found.append(int((batch.labels >= 0).sum()))
    return found


class TestParts:
    @pytest.mark.parametrize(("batch", "world", "accumulate"), [(5, 2, 1), (5, 4, 1), (16, 3, 5), (7, 1, 3)])
    def test_each_image_once_in_even_parts(self, monkeypatch, batch: int, world: int, accumulate: int):
        recipe = replace(RECIPE, batch=batch, accumulate=accumulate)
        monkeypatch.setattr(ranks, "world", lambda: world)
        sizes, taken = [], []
        for rank in range(world):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            own = parts(recipe)
            assert len(own) == accumulate
            taken += [image for part in own for image in part]
            sizes.append(sum(map(len, own)))
            assert max(map(len, own)) - min(map(len, own)) <= 1
            assert min(map(len, own)) >= 1
        assert taken == list(range(batch))
        assert max(sizes) - min(sizes) <= 1

    def test_too_few_images(self, monkeypatch):
        monkeypatch.setattr(ranks, "world", lambda: 3)
        with pytest.raises(ValueError, match=r"batch is 5; with accumulate 2 and 3 processes .* at least 6"):
            parts(replace(RECIPE, accumulate=2))

    def test_a_part_holds_the_images_of_the_whole_batch(self):
        whole = training_batch(data(), 1, 5, 0, RECIPE.augment)
        part = training_batch(data(), 1, 5, 0, RECIPE.augment, range(2, 5))
        np.testing.assert_array_equal(part.images, whole.images[2:])
        assert part.ids == whole.ids[2:]


class TestSeveralProcesses:
    def test_two_train_and_evaluate_as_one(self, tmp_path: Path, monkeypatch):
        counts = [positives(step, 2, monkeypatch) for step in range(3)]
        assert any(0 in one and sum(one) > 0 for one in counts)  # a process without positives
        both = over(2, tmp_path, 3, "quality_focal")
        expected = alone("quality_focal", 3)
        for one in both:
            alike(one["quality_focal"], expected)
            assert one["evaluation"]["evaluation"] == evaluate()["evaluation"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("world", "names"),
        [(2, [name for name in CASES if name != "own"]), (4, ["varifocal, guided", "yolov2"])],
    )
    def test_twenty_steps(self, tmp_path: Path, world: int, names: list[str], monkeypatch):
        counts = [positives(step, world, monkeypatch) for step in range(20)]
        assert any(0 in one and sum(one) > 0 for one in counts)
        assert any(sum(one) == 0 for one in counts)
        results, whole = over(world, tmp_path, 20, *names), evaluate()
        for name in names:
            expected = alone(name, 20)
            for one in results:
                alike(one[name], expected)
        for one in results:
            assert one["evaluation"]["evaluation"] == whole["evaluation"]
            for found, same in zip(one["evaluation"]["detections"], whole["detections"], strict=True):
                np.testing.assert_array_equal(found, same)

    @pytest.mark.slow
    def test_parts_on_each_of_two(self, tmp_path: Path):
        names = ["group norm", "group norm, score, guided"]
        for one in over(2, tmp_path, 20, *names, accumulate=2):
            for name in names:
                alike(one[name], alone(name, 20))

    @pytest.mark.slow
    def test_a_detector_of_others_that_divides_by_what_all_have(self, here):
        everywhere = "global_normalizer(len(where), 1 / distributed.get_world_size() if several else 1)"
        own = OWN.replace(
            "count = max(1, len(where))", f"several = distributed.is_initialized(); count = {everywhere}"
        )
        imports = "from torch import distributed\nfrom detloss.balance import global_normalizer\n"
        (here / "own.py").write_text(imports + own)
        for one in over(2, here, 20, "own"):
            alike(one["own"], alone("own", 20))

    @pytest.mark.slow
    def test_a_detector_of_others_that_divides_by_its_own(self, here):
        (here / "own.py").write_text(OWN)
        one, other = over(2, here, 6, "own")
        for name, value in one["own"]["weights"].items():
            assert torch.equal(value, other["own"]["weights"][name])
        for row, same in zip(one["own"]["rows"], other["own"]["rows"], strict=True):
            assert row == pytest.approx(same, rel=1e-12, nan_ok=True)
        assert all(row["loss"] > 0 for row in one["own"]["rows"])

    @pytest.mark.slow
    def test_what_one_process_began_two_go_on_with(self, tmp_path: Path):
        with in_float64():
            state = Training(case("focal"), data())
            for _ in range(4):
                state.step()
            state.save(tmp_path / "begun")
        expected = alone("focal", 8)
        for one in over(2, tmp_path, 4, "focal", resumed=str(tmp_path / "begun")):
            rest = {name: expected[name][4:] for name in ("rows", "gradients")}
            alike(one["focal"], expected | rest)


class TestAccumulation:
    @pytest.mark.parametrize(
        ("name", "accumulate"),
        [("group norm", 2), ("group norm, score, guided", 3), ("group norm, random mining", 2)],
    )
    def test_twenty_steps(self, name: str, accumulate: int):
        alike(alone(name, 20, accumulate=accumulate), alone(name, 20))

    @pytest.mark.parametrize("name", ["focal", "varifocal, guided"])
    def test_batch_norm_sees_a_part_and_remembers_each_once(self, name: str):
        state = Training(case(name, accumulate=2), data())
        seen: list[int] = []
        state.detector.network.pyramid.register_forward_pre_hook(
            lambda _, images: seen.append(len(images[0]))
        )
        state.step()
        # With box weights or guided balance, the whole batch is looked at first, to know what to divide by.
        assert seen == ([2, 3] if name == "focal" else [2, 3, 2, 3])
        counted = [v for k, v in state.detector.state_dict().items() if k.endswith("num_batches_tracked")]
        assert counted
        assert all(value == 2 for value in counted)


def last_line(text: str) -> str:
    return text.splitlines()[-1]


@pytest.mark.slow
class TestCommand:
    def test_torchrun_trains_one_run(self, here):
        done = torchrun(2, "train", *TINY, "--batch", 3, "--steps", 4)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        assert [path.name for path in (here / "runs").iterdir()] == ["train-001"]
        assert last_line(done.stdout) == "runs/train-001"
        assert done.stdout.count("training and") == done.stdout.count("step 4:") == 1  # rank 0 alone speaks
        out = here / "runs" / "train-001"
        assert read_json(out / "versions.json")["processes"] == 2
        with (out / "log.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if "curves" not in path.name}
        again = torchrun(2, "train", *TINY, "--batch", 3, "--steps", 4, "--out", out)
        assert again.returncode == 0, again.stderr
        after = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if "curves" not in path.name}
        assert after == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["compare", "--quick"], "detloss compare: starts a process for each .* --engine and --workers"),
            (["train", "--lr", "-1"], "detloss train: lr is -1.0; it must be a positive number"),
            (["train", *TINY, "--batch", "1"], "detloss train: batch is 1; .* 2 processes .* at least 2"),
        ],
    )
    def test_one_line_says_why_not(self, here, arguments: list[str], message: str):
        done = torchrun(2, *arguments)
        assert done.returncode != 0
        lines = [line for line in done.stderr.splitlines() if line.startswith("detloss ")]
        lines = [line for line in lines if line != "detloss FAILED"]  # torchrun's
        assert len(lines) == 1, done.stderr
        assert re.match(message + r".* \(rank \d of 2\)$", lines[0]), lines
        assert not (here / "runs").exists()


FAILING = """
import os, sys
from detloss.lab import ranks
from detloss.lab.cli.main import main
from detloss.lab.training import train as module

def failing(*arguments, **keywords):
    if ranks.rank() == {rank}:
        {what}
    return real(*arguments, **keywords)

real, module.evaluate_on = module.evaluate_on, failing
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "what", "status", "message"),
    [
        (1, "raise ValueError('image 7 is damaged')", 2, "detloss train: image 7 is damaged (rank 1 of 2)\n"),
        (0, "raise OSError('disk full')", 1, "disk full; what was finished before is kept (rank 0 of 2)\n"),
        (1, "raise KeyError('a bug')", 1, "KeyError: 'a bug'\n"),
        (1, "os._exit(9)", 9, ""),
    ],
)
def test_a_process_that_fails_ends_all(here, rank: int, what: str, status: int, message: str):
    program = FAILING.format(rank=rank, what=what)
    ended = on_ranks(2, ["-c", program, "train", *SCENES, *NETWORK, "--steps", "2"])
    code, _, err = ended[rank]
    assert code == status
    assert err.endswith(message)
    code, _, err = ended[1 - rank]
    assert code == 1
    assert "Traceback" not in err
    if rank == 0:  # which keeps, without torchrun, what the other would look up
        return
    known = "os._exit" not in what
    assert err == ("" if known else f"detloss: another process of this training is gone {GONE}\n")


GONE = "and could not say why (killed? out of memory?); what was saved before is kept (rank 0 of 2)"
