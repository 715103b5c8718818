"""What the form in which a loss is called says about it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detloss.doctor.calling.load import changed_criterion, crash
from detloss.doctor.calling.trial import BINS, ROWS, Trial, again, attempt_form, examples, near
from detloss.doctor.findings import Finding
from detloss.doctor.subject import forms


def form_findings(trial: Trial, trials: list[Trial]) -> list[Finding]:
    """Probabilities, one column only, a missing eps, a criterion that is changed, the last bin out of reach.

    Args:
        trial: of the form that was settled on.
        trials: all that were made.
    """
    found = [changed_criterion(trial.loaded), _probabilities(trial, trials), _columns(trial, trials)]
    found += [_one_column(trial), _needs_eps(trial), _last_bin(trial)]
    return [finding for finding in found if finding is not None]


def _probabilities(trial: Trial, trials: list[Trial]) -> Finding | None:
    if not trial.form.probabilities:
        return None
    pair = trial.pair
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
    found = crash(
        failed.error, f"predictions of shape ({ROWS}, {failed.loaded.columns})", trial.loaded.source
    )
    return replace(
        found, level="warning", remedy="it works for (N,) predictions only: flatten, or index by broadcasting"
    )


def _one_column(trial: Trial) -> Finding | None:
    """What takes `(N,)` only may take `(N, 1)` for `(N, N)`."""
    if trial.form.columns:
        return None
    logits, targets = (one[:, :1] for one in examples("classification"))
    right = attempt_form(trial.loaded, trial.form, (logits, targets)).value
    shape_kept = next(iter(forms("classification")))
    if trial.form.probabilities:
        shape_kept = list(forms("classification"))[1]
    got = attempt_form(trial.loaded, shape_kept, (logits, targets)).value
    if right is None or got is None or near(got.reshape(-1), right.reshape(-1)):
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
    pair = trial.pair
    if trial.form.kind == "box":
        point = torch.tensor([[3.0, 3, 3, 3]])
        pair = (point, point.clone())
    before, space[name] = space[name], 0.0
    try:
        value = again(trial, *pair)
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


def at_the_last_bin(trial: Trial) -> Trial:
    """A loss of distributions, called with the largest distance."""
    logits, distances = examples("distribution")
    return attempt_form(trial.loaded, trial.form, (logits, torch.full_like(distances, BINS)))


def _last_bin(trial: Trial) -> Finding | None:
    """Whether a distance may be exactly the last bin's: what looks one bin further then fails."""
    if trial.form.kind != "distribution":
        return None
    end = at_the_last_bin(trial)
    if end.finite:
        return None
    remedy = "clamp without touching the argument: targets.clamp(0, n - 0.01), or weigh bin n alone there"
    if end.error is not None:
        found = crash(end.error, f"a distance of {BINS} with bins 0 to {BINS}", trial.loaded.source)
        return replace(found, level="warning", remedy=remedy)
    message = "the loss of a distance in the last bin is not finite"
    return Finding("not-finite-value", "warning", message, f"distance {BINS} with bins 0 to {BINS}", remedy)
