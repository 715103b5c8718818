"""Probes of gradients: there is one, it is the value's own, and finite at the ends."""

import torch
from torch import Tensor

from detloss.doctor.elements import Answer, attempt, needs_a_positive, rows, slopes
from detloss.doctor.extremes import PAIRS, numbers, onset, pair_answer, ways
from detloss.doctor.findings import Finding
from detloss.doctor.match import TOLERANCE, Match, deviation
from detloss.doctor.reading.source import detached_at
from detloss.doctor.samples import batch, samples
from detloss.doctor.subject import Subject

DETACHED = ("varifocal", "mal", "asymmetric")  # whose weight some authors detach on purpose


def not_differentiable(subject: Subject, match: Match | None) -> list[Finding]:
    """There is no gradient, or it is zero everywhere."""
    x, t = samples(subject, match)
    value = rows(subject, x.float(), t.float() if t.is_floating_point() else t)
    answer = rows(
        subject,
        x.float(),
        t.float() if t.is_floating_point() else t,
        gradient=True,
        beside=needs_a_positive(subject),
    )
    if value.value is None:
        return []  # it does not run at all: another's finding
    remedy = "compute the loss with torch operations only: no .item(), .detach(), .data, numpy or no_grad"
    if answer.value is None:
        return [
            Finding(
                "not-differentiable",
                "error",
                "it runs on tensors without gradient, and raises on those with one",
                answer.error,
                remedy,
            )
        ]
    if answer.gradient is None or not answer.gradient.any():
        whole = attempt(subject.call, *batch(subject, match), gradient=True).gradient
        if whole is not None and whole.any():
            return [_only_together(len(x))]
        return [
            Finding(
                "not-differentiable",
                "error",
                "no gradient reaches the predictions",
                f"the gradient of {len(x)} usual rows is zero or missing",
                remedy,
            )
        ]
    return []


def _only_together(count: int) -> Finding:
    return Finding(
        "reduction",
        "warning",
        "the loss of a row alone is constant: weights from the batch, or a softmax over its rows?",
        f"the gradient of {count} single rows is zero, that of a batch is not",
        "softmax and sums over classes need dim=1; how the loss treats one row was not examined",
    )


def wrong_gradient(subject: Subject, match: Match | None) -> list[Finding]:
    """Autograd's gradient is not the derivative of the value."""
    x, t = samples(subject, match)
    beside = needs_a_positive(subject)
    got = rows(subject, x, t, gradient=True, beside=beside).gradient
    own, wide = (slopes(subject, x, t, beside=beside, times=times) for times in (1, 2))
    if got is None or own is None or wide is None or not got.any():
        return []
    got, own, wide = got.double(), own.double(), wide.double()
    # differences of values that are rounded (to half precision) say nothing: another step, another slope
    sure = (own - wide).abs() <= 0.02 * own.abs() + 1e-3 * own.abs().max()
    finite = own.isfinite() & got.isfinite() & sure
    got, own = torch.where(finite, got, 0), torch.where(finite, own, 0)
    words = match.convention.get("gradient", "") if match is not None else ""
    if deviation(got, own) < 5 * TOLERANCE:
        return _through_alpha() if "also through alpha" in words else []
    at = int((got - own).abs().argmax()) // (x.numel() // len(x))
    where = f"prediction {_shown(x[at])}, target {_shown(t[at])}"
    evidence = f"{where}: gradient {_shown(got[at])}, slope of the value {_shown(own[at])}"
    if words == "alpha of the aspect term detached":
        return []  # as its paper says
    if words == "weight detached":
        purpose = match is not None and match.name in DETACHED
        return [
            Finding(
                "wrong-gradient",
                "note" if purpose else "warning",
                "the weight on the cross entropy carries no gradient"
                + (", as in some authors' code" if purpose else ""),
                evidence,
                "on purpose or not? drop .detach() or no_grad to get the gradient of the published formula",
            )
        ]
    source = getattr(subject.raw, "source", None)
    line = detached_at(source) if source is not None else ""
    message = "the gradient is not the derivative of the value"
    if line:
        remedy = "on purpose or not? drop .detach(), .data or no_grad to get the whole gradient"
        message, evidence = f"{message}: a part of it is left out", f"{evidence}; {line}"
        return [Finding("wrong-gradient", "warning", message, evidence, remedy)]
    remedy = (
        "check the backward of a custom autograd.Function, and what goes through numbers, round or argmax"
    )
    return [Finding("wrong-gradient", "error", message, evidence, remedy)]


def _through_alpha() -> list[Finding]:
    return [
        Finding(
            "wrong-gradient",
            "note",
            "the gradient of CIoU goes through alpha, the weight of its aspect term, too",
            "it is the slope of the value; the paper, torchvision and ultralytics take alpha as a constant",
            "compute alpha under torch.no_grad()",
        )
    ]


def _shown(values: Tensor) -> str:
    return f"{float(values):.4g}" if values.numel() == 1 else numbers(float(f"{v:.4g}") for v in values)


def not_finite_gradient(subject: Subject, match: Match | None) -> list[Finding]:
    """NaN and Inf in gradients where the value is finite: saturated logits, boxes without area."""
    if subject.kind == "box":
        return _of_boxes(subject, match)
    findings = _at_saturation(subject, "", False)
    if findings or subject.rebuild is None or "gamma" not in subject.takes:
        return findings
    try:
        rebuilt = subject.rebuild(gamma=0.5)
    except Exception:
        return []
    return _at_saturation(rebuilt, " with gamma = 0.5", True)


def _at_saturation(subject: Subject, when: str, milder: bool) -> list[Finding]:
    bad = lambda _, answer: _infinite(answer)  # noqa: E731
    if _infinite(rows(subject, *ways(subject)[0].make(0.0), gradient=True, beside=needs_a_positive(subject))):
        return []  # everywhere: not the extremes' fault
    onsets = [found for way in ways(subject) if (found := onset(subject, way, bad, gradient=True))]
    if not onsets:
        return []
    first = min(onsets, key=lambda found: found.magnitude)
    return [
        Finding(
            "not-finite-gradient",
            "warning" if milder else "error",
            f"the gradient is not finite from {first.way.name.format(first.magnitude)} on{when}",
            "; ".join(
                f"{found.way.name.format(found.magnitude)}: value {_one(found.answer.value)}, gradient "
                f"{_one(found.answer.gradient)}"
                for found in onsets
            )
            + " (float32)",
            "the derivative of a power or a root at 0 is infinite: add a tiny number to its base"
            if milder
            else "work on logits (logsigmoid, log_softmax); torch.where stops no NaN of its other branch",
        )
    ]


def _infinite(answer: Answer) -> bool:
    """A value that is finite with a gradient that is not: a bad value is another's finding."""
    if answer.value is None or answer.gradient is None or not answer.value.isfinite().all():
        return False
    return not bool(answer.gradient.isfinite().all())


def _one(values: Tensor | None) -> str:
    if values is None:
        return "none"
    flat = values.reshape(-1)
    return f"{float(flat[~flat.isfinite()][0] if not flat.isfinite().all() else flat[0]):.4g}"


def _of_boxes(subject: Subject, match: Match | None) -> list[Finding]:
    told, serious = [], False
    for pair in PAIRS:
        answer = pair_answer(subject, match, pair, gradient=True)
        if _infinite(answer):
            serious = serious or "inverted" not in pair.name
            assert answer.gradient is not None
            told.append(
                f"{pair.name}, {numbers(pair.predicted)} and {numbers(pair.true)}: gradient "
                f"{numbers(answer.gradient.reshape(-1).tolist())}"
            )
    if not told:
        return []
    return [
        Finding(
            "not-finite-gradient",
            "error" if serious else "warning",
            f"the gradient is not finite for {told[0].partition(',')[0]}",
            "; ".join(told),
            "give divisions and roots an eps, clamp heights before w/h; masking afterwards is too late",
        )
    ]
