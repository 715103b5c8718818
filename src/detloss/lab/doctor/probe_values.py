"""Probes of values: finite everywhere, smallest where the prediction is right, alpha on the right side."""

from collections.abc import Iterator

import torch

from detloss.lab.doctor.answers import attempt, batch, rows
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.extremes import FAR, PAIRS, onset, pair_answer, ways
from detloss.lab.doctor.findings import Finding, Level
from detloss.lab.doctor.forms import BINS, Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.match_logits import NEGATIVES

Found = Iterator[Finding]


def alpha_side(subject: Subject, match: Match | None) -> Found:
    """Alpha weighs the negatives, where everybody's weighs the positives."""
    words = match.convention if match is not None else {}
    if words.get("alpha_on") in NEGATIVES:
        pair = words["weight_of_positives"], words["weight_of_negatives"]
        seen = (
            f"with alpha = {words['alpha']:g} a target of 1 weighs {pair[0]:g}, one of 0 weighs {pair[1]:g}"
        )
        yield found("alpha on negatives", seen)
    elif words.get("alpha_on") == "positives" and words.get("alpha_known") is False and words["alpha"] > 0.5:
        pair = words["weight_of_positives"], words["weight_of_negatives"]
        seen = f"weights {pair[0]:g} (target 1), {pair[1]:g} (target 0)"
        yield found("alpha unknown", seen, alpha=f"{words['alpha']:g}", other=f"{1 - words['alpha']:g}")


def finite_value(subject: Subject, match: Match | None) -> Found:
    """NaN and Inf at large logits, where they begin; and at boxes without area, apart or inverted."""
    if subject.kind == "box":
        yield from _finite_boxes(subject, match)
        return
    # what does not run at logit 0 either is not the extremes' fault
    running = [way for way in ways(subject) if rows(subject, *way.make(0.0)).value is not None]
    onsets = [first for way in running if (first := onset(subject, way, lambda _, answer: answer.broken))]
    if onsets:
        worst = min(onsets, key=lambda first: first.magnitude)
        seen = "; ".join(f"{one.where}: {one.answer.shown()}" for one in onsets) + " (float32)"
        yield found("value not finite", seen, what=worst.answer.shown(), where=worst.where)
        if subject.probabilities:
            seen = (
                f"{worst.where}: {worst.answer.shown()}: its sigmoid or softmax is exactly 0 or 1 in float32"
            )
            yield found("log of 0", seen)
        return
    for way in running:
        answer = rows(subject, *way.make(FAR))
        if answer.broken:
            seen = f"finite up to 1e4 (float32); {answer.shown()} at {FAR:g}"
            yield found("value far out", seen, what=answer.shown(), where=way.at(FAR))
            return


def _finite_boxes(subject: Subject, match: Match | None) -> Found:
    answers = [(pair, pair_answer(subject, pair)) for pair in PAIRS]
    broken = [(pair, answer) for pair, answer in answers if answer.broken]
    if not broken:
        return
    logarithm = match is not None and match.convention.get("form") == "-log x"
    remedy = "add an eps (1e-7) to every denominator"
    remedy = "clamp the IoU to at least an eps before the logarithm, or use 1 - IoU" if logarithm else remedy
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    seen = [f"{pair.says}: {answer.shown()}" for pair, answer in broken]
    level: Level | None = None if any(not pair.odd for pair, _ in broken) else "warning"
    yield found("box not finite", "; ".join(seen), level, what=broken[0][0].name + more, remedy=remedy)
    nan = [text for text, (pair, answer) in zip(seen, broken)
           if pair.flat and answer.value is not None and answer.value.isnan().any()]  # fmt: skip
    if nan or logarithm:
        what = "the logarithm of 0" if logarithm else "0 divided by 0"
        yield found("box without eps", (nan or seen)[0], what=what, remedy=remedy)


def similarity(subject: Subject, match: Match | None = None) -> Found:
    """A right prediction has the larger value than a wrong one: to be maximised, not minimised."""
    told = "right prediction", "wrong prediction"
    if subject.region:
        x, t = batch(subject)
        sign = 2 * t - 1 if t.ndim > 1 else 2 * torch.nn.functional.one_hot(t, x.shape[1]).float() - 1
        answers = [attempt(subject, side * 6 * sign, t) for side in (1, -1)]
    elif subject.kind == "box":
        told = "equal boxes", "boxes apart"
        answers = [pair_answer(subject, pair) for pair in PAIRS[:2]]
        if answers[1].broken:
            told = "equal boxes", "a box within the other"
            answers[1] = pair_answer(subject, PAIRS[3])
    elif subject.kind == "classification":
        told = "logit 6, target 1", "logit -6, target 1"
        answers = [rows(subject, torch.tensor([x]), torch.ones(1)) for x in (6.0, -6.0)]
    else:
        softmax = subject.kind == "softmax"
        x = torch.zeros(2, subject.classes if softmax else BINS + 1)
        x[0, 0] = x[1, -1] = 6
        t = torch.tensor([0]) if softmax else torch.tensor([0.1])
        answers = [rows(subject, x[i : i + 1], t) for i in range(2)]
    if any(answer.broken or answer.value is None for answer in answers):
        return
    right, wrong = (float(answer.value.sum()) for answer in answers if answer.value is not None)
    if not right > wrong + 1e-6:
        return
    if subject.kind == "classification" and not subject.region:  # neither: the largest in between
        middle = rows(subject, torch.zeros(1), torch.ones(1)).value
        if middle is not None and float(middle.sum()) > right + 1e-6:
            return
    remedy = "as a loss take 1 minus it" if subject.kind == "box" or subject.region else "change its sign"
    yield found("similarity", f"{told[0]}: {right:.4g}; {told[1]}: {wrong:.4g}", remedy=remedy)


def soft_minimum(subject: Subject, match: Match | None) -> Found:
    """The probability that minimises the loss for a soft label is not the label."""
    if subject.kind != "classification" or any(similarity(subject)):
        return
    least = {label: _least(subject, label) for label in (0.3, 0.8)}
    if any(p is None for p in least.values()) or all(
        abs(p - label) < 0.01 for label, p in least.items() if p
    ):
        return
    seen = "; ".join(f"t = {label}: smallest at p = {p:.3f}" for label, p in least.items())
    of_mal = match is not None and match.name == "mal"
    yield found("soft minimum of mal" if of_mal else "soft minimum", seen)


def _least(subject: Subject, label: float) -> float | None:
    """The probability that minimises the loss for a soft label; None where there is none to tell."""
    low, high = -9.0, 9.0
    for finer in range(3):
        x = torch.linspace(low, high, 41, dtype=torch.float64)
        answer = rows(subject, x, torch.full_like(x, label))
        if answer.value is None or answer.broken:
            return None
        if not finer and float(answer.value.max() - answer.value.min()) < 1e-9:
            return None
        at = int(answer.value.argmin())
        low, high = float(x[max(at - 1, 0)]), float(x[min(at + 1, 40)])
    return float(torch.sigmoid(x[at]))
