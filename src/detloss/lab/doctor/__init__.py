"""What anybody's loss is, and what is wrong with it."""

from detloss.lab.doctor.catalogue import CODES
from detloss.lab.doctor.diagnose import DoctorConfig, diagnose
from detloss.lab.doctor.findings import Diagnosis, Finding

__all__ = ["CODES", "Diagnosis", "DoctorConfig", "Finding", "diagnose"]
