"""What of a data set is missing or broken, file by file: the work of `hnx data check`."""

from tools.check.findings import KINDS, Finding
from tools.check.report import CheckReport, SplitReport
from tools.check.run import check_dataset

__all__ = ["KINDS", "CheckReport", "Finding", "SplitReport", "check_dataset"]
