"""Losses of every make for the tests beside this file, as the doctor's subjects."""

from detloss.doctor.probes import PROBES
from detloss.doctor.subject import Subject

HEAD = "import functools\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n"


def subject(loss, kind="classification", reduction="none", **more):
    """The subject of `loss(predictions, targets, **hyperparameters)`."""
    takes = more.pop("takes", ())
    known = {"kind": kind, "reduction": reduction, **more}

    def rebuild(**hyper):
        return subject(lambda x, t: loss(x, t, **hyper), **known | {"takes": takes})

    if known.get("probabilities"):
        squash = (lambda x: x.softmax(-1)) if kind == "softmax" else (lambda x: x.sigmoid())
        call = lambda x, t: loss(squash(x), t)  # noqa: E731
    else:
        call = loss
    return Subject("a loss", kind, call, loss, reduction=reduction, **more, takes=takes,
                   rebuild=rebuild if takes else None)  # fmt: skip


def findings(one, match=None, only=None):
    """All that the probes find, or one probe."""
    probes = PROBES.values() if only is None else [only]
    return [finding for probe in probes for finding in probe(one, match)]


def codes(one, match=None, only=None, level=None):
    """The codes of what is found, of a level or of any."""
    return {f.code for f in findings(one, match, only) if level in (None, f.level)}
