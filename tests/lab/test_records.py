"""Configurations to JSON and back, and what is said about wrong ones."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from detloss.lab.compare.config import CompareConfig
from detloss.lab.data import Augment, SceneConfig
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.postprocess import Limits
from detloss.lab.records import from_dict, load_config, to_dict
from detloss.lab.training.config import TrainConfig

CHANGED = TrainConfig(
    loss="focal,gamma=1.5",
    box_loss="ciou",
    lr=0.1 + 0.2,
    box_weight=3.5,
    seed=11,
    data="some/folder",
    scenes=SceneConfig(size=64, objects=(2, 5), contrast=(0.123456789, 0.5), train=3, val=2),
    size=64,
    augment=Augment(scale=(0.5, 2.0), flip=0.25),
    detector=DetectorConfig(kind="retinanet", strides=(4, 8), anchor_scales=(1.5,), width=4, channels=8),
    limits=Limits(score=0.01, candidates=5),
    steps=7,
    optimizer="sgd",
    schedule="steps",
    amp="bf16",
    device="cpu",
)


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    whole: int = 1
    number: float = 0.5
    flag: bool = False
    text: str = "a"
    maybe: float | None = None
    kind: Literal["x", "y"] = "x"
    many: tuple[float, ...] = (1.0,)
    pair: tuple[int, float] = (1, 2.0)
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)


class TestThereAndBack:
    @pytest.mark.parametrize(
        "config", [TrainConfig(), CHANGED, Outer(maybe=2.0, names=("ü", "b"), pair=(3, 4.0))]
    )
    def test_through_json(self, config):
        text = json.dumps(to_dict(config))
        assert from_dict(type(config), json.loads(text)) == config

    def test_compare(self):
        config = CompareConfig(losses=("bce", "focal"), lr=0.01, lrs=(0.1,), seeds=2, **CHANGED.shared())
        assert from_dict(CompareConfig, to_dict(config)) == config
        assert to_dict(config)["detector"]["strides"] == [4, 8]

    def test_what_is_left_out_has_its_default(self):
        assert from_dict(TrainConfig, {}) == TrainConfig()
        found = from_dict(TrainConfig, {"detector": {"width": 5}})
        assert found == replace(TrainConfig(), detector=replace(TrainConfig().detector, width=5))

    def test_what_an_older_file_leaves_out_means_what_it_meant(self):
        """All seeds had the same scenes before each could have its own."""
        old = to_dict(CompareConfig())
        assert old["scenes"].pop("same") is False
        assert from_dict(CompareConfig, old).scenes.same is True
        assert from_dict(CompareConfig, to_dict(CompareConfig())).scenes.same is False
        assert from_dict(CompareConfig, {}).scenes.same is False

    def test_types_are_kept(self):
        found = from_dict(
            Outer,
            {"number": 2, "many": [1, 2.5], "pair": [1, 2], "maybe": 3, "flag": True, "inner": {"size": 4}},
        )
        assert found == Outer(
            number=2.0, many=(1.0, 2.5), pair=(1, 2.0), maybe=3.0, flag=True, inner=Inner(4)
        )
        assert [type(x) for x in (found.number, found.maybe, *found.many, *found.pair)] == [
            float, float, float, float, int, float,
        ]  # fmt: skip
        assert from_dict(Outer, {"maybe": None}).maybe is None
        assert math.isnan(from_dict(Outer, {"number": None}).number)  # as to_dict writes nan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"whol": 2}, "config has no 'whol'; did you mean 'whole'?"),
        ({"zzz": 2}, "config has no 'zzz'; it may have whole, number"),
        ({"whole": 1.5}, "config: whole is 1.5; it must be int"),
        ({"whole": True}, "config: whole is True; it must be int"),
        ({"whole": "2"}, "config: whole is '2'; it must be int"),
        ({"whole": None}, "config: whole is None; it must be int"),
        ({"number": "2"}, "config: number is '2'; it must be float"),
        ({"number": True}, "config: number is True; it must be float"),
        ({"flag": 1}, "config: flag is 1; it must be bool"),
        ({"text": 1}, "config: text is 1; it must be str"),
        ({"maybe": "x"}, "config: maybe is 'x'; it must be float"),
        ({"kind": "z"}, "config: kind is 'z'; it may be x, y"),
        ({"kind": ["x"]}, "config: kind is ['x']; it may be x, y"),
        ({"many": 1.0}, "config: many is 1.0; it must be tuple"),
        ({"many": ["a"]}, "config: many is 'a'; it must be float"),
        ({"pair": [1]}, "config: pair is [1]; it must be tuple"),
        ({"pair": [1.5, 2]}, "config: pair is 1.5; it must be int"),
        ({"inner": 3}, "config: inner is 3; it must be an object"),
        ({"inner": {"siz": 3}}, "config: inner has no 'siz'; did you mean 'size'?"),
        ({"inner": {"size": "s"}}, "config: inner: size is 's'; it must be int"),
        ([1], "config is [1]; it must be an object"),
    ],
)
def test_errors_name_the_place(values, message: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below, whole)
        from_dict(Outer, values)
    assert str(caught.value).startswith(message)


class TestLoad:
    def test_file_or_its_folder(self, tmp_path: Path):
        (tmp_path / "config.json").write_text(json.dumps(to_dict(CHANGED)), "utf-8")
        assert load_config(TrainConfig, tmp_path) == CHANGED
        assert load_config(TrainConfig, tmp_path / "config.json") == CHANGED

    def test_errors(self, tmp_path: Path):
        with pytest.raises(ValueError, match=r"^config .*config\.json: No such file"):
            load_config(TrainConfig, tmp_path)
        file = tmp_path / "config.json"
        file.write_text("{")
        with pytest.raises(ValueError, match=r"^config .*config\.json is not JSON"):
            load_config(TrainConfig, tmp_path)
        file.write_text('{"step": 3}')
        with pytest.raises(ValueError, match=r"config\.json has no 'step'; did you mean 'steps'\?"):
            load_config(TrainConfig, file)
        file.write_text('{"detector": {"bins": 1}}')
        with pytest.raises(ValueError, match="bins is 1"):
            load_config(TrainConfig, file)


def test_a_long_value_is_shown_in_short():
    with pytest.raises(ValueError, match=r"config: seed is \[0, 1, 2, 3, 4, 5, \.\.\.\]; it must be int"):
        from_dict(TrainConfig, {"seed": list(range(10_000))})
