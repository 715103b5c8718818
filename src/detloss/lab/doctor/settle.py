"""Which kind of loss it is and in which form it is called: found by trial calls on a few numbers."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from detloss.lab.doctor.answers import attempt
from detloss.lab.doctor.arguments import own_lengths
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.forms import BINS, FORMS, Kind, NoTensor, Reduction, Subject, call_in_form
from detloss.lab.doctor.loading import (
    COLUMNS,
    Loaded,
    changed_criterion,
    first_two,
    frame_of_error,
    in_a_line,
    line_of_error,
)
from detloss.lab.doctor.trials import ROWS, Trial, examples, near, tried

Wanted = Literal["classification", "box", "distribution", "auto"]
_LOGIT_WORDS = set(
    [
        "logits",
        "logit",
        "cls",
        "class",
        "label",
        "labels",
        "bce",
        "ce",
        "focal",
        "entropy",
        "prob",
        "probs",
        "dice",
    ]
)


def settle(loaded: Loaded, kind: Wanted = "auto") -> tuple[Subject, list[Finding]]:
    """The subject, and what came out on the way.

    Raises:
        NotExamined: it works in no form.
    """
    trials: list[Trial] = []
    unlikely: Trial | None = None
    for way in loaded.ways():
        for one in _order(loaded, kind):
            trial = _find(way, one, trials) or _find_with_weights(way, one, trials)
            if trial is not None and (kind != "auto" or _is_likely(trial)):
                return _settled(trial, trials)
            unlikely = unlikely or trial
    if unlikely is not None:
        return _settled(unlikely, trials)
    if kind in ("auto", "classification"):
        for way in replace(loaded, columns=2).ways():
            trial = _find(way, "classification", [])
            if trial is not None:
                return _settled(trial, trials)
    answered = [trial for trial in trials if trial.answer.value is not None]
    if answered:  # never a finite number: the probes say where
        return _settled(answered[0], trials)
    raise NotExamined(_verdict(trials))


def _order(loaded: Loaded, kind: Wanted) -> Iterator[Kind]:
    """The kinds to try, the likeliest first."""
    if kind != "auto":
        yield kind
        return
    words = _words(loaded)
    likely: Kind = "classification"
    if words & {"distribution", "dfl", "dist", "bins"} or {"reg_max", "n_bins"} & set(loaded.takes):
        likely = "distribution"
    elif any(re.fullmatch(r"b?box(es)?\d?|.*iou.*", word) for word in words):
        likely = "box"
    kinds: tuple[Kind, ...] = ("classification", "box", "distribution")
    yield from (likely, *(one for one in kinds if one != likely))


def _words(loaded: Loaded) -> set[str]:
    """The words in its name and in those of its first two arguments, in small letters."""
    name = loaded.name.rpartition(":")[2].split(".")[-1]
    words = {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}
    words |= {name.lower()} if "iou" in name.lower() else set()
    return words | set(re.findall(r"[a-z]+\d?", " ".join(first_two(loaded.object)).replace("_", " ")))


def _is_likely(trial: Trial) -> bool:
    """Whether no other kind need be tried."""
    form = trial.form
    if form.kind == "distribution":
        return _at_the_last_bin(trial).finite
    if form.kind == "box" or _words(trial.loaded) & _LOGIT_WORDS or trial.loaded.columns != COLUMNS:
        return True
    if form.layout == "rows" and form.kind == "classification" and trial.compares_numbers():
        return False
    return form.layout != "batch" and (trial.is_random() or trial.treats_columns_alike())


def _find_with_weights(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of logits that works with as many columns as it has weights."""
    if kind != "classification":
        return None
    for count in own_lengths([loaded.object, *loaded.built.values()]):
        trial = _find(replace(loaded, columns=count, built={}), kind, [])
        if trial is not None:
            trials.append(trial)
            return trial
    return None


def _find(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of the kind that works; all trials are kept."""
    pair = examples(kind, loaded.columns)
    good: list[Trial] = []
    for form in FORMS[kind]:
        trial = tried(loaded, form, pair)
        trials.append(trial)
        if trial.finite and trial.moves():
            good.append(trial)
            if kind == "box":
                best = trial.mirrors()
            else:
                best = form.targets == "dense" or kind != "classification" or trial.spares_background()
            if best:
                good.insert(0, trial)
                break
    if kind != "classification":
        return good[0] if good else None
    return _sigmoid_or_softmax(loaded, good, trials)


def _sigmoid_or_softmax(loaded: Loaded, good: list[Trial], trials: list[Trial]) -> Trial | None:
    dense = next((trial for trial in good if trial.form.targets == "dense"), None)
    if dense is not None and dense.form.takes == "logits" and dense.is_of_probabilities():
        on_p = tried(loaded, dense.form._replace(takes="probabilities"), dense.pair)
        dense = on_p if on_p.finite else dense
    if dense is not None:
        of_softmax = dense.counts_the_positive_only() if dense.form.takes != "logits" else dense.shifts()
        if not of_softmax or not dense.form.columns:
            return dense
    before: Trial | None = None  # the same form with logits
    for form in FORMS["softmax"]:
        trial = tried(loaded, form, examples("softmax", loaded.columns))
        trials.append(trial)
        usable = trial.finite and trial.moves()
        if form.takes == "logits":
            before = trial
            if usable and trial.shifts():
                return trial
        elif usable and before is not None:
            # probabilities do not change by a shift: they are taken where logits fail, or make no sense
            logs = form.takes == "log-probabilities"
            if logs and trial.is_linear():
                return trial
            if not logs and (
                not before.finite or (dense is not None and dense.form.takes == "probabilities")
            ):
                return trial
    return dense or (good[0] if good else None)


def _settled(trial: Trial, trials: list[Trial]) -> tuple[Subject, list[Finding]]:
    loaded, form, pair = trial.loaded, trial.form, trial.pair
    findings = [finding for finding in (changed_criterion(loaded), _of_probabilities(trial, trials),
                                        _columns(trial, trials), _one_column(trial), _last_bin(trial),
                                        ) if finding]  # fmt: skip
    if form.kind == "classification" and form.targets != "dense":
        missing = tried(loaded, form, (pair[0], torch.zeros_like(pair[1]))).answer.error
        if missing is not None:
            findings.append(found("no background", f"{line_of_error(missing)} ({in_a_line(missing)})"))
            trial = tried(loaded, FORMS["softmax"][0], examples("softmax", loaded.columns))
            form, pair = trial.form, trial.pair
    given = (*loaded.given.items(), *loaded.given_to_forward.items())
    chosen = {name: guess.text for name, guess in given}
    if form.says:
        chosen["called with"] = form.says
    if form.fmt != "xyxy":
        chosen["boxes"] = f"{form.fmt}, as its defaults have it"
    if loaded.swapped:
        chosen["order"] = "targets first, as its argument names say"
    classes = 4
    if form.kind in ("classification", "softmax") and form.columns:
        other = tried(loaded, form, examples(form.kind, loaded.columns + 2)).answer.error
        if other is not None:
            classes = loaded.columns
            if form.kind == "classification":
                raise NotExamined(
                    found("one number of classes", line_of_error(other), count=classes, what=in_a_line(other))
                )
            chosen["classes"] = f"{classes}, the only number that it works for"
    if inspect.isclass(loaded.object) and not torch.equal(*(trial.again(*pair) for _ in range(2))):  # type: ignore[arg-type]
        loaded = replace(loaded, fresh=True)
    subject = Subject(loaded, form, _reduction(trial), classes, chosen=chosen)
    return _region(subject), findings


def _of_probabilities(trial: Trial, trials: list[Trial]) -> Finding | None:
    form = trial.form
    if form.takes == "logits":
        return None
    on_logits = tried(trial.loaded, form._replace(takes="logits"), trial.pair)
    low, high = float(trial.pair[0].min()), float(trial.pair[0].max())
    seen = f"on logits from {low:.2g} to {high:.2g}: "
    seen += (
        on_logits.answer.shown()
        if on_logits.answer.broken
        else "an answer, but not as a loss of logits has it"
    )
    passed = {"classification": "logits.sigmoid()", "softmax": "logits.softmax(-1)"}
    remedy = "logits.log_softmax(-1)" if form.takes == "log-probabilities" else passed[form.kind]
    return found("probabilities", seen, what=form.takes, remedy=remedy)


def _columns(trial: Trial, trials: list[Trial]) -> Finding | None:
    """It takes one column only: how it fails with more."""
    failed = [one for one in trials if one.form.columns and one.answer.error is not None]
    if trial.form.columns or not failed or failed[0].answer.error is None:
        return None
    error = failed[0].answer.error
    return found("one column only", line_of_error(error), what=in_a_line(error))


def _one_column(trial: Trial) -> Finding | None:
    """What takes `(N,)` only may take `(N, 1)` for `(N, N)`."""
    if trial.form.columns:
        return None
    x, t = (one[:, :1] for one in examples("classification"))
    right, got = (
        trial.again(x, t),
        tried(trial.loaded, trial.form._replace(layout="rows"), (x, t)).answer.value,
    )
    if right is None or got is None or near(got.reshape(-1), right.reshape(-1)):
        return None
    shown = [f"{v.item():.6g}" if v.numel() == 1 else f"shape {tuple(v.shape)}" for v in (got, right)]
    return found("column spread", f"shape ({ROWS}, 1): {shown[0]}; the same numbers as ({ROWS},): {shown[1]}")


def needs_eps(subject: Subject) -> list[Finding]:
    """Whether a missing eps may be 0: asked of two equal points, or of usual numbers."""
    names = subject.loaded.names
    findings = []
    for name in names.constants:
        pair = examples(subject.kind, subject.classes if subject.kind == "softmax" else COLUMNS)
        if subject.kind == "box":
            pair = (torch.full((1, 4), 3.0), torch.full((1, 4), 3.0))
        before, names.space[name] = names.space[name], 0.0
        try:
            answer = attempt(subject, *pair)
        finally:
            names.space[name] = before
        if answer.value is not None and answer.broken:
            where = "two equal boxes without width and height" if subject.kind == "box" else "usual numbers"
            findings.append(found("eps needed", f"with {name} = 0, {where}: {answer.shown()}", name=name))
    return findings


def _at_the_last_bin(trial: Trial) -> Trial:
    logits, distances = examples("distribution")
    return tried(trial.loaded, trial.form, (logits, torch.full_like(distances, BINS)))


def _last_bin(trial: Trial) -> Finding | None:
    """Whether a distance may be exactly the last bin's: what looks one bin further then fails."""
    if trial.form.kind != "distribution" or (end := _at_the_last_bin(trial)).finite:
        return None
    if end.answer.error is not None:
        return found("last bin raises", line_of_error(end.answer.error), what=in_a_line(end.answer.error))
    return found("last bin", f"distance {BINS} with bins 0 to {BINS}")


def _reduction(trial: Trial) -> Reduction:
    value, pair = trial.answer.value, trial.pair
    assert value is not None
    if value.shape == (pair[0].shape if trial.form.kind == "classification" else pair[0].shape[:1]):
        return "none"
    twice = trial.again(*(torch.cat((one, one)) for one in pair))
    if value.numel() != 1 or twice is None:
        return "other"
    return "mean" if near(twice, value) else "sum" if near(twice, 2 * value) else "other"


def _region(subject: Subject) -> Subject:
    """The same, marked where it is a loss of regions: bounded, and no sum of what its elements cost alone."""
    if (
        subject.kind not in ("classification", "softmax")
        or subject.reduction == "none"
        or not subject.form.columns
    ):
        return subject
    forms = [
        subject.form,
        *([subject.form._replace(layout="one image")] if subject.kind == "softmax" else []),
    ]
    for form in forms:
        one = replace(subject, form=form)
        x, t = examples(subject.kind, 4)
        # two elements of one class: that a softmax ties the classes of a row is another matter
        first, second = x.clone(), x.clone()
        first[0, 0] += 3
        second[4, 0] += 3
        within = x.clone()
        within[0, 1] += 3
        values = [
            attempt(one, v, t).value
            for v in (x, first, second, first + second - x, within, first + within - x)
        ]
        wrong = (
            -60.0 * (2 * t - 1) if t.ndim > 1 else 60.0 * torch.nn.functional.one_hot((t + 1) % 4, 4).float()
        )
        worst, worse = attempt(one, wrong, t).value, attempt(one, 2 * wrong, t).value
        if worst is None or worse is None or any(v is None or v.numel() != 1 for v in values):
            continue
        v = [float(value) for value in values if value is not None]
        apart = abs(v[1] + v[2] - v[0] - v[3]) > 1e-4 * abs(v[0])
        apart |= t.ndim > 1 and abs(v[1] + v[4] - v[0] - v[5]) > 1e-4 * abs(v[0])
        if apart and near(worst, worse) and 0 < abs(float(worst - values[0])) < 2 * ROWS:  # type: ignore[operator]
            return replace(one, region=True)
    return subject


def _verdict(trials: list[Trial]) -> Finding:
    """Why nothing works."""
    errors = [trial.answer.error for trial in trials if trial.answer.error is not None]
    called = f"called with {len(trials)} forms of arguments"
    for error in errors:
        if isinstance(error, NoTensor):
            if callable(error.value):
                name = trials[0].loaded.name.rpartition(":")[2]
                return found("makes a loss", called, name=name)
            if error.value is None:
                name = trials[0].loaded.name.rpartition(":")[2]
                return found("no return", called, name=name)
            return found("not a tensor", called, what=type(error.value).__name__)
    name_error = next((error for error in errors if isinstance(error, NameError)), None)
    if name_error is not None:
        kind = "unbound" if isinstance(name_error, UnboundLocalError) else "undefined"
        return found(kind, f"{line_of_error(name_error)} ({in_a_line(name_error)})", name=name_error.name)
    for trial in trials:  # what works on tensors without gradient only

        def plain(x: torch.Tensor, t: torch.Tensor, trial: Trial = trial) -> torch.Tensor:
            return call_in_form(trial.form, trial.loaded, x, t)

        if attempt(plain, *trial.pair).value is not None and trial.answer.error is not None:
            error = trial.answer.error
            return found("raises with gradient", f"{line_of_error(error)} ({in_a_line(error)})")
    # the form with which it comes farthest is probably the one that it is meant for
    error = max(errors, key=lambda error: frame_of_error(error)[1])
    kind = "fails" if isinstance(error, SystemExit | RecursionError) else "cannot be called"
    return found(kind, line_of_error(error), count=len(trials), what=in_a_line(error))
