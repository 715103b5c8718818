"""The report of a comparison: figures and one self-contained page."""

from detloss.report.page import write_report
from detloss.report.results import save_samples

__all__ = ["save_samples", "write_report"]
