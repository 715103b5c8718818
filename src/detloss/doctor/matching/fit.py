"""Which weighting of BCE values on labels 0 and 1 show: its factors and exponents, estimated from numbers.

Everything is in the probability of the wrong answer, q = 1-p_t, so that positives and negatives are alike.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = torch.arange(-4.0, 4.01, 0.25, dtype=torch.float64)
"""Logits that the estimates are made on."""
EXACT = 3e-3
"""The largest misfit of a logarithm that is still that law: an eps in the formula costs 1e-5 or so."""


class Law(NamedTuple):
    """value = factor · q^exponent · (BCE + epsilon q), and how far off the worst point is, relative."""

    factor: float
    exponent: float
    epsilon: float
    misfit: float


def wrong(x: Tensor, positive: bool) -> Tensor:
    """q = 1-p_t."""
    return torch.sigmoid(-x if positive else x)


def power_law(x: Tensor, value: Tensor, positive: bool) -> Law | None:
    """The law of focal loss, epsilon 0; None where the values are not positive and finite."""
    ratio = value / F.softplus(-x if positive else x)
    return straight(wrong(x, positive).log(), ratio)


def straight(log_base: Tensor, ratio: Tensor) -> Law | None:
    """log ratio as a straight line: intercept, slope."""
    if len(ratio) < 3 or not (ratio.isfinite().all() and (ratio > 0).all()):
        return None
    columns = torch.stack((torch.ones_like(log_base), log_base), 1)
    solution = torch.linalg.lstsq(columns, ratio.log().unsqueeze(1)).solution
    misfit = float((columns @ solution - ratio.log().unsqueeze(1)).abs().max())
    return Law(math.exp(float(solution[0])), float(solution[1]), 0.0, misfit)


def poly_law(x: Tensor, value: Tensor, positive: bool) -> Law | None:
    """The law of Poly-1 focal loss: for each exponent the rest is linear, the best exponent is searched."""
    if not (value.isfinite().all() and (value > 0).all()):
        return None
    q = wrong(x, positive)
    terms = torch.stack((F.softplus(-x if positive else x), q), 1)

    def solve(exponent: float) -> tuple[float, Tensor]:
        columns = (q**exponent / value).unsqueeze(1) * terms
        solution = torch.linalg.lstsq(columns, torch.ones_like(columns[:, :1])).solution
        return float((columns @ solution - 1).abs().max()), solution

    best = min((step / 10 for step in range(61)), key=lambda exponent: solve(exponent)[0])
    exponent = minimum(lambda exponent: solve(exponent)[0], max(0.0, best - 0.1), best + 0.1)
    misfit, solution = solve(exponent)
    factor = float(solution[0])
    if not factor > 0.02 * abs(float(solution[1])):  # no cross entropy is left in it
        return None
    return Law(factor, exponent, float(solution[1]) / factor, misfit)


def shifted_law(values: Callable[[Tensor], Tensor]) -> tuple[float, Law] | None:
    """The margin m of asymmetric loss on negatives, and the law of what is left: (p-m)^γ · -log(1-p+m).

    `values` is the loss of negatives at logits. None where it is nowhere 0, or has another law.
    """
    low, high = -12.0, 6.0
    ends = values(torch.tensor([low, high], dtype=torch.float64))
    if not (ends[0] == 0 and ends[1] > 0):
        return None
    for _ in range(50):
        middle = (low + high) / 2
        value = values(torch.tensor([middle], dtype=torch.float64))[0]
        low, high = (middle, high) if value == 0 else (low, middle)
    margin = float(torch.sigmoid(torch.tensor(high, dtype=torch.float64)))
    margin = tidy(margin, 1e-4)
    x = GRID[torch.gt(GRID, high + 0.5)]
    if not len(x):
        return None
    base = torch.sigmoid(x) - margin
    law = straight(base.log(), values(x) / -torch.log1p(-base))
    return None if law is None else (margin, law)


class Step(NamedTuple):
    """The law of focal loss with another exponent where p_t is small.

    value = factor · q^low · BCE where the logit of p_t is at most `below`, q^high where it is `above`.
    """

    factor: float
    low: float
    high: float
    below: float
    above: float
    misfit: float


def stepped_law(x: Tensor, value: Tensor, positive: bool) -> Step | None:
    """The law of FLSD-53, its step between two of the logits; None where there is none."""
    margin, order = (x if positive else -x).sort()
    ratio = (value / F.softplus(-x if positive else x))[order]
    if not (ratio.isfinite().all() and (ratio > 0).all()):
        return None
    log_q, ones = F.logsigmoid(-margin), torch.ones_like(margin)
    found: Step | None = None
    for first in range(3, len(x) - 2):
        low = torch.arange(len(x)) < first
        columns = torch.stack((ones, torch.where(low, log_q, 0), torch.where(low, 0, log_q)), 1)
        solution = torch.linalg.lstsq(columns, ratio.log().unsqueeze(1)).solution
        misfit = float((columns @ solution - ratio.log().unsqueeze(1)).abs().max())
        if found is None or misfit < found.misfit:
            of, under, over = (float(one) for one in solution)
            found = Step(math.exp(of), under, over, float(margin[first - 1]), float(margin[first]), misfit)
    if found is None or found.misfit > EXACT or abs(found.low - found.high) < 0.05:
        return None
    return found


def threshold(step: Step, values: Callable[[Tensor], Tensor]) -> float:
    """p_t at the step of a law: `values` is the loss of positives at logits."""
    below, above = step.below, step.above
    for _ in range(40):
        at = torch.tensor([(below + above) / 2], dtype=torch.float64)
        ratio = values(at) / F.softplus(-at) / step.factor
        log_q = F.logsigmoid(-at)
        low, high = ((ratio.log() - exponent * log_q).abs() for exponent in (step.low, step.high))
        below, above = (float(at), above) if low < high else (below, float(at))
    return tidy(float(torch.sigmoid(torch.tensor(above, dtype=torch.float64))), 1e-6)


def minimum(function: Callable[[float], float], low: float, high: float, steps: int = 60) -> float:
    """Where a function with one minimum between two bounds has it (golden section)."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def tidy(value: float, slack: float) -> float:
    """The number with the fewest decimals within `slack`: 0.25000003 is 0.25."""
    for decimals in range(8):
        if abs(round(value, decimals) - value) <= slack:
            return round(value, decimals) + 0.0
    return value
