"""docs/coming_from.md, row by row: another library's call and ours agree, except where the page says so."""

import importlib.util
import re
import warnings

import pytest
import torch

from helpers import mmdet_by_hand
from helpers.coming_from import INPUTS, PAGE, compared, dfine_bins, difference, inputs, results, rows

ROWS = rows()
PEERS = {
    "torchvision": "torchvision",
    "fvcore": "fvcore",
    "Ultralytics": "ultralytics",
    "transformers": "transformers",
    "kornia": "kornia",
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    "MONAI": "monai",
    "timm": "timm",
    "Keras": "keras",
    "mmdetection": "mmdet",
}
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.peer}: {row.theirs}")


def in_float64(row, case):
    return results(row.here, inputs(case, torch.float64))


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What a row's call may name, its library's functions first; mmdet's are written down in this folder."""
    made = {}

    def of(row):
        if row.imports in made:
            return made[row.imports]
        space = {}
        if row.peer == "mmdetection":
            space |= {name: value for name, value in vars(mmdet_by_hand).items() if isinstance(value, type)}
        elif importlib.util.find_spec(PEERS[row.peer]) is None:
            pytest.skip(f"{row.peer} is not installed")
        else:
            for line in row.imports:
                exec(line, space)
        if row.peer == "transformers":
            from transformers import Deimv2Config

            space["config"] = Deimv2Config(num_labels=5)
        return made.setdefault(row.imports, space)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        patch.setenv("YOLO_OFFLINE", "true")
        yield of


@pytest.mark.clients
@pytest.mark.filterwarnings("ignore")
@each_row
def test_theirs_is_equal_or_differs_as_stated(row, names):
    found = {}
    for case in row.cases:
        try:
            theirs = results(row.theirs, names(row) | inputs(case))
        except (AssertionError, IndexError, RuntimeError, ValueError):
            found[case] = "error"
            continue
        if what := compared(theirs, in_float64(row, case), case):
            found[case] = what
    assert found == row.differs


@each_row
def test_ours_is_finite_and_precise(row):
    for case in row.cases:
        value, gradients = ours = results(row.here, inputs(case))
        assert value.isfinite().all(), case
        assert gradients, case
        assert all(gradient.isfinite().all() for gradient in gradients.values()), case
        assert compared(ours, in_float64(row, case), case) == "", case


def test_the_page_is_read():
    assert {row.peer for row in ROWS} == set(PEERS)
    for row in ROWS:
        assert row.imports, row.peer
        assert set(row.differs) <= set(row.cases), row
        assert "detloss." in row.here, row
        assert row.uses(*INPUTS), row
    lines = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\|.*`.*detloss\.", line)
    ]
    assert len(lines) == len(ROWS)


def test_a_difference_is_seen():
    one = torch.tensor([1.0, 2.0])
    assert difference(one, one, "random") == ""
    assert difference(one * (1 + 1e-6), one, "random") == ""
    assert difference(one * 1.001, one, "random") == "other"
    assert difference(one * 1.01, one, "float16") == "coarser"
    assert difference(one * 2, one, "float16") == "other"
    assert difference(one * float("nan"), one, "random") == "NaN"
    assert difference(one * float("inf"), one, "random") == "infinite"
    assert compared((one, {}), (one, {"x": one}), "random") == "no gradient"
    assert compared((one, {"x": one}), (one, {"x": 2 * one}), "random") == "other gradient"
    assert compared((one, {}), (one.sum(), {}), "random") == "other shape"


@pytest.mark.clients
def test_bins_of_dfine():
    module = pytest.importorskip("transformers.loss.loss_d_fine")
    torch.testing.assert_close(dfine_bins(), module.weighting_function(16, torch.tensor([0.5]), 4))
