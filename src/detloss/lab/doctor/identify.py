"""Which known loss anybody's loss equals, in which convention, and how far it is from a peer's."""

import math

import torch
from torch import Tensor

from detloss.lab.doctor.answers import cast, derivative, rows, sample_boxes, samples
from detloss.lab.doctor.catalogue import CATALOGUE, Found, found
from detloss.lab.doctor.forms import Subject
from detloss.lab.doctor.known import ALPHA_DETACHED, FULL, LABEL_DETACHED, PEERS, WEIGHT_DETACHED, Match
from detloss.lab.doctor.match_boxes import match_box, match_distribution
from detloss.lab.doctor.match_logits import match_sigmoid, match_softmax
from detloss.lab.doctor.probe_operations import memory_kept
from detloss.lab.doctor.reductions import reduction

BY_KIND = {
    "classification": match_sigmoid,
    "softmax": match_softmax,
    "box": match_box,
    "distribution": match_distribution,
}


def identify(subject: Subject) -> Match | None:
    """A match with a name; one without but with the nearest known loss; None where there are no values to
    compare.
    """
    match = BY_KIND[subject.kind](subject)
    if match is None:
        return None
    match.convention.update(reduction(subject), float32_error=_float32_error(subject, match))
    kept = memory_kept(subject)
    match.convention["memory"] = None if kept is None else round(kept, 1)
    return match


def _float32_error(subject: Subject, match: Match) -> dict[str, float]:
    """The largest relative error of value and gradient in float32 against float64, up to logits of ±10.

    Against the known loss in float64 where it equals one, else against itself in float64.
    """
    x, t = sample_boxes(24) if subject.kind == "box" else samples(subject, 82)
    x = {"box": 1, "classification": 3}.get(subject.kind, 4) * x
    rounded = cast(torch.float32, x, t)
    narrow, (x, t) = rows(subject, *rounded, gradient=True), cast(torch.float64, *rounded)
    wide = rows(subject, x, t, gradient=True)
    value, slope = wide.value, wide.gradient
    of_a_logarithm = match.convention.get("form") == "-log x"  # there the eps shows
    if match.reference is not None and match.name is not None and not of_a_logarithm and match.error < 1e-9:
        value = match.reference(x, t)
        detached = {"ciou": ALPHA_DETACHED, "mal": WEIGHT_DETACHED, "ia_bce": LABEL_DETACHED}
        usual = detached.get(match.name, FULL)
        if match.convention.get("gradient") == usual:
            slope = derivative(match.reference, x, t)
    errors = {"value": _relative(narrow.value, value), "gradient": _relative(narrow.gradient, slope)}
    return {name: worst for name, worst in errors.items() if math.isfinite(worst)}  # the rest is a finding


def _relative(got: Tensor | None, true: Tensor | None) -> float:
    if got is None or true is None or got.shape != true.shape:
        return math.inf
    got, true = got.double(), true.double()
    worst = float(((got - true).abs() / (true.abs() + 1e-12 + 1e-6 * true.abs().max())).max())
    return float(f"{worst:.2g}")


def unlike(match: Match, like: str) -> Found:
    """Where the convention is not a peer's; what has no code of its own stands in the convention."""
    if match.name is None:
        return
    peer = PEERS[like].get(match.name) or PEERS[like].get("*" if "form" in match.convention else "", {})
    told = {}
    for key, theirs in peer.items():
        ours = match.convention.get(key)
        if ours in (None, theirs):
            continue
        told[key] = f"{ours}, {like} has {theirs}"
        if f"unlike {key}" in CATALOGUE:
            seen = f"here: {ours}; {like}: {theirs}"
            yield found(f"unlike {key}", seen, key=key.replace("_", " "), like=like)
    match.convention[f"unlike {like}"] = told or "nothing that was compared"
