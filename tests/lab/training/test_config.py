"""Values of a configuration that cannot be are refused when it is made."""

import pytest

from detloss.lab.training.config import Recipe, TrainConfig


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Recipe, {"size": 8}, "size is 8"),
        (Recipe, {"steps": 0}, "steps is 0"),
        (Recipe, {"batch": 0}, "batch is 0"),
        (Recipe, {"evaluations": 0}, "evaluations is 0"),
        (Recipe, {"ema": 1.0}, "ema is 1.0"),
        (Recipe, {"warmup": 1.0}, "warmup is 1.0"),
        (Recipe, {"clip": -1.0}, "clip is -1.0"),
        (Recipe, {"clip_quantile": 0.0}, "clip_quantile is 0.0; it must be above 0 and at most 1"),
        (Recipe, {"clip_quantile": 10.0}, "clip_quantile is 10.0"),
        (TrainConfig, {"lr": 0.0}, "lr is 0.0"),
        (TrainConfig, {"lr": float("nan")}, "lr is nan"),
    ],
)
def test_values_are_checked_when_made(kind: type, change: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(**change)


@pytest.mark.parametrize("name", ["optimizer", "schedule", "balance", "weigh_boxes", "amp"])
def test_a_choice_that_does_not_exist(name: str):
    with pytest.raises(ValueError, match=f"{name} is 'other'; it may be "):
        Recipe(**{name: "other"})
