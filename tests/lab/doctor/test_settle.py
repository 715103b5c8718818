"""The form in which a loss is called is found by trial calls, and the subject then gives its own values."""

import textwrap

import pytest
import torch
from torch.nn import functional as F

import detloss
from detloss.boxes import box_convert, paired_box_iou
from detloss.lab.doctor.forms import call_in_form
from detloss.lab.doctor.loading import load

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 2.0, -1.0]], dtype=torch.float64)
DENSE = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
CLASSES = torch.tensor([0, 2])
BCE = F.binary_cross_entropy_with_logits(LOGITS, DENSE, reduction="none")
CE = F.cross_entropy(LOGITS, CLASSES, reduction="none")


def same(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("body", "expected", "takes"),
    [
        ("F.binary_cross_entropy_with_logits(x, t, reduction='none')", BCE, "logits"),
        ("F.binary_cross_entropy(x.clamp(1e-12, 1 - 1e-12), t, reduction='none')", BCE, "probabilities"),
        ("{'loss': F.binary_cross_entropy_with_logits(x, t)}", BCE.mean(), "logits"),
        ("F.cross_entropy(x, t)", CE.mean(), "logits"),
        ("F.nll_loss(x, t, reduction='sum')", CE.sum(), "log-probabilities"),
        ("-x.gather(1, t[:, None]).log().mean()", CE.mean(), "probabilities"),
        ("-(t * x.log_softmax(-1)).sum(-1)", CE, "logits"),
        ("F.cross_entropy(x.reshape(x.shape[0], x.shape[1], x.shape[2], -1), t)", CE.mean(), "logits"),
    ],
)
def test_values_of_losses_of_logits(settled, body, expected, takes):
    subject, _ = settled(f"def loss(x, t):\n    return {body}\n")
    assert subject.form.takes == takes
    same(subject(LOGITS, DENSE if subject.kind == "classification" else CLASSES), expected)


A = torch.tensor([[0.0, 0, 4, 4], [1, 2, 5, 8]], dtype=torch.float64)
B = torch.tensor([[1.0, 0, 5, 6], [9, 9, 12, 11]], dtype=torch.float64)
SIDES = {
    "xyxy": "lambda b: (b[..., 0], b[..., 1], b[..., 2], b[..., 3])",
    "cxcywh": "lambda b: (b[..., 0] - b[..., 2] / 2, b[..., 1] - b[..., 3] / 2,"
    " b[..., 0] + b[..., 2] / 2, b[..., 1] + b[..., 3] / 2)",
    "xywh": "lambda b: (b[..., 0], b[..., 1], b[..., 0] + b[..., 2], b[..., 1] + b[..., 3])",
}


@pytest.mark.parametrize("fmt", SIDES)
@pytest.mark.parametrize(
    "pair",
    [
        "(sides(a), sides(b), 1)",
        "(sides(a[:, None]), sides(b[None]), 1)",
        "(sides(a[:, None, :]), sides(b[:, None, :]), 1)",
        "(sides(a if a.ndim == 1 else 0), sides(b.T.T if b.ndim == 2 else 0), 1)",
    ],
)
def test_formats_and_pairings_of_boxes(settled, fmt, pair):
    text = f"""\
        sides = {SIDES[fmt]}

        def iou(x1, y1, x2, y2, u1, v1, u2, v2):
            w, h = torch.min(x2, u2) - torch.max(x1, u1), torch.min(y2, v2) - torch.max(y1, v1)
            inter = w.clamp(0) * h.clamp(0)
            return inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter + 1e-7)

        def box_loss(a, b):
            first, second, _ = {pair}
            return 1 - iou(*first, *second)
        """
    subject, _ = settled(text, "box_loss")
    assert (subject.kind, subject.form.fmt) == ("box", fmt)
    same(subject(A, B), 1 - paired_box_iou(A, B, "iou"))
    if pair == "(sides(a), sides(b), 1)":
        one = tuple(box_convert(boxes[:1], "xyxy", fmt) for boxes in (A, B))
        same(subject.loaded(*one), 1 - paired_box_iou(A[:1], B[:1], "iou"))


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize(
    "arguments",
    [
        "x, t",
        "x.reshape(-1, 4, 9), t.view(-1, 4)",
        "x.view(-1, 4, 9), t.view(-1, 4)",
        "x.view(-1, 9), t.view(-1)",
    ],
)
def test_layouts_of_distributions(settled, arguments, reduction):
    text = f"""\
        from detloss import distribution_focal_loss
        def dfl(x, t):
            assert t.shape[1:] == (4,) or "4" not in "{arguments}"
            return distribution_focal_loss({arguments}, reduction="{reduction}")
        """
    subject, _ = settled(text, "dfl")
    assert (subject.kind, subject.reduction) == ("distribution", reduction)
    logits, distance = torch.randn(6, 9), torch.tensor([0.3, 7.2, 3.0, 4.9, 1.5, 6.6])
    same(subject(logits, distance), detloss.distribution_focal_loss(logits, distance, reduction))


def test_constructors_get_what_their_arguments_are_called(settled):
    text = """\
        class Loss(nn.Module):
            def __init__(self, class_num, criterion, alpha, gamma=2.0):
                super().__init__()
                self.weight = torch.ones(class_num)
                self.criterion, self.alpha, self.gamma = criterion, alpha, gamma
            def forward(self, pred, target):
                ce = self.criterion(pred, target) * self.weight[: pred.shape[1]].mean()
                return self.alpha * self.gamma * ce
        """
    subject, findings = settled(text, "Loss")
    assert subject.chosen == {
        "class_num": "the number of columns",
        "criterion": "torch.nn.BCEWithLogitsLoss()",
        "alpha": "0.25",
    }
    same(subject(LOGITS, DENSE), 0.5 * BCE.mean())
    same(subject.with_hyper(gamma=3.0, alpha=1.0)(LOGITS, DENSE), 3 * BCE.mean())
    same(subject(LOGITS[:, :1], DENSE[:, :1]), 0.5 * BCE[:, :1].mean())
    assert findings == []


def test_class_indices_say_what_they_cannot_take(settled):
    text = """\
        def loss(x, labels):
            t = F.one_hot(labels, x.shape[1] + 1)[:, :-1].to(x.dtype)
            return F.binary_cross_entropy_with_logits(x, t)
        """
    subject, _ = settled(text)
    same(subject(LOGITS, DENSE), BCE.mean())
    with pytest.raises(ValueError, match="at most one class per row"):
        subject(LOGITS, torch.ones_like(LOGITS))


@pytest.mark.parametrize("count", [2, 4])
def test_weights_of_classes_fix_their_number(settled, count):
    weights = torch.arange(1.0, count + 1).tolist()
    subject, _ = settled(f"loss = nn.CrossEntropyLoss(weight=torch.tensor({weights}))")
    assert (subject.kind, subject.classes) == ("softmax", count)
    assert subject.chosen["classes"].startswith(str(count))


def test_bins_by_a_default(settled):
    for last, expected in (
        ("reg_max - 1", "the number of columns"),
        ("reg_max", "the number of columns less one"),
    ):
        subject, found = settled(f"""
            class loss:
                def __init__(self, reg_max=16):
                    self.last = {last}

                def __call__(self, dist, target):
                    y = target.clamp(0, self.last - 0.01)
                    left = y.long()
                    first = F.cross_entropy(dist, left, reduction="none") * (left + 1 - y)
                    return first + F.cross_entropy(dist, left + 1, reduction="none") * (y - left)
        """)
        assert (subject.kind, found) == ("distribution", [])
        assert subject.chosen["reg_max"] == expected


def test_a_file_of_a_package_may_import_its_siblings(tmp_path):
    package = tmp_path / "doctors_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("SCALE = 3\n")
    (package / "whole.py").write_text(
        "from .part import SCALE\n\ndef loss(x, t):\n    return SCALE * (x - t)\n"
    )
    loaded = load(f"{package / 'whole.py'}:loss", {})
    same(loaded(LOGITS, DENSE), 3 * (LOGITS - DENSE))


def test_a_file_that_lacks_names_is_run_once(written, capsys):
    text = """
        print("run")
        SCALE = eps + pi

        def loss(x: Tensor, t: Optional[Tensor]):
            return eps * math.floor(SCALE) * (x - t)
        """
    loaded = load(written(textwrap.dedent(text), head=""), findings := {})
    same(loaded(LOGITS, DENSE), 3e-7 * (LOGITS - DENSE))
    assert capsys.readouterr().out == "run\n"
    lines = {one.remedy.split("`")[1]: int(one.evidence.split(":")[1]) for one in findings}
    assert lines == {
        "eps = 1e-7": 3,
        "from math import pi": 3,
        "from torch import Tensor": 5,
        "from typing import Optional": 5,
        "import math": 6,
    }
    assert loaded.names.constants == ["eps"]


@pytest.mark.parametrize(
    "name", ["sigmoid_focal_loss", "QualityFocalLoss", "softmax_focal_loss", "box_iou_loss"]
)
def test_modules_are_loaded_by_name_with_their_source(name):
    loaded = load(f"detloss:{name}", findings := {})
    assert loaded.names.source.path.parent.name == "losses"
    assert findings == {}


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("loss = 3", "loss", "is int"),
        ("class Loss: pass", "Loss", "cannot be called"),
        ("class Loss: pass", "Loss.forward", "no 'forward'"),
        ("class A:\n    def __init__(self, q): ...\n    def f(self, x, t): ...", "A.f", "is a method"),
        ("def loss(x, t):\n    return x", "los", "did you mean 'loss'"),
        ("def loss(x, t):\n    return x", "qqq", "it has loss"),
        ('if __name__ == "__main__":\n    def loss(x, t):\n        return x\n', "loss", "runs as a script"),
    ],
)
def test_a_name_that_is_not_there(written, text, name, words):
    with pytest.raises(ValueError, match=words):
        load(written(textwrap.dedent(text), name), {})


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("loss", "names no loss"),
        ("mine.py", "names no loss"),
        ("mine.py:", "names no loss"),
        ("no/such.py:loss", "No such file"),
        ("no_such_module_at_all:loss", "no module 'no_such_module_at_all'"),
        ("torch.nn.functional:cross_entropi", "did you mean 'cross_entropy'"),
        ("not a module:loss", "neither a file nor a module"),
    ],
)
def test_a_target_that_is_not_there(target, words):
    with pytest.raises(ValueError, match=words):
        load(target, {})


def test_a_form_gives_what_the_loss_gives(settled):
    subject, _ = settled("def loss(x, t):\n    return F.binary_cross_entropy_with_logits(x, t)\n")
    same(call_in_form(subject.form, subject.loaded, LOGITS, DENSE), BCE.mean())
