"""What the doctor says: findings, each with its evidence and a remedy."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note"]

CODES = (
    "alpha-inverted",
    "probabilities-not-logits",
    "not-finite-value",
    "not-finite-gradient",
    "wrong-gradient",
    "mutates-input",
    "device-hardcoded",
    "dtype-hardcoded",
    "python-loop",
    "no-return",
    "undefined-name",
    "dead-expression",
    "no-eps",
    "similarity-not-loss",
    "soft-target-minimiser",
    "silent-broadcast",
    "breaks-empty",
    "breaks-half",
    "breaks-noncontiguous",
    "not-differentiable",
    "memory",
    "reduction",
    "hangs",
    "crashes",
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or good to know.

    Attributes:
        code: one of `CODES`.
        level: error: training is wrong or stops; warning: wrong in some uses; note: good to know.
        message: what it is, in a sentence.
        evidence: what was seen: the line of source, or the input, the number got and the number expected.
        remedy: what to do, in a line.
    """

    code: str
    level: Level
    message: str
    evidence: str
    remedy: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"code is {self.code!r}; it may be {', '.join(CODES)}")


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor says of one loss.

    Attributes:
        subject: as the user named it.
        matches: short name of the known loss that it equals ("focal", "giou"), or None.
        convention: what it follows in detail: alpha, gamma, reduction, logits or probabilities, ...
        findings: errors first.
        notes: what was chosen for the user, what the loss prints, what was not examined.
        checked: what was looked at and found right.
        curve: the loss beside the nearest known one, see `detloss.doctor.curve`; None where there is none.
    """

    subject: str
    matches: str | None
    convention: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    curve: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """What `detloss doctor --json` prints."""
        return {
            "matches": self.matches,
            "convention": self.convention,
            "findings": [asdict(finding) for finding in self.findings],
        }
