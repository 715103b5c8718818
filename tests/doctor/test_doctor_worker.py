"""The doctor's process: what it tells, and what becomes of it when it hangs, crashes or takes all memory."""

import importlib
import sys
import textwrap
import time

import pytest

from detloss.doctor import CODES, Diagnosis, Finding, diagnose
from detloss.doctor.worker import NEEDED, STAGES, examine

module = importlib.import_module("detloss.doctor.diagnose")

GOOD = """\
    import torch.nn.functional as F
    def loss(x, t):
        return F.binary_cross_entropy_with_logits(x, t, reduction="none")
    """
BEGIN = """\
    import faulthandler, json, os, signal, sys, time
    spec = json.loads(sys.argv[1])
    trace = open(spec["trace"], "w")
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    def tell(**event):
        os.write(spec["pipe"], (json.dumps(event) + "\\n").encode())
    tell(stage="a stage")
    """


@pytest.fixture
def examined(tmp_path):
    """All events of an examination in this process."""

    def run(text, name="loss", kind="auto", like=None, skip=()):
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(text))
        seen = module.Seen()
        examine(f"{path}:{name}", kind, like, skip, seen.take)
        return seen

    return run


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """How a stand-in for the worker ends; it needs no torch, so it starts at once."""
    monkeypatch.setattr(module, "STAGE_SECONDS", 0.5)

    def run(body, seconds=20.0):
        file = tmp_path / "worker.py"
        file.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(body))
        seen, told = module.Seen(), []
        ended = module.watch([sys.executable, str(file)], {}, seconds, seen, tmp_path, told.append)
        assert told[0] == "a stage"
        return ended, seen

    return run


def test_every_stage_is_told_in_order_and_a_known_loss_is_named(examined):
    seen = examined(GOOD)
    assert tuple(seen.begun) == STAGES
    assert seen.match["name"] == "bce"
    assert seen.subject == {"kind": "classification", "chosen": {}}
    assert not [finding for finding in seen.findings if finding.level == "error"]
    assert set(seen.checked) <= set(STAGES)
    positive, negative = seen.curve["lines"]
    assert len(positive["value"]) == len(seen.curve["x"])
    assert positive["value"] == pytest.approx(positive["known_value"])
    assert negative["gradient"] == pytest.approx(negative["known_gradient"])


def test_stages_are_skipped(examined):
    skip = STAGES[len(NEEDED) :]
    seen = examined(GOOD, skip=skip)
    assert seen.match == {}
    assert seen.curve is None
    assert seen.checked == []


def test_what_cannot_be_called_ends_the_examination_with_its_reason(examined):
    seen = examined("def loss(x, t):\n    raise RuntimeError('never')\n")
    assert tuple(seen.begun) == NEEDED
    assert [finding.code for finding in seen.findings] == ["crashes"]
    assert seen.notes == ["nothing more could be examined"]


def test_a_probe_that_fails_is_a_note(examined, monkeypatch):
    def probe(subject, match):
        raise KeyError("a slip of the doctor's")

    monkeypatch.setitem(importlib.import_module("detloss.doctor.worker").PROBES, "alpha", probe)
    seen = examined(GOOD)
    assert any("alpha: not examined" in note for note in seen.notes)
    assert "its curve" in seen.begun


def test_a_worker_that_is_done(watched):
    ended, seen = watched('tell(note="n"); tell(done=True); time.sleep(60)')
    assert ended is None
    assert seen.notes == ["n"]


@pytest.mark.parametrize("body", ["while True:\n    pass", "time.sleep(60)"])
def test_what_hangs_is_ended_and_its_line_told(watched, body):
    began = time.monotonic()
    ended, _ = watched(f"def loss():\n    {body}\nloss()".replace("\n    pass", "\n        pass"))
    assert time.monotonic() - began < 10
    assert (ended.finding.code, ended.finding.level) == ("hangs", "error")
    assert ended.finding.evidence.startswith("worker.py:1")
    assert "a stage" in ended.finding.message


def test_running_out_of_the_whole_time_blames_nobody(watched, monkeypatch):
    monkeypatch.setattr(module, "STAGE_SECONDS", 20)
    ended, _ = watched("while True:\n    time.sleep(0.01)\n    tell(stage='the next')", 0.6)
    assert ended.finding is None


@pytest.mark.parametrize(
    ("body", "words", "line"),
    [
        ("os._exit(7)", "status 7", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", False),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", True),
        ("os.abort()", "SIGABRT", True),
    ],
)
def test_what_ends_the_process_is_told_with_its_line_where_one_was_left(watched, body, words, line):
    ended, _ = watched(body)
    assert (ended.finding.code, ended.finding.level) == ("crashes", "error")
    assert words in ended.finding.message
    assert ended.finding.evidence.startswith("worker.py:9: ") == line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_what_takes_all_memory_is_ended(watched, monkeypatch):
    monkeypatch.setattr(module, "STAGE_SECONDS", 20)
    monkeypatch.setattr(module, "_memory_allowed", lambda: 100 << 20)
    ended, _ = watched("keep = [bytearray(b'1') * (200 << 20)]\ntime.sleep(60)")
    assert ended.finding.code == "crashes"
    assert "0.1 GiB" in ended.finding.message
    assert ended.finding.evidence.startswith("worker.py:")


def test_children_of_the_worker_end_with_it(watched, tmp_path):
    ended, _ = watched(
        f"""\
        if os.fork() == 0:
            time.sleep(3)
            open({str(tmp_path / "left")!r}, "w")
            os._exit(0)
        tell(done=True)
        """
    )
    assert ended is None
    time.sleep(0.2)
    assert not (tmp_path / "left").exists()


def finding(code="python-loop", level="warning", evidence="mine.py:3: for", message="a loop"):
    return Finding(code, level, message, evidence, "do it otherwise")


def test_a_line_is_told_once_and_what_was_measured_joins_what_was_read():
    read, again = finding(), finding(message="the same line")
    measured = finding(level="error", evidence="63 operations, then 843")
    (one,) = module.merged([read, again, measured])
    assert one.level == "error"
    assert one.evidence == "mine.py:3: for; 63 operations, then 843"
    other = finding(evidence="mine.py:9: for")
    assert module.merged([read, other]) == [read, other]
    broadcast = [finding("silent-broadcast", evidence=text, message=text) for text in ("a", "b", "a")]
    assert len(module.merged(broadcast)) == 2
    nowhere = [
        finding("undefined-name", message=f"`{name}` is defined nowhere", evidence="mine.py:3: x + y")
        for name in "xy"
    ]
    called = finding("undefined-name", message="called: NameError: name 'x' is not defined")
    assert module.merged([*nowhere, called]) == nowhere


def test_errors_come_first_and_fail_a_diagnosis():
    seen = module.Seen(findings=[finding(level="note"), finding("no-eps", "error", "a", "b")])
    diagnosis = module._diagnosis("mine.py:loss", seen, "hello\nthere\n")
    assert [one.level for one in diagnosis.findings] == ["error", "note"]
    assert diagnosis.failed
    assert diagnosis.notes == ("it prints: hello (the first of 2 lines)",)
    assert not Diagnosis("s", None, findings=(finding(),)).failed
    assert set(diagnosis.to_dict()) == {"matches", "convention", "findings"}
    with pytest.raises(ValueError, match="code is 'nonsense'"):
        finding("nonsense")
    assert len(set(CODES)) == 24


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"target": "nothing"}, "names no loss"),
        ({"target": "no/such.py:loss"}, "No such file"),
        ({"like": "nobody"}, "like is 'nobody'; it may be detloss"),
        ({"kind": "audio"}, "kind is 'audio'; it may be auto"),
        ({"time_limit": 0}, "time_limit is 0; it must be"),
    ],
)
def test_bad_arguments_start_no_process(more, words, monkeypatch):
    monkeypatch.setattr(module, "watch", None)
    with pytest.raises(ValueError, match=words):
        diagnose(**{"target": "detloss:sigmoid_focal_loss", **more})


def test_a_file_that_is_no_python_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "watch", None)
    (tmp_path / "mine.py").write_text("def loss(x, t):\nreturn x\n")
    diagnosis = diagnose(f"{tmp_path / 'mine.py'}:loss")
    assert [(one.code, one.level) for one in diagnosis.findings] == [("crashes", "error")]
    assert "IndentationError" in diagnosis.findings[0].message


@pytest.mark.slow
def test_after_a_stage_that_hangs_another_worker_makes_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STAGE_SECONDS", 6)
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """\
            import torch.nn.functional as F
            print("loaded")
            def loss(x, t):
                while len(x) == 0:
                    pass
                return F.binary_cross_entropy_with_logits(x, t, reduction="none")
            """
        )
    )
    stages = []
    diagnosis = diagnose(
        f"{tmp_path / 'mine.py'}:loss", progress=lambda done, total, stage: stages.append(stage)
    )
    (hangs,) = [one for one in diagnosis.findings if one.code == "hangs"]
    assert hangs.evidence.startswith("mine.py:")
    assert "empty batches" in hangs.message
    assert diagnosis.matches == "bce"
    assert stages[-1] == "its curve"
    assert diagnosis.curve is not None
    assert diagnosis.notes == ("it prints: loaded (the first of 2 lines)",)
    assert not any("not examined" in note for note in diagnosis.notes)


@pytest.mark.slow
def test_the_network_is_refused_and_the_standard_input_is_empty(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import socket\ndef net(x, t):\n    socket.create_connection(('127.0.0.1', 1))\n    return x\n"
        "def asks(x, t):\n    input('which? ')\n    return x\n"
    )
    for name, words in (("net", "without network"), ("asks", "EOFError")):
        diagnosis = diagnose(f"{tmp_path / 'mine.py'}:{name}")
        assert any(words in one.message for one in diagnosis.findings)
