"""What a few seeds allow to say: means with their 95 % interval, paired differences, a verdict.

Values come as ``{seed: value}``. One seed means the same data, batches and initial weights, so losses are
compared seed by seed: what a seed makes easy or hard for both drops out of the difference.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

BETTER, WORSE, NO_DIFFERENCE, NO_VERDICT = "better", "worse", "no difference seen", "one seed: no verdict"
NO_SEED = "no seed in common"


def student_t(degrees: int, confidence: float = 0.95) -> float:
    """The t with P(|T| ≤ t) = confidence for Student's distribution (t for 2 degrees and 0.95: 4.303).

    Bisection over the closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
    """
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"degrees must be ≥ 1 and confidence within (0, 1), got {degrees} and {confidence}")

    def within(angle: float) -> float:
        """P(|T| ≤ √degrees · tan(angle))."""
        cos, odd = math.cos(angle), degrees % 2
        term, total = (cos if odd else 1.0), 0.0
        for k in range(2 + odd, degrees + 1, 2):
            total += term
            term *= cos * cos * (k - 1) / k
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width t · s / √n of its interval; nan for the mean of none and the width of one value."""
    listed = list(values)
    n = len(listed)
    if n == 0:
        return math.nan, math.nan
    mean = math.fsum(listed) / n
    if n == 1:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in listed) / (n - 1))
    return mean, student_t(n - 1, confidence) * deviation / math.sqrt(n)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95
) -> tuple[float, float]:
    """``mean_interval`` of values - baseline over the seeds that both have."""
    return mean_interval([values[seed] - baseline[seed] for seed in values if seed in baseline], confidence)


def verdict(difference: float, half_width: float) -> str:
    """ "better", "worse", "no difference seen" where the interval holds zero, or why there is no verdict."""
    if math.isnan(difference):
        return NO_SEED
    if math.isnan(half_width):
        return NO_VERDICT
    if abs(difference) <= max(half_width, 1e-9):  # equal values differ by rounding, with an interval of 0
        return NO_DIFFERENCE
    return BETTER if difference > 0 else WORSE


@dataclass(frozen=True)
class Standing:
    """One loss in a comparison: its mean, and its paired difference to the first loss (None for the first).

    The half widths belong to 95 % intervals and are nan with one seed; what no seed tells is nan.
    """

    name: str
    seeds: int
    mean: float
    half_width: float
    difference: float | None = None
    difference_half_width: float | None = None
    verdict: str | None = None


def standings(results: Mapping[str, Mapping[int, float]]) -> list[Standing]:
    """Each loss of ``{name: {seed: value}}``, where higher is better, against the first one, also where a
    loss has no value: no other loss becomes the baseline."""
    results = measured(results)
    table: list[Standing] = []
    for name, values in results.items():
        row = Standing(name, len(values), *mean_interval(values.values()))
        if table:
            difference, width = paired_difference(values, results[table[0].name])
            row = replace(
                row,
                difference=difference,
                difference_half_width=width,
                verdict=verdict(difference, width),
            )
        table.append(row)
    return table


def short_names(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(classification loss, box loss) → what tells it from the others: one of both, or "focal+ciou"."""
    listed = set(pairs)
    if len({box for _, box in listed}) == 1:
        return {pair: pair[0] for pair in listed}
    if len({classification for classification, _ in listed}) == 1:
        return {pair: pair[1] for pair in listed}
    return {pair: "+".join(pair) for pair in listed}


def by_loss(
    pairs: Sequence[tuple[str, str]], rows: Iterable[Mapping[str, Any]], column: str = "ap"
) -> dict[str, dict[int, float]]:
    """Rows of results.csv → ``{short name: {seed: value}}``: all pairs in their order, whatever has finished.

    An empty field is nan; a pair without rows has an empty dict.
    """
    names = short_names(pairs)
    found: dict[str, dict[int, float]] = {names[pair]: {} for pair in pairs}
    for row in rows:
        value = row[column]
        name = names[row["classification_loss"], row["box_loss"]]
        found[name][int(row["seed"])] = math.nan if value == "" else float(value)
    return found


def points(value: float, half_width: float = math.nan, sign: bool = False) -> str:
    """A fraction of 1 in points of 100, with its half width where there is one: "86.1 ± 0.3"; "–" for nan.

    The spaces do not break.
    """
    if math.isnan(value):
        return "–"
    text = f"{100 * value:{'+' if sign else ''}.1f}".replace("-", "−")
    return text if math.isnan(half_width) else f"{text}\u00a0±\u00a0{100 * half_width:.1f}"


def measured(results: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """``{name: {seed: value}}`` without the values that are nan."""
    return {
        name: {seed: value for seed, value in values.items() if not math.isnan(value)}
        for name, values in results.items()
    }
