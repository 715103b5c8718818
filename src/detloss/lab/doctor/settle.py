"""Which kind of loss it is and in which form it is called: found by trial calls on a few numbers."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from detloss.lab.doctor.answers import attempt, is_tied
from detloss.lab.doctor.arguments import own_lengths
from detloss.lab.doctor.catalogue import found
from detloss.lab.doctor.findings import Finding, NotExamined
from detloss.lab.doctor.forms import BINS, FORMS, JOINED, Kind, NoTensor, Reduction, Subject
from detloss.lab.doctor.loading import COLUMNS, Loaded
from detloss.lab.doctor.running import frame_of_error, in_a_line, line_of_error, seen_at
from detloss.lab.doctor.trials import ROWS, Trial, few, near, tried

Wanted = Literal["classification", "box", "distribution", "auto"]
_OF_LOGITS = set("logits logit cls class label labels bce ce focal entropy prob probs dice".split())
_OF_BINS = {"distribution", "dfl", "dist", "bins"}


def settle(loaded: Loaded, kind: Wanted = "auto") -> Subject:
    """The subject; what comes out on the way is added to the findings of its names.

    Raises:
        NotExamined: it works in no form.
    """
    trials: list[Trial] = []
    unlikely: Trial | None = None
    best = -1
    for way in loaded.ways():
        for one in _order(loaded) if kind == "auto" else (kind,):
            trial = _find(way, one, trials) or _find_with_weights(way, one, trials)
            if trial is not None and (kind != "auto" or (_is_likely(trial) and trial.is_sensible())):
                return _settled(trial, trials)
            if trial is not None:
                # a faulty loss does not make sense; but a box loss mostly knows near from far
                rank = 2 * _is_likely(trial) + (trial.form.kind == "box" and trial.is_sensible())
                unlikely, best = (trial, rank) if rank > best else (unlikely, best)
    if unlikely is None and kind in ("auto", "classification"):
        pairs = (_find(way, "classification", []) for way in replace(loaded, columns=2).ways())
        unlikely = next((trial for trial in pairs if trial is not None), None)
    answered = [trial for trial in trials if trial.answer.value is not None]
    if unlikely is None and answered:
        unlikely = answered[0]  # never a finite number: the probes say where
    if unlikely is None:
        raise NotExamined(_verdict(trials))
    return _settled(unlikely, trials)


def _order(loaded: Loaded) -> list[Kind]:
    """The kinds to try, the likeliest first."""
    words = _words(loaded)
    likely: Kind = "classification"
    if _names_bins(loaded):
        likely = "distribution"
    elif any(re.fullmatch(r"b?box(es)?\d?|.*iou.*", word) for word in words):
        likely = "box"
    kinds: list[Kind] = ["classification", "box", "distribution"]
    return sorted(kinds, key=lambda one: one != likely)


def _names_bins(loaded: Loaded) -> bool:
    return bool(_words(loaded) & _OF_BINS or {"reg_max", "n_bins"} & set(loaded.takes))


def _words(loaded: Loaded) -> set[str]:
    """The words in its name and in those of its first two arguments, in small letters."""
    name = re.split(r"[:.]", loaded.name)[-1]
    words = {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}
    words |= {name.lower()} if "iou" in name.lower() else set()
    return words | set(re.findall(r"[a-z]+\d?", " ".join(loaded.first_two).replace("_", " ")))


def _is_likely(trial: Trial) -> bool:
    """Whether no other kind need be tried."""
    form = trial.form
    if form.kind == "distribution":
        return _names_bins(trial.loaded) and not _at_the_last_bin(trial).answer.broken
    if form.kind == "box":
        return trial.mirrors()
    if _words(trial.loaded) & _OF_LOGITS or trial.loaded.columns != COLUMNS:
        return True
    if form.layout == "rows" and form.kind == "classification" and trial.compares_numbers():
        return False
    return form.layout != "batch" and (trial.is_random() or trial.treats_columns_alike())


def _find_with_weights(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of logits that works with as many columns as it has weights."""
    for count in own_lengths([loaded.object, *loaded.built.values()]) if kind == "classification" else ():
        trial = _find(replace(loaded, columns=count, built={}), kind, [])
        if trial is not None:
            trials.append(trial)
            return trial
    return None


def _find(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of the kind that works, makes sense and suits it, or what comes next to that; all trials
    are kept.
    """
    good, best = None, -1
    for form in FORMS[kind]:
        trials.append(trial := tried(loaded, form, few(kind, loaded.columns)))
        if not trial.works:
            continue
        suits = kind == "distribution" or (form.targets == "dense" and kind == "classification")
        suits = suits or (trial.mirrors() if kind == "box" else trial.spares_background())
        sensible = trial.is_sensible()
        rank = sensible + 2 * suits if kind == "box" else 2 * sensible + suits  # a mirror knows its format
        if rank > best:
            good, best = trial, rank
        if best == 3:
            break
    return _sigmoid_or_softmax(loaded, good, trials) if kind == "classification" else good


def _sigmoid_or_softmax(loaded: Loaded, good: Trial | None, trials: list[Trial]) -> Trial | None:
    """The trial itself where it is of a sigmoid, or where no form of a softmax works better."""
    weak = good is None or not good.is_sensible()
    no_logits, tied = False, True  # it makes sense on probabilities only; it may be of a softmax
    if good is not None and good.form.targets == "dense":
        if good.form.takes == "logits" and good.is_of_probabilities():
            on_p = good.other(takes="probabilities")
            good = good if on_p.answer.broken else on_p
        no_logits = good.form.takes == "probabilities"
        tied = good.form.columns and (good.counts_the_positive_only() if no_logits else good.shifts())
        if not tied and good.is_sensible():
            return good
    fails = False
    unlikely: Trial | None = None
    for form in FORMS["softmax"]:
        trials.append(trial := tried(loaded, form, few("softmax", loaded.columns)))
        if form.takes == "logits":
            fails = trial.answer.broken
            suits = trial.works and trial.shifts()
        elif form.takes == "probabilities":  # a shift of logits is nothing to them
            suits = (fails or no_logits) and trial.works
        else:
            suits = trial.works and trial.is_linear()
        if suits and trial.is_sensible():
            return trial
        unlikely = unlikely or (trial if suits and tied else None)
        if weak and trial.works and trial.is_sensible():  # a softmax of its own
            weak = False
            on_p = trial.other(takes="probabilities")
            good = on_p if form.takes == "logits" and trial.is_of_probabilities() else trial
    return unlikely or good


def _settled(trial: Trial, trials: list[Trial]) -> Subject:
    loaded, findings = trial.loaded, trial.loaded.names.findings
    findings |= dict.fromkeys(_looks(trial, trials))
    if trial.form.kind == "classification" and trial.form.targets != "dense":
        missing = tried(loaded, trial.form, (trial.pair[0], torch.zeros_like(trial.pair[1]))).answer.error
        if missing is not None:
            findings.setdefault(found("no background", seen_at(missing)))
            trial = tried(loaded, FORMS["softmax"][0], few("softmax", loaded.columns))
            trial = trial.other(takes="probabilities") if trial.is_of_probabilities() else trial
    form = trial.form
    chosen = {name: guess.text for name, guess in (loaded.given | loaded.given_to_forward).items()}
    if form.says:
        chosen["called with"] = form.says
    if form.fmt != "xyxy":
        chosen["boxes"] = f"{form.fmt}, as its defaults have it"
    if loaded.swapped:
        chosen["order"] = "targets first, as its argument names say"
    classes = 4
    if form.kind in ("classification", "softmax") and form.columns:
        other = tried(loaded, form, few(form.kind, loaded.columns + 2)).answer.error
        if other is not None:
            classes = loaded.columns
            chosen["classes"] = f"{classes}, the only number that it works for"
        if other is not None and form.kind == "classification":
            what = {"count": classes, "what": in_a_line(other)}
            raise NotExamined(found("one number of classes", line_of_error(other), **what))
    first, second = (tried(loaded, form, trial.pair).answer for _ in range(2))
    fresh = inspect.isclass(loaded.object) and first.value is not None and not first.same(second)
    subject = Subject(replace(loaded, fresh=fresh), form, _reduction(trial), classes, chosen=chosen)
    if form.kind in ("classification", "softmax") and form.layout in JOINED:
        joined = trial.other(layout=JOINED[form.layout])
        of_image = replace(subject, form=joined.form)
        if joined.works and _is_blind(subject):
            return of_image
        if joined.works and joined.is_sensible() and is_tied(of_image):
            return of_image
    return subject


def _is_blind(subject: Subject) -> bool:
    """Whether images of a pixel each give no gradient."""
    pair = few(subject.kind, subject.classes)
    slope = attempt(subject, *pair, gradient=True).gradient
    return slope is not None and not slope.any()


def _looks(trial: Trial, trials: list[Trial]) -> Iterator[Finding]:
    """What is seen of a form: that it is of probabilities, of one column, or ends before the last bin."""
    form, (x, t) = trial.form, trial.pair
    if form.takes != "logits":
        on_logits = trial.other(takes="logits").answer
        answer = on_logits.shown() if on_logits.broken else "an answer, but not as a loss of logits has it"
        squash = {"log-probabilities": "log_softmax(-1)", "probabilities": "softmax(-1)"}[form.takes]
        remedy = f"logits.{'sigmoid()' if form.kind == 'classification' else squash}"
        seen = f"on logits from {x.min():.2g} to {x.max():.2g}: {answer}"
        yield found("probabilities", seen, what=form.takes, remedy=remedy)
    if not form.columns:
        errors = (one.answer.error for one in trials if one.form.columns)
        error = next((error for error in errors if error is not None), None)
        if error is not None:
            yield found("one column only", line_of_error(error), what=in_a_line(error))
        # what takes (N,) only may take (N, 1) for (N, N)
        one = tried(trial.loaded, form, (x[:, :1], t[:, :1]))
        right, got = one.answer.value, one.other(layout="rows").answer.value
        if right is not None and got is not None and not near(got.reshape(-1), right.reshape(-1)):
            a, b = (f"{v.item():.6g}" if v.numel() == 1 else f"shape {tuple(v.shape)}" for v in (got, right))
            yield found("column spread", f"shape ({ROWS}, 1): {a}; the same numbers as ({ROWS},): {b}")
    if form.kind == "distribution" and (end := _at_the_last_bin(trial).answer).broken:
        if end.error is not None:
            yield found("last bin raises", line_of_error(end.error), what=in_a_line(end.error))
        else:
            yield found("last bin", f"distance {BINS} with bins 0 to {BINS}")


def needs_eps(subject: Subject) -> Iterator[Finding]:
    """Whether a missing eps may be 0: asked of two equal points, or of usual numbers."""
    names = subject.loaded.names
    pair = few(subject.kind, subject.classes if subject.kind == "softmax" else COLUMNS)
    if subject.kind == "box":
        pair = (torch.full((1, 4), 3.0), torch.full((1, 4), 3.0))
    where = "two equal boxes without width and height" if subject.kind == "box" else "usual numbers"
    for name in names.constants:
        before, names[name] = names[name], 0.0
        answer = attempt(subject, *pair)
        names[name] = before
        if answer.value is not None and answer.broken:
            yield found("eps needed", f"with {name} = 0, {where}: {answer.shown()}", name=name)


def _at_the_last_bin(trial: Trial) -> Trial:
    """A distance that is exactly the last bin's: what looks one bin further fails."""
    return tried(trial.loaded, trial.form, (trial.pair[0], torch.full_like(trial.pair[1], BINS)))


def _reduction(trial: Trial) -> Reduction:
    value, pair = trial.answer.value, trial.pair
    assert value is not None
    if value.shape == (pair[0].shape if trial.form.kind == "classification" else pair[0].shape[:1]):
        return "none"
    twice = trial.again(*(torch.cat((one, one)) for one in pair))
    if value.numel() != 1:
        return "other"
    return "mean" if near(twice, value) else "sum" if near(twice, 2 * value) else "other"


def _verdict(trials: list[Trial]) -> Finding:
    """Why nothing works."""
    errors = [trial.answer.error for trial in trials if trial.answer.error is not None]
    called, name = f"called with {len(trials)} forms of arguments", trials[0].loaded.name.rpartition(":")[2]
    for error in errors:
        match error:
            case NoTensor(value=None):
                return found("no return", called, name=name)
            case NoTensor(value=value):
                kind = "makes a loss" if callable(value) else "not a tensor"
                return found(kind, called, name=name, what=type(value).__name__)
    # the form with which it comes farthest is probably the one that it is meant for
    farthest = max(errors, key=lambda error: frame_of_error(error)[1])
    for error in errors:
        if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
            return found("undefined", seen_at(error), name=error.name)
    if isinstance(farthest, UnboundLocalError):
        return found("unbound", seen_at(farthest))
    for trial in trials:  # what works on tensors without gradient only
        plain, raised = Subject(trial.loaded, trial.form), trial.answer.error
        if raised is not None and attempt(plain, *trial.pair).value is not None:
            return found("raises with gradient", seen_at(raised))
    kind = "call fails" if trials[0].loaded.called else "cannot be called"
    kind = "fails" if isinstance(farthest, SystemExit | RecursionError) else kind
    what = {"count": len(trials), "what": in_a_line(farthest), "call": "loss(logits, labels, ...)"}
    return found(kind, line_of_error(farthest), **what)
