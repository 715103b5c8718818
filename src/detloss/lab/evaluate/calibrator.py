"""Scores made into probabilities after training: temperature, Platt scaling, isotonic regression."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.special import expit, logit

from detloss.lab.records import from_dict

Method = Literal["temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Calibrator:
    """A rising function from scores to probabilities, the same for all classes.

    Attributes:
        method: "temperature" or "platt": sigmoid(scale · logit(score) + shift), the first without a shift;
            "isotonic": a line through the points (scores, probabilities), level beyond both ends.
        scale, shift: of the first two.
        scores, probabilities: of the third, both rising.
    """

    method: Method
    scale: float = 1.0
    shift: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        x, y = np.array(self.scores), np.array(self.probabilities)
        if not (np.isfinite(self.scale) and np.isfinite(self.shift) and self.scale >= 0):
            raise ValueError(f"scale {self.scale}, shift {self.shift}: they are finite, scale 0 or more")
        if len(x) != len(y) or (self.method == "isotonic" and not len(x)):
            raise ValueError(
                f"{len(x)} scores and {len(y)} probabilities: give as many of each, at least one"
            )
        if not all(((v >= 0) & (v <= 1)).all() and (np.diff(v) >= 0).all() for v in (x, y)):
            raise ValueError("scores and probabilities are rising numbers from 0 to 1")

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(n,) probabilities of (n,) scores in [0, 1], in the dtype of the scores."""
        if self.method == "isotonic":
            values = np.interp(scores, self.scores, self.probabilities)
        else:
            values = expit(self.scale * _logit(scores) + self.shift)
        result: np.ndarray = values.astype(scores.dtype)
        return result


@dataclass(frozen=True)
class Calibrators:
    """What `detloss calibration --fit` leaves in `calibrator.json`.

    Attributes:
        temperature, platt, isotonic: the calibrators.
        data: what they were fitted on, in words: these images cannot judge them.
        images, detections: how many they were fitted on.
        threshold: the lowest score of those; below it they say what the curve goes on to.
    """

    temperature: Calibrator
    platt: Calibrator
    isotonic: Calibrator
    data: str
    images: int
    detections: int
    threshold: float

    def __post_init__(self) -> None:
        for method in METHODS:
            if (own := getattr(self, method).method) != method:
                raise ValueError(f"{method} has the method {own!r}; it must be {method!r}")

    @classmethod
    def load(cls, file: Path) -> Calibrators:
        """Read `calibrator.json`.

        Raises:
            ValueError: it is not such a file.
        """
        try:
            return from_dict(cls, json.loads(file.read_text(encoding="utf-8")), "its content")
        except OSError as error:
            what = error.strerror
        except ValueError as error:
            what = str(error)
        raise ValueError(f"{file} is not a calibrator ({what}); `detloss calibration RUN --fit` writes one")


def fit(scores: np.ndarray, right: np.ndarray, method: Method = "platt") -> Calibrator:
    """Fit a calibrator to detections of which it is known whether they are right.

    Temperature (Guo et al. 2017, 1706.04599) and Platt scaling minimise the cross entropy. Its targets are
    Platt's (1999), (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2) for N₊ right and N₋ wrong detections: the minimum is
    finite also where a score parts them. Isotonic regression is the rising function of least squared error.

    Args:
        scores: (n,) in [0, 1].
        right: (n,) True for a right detection.
        method: which.

    Raises:
        ValueError: no detections.
    """
    from scipy.optimize import isotonic_regression, minimize  # slow to import

    if not len(scores):
        raise ValueError("scores is empty; a calibrator needs detections to learn from")
    right = right.astype(bool)
    if method == "isotonic":
        knots, place, weight = np.unique(scores, return_inverse=True, return_counts=True)
        values = isotonic_regression(np.bincount(place, weights=right) / weight, weights=weight).x
        # Of each level the two ends say all.
        ends = np.ones(len(knots), bool)
        ends[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
        return Calibrator(method, 1.0, 0.0, tuple(knots[ends].tolist()), tuple(values[ends].tolist()))
    z, positive = _logit(scores), int(right.sum())
    targets = np.where(right, (positive + 1) / (positive + 2), 1 / (len(right) - positive + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross entropy and its gradient."""
        a, b = (*parameters, 0.0)[:2]
        logits = a * z + b
        slope = (expit(logits) - targets) / len(z)
        value = np.mean(np.logaddexp(0, logits) - targets * logits)
        return float(value), np.array([slope @ z, slope.sum()])[: len(parameters)]

    start, bounds = (
        ([1.0], [(0, None)]) if method == "temperature" else ([1.0, 0.0], [(0, None), (None, None)])
    )
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-12})
    scale, shift = (*map(float, found.x), 0.0)[:2]
    return Calibrator(method, scale, shift)


def cross_fitted(
    scores: np.ndarray, right: np.ndarray, image: np.ndarray, method: Method = "platt", seed: int = 0
) -> np.ndarray:
    """Probabilities of all detections, of each half of the images by a calibrator fitted on the other half.

    Without that, a calibrator would be judged by what it learned from. `image`, (n,), says which image each
    detection is of. A half without detections leaves the other's scores as they are.
    """
    images = np.unique(image)
    first = np.random.default_rng(seed).permutation(images)[: len(images) // 2]
    half = np.isin(image, first)
    result = scores.copy()
    for own in (half, ~half):
        if own.any() and not own.all():
            result[own] = fit(scores[~own], right[~own], method)(scores[own])
    return result


def _logit(scores: np.ndarray) -> np.ndarray:
    """Scores are float32: 0 and 1 stand for what is nearer to them than its resolution."""
    values: np.ndarray = logit(np.clip(scores.astype(np.float64), _EPS, 1 - _EPS))
    return values
