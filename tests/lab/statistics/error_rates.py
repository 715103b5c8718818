"""How often a verdict is wrong, and how often it finds what is there.

`python tests/lab/statistics/error_rates.py` prints both, of simulated comparisons of normal values. "Before"
is the design that verdicts had until `detloss.lab.statistics.verdicts` made them: paired differences by seed
with Student's t, each at 95 %.
"""

import itertools
import sys
from unittest.mock import patch

import numpy as np
from scipy import stats

from detloss.lab import statistics

SD = 0.02  # of the runs of a loss, in AP: what three seeds of the demo have
SPREADS = {
    "equal": lambda losses: np.ones(losses),
    "one of 3": lambda losses: np.array([3.0] + [1.0] * (losses - 1)),
    "half of 2": lambda losses: np.array([1.0] * (losses // 2) + [2.0] * (losses - losses // 2)),
}
LOOKS = {"3": [3], "5": [5], "8": [8], "3, 5 and 8": [3, 5, 8]}


def simulated(losses, spread, seeds, number, seed=0, shift=0.0):
    """(number, losses, seeds) values; the first loss is better by `shift`."""
    values = np.random.default_rng([seed, losses, seeds]).normal(0.5, SD, (number, losses, seeds))
    values = 0.5 + (values - 0.5) * SPREADS[spread](losses)[:, None]
    values[:, 0] += shift
    return values


def said(values, looks, plan=None):
    """For each comparison the set of words that any look gave any pair."""
    found = []
    with patch.object(statistics, "_further", lambda *_: None):
        for one in values:
            words = set()
            for n in looks:
                ap = {str(k): own[:n] for k, own in enumerate(one)}
                words |= {v.verdict for v in statistics.verdicts(ap, looks=plan or (n,))}
            found.append(words)
    return found


def wrong(losses, spread, looks, number, seed=0):
    """The part of comparisons of equal losses in which one was called better than another."""
    values = simulated(losses, spread, max(looks), number, seed)
    plan = looks if len(looks) > 1 else None
    return np.mean([bool(words & {"better", "worse"}) for words in said(values, looks, plan)])


def wrong_before(losses, spread, looks, number, seed=0):
    """The same by paired differences, each pair at 95 %: the leader was held against every other loss."""
    values = simulated(losses, spread, max(looks), number, seed)
    seen = np.zeros(number, bool)
    for n in looks:
        now = values[:, :, :n]
        leader = now.mean(2).argmax(1)
        for other in range(losses):
            off = now[np.arange(number), leader] - now[:, other]
            width = stats.t.ppf(0.975, n - 1) * off.std(1, ddof=1) / np.sqrt(n)
            seen |= (leader != other) & (off.mean(1) > width)
    return seen.mean()


def found_rates(losses, seeds, sizes, number, plan=None):
    """How often the first loss, better by so many SDs of a run, is called better than the second."""
    rates = []
    for size in sizes:
        values = simulated(losses, "equal", seeds, number, shift=size * SD)
        off = values[:, 0] - values[:, 1]
        before = off.mean(1) > stats.t.ppf(0.975, seeds - 1) * off.std(1, ddof=1) / np.sqrt(seeds)
        strict = stats.t.ppf(1 - 0.025 / (losses * (losses - 1) / 2), seeds - 1)
        corrected = off.mean(1) > strict * off.std(1, ddof=1) / np.sqrt(seeds)
        with patch.object(statistics, "_further", lambda *_: None):
            now = [
                statistics.verdicts({str(k): own for k, own in enumerate(one)}, looks=plan or (seeds,))[
                    0
                ].verdict
                for one in values
            ]
        rates.append((size, before.mean(), corrected.mean(), np.mean(np.array(now) == "better")))
    return rates


def row(*cells):
    """Prints a line of a table, as it is made."""
    shown = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells)
    print(f"| {' | '.join(shown)} |", flush=True)


def main(number=4000):
    """Prints both tables as Markdown."""
    print(f"Of comparisons of equal losses, those with a wrong “better”, in % ({number} simulated each):\n")
    row("losses", "SD of their runs", "looks at seeds", "before", "now")
    row(*["---"] * 5)
    for losses, spread, (name, looks) in itertools.product((2, 5, 10), SPREADS, LOOKS.items()):
        rates = [float(100 * rate(losses, spread, looks, number)) for rate in (wrong_before, wrong)]
        row(losses, spread, name, *rates)
    print(
        "\nThe first of five losses is better by so many SDs of a run: how often it is so called beside the"
    )
    print("second, in %:\n")
    row("seeds", "SDs", "before", "before, corrected for 10 pairs", "now")
    row(*["---"] * 5)
    for seeds, (size, *rates) in itertools.chain.from_iterable(
        ((seeds, rates) for rates in found_rates(5, seeds, (1, 1.5, 2, 3, 4), number // 4))
        for seeds in (3, 5, 7, 8)
    ):
        row(seeds, size, *(f"{100 * rate:.0f}" for rate in rates))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
