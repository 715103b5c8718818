"""What the runs of a comparison allow to say: which loss is better, which are equivalent, what is undecided.

Higher is better everywhere. Runs of two losses with the same seed share data, batches and initial weights,
yet their results are hardly more alike than those of two seeds: all runs count as independent.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

Word = Literal["better", "worse", "equivalent", "undecided"]
LOOKS = (3, 5, 8)
"""The numbers of seeds at which a comparison is looked at, planned beforehand."""
ERROR_RATE = 0.05
MOST_DEGREES = 1e6  # of freedom: as good as a variance that is known
MOST_SEEDS = 100  # beyond, no number of further seeds is named


@dataclass(frozen=True)
class Verdict:
    """What is said of two losses.

    Attributes:
        first, second: their names.
        difference: mean of the first - mean of the second; nan where one has no run.
        low, high: the interval of the difference, which holds for all pairs and all looks at once; nan where
            no loss has two runs.
        verdict: of the first. "equivalent": the interval lies within ± rope; "better", "worse": it lies above
            or below 0; "undecided": neither. Where no loss has two runs it is by the interval over images.
        images_low, images_high: the same interval over other seeds and other images, or over other images
            alone where no loss has two runs; nan where nothing is known of how AP varies with the images.
        further: how many more seeds of each loss would probably decide (4 times in 5, were the difference
            what it is now); None where it is decided, or more than `MOST_SEEDS` would be needed.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    verdict: Word
    further: int | None = None
    images_low: float = math.nan
    images_high: float = math.nan

    @property
    def turned(self) -> "Verdict":
        """The same of the second against the first."""
        opposite: dict[Word, Word] = {"better": "worse", "worse": "better"}
        word = opposite.get(self.verdict, self.verdict)
        names, ends = (self.second, self.first), (-self.high, -self.low)
        others = (-self.images_high, -self.images_low)
        return Verdict(*names, -self.difference, *ends, word, self.further, *others)

    @property
    def shown(self) -> str:
        """The difference ± half of its interval, in points of 100."""
        high = self.images_high if math.isnan(self.high) else self.high
        return points(self.difference, high - self.difference, sign=True)

    @property
    def on_other_images(self) -> bool:
        """Whether the word is that of the interval over images too, or nothing is known of that."""
        if math.isnan(self.images_low):
            return True
        return {"better": self.images_low > 0, "worse": self.images_high < 0}.get(self.verdict, True)


def verdicts(
    ap: Mapping[str, Sequence[float]],
    rope: float = 0.01,
    looks: Sequence[int] = LOOKS,
    images: Mapping[str, np.ndarray] | None = None,
) -> list[Verdict]:
    """What can be said of all pairs of losses, held to 5 % error in all of it together.

    The standard error of a difference is the larger of two: from the variance pooled over all losses, and
    from the two losses' own. Its degrees of freedom are those of the pooled variance (Satterthwaite 1946).
    Tukey's studentised range (1949) covers all pairs at once, so that the leader, picked after the fact, is
    covered too. Of two losses with as many runs each this is Welch's interval. (Welch's own degrees for every
    pair, the procedure of Games and Howell, do not hold the rate of many losses with few runs each.)

    Looking again after adding seeds gives chance another turn. So the error rate is spent over the planned
    looks: 2 - 2Φ(z / √t) of it up to the part t of all seeds (Lan and DeMets 1983, after O'Brien and
    Fleming), little at the first look, most at the last. Equivalence is that the interval lies within
    ± `rope`: two one-sided tests (Schuirmann 1987), each at half of the rate.

    Where all runs share the images, the spread over seeds does not tell what other images would change.
    `images` does: a second interval adds the variance of the difference over images to that over seeds, less
    the part of it that made the runs of one loss differ and so is counted already. Where each seed has images
    of its own that part is all, and the intervals are the same. Where no loss has two runs, the images alone
    are what was sampled: then that interval makes the verdict, on these runs and no others.

    Args:
        ap: name → the value of each run, such as AP as a fraction of 1. A loss with fewer than two runs stays
            undecided: nobody knows how far its runs lie apart.
        rope: the difference that does not matter, in the unit of the values.
        looks: the numbers of runs per loss at which the comparison is looked at, increasing. One number is
            one look with the whole error rate. Fewer runs than the next look has, where some have failed,
            count as that look.
        images: name → (runs, R) values on R resamples of the images, as
            `detloss.lab.evaluate.matches.resample_images` draws them.

    Returns:
        A verdict for each pair, in the order of `ap`.

    Raises:
        ValueError: fewer than two losses, a value that is not finite, a rope that is not positive, looks that
            do not increase or end before the runs do, or `images` without one of the losses.
    """
    if len(ap) < 2:
        raise ValueError(f"ap has {len(ap)} losses; it must have at least two to compare")
    for name, values in ap.items():
        if not np.isfinite(np.asarray(values, float)).all():
            raise ValueError(f"ap of {name!r} is {list(values)}; leave out the runs without a finite value")
    if not 0 < rope < math.inf:
        raise ValueError(f"rope is {rope}; it must be a positive number, such as 0.01 for one point of AP")
    check_looks(looks, max(map(len, ap.values())))
    if images is not None and (missing := [name for name in ap if name not in images]):
        raise ValueError(f"images has no {missing[0]!r}; give the resamples of every loss of ap, or none")
    spread = _Spread.of([np.asarray(values, float) for values in ap.values()], tuple(looks))
    found = []
    for (i, first), (j, second) in itertools.combinations(enumerate(ap), 2):
        counts = len(ap[first]), len(ap[second])
        difference = float(np.mean(ap[first]) - np.mean(ap[second])) if min(counts) else math.nan
        half = spread.half_width(i, j, *counts)
        low, high = difference - half, difference + half
        wide = math.nan
        if images and min(counts):
            over_images = max(_over_images(images[first], images[second]), 0.0)
            if math.isnan(half):
                wide = _critical(len(ap), MOST_DEGREES, ERROR_RATE) * math.sqrt(over_images)
            else:
                # More degrees of freedom can outweigh a little more variance.
                wide = max(half, spread.half_width(i, j, *counts, over_images))
        others = (difference - wide, difference + wide)
        # Where no loss has two runs the images are all that was sampled; one loss with one run says nothing.
        decides = math.isnan(half) or min(counts) > 1
        word: Word = _word(*(others if math.isnan(half) else (low, high)), rope) if decides else "undecided"
        open_still = word == "undecided" and not math.isnan(low)
        further = _further(abs(difference), rope, spread, i, j, max(counts)) if open_still else None
        found.append(Verdict(first, second, difference, low, high, word, further, *others))
    return found


def _over_images(first: np.ndarray, second: np.ndarray) -> float:
    """The variance over images of the difference of two losses' means that their spread over seeds lacks.

    Runs of one loss on the same images vary over them alike, those on images of their own do not: what is not
    alike is in the spread. Below 0 where the losses share the images of each seed, for then the spread has
    what cancels in the difference; to take it out would cost about the degrees of freedom that it is worth.
    """
    counted = 0.0
    for drawn in (first, second):
        if len(drawn) > 1:
            apart = drawn - np.nanmean(drawn, axis=1, keepdims=True)
            counted += float(np.nanmean(apart.var(axis=0, ddof=1))) / len(drawn)
    return float(np.nanvar(first.mean(axis=0) - second.mean(axis=0))) - counted


def contrast(
    ap: Mapping[Any, Sequence[float]], weights: Mapping[Any, float], rope: float = 0.01, comparisons: int = 1
) -> Verdict:
    """The verdict on a weighted sum of means, such as (a + b) / 2 - c, with one look.

    The standard error is Welch's, of the weighted losses alone, or that of the variance pooled over all
    losses where it is the larger one and Bartlett's test (5 %) sees no difference between the variances; each
    with Satterthwaite's degrees of freedom. Of `comparisons` each has its part of the 5 % (Bonferroni).

    Args:
        ap: name → the value of each run; also of losses that are not compared, for the pooled variance.
        weights: name → its weight; those above 0 are the first side.
        rope: the difference that does not matter.
        comparisons: how many contrasts share the error rate.

    Returns:
        Undecided where a loss of the contrast has fewer than two runs; its `further` is None.
    """
    from scipy.stats import bartlett

    first, second = (
        " + ".join(str(k) for k, w in weights.items() if (w > 0) == side) for side in (True, False)
    )
    runs = {name: np.asarray(values, float) for name, values in ap.items()}
    if min(len(runs[name]) for name in weights) == 0:
        return Verdict(first, second, math.nan, math.nan, math.nan, "undecided")
    difference = math.fsum(weight * float(runs[name].mean()) for name, weight in weights.items())
    if min(len(runs[name]) for name in weights) == 1:
        return Verdict(first, second, difference, math.nan, math.nan, "undecided")
    spread = _Spread.of(list(runs.values()), (1,))
    parts = {name: weight**2 / len(runs[name]) for name, weight in weights.items()}
    own = {name: part * float(runs[name].var(ddof=1)) for name, part in parts.items()}
    variance, pooled = sum(own.values()), spread.pooled * sum(parts.values())
    squares = sum(value**2 / (len(runs[name]) - 1) for name, value in own.items())
    degrees = variance**2 / squares if squares > 0 else spread.degrees
    several = [values for values in runs.values() if len(values) > 1]
    if pooled > variance and min(spread.variances) > 0 and bartlett(*several).pvalue > 0.05:
        variance, degrees = pooled, spread.degrees
    half = -float(stdtrit(degrees, ERROR_RATE / comparisons / 2)) * math.sqrt(variance)
    low, high = difference - half, difference + half
    return Verdict(first, second, difference, low, high, _word(low, high, rope))


def _word(low: float, high: float, rope: float) -> Word:
    if -rope <= low and high <= rope:
        return "equivalent"
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "undecided"


def check_looks(looks: Sequence[int], runs: int) -> None:
    """ValueError where planned looks are not increasing numbers of seeds, or the runs are past the last."""
    if not looks or looks[0] < 1 or any(a >= b for a, b in itertools.pairwise(looks)):
        raise ValueError(f"looks is {tuple(looks)}; it must be increasing numbers of seeds, such as 3 5 8")
    if runs > looks[-1]:
        raise ValueError(f"looks is {tuple(looks)} and there are {runs} runs; let looks end with {runs}")


def between(found: Iterable[Verdict], first: str, second: str) -> Verdict:
    """The verdict on `first` against `second`, in whichever order `verdicts` has it."""
    for one in found:
        if (one.first, one.second) == (first, second):
            return one
        if (one.second, one.first) == (first, second):
            return one.turned
    raise ValueError(f"there is no verdict on {first!r} and {second!r}")


@dataclass(frozen=True)
class _Spread:
    """How far the runs of the losses lie apart.

    Attributes:
        variances: of each loss, nan for one with fewer than two runs.
        pooled: of all, each by its degrees of freedom; `degrees` are its own.
        runs: the most of a loss.
        looks: that are planned.
    """

    variances: np.ndarray
    pooled: float
    degrees: float
    runs: int
    looks: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[np.ndarray], looks: tuple[int, ...]) -> "_Spread":
        variances = np.array([own.var(ddof=1) if len(own) > 1 else math.nan for own in values])
        free = np.array([max(len(own) - 1.0, 0.0) for own in values])
        parts = np.where(free > 0, free * variances, 0) / max(free.sum(), 1)
        squares = float((parts**2 / np.maximum(free, 1)).sum())
        degrees = float(parts.sum()) ** 2 / squares if squares > 0 else float(free.sum())
        return cls(variances, float(parts.sum()), degrees, max(map(len, values)), looks)

    def error(self, i: int, j: int, first: int, second: int) -> float:
        """The standard error of the difference of two losses' means, of so many runs each."""
        pooled = self.pooled * (1 / first + 1 / second)
        own = self.variances[i] / first + self.variances[j] / second
        return math.sqrt(np.fmax(pooled, own))

    def half_width(self, i: int, j: int, first: int, second: int, more: float = 0.0) -> float:
        """Half of the simultaneous interval of that difference, with so much more variance; nan without runs.

        Runs that are not there yet, past the plan, count as the last look.
        """
        if not min(first, second) or not self.degrees:
            return math.nan
        runs = max(first, second, self.runs)
        look = next((look for look in self.looks if look >= runs), self.looks[-1])
        level = _level(look, self.looks)
        error = self.error(i, j, first, second)
        total = math.hypot(error, math.sqrt(more))
        # Satterthwaite once more: what is added has degrees without end.
        part = (error / total) ** 4 if more else 1.0
        degrees = min(self.degrees * (runs - 1) / (self.runs - 1) / max(part, 1e-9), MOST_DEGREES)
        return _critical(len(self.variances), degrees, level) * total


def _further(distance: float, rope: float, spread: _Spread, i: int, j: int, runs: int) -> int | None:
    """Further runs of each loss after which the interval clears 0 or fits within ± rope, 4 times in 5.

    Up to the next planned look, or past the last one any number.
    """

    def decides(n: int) -> bool:
        slack = spread.half_width(i, j, n, n) + ndtri(0.8) * spread.error(i, j, n, n)
        return bool(distance >= slack or rope - distance >= slack)

    later = [n for n in (*spread.looks, *range(spread.looks[-1] + 1, MOST_SEEDS + 1)) if n > runs]
    place = bisect.bisect_left(later, True, key=decides)
    return later[place] - runs if place < len(later) else None


def _critical(losses: int, degrees: float, level: float) -> float:
    """How many standard errors the largest of all differences stays below, except at this rate.

    Between whole quarters of an octave of the degrees it is interpolated: SciPy needs .1 s for a value.
    """
    quarter = math.floor(4 * math.log2(degrees))
    below, above = (2 ** ((quarter + k) / 4) for k in (0, 1))
    part = (1 / below - 1 / degrees) / (1 / below - 1 / above)
    low, high = (math.log(_quantile(losses, quarter + k, level)) for k in (0, 1))
    return math.exp((1 - part) * low + part * high) / math.sqrt(2)


@functools.lru_cache(maxsize=4096)
def _quantile(losses: int, quarter: int, level: float) -> float:
    from scipy.stats import studentized_range  # takes a second to import: only where a verdict is made

    return float(studentized_range.isf(level, losses, 2 ** (quarter / 4)))


@functools.lru_cache(maxsize=1024)
def _level(runs: int, looks: tuple[int, ...]) -> float:
    """The error rate of the planned look at so many runs, such that all up to it spend what is planned."""
    from scipy.optimize import brentq

    times = np.array([look for look in looks if look <= runs], float) / looks[-1]
    spent = 2 * ndtr(ndtri(ERROR_RATE / 2) / np.sqrt(times))
    bounds = [-float(ndtri(spent[0] / 2))]
    for k in range(2, len(times) + 1):
        bounds.append(brentq(_missing, 1.0, 10.0, (bounds, times[:k], 1 - spent[k - 1]), xtol=1e-4))
    return 2 * float(ndtr(-bounds[-1]))


def _missing(bound: float, bounds: list[float], times: np.ndarray, within: float) -> float:
    """P(no look is past its bound) - what it is to be; without a difference the looks are a Brownian path."""
    from scipy.stats import multivariate_normal

    upper = np.array([*bounds, bound])
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    normal = multivariate_normal(cov=covariance, seed=np.random.default_rng(0))
    return float(normal.cdf(upper, lower_limit=-upper)) - within


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width t · s / √n of its interval; nan for the mean of none and the width of one value."""
    listed = np.array(list(values), float)
    n = len(listed)
    if n < 2:
        return (float(listed[0]) if n else math.nan), math.nan
    spread = float(listed.std(ddof=1)) / math.sqrt(n)
    return float(listed.mean()), float(stdtrit(n - 1, (1 + confidence) / 2)) * spread


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


def decide(
    results: Mapping[str, Mapping[int, float]],
    rope: float = 0.01,
    looks: Sequence[int] = LOOKS,
    images: Mapping[str, np.ndarray] | None = None,
) -> list[Verdict]:
    """`verdicts` of ``{name: {seed: value}}`` without what is nan; none of fewer than two losses."""
    values = {name: list(seeds.values()) for name, seeds in measured(results).items()}
    return verdicts(values, rope, looks, images) if len(values) > 1 else []


def measured(results: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """``{name: {seed: value}}`` without the values that are nan."""
    return {
        name: {seed: value for seed, value in values.items() if not math.isnan(value)}
        for name, values in results.items()
    }
