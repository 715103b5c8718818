"""Anybody's loss is loaded and the form in which it is called is found by trial calls."""

import functools
import re
import textwrap

import pytest
import torch
from doctor_subjects import HEAD
from torch.nn import functional as F

import detloss
from detloss.boxes import box_convert, paired_box_iou
from detloss.doctor.calling.load import load
from detloss.doctor.calling.settle import settle

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 2.0, -1.0]], dtype=torch.float64)
DENSE = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
CLASSES = torch.tensor([0, 2])
BCE = F.binary_cross_entropy_with_logits(LOGITS, DENSE, reduction="none")
CE = F.cross_entropy(LOGITS, CLASSES, reduction="none")


def same(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("body", "expected", "reduction"),
    [
        ("F.binary_cross_entropy_with_logits(x, t, reduction='none')", BCE, "none"),
        ("F.binary_cross_entropy_with_logits(x, t)", BCE.mean(), "mean"),
        ("F.binary_cross_entropy_with_logits(x, t, reduction='sum')", BCE.sum(), "sum"),
        (
            "F.binary_cross_entropy_with_logits(x, t, reduction='none').mean(1).sum()",
            BCE.mean(1).sum(),
            "sum",
        ),
        ("F.binary_cross_entropy_with_logits(x, t, reduction='none').sum(1)", BCE.sum(1), "other"),
        ("F.binary_cross_entropy(x, t, reduction='none')", BCE, "none"),
        ("F.binary_cross_entropy(x.clamp(1e-12, 1 - 1e-12), t, reduction='none')", BCE, "none"),
        ("{'loss': F.binary_cross_entropy_with_logits(x, t)}", BCE.mean(), "mean"),
        ("(F.binary_cross_entropy_with_logits(x, t), 0.5)", BCE.mean(), "mean"),
        (
            "F.binary_cross_entropy_with_logits(x, F.one_hot(t, x.shape[1] + 1)[:, :-1].double())",
            BCE.mean(),
            "mean",
        ),
    ],
)
def test_losses_of_sigmoids(settled, body, expected, reduction):
    subject, findings = settled(f"def loss(x, t):\n    return {body}\n")
    assert (subject.kind, subject.reduction) == ("classification", reduction)
    same(subject.call(LOGITS, DENSE), expected)
    takes_p = "entropy(x" in body
    assert subject.probabilities == takes_p
    assert [f.code for f in findings] == ["probabilities-not-logits"] * takes_p


@pytest.mark.parametrize(
    ("body", "expected", "probabilities"),
    [
        ("F.cross_entropy(x, t, reduction='none')", CE, False),
        ("F.cross_entropy(x, t)", CE.mean(), False),
        ("-(x.softmax(-1).gather(1, t[:, None]) + 0).log()", CE, False),
        ("F.nll_loss(x, t, reduction='sum')", CE.sum(), True),
        ("-x.gather(1, t[:, None]).log().mean()", CE.mean(), True),
        ("-(t * x.log_softmax(-1)).sum(-1)", CE, False),
        ("-(t * (x + 1e-12).log()).sum(-1).mean()", CE.mean(), True),
        ("F.cross_entropy(x.reshape(x.shape[0], x.shape[1], x.shape[2], x.shape[3]), t)", CE.mean(), False),
    ],
)
def test_losses_of_a_softmax(settled, body, expected, probabilities):
    subject, findings = settled(f"def loss(x, t):\n    return {body}\n")
    assert (subject.kind, subject.probabilities) == ("softmax", probabilities)
    same(subject.call(LOGITS, CLASSES), expected)
    assert [f.code for f in findings] == ["probabilities-not-logits"] * probabilities


A = torch.tensor([[0.0, 0, 4, 4], [1, 2, 5, 8]], dtype=torch.float64)
B = torch.tensor([[1.0, 0, 5, 6], [9, 9, 12, 11]], dtype=torch.float64)
IOU_OF_SIDES = """\
    def iou(x1, y1, x2, y2, u1, v1, u2, v2):
        w, h = torch.min(x2, u2) - torch.max(x1, u1), torch.min(y2, v2) - torch.max(y1, v1)
        inter = w.clamp(0) * h.clamp(0)
        return inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter + 1e-7)
    """


@pytest.mark.parametrize(
    ("sides", "fmt"),
    [
        ("lambda b: (b[..., 0], b[..., 1], b[..., 2], b[..., 3])", "xyxy"),
        (
            "lambda b: (b[..., 0] - b[..., 2] / 2, b[..., 1] - b[..., 3] / 2,"
            " b[..., 0] + b[..., 2] / 2, b[..., 1] + b[..., 3] / 2)",
            "cxcywh",
        ),
        ("lambda b: (b[..., 0], b[..., 1], b[..., 0] + b[..., 2], b[..., 1] + b[..., 3])", "xywh"),
    ],
)
@pytest.mark.parametrize(
    "pair",
    [
        "(sides(a), sides(b), 1)",
        "(sides(a[:, None]), sides(b[None]), 1)",
        "(sides(a[:, None, :]), sides(b[:, None, :]), 1)",
        "(sides(a if a.ndim == 1 else 0), sides(b.T.T if b.ndim == 2 else 0), 1)",
    ],
)
def test_formats_and_pairings_of_boxes(settled, sides, fmt, pair):
    text = (
        textwrap.dedent(IOU_OF_SIDES)
        + f"sides = {sides}\n"
        + textwrap.dedent(
            f"""\
        def box_loss(a, b):
            first, second, _ = {pair}
            return 1 - iou(*first, *second)
        """
        )
    )
    subject, _ = settled(text, "box_loss")
    assert (subject.kind, subject.fmt) == ("box", fmt)
    same(subject.call(A, B), 1 - paired_box_iou(A, B, "iou"))
    one = tuple(box_convert(boxes[:1], "xyxy", fmt) for boxes in (A, B))
    if pair == "(sides(a), sides(b), 1)":
        same(subject.raw(*one), 1 - paired_box_iou(A[:1], B[:1], "iou"))


@pytest.mark.parametrize("end", ["2:4", "2:"])
def test_boxes_are_no_logits_whatever_their_names(settled, end):
    text = f"""\
        def loss(p, t):
            low, high = torch.max(p[..., :2], t[..., :2]), torch.min(p[..., {end}], t[..., {end}])
            inter = (high - low).clamp(0).prod(-1)
            areas = sum((one[..., {end}] - one[..., :2]).prod(-1) for one in (p, t))
            return 1 - inter / (areas - inter + 1e-7)
        """
    subject, _ = settled(text)
    assert (subject.kind, subject.fmt) == ("box", "xyxy")
    same(subject.call(A, B), 1 - paired_box_iou(A, B, "iou"))


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
    same(subject.call(logits, distance), detloss.distribution_focal_loss(logits, distance, reduction))


@pytest.mark.parametrize("clamp", [True, False])
def test_a_distance_in_the_last_bin(settled, clamp):
    text = f"""\
        def dfl(logits, y):
            y = y.clamp(0, logits.shape[-1] - 1.01) if {clamp} else y
            left = y.long()
            one, other = (F.cross_entropy(logits, bin, reduction="none") for bin in (left, left + 1))
            return one * (left + 1 - y) + other * (y - left)
        """
    _, findings = settled(text, "dfl")
    assert [(f.code, f.level) for f in findings] == ([] if clamp else [("crashes", "warning")])


def test_targets_may_come_first(settled):
    subject, _ = settled(
        "def loss(y_true, y_pred):\n    return F.binary_cross_entropy_with_logits(y_pred, y_true)\n"
    )
    assert "targets first" in subject.chosen["order"]
    same(subject.call(LOGITS, DENSE), BCE.mean())


def test_what_takes_one_column_only_is_flattened_and_its_broadcasting_told(settled):
    text = """\
        def loss(x, t):
            ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
            weight = torch.tensor([0.75, 0.25]).gather(0, t.long().view(-1))
            return (weight * ce).mean()
        """
    subject, findings = settled(text)
    assert not subject.columns
    same(subject.call(LOGITS.float(), DENSE.float()), (BCE * (0.75 - 0.5 * DENSE)).mean().float())
    assert [(f.code, f.level) for f in findings] == [("crashes", "warning"), ("silent-broadcast", "error")]
    assert "mine.py:9" in findings[0].evidence


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
    assert subject.takes == ("class_num", "criterion", "alpha", "gamma")
    same(subject.call(LOGITS, DENSE), 0.5 * BCE.mean())
    same(subject.rebuild(gamma=3.0, alpha=1.0).call(LOGITS, DENSE), 3 * BCE.mean())
    same(subject.call(LOGITS[:, :1], DENSE[:, :1]), 0.5 * BCE[:, :1].mean())
    assert findings == []


def test_a_constructor_that_changes_what_it_is_given(settled):
    text = """\
        class Loss(nn.Module):
            def __init__(self, loss_fcn):
                super().__init__()
                self.loss_fcn = loss_fcn
                self.loss_fcn.reduction = "none"
            def forward(self, pred, target):
                return self.loss_fcn(pred, target).mean()
        """
    _, (finding,) = settled(text, "Loss")
    assert (finding.code, finding.level) == ("mutates-input", "warning")
    assert finding.evidence.startswith("mine.py:10:")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("built = nn.BCEWithLogitsLoss()", "built"),
        ("part = functools.partial(F.binary_cross_entropy_with_logits, reduction='mean')", "part"),
        ("short = lambda x, t: F.binary_cross_entropy_with_logits(x, t)", "short"),
        ("class Holder:\n    loss = staticmethod(F.binary_cross_entropy_with_logits)", "Holder.loss"),
        (
            "class Own:\n    def loss(self, x, t):\n        return bce(x, t)",
            "Own.loss",
        ),
        (
            "class Call:\n    def __call__(self, x, t):\n        return bce(x, t)",
            "Call",
        ),
        ("def loss(x, t, weight):\n    return bce(x, t, weight)", "loss"),
    ],
)
def test_all_that_can_be_called_works(settled, line, name):
    subject, _ = settled(f"bce = F.binary_cross_entropy_with_logits\n{line}", name)
    same(subject.call(LOGITS, DENSE), BCE.mean())


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU; the doctor hides it in its own process"
)
def test_a_gpu_that_is_not_there_is_told_and_done_without(settled):
    text = """\
        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = torch.tensor(2.0).cuda()
            def forward(self, x, t):
                return self.scale * F.binary_cross_entropy_with_logits(x, t)
        """
    subject, (finding,) = settled(text, "Loss")
    assert (finding.code, finding.level) == ("device-hardcoded", "error")
    assert finding.evidence.startswith("mine.py:9:")
    same(subject.call(LOGITS, DENSE), 2 * BCE.mean())


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU; the doctor hides it in its own process"
)
def test_a_gpu_asked_for_when_the_file_is_imported_is_done_without(settled):
    text = """\
        SCALE = torch.ones(1, device="cuda").cuda()
        def loss(x, t):
            return SCALE.to(x) * F.binary_cross_entropy_with_logits(x, t)
        """
    subject, _ = settled(text)
    same(subject.call(LOGITS, DENSE), BCE.mean().view(1))


def test_names_left_undefined_get_their_usual_meaning(settled):
    text = """\
        class Loss(nn.Module):
            def __init__(self):
                super(Other, self).__init__()
            def forward(self, x, t):
                union = (x.exp() + t + eps)
                return F.binary_cross_entropy_with_logits(x, t) + 0 * union.mean()
        """
    subject, _ = settled(text, "Loss", head="")
    assert "eps" in subject.chosen
    same(subject.call(LOGITS, DENSE), BCE.mean())


def test_a_missing_eps_that_is_needed(settled):
    text = """\
        import torch
        def iou(a, b):
            low, high = torch.max(a[:, :2], b[:, :2]), torch.min(a[:, 2:], b[:, 2:])
            inter = (high - low).clamp(0).prod(-1)
            return inter / ((a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - inter + eps)
        """
    _, (finding,) = settled(text, "iou", head="")
    assert (finding.code, finding.level) == ("no-eps", "error")
    assert "nan" in finding.evidence
    _, findings = settled(text.replace("inter + eps", "inter + eps + 1e-9"), "iou", head="")
    assert findings == []


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise RuntimeError('never')", "crashes", "RuntimeError: never"),
        ("return x.reshape(-1, 11) - t", "crashes", "RuntimeError"),
        ("return F.binary_cross_entropy_with_logits(x, t).item()", "not-differentiable", "float"),
        ("print(x)", "no-return", "nothing"),
        ("return lost(x)", "undefined-name", "lost"),
        ("raise SystemExit(3)", "crashes", r"sys.exit\(3\)"),
        ("return loss(x, t)", "crashes", "RecursionError"),
    ],
)
def test_what_works_in_no_form_ends_with_its_reason(refused, body, code, words):
    finding = refused(f"def loss(x, t):\n    {body}\n")
    assert (finding.code, finding.level) == (code, "error")
    assert re.search(words, finding.message)


def test_what_cannot_be_loaded(settled, refused, tmp_path, monkeypatch):
    assert refused("1 / 0\ndef loss(x, t):\n    return x\n").evidence == "mine.py:6: 1 / 0"
    assert "`magic` must be given" in refused("def loss(x, t, magic):\n    return x * magic\n").message
    for text, name, words in (
        ("loss = 3", "loss", "is int"),
        ("class Loss: pass", "Loss", "cannot be called"),
        ("class Loss: pass", "Loss.forward", "no 'forward'"),
        ("class A:\n    def __init__(self, q): ...\n    def f(self, x, t): ...", "A.f", "is a method"),
    ):
        with pytest.raises(ValueError, match=words):
            settled(text, name)
    for target, words in (
        ("loss", "names no loss"),
        ("mine.py", "names no loss"),
        ("mine.py:", "names no loss"),
        ("no/such.py:loss", "No such file"),
        ("no_such_module_at_all:loss", "no module 'no_such_module_at_all'"),
        ("torch.nn.functional:cross_entropi", "did you mean 'cross_entropy'"),
        ("not a module:loss", "neither a file nor a module"),
    ):
        with pytest.raises(ValueError, match=words):
            load(target)


def test_a_file_of_a_package_may_import_its_siblings(tmp_path, settled):
    package = tmp_path / "doctors_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("SCALE = 3\n")
    (package / "whole.py").write_text(
        HEAD
        + "from .part import SCALE\n"
        + "def loss(x, t):\n    return SCALE * F.binary_cross_entropy_with_logits(x, t)\n"
    )
    subject, _ = settle(load(f"{package / 'whole.py'}:loss"))
    same(subject.call(LOGITS, DENSE), 3 * BCE.mean())


@pytest.mark.parametrize(
    "name", ["sigmoid_focal_loss", "QualityFocalLoss", "softmax_focal_loss", "box_iou_loss"]
)
def test_modules_are_loaded_by_name_with_their_source(name):
    loaded = load(f"detloss:{name}")
    assert loaded.source is not None
    assert loaded.source.path.parent.name == "losses"
    subject, findings = settle(loaded)
    assert subject.chosen == {}
    assert findings == []


def test_partial_keeps_its_source(tmp_path):
    (tmp_path / "mine.py").write_text(HEAD + "part = functools.partial(F.cross_entropy, reduction='sum')\n")
    subject, _ = settle(load(f"{tmp_path / 'mine.py'}:part"))
    assert isinstance(subject.raw.object, functools.partial)
    same(subject.call(LOGITS, CLASSES), CE.sum())
