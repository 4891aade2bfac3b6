"""--max-drop."""

from __future__ import annotations

from collections.abc import Collection

from benchmarks.accuracy.gate import lost, not_compared
from benchmarks.accuracy.report import EvalReport
from tests.benchmarks.accuracy.eval_fakes import drop, report_of, report_row, skipped_row

BASE = report_row()


def gate(report: EvalReport, max_drop: float, required: Collection[tuple[str, str]] = ()) -> list[str]:
    """Every reason of `hnx eval --max-drop` not to pass."""
    return not_compared(report, required) + lost(report, max_drop)


def test_a_drop_up_to_the_limit_passes() -> None:
    report = report_of(BASE, report_row("torch", drop=drop(map50=0.5, map=-3, road=0.0, lane=0.49)))
    assert gate(report, 0.5) == []


def test_each_figure_that_lost_more_is_named_with_its_interval() -> None:
    report = report_of(BASE, report_row("torch", "bf16", drop=drop(map50=0.2, map=0.6, road=0.1, lane=2.0)))
    first, second = gate(report, 0.5)
    assert "torch:bf16 mAP50-95: 0.60 points below openvino:fp32, 95 % interval -0.40 to +1.60" in first
    assert "torch:bf16 lane IoU: 2.00 points" in second
    assert "at most 0.5" in second


def test_figures_that_are_not_watched_do_not_matter() -> None:
    report = report_of(BASE, report_row("torch", drop=drop(r=50, acc=50)))
    assert gate(report, 0) == []


def test_without_intervals() -> None:
    lost = {"baseline": "openvino:fp32", "metrics": {"mAP50": {"points": 3.0, "interval": None}}}
    (sentence,) = gate(report_of(BASE, report_row("torch", drop=lost)), 0)
    assert "interval" not in sentence


def test_rows_that_did_not_run() -> None:
    failed = skipped_row("torch", "it died", failed=True)
    absent = skipped_row("onnxruntime", "it is not installed")
    fine = report_row("opencv-dnn", drop=drop())
    report = report_of(BASE, fine, failed, absent)
    assert gate(report, 1) == ["torch:fp32 did not run: it died"]
    assert len(gate(report, 1, {("onnxruntime", "fp32")})) == 2


def test_a_baseline_alone_is_no_pass() -> None:
    report = report_of(BASE, skipped_row("torch", "no bf16 here"))
    assert gate(report, 1) == ["no row ran beside openvino:fp32: nothing was compared with it"]
    assert gate(report_of(BASE, report_row("torch", drop=drop())), 1) == []


def test_no_baseline_is_no_pass() -> None:
    report = report_of(BASE, settings={"baseline": None, "watched": []})
    assert gate(report, 1) == ["there is no baseline row to compare with"]
