"""What a loss was found to be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from detloss.doctor.findings import Finding

TOLERANCE = 1e-3
"""The largest relative deviation at which a loss equals a known one: an eps costs 1e-6 to 1e-4."""


@dataclass(frozen=True)
class Match:
    """What a loss is.

    Attributes:
        name: the known loss that it equals, None where it equals none.
        nearest: the known loss that comes nearest.
        error: the largest deviation of its values from that one's, relative.
        convention: what it follows in detail, in plain words and numbers; goes into JSON.
        reference: the known loss with this convention, one value per row: `(M,)` logits and targets, or rows
            of what `Subject.call` takes; None where there is none.
        findings: where it differs from the peer it was to be like.
    """

    name: str | None
    nearest: str
    error: float
    convention: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[Tensor, Tensor], Tensor] | None = None
    findings: tuple[Finding, ...] = ()


def deviation(got: Tensor, expected: Tensor) -> float:
    """The largest |got - expected| relative to |expected| + 1 % of its largest; infinite where not finite."""
    if got.shape != expected.shape or not got.isfinite().all():
        return float("inf")
    got, expected = got.double(), expected.double()
    size = expected.abs()
    return float(((got - expected).abs() / (size + 0.01 * size.max() + 1e-12)).max())
