"""The weighting of a cross entropy, read off its values: one law for all losses of a sigmoid."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

GRID = torch.arange(-4.0, 4.01, 0.25, dtype=torch.float64)
"""Logits that the fit is made on."""
EXACT = 3e-3
"""The largest misfit of a logarithm that is still that law: an eps in the formula costs 1e-5 or so."""


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


def fit(values: Callable[[Tensor], Tensor], positive: bool) -> Law | None:
    """The law of the values of positives, or negatives, at logits; None where there is none."""
    clip, x = (0.0, GRID) if positive else _clip(values)
    if len(x) < 8:
        return None
    value, q = values(x), torch.sigmoid(-x if positive else x) - clip
    cross = -torch.log1p(-q)
    if not (value.isfinite().all() and (value > 0).all()):
        return None
    plain = _straight(q.log(), (value / cross).log())
    if plain is not None and plain[2] < EXACT:
        return Law(math.exp(plain[0]), plain[1], 0.0, clip, plain[2])

    def solve(gamma: float) -> tuple[float, Tensor]:
        columns = (q**gamma / value).unsqueeze(1) * torch.stack((cross, q), 1)
        solution = torch.linalg.lstsq(columns, torch.ones_like(columns[:, :1])).solution
        return float((columns @ solution - 1).abs().max()), solution

    best = min((step / 10 for step in range(61)), key=lambda gamma: solve(gamma)[0])
    bounds = max(0.0, best - 0.1), best + 0.1
    gamma = minimize_scalar(lambda gamma: solve(gamma)[0], bounds=bounds, options={"xatol": 1e-12}).x
    misfit, solution = solve(gamma)
    factor, extra = (float(one) for one in solution)
    if misfit > EXACT or not factor > 0.02 * abs(extra):  # no cross entropy is left in it
        return None
    return Law(factor, gamma, extra / factor, clip, misfit)


def _straight(x: Tensor, y: Tensor) -> tuple[float, float, float] | None:
    """y as a straight line of x: intercept, slope, misfit."""
    if not y.isfinite().all():
        return None
    columns = torch.stack((torch.ones_like(x), x), 1)
    solution = torch.linalg.lstsq(columns, y.unsqueeze(1)).solution
    return float(solution[0]), float(solution[1]), float((columns @ solution - y.unsqueeze(1)).abs().max())


def is_weighted(cross: Tensor, value: Tensor) -> bool:
    """Whether the values are a factor times a power of 1 - exp(-cross) times the cross entropies."""
    if not (value > 0).all():
        return False
    line = _straight((-torch.expm1(-cross)).log(), (value / cross).log())
    return line is not None and line[2] < EXACT


def _clip(values: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    """The probability below which negatives cost nothing, and the logits above it."""
    low, high = -12.0, 6.0
    ends = values(torch.tensor([low, high], dtype=torch.float64))
    if not (ends[0] == 0 and ends[1] > 0):
        return 0.0, GRID
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if values(torch.tensor([middle], dtype=torch.float64))[0] == 0 else (low, middle)
        )
    clip = tidy(float(torch.sigmoid(torch.tensor(high, dtype=torch.float64))), 1e-4)
    return clip, GRID[torch.gt(GRID, high + 0.5)]


def tidy(value: float, slack: float) -> float:
    """The number with the fewest decimals within `slack`: 0.25000003 is 0.25."""
    for decimals in range(8):
        if abs(round(value, decimals) - value) <= slack:
            return round(value, decimals) + 0.0
    return value
