"""Training on tiny scenes: it learns, resumes exactly, refuses and stops with a reason."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from detloss.balance import class_weights
from detloss.lab.data import Annotation, Augment, Dataset, SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed, training_batch
from detloss.lab.detector import DenseDetector, Detector, DetectorConfig
from detloss.lab.detector.criterion import Criterion
from detloss.lab.detector.inference import predict
from detloss.lab.detector.postprocess import Limits
from detloss.lab.devices import pick_device
from detloss.lab.evaluate import Evaluation, from_coco_results
from detloss.lab.records import load_config
from detloss.lab.runs import read_csv, read_json
from detloss.lab.training import train as module
from detloss.lab.training.config import Recipe, TrainConfig
from detloss.lab.training.optimizer import Average, Clipping, learning_rate, make_optimizer
from detloss.lab.training.state import LOG_COLUMNS, NonFiniteLoss, Training
from detloss.lab.training.train import EVALUATION_COLUMNS, train
from detloss.lab.training.trained import evaluate_on, load_detector

SCENES = SceneConfig(
    size=64, train=12, val=6, classes=3, objects=(1, 2), object_size=(14.0, 30.0), contrast=(0.3, 0.5),
    clutter=(0, 1), noise=0.02, long_tail=0.0, empty=0.1, seed=0,
)  # fmt: skip
DETECTOR = DetectorConfig(
    kind="anchor_free", width=8, channels=8, head_depth=1, strides=(4, 8), anchor_size=4.0, bins=0,
    prior=0.01, anchor_scales=(1.0,), anchor_ratios=(0.5, 1.0, 2.0),
)  # fmt: skip
RECIPE = Recipe(
    scenes=SCENES, size=64, augment=Augment(), detector=DETECTOR, limits=Limits(0.01, 100, 0.5, 50), steps=6,
    batch=4, optimizer="adamw", weight_decay=0.02, warmup=0.2, schedule="cosine", ema=0.9,
    distribution_weight=0.5, amp="off", evaluations=3, device="cpu",
)  # fmt: skip
CONFIG = TrainConfig("focal", "giou", lr=0.01, box_weight=2.0, seed=0, **RECIPE.shared())


def config(loss: str = "focal", seed: int = 0, lr: float = 0.01, **recipe: Any) -> TrainConfig:
    return replace(CONFIG, loss=loss, seed=seed, lr=lr, **recipe)


@pytest.fixture(scope="module")
def data() -> tuple[Letterboxed, Letterboxed]:
    return Letterboxed(scenes(SCENES, "train"), 64), Letterboxed(scenes(SCENES, "val"), 64)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, module.TrainResult]:
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, train(CONFIG, *data, out)


class Stop(Exception):
    """In the place of Ctrl-C."""


def stop_at(step: int) -> Callable[..., None]:
    def stop(row_or_step: Any, _: Any = None) -> None:
        if (row_or_step["step"] if isinstance(row_or_step, dict) else row_or_step) == step:
            raise Stop

    return stop


class TestLearning:
    def test_four_images_are_learned(self, data):
        four = data[0].dataset.select([i for i in range(12) if len(data[0].dataset.annotation(i).boxes)][:4])
        still = Augment(flip=0, scale=(1, 1), translate=0, colour=0)
        state = Training(config(steps=60, augment=still, lr=0.02), Letterboxed(four, 64))
        losses = [state.step()["loss"] for _ in range(60)]
        assert np.mean(losses[-5:]) < 0.35 * np.mean(losses[:5])
        evaluation, *_ = evaluate_on(state.average.model, Letterboxed(four, 64), RECIPE.limits, state.device)
        assert evaluation.ap50 > 0.5

    @pytest.mark.parametrize(
        ("loss", "recipe"),
        [
            ("softmax_focal", {}),
            ("quality_focal", {"detector": replace(DETECTOR, bins=8)}),
            ("varifocal", {"detector": replace(DETECTOR, kind="retinanet")}),
            ("softmax_focal", {"detector": replace(DETECTOR, kind="retinanet")}),
            ("balanced_bce", {"optimizer": "sgd", "schedule": "steps"}),
            ("detloss.losses:sigmoid_focal_loss,gamma=1", {"ema": 0.0, "clip_quantile": 1.0}),
            ("bce", {"balance": "guided"}),
            ("bce", {"amp": "bf16"}),
        ],
    )
    def test_every_kind_trains(self, data, tmp_path: Path, loss: str, recipe: dict):
        chosen = config(loss, steps=2, evaluations=1, **recipe)
        result = train(chosen, *data, tmp_path)
        assert 0 <= result.evaluation.ap <= 1
        rows = read_csv(tmp_path / "log.csv")
        assert [row["step"] for row in rows] == ["1", "2"]
        for row in rows:
            assert all(math.isfinite(float(value)) for value in row.values())
        assert (float(rows[0]["distribution_loss"]) > 0) == (chosen.detector.bins > 0)
        before = Training(chosen, data[0]).detector.state_dict()
        after = torch.load(tmp_path / "last.pt", weights_only=True)["detector"]
        assert not torch.equal(before["network.class_head.weight"], after["network.class_head.weight"])
        assert not torch.equal(before["network.box_head.weight"], after["network.box_head.weight"])

    def test_losses_start_from_the_same_weights_and_see_the_same_batches(self, data, monkeypatch):
        seen: dict[str, list] = {}
        weights = {}
        for loss in ("bce", "softmax_focal", "quality_focal"):
            state = Training(config(loss, seed=4), data[0])
            weights[loss] = {k: v.clone() for k, v in state.detector.state_dict().items()}
            forward = state._forward
            monkeypatch.setattr(
                state,
                "_forward",
                lambda batch, loss=loss, f=forward: seen.setdefault(loss, []).append(batch) or f(batch),
            )
            state.step()
            state.step()
        for loss in ("softmax_focal", "quality_focal"):
            for a, b in zip(seen["bce"], seen[loss], strict=True):
                np.testing.assert_array_equal(a.images, b.images)
                np.testing.assert_array_equal(a.boxes, b.boxes)
                assert a.ids == b.ids
            differ = [k for k, v in weights["bce"].items() if not torch.equal(v, weights[loss][k])]
            assert differ == (
                ["network.class_head.weight", "network.class_head.bias"] if loss == "softmax_focal" else []
            )

    def test_an_own_loss_equal_to_ours_trains_alike(self, data, tmp_path: Path):
        file = tmp_path / "mine.py"
        file.write_text("from detloss.losses import sigmoid_focal_loss as mine\n")
        rows = []
        for loss in ("focal", f"{file}:mine"):
            state = Training(config(loss), data[0])
            rows.append([{k: v for k, v in state.step().items() if k != "seconds"} for _ in range(3)])
        assert rows[0] == rows[1]


class TestFolder:
    def test_holds_what_is_promised(self, finished):
        out, _ = finished
        promised = {
            "config.json", "versions.json", "log.csv", "evaluations.csv", "metrics.json", "detections.json",
            "matches.npz", "last.safetensors", "last.pt",
        }  # fmt: skip
        assert {path.name for path in out.iterdir()} == promised
        for name in promised:
            assert name in (train.__doc__ or "")

    def test_config(self, finished):
        assert load_config(TrainConfig, finished[0]) == CONFIG

    def test_log(self, finished):
        rows = read_csv(finished[0] / "log.csv")
        assert tuple(rows[0]) == LOG_COLUMNS
        assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
        seconds = [float(row["seconds"]) for row in rows]
        assert seconds == sorted(seconds)
        for row in rows:
            number = {name: float(value) for name, value in row.items()}
            assert number["lr"] == learning_rate(int(number["step"]) - 1, RECIPE, 0.01)
            whole = number["classification_loss"] + 2 * number["box_loss"]
            assert number["loss"] == pytest.approx(whole, rel=1e-5)
            assert number["normalizer"] == max(1, number["positives"])
            assert "." not in row["positives"]
            assert 0 <= number["positive_loss_share"] <= 1
            assert number["gradient_norm"] > 0

    def test_evaluations(self, finished):
        out, result = finished
        rows = read_csv(out / "evaluations.csv")
        assert tuple(rows[0]) == EVALUATION_COLUMNS
        assert [row["step"] for row in rows] == ["2", "4", "6"]
        assert float(rows[-1]["ap"]) == result.evaluation.ap

    def test_metrics(self, finished):
        out, result = finished
        metrics = read_json(out / "metrics.json")
        assert metrics["ap"] == result.evaluation.ap
        assert metrics["seconds"] == result.seconds > 0
        assert metrics["peak_memory_mb"] == result.peak_memory_mb > 50
        assert json.dumps(metrics, allow_nan=False)
        again = Evaluation.from_dict(metrics)
        assert again.to_dict() == result.evaluation.to_dict()

    def test_detections(self, finished, data):
        out, result = finished
        validation = data[1].dataset
        ids = [validation.annotation(i).id for i in range(len(validation))]
        found = from_coco_results(read_json(out / "detections.json"), ids)
        assert sum(len(one.scores) for one in found) == result.evaluation.detections > 0
        detector, *_ = load_detector(out, torch.device("cpu"))
        again = predict(detector, data[1], RECIPE.limits, torch.device("cpu"))
        for one, same in zip(found, again, strict=True):
            np.testing.assert_array_equal(one.boxes, same.boxes)
            np.testing.assert_array_equal(one.scores, same.scores)
            np.testing.assert_array_equal(one.labels, same.labels)

    def test_a_finished_run_is_not_run_again(self, finished, data):
        out, result = finished
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        again = train(CONFIG, *data, out)
        assert again.evaluation.to_dict() == result.evaluation.to_dict()
        assert replace(again, evaluation=result.evaluation) == result
        assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before

    def test_a_damaged_checkpoint(self, finished, data, tmp_path: Path):
        (tmp_path / "last.pt").write_bytes(b"half a checkpoint")
        with pytest.raises(ValueError, match=r"last\.pt is damaged .*; to train anew, remove last\.pt"):
            train(CONFIG, *data, tmp_path)

    def test_the_averaged_detector_comes_back(self, finished):
        out, _ = finished
        detector, found, names = load_detector(out, torch.device("cpu"))
        assert found == CONFIG
        assert names == SCENES.names
        assert not detector.training
        state = torch.load(out / "last.pt", weights_only=True)
        for name, value in detector.state_dict().items():
            assert torch.equal(value, state["average"][name])

    def test_a_softmax_detector_comes_back(self, data, tmp_path: Path):
        train(config("softmax_focal", steps=1, evaluations=1), *data, tmp_path)
        detector, *_ = load_detector(tmp_path, torch.device("cpu"))
        assert detector.network.softmax
        assert detector.network.class_head.out_channels == 4

    def test_no_run_folder(self, tmp_path: Path):
        with pytest.raises(ValueError, match=r"not a run folder of `detloss train`: it has no config\.json"):
            load_detector(tmp_path, torch.device("cpu"))

    def test_another_configuration_is_refused_and_nothing_touched(self, finished, data):
        out, _ = finished
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(ValueError, match="holds a run with another configuration"):
            train(replace(CONFIG, lr=0.02), *data, out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def test_a_finished_run_is_not_trained_again(self, finished, data):
        out, result = finished
        before = {
            p.name: p.read_bytes() for p in out.iterdir() if p.suffix == ".csv" or "detections" in p.name
        }

        def never(row: dict) -> None:
            raise AssertionError("a step was made")

        again = train(CONFIG, *data, out, on_step=never)
        assert again.evaluation.to_dict() == result.evaluation.to_dict()
        assert {name: (out / name).read_bytes() for name in before} == before


def contents(out: Path) -> dict[str, Any]:
    """All that must not depend on an interruption: everything but times and memory."""
    log = [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(out / "log.csv")]
    metrics = {
        k: v for k, v in read_json(out / "metrics.json").items() if k not in ("seconds", "peak_memory_mb")
    }
    return {
        "log": log,
        "metrics": metrics,
        "evaluations": (out / "evaluations.csv").read_text(),
        "detections": (out / "detections.json").read_text(),
    }


def assert_same_run(found: Path, wanted: Path) -> None:
    assert contents(found) == contents(wanted)
    a, b = load_file(found / "last.safetensors"), load_file(wanted / "last.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    a, b = (torch.load(out / "last.pt", weights_only=True) for out in (found, wanted))
    assert all(torch.equal(a["detector"][name], b["detector"][name]) for name in a["detector"])
    moments = [
        value for state in (a, b) for each in state["optimizer"]["state"].values() for value in each.values()
    ]
    half = len(moments) // 2
    assert half > 10
    assert all(torch.equal(x, y) for x, y in zip(moments[:half], moments[half:]))


class TestResume:
    @pytest.mark.parametrize("moment", ["first step", "after an evaluation", "in an evaluation", "last"])
    def test_is_exact(self, data, finished, tmp_path: Path, moment: str):
        arguments = {
            "first step": {"on_step": stop_at(1)},
            "after an evaluation": {"on_step": stop_at(5)},
            "in an evaluation": {"on_evaluation": stop_at(4)},
            "last": {"on_step": stop_at(6)},
        }[moment]
        with pytest.raises(Stop):
            train(CONFIG, *data, tmp_path, **arguments)
        assert not (tmp_path / "metrics.json").exists()
        torch.manual_seed(99)  # what the generator did meanwhile must not matter
        steps = []
        train(CONFIG, *data, tmp_path, on_step=lambda row: steps.append(row["step"]))
        first = {"first step": 1, "after an evaluation": 5, "in an evaluation": 5, "last": 5}[moment]
        assert steps == list(range(first, 7))
        assert_same_run(tmp_path, finished[0])

    def test_is_exact_with_momentum_and_plain_weights(self, data, tmp_path: Path):
        chosen = config(optimizer="sgd", ema=0.0)
        train(chosen, *data, tmp_path / "whole")
        with pytest.raises(Stop):
            train(chosen, *data, tmp_path / "cut", on_step=stop_at(3))
        train(chosen, *data, tmp_path / "cut")
        assert_same_run(tmp_path / "cut", tmp_path / "whole")

    def test_interrupted_twice(self, data, finished, tmp_path: Path):
        for step in (3, 5):
            with pytest.raises(Stop):
                train(CONFIG, *data, tmp_path, on_step=stop_at(step))
        train(CONFIG, *data, tmp_path)
        assert_same_run(tmp_path, finished[0])

    def test_two_runs_are_the_same_and_another_seed_is_not(self, data, finished, tmp_path: Path):
        train(CONFIG, *data, tmp_path / "same")
        assert_same_run(tmp_path / "same", finished[0])
        train(config(seed=1), *data, tmp_path / "other")
        assert contents(tmp_path / "other")["log"] != contents(finished[0])["log"]


class TestNonFinite:
    def file(self, tmp_path: Path, expression: str) -> str:
        """A loss that goes wrong from the third batch on; the trial when it is found has another size."""
        file = tmp_path / "failing.py"
        file.write_text(
            "import torch\nfrom detloss.losses import sigmoid_focal_loss\nbatches = 0\n"
            "def loss(x, t):\n"
            "    global batches\n"
            "    batches += x.shape[1] > 100\n"
            "    value = sigmoid_focal_loss(x, t)\n"
            f"    return {expression} if batches >= 3 else value\n"
        )
        return f"{file}:loss"

    @pytest.mark.parametrize(
        ("expression", "what"),
        [
            ("value + float('inf')", "loss"),
            ("value * float('nan')", "loss"),
            ("value + (x - x).abs().sqrt()", "gradient"),
        ],
    )
    def test_stops_with_step_and_images(self, data, tmp_path: Path, expression: str, what: str):
        chosen = config(self.file(tmp_path, expression), seed=3, ema=0.0)
        out = tmp_path / "run"
        with pytest.raises(NonFiniteLoss) as caught:
            train(chosen, *data, out)
        ids = ", ".join(training_batch(data[0], 2, 4, 3, RECIPE.augment).ids)
        message = str(caught.value)
        assert f"the {what} is not finite at step 3 " in message
        assert f"images of the batch: {ids}." in message
        assert "\n" not in message
        assert not (out / "metrics.json").exists()
        # The checkpoint of the evaluation after step 2 is there, and whole.
        detector, *_ = load_detector(out, torch.device("cpu"))
        assert all(value.isfinite().all() for value in detector.state_dict().values())
        assert torch.load(out / "last.pt", weights_only=True)["step"] == 2

    def test_the_bad_step_changes_no_weight(self, data, tmp_path: Path):
        state = Training(config(self.file(tmp_path, "value * float('nan')")), data[0])
        state.step()
        state.step()
        before = [p.clone() for p in state.detector.parameters()]
        with pytest.raises(NonFiniteLoss):
            state.step()
        assert all(torch.equal(a, b) for a, b in zip(before, state.detector.parameters()))
        assert state.step_count == 2


class TestSchedule:
    def test_warm_up_then_cosine_by_hand(self):
        recipe = replace(RECIPE, steps=12, warmup=0.25, schedule="cosine")
        rates = [learning_rate(step, recipe, 0.8) for step in range(12)]
        assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
        # Nine steps from peak to (nearly) zero: 0.4 (1 + cos(k 20°)).
        assert rates[3:] == pytest.approx([0.4 * (1 + math.cos(math.radians(20 * k))) for k in range(9)])
        assert rates[6] == pytest.approx(0.6)

    def test_steps_by_hand(self):
        recipe = replace(RECIPE, steps=18, warmup=0.0, schedule="steps")
        rates = [learning_rate(step, recipe, 1.0) for step in range(18)]
        assert rates == pytest.approx([1.0] * 12 + [0.1] * 4 + [0.01] * 2)

    def test_no_warm_up_starts_at_the_peak(self):
        assert learning_rate(0, replace(RECIPE, steps=10, warmup=0.0), 0.3) == pytest.approx(0.3)

    @pytest.mark.parametrize("schedule", ["cosine", "steps"])
    @pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_always_positive_and_at_most_the_peak(self, schedule: str, warmup: float, steps: int):
        recipe = replace(RECIPE, steps=steps, warmup=warmup, schedule=schedule)
        assert all(0 < learning_rate(step, recipe, 0.5) <= 0.5 for step in range(steps))


class TestOptimizer:
    @pytest.mark.parametrize("name", ["adamw", "sgd"])
    def test_only_convolutions_decay(self, name: str):
        detector = Detector(DETECTOR, 3)
        optimizer = make_optimizer(detector, replace(RECIPE, optimizer=name, weight_decay=0.3), 0.1)
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        names = dict(detector.named_parameters())
        assert len(decay) == len(names)
        for name, parameter in names.items():
            assert decay[id(parameter)] == (0.3 if parameter.ndim == 4 else 0.0), name
        assert {p.ndim for p in names.values()} == {1, 4}

    def test_kinds(self):
        detector = Detector(DETECTOR, 3)
        adamw = make_optimizer(detector, replace(RECIPE, optimizer="adamw"), 0.1)
        assert isinstance(adamw, torch.optim.AdamW)
        assert adamw.defaults["betas"] == (0.9, 0.95)
        sgd = make_optimizer(detector, replace(RECIPE, optimizer="sgd"), 0.1)
        assert isinstance(sgd, torch.optim.SGD)
        assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.9, True)

    def test_a_step_is_no_longer_than_the_clipped_gradient(self, data):
        # SGD's first Nesterov step is lr (1 + momentum) g.
        chosen = config(optimizer="sgd", weight_decay=0.0, clip=0.5, lr=0.1, warmup=0.0)
        state = Training(chosen, data[0])
        before = [p.detach().clone() for p in state.detector.parameters()]
        row = state.step()
        assert row["gradient_norm"] > 0.5
        moved = [a - b.detach() for a, b in zip(before, state.detector.parameters())]
        length = torch.stack([x.norm() for x in moved]).norm().item()
        assert length == pytest.approx(0.1 * 1.9 * 0.5, rel=1e-3)

    def test_no_clipping(self, data):
        chosen = config(optimizer="sgd", weight_decay=0.0, clip_quantile=1.0, lr=0.1, warmup=0.0)
        state = Training(chosen, data[0])
        before = [p.detach().clone() for p in state.detector.parameters()]
        norm = state.step()["gradient_norm"]
        moved = [a - b.detach() for a, b in zip(before, state.detector.parameters())]
        assert torch.stack([x.norm() for x in moved]).norm().item() == pytest.approx(0.19 * norm, rel=1e-3)


class TestClipping:
    """Parameters with the gradient (3, 4), so of norm 5, times a factor each step."""

    @staticmethod
    def clip(clipping: Clipping, factor: float, step: int) -> tuple[float, bool, list[float]]:
        p = torch.nn.Parameter(torch.zeros(2))
        p.grad = factor * torch.tensor([3.0, 4.0])
        norm, clipped = clipping([p, torch.nn.Parameter(torch.zeros(1))], step)
        return norm.item(), bool(clipped), p.grad.tolist()

    def test_by_hand(self):
        clipping = Clipping(0.5)
        assert self.clip(clipping, 1, 0) == (5, False, [3, 4])  # nothing before it to go by
        assert self.clip(clipping, 3, 1) == (15, True, pytest.approx([6, 8]))  # the median of 5 and 15 is 10
        assert self.clip(clipping, 2, 2) == (10, False, [6, 8])  # of 5, 10, 15: its own
        assert self.clip(clipping, 4, 3) == (20, True, pytest.approx([7.5, 10]))  # of 5, 10, 15, 20: 12.5

    def test_the_largest_norm_holds_too(self):
        assert self.clip(Clipping(0.5, most=1.0), 1, 0) == (5, True, pytest.approx([0.6, 0.8]))
        assert self.clip(Clipping(1.0, most=1.0), 1, 0) == (5, True, pytest.approx([0.6, 0.8]))

    def test_quantile_one_never_clips(self):
        clipping = Clipping(1.0)
        assert [self.clip(clipping, 2.0**k, k)[1] for k in range(9)] == [False] * 9

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_the_share_of_clipped_steps_does_not_depend_on_the_scale(self, scale: float):
        clipping, rng = Clipping(0.9), np.random.default_rng(0)
        factors = scale * np.exp(rng.normal(size=2000))
        clipped = [self.clip(clipping, factor, step)[1] for step, factor in enumerate(factors)]
        assert np.mean(clipped) == pytest.approx(0.1, abs=0.02)

    def test_old_norms_are_forgotten(self):
        clipping = Clipping(0.9)
        for step in range(Clipping.WINDOW):
            self.clip(clipping, 1000.0, step)
        for step in range(Clipping.WINDOW):
            self.clip(clipping, 1.0, Clipping.WINDOW + step)
        assert self.clip(clipping, 2.0, 2 * Clipping.WINDOW) == (10, True, pytest.approx([3, 4]))

    @pytest.mark.parametrize("norm", [math.inf, math.nan])
    def test_an_overflow_is_no_norm_to_go_by(self, norm: float):
        clipping = Clipping(0.9)
        self.clip(clipping, 1.0, 0)
        self.clip(clipping, norm, 1)
        assert self.clip(clipping, 1.0, 2) == (5, False, [3, 4])

    def test_no_gradient_is_not_divided_by(self):
        assert self.clip(Clipping(0.9), 0.0, 0) == (0, False, [0, 0])

    def test_the_part_of_clipped_steps_is_kept(self, finished):
        out, result = finished
        clipped = [int(row["clipped"]) for row in read_csv(out / "log.csv")]
        assert set(clipped) == {0, 1}
        assert result.clipped == read_json(out / "metrics.json")["clipped"] == np.mean(clipped)


def test_boxes_count_as_the_paper_of_the_loss_has_it(data):
    ways = {"focal": "alike", "quality_focal,beta=1": "score", "varifocal": "iou", "mal": "alike"}
    for loss, way in ways.items():
        assert Training(config(loss), data[0]).objective.weigh_boxes == way
        assert Training(config(loss, weigh_boxes="alike"), data[0]).objective.weigh_boxes == "alike"


def test_class_weights_are_those_of_the_training_objects(data):
    for images in (range(12), range(5)):
        part = data[0].dataset.select(images)
        counts = np.bincount(np.concatenate([part.annotation(i).labels for i in images]), minlength=3)
        training = Training(config("focal,class_weight=inverse:0.5"), Letterboxed(part, 64))
        expected = class_weights(counts.tolist(), "inverse", power=0.5)
        torch.testing.assert_close(training.objective.class_weights, expected)
        assert len(set(counts.tolist())) > 1
        assert math.isfinite(training.step()["loss"])
    assert Training(config(), data[0]).objective.class_weights is None


class TestAverage:
    def test_by_hand(self):
        model = Detector(DETECTOR, 3)
        average = Average(model, 0.5)
        name = "class_head.bias"
        values = [model.state_dict()[name][0].item()]
        for step, value in enumerate((1.0, 2.0, 5.0)):
            with torch.no_grad():
                model.class_head.bias.fill_(value)
            average.update(step)
            # The memory grows from 1/10 to the decay: 1/10, 2/11, 3/12, ...
            keep = min(0.5, (1 + step) / (10 + step))
            values.append(keep * values[-1] + (1 - keep) * value)
            assert average.model.state_dict()[name][0].item() == pytest.approx(values[-1], rel=1e-6)

    def test_the_decay_is_reached(self):
        model = Detector(DETECTOR, 3)
        average = Average(model, 0.75)
        start = average.model.class_head.bias[0].item()
        with torch.no_grad():
            model.class_head.bias.fill_(1.0)
        average.update(10_000)
        assert average.model.class_head.bias[0].item() == pytest.approx(0.75 * start + 0.25, rel=1e-6)

    def test_buffers_too_and_whole_numbers_are_copied(self):
        model = Detector(DETECTOR, 3).train()
        average = Average(model, 0.5)
        model(torch.rand(2, 3, 32, 32))
        average.update(0)
        mine, new = average.model.state_dict(), model.state_dict()
        counts = [name for name in new if name.endswith("num_batches_tracked")]
        assert counts
        assert all(mine[name] == 1 for name in counts)
        means = [name for name in new if name.endswith("running_mean")]
        for name in means:
            torch.testing.assert_close(mine[name], 0.9 * new[name])  # kept 1/10 of zero
        assert not any(p.requires_grad for p in average.model.parameters())
        assert not average.model.training

    def test_zero_evaluates_the_weights_themselves(self, data):
        state = Training(config(ema=0.0), data[0])
        state.step()
        new = state.detector.state_dict()
        assert all(torch.equal(value, new[name]) for name, value in state.average.model.state_dict().items())


class TestPrecision:
    @pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("off", torch.float32)])
    def test_the_loss_is_float32(self, data, monkeypatch, amp: str, dtype: torch.dtype):
        seen = []

        def spy(criterion, output, *rest):
            seen.extend(x.dtype for x in output if x is not None)
            terms = real(criterion, output, *rest)
            seen.append(terms.total.dtype)
            return terms

        state = Training(config(amp=amp), data[0])
        real = Criterion.__call__
        monkeypatch.setattr(Criterion, "__call__", spy)
        row = state.step()
        assert seen == [dtype, dtype, torch.float32]
        assert math.isfinite(row["loss"])

    def test_bf16_is_near_float32(self, data):
        rows = [Training(config(amp=amp), data[0]).step() for amp in ("off", "bf16")]
        assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=0.02)
        assert rows[0]["loss"] != rows[1]["loss"]


class TestPredict:
    def test_boxes_are_in_the_pixels_of_each_image(self):
        # The same grey at two sizes and between bars: boxes follow the image's own size and end there.
        shapes = [(64, 64), (128, 128), (64, 32), (24, 48)]
        images = [np.full((*shape, 3), 114, np.uint8) for shape in shapes]
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        dataset = Dataset(("a",), [Annotation(*nothing, str(i)) for i in range(4)], images)
        torch.manual_seed(0)
        detector = DenseDetector(Detector(replace(DETECTOR, prior=0.3), 1)).eval()
        limits = Limits(0.0, 400, 1.0, 400)
        square, *others = predict(detector, Letterboxed(dataset, 64), limits, torch.device("cpu"))
        assert len(square.scores) == 256 + 64
        assert square.boxes.max() == 64
        for found, (height, width), scale, x, y in zip(
            others, shapes[1:], (0.5, 1, 4 / 3), (0, 16, 0), (0, 0, 16), strict=True
        ):
            wanted = (square.boxes - [x, y, x, y]) / scale
            np.testing.assert_allclose(found.boxes, wanted.clip(0, [width, height, width, height]), atol=1e-3)
            np.testing.assert_array_equal(found.scores, square.scores)

    def test_order_and_number_over_several_blocks(self, data):
        many = Letterboxed(data[0].dataset.select([i % 12 for i in range(40)]), 64)
        torch.manual_seed(0)
        detector = DenseDetector(Detector(replace(DETECTOR, prior=0.3), 3)).eval()
        found = predict(detector, many, RECIPE.limits, torch.device("cpu"))
        assert len(found) == 40
        for i in range(12, 40):
            np.testing.assert_allclose(found[i].boxes, found[i % 12].boxes, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device is 'gpu'; it may be auto, cpu"),
        ("meta", "device is 'meta'; it may be auto, cpu"),
        ("cuda:0", "device is 'cuda:0', but PyTorch sees no GPU"),
        ("mps", "device is 'mps', but this machine or this build of PyTorch has none; use cpu or auto"),
        ("xpu", "device is 'xpu', but this machine or this build of PyTorch has none; use cpu or auto"),
        ("xpu:1", "device is 'xpu:1', but this machine or this build of PyTorch has none; use cpu or auto"),
    ],
)
def test_devices(name: str, message: str, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        pick_device(name)
