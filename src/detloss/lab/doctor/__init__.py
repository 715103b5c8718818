"""What anybody's loss is, and what is wrong with it."""

from detloss.lab.doctor.catalogue import CODES
from detloss.lab.doctor.diagnose import diagnose
from detloss.lab.doctor.findings import Diagnosis, Finding

__all__ = ["CODES", "Diagnosis", "Finding", "diagnose"]
