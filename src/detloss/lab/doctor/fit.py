"""The weighting of a cross entropy, read off its values: one law for all losses of a sigmoid."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import least_squares, minimize_scalar
from torch import Tensor
from torch.nn import functional as F

GRID = torch.arange(-4.0, 4.01, 0.25, dtype=torch.float64)
"""Logits that the fit is made on."""
EXACT = 3e-3
"""The largest misfit of a value that is still that law: an eps in the formula costs 1e-5 or so."""
SAME = 2e-4
"""The same for a law of one shape only."""


class Law(NamedTuple):
    """value = factor · q^gamma · (cross entropy + epsilon q), q the probability of the wrong answer, less a
    clip.

    `misfit` is how far off the worst point is, relative.
    """

    factor: float
    gamma: float
    epsilon: float
    clip: float
    misfit: float

    @property
    def slack(self) -> float:
        """How exact the numbers are."""
        return (1e-5 if self.epsilon or self.clip else 1e-6) + 3 * self.misfit


def fit(value: Tensor, positive: bool) -> Law | None:
    """The law of the values of positives, or negatives, on the grid; None where there is none."""
    return law(F.softplus(-GRID if positive else GRID), value, clips=not positive)


def law(cross: Tensor, value: Tensor, clips: bool = False) -> Law | None:
    """The law that makes these values of cross entropies; if it `clips`, values of 0 are below the clip."""
    kept, wrong = value > 0, -torch.expm1(-cross)
    if not value.isfinite().all() or (value < 0).any() or kept.sum() < (8 if clips else len(kept)):
        return None
    # a clip shows as values of 0, or is below the grid, or there is none
    cuts: list[tuple[float, ...]] = [(), (0.0,)] if clips else [()]
    cuts = cuts if kept.all() else [(float(wrong[~kept].max()),)]
    wrongs, got = wrong[kept].numpy(), value[kept].numpy()
    size = got + 0.01 * got.max()

    def solve(gamma: float, clip: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The factors of the cross entropy and of q that fit best, and how far off each point is."""
        q = np.clip(wrongs - clip, 1e-12, 1 - 1e-12)
        columns = (q ** np.clip(gamma, -2, 12) * np.stack((-np.log1p(-q), q)[:terms]) / size).T
        factors = np.linalg.lstsq(columns, got / size)[0]
        return factors, columns @ factors - got / size

    exactly: Any = {"method": "lm", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 100}
    for terms, cut, start in product((1, 2), cuts, (0.0, 2.0, 4.0)):
        numbers = least_squares(lambda numbers: solve(*numbers)[1], (start, *cut), **exactly).x
        factors, off = solve(*numbers)
        first, last, misfit = float(factors[0]), float(factors[-1]), float(np.abs(off).max())
        clip = tidy(float(numbers[1]), 1e-4) if cut else 0.0
        if misfit < EXACT and clip >= 0 and first > 0.02 * abs(last):  # else no cross entropy is left in it
            return Law(first, float(numbers[0]), last / first if terms == 2 else 0.0, clip, misfit)
    return None


def inner_weight(cross: Tensor, value: Tensor) -> float | None:
    """The w of a value in proportion to (1 - exp(-w · cross entropy))^gamma · cross entropy.

    1 where exp(-CE) is a probability, something else where a class weight came into it; None where the value
    is none of these.
    """
    if not (value > 0).all() or not value.isfinite().all():
        return None
    costs, ratio = cross.numpy(), (value / cross).log().numpy()

    def misfit(log_w: float) -> tuple[float, float]:
        columns = np.stack((np.ones_like(costs), np.log(-np.expm1(-np.exp(log_w) * costs))), 1)
        numbers = np.linalg.lstsq(columns, ratio)[0]
        return float(np.abs(columns @ numbers - ratio).max()), float(numbers[1])

    best = minimize_scalar(lambda log_w: misfit(log_w)[0], bounds=(-3, 3), method="bounded").x
    (off, gamma), (off_at_1, gamma_at_1) = misfit(best), misfit(0.0)
    if off_at_1 < SAME and gamma_at_1 > 0.1:
        return 1.0
    return float(np.exp(best)) if off < SAME and gamma > 0.1 else None


def tidy(value: float, slack: float) -> float:
    """The number with the fewest decimals within `slack`: 0.25000003 is 0.25."""
    for decimals in range(8):
        if abs(round(value, decimals) - value) <= slack:
            return round(value, decimals) + 0.0
    return value
