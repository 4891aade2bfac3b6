"""Latency of `hnx bench` and accuracy of `hnx eval` in one table: `hnx report`."""

from benchmarks.joined.join import JoinedReport, JoinedRow, join, read_reports
from benchmarks.joined.views import markdown, print_joined, write_joined

__all__ = ["JoinedReport", "JoinedRow", "join", "markdown", "print_joined", "read_reports", "write_joined"]
