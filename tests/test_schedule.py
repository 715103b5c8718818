"""Schedules: their values, that nothing compiles again, and that a run goes on as if never interrupted."""

import math
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from detloss.lab.compare.jobs import folder_name
from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.runs import read_csv
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.state import Training
from detloss.lab.training.train import train
from detloss.losses import QualityFocalLoss, SigmoidFocalLoss, sample_dependent_focal_loss, sigmoid_focal_loss
from detloss.names import CLASSIFICATION_LOSSES, find_loss
from detloss.schedule import Schedule, set_scheduled

numbers = st.floats(-1e3, 1e3)


class TestValue:
    @given(st.sampled_from(["linear", "cosine", "stages"]), numbers, numbers, st.integers(2, 500))
    def test_ends_and_monotone_between(self, shape: str, first: float, last: float, steps: int):
        schedule = Schedule(shape, (first, last))
        values = [schedule.value(step, steps) for step in range(steps)]
        assert (values[0], values[-1]) == (first, last)
        slack = 1e-12 * max(abs(first), abs(last)) + sys.float_info.min  # numbers below it have fewer digits
        rising = [(b - a) * math.copysign(1, last - first) for a, b in pairwise(values)]
        assert min(rising) >= -slack
        assert schedule.value(steps + 7, steps) == last

    @given(st.sampled_from(["linear", "cosine"]), numbers, numbers, st.integers(1, 100), st.data())
    def test_formula(self, shape: str, a: float, b: float, half: int, data):
        steps = 2 * half + 1
        step = data.draw(st.integers(0, steps - 1))
        t = step / (steps - 1)
        t = t if shape == "linear" else (1 - math.cos(math.pi * t)) / 2
        assert Schedule(shape, (a, b)).value(step, steps) == pytest.approx(a + t * (b - a), abs=1e-9)
        assert Schedule(shape, (a, b)).value(half, steps) == pytest.approx((a + b) / 2, abs=1e-9)

    @given(st.lists(numbers, min_size=1, max_size=6, unique=True), st.integers(1, 200))
    def test_stages_share_the_steps(self, stages: list[float], steps: int):
        assume(steps >= len(stages))
        values = [Schedule("stages", tuple(stages)).value(step, steps) for step in range(steps)]
        assert list(dict.fromkeys(values)) == stages
        counts = [values.count(stage) for stage in stages]
        assert max(counts) - min(counts) <= 1

    def test_one_step_has_the_first_value(self):
        for shape in ("linear", "cosine", "stages"):
            assert Schedule(shape, (0.5, 2.0)).value(0, 1) == 0.5

    @pytest.mark.parametrize(("step", "steps"), [(-1, 10), (0, 0), (0, -3)])
    def test_step_errors(self, step: int, steps: int):
        with pytest.raises(ValueError, match=f"step is {step} of {steps}; step counts from 0"):
            Schedule("linear", (0, 1)).value(step, steps)

    @pytest.mark.parametrize(
        ("shape", "values", "message"),
        [
            ("square", (0, 1), "shape is 'square'; it may be linear, cosine, stages"),
            ("linear", (0,), "linear takes two values"),
            ("cosine", (0, 1, 2), "cosine takes two values"),
            ("stages", (), "stages takes at least one value"),
            ("linear", (0, math.inf), "they must be finite"),
            ("stages", (math.nan,), "they must be finite"),
        ],
    )
    def test_errors(self, shape: str, values: tuple, message: str):
        with pytest.raises(ValueError, match=message):
            Schedule(shape, values)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("linear:0:2", Schedule("linear", (0, 2))),
            ("cosine:2:0.5", Schedule("cosine", (2, 0.5))),
            ("stages:0:1:2:5", Schedule("stages", (0, 1, 2, 5))),
            ("stages:1e-1", Schedule("stages", (0.1,))),
        ],
    )
    def test_text(self, text: str, expected: Schedule):
        assert Schedule.parse(text) == expected

    @pytest.mark.parametrize("text", ["", "linear", "linear:0", "linear:a:b", "lin:0:1", "stages:", "0:2"])
    def test_errors_say_what_to_write(self, text: str):
        message = f"{text!r} is not a schedule .*; write linear:0:2, cosine:0:2 or stages:0:1:2"
        with pytest.raises(ValueError, match=message):
            Schedule.parse(text)


LOGITS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(1))


class TestModules:
    def test_each_step_has_the_value_of_its_number(self):
        module = SigmoidFocalLoss(gamma=torch.tensor(0.0), alpha=torch.tensor(0.5))
        gamma, alpha = Schedule("cosine", (0, 3)), Schedule("stages", (0.25, 0.75))
        held = module.gamma
        for step in range(5):
            set_scheduled(module, step, 5, gamma=gamma, alpha=alpha)
            expected = sigmoid_focal_loss(
                LOGITS, TARGETS, alpha.value(step, 5), gamma.value(step, 5), reduction="mean"
            )
            assert_close(module(LOGITS, TARGETS), expected)
        assert module.gamma is held

    def test_after_a_move(self):
        module = nn.Sequential(SigmoidFocalLoss(gamma=torch.tensor(0.0))).double()
        set_scheduled(module[0], 9, 10, gamma=Schedule("linear", (0, 2)))
        assert module[0].gamma == 2
        assert module[0].gamma.dtype == torch.double

    def test_a_learnt_hyperparameter_may_be_set(self):
        module = SigmoidFocalLoss(gamma=nn.Parameter(torch.tensor(1.0)))
        set_scheduled(module, 0, 2, gamma=Schedule("linear", (0.5, 2)))
        assert module.gamma == 0.5

    @pytest.mark.parametrize(
        ("module", "name", "message"),
        [
            (SigmoidFocalLoss(), "gamma", "gamma of SigmoidFocalLoss is 2.0; a schedule needs a floating"),
            (SigmoidFocalLoss(gamma=torch.tensor(0)), "gamma", "a schedule needs a floating tensor"),
        ],
    )
    def test_errors(self, module: nn.Module, name: str, message: str):
        with pytest.raises(ValueError, match=message) as caught:
            set_scheduled(module, 0, 2, **{name: Schedule("linear", (0.5, 2))})
        assert f"{name}=torch.tensor(0.5)" in str(caught.value)

    def test_the_advice_is_a_floating_tensor_where_the_values_are_integers(self):
        with pytest.raises(ValueError, match=re.escape("gamma=torch.tensor(0.0)")):
            set_scheduled(SigmoidFocalLoss(), 0, 2, gamma=Schedule("linear", (0, 2)))

    def test_what_the_loss_does_not_have(self):
        with pytest.raises(ValueError, match="QualityFocalLoss has no gamma"):
            set_scheduled(QualityFocalLoss(), 0, 2, gamma=Schedule("linear", (0.5, 2)))


class TestNothingIsCompiledAgain:
    def test_in_the_fused_pass(self, builds):
        loss = find_loss(
            "flsd,gamma_high=linear:0:3,alpha=cosine:0.25:0.75,threshold=stages:0.1:0.2",
            CLASSIFICATION_LOSSES,
            training=True,
        )
        seen = []
        for step in range(6):
            function = loss.at(step, 6).function
            value = function(LOGITS, TARGETS, impl="compile")
            numbers = {name: schedule.value(step, 6) for name, schedule in loss.schedules.items()}
            expected = sample_dependent_focal_loss(LOGITS, TARGETS, impl="eager", **numbers)
            assert_close(value, expected, rtol=1e-5, atol=1e-6)
            seen.append(len(builds))
        assert seen == [seen[0]] * 6
        assert seen[0] > 0

    def test_in_the_callers_own_compile(self):
        counter = CompileCounter()
        module = SigmoidFocalLoss(gamma=torch.tensor(0.0))
        compiled = torch.compile(module, backend=counter, fullgraph=True)
        values = []
        for step in range(5):
            set_scheduled(module, step, 5, gamma=Schedule("linear", (0, 2)))
            values.append(compiled(LOGITS, TARGETS.clamp(max=2)).item())
        assert counter.frame_count == 1
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 5


RECIPE = Recipe(
    scenes=SceneConfig(size=32, train=8, val=2, classes=2, object_size=(10.0, 16.0)), size=32,
    detector=DetectorConfig(width=4, channels=8, head_depth=1, strides=(4, 8)), steps=6, batch=4,
    evaluations=2, amp="off", device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> tuple[Letterboxed, Letterboxed]:
    return Letterboxed(scenes(RECIPE.scenes, "train"), 32), Letterboxed(scenes(RECIPE.scenes, "val"), 32)


OWN = """
from detloss.losses import sigmoid_focal_loss

def mine(logits, targets, gamma=2.0):
    return sigmoid_focal_loss(logits, targets, gamma=gamma)
"""


class TestTraining:
    @pytest.mark.parametrize(
        "loss",
        [
            "focal,gamma=linear:0:2",
            "softmax_focal,gamma=cosine:0:2,mining=hard:3",
            "quality_focal,beta=stages:0:1:2,mining=ohem3:0.5:16",
            "bce,alpha=linear:0.9:0.5,mining=ohem:0.7:32",
        ],
    )
    def test_it_trains(self, data, loss: str):
        training = Training(TrainConfig(loss=loss, **RECIPE.shared()), data[0])
        before = training.detector.state_dict()["network.class_head.weight"].clone()
        rows = [training.step() for _ in range(3)]
        assert all(math.isfinite(value) for row in rows for value in row.values())
        assert not training.detector.state_dict()["network.class_head.weight"].equal(before)

    def test_the_first_step_has_the_first_value_and_the_last_the_last(self, data):
        recipe = replace(RECIPE, steps=2)

        def losses(name: str) -> list[float]:
            training = Training(TrainConfig(loss=name, lr=1e-12, **recipe.shared()), data[0])
            return [training.step()["classification_loss"] for _ in range(2)]

        scheduled = losses("focal,gamma=linear:0.5:2")
        assert scheduled[0] == pytest.approx(losses("focal,gamma=0.5")[0], rel=1e-5)
        assert scheduled[1] == pytest.approx(losses("focal,gamma=2")[1], rel=1e-5)
        assert losses("focal,gamma=0.5")[1] != pytest.approx(scheduled[1], rel=0.01)

    @pytest.mark.parametrize("loss", ["focal,gamma=cosine:0:2,mining=random:2", "mine"])
    def test_resumed_is_uninterrupted(self, data, tmp_path: Path, loss: str):
        if loss == "mine":
            (tmp_path / "mine.py").write_text(OWN)
            loss = f"{tmp_path / 'mine.py'}:mine,gamma=stages:0:1:2,mining=random:3"
        config = TrainConfig(loss=loss, **RECIPE.shared())

        class Stop(Exception):
            pass

        def stop(row):
            if row["step"] == 5:
                raise Stop

        whole = train(config, *data, tmp_path / "whole")
        with pytest.raises(Stop):
            train(config, *data, tmp_path / "halves", on_step=stop)
        halves = train(config, *data, tmp_path / "halves")
        assert halves.evaluation.ap == whole.evaluation.ap
        logs = [read_csv(tmp_path / name / "log.csv") for name in ("whole", "halves")]
        assert len(logs[0]) == len(logs[1]) == 6
        for one, other in zip(*logs):
            assert {**one, "seconds": ""} == {**other, "seconds": ""}
        weights = [
            torch.load(tmp_path / name / "last.pt", weights_only=True)["detector"]
            for name in ("whole", "halves")
        ]
        assert all(value.equal(weights[1][name]) for name, value in weights[0].items())

    def test_folders_of_runs(self):
        names = [
            folder_name((loss, "giou"))
            for loss in ("focal,gamma=linear:0:2", "focal,gamma=cosine:0:2", "bce,mining=ohem3:0.5:128")
        ]
        assert len(set(names)) == 3
        assert all(re.fullmatch(r"[\w.+=,-]+", name) for name in names)
