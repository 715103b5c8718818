"""Which known loss anybody's loss equals, in which convention, and how far it is from a peer's."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.lab.doctor.answers import rows, sample_boxes
from detloss.lab.doctor.catalogue import CATALOGUE, found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import ALPHA_DETACHED, FULL, PEERS, WEIGHT_DETACHED, Match
from detloss.lab.doctor.match_boxes import match_box, match_distribution
from detloss.lab.doctor.match_logits import match_sigmoid, match_softmax
from detloss.lab.doctor.probe_operations import memory_kept
from detloss.lab.doctor.reductions import reduction


def identify(subject: Subject) -> Match | None:
    """A match with a name; one without but with the nearest known loss; None where there are no values to
    compare.
    """
    by_kind = {
        "classification": match_sigmoid,
        "softmax": match_softmax,
        "box": match_box,
        "distribution": match_distribution,
    }
    match = Match(None, "", math.inf) if subject.region else by_kind[subject.kind](subject)
    if match is None:
        return None
    if not subject.region:
        match.convention.update(reduction(subject))
        match.convention["float32_error"] = _float32_error(subject, match)
    kept = memory_kept(subject)
    match.convention["memory"] = None if kept is None else round(kept, 1)
    return match


def _float32_error(subject: Subject, match: Match) -> dict[str, float]:
    """The largest relative error of value and gradient in float32 against float64, up to logits of ±10.

    Against the known loss in float64 where it equals one, else against itself in float64.
    """
    if subject.kind == "box":
        x, t = sample_boxes(24)
    elif subject.kind == "classification":
        x = torch.linspace(-10, 10, 41, dtype=torch.float64).repeat(2)
        t = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(41)
    else:
        columns = subject.classes if subject.kind == "softmax" else BINS + 1
        x = 4 * torch.randn(24, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        t = torch.arange(24) % columns
        t = (
            torch.linspace(0.25, BINS - 1.25, 24, dtype=torch.float64)
            if subject.kind == "distribution"
            else t
        )
    x, label = x.float().double(), t.float() if t.is_floating_point() else t
    t = label.double() if t.is_floating_point() else t
    narrow = rows(subject, x.float(), label, gradient=True)
    wide = rows(subject, x, t, gradient=True)
    value, slope = wide.value, wide.gradient
    of_a_logarithm = match.convention.get("form") == "-log x"  # there the eps shows
    if match.reference is not None and match.name is not None and not of_a_logarithm and match.error < 1e-9:
        leaf = x.clone().requires_grad_()
        value = match.reference(leaf, t)
        usual = {"ciou": ALPHA_DETACHED, "mal": WEIGHT_DETACHED}.get(match.name, FULL)
        if match.convention.get("gradient") == usual:
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        value = value.detach()
    pairs = {"value": (narrow.value, value), "gradient": (narrow.gradient, slope)}
    errors = {name: _relative(*pair) for name, pair in pairs.items()}
    return {name: worst for name, worst in errors.items() if math.isfinite(worst)}  # the rest is a finding


def _relative(got: Tensor | None, true: Tensor | None) -> float:
    if got is None or true is None or got.shape != true.shape:
        return math.inf
    got, true = got.double(), true.double()
    worst = float(((got - true).abs() / (true.abs() + 1e-12 + 1e-6 * true.abs().max())).max())
    return float(f"{worst:.2g}")


def unlike(match: Match, like: str) -> Iterator[Finding]:
    """Where the convention is not a peer's; what has no code of its own stands in the convention."""
    if match.name is None:
        return
    peer = PEERS[like].get(match.name) or PEERS[like].get("*" if "form" in match.convention else "", {})
    differs = {key: theirs for key, theirs in peer.items() if match.convention.get(key) not in (None, theirs)}
    for key, theirs in differs.items():
        if f"unlike {key}" in CATALOGUE:
            ours = match.convention[key]
            yield found(
                f"unlike {key}", f"here: {ours}; {like}: {theirs}", key=key.replace("_", " "), like=like
            )
    told = {key: f"{match.convention[key]}, {like} has {theirs}" for key, theirs in differs.items()}
    match.convention[f"unlike {like}"] = told or "nothing that was compared"
