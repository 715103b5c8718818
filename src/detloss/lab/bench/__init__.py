"""Speed and memory of the losses against their peers: `detloss bench`.

`cases` says what is measured, `peers` beside what, `measure` how, `run` in which order, `table` what is said.
"""

from detloss.lab.bench.cases import LOSSES, VARIANTS
from detloss.lab.bench.run import COLUMNS, BenchConfig, bench
from detloss.lab.bench.table import line, notes, tables

__all__ = ["COLUMNS", "LOSSES", "VARIANTS", "BenchConfig", "bench", "line", "notes", "tables"]
