"""`diagnose`: a process that hangs is followed by another, and all that was told becomes one diagnosis."""

import importlib

import pytest

from detloss.lab.doctor import Diagnosis, Finding, diagnose
from detloss.lab.doctor.examine import NEEDED, PROBES, STAGES
from detloss.lab.processes import End

module = importlib.import_module("detloss.lab.doctor.diagnose")
GOOD = "def loss(x, t):\n    return F.binary_cross_entropy_with_logits(x, t, reduction='none')\n"


def finding(level="warning", evidence="mine.py:3: for"):
    return Finding("python-loop", level, "a loop", evidence, "do it otherwise")


def test_every_stage_is_told_in_order_and_a_known_loss_is_named(examined):
    seen = examined(GOOD)
    assert tuple(seen.begun) == STAGES
    assert seen.match["name"] == "bce"
    assert seen.subject == {"kind": "classification", "chosen": {}}
    assert seen.findings == []
    assert set(seen.checked) == set(PROBES)
    positive, negative = seen.curve["lines"]
    assert positive["value"] == pytest.approx(positive["known_value"])
    assert negative["gradient"] == pytest.approx(negative["known_gradient"])


def test_stages_are_skipped(examined):
    seen = examined(GOOD, skip=STAGES[len(NEEDED) :])
    assert (seen.match, seen.curve, seen.checked) == ({}, None, [])


def test_a_probe_that_fails_is_a_note(examined, monkeypatch):
    def probe(subject, match):
        raise KeyError("a slip of the doctor's")

    monkeypatch.setitem(PROBES, "alpha", probe)
    seen = examined(GOOD)
    assert any(note.startswith("not examined: alpha") for note in seen.notes)
    assert seen.begun[-1] == "its curve"


def test_errors_come_first_and_fail_a_diagnosis():
    seen = module.Seen(findings=[finding("note"), finding("error", "b"), finding("note")])
    diagnosis = module._diagnosis("mine.py:loss", seen, "hello\nthere\n")
    assert [one.level for one in diagnosis.findings] == ["error", "note"]
    assert diagnosis.failed
    assert diagnosis.notes == ("it prints: hello (the first of 2 lines)",)
    assert not Diagnosis("s", None, findings=(finding(),)).failed
    unknown = Finding("not-examined", "note", "not examined, because so", "loss(x)", "say")
    for findings, status in (
        ((), "no error"),
        ((unknown,), "not examined"),
        ((finding("error"), unknown), "errors"),
    ):
        assert Diagnosis("s", None, findings=findings).status == status
    assert set(diagnosis.to_dict()) == {"status", "matches", "convention", "findings"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"target": "nothing"}, "names no loss"),
        ({"target": "no/such.py:loss"}, "No such file"),
        ({"like": "nobody"}, "like is 'nobody'; it may be detloss"),
        ({"kind": "audio"}, "kind is 'audio'; it may be auto"),
        ({"time_limit": 0}, "time_limit is 0; it must be"),
        ({"call": "loss(x, t)"}, "call is 'loss\\(x, t\\)'; it must be a lambda"),
        ({"call": "lambda x, t: x"}, "must be a lambda of a loss, predictions and targets"),
        ({"call": "lambda loss, x, t: ("}, "which is not Python"),
    ],
)
def test_bad_arguments_start_no_process(more, words, monkeypatch):
    monkeypatch.setattr(module, "supervise", None)
    with pytest.raises(ValueError, match=words):
        diagnose(**{"target": "detloss:sigmoid_focal_loss", **more})


def test_a_file_that_is_not_python_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "supervise", None)
    (tmp_path / "mine.py").write_text("def loss(x, t):\nreturn x\n")
    diagnosis = diagnose(f"{tmp_path / 'mine.py'}:loss")
    (one,) = diagnosis.findings
    assert (one.code, one.level, one.evidence) == ("crashes", "error", "mine.py:2: return x")
    assert "IndentationError" in one.message


def test_after_a_stage_that_is_late_another_process_makes_the_rest(written, monkeypatch):
    calls = []

    def supervise(command, spec, take, printed, seconds, stage_seconds):
        printed.touch()
        calls.append((spec["skip"], seconds))
        for stage in STAGES if calls[1:] else STAGES[:9]:
            take({"stage": stage})
        return End("done") if calls[1:] else End("late", "20", "mine.py:7: while x:", 21.0)

    monkeypatch.setattr(module, "supervise", supervise)
    told = []
    diagnosis = diagnose(written(GOOD), progress=lambda done, total, stage: told.append(stage))
    (one,) = diagnosis.findings
    assert (one.code, one.evidence) == ("hangs", "mine.py:7: while x:")
    assert STAGES[8] in one.message
    assert calls == [([], 60.0), (list(STAGES[:9]), 39.0)]
    assert told[-1] == "its curve"


def test_what_is_left_out_is_told(written, monkeypatch):
    def supervise(command, spec, take, printed, seconds, stage_seconds):
        printed.touch()
        for stage in STAGES[:6]:
            take({"stage": stage})
        return End("out of time", seconds=60.0)

    monkeypatch.setattr(module, "supervise", supervise)
    diagnosis = diagnose(written(GOOD))
    assert diagnosis.findings == ()
    assert "not examined within 60 s" in diagnosis.notes[-1]


@pytest.mark.slow
def test_a_process_of_its_own_from_end_to_end(written, monkeypatch):
    monkeypatch.setattr(module, "STAGE_SECONDS", 6)
    text = """
        print("loaded")
        def loss(x, t):
            while len(x) == 0:
                pass
            return F.binary_cross_entropy_with_logits(x, t, reduction="none")
        """
    diagnosis = diagnose(written(text))
    (hangs,) = [one for one in diagnosis.findings if one.code == "hangs"]
    assert hangs.evidence.startswith("mine.py:")
    assert "empty batches" in hangs.message
    assert diagnosis.matches == "bce"
    assert diagnosis.curve is not None
    assert diagnosis.notes == ("it prints: loaded (the first of 2 lines)",)


@pytest.mark.slow
def test_the_network_is_refused_and_the_standard_input_is_empty(written):
    text = """
        import socket
        def net(x, t):
            socket.create_connection(('127.0.0.1', 1))
            return x
        def asks(x, t):
            input('which? ')
            return x
        """
    for name, words in (("net", "without network"), ("asks", "EOFError")):
        diagnosis = diagnose(written(text, name))
        assert any(words in one.message for one in diagnosis.findings)
