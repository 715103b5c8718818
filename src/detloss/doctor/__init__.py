"""What anybody's loss is, and what is wrong with it."""

from detloss.doctor.diagnose import DoctorConfig, diagnose
from detloss.doctor.findings import CODES, Diagnosis, Finding

__all__ = ["CODES", "Diagnosis", "DoctorConfig", "Finding", "diagnose"]
