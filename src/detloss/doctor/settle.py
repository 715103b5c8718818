"""Which kind of loss it is and in which form it is called: found by trial calls on a few numbers."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from detloss.boxes import box_convert
from detloss.doctor.findings import Finding
from detloss.doctor.load import (
    NO_GPU,
    CannotExamine,
    Loaded,
    changed_criterion,
    crash,
    first_two,
    with_arguments,
)
from detloss.doctor.subject import Form, Kind, NoTensor, Subject, forms, make_subject

Wanted = Literal["classification", "box", "distribution", "auto"]
ROWS, COLUMNS, BINS = 6, 3, 8
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Trial:
    """One loss in one form, and what it answered."""

    loaded: Loaded
    form: Form
    value: Tensor | None
    error: BaseException | None

    @property
    def call(self) -> Callable[[Tensor, Tensor], Tensor]:
        """As `Subject.call`."""
        return self.form.bind(self.loaded)

    @property
    def finite(self) -> bool:
        """Whether it answered with numbers."""
        return self.value is not None and bool(self.value.isfinite().all())


def settle(loaded: Loaded, kind: Wanted = "auto") -> tuple[Subject, list[Finding]]:
    """The subject, and what came out on the way.

    Raises:
        CannotExamine: it works in no form.
    """
    trials: list[Trial] = []
    for way in with_arguments(loaded):
        for one in _order(loaded, kind):
            found = _find(way, one, trials)
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


def _examples(kind: Kind) -> Pair:
    """A few predictions and targets; each row of dense targets has one positive."""
    draw = torch.Generator().manual_seed(0)
    if kind == "box":
        corners = torch.rand(ROWS, 2, generator=draw) * 6
        target = torch.cat((corners, corners + 2 + 4 * torch.rand(ROWS, 2, generator=draw)), 1)
        shift = torch.rand(ROWS, 4, generator=draw) - 0.3
        return target + shift * torch.tensor([1.0, 0.7, 1.2, 1.5]), target
    if kind == "distribution":
        return (
            torch.randn(ROWS, BINS + 1, generator=draw),
            torch.rand(ROWS, generator=draw) * (BINS - 1.2) + 0.1,
        )
    logits = 2.5 * torch.randn(ROWS, COLUMNS, generator=draw)
    classes = torch.arange(ROWS) % COLUMNS
    if kind == "softmax":
        return logits, classes
    return logits, torch.nn.functional.one_hot(classes, COLUMNS).float()


def _try(loaded: Loaded, form: Form, pair: Pair) -> Trial:
    """One call, its predictions the output of an operation, as those of a network are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            leaf = pair[0].clone().requires_grad_()
            value = form.bind(loaded)(leaf.view_as(leaf), pair[1].clone()).detach()
            return Trial(loaded, form, value, None)
        except (Exception, SystemExit) as error:
            return Trial(loaded, form, None, error)


def _find(loaded: Loaded, kind: Kind, trials: list[Trial]) -> Trial | None:
    """The first form of the kind that works; all trials are kept."""
    pair = _examples(kind)
    good = []
    for form in forms(kind):
        trial = _try(loaded, form, pair)
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
    pair = _examples("classification")
    if dense is not None:
        if dense.form.probabilities:
            if not _only_the_positive(dense, pair):
                return dense
        elif not _shifts(dense, pair):
            if not _clamps(dense, pair):
                return dense
            again = replace(dense.form, probabilities=True)
            wanted = (f for f in forms("classification") if f.says == f"{dense.form.says}; probabilities")
            trial = _try(loaded, next(wanted, again), pair)
            return trial if trial.finite else dense
    indices = _examples("softmax")
    for form in forms("softmax"):
        trial = _try(loaded, form, indices)
        trials.append(trial)
        if not trial.finite or not _moves(trial, indices):
            continue
        if _shifts(trial, indices) and ("log-" in form.says or not _is_log_input(trial, indices)):
            return trial
    return dense or (good[0] if good else None)


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-3, atol=2e-5)


def _again(trial: Trial, predictions: Tensor, targets: Tensor) -> Tensor | None:
    return _try(trial.loaded, trial.form, (predictions, targets)).value


def _same(trial: Trial, predictions: Tensor, targets: Tensor) -> bool:
    """Whether other arguments give the value of the trial."""
    value = _again(trial, predictions, targets)
    return value is not None and trial.value is not None and _near(value, trial.value)


def _moves(trial: Trial, pair: Pair) -> bool:
    """Whether its value depends on the predictions."""
    return not _same(trial, pair[0] * 0.6 + 0.3 * pair[0].roll(1, -1), pair[1])


def _shifts(trial: Trial, pair: Pair) -> bool:
    """Whether a constant added to all logits of a row changes nothing: so it is for a softmax."""
    return _same(trial, pair[0] + 1.7, pair[1])


def _is_log_input(trial: Trial, pair: Pair) -> bool:
    """Whether it is given probabilities where it wants their logarithm: its value is then linear in them."""
    if not trial.form.probabilities:
        return False
    raw = _try(trial.loaded, _plain(trial.form), (pair[0].softmax(-1), pair[1])).value
    twice = _try(trial.loaded, _plain(trial.form), (2 * pair[0].softmax(-1), pair[1])).value
    return raw is not None and twice is not None and _near(2 * raw, twice)


def _plain(form: Form) -> Form:
    """The same form, its predictions handed over as they are."""
    says = form.says.removesuffix("; probabilities")
    return next(one for one in forms(form.kind) if one.says == says)


def _clamps(trial: Trial, pair: Pair) -> bool:
    """Whether all that is outside of [0, 1] counts as one: so it is where probabilities are clamped."""
    wrong = 1 - 2 * pair[1]
    far, near = _again(trial, 4 * wrong, pair[1]), _again(trial, 2 * wrong, pair[1])
    return far is not None and near is not None and _near(far, near)


def _only_the_positive(trial: Trial, pair: Pair) -> bool:
    """Whether only the probability of the true class counts: so it is for -log p of a softmax."""
    plain = _plain(trial.form)
    p = pair[0].sigmoid()
    first, second = (
        _try(trial.loaded, plain, (torch.where(pair[1] > 0, p, q), pair[1])).value for q in (p, 0.7 * p)
    )
    return first is not None and second is not None and _near(first, second)


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
    pair = _examples(form.kind)
    chosen = {name: guess.text for name, guess in loaded.given.items()}
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
    findings = [changed_criterion(loaded), _probabilities(trial, trials), _columns(trial, trials)]
    findings += [_one_column(trial), _needs_eps(trial)]
    return subject, [finding for finding in findings if finding is not None]


def _reduction(trial: Trial, pair: Pair) -> Literal["none", "mean", "sum", "other"]:
    value = trial.value
    assert value is not None
    rows = pair[0].shape if trial.form.kind == "classification" else pair[0].shape[:1]
    if value.shape == rows:
        return "none"
    if value.numel() != 1:
        return "other"
    twice = _again(trial, *(torch.cat((one, one)) for one in pair))
    if twice is None:
        return "other"
    if _near(twice, value):
        return "mean"
    return "sum" if _near(twice, 2 * value) else "other"


def _probabilities(trial: Trial, trials: list[Trial]) -> Finding | None:
    if not trial.form.probabilities:
        return None
    pair = _examples(trial.form.kind)
    logs = "log-probabilities" in trial.form.says
    says = trial.form.says.split("; ")[0]
    on_logits = next((t for t in trials if t.form.says == says and t.form.kind == trial.form.kind), None)
    if on_logits is None or (on_logits.error is None and on_logits.finite):
        seen = "on logits it answers, but not as a loss of logits does"
    elif on_logits.error is not None:
        seen = f"on logits from {float(pair[0].min()):.2g} to {float(pair[0].max()):.2g}: {on_logits.error}"
    else:
        seen = (
            f"on logits from {float(pair[0].min()):.2g} to {float(pair[0].max()):.2g} its value is not finite"
        )
    return Finding(
        "probabilities-not-logits",
        "warning",
        f"it takes {'log-' if logs else ''}probabilities, not logits",
        " ".join(seen.split())[:300],
        "hand over "
        + (
            "logits.log_softmax(-1)"
            if logs
            else "logits.sigmoid()"
            if trial.form.kind != "softmax"
            else "softmax"
        )
        + ", or compute it from logits, which does not saturate",
    )


def _columns(trial: Trial, trials: list[Trial]) -> Finding | None:
    """It takes one column only: how it fails with more."""
    if trial.form.columns:
        return None
    failed = next((one for one in trials if one.form.columns and one.error is not None), None)
    if failed is None or failed.error is None:
        return None
    found = crash(failed.error, f"predictions of shape ({ROWS}, {COLUMNS})", trial.loaded.source)
    return replace(
        found, level="warning", remedy="it works for (N,) predictions only: flatten, or index by broadcasting"
    )


def _one_column(trial: Trial) -> Finding | None:
    """What takes `(N,)` only may take `(N, 1)` for `(N, N)`."""
    if trial.form.columns:
        return None
    logits, targets = (one[:, :1] for one in _examples("classification"))
    right = _try(trial.loaded, trial.form, (logits, targets)).value
    shape_kept = next(iter(forms("classification")))
    if trial.form.probabilities:
        shape_kept = list(forms("classification"))[1]
    got = _try(trial.loaded, shape_kept, (logits, targets)).value
    if right is None or got is None or _near(got.reshape(-1), right.reshape(-1)):
        return None
    return Finding(
        "silent-broadcast",
        "error",
        "predictions and targets of shape (N, 1) are broadcast against each other to (N, N)",
        f"shape ({ROWS}, 1): {_number(got)}; the same numbers as ({ROWS},): {_number(right)}",
        "give all factors the shape of the predictions: targets.view_as(inputs)",
    )


def _number(value: Tensor) -> str:
    return f"{value.item():.6g}" if value.numel() == 1 else f"shape {tuple(value.shape)}"


def _needs_eps(trial: Trial) -> Finding | None:
    """Whether a missing eps may be 0."""
    name = next((name for name in trial.loaded.constants if name in ("eps", "EPS", "epsilon")), "")
    space: Any = getattr(trial.loaded.object, "__globals__", None)
    if space is None and isinstance(trial.loaded.object, type):
        space = getattr(getattr(trial.loaded.object, "forward", None), "__globals__", None)
    if not name or space is None or name not in space:
        return None
    pair = _examples(trial.form.kind)
    if trial.form.kind == "box":
        point = torch.tensor([[3.0, 3, 3, 3]])
        pair = (point, point.clone())
    before, space[name] = space[name], 0.0
    try:
        value = _again(trial, *pair)
    finally:
        space[name] = before
    if value is None or value.isfinite().all():
        return None
    where = "two equal boxes without width and height" if trial.form.kind == "box" else "usual numbers"
    return Finding(
        "no-eps",
        "error",
        f"`{name}` is needed and missing: without it the value is not finite",
        f"with {name} = 0, {where}: {value.reshape(-1)[0].item()}",
        f"add an argument {name}=1e-7",
    )
