"""The doctor is held to its corpus: no fault is lost, and a sound loss stays sound."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from detloss.doctor.diagnose import Seen, _diagnosis
from detloss.doctor.worker import examine

_SPEC = importlib.util.spec_from_file_location("corpus_table", Path(__file__).parent / "corpus" / "table.py")
table = importlib.util.module_from_spec(_SPEC)
sys.modules["corpus_table"] = table
_SPEC.loader.exec_module(table)


@pytest.fixture
def settings_restored():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[pytest.mark.xfail(reason=row.missed)] * bool(row.missed))
        for row in table.ROWS
    ],
)
def test_what_is_said_of_a_loss(row):
    seen = Seen()
    examine(row.target, "auto", None, (), seen.take)
    diagnosis = _diagnosis(row.target, seen, "")
    found = {
        level: {f.code for f in diagnosis.findings if f.level == level}
        for level in ("error", "warning", "note")
    }
    assert diagnosis.matches == row.matches
    assert found["error"] == row.errors
    assert found["warning"] - found["error"] == row.warnings
    assert found["note"] >= row.notes
    expected = {
        k: pytest.approx(v, abs=2e-3) if isinstance(v, float) else v for k, v in row.convention.items()
    }
    assert {key: diagnosis.convention.get(key) for key in expected} == expected
