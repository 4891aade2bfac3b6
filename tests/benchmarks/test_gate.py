"""Holding a report against an earlier one."""

from __future__ import annotations

import pytest

from benchmarks.gate import check_comparable, gate
from benchmarks.report import Report
from hybridnets.errors import HnxError
from tests.benchmarks.fakes import report_of as make
from tests.benchmarks.fakes import report_row as row
from tests.benchmarks.fakes import report_skipped as skipped


def test_gate_names_row_and_figures() -> None:
    sentences = gate(make(row(p50=11.0)), make(row(p50=10.0)), 5.0)
    assert sentences == [
        "openvino:fp32 forward only: p50 went from 10.000 to 11.000 ms, +10.0 % (at most +5 %)",
        "openvino:fp32 end to end: p50 went from 15.000 to 16.000 ms, +6.7 % (at most +5 %)",
    ]
    assert gate(make(row(p50=11.0)), make(row(p50=10.0)), 10.5) == []
    assert gate(make(row(p50=9.0)), make(row(p50=10.0)), 0.0) == []


def test_gate_doubts_invalid_rows_and_counts_lost_ones() -> None:
    sentences = gate(make(row(p50=20.0, valid=False, reasons=["noise"])), make(row()), 5.0)
    assert all("not valid" in sentence for sentence in sentences)
    assert "is skipped now: no weights" in gate(make(skipped()), make(row("torch")), 5.0)[0]
    assert gate(make(row(), skipped()), make(row(), skipped()), 5.0) == []


@pytest.mark.parametrize("earlier", [make(row(), threads=8), make(row(), input_sha256="cd"), make(row("torch"))])
def test_gate_refuses_other_conditions(earlier: Report) -> None:
    with pytest.raises(HnxError, match="cannot be compared"):
        gate(make(row()), earlier, 5.0)


def test_conditions_known_beforehand_are_compared_beforehand() -> None:
    check_comparable({"threads": 2}, ["openvino:fp32"], make(row()))
    with pytest.raises(HnxError, match="threads was 2, now it is 4"):
        check_comparable({"threads": 4}, ["openvino:fp32"], make(row()))
    with pytest.raises(HnxError, match="no row measured then"):
        check_comparable({}, ["torch:fp32"], make(row(), skipped()))
