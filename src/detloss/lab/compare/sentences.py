"""What a comparison says in sentences, on the terminal and in the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detloss.lab.statistics import Verdict, Word, between, mean_interval, measured, points

NOTHING_FOUND = 0.0005
"""A mean AP below is 0.0 in points."""
BUDGETS = (0.25, 0.5, 1.0)
"""Parts of the steps at which the gap between two losses is told."""
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""Loss → for each seed, columns `step` and `ap` over its evaluations."""


def answer(
    ap: Mapping[str, Mapping[int, float]],
    found: Sequence[Verdict],
    rope: float = 0.01,
    curves: Curves | None = None,
    same_seeds: bool = True,
) -> str:
    """The comparison of ``{name: {seed: AP}}`` in one sentence, in points of AP.

    It names the loss of highest mean AP among those with a result on every seed (the seeds that a loss
    survives may be the easy ones), and the verdict on it against each other loss, which `found` has. Without
    `same_seeds` the numbers of runs are what they are, and no seed is missing.
    """
    ap = measured(ap)
    means = {name: mean_interval(values.values()) for name, values in ap.items()}
    n = len({seed for values in ap.values() for seed in values})
    needed = n if same_seeds else 1
    if n == 0:
        return "No run has an AP."
    if not any(mean >= NOTHING_FOUND for mean, _ in means.values()):
        return (
            "No loss found anything (AP 0.0): train longer or on larger images; this comparison says nothing."
        )
    complete = [name for name, values in ap.items() if len(values) >= needed]
    if not complete:
        counts = ", ".join(f"{name} on {len(values)}" for name, values in ap.items())
        return f"No verdict: no loss has a result on all {n} seeds ({counts})."
    leader = max(complete, key=lambda name: means[name][0])
    others = [name for name in ap if name != leader]
    missing = [
        f"{name} has no result{f' on {n - len(ap[name])} of {n} seeds' if ap[name] else ''}"
        for name in others
        if len(ap[name]) < needed
    ]
    mean = points(*means[leader])
    if not others:
        return f"{leader} reaches AP {mean} ({n} seed{'s' if n > 1 else ''}); it stands alone."
    if n == 1 and all(math.isnan(one.images_low) for one in found):
        listed = "".join(f", {name} {points(means[name][0])}" for name in complete if name != leader)
        return f"No verdict from one seed: {'; '.join([f'{leader} has AP {mean}{listed}', *missing])}."
    groups: dict[Word, list[str]] = {"better": [], "worse": [], "equivalent": [], "undecided": []}
    for name in others:
        if ap[name]:
            one = between(found, leader, name)
            word = course(gaps(curves, leader, name)) if curves else ""
            told = f"{one.shown}{f', {word}' if word else ''}{_images(one)}{_further(one)}"
            groups[one.verdict].append(f"{name} ({told})")
    if len(complete) == 1:
        said = [f"{leader} alone has a result on every seed, AP {mean}"]
    elif missing:
        said = [f"{leader} has the highest mean AP of the losses with a result on every seed, {mean}"]
    else:
        said = [f"{leader} has the highest mean AP, {mean}"]
    words: dict[Word, str] = {
        "better": "it is better than",
        "worse": "it is worse than",
        "equivalent": f"it is equivalent, within {100 * rope:g} AP, to",
        "undecided": "undecided is which is better, it or",
    }
    said += [f"{words[word]} {_listed(names)}" for word, names in groups.items() if names]
    if n == 1:
        return f"{ONE_RUN} Over other images: {'; '.join(said + missing)}."
    fewest = min(len(values) for values in ap.values() if values)
    few = "" if same_seeds or fewest == n else f"{fewest} to "
    return f"Over {few}{n} seeds: {'; '.join(said + missing)}."


ONE_RUN = "There is one run of each, so this is on these runs, not on their losses: another seed may turn it."


def _images(one: Verdict) -> str:
    if math.isnan(one.images_high) or math.isnan(one.high) or one.images_high - one.high < NOTHING_FOUND:
        return ""
    half = points(one.images_high - one.difference)
    return f", ± {half} over images too" + ("" if one.on_other_images else ": not certain of other images")


def gaps(curves: Curves, first: str, second: str) -> list[float]:
    """Mean AP of the first loss - that of the second after a quarter, half and all of the steps.

    Between two evaluations a straight line; nan before the first one, and for a loss without runs.
    """
    ends = [float(run["step"][-1]) for name in (first, second) for run in curves[name] if len(run["step"])]
    means = []
    for name in (first, second):
        at = [
            np.interp(np.round(np.array(BUDGETS) * max(ends)), run["step"], run["ap"], left=math.nan)
            for run in curves[name]
            if len(run["step"])
        ]
        means.append(np.mean(at, axis=0) if at else np.full(len(BUDGETS), math.nan))
    return [float(gap) for gap in means[0] - means[1]]


def course(gap: Sequence[float]) -> str:
    """What becomes of a gap as training goes on: "growing", "shrinking", "reversed", "steady", or "".

    Reversed: it was on the other side at a quarter or at half of the steps. Growing, shrinking: by a quarter
    of itself or more since half of the steps.
    """
    _, half, end = gap
    if math.isnan(half) or math.isnan(end) or abs(end) < NOTHING_FOUND:
        return ""
    if any(before * end < 0 and abs(before) >= NOTHING_FOUND for before in gap[:-1]):
        return "reversed"
    ratio = abs(half / end)
    return "shrinking" if ratio > 1.25 else "growing" if ratio < 0.8 else "steady"


def _further(one: Verdict) -> str:
    if one.verdict != "undecided" or math.isnan(one.low):
        return ""
    if one.further is None:
        return "; no number of seeds in reach would decide"
    return f"; {one.further} more seed{'s' * (one.further > 1)} would probably decide"


def past_the_plan(found: Sequence[Verdict], seeds: int, looks: Sequence[int]) -> str | None:
    """What to do where more seeds than the last planned look has would decide: its folder takes no more.

    Args:
        found: the verdicts.
        seeds: of each loss, so far.
        looks: the planned numbers of seeds.
    """
    needed = [seeds + one.further for one in found if one.further and seeds + one.further > looks[-1]]
    if not needed:
        return None
    plan = " ".join(map(str, [*looks, min(needed)]))
    return (
        f"More than the {looks[-1]} planned seeds would be needed to decide {len(needed)} of the pairs, "
        f"{min(needed)} or more. That is another comparison, in another folder, planned from its start: "
        f"--looks {plan} --seeds {min(needed)}."
    )


STILL_LEARNING = 0.02
"""A rise of AP since the evaluation before the last, from which on training is said to be short."""


def still_learning(curves: Curves) -> str | None:
    """A warning where AP was still rising at the end: then the order says who learns fast, not who gets far.

    Args:
        curves: loss → for each seed, columns `step` and `ap` over its evaluations.

    Returns:
        None where there was one evaluation, or the mean over seeds rose by less than two points for each.
    """
    rises, part = {}, 0.0
    for name, seeds in curves.items():
        gains = [float(one["ap"][-1]) - float(one["ap"][-2]) for one in seeds if len(one["ap"]) > 1]
        gains = [gain for gain in gains if not math.isnan(gain)]
        if gains:
            rises[name] = math.fsum(gains) / len(gains)
            last = next(one["step"] for one in seeds if len(one["step"]) > 1)
            part = 1 - float(last[-2]) / float(last[-1])
    rising = {name: rise for name, rise in rises.items() if rise >= STILL_LEARNING}
    if not rising:
        return None
    listed = _listed([f"{points(rise)} ({name})" for name, rise in rising.items()])
    return (
        f"Still learning: in the last {100 * part:.0f} % of the steps AP rose by {listed} points. This says "
        "who learns fast as much as who gets far; raise --steps."
    )


UNEQUAL_CLIPPING = 0.2
"""A difference in the part of clipped steps from which on it is said."""


def unequal_clipping(clipped: Mapping[str, Sequence[float]]) -> str | None:
    """A warning where gradients of one loss were clipped far more often than those of another.

    Args:
        clipped: loss → for each run, the part of its steps that were clipped.
    """
    means = {name: float(np.mean(parts)) for name, parts in clipped.items() if len(parts)}
    if not means or max(means.values()) - min(means.values()) < UNEQUAL_CLIPPING:
        return None
    listed = _listed([f"{100 * part:.0f} % ({name})" for name, part in means.items()])
    return (
        f"Clipped unequally: gradients were clipped on {listed} of the steps. A clipped loss trains as with "
        "a lower learning rate; leave out --clip, or clip none with --clip-quantile 1."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
