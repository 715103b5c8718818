"""Which kind of loss it is and in which form it is called: found by trial calls on a few numbers."""

import re
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.doctor.calling.arguments import own_lengths
from detloss.doctor.calling.form_findings import at_the_last_bin, form_findings
from detloss.doctor.calling.load import (
    COLUMNS,
    NO_GPU,
    CannotExamine,
    Loaded,
    crash,
    first_two,
    with_arguments,
)
from detloss.doctor.calling.trial import BINS, Pair, Trial, again, attempt_form, examples, near
from detloss.doctor.findings import Finding
from detloss.doctor.subject import Form, Kind, NoTensor, Subject, forms, make_subject

Wanted = Literal["classification", "box", "distribution", "auto"]


def settle(loaded: Loaded, kind: Wanted = "auto") -> tuple[Subject, list[Finding]]:
    """The subject, and what came out on the way.

    Raises:
        CannotExamine: it works in no form.
    """
    trials: list[Trial] = []
    unlikely: Trial | None = None
    for way in with_arguments(loaded):
        for one in _order(loaded, kind):
            found = _find(way, one, trials) or _find_with_weights(way, one, trials)
            if found is None:
                continue
            if kind != "auto" or _is_likely(found):
                return _settled(found, trials)
            unlikely = unlikely or found
    if unlikely is not None:
        return _settled(unlikely, trials)
    if kind in ("auto", "classification"):
        for way in with_arguments(replace(loaded, columns=2)):
            found = _find(way, "classification", [])
            if found is not None:
                return _settled(found, trials)
    lacks_gpu = [t for t in trials if t.error is not None and any(word in str(t.error) for word in NO_GPU)]
    if lacks_gpu and not loaded.on_cpu:
        subject, findings = settle(replace(loaded, on_cpu=True), kind)
        return subject, [_no_gpu(lacks_gpu[0]), *findings]
    answered = [trial for trial in trials if trial.value is not None]
    if answered:  # never a finite number: the probes say where
        return _settled(answered[0], trials)
    raise CannotExamine(_verdict(trials))


def _find_with_weights(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of logits that works with as many columns as it has weights."""
    if kind != "classification":
        return None
    for count in own_lengths(loaded):
        found = _find(replace(loaded, columns=count, built={}), kind, [])
        if found is not None:
            trials.append(found)
            return found
    return None


_LOGITS = {
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
}


def _is_likely(found: Trial) -> bool:
    """Whether no other kind need be tried."""
    form = found.form
    if form.kind == "distribution":
        return at_the_last_bin(found).finite
    if form.kind == "box" or words_of(found.loaded) & _LOGITS or found.loaded.columns != COLUMNS:
        return True
    return not form.says.startswith("(B, N, C)") and _treats_columns_alike(found)


def _verdict(trials: list[Trial]) -> Finding:
    """Why nothing works."""
    for trial in trials:
        if isinstance(trial.error, NoTensor):
            if "returned function" in str(trial.error):
                name = trial.loaded.name.rpartition(":")[2]
                return Finding(
                    "crashes",
                    "error",
                    "it returned a function: it makes a loss, and is none",
                    f"called with {trial.form.says}",
                    f"write `loss = {name}()` into the file, and examine `loss`",
                )
            nothing = "nothing" in str(trial.error)
            return Finding(
                "no-return" if nothing else "not-differentiable",
                "error",
                f"{trial.error}",
                f"called with {trial.form.says}",
                "return the loss at its end"
                if nothing
                else "return the tensor itself; no .item(), no float(...)",
            )
    # the form with which it comes farthest is probably the one that it is meant for
    first = next((t for t in trials if isinstance(t.error, NameError)), max(trials, key=_last_line))
    assert first.error is not None
    others = f" ({len(trials)} forms were tried, none works)" if len(trials) > 1 else ""
    shape = tuple(first.pair[0].shape)
    finding = crash(first.error, f"called with {first.form.says}, {shape}{others}", first.loaded.source)
    if "numpy" in str(first.error) and "grad" in str(first.error):
        remedy = "compute the loss with torch operations: no gradient comes through numpy"
        return replace(finding, code="not-differentiable", remedy=remedy)
    return replace(finding, code="undefined-name") if isinstance(first.error, NameError) else finding


def _last_line(trial: Trial) -> int:
    """The last line of the user's file that a trial reached."""
    source, error = trial.loaded.source, trial.error
    if source is None or error is None:
        return 0
    path = str(source.path.resolve())
    lines = [one.lineno or 0 for one in traceback.extract_tb(error.__traceback__) if one.filename == path]
    return max(lines, default=0)


def _no_gpu(trial: Trial) -> Finding:
    assert trial.error is not None
    where = crash(trial.error, "called", trial.loaded.source)
    return Finding(
        "device-hardcoded",
        "error",
        f"it asks for a GPU, whatever device its inputs are on: {trial.error}".splitlines()[0],
        where.evidence,
        "create tensors with device=inputs.device, or register_buffer in __init__",
    )


def _order(loaded: Loaded, kind: Wanted) -> Iterator[Kind]:
    """The kinds to try, the likeliest first."""
    if kind != "auto":
        yield kind
        return
    words = words_of(loaded)
    likely: Kind = "classification"
    if words & {"distribution", "dfl", "dist", "bins"} or {"reg_max", "n_bins"} & set(loaded.takes):
        likely = "distribution"
    elif any(re.fullmatch(r"b?box(es)?\d?|.*iou.*", word) for word in words):
        likely = "box"
    yield likely
    yield from (one for one in ("classification", "box", "distribution") if one != likely)


def words_of(loaded: Loaded) -> set[str]:
    """The words in its name and in those of its first two arguments, in small letters."""
    name = loaded.name.rpartition(":")[2].split(".")[-1]
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    words = {part.lower() for part in parts} | ({name.lower()} if "iou" in name.lower() else set())
    return words | set(re.findall(r"[a-z]+\d?", " ".join(first_two(loaded.object)).replace("_", " ")))


def _find(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of the kind that works; all trials are kept."""
    pair = examples(kind, loaded.columns)
    good: list[Trial] = []
    for form in forms(kind):
        trial = attempt_form(loaded, form, pair)
        trials.append(trial)
        if trial.finite and _moves(trial, pair):
            good.append(trial)
            if kind == "box":
                done = _mirrored(trial, pair)
            else:
                done = "class indices" not in form.says or _background_is_cheap(trial, pair)
            if done:
                good.insert(0, trial)
                break
    if kind == "box":
        return good[0] if good else None
    if kind != "classification":
        return good[0] if good else None
    return _sigmoid_or_softmax(loaded, good, trials)


def _sigmoid_or_softmax(loaded: Loaded, good: list[Trial], trials: list[Trial]) -> Trial | None:
    dense = next((trial for trial in good if "class indices" not in trial.form.says), None)
    pair = examples("classification", loaded.columns)
    if dense is not None:
        if dense.form.probabilities:
            if not _only_the_positive(dense, pair):
                return dense
        elif not _shifts(dense, pair):
            if not _clamps(dense, pair):
                return dense
            again = replace(dense.form, probabilities=True)
            wanted = (f for f in forms("classification") if f.says == f"{dense.form.says}; probabilities")
            trial = attempt_form(loaded, next(wanted, again), pair)
            return trial if trial.finite else dense
    indices = examples("softmax", loaded.columns)
    before: Trial | None = None  # the same form with logits
    for form in forms("softmax"):
        trial = attempt_form(loaded, form, indices)
        trials.append(trial)
        usable = trial.finite and _moves(trial, indices)
        if not form.probabilities:
            before = trial
            if usable and _shifts(trial, indices):
                return trial
        elif usable and before is not None:
            # probabilities do not change by a shift anyway: only what fails on logits is given them
            if "log-" in form.says and _is_linear(loaded, indices):
                return trial
            if "log-" not in form.says and not before.finite:
                return trial
    return dense or (good[0] if good else None)


def _same(trial: Trial, predictions: Tensor, targets: Tensor) -> bool:
    """Whether other arguments give the value of the trial."""
    value = again(trial, predictions, targets)
    return value is not None and trial.value is not None and near(value, trial.value)


def _moves(trial: Trial, pair: Pair) -> bool:
    """Whether its value depends on the predictions."""
    stirred = _stirred(pair[0])
    return not (_same(trial, stirred, pair[1]) and _same(trial, _stirred(stirred), pair[1]))


def _stirred(predictions: Tensor) -> Tensor:
    return predictions * 0.6 + 0.3 * predictions.roll(1, -1)


def _shifts(trial: Trial, pair: Pair) -> bool:
    """Whether a constant added to all logits of a row changes nothing: so it is for a softmax."""
    return _same(trial, pair[0] + 1.7, pair[1])


def _treats_columns_alike(trial: Trial) -> bool:
    """Whether the order of the classes is nothing to it: that of a box's four numbers is."""
    logits, targets = trial.pair
    for one in (logits, -logits, logits.flip(0), _stirred(logits)):
        for by in (1, 2):
            moved = targets.roll(by, -1) if targets.ndim > 1 else (targets + by) % logits.shape[-1]
            here, there = again(trial, one, targets), again(trial, one.roll(by, -1), moved)
            if here is None or there is None or not near(here.sum(), there.sum()):
                return False
    return True


def _is_linear(loaded: Loaded, pair: Pair) -> bool:
    """Whether twice the predictions cost twice as much: so it is where they are logarithms."""
    plain = next(iter(forms("softmax")))
    once, twice = (attempt_form(loaded, plain, (times * pair[0], pair[1])).value for times in (1, 2))
    return once is not None and twice is not None and near(2 * once, twice)


def _plain(form: Form) -> Form:
    """The same form, its predictions handed over as they are."""
    says = form.says.removesuffix("; probabilities")
    return next(one for one in forms(form.kind) if one.says == says)


def _clamps(trial: Trial, pair: Pair) -> bool:
    """Whether all that is outside of [0, 1] counts as one: so it is where probabilities are clamped."""
    wrong = 1 - 2 * pair[1]
    far, close = again(trial, 4 * wrong, pair[1]), again(trial, 2 * wrong, pair[1])
    return far is not None and close is not None and near(far, close)


def _only_the_positive(trial: Trial, pair: Pair) -> bool:
    """Whether only the probability of the true class counts: so it is for -log p of a softmax."""
    plain = _plain(trial.form)
    p = pair[0].sigmoid()
    first, second = (
        attempt_form(trial.loaded, plain, (torch.where(pair[1] > 0, p, q), pair[1])).value
        for q in (p, 0.7 * p)
    )
    return first is not None and second is not None and near(first, second)


def _mirrored(trial: Trial, pair: Pair) -> bool:
    """Whether a mirror, and a shift, of both boxes change nothing: so it is in the right format only."""

    def moved(boxes: Tensor, by: Tensor, flip: Tensor) -> Tensor:
        centre = box_convert(boxes, "xyxy", "cxcywh")
        place, size = centre.chunk(2, -1)
        return box_convert(torch.cat((place * flip + by, size), -1), "cxcywh", "xyxy")

    changes = (
        (torch.tensor([20.0, 20.0]), torch.tensor([-1.0, -1.0])),
        (torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])),
    )
    return all(_same(trial, moved(pair[0], *change), moved(pair[1], *change)) for change in changes)


def _settled(trial: Trial, trials: list[Trial]) -> tuple[Subject, list[Finding]]:
    without_class = _no_background(trial)
    if without_class is not None:
        trial = attempt_form(
            trial.loaded, next(iter(forms("softmax"))), examples("softmax", trial.loaded.columns)
        )
    loaded, form = trial.loaded, trial.form
    pair = trial.pair
    chosen = {name: guess.text for name, guess in (*loaded.given.items(), *loaded.given_to_forward.items())}
    usual = next(iter(forms(form.kind))).says
    if form.says.removesuffix("; probabilities") != usual:
        chosen["called with"] = form.says
    if form.kind == "box" and form.fmt != "xyxy":
        chosen["boxes"] = f"{form.fmt}, as its defaults have it"
    if loaded.swapped:
        chosen["order"] = "targets first, as its argument names say"
    chosen |= {name: "1e-7, since the file does not define it" for name in loaded.constants}
    chosen |= {f"mended {i}": text for i, text in enumerate(loaded.mended, 1)}
    findings = form_findings(trial, trials)
    findings += [without_class] if without_class is not None else []
    classes = 4
    if form.kind in ("classification", "softmax") and form.columns:
        other = attempt_form(loaded, form, examples(form.kind, loaded.columns + 2))
        if other.error is not None:
            classes = loaded.columns
            if form.kind == "classification":
                raise CannotExamine(_one_number_only(other))
            chosen["classes"] = f"{classes}, the only number that it works for"
    return make_subject(form, loaded, _reduction(trial, pair), chosen, BINS, classes), findings


def _one_number_only(other: Trial) -> Finding:
    assert other.error is not None
    count = other.loaded.columns
    found = crash(other.error, f"it works for {count} classes, not for {count + 2}", other.loaded.source)
    return replace(
        found,
        level="note",
        remedy="weights for each class? name one without them (weight=None, alpha a number) to examine it",
    )


def _no_background(trial: Trial) -> Finding | None:
    """A sigmoid per class that cannot be told that there is no object."""
    if trial.form.kind != "classification" or "class indices" not in trial.form.says:
        return None
    logits, targets = trial.pair
    error = attempt_form(trial.loaded, trial.form, (logits, torch.zeros_like(targets))).error
    if error is None:
        return None
    found = crash(error, "it has no background: a row without a class raises", trial.loaded.source)
    remedy = "let class index C be the background: one_hot(labels, C + 1)[:, :C]"
    return replace(found, code="breaks-empty", level="warning", remedy=remedy)


def _background_is_cheap(trial: Trial, pair: Pair) -> bool:
    """Whether a row without a class costs nothing where all logits are low: so it is called the right way."""
    value = again(trial, torch.full_like(pair[0], -20.0), torch.zeros_like(pair[1]))
    return value is not None and float(value.abs().max()) < 1e-3


def _reduction(trial: Trial, pair: Pair) -> Literal["none", "mean", "sum", "other"]:
    value = trial.value
    assert value is not None
    rows = pair[0].shape if trial.form.kind == "classification" else pair[0].shape[:1]
    if value.shape == rows:
        return "none"
    if value.numel() != 1:
        return "other"
    twice = again(trial, *(torch.cat((one, one)) for one in pair))
    if twice is None:
        return "other"
    if near(twice, value):
        return "mean"
    return "sum" if near(twice, 2 * value) else "other"
