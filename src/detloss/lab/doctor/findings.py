"""What the doctor says: findings, each with its evidence and a remedy."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


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


class NotExamined(Exception):
    """The examination ends here, with this finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


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
        curve: the loss beside the nearest known one, see `detloss.lab.doctor.curve`; None where there is
            none.
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

    @property
    def status(self) -> Literal["errors", "not examined", "no error"]:
        """What came out: where it could not be called, the finding of that name says why, and the way on."""
        unknown = any(finding.code == "not-examined" for finding in self.findings)
        return "errors" if self.failed else "not examined" if unknown else "no error"

    def to_dict(self) -> dict[str, Any]:
        """What `detloss doctor --json` prints."""
        findings = [asdict(finding) for finding in self.findings]
        return {
            "status": self.status,
            "matches": self.matches,
            "convention": self.convention,
            "findings": findings,
        }
