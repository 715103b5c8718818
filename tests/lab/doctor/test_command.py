"""`detloss doctor` as a user types it."""

import importlib
import json
import textwrap

import pytest

from detloss.lab.doctor import Diagnosis, Finding
from detloss.lab.runs import read_csv, read_json
from helpers.commands import detloss, refused

command = importlib.import_module("detloss.lab.doctor.command")

FAULTY = """\
    import torch
    import torch.nn.functional as F
    print("who reads this?")
    def focal(logits, targets, alpha=0.25, gamma=2.0):
        ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        p_t = torch.exp(-ce)
        alpha_t = alpha * (1 - targets) + (1 - alpha) * targets
        return (alpha_t * (1 - p_t) ** gamma * ce).mean()
    """
CURVE = {
    "kind": "box",
    "nearest": "giou",
    "x": [0.0, 1.0],
    "lines": [
        {
            "label": "",
            "value": [1.0, None],
            "gradient": [0.5, 0.0],
            "known_value": [1.0, 2.0],
            "known_gradient": [0.1, 0.0],
        }
    ],
}
SAID = Finding("no-eps", "error", "0 / 0", "mine.py:3: a / b", "add an eps")


@pytest.fixture
def answered(monkeypatch):
    """A doctor who answers at once."""

    def answer(*findings, **more):
        monkeypatch.setattr(
            command, "diagnose", lambda target, *_, **__: Diagnosis(target, findings=findings, **more)
        )

    return answer


def test_a_faulty_loss_from_end_to_end(here):
    (here / "mine.py").write_text(textwrap.dedent(FAULTY))
    done = detloss("doctor", "mine.py:focal", "--json", "--out", "found", "--like", "torchvision")
    assert done.status == 1
    answer = json.loads(done.out)
    assert list(answer) == ["status", "matches", "convention", "findings"]
    assert answer["matches"] == "focal"
    assert answer["convention"]["alpha_on"] == "negatives"
    assert answer["convention"]["gamma"] == pytest.approx(2)
    assert done.err.strip() == "found"
    for found in answer["findings"]:
        assert list(found) == ["code", "level", "message", "evidence", "remedy"]
    assert "alpha-inverted" in {found["code"] for found in answer["findings"] if found["level"] == "error"}
    report = read_json(here / "found" / "report.json")
    assert {key: report[key] for key in answer} == answer
    assert report["notes"] == ["it prints: who reads this?"]
    assert "transposed tensors" in report["checked"]
    assert read_json(here / "found" / "config.json")["target"] == "mine.py:focal"
    rows = read_csv(here / "found" / "curve.csv")
    assert {row["line"] for row in rows} == {"positive, t = 1", "negative, t = 0"}
    assert all((here / "found" / name).stat().st_size for name in ("curve.png", "curve.svg", "versions.json"))


def test_what_a_person_reads(here, answered):
    answered(
        SAID,
        Finding("memory", "note", "much", "9 times", "fuse"),
        matches="giou",
        convention={"form": "1 - x", "eps": 1e-7, "unlike mmdet": {"fmt": "xyxy"}},
        notes=("boxes: cxcywh",),
        checked=("loops", "memory"),
        curve=CURVE,
    )
    done = detloss("doctor", "mine.py:loss")
    assert done.status == 1
    assert str(done.folder) == "runs/doctor-001"
    for text in (
        "mine.py:loss equals giou",
        "eps: 1e-07",
        "unlike mmdet: fmt xyxy",
        "boxes: cxcywh",
        "1 error\n",
        "no-eps: 0 / 0",
        "seen: mine.py:3: a / b",
        "do:   add an eps",
        "1 note\n",
        "found right: loops, memory",
    ):
        assert text in done.out
    assert done.out.index("1 error") < done.out.index("1 note")
    assert read_csv(here / "runs" / "doctor-001" / "curve.csv")[1]["value"] == ""


def test_what_is_not_examined_is_told_with_the_way_on_and_status_0(here):
    (here / "mine.py").write_text("def loss(x, t, priors):\n    return (x - t) * priors\n")
    done = detloss("doctor", "mine.py:loss")
    assert done.status == 0
    assert "was not examined, because the value of `priors` cannot be guessed" in done.out
    assert "--call 'lambda loss, logits, labels: loss(logits, labels, priors=...)'" in done.out
    assert read_json(done.folder / "report.json")["status"] == "not examined"
    done = detloss("doctor", "mine.py:loss", "--call", "lambda loss, x, t: loss(x, t, 1.0).abs()", "--json")
    assert json.loads(done.out)["status"] != "not examined"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"matches": None, "convention": {"kind": "box"}}, "equals no known loss"),
        ({"matches": None}, "could not be examined"),
    ],
)
def test_without_an_error_the_status_is_zero(here, answered, more, words):
    answered(Finding("no-eps", "warning", "a", "b", "c"), **more)
    done = detloss("doctor", "mine.py:loss", "--out", "found")
    assert (done.status, str(done.folder)) == (0, "found")
    assert words in done.out
    assert not (here / "found" / "curve.png").exists()
    again = detloss("doctor", "--config", "found", "--trust", "--out", "again", "--json")
    assert (again.status, again.err.strip()) == (0, "again")
    assert json.loads(again.out)["matches"] is None


def test_bad_arguments_are_one_line_and_write_nothing(here):
    (here / "mine.py").write_text("def focal(x, t):\n    return x\n")
    refused(detloss("doctor"), "which loss")
    refused(detloss("doctor", "mine.py"), "names no loss")
    refused(detloss("doctor", "none.py:focal"), "No such file")
    refused(detloss("doctor", "mine.py:vocal"), "did you mean 'focal'")
    refused(detloss("doctor", "mine.py:focal", "--like", "nobody"), "like is 'nobody'")
    refused(detloss("doctor", "mine.py:focal", "--time-limit", "0"), "time_limit is 0")
    refused(detloss("doctor", "mine.py:focal", "--kind", "audio"), "kind")
    refused(detloss("doctor", "mine.py:focal", "--call", "loss"), "call is 'loss'; it must be a lambda")
    assert sorted(path.name for path in here.iterdir()) == ["mine.py"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("off", [0.0, 0.3])
def test_the_picture_shows_differences_only_where_there_are_any(known, off):
    from detloss.lab.doctor.figures import loss_beside_known

    line = {"label": "t = 1", "value": [1.0, 2.0, None], "gradient": [0.0, off, 1.0]}
    line |= (
        {"known_value": [1.0, 2.0, 3.0], "known_gradient": [0.0, 0.0, 1.0]}
        if known
        else {
            "known_value": None,
            "known_gradient": None,
        }
    )
    curve = {"kind": "classification", "nearest": "focal", "x": [-1.0, 0.0, 1.0], "lines": [line]}
    figure = loss_beside_known(curve, "mine.py:loss")
    assert len(figure.axes) == (3 if known and off else 2)
    assert [len(ax.lines) for ax in figure.axes[:2]] == [1 + known, 1 + known]
    title = figure.get_suptitle()
    assert title == (
        "loss" if not known else "loss beside known focal" if off else "loss, equal to known focal"
    )
