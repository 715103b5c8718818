"""What a comparison says in sentences, on the terminal and in the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from detloss.lab.statistics import (
    BETTER,
    NO_DIFFERENCE,
    NO_SEED,
    NO_VERDICT,
    WORSE,
    measured,
    paired_difference,
    points,
    standings,
    verdict,
)

NOTHING_FOUND = 0.0005
"""A mean AP below is 0.0 in points."""


def answer(ap: Mapping[str, Mapping[int, float]]) -> str:
    """The comparison of ``{name: {seed: AP}}`` in one sentence, in points of AP.

    It names the loss of highest mean AP among those with a result on every seed (the seeds that a loss
    survives may be the easy ones), and what its paired difference to each other loss says, at 95 % as in
    every table. The loss is picked after the fact: `caution` says which verdicts hold at a stricter level.
    """
    ap = measured(ap)
    table = standings(ap)
    n = len({seed for values in ap.values() for seed in values})
    if n == 0:
        return "No run has an AP."
    if not any(row.mean >= NOTHING_FOUND for row in table):
        return (
            "No loss found anything (AP 0.0): train longer or on larger images; this comparison says nothing."
        )
    complete = [row for row in table if row.seeds == n]
    if not complete:
        counts = ", ".join(f"{row.name} on {row.seeds}" for row in table)
        return f"No verdict: no loss has a result on all {n} seeds ({counts})."
    leader = max(complete, key=lambda row: row.mean)
    others = [row for row in table if row is not leader]
    missing = [
        f"{row.name} has no result{f' on {n - row.seeds} of {n} seeds' if row.seeds else ''}"
        for row in others
        if row.seeds < n
    ]
    mean = points(leader.mean, leader.half_width)
    if not others:
        return f"{leader.name} reaches AP {mean} ({n} seed{'s' if n > 1 else ''}); it stands alone."
    if n == 1:
        listed = "".join(f", {row.name} {points(row.mean)}" for row in complete if row is not leader)
        said = [f"{leader.name} has AP {mean}{listed}", *missing]
        return f"No verdict from one seed: {'; '.join(said)}."

    groups: dict[str, list[str]] = {BETTER: [], WORSE: [], NO_DIFFERENCE: [], NO_VERDICT: [], NO_SEED: []}
    for row in others:
        margin = paired_difference(ap[leader.name], ap[row.name])
        groups[verdict(*margin)].append(f"{row.name} ({points(*margin, sign=True)})")
    if len(complete) == 1:
        said = [f"{leader.name} alone has a result on every seed, AP {mean}"]
    elif missing:
        said = [f"{leader.name} has the highest mean AP of the losses with a result on every seed, {mean}"]
    else:
        said = [f"{leader.name} has the highest mean AP, {mean}"]
    for which, words in (
        (BETTER, "it is better than"),
        (WORSE, "on the seeds in common it is worse than"),
        (NO_DIFFERENCE, "no difference is seen between it and"),
        (NO_VERDICT, "one seed in common is no verdict on"),
    ):
        if groups[which]:
            said.append(f"{words} {_listed(groups[which])}")
    return f"Over {n} seeds, with 95 % intervals: {'; '.join(said + missing)}."


STILL_LEARNING = 0.02
"""A rise of AP since the evaluation before the last, from which on training is said to be short."""


def still_learning(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
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


def caution(ap: Mapping[str, Mapping[int, float]]) -> str | None:
    """What several comparisons at once do to 95 %, and which verdicts hold at Bonferroni's stricter level.

    None where fewer than two losses have a verdict against the first.
    """
    table = [row for row in standings(ap) if row.verdict not in (None, NO_VERDICT, NO_SEED)]
    if len(table) < 2:
        return None
    first, level = next(iter(ap)), 1 - 0.05 / len(table)
    held = [
        row.name
        for row in table
        if verdict(*paired_difference(ap[row.name], ap[first], level)) in (BETTER, WORSE)
    ]
    return (
        f"{len(table)} losses are compared with {first}, each at 95 %: if none differed, a difference would "
        f"still be seen somewhere in up to {min(5 * len(table), 100)} % of such comparisons. "
        f"At {100 * level:.1f} % each (Bonferroni) "
        f"{_listed(held) if held else 'none'} still differ{'s' if len(held) < 2 else ''} from {first}."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
