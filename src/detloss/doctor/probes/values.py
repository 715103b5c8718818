"""Probes of values: finite everywhere, smallest where the prediction is right, alpha on the right side."""

import torch

from detloss.doctor.elements import Answer, Divisor, needs_a_positive, rows
from detloss.doctor.extremes import FAR, PAIRS, Onset, numbers, onset, pair_answer, ways
from detloss.doctor.findings import Finding, Level
from detloss.doctor.match import Match
from detloss.doctor.subject import Subject


def not_finite_value(subject: Subject, match: Match | None) -> list[Finding]:
    """NaN and Inf at large logits, where they begin; and at boxes without area, apart or inverted."""
    if subject.kind == "box":
        return _of_boxes(subject, match)
    beside = needs_a_positive(subject)
    # what does not run at logit 0 either is not the extremes' fault
    running = [way for way in ways(subject) if rows(subject, *way.make(0.0), beside=beside).value is not None]
    onsets = [found for way in running if (found := onset(subject, way, lambda _, a: _broken(a)))]
    if onsets:
        worst = min(onsets, key=lambda found: found.magnitude)
        findings = [
            Finding(
                "not-finite-value",
                "error",
                f"the loss is {_what(worst.answer)} from {worst.way.name.format(worst.magnitude)} on",
                "; ".join(_told(found) for found in onsets) + " (float32)",
                "work on logits: logsigmoid or log_softmax instead of the logarithm of a probability",
            )
        ]
        if subject.probabilities:
            findings.append(
                Finding(
                    "no-eps",
                    "warning",
                    "the logarithm of a probability that has become 0 or 1",
                    _told(worst) + ": its sigmoid or softmax is exactly 0 or 1 in float32",
                    "take logits (logsigmoid, log_softmax); or clamp the probability to [eps, 1 - eps]",
                )
            )
        return findings
    for way in running:
        answer = rows(subject, *way.make(FAR), beside=beside)
        if _broken(answer):
            return [
                Finding(
                    "not-finite-value",
                    "note",
                    f"the loss is {_what(answer)} at {way.name.format(FAR)}",
                    f"finite up to 1e4 (float32); {_what(answer)} at {FAR:g}",
                    "no training should come here; where it may, use logsigmoid or softplus on the logits",
                )
            ]
    return []


def _broken(answer: Answer) -> bool:
    return answer.value is None or not bool(answer.value.isfinite().all())


def _what(answer: Answer) -> str:
    if answer.value is None:
        return f"an exception ({answer.error})"
    bad = answer.value[~answer.value.isfinite()]
    return "NaN" if bad.isnan().any() else f"{float(bad[0]):g}"


def _told(found: Onset) -> str:
    return f"{found.way.name.format(found.magnitude)}: {_what(found.answer)}"


def _of_boxes(subject: Subject, match: Match | None) -> list[Finding]:
    broken = [(pair, answer) for pair in PAIRS if _broken(answer := pair_answer(subject, match, pair))]
    if not broken:
        return []
    told = [
        f"{pair.name}, {numbers(pair.predicted)} and {numbers(pair.true)}: {_what(answer)}"
        for pair, answer in broken
    ]
    usual = [pair for pair, _ in broken if "inverted" not in pair.name]
    level: Level = "error" if usual else "warning"
    logarithm = match is not None and match.convention.get("form") == "-log x"
    remedy = "add an eps (1e-7) to every denominator"
    if logarithm:
        remedy = "clamp the IoU to at least an eps before the logarithm, or use 1 - IoU"
    findings = [
        Finding(
            "not-finite-value",
            level,
            f"the loss is not finite for {broken[0][0].name}"
            + (f" and {len(broken) - 1} more kinds of boxes" if len(broken) > 1 else ""),
            "; ".join(told),
            remedy,
        )
    ]
    zero_by_zero = [line for line in told if line.endswith("NaN") and ("point" in line or "without" in line)]
    if zero_by_zero or logarithm:
        findings.append(
            Finding(
                "no-eps",
                "warning",
                "the logarithm of 0" if logarithm else "0 divided by 0",
                (zero_by_zero or told)[0],
                remedy,
            )
        )
    return findings


def similarity_not_loss(subject: Subject, match: Match | None) -> list[Finding]:
    """A right prediction has the larger value than a wrong one: to be maximised, not minimised."""
    right, wrong, told = _right_and_wrong(subject, match)
    if right is None or wrong is None or not right > wrong + 1e-6:
        return []
    if subject.kind == "classification":  # neither: the largest in between
        middle = rows(subject, torch.zeros(1), torch.ones(1)).value
        if middle is not None and float(middle.sum()) > right + 1e-6:
            return []
    return [
        Finding(
            "similarity-not-loss",
            "error",
            "a right prediction has a larger value than a wrong one: minimising it drives predictions away",
            f"{told[0]}: {right:.4g}; {told[1]}: {wrong:.4g}",
            "as a loss take 1 minus it" if subject.kind == "box" else "change its sign",
        )
    ]


def _right_and_wrong(
    subject: Subject, match: Match | None
) -> tuple[float | None, float | None, tuple[str, str]]:
    told = "right prediction", "wrong prediction"
    if subject.kind == "box":
        told = "equal boxes", "boxes apart"
        answers = [pair_answer(subject, match, pair) for pair in PAIRS[:2]]
        if _broken(answers[1]):
            told = "equal boxes", "a box within the other"
            answers[1] = pair_answer(subject, match, PAIRS[3])
    elif subject.kind == "classification":
        told = "logit 6, target 1", "logit -6, target 1"
        answers = [rows(subject, torch.tensor([x]), torch.ones(1)) for x in (6.0, -6.0)]
    else:
        softmax = subject.kind == "softmax"
        columns, target = (subject.classes, 0.0) if softmax else (subject.bins + 1, 0.1)
        predictions = torch.zeros(2, columns)
        predictions[0, 0], predictions[1, columns - 1] = 6, 6
        t = torch.tensor([target])
        t = t.long() if subject.kind == "softmax" else t
        answers = [rows(subject, predictions[i : i + 1], t) for i in range(2)]
    right, wrong = (None if _broken(a) or a.value is None else float(a.value.sum()) for a in answers)
    return right, wrong, told


def soft_target_minimiser(subject: Subject, match: Match | None) -> list[Finding]:
    """The probability that minimises the loss for a soft label is not the label."""
    if subject.kind != "classification" or similarity_not_loss(subject, match):
        return []
    beside = needs_a_positive(subject)
    found = {}
    for label in (0.3, 0.8):
        least = _minimiser(subject, label, beside)
        if least is None:
            return []
        found[label] = least
    if all(abs(p - label) < 0.01 for label, p in found.items()):
        return []
    name = match.name if match is not None else None
    level: Level = "note" if name == "mal" else "warning"
    remedy = "for soft labels (an IoU, label smoothing) use quality focal loss or varifocal loss"
    if name == "mal":
        remedy = "by design: a positive of quality q learns p = q^gamma"
    return [
        Finding(
            "soft-target-minimiser",
            level,
            "on soft labels the loss is not smallest where the probability is the label",
            "; ".join(f"t = {label}: smallest at p = {p:.3f}" for label, p in found.items()),
            remedy,
        )
    ]


def _minimiser(subject: Subject, label: float, beside: Divisor) -> float | None:
    """The probability that minimises the loss for a soft label; None where there is none to tell."""
    low, high = -9.0, 9.0
    for finer in range(3):
        x = torch.linspace(low, high, 41, dtype=torch.float64)
        value = rows(subject, x, torch.full_like(x, label), beside=beside).value
        if value is None or not value.isfinite().all():
            return None
        if not finer and float(value.max() - value.min()) < 1e-9:
            return None
        at = int(value.argmin())
        low, high = float(x[max(at - 1, 0)]), float(x[min(at + 1, 40)])
    return float(torch.sigmoid(x[at]))


def alpha_inverted(subject: Subject, match: Match | None) -> list[Finding]:
    """Alpha weighs the negatives, where everybody's weighs the positives."""
    words = match.convention if match is not None else {}
    if not str(words.get("alpha_on")).startswith("negatives"):
        if (
            words.get("alpha_known") is False
            and words.get("alpha_on") == "positives"
            and words["alpha"] > 0.5
        ):
            return [
                Finding(
                    "alpha-inverted",
                    "note",
                    f"positives weigh {words['alpha']:g}, negatives less: if alpha was to be "
                    f"{1 - words['alpha']:g}, it is on the wrong side",
                    f"weights {words['weight_of_positives']:g} (target 1), "
                    f"{words['weight_of_negatives']:g} (target 0)",
                    "alpha weighs positives, 1 - alpha negatives",
                )
            ]
        return []
    return [
        Finding(
            "alpha-inverted",
            "error",
            "alpha weighs the negatives, 1 - alpha the positives: the other way round from the paper",
            f"with alpha = {words['alpha']:g} a target of 1 weighs {words['weight_of_positives']:g}, "
            f"one of 0 weighs {words['weight_of_negatives']:g}",
            "weigh with alpha t + (1 - alpha)(1 - t); for a gathered pair the order is [1 - alpha, alpha]",
        )
    ]
