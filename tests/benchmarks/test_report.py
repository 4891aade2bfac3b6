"""Views of a report, and the gate. Replays a stored shape; nothing is measured."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.report import (
    Report,
    check_report_path,
    csv_text,
    gate,
    markdown,
    print_report,
    read_report,
    remarks,
    write_report,
)
from benchmarks.statistics import more_samples, summarise
from hybridnets.errors import ExitCode, HnxError


def row(runtime: str = "openvino", precision: str = "fp32", p50: float = 10.0, **changes: Any) -> dict[str, Any]:
    forward, whole = summarise([p50] * 30).to_json(), summarise([p50 + 5] * 30).to_json()
    return {
        "runtime": runtime,
        "precision": precision,
        "executed": precision,
        "valid": True,
        "reasons": [],
        "advice": [],
        "enough_samples": None,
        "forward_ms": forward,
        "end_to_end_ms": whole,
        "stages_ms": dict.fromkeys(("decode", "preprocess", "network", "postprocess"), forward),
        "frames_per_second": {"forward": 100.0, "end_to_end": 66.7},
        "load_ms": 123.4,
        "first_inference_ms": 20.0,
        "memory_mb": {"before_load": 50.0, "after_load": 100.0, "peak": 150.0},
        "ratio": {"baseline": "openvino:fp32", "forward": p50 / 10, "end_to_end": 1.0},
        **changes,
    }


def skipped(runtime: str = "torch", reason: str = "no weights") -> dict[str, Any]:
    return {"runtime": runtime, "precision": "fp32", "valid": False, "skipped": {"reason": reason, "fix": "export"}}


def make(*rows: dict[str, Any], **settings: Any) -> Report:
    values = {"scenario": "single", "streams": 1, "threads": 2, "input_sha256": "ab", "baseline": "openvino:fp32"}
    return Report(
        rows=rows,
        environment={"cpu": {"model": "Example 9000"}, "hnx": "0", "os": "Linux", "python": "3"},
        settings={**values, **settings},
        bundle={"name": "hybridnets_c3_384x640", "untrained": True},
        created="2020-01-01T00:00:00+00:00",
    )


def shown(report: Report, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, force_terminal=terminal, width=160, highlight=False))
    return stream.getvalue()


FULL = (
    row(),
    row("onnxruntime", p50=1234.5, valid=False, reasons=["it is [noisy]"], advice=["close other programs"]),
    skipped(),
)


def test_table_is_plain_ascii_of_120_columns_off_a_terminal() -> None:
    text = shown(make(*FULL))
    assert text.isascii()
    table = [line for line in text.splitlines() if " | " in line]
    assert table
    assert max(map(len, table)) <= 120
    assert "1234.5" in text
    assert "onnxruntime:fp32 is not valid: it is [noisy]" in text
    assert "skipped torch:fp32: no weights (fix: export)" in text
    assert "untrained" in text


def test_table_on_a_terminal_fits_as_well() -> None:
    assert "1234.5" in shown(make(*FULL), terminal=True)


def test_nothing_measured_prints_no_table() -> None:
    text = shown(make(skipped()))
    assert "p50" not in text
    assert "skipped torch:fp32" in text


def test_precision_that_differs_shows_in_the_table() -> None:
    assert "openvino:bf16 ran fp32" in shown(make(row(precision="bf16", executed="fp32")))


def test_one_sentence_says_how_many_samples_serve_all_rows() -> None:
    rows = [
        row(name, valid=False, reasons=["few"], advice=[more_samples(count)], enough_samples=count)
        for name, count in (("openvino", 60), ("onnxruntime", 180))
    ]
    advice = [line for line in remarks(make(*rows)) if line.startswith("advice")]
    assert advice == [f"advice: {more_samples(180)}"]


def test_json_round_trip(tmp_path: Path) -> None:
    report = make(*FULL)
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json").to_json() == json.loads(json.dumps(report.to_json()))


def test_nan_never_gets_into_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(make(row(load_ms=float("nan"))), tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_markdown_is_a_table_with_every_row() -> None:
    text = markdown(make(*FULL))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "| openvino:fp32 |" in text
    assert "- skipped torch:fp32" in text


def test_csv_has_a_line_for_each_row() -> None:
    records = list(csv.DictReader(io.StringIO(csv_text(make(*FULL)))))
    assert [record["runtime"] for record in records] == ["openvino", "onnxruntime", "torch"]
    assert records[0]["forward_p50_ms"] == "10.0"
    assert records[0]["forward_count"] == "30"
    assert records[2]["skipped"] == "no weights"
    assert records[2]["forward_p50_ms"] == ""


def test_unknown_suffix_is_refused() -> None:
    with pytest.raises(HnxError, match=r"\.md or \.csv") as caught:
        check_report_path(Path("report.pdf"))
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"schema_version": 99, "rows": []}', '{"schema_version": 1, "rows": [{"runtime": "a"}]}', "nonsense"],
)
def test_files_that_are_no_reports_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(HnxError):
        read_report(path)


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
