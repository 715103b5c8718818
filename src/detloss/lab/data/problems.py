"""What is wrong with a data set: all of it, found in one pass, and what lenient reading does about it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from detloss.lab.data.text import UNPRINTABLE

LENIENT = {
    "annotation that cannot be read": "its image is left out",
    "image that is not there": "left out",
    "image that cannot be decoded": "left out, or read as far as it goes",
    "image of another size": "left out; read at its own size where that differs by 2 pixels or less",
    "image twice": "read once",
    "wrong value": "its image, object or class is left out",
    "wrong flag": "read as 0",
    "class not known": "the object is left out",
    "class twice": "read as one class",
    "row that cannot be read": "the row is left out",
    "row with a confidence": "read without it",
    "labels without an image": "not read",
    "no labels": "read as images without objects",
    "inverted box": "its corners are swapped",
    "box that is not finite": "left out",
    "box outside its image": "left out",
}
"""Each kind of problem, and what is done about it where a data set is read leniently."""

MOST_KEPT = 100_000


class Problem(NamedTuple):
    """One thing that is wrong: its kind, the file, and where in it and what."""

    kind: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class DataError(ValueError):
    """A data set with problems, all of them; the message has the first ones, on one line."""

    def __init__(self, where: str, problems: "Problems") -> None:
        self.problems = problems
        super().__init__(_message(where, problems))


class NoImages(ValueError):
    """A split in which there is nothing."""


class Problems:
    """The problems of a data set in the order in which they were met."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[Problem] = []

    def add(self, kind: str, file: Path | str, what: str) -> None:
        """One more. Of a great many only the first are kept, and all are counted."""
        if kind not in self.counts or len(self.listed) < MOST_KEPT:
            what = UNPRINTABLE.sub("\ufffd", what)
            self.listed.append(Problem(kind, str(file), what if len(what) < 600 else f"{what[:600]} ..."))
        self.counts[kind] += 1

    def extend(self, others: "Problems") -> None:
        """All of another list, each once."""
        known = set(self.listed)
        for problem in others.listed:
            if problem not in known:
                self.add(*problem)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def kinds(self) -> list[tuple[str, int, Problem]]:
        """(kind, count, first) of each kind, the most frequent first."""
        firsts = {problem.kind: problem for problem in reversed(self.listed)}
        return [(kind, count, firsts[kind]) for kind, count in self.counts.most_common()]

    def notes(self) -> list[str]:
        """What was done about them, a line a kind."""
        return [f"{kind} ×{count}: {LENIENT[kind]} (first: {first})" for kind, count, first in self.kinds()]


def rows(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """The rows of problems.csv."""
    return [one._asdict() | {"lenient": LENIENT[one.kind]} for one in problems]


def _message(where: str, problems: Problems) -> str:
    if len(problems) == 1:
        what = LENIENT[problems.listed[0].kind]
        return f"{problems.listed[0]}; correct it, or read the data with lenient ({what})"
    kinds = problems.kinds()
    shown = "; ".join(f"{kind} ×{count} (first: {first})" for kind, count, first in kinds[:2])
    more = f"; and {len(kinds) - 2} more kinds" if len(kinds) > 2 else ""
    hint = "`detloss data check` lists all, lenient reads the data without them"
    return f"{where}: {len(problems)} problems: {shown}{more}; {hint}"
