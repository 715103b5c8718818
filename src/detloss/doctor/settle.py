"""Which kind of loss it is and in which form it is called: found by trial calls on a few numbers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.doctor.findings import Finding
from detloss.doctor.form_findings import form_findings
from detloss.doctor.load import (
    NO_GPU,
    CannotExamine,
    Loaded,
    crash,
    first_two,
    with_arguments,
)
from detloss.doctor.subject import Form, Kind, NoTensor, Subject, forms, make_subject
from detloss.doctor.trial import BINS, Pair, Trial, again, attempt_form, examples, near

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
            found = _find(way, one, trials)
            if found is None:
                continue
            if kind != "auto" or one != "classification" or _treats_columns_alike(found):
                return _settled(found, trials)
            unlikely = unlikely or found
    if unlikely is not None:
        return _settled(unlikely, trials)
    lacks_gpu = [t for t in trials if t.error is not None and any(word in str(t.error) for word in NO_GPU)]
    if lacks_gpu and not loaded.on_cpu:
        subject, findings = settle(replace(loaded, on_cpu=True), kind)
        return subject, [_no_gpu(lacks_gpu[0]), *findings]
    answered = [trial for trial in trials if trial.value is not None]
    if answered:  # never a finite number: the probes say where
        return _settled(answered[0], trials)
    raise CannotExamine(_verdict(trials))


def _verdict(trials: list[Trial]) -> Finding:
    """Why nothing works."""
    for trial in trials:
        if isinstance(trial.error, NoTensor):
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
    first = next((t for t in trials if isinstance(t.error, NameError)), trials[0])
    assert first.error is not None
    others = f" ({len(trials)} forms were tried, none works)" if len(trials) > 1 else ""
    finding = crash(first.error, f"called with {first.form.says}{others}", first.loaded.source)
    return replace(finding, code="undefined-name") if isinstance(first.error, NameError) else finding


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
    name = loaded.name.rpartition(":")[2].split(".")[-1]
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower().replace("_", " ")))
    words |= set(re.findall(r"[a-z]+", " ".join(first_two(loaded.object)).replace("_", " ")))
    likely: Kind = "classification"
    if words & {"distribution", "dfl", "dist", "bins"} or {"reg_max", "n_bins"} & set(loaded.takes):
        likely = "distribution"
    elif any(re.fullmatch(r"(b?box(es)?\d?|[a-z]{0,2}iou|[a-z]{0,2}iou.*)", word) for word in words):
        likely = "box"
    yield likely
    yield from (one for one in ("classification", "box", "distribution") if one != likely)


def _find(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of the kind that works; all trials are kept."""
    pair = examples(kind)
    good = []
    for form in forms(kind):
        trial = attempt_form(loaded, form, pair)
        trials.append(trial)
        if trial.finite and _moves(trial, pair):
            good.append(trial)
            if kind != "box" or _mirrored(trial, pair):
                break
    if kind == "box":
        return next((trial for trial in good if _mirrored(trial, pair)), good[0] if good else None)
    if kind != "classification":
        return good[0] if good else None
    return _sigmoid_or_softmax(loaded, good, trials)


def _sigmoid_or_softmax(loaded: Loaded, good: list[Trial], trials: list[Trial]) -> Trial | None:
    dense = next((trial for trial in good if "class indices" not in trial.form.says), None)
    pair = examples("classification")
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
    indices = examples("softmax")
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
    return not _same(trial, _stirred(pair[0]), pair[1])


def _stirred(predictions: Tensor) -> Tensor:
    return predictions * 0.6 + 0.3 * predictions.roll(1, -1)


def _shifts(trial: Trial, pair: Pair) -> bool:
    """Whether a constant added to all logits of a row changes nothing: so it is for a softmax."""
    return _same(trial, pair[0] + 1.7, pair[1])


def _treats_columns_alike(trial: Trial) -> bool:
    """Whether the order of the classes is nothing to it: that of a box's four numbers is."""
    logits, targets = examples(trial.form.kind)
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
    loaded, form = trial.loaded, trial.form
    pair = examples(form.kind)
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
    subject = make_subject(form, loaded, _reduction(trial, pair), chosen, BINS)
    return subject, form_findings(trial, trials)


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
