"""Which known loss anybody's loss equals, in which convention, and how far it is from a peer's."""

from dataclasses import replace

from detloss.doctor.findings import Finding, Level
from detloss.doctor.match import Match
from detloss.doctor.matching.accuracy import accuracy
from detloss.doctor.matching.classification import classification
from detloss.doctor.matching.known import PEERS
from detloss.doctor.matching.reductions import reduction
from detloss.doctor.matching.regression import box, distribution
from detloss.doctor.matching.softmax import softmax
from detloss.doctor.probes.cost import memory_kept
from detloss.doctor.subject import Subject


def identify(subject: Subject, like: str | None = None) -> Match | None:
    """The known loss that a loss equals, and in which convention.

    Args:
        subject: the loss.
        like: a peer (`detloss.doctor.matching.known.PEERS`) that its convention is compared with.

    Returns:
        A match with a name; one without a name but with the nearest known loss, where it equals none; None
        where it has no values to compare.

    Raises:
        ValueError: a peer that is not known.
    """
    if like is not None and like not in PEERS:
        raise ValueError(f"like is {like!r}; it may be {', '.join(PEERS)}")
    by_kind = {"classification": classification, "softmax": softmax, "box": box, "distribution": distribution}
    match = by_kind[subject.kind](subject)
    if match is None:
        return None
    match.convention.setdefault("reduction", reduction(subject))
    match.convention["float32_error"] = accuracy(subject, match)
    kept = memory_kept(subject, match)
    match.convention["memory"] = None if kept is None else round(kept, 1)
    return match if like is None else replace(match, findings=tuple(_differences(match, like)))


# --like

_CODES: dict[str, tuple[str, Level]] = {
    "takes": ("probabilities-not-logits", "warning"),
    "alpha_on": ("alpha-inverted", "warning"),
    "soft_targets": ("soft-target-minimiser", "warning"),
    "reduction": ("reduction", "note"),
    "gradient": ("wrong-gradient", "warning"),
    "form": ("similarity-not-loss", "note"),
    "eps": ("no-eps", "note"),
}


def _differences(match: Match, like: str) -> list[Finding]:
    """Where the convention is not a peer's; what has no code of its own stands in the convention."""
    if match.name is None:
        return []
    peer = PEERS[like].get(match.name) or PEERS[like].get("*" if "form" in match.convention else "", {})
    unlike, findings = {}, []
    for key, theirs in peer.items():
        ours = match.convention.get(key)
        if ours is None or ours == theirs:
            continue
        unlike[key] = f"{ours}, {like} has {theirs}"
        if key in _CODES:
            code, level = _CODES[key]
            findings.append(
                Finding(
                    code,
                    level,
                    f"{key.replace('_', ' ')} is not as in {like}",
                    f"here: {ours}; {like}: {theirs}",
                    f"do not carry hyperparameters over from {like} as they are",
                )
            )
    match.convention[f"unlike {like}"] = unlike or "nothing that was compared"
    return findings
