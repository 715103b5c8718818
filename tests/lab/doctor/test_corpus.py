"""The doctor is held to its corpus: no fault is lost, and a sound loss stays sound."""

import pytest
from corpus.public import PUBLIC
from corpus.table import ROWS

from detloss.lab.doctor.diagnose import _diagnosis

# Of the long files an eighth is examined in the quick suite; CI examines all.
LONG = {"binary", "boxes", "softmax", "written", "detloss", *(row.file for row in PUBLIC)}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.file in LONG and number % 8 > 0))
        for number, row in enumerate([*ROWS, *PUBLIC])
    ],
)
def test_what_is_said_of_a_loss(row, examined):
    diagnosis = _diagnosis(row.target, examined(row.target), "")
    found = {level: set[str]() for level in ("error", "warning", "note")}
    for finding in diagnosis.findings:
        found[finding.level].add(finding.code)
    assert diagnosis.matches == row.matches
    assert found["error"] == row.errors
    assert found["warning"] - found["error"] == row.warnings
    assert found["note"] >= row.notes
    for key, value in row.convention.items():
        expected = pytest.approx(value, abs=2e-3) if isinstance(value, float) else value
        assert diagnosis.convention.get(key) == expected, key


def test_no_sound_public_loss_gets_an_error():
    """Of the rows themselves: what is published and sound has no error, and most of it is examined."""
    sound = [row for row in PUBLIC if row.file != "public_faulty"]
    assert len(sound) > 100
    assert not [row.name for row in sound if row.errors]
    assert sum("not-examined" in row.notes for row in sound) < 5
