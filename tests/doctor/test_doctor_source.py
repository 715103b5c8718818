"""What the text of a loss shows, without running it."""

import textwrap

import pytest

from detloss.doctor.calling.load import CannotExamine, parse
from detloss.doctor.reading.source import mend, read_source, source_findings


@pytest.fixture
def written(tmp_path):
    """Writes a file and reads it."""

    def write(text, name="loss"):
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(text))
        return read_source(path, name)

    return write


@pytest.fixture
def found(written):
    """(code, level, line) of all findings."""

    def find(text, name="loss"):
        findings = source_findings(written(text, name))
        return [(f.code, f.level, int(f.evidence.split(":")[1])) for f in findings]

    return find


CLEAN = """\
    import torch
    import torch.nn.functional as F
    from torch import nn

    EPS = 1e-7

    def helper(x):
        return x.clamp(min=EPS)

    class Loss(nn.Module):
        '''A docstring is no dead expression.'''

        def __init__(self, gamma=2.0):
            super().__init__()
            self.gamma = gamma

        def forward(self, inputs, targets, reduction="mean"):
            '''Nor is this one.'''
            inputs.register_hook(print)
            ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
            p = torch.sigmoid(inputs)
            p_t = p * targets + (1 - p) * (1 - targets)
            scale = torch.ones(3, device=inputs.device)
            loss = helper(ce * (1 - p_t) ** self.gamma) * scale.mean()
            rows = [level for level in (0, 1)]
            for level in rows:
                print(level)
            if reduction == "mean":
                return loss.mean()
            if reduction == "sum":
                return loss.sum()
            return loss
    """


def test_nothing_is_found_in_a_good_loss(found):
    assert found(CLEAN, "Loss") == []


def test_missing_imports_are_a_finding_each_with_the_line_that_is_missing(written):
    source = written(
        """\
        class Loss(nn.Module):
            def forward(self, x, t):
                return F.relu(x - t).sum() + math.pi
        """,
        "Loss",
    )
    remedies = {finding.message.split("`")[1]: finding.remedy for finding in source_findings(source)}
    assert remedies == {
        "nn": "add `import torch.nn as nn`",
        "F": "add `import torch.nn.functional as F`",
        "math": "add `import math`",
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return inter / (union + eps)", [("undefined-name", "error", 3)]),
        ("a = x if t else y\n    return a", [("undefined-name", "error", 3)]),
        ("return [y for y in x] + sum(z for z in t)", []),
        ("def inner():\n        return late\n    late = x\n    return inner()", []),
        ("return (lambda q: q + w)(x)", [("undefined-name", "error", 3)]),
        ("if (n := len(x)) > 1:\n        return n\n    return x", []),
        ("try:\n        return x\n    except ValueError as e:\n        raise e", []),
        ("global state\n    state = x\n    return state", []),
        ("with torch.no_grad() as q:\n        r = x\n    return r, q", []),
    ],
)
def test_names_that_no_scope_defines(found, body, expected):
    if "inter" in body and "union" in body:
        body = f"inter = union = x * t; {body}"
    findings = found(f"import torch\ndef loss(x, t):\n    {body}\n")
    assert [one for one in findings if one[0] == "undefined-name"] == expected


def test_a_star_import_may_define_anything(found):
    assert found("from math import *\ndef loss(x, t):\n    return x * pi\n") == []


def test_names_in_postponed_annotations_are_never_looked_up(found):
    text = "def loss(x: Missing, t) -> Other:\n    return x\n"
    assert [line for *_, line in found(text)] == [1, 1]
    assert found(f"from __future__ import annotations\n{text}") == []


def test_a_wrong_class_name_in_super(written):
    source = written(
        """\
        import torch
        class Quality(torch.nn.Module):
            def __init__(self):
                super(Qality, self).__init__()
            def forward(self, x, t):
                return x - t
        """,
        "Quality",
    )
    (finding,) = source_findings(source)
    assert (finding.code, finding.level) == ("undefined-name", "error")
    assert "`Quality`" in finding.message
    assert finding.remedy == "write super().__init__()"


@pytest.mark.parametrize(
    ("body", "found_one"),
    [
        ("if flag:\n        a = x\n    return a", True),
        ("if flag:\n        a = x\n    else:\n        a = t\n    return a", False),
        ("if flag:\n        a = x\n    else:\n        raise ValueError\n    return a", False),
        ("if flag:\n        a = x\n    if flag:\n        return a\n    return x", False),
        ("if not flag:\n        a = x\n    if not flag and x is t:\n        return a\n    return x", False),
        (
            "if flag: x = t\n    else: a = x\n    if not flag: x = a\n    return t",
            False,
        ),
        ("for a in (1, 2):\n        b = a\n    return b", False),
        ("while True:\n        a = x\n        break\n    return a", False),
        ("try:\n        a = x\n    except ValueError:\n        a = t\n    return a", False),
        ("try:\n        a = x\n    except ValueError:\n        pass\n    return a", True),
        (
            "match flag:\n        case 1: a = x\n        case o: a = o\n    return a",
            False,
        ),
        ("match flag:\n        case 1:\n            a = x\n    return a", True),
        ("if flag:\n        a = x\n    return [a for a in (1, 2)]", False),
    ],
)
def test_names_that_have_a_value_on_some_paths_only(found, body, found_one):
    findings = found(f"def loss(x, t, flag=True):\n    {body}\n")
    assert [code for code, *_ in findings] == ["undefined-name"] * found_one


def test_names_bound_under_one_condition_are_one_finding(written):
    source = written(
        """\
        def loss(a, b, xywh=True):
            if xywh:
                x1, x2 = a.chunk(2, -1)
                y1, y2 = b.chunk(2, -1)
            return x1 - y1 + x2 - y2
        """
    )
    (finding,) = source_findings(source)
    assert finding.level == "warning"
    assert "only if xywh (line 2)" in finding.message


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ciou - x", "error"),
        ("x.clamp(0, 1)", "error"),
        ("torch.exp(x)", "error"),
        ("F.relu(x)", "error"),
        ("x == t", "warning"),
        ("x.clamp_(0, 1)", None),
        ("print(x)", None),
        ("F.relu(x, inplace=True)", None),
        ("torch.add(x, t, out=x)", None),
        ("torch.manual_seed(0)", None),
        ("seen.add(x)", None),
        ("'a comment'", None),
        ("...", None),
    ],
)
def test_values_that_are_thrown_away(found, line, level):
    head = "import torch\nimport torch.nn.functional as F\nseen, ciou = set(), 1\n"
    assert found(f"{head}def loss(x, t):\n    {line}\n    return x\n") == (
        [("dead-expression", level, 5)] if level else []
    )


@pytest.mark.parametrize(
    ("line", "dead"),
    [
        ("weight = x * 2", True),
        ("p = x.sigmoid()", True),
        ("n = x.size(0)", False),
        ("_ = x * 2", False),
        ("k = 3", False),
    ],
)
def test_names_that_are_never_read(found, line, dead):
    assert [code for code, *_ in found(f"def loss(x, t):\n    {line}\n    return x - t\n")] == [
        "dead-expression"
    ] * dead


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ("loss = x - t", "error"),
        ("if kind:\n        return x\n    elif t is None:\n        return t", "warning"),
        ("if kind:\n        return x\n    raise ValueError(kind)", None),
        ("while True:\n        return x", None),
        ("with open(kind):\n        return x", None),
        ("try:\n        return x\n    finally:\n        print(t)", None),
        ("try:\n        return x\n    except ValueError:\n        print(t)", "warning"),
        ("yield x", None),
        ("raise NotImplementedError", None),
        ("match kind:\n        case 1:\n            return x\n        case _:\n            return t", None),
        ("match kind:\n        case 1:\n            return x", "warning"),
    ],
)
def test_paths_without_a_value(found, body, level):
    returns = [f for f in found(f"def loss(x, t, kind=None):\n    {body}\n") if f[0] == "no-return"]
    assert [one[1] for one in returns] == ([level] if level else [])


def test_a_helper_is_asked_for_a_value_only_where_it_is_used(found):
    text = """\
        def check(x):
            assert len(x)
        def scale(x):
            x * 2
        def loss(x, t):
            check(x)
            return scale(x) - t
        """
    assert sorted(found(text)) == [("dead-expression", "error", 4), ("no-return", "error", 4)]


def test_only_what_the_loss_reaches_is_read(found):
    text = """\
        def unrelated(x):
            x - missing
        def loss(x, t):
            return x - t
        """
    assert found(text) == []


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("return x.cuda() - t", "error"),
        ('return x.to("cuda:0") - t', "error"),
        ('return torch.zeros(3, device="cuda") - t', "error"),
        ('return x.to(torch.device("cuda")) - t', "error"),
        ("return torch.cuda.FloatTensor([1.0]) - t", "error"),
        ("if x.is_cuda:\n        t = t.cuda()\n    return x - t", "note"),
        ("scale = torch.arange(3)\n    return x * scale", "warning"),
        ("scale = torch.arange(3).to(x)\n    return x * scale", None),
        ("scale = torch.arange(3)\n    scale = scale.to(x.device)\n    return x * scale", None),
        ("return x.to(t.device) - t", None),
        ('return x.to("cpu") - t', None),
    ],
)
def test_devices_that_the_text_fixes(found, line, level):
    findings = found(f"import torch\ndef loss(x, t):\n    {line}\n")
    assert [f[:2] for f in findings] == ([("device-hardcoded", level)] if level else [])


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("return F.binary_cross_entropy_with_logits(x, t) * t.long()", "warning"),
        ("return F.binary_cross_entropy_with_logits(x, t) * t.type(torch.long).sum()", "warning"),
        ("return F.cross_entropy(x, t.long())", None),
        ("return x.half() - t", "note"),
        ("return x.float() - t", None),  # as half precision needs it
        ("return x * t.gt(0).double()", None),  # a mask is no argument
        ("return x.to(t.dtype) - t", None),
        ("left = t.long()\n    return x * (left + 1 - t)", None),
    ],
)
def test_dtypes_that_the_text_fixes(found, line, level):
    findings = found(f"import torch\nimport torch.nn.functional as F\ndef loss(x, t):\n    {line}\n")
    assert [f[:2] for f in findings] == ([("dtype-hardcoded", level)] if level else [])


@pytest.mark.parametrize(
    ("line", "loops"),
    [
        ("for i in range(len(t)): x[i] = t[i]", True),
        ("where = torch.where(t > 0)\n    for i in range(len(where[0])): x[where[0][i]] = 0", True),
        ("n = x.shape[0]\n    for i in range(n): x[i] = t[i]", True),
        ("for a, b in zip(x, t): a += b", True),
        ("x = torch.stack([a - b for a, b in zip(x, t)])", True),
        ("for i in t.nonzero().tolist(): x[i] = 0", True),
        ("i = 0\n    while i < len(x): i += 1", True),
        ("while len(x) == 0: x = t", False),
        ("for i in range(4): x = x + i", False),
        ("for part in (x, t): print(part)", False),
        ("for part in x.unbind(-1): print(part)", False),
        ("for start in range(0, len(x), 512): print(start)", False),
        ("for name in names: print(name)", False),
    ],
)
def test_loops_over_the_elements_of_a_tensor(found, line, loops):
    findings = found(f"import torch\ndef loss(x, t, names=()):\n    {line}\n    return x\n")
    assert [f[:2] for f in findings] == [("python-loop", "warning")] * loops


def test_what_is_plainly_meant_is_mended(written):
    source = written(
        """\
        def loss(x, t):
            iou = x * t
            ciou - 1
            out = ciou * 2
        """
    )
    assert mend(source) == [
        "examined as if `loss` ended with `return out`",
        "examined as if line 3 were `ciou = iou - 1`",
    ]
    names: dict = {}
    exec(compile(source.tree, "mine", "exec"), names)
    assert names["loss"](3, 2) == 10


def test_what_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "mine.py"
    with pytest.raises(ValueError, match="No such file"):
        read_source(path, "loss")
    path.write_text("def loss(x, t):\n    return x\n")
    with pytest.raises(ValueError, match="did you mean 'loss'"):
        read_source(path, "los")
    with pytest.raises(ValueError, match="it has loss"):
        read_source(path, "qqq")
    path.write_text("class A:\ndef f(self):\n    pass\n")
    with pytest.raises(CannotExamine) as end:
        parse(path, "A")
    assert end.value.finding.code == "crashes"
    assert end.value.finding.evidence == "mine.py:2: def f(self):"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_source(path, "loss")
